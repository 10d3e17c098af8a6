//! CertificateSigningRequests: who asks is written by the server, so that a signer can rely on it.
//!
//! Source: kubernetes `pkg/registry/certificates/certificates/strategy.go` (`PrepareForCreate`).

use std::rc::Rc;

use serde_json::{Map, Value, json};

use crate::auth::User;
use crate::object::{Kind, Object};

/// Writes who asks into a new request. A client that is trusted without an identity says so itself.
pub(super) fn note_requester(object: &mut Object, user: Option<&User>) {
    let (Object::Dynamic(request), Some(user)) = (object, user) else { return };
    if request.kind != Kind::CERTIFICATE_SIGNING_REQUEST {
        return;
    }
    let spec = Rc::make_mut(&mut request.body).entry("spec").or_insert_with(|| Value::Object(Map::new()));
    let Some(spec) = spec.as_object_mut() else { return };
    let said = [
        ("username", json!(user.name)),
        ("uid", json!(user.uid)),
        ("groups", json!(user.groups)),
        ("extra", json!(user.extra)),
    ];
    for (field, value) in said {
        let empty = value == "" || value.as_object().is_some_and(Map::is_empty);
        match empty {
            true => drop(spec.remove(field)),
            false => drop(spec.insert(field.to_owned(), value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::note_requester;
    use crate::auth::User;
    use crate::object::Object;

    #[test]
    fn nobody_asks_in_the_name_of_somebody_else() {
        let sent = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": "r"}, "spec": {"request": "", "signerName": "s", "usages": [],
                "username": "system:node:a", "uid": "1", "groups": ["system:nodes"], "extra": {"a": ["b"]}}});
        let mut object = Object::from_json(sent).unwrap();
        let before = object.to_json();
        note_requester(&mut object, None);
        assert_eq!(object.to_json(), before, "the server itself is trusted");
        note_requester(&mut object, Some(&User::new("jane", &["system:authenticated"])));
        let spec = object.to_json()["spec"].clone();
        assert_eq!((&spec["username"], &spec["groups"]), (&json!("jane"), &json!(["system:authenticated"])));
        assert_eq!((spec.get("uid"), spec.get("extra")), (None, None));
    }
}
