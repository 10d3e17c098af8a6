//! The service account controller: every active namespace has a ServiceAccount named `default`.

use super::namespace::namespace_with;
use super::{Controller, Plan, Write};
use crate::client::{Change, Views, Watched};
use crate::machine::Now;
use crate::object::{Kind, ObjectKey, ObjectMeta, ServiceAccount, is_namespace_ending};
use k8s_openapi::api::core::v1 as core_v1;

const NAME: &str = "default";

static WATCHED: &[Watched] =
    &[Watched { kind: Kind::NAMESPACE, indexes: &[] }, Watched { kind: Kind::SERVICE_ACCOUNT, indexes: &[] }];

/// Creates default service accounts. Keys are namespaces.
#[derive(Debug, Default)]
pub struct ServiceAccountController;

impl Controller for ServiceAccountController {
    fn name(&self) -> &'static str {
        "service-account-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHED
    }

    fn keys(&self, change: &Change, _views: &Views, keys: &mut Vec<ObjectKey>) {
        // What an account says is up to its users: only one that is gone is made again.
        if change.key.kind == Kind::NAMESPACE || change.new.is_none() {
            keys.extend(namespace_with(change, NAME));
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, _now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let Some(namespace) = views.get::<core_v1::Namespace>(key) else { return plan };
        if !is_namespace_ending(namespace) && views.named::<core_v1::ServiceAccount>(key.name(), NAME).is_none() {
            let meta = ObjectMeta {
                name: Some(NAME.to_owned()),
                namespace: Some(key.name().to_owned()),
                ..ObjectMeta::default()
            };
            let account = ServiceAccount::new(meta, core_v1::ServiceAccount::default(), ());
            plan.writes.push(Write::Create(account.into()));
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::ServiceAccountController;
    use crate::controllers::fake_cluster::{Fake, at, object};
    use crate::object::Kind;
    use serde_json::{Value, json};

    #[test]
    fn active_namespaces_have_a_default_account() {
        let account = json!({"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default","namespace":"n"}});
        let cases: Vec<(Value, Vec<Value>, usize)> = vec![
            (json!({"phase":"Active"}), vec![], 1),
            (json!({}), vec![], 1),
            (json!({"phase":"Active"}), vec![account], 0),
            (json!({"phase":"Terminating"}), vec![], 0),
        ];
        for (status, others, expect) in cases {
            let namespace =
                object(json!({"apiVersion":"v1","kind":"Namespace","metadata":{"name":"n"},"status":status}));
            let key = namespace.key();
            let all = others.into_iter().map(object).chain([namespace]);
            let mut fake = Fake::new(&[Kind::NAMESPACE, Kind::SERVICE_ACCOUNT], all);
            assert_eq!(fake.step(&mut ServiceAccountController, &key, at(0)).writes.len(), expect);
            assert!(fake.step(&mut ServiceAccountController, &key, at(0)).writes.is_empty());
        }
    }
}
