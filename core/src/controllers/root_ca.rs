//! The root CA publisher: every active namespace has a ConfigMap `kube-root-ca.crt` with the certificates by which its
//! pods trust the API server.
//!
//! Source: kubernetes `pkg/controller/certificates/rootcacertpublisher`.

use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;
use serde_json::{Value, json};

use super::namespace::namespace_with;
use super::{Controller, Plan, Write};
use crate::api::Subresource;
use crate::client::{Change, Views, Watched};
use crate::machine::Now;
use crate::object::{Kind, Object, ObjectKey, is_namespace_ending};

/// Name of the ConfigMap.
pub(crate) const NAME: &str = "kube-root-ca.crt";
/// Its key.
pub(crate) const KEY: &str = "ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                           endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                           guaranteed across distributions of Kubernetes clusters.";

static WATCHED: &[Watched] =
    &[Watched { kind: Kind::NAMESPACE, indexes: &[] }, Watched { kind: Kind::CONFIG_MAP, indexes: &[] }];

/// Publishes certificates. Keys are namespaces.
#[derive(Debug)]
pub struct RootCaPublisher {
    certificates: Rc<str>,
}

impl RootCaPublisher {
    /// A publisher of these certificates, PEM.
    pub fn new(certificates: &Rc<str>) -> RootCaPublisher {
        RootCaPublisher { certificates: Rc::clone(certificates) }
    }

    fn data(&self) -> Value {
        json!({KEY: &*self.certificates})
    }
}

impl Controller for RootCaPublisher {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHED
    }

    fn keys(&self, change: &Change, _views: &Views, keys: &mut Vec<ObjectKey>) {
        keys.extend(namespace_with(change, NAME));
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, _now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let Some(namespace) = views.get::<core_v1::Namespace>(key) else { return plan };
        if is_namespace_ending(namespace) {
            return plan;
        }
        match views.view(Kind::CONFIG_MAP).find(key.name(), NAME) {
            None => {
                let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": self.data(), "metadata":
                    {"name": NAME, "namespace": key.name(), "annotations": {"kubernetes.io/description": DESCRIPTION}}});
                plan.writes.push(Write::Create(Object::from_json(map).expect("it is well-formed")));
            }
            Some(Object::Dynamic(held)) if held.body.get("data") != Some(&self.data()) => {
                let mut next = held.clone();
                Rc::make_mut(&mut next.body).insert("data".to_owned(), self.data());
                plan.writes.push(Write::Update(Object::Dynamic(next), Subresource::None));
            }
            Some(_) => {}
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::RootCaPublisher;
    use crate::controllers::fake_cluster::{Fake, at, object};
    use crate::object::Kind;
    use serde_json::{Value, json};
    use std::rc::Rc;

    #[test]
    fn active_namespaces_have_the_certificates() {
        let map = |data: &str| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"ca.crt": data},
                "metadata": {"name": "kube-root-ca.crt", "namespace": "n"}})
        };
        let cases: Vec<(Value, Vec<Value>, usize)> = vec![
            (json!({"phase": "Active"}), vec![], 1),
            (json!({"phase": "Active"}), vec![map("pem")], 0),
            (json!({"phase": "Active"}), vec![map("old")], 1),
            (json!({"phase": "Terminating"}), vec![], 0),
        ];
        for (status, others, expect) in cases {
            let namespace =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}, "status": status});
            let namespace = object(namespace);
            let key = namespace.key();
            let all = others.into_iter().map(object).chain([namespace]);
            let mut fake = Fake::new(&[Kind::NAMESPACE, Kind::CONFIG_MAP], all);
            let mut publisher = RootCaPublisher::new(&Rc::from("pem"));
            assert_eq!(fake.step(&mut publisher, &key, at(0)).writes.len(), expect, "{key}");
            assert!(fake.step(&mut publisher, &key, at(0)).writes.is_empty());
            if expect == 1 {
                let published = fake.get(Kind::CONFIG_MAP, "n/kube-root-ca.crt").unwrap().to_json();
                assert_eq!(published["data"], json!({"ca.crt": "pem"}));
            }
        }
    }
}
