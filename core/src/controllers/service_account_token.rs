//! The token controller: a Secret of type `kubernetes.io/service-account-token` gets a token of the account that its
//! annotation names, and ends with that account.
//!
//! Source: kubernetes `pkg/controller/serviceaccount/tokens_controller.go`.

use std::fmt;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1 as core_v1;
use serde_json::{Map, Value, json};

use super::{Controller, Plan, Write};
use crate::api::Subresource;
use crate::auth::legacy_token::{ACCOUNT_NAME, ACCOUNT_UID, LegacyClaims, SECRET_TYPE};
use crate::auth::token::Reference;
use crate::client::{Change, Views, Watched};
use crate::machine::Now;
use crate::object::{Dynamic, Kind, Object, ObjectKey, ServiceAccount};

static WATCHED: &[Watched] =
    &[Watched { kind: Kind::SECRET, indexes: &[] }, Watched { kind: Kind::SERVICE_ACCOUNT, indexes: &[] }];

/// The port through which tokens are signed.
pub trait TokenSigner: fmt::Debug {
    /// A token that claims this.
    fn sign(&self, claims: &Value) -> String;
}

/// Fills Secrets with tokens. Keys are Secrets.
#[derive(Debug)]
pub struct TokenController {
    signer: Rc<dyn TokenSigner>,
    /// PEM; `None` if nobody knows them.
    root_ca: Option<Rc<str>>,
}

impl TokenController {
    /// A controller whose tokens are signed by this signer, and come with these certificates.
    pub fn new(signer: &Rc<dyn TokenSigner>, root_ca: Option<&Rc<str>>) -> TokenController {
        TokenController { signer: Rc::clone(signer), root_ca: root_ca.cloned() }
    }

    /// The data of a Secret with what it lacks; `None` if it lacks nothing.
    fn fill(&self, secret: &Dynamic, account: &ServiceAccount) -> Option<Map<String, Value>> {
        let mut data = secret.body.get("data").and_then(Value::as_object).cloned().unwrap_or_default();
        let empty =
            |data: &Map<String, Value>, key: &str| data.get(key).is_none_or(|v| v.as_str().unwrap_or("").is_empty());
        let before = data.clone();
        let (namespace, name) = (text(secret.meta.namespace.as_ref()), text(secret.meta.name.as_ref()));
        if let Some(root_ca) = &self.root_ca {
            data.insert("ca.crt".to_owned(), json!(STANDARD.encode(&**root_ca)));
        }
        if empty(&data, "namespace") {
            data.insert("namespace".to_owned(), json!(STANDARD.encode(namespace)));
        }
        if empty(&data, "token") {
            let claims = LegacyClaims {
                namespace: namespace.to_owned(),
                secret: name.to_owned(),
                account: Reference { name: account.name().to_owned(), uid: account.uid().to_owned() },
            };
            data.insert("token".to_owned(), json!(STANDARD.encode(self.signer.sign(&claims.to_json()))));
        }
        (data != before).then_some(data)
    }
}

fn text(value: Option<&String>) -> &str {
    value.map_or("", String::as_str)
}

/// The Secret, if it is one for a token, with the name of its account.
fn for_token(object: &Object) -> Option<(&Dynamic, &str)> {
    let Object::Dynamic(secret) = object else { return None };
    let name = secret.meta.annotations.as_ref().and_then(|a| a.get(ACCOUNT_NAME)).filter(|name| !name.is_empty())?;
    (secret.body.get("type").and_then(Value::as_str) == Some(SECRET_TYPE)).then_some((secret, name.as_str()))
}

impl Controller for TokenController {
    fn name(&self) -> &'static str {
        "serviceaccount-token-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHED
    }

    fn keys(&self, change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
        match (change.key.kind, &change.old, &change.new) {
            (Kind::SECRET, _, Some(new)) if for_token(new).is_some() => keys.push(change.key.clone()),
            // An account that comes or goes; what it says is no matter.
            (Kind::SERVICE_ACCOUNT, old, new) if old.as_ref().map(Object::uid) != new.as_ref().map(Object::uid) => {
                let of_account = |secret: &&Object| for_token(secret).is_some_and(|(_, of)| of == change.key.name());
                let all = views.view(Kind::SECRET).namespace(change.key.namespace());
                keys.extend(all.filter(of_account).map(Object::key));
            }
            _ => {}
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, _now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let Some(object) = views.view(Kind::SECRET).get(key) else { return plan };
        let Some((secret, name)) = for_token(object).filter(|_| !object.is_deleting()) else { return plan };
        let uid = secret.meta.annotations.as_ref().and_then(|a| a.get(ACCOUNT_UID)).filter(|uid| !uid.is_empty());
        let account = views.named::<core_v1::ServiceAccount>(key.namespace(), name);
        let Some(account) = account.filter(|account| uid.is_none_or(|uid| uid == account.uid())) else {
            // The account may have been made just before the Secret.
            let account = ObjectKey::new(Kind::SERVICE_ACCOUNT, key.namespace(), name);
            plan.writes.push(Write::ExpectMissing { key: account, uid: uid.map(|uid| Rc::from(uid.as_str())) });
            let (uid, rv) = (Rc::from(object.uid()), Some(object.rv()));
            plan.writes.push(Write::Delete { key: key.clone(), uid, rv, grace_seconds: None, propagation: None });
            return plan;
        };
        if let Some(data) = self.fill(secret, account) {
            let mut next = secret.clone();
            Rc::make_mut(&mut next.body).insert("data".to_owned(), Value::Object(data));
            let mut next = Object::Dynamic(next);
            let annotations = next.meta_mut().annotations.get_or_insert_default();
            annotations.insert(ACCOUNT_NAME.to_owned(), account.name().to_owned());
            annotations.insert(ACCOUNT_UID.to_owned(), account.uid().to_owned());
            plan.writes.push(Write::Update(next, Subresource::None));
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::{TokenController, TokenSigner};
    use crate::controllers::fake_cluster::{Fake, at, object};
    use crate::controllers::{Controller, Write};
    use crate::object::{Kind, ObjectKey};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};
    use std::rc::Rc;

    #[derive(Debug)]
    struct Signer;

    impl TokenSigner for Signer {
        fn sign(&self, claims: &Value) -> String {
            format!("signed {}", claims["sub"])
        }
    }

    fn controller() -> TokenController {
        let signer: Rc<dyn TokenSigner> = Rc::new(Signer);
        TokenController::new(&signer, Some(&Rc::from("pem")))
    }

    fn account(uid: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot", "namespace": "n", "uid": uid}})
    }

    fn secret(type_: &str, annotations: Value, data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Secret", "type": type_, "data": data,
            "metadata": {"name": "s", "namespace": "n", "annotations": annotations}})
    }

    fn of(objects: impl IntoIterator<Item = Value>) -> (Fake, ObjectKey) {
        let fake = Fake::new(&[Kind::SECRET, Kind::SERVICE_ACCOUNT], objects.into_iter().map(object));
        (fake, ObjectKey::new(Kind::SECRET, "n", "s"))
    }

    const TYPE: &str = "kubernetes.io/service-account-token";

    fn named() -> Value {
        json!({"kubernetes.io/service-account.name": "bot"})
    }

    #[test]
    fn a_secret_gets_what_it_lacks() {
        let b64 = |text: &str| json!(STANDARD.encode(text));
        let full = json!({"ca.crt": b64("pem"), "namespace": b64("n"),
            "token": b64("signed \"system:serviceaccount:n:bot\"")});
        let check = |data: Value, want: &Value, writes: usize| {
            let (mut fake, key) = of([account("u"), secret(TYPE, named(), data.clone())]);
            assert_eq!(fake.step(&mut controller(), &key, at(0)).writes.len(), writes, "{data}");
            assert!(fake.step(&mut controller(), &key, at(0)).writes.is_empty(), "{data}");
            let filled = fake.get(Kind::SECRET, "n/s").unwrap().to_json();
            assert_eq!(&filled["data"], want);
            if writes > 0 {
                assert_eq!(filled["metadata"]["annotations"]["kubernetes.io/service-account.uid"], "u");
            }
        };
        check(json!({}), &full, 1);
        check(full.clone(), &full, 0);
        let mut more = full.clone();
        more["more"] = b64("x");
        let own = json!({"more": b64("x"), "namespace": b64(""), "ca.crt": b64("old")});
        check(own, &more, 1);
        let mut kept = full;
        (kept["token"], kept["namespace"]) = (b64("mine"), b64("m"));
        check(kept.clone(), &kept, 0);
    }

    #[test]
    fn a_secret_ends_with_its_account() {
        let check = |objects: Vec<Value>, want: usize| {
            let (mut fake, key) = of(objects.clone());
            let plan = fake.step(&mut controller(), &key, at(0));
            let deletes = plan.writes.iter().filter(|w| matches!(w, Write::Delete { .. })).count();
            // Each comes after a look whether the account is there.
            assert_eq!((deletes, plan.writes.len()), (want, want * 2), "{objects:?}");
        };
        let with_uid =
            json!({"kubernetes.io/service-account.name": "bot", "kubernetes.io/service-account.uid": "other"});
        check(vec![secret(TYPE, named(), json!({}))], 1);
        check(vec![account("u"), secret(TYPE, with_uid, json!({}))], 1);
        check(vec![secret("Opaque", named(), json!({}))], 0);
        check(vec![secret(TYPE, json!({}), json!({}))], 0);
    }

    #[test]
    fn accounts_that_come_and_go_concern_their_secrets() {
        let (fake, key) = of([secret(TYPE, named(), json!({}))]);
        let change = |old: Option<&str>, new: Option<&str>| {
            let whole = |uid: &str| object(account(uid));
            let (old, new) = (old.map(whole), new.map(whole));
            let key = ObjectKey::new(Kind::SERVICE_ACCOUNT, "n", "bot");
            let mut keys = Vec::new();
            controller().keys(&crate::client::Change { key, old, new }, &fake.views, &mut keys);
            keys
        };
        assert_eq!(change(None, Some("u")), std::slice::from_ref(&key));
        assert_eq!(change(Some("u"), None), std::slice::from_ref(&key));
        assert_eq!(change(Some("u"), Some("u")), []);
    }
}
