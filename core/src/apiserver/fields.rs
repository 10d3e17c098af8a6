//! Field selectors: which fields can be selected on, according to the kind's row or its definition.

use std::borrow::Cow;

use crate::api::Status;
use crate::object::{FieldSelector, Kind, KindInfo, Object};

/// Refuses a selector on a field that the kind does not support.
pub(super) fn check(kind: Kind, of: &KindInfo, fields: &FieldSelector) -> Result<(), Status> {
    for (path, _, _) in &fields.terms {
        let common = path == "metadata.name" || (path == "metadata.namespace" && of.namespaced);
        if !common && !of.selectable.iter().any(|field| field == path) {
            let text = if of.selectable.is_empty() && kind.built_in().is_some() {
                format!("{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
            } else {
                format!("field label not supported: {path}")
            };
            return Err(Status::bad_request(text));
        }
    }
    Ok(())
}

/// Whether an object matches a field selector.
pub(super) fn matches(object: &Object, fields: &FieldSelector) -> bool {
    fields.terms.is_empty() || fields.matches(|path| read(object, path))
}

fn read<'a>(object: &'a Object, path: &str) -> Option<Cow<'a, str>> {
    match path {
        "metadata.name" => Some(Cow::Borrowed(object.name())),
        "metadata.namespace" => Some(Cow::Borrowed(object.namespace())),
        other => object.field(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{check, matches};
    use crate::object::{FieldSelector, Kind, Object};

    #[test]
    fn selects_on_the_fields_of_a_kind() {
        let pod = json!({"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"d"},
            "spec":{"nodeName":"n1","containers":[]},"status":{"phase":"Running"}});
        let pod = Object::from_json(pod).unwrap();
        for (text, ok, expect) in [
            ("", true, true),
            ("metadata.name=p", true, true),
            ("metadata.namespace!=d", true, false),
            ("spec.nodeName=n1,status.phase=Running", true, true),
            ("spec.nodeName=", true, false),
            ("spec.hostNetwork=false", true, true),
            ("status.podIP=", true, true),
            ("spec.hostname=x", false, false),
        ] {
            let fields = FieldSelector::parse(text).unwrap();
            assert_eq!(check(Kind::POD, Kind::POD.row(), &fields).is_ok(), ok, "{text}");
            assert_eq!(matches(&pod, &fields), expect, "{text}");
        }
        assert!(check(Kind::NODE, Kind::NODE.row(), &FieldSelector::equal("metadata.namespace", "d")).is_err());
    }
}
