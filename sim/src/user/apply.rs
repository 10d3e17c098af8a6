//! `kubectl apply`: the object that is sent to the server, and the patch from the live object to the file.
//!
//! Source: kubectl's `pkg/cmd/apply/{apply,patcher}.go` and `pkg/util/apply.go`.

use serde_json::{Value, json};

use skeg_core::Object;
use skeg_core::patch;

/// The annotation in which kubectl stores the last applied file.
pub(super) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The object in the file, with the annotation that the next `apply` will read (`GetModifiedConfiguration`).
fn annotated(object: &Object) -> Value {
    let mut value = object.to_json();
    if let Some(fields) = value.as_object_mut() {
        // These fields do not come from the file but from the form in which the object is held.
        fields.retain(|k, v| k != "status" || v.as_object().is_none_or(|s| !s.is_empty()));
    }
    let meta = value["metadata"].as_object_mut().expect("an object has metadata");
    meta.remove("resourceVersion");
    // kubectl writes an empty map if there are no annotations.
    let annotations = meta.entry("annotations").or_insert_with(|| json!({}));
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    let said = format!("{value}\n");
    value["metadata"]["annotations"][LAST_APPLIED] = Value::String(said);
    value
}

/// The object to create.
pub(super) fn to_create(object: &Object) -> Object {
    Object::from_json(annotated(object)).expect("an object with one more annotation is one")
}

/// The patch from the live object to the file; `None` if nothing must be changed.
pub(super) fn to_patch(object: &Object, live: &Object) -> Result<Option<Value>, String> {
    let last = live.meta().annotations.as_ref().and_then(|a| a.get(LAST_APPLIED));
    // An object that was not created by `apply` has no annotation: no fields are then removed.
    let original = match last.map(|said| serde_json::from_str::<Value>(said)) {
        Some(Ok(said)) => Some(said),
        Some(Err(e)) => return Err(format!("the annotation {LAST_APPLIED} is no JSON: {e}")),
        None => None,
    };
    patch::three_way(object.kind(), original.as_ref(), &annotated(object), &live.to_json())
}

#[cfg(test)]
mod tests {
    use super::{LAST_APPLIED, to_create, to_patch};
    use serde_json::{Value, json};
    use skeg_core::Object;

    fn config_map(data: Value) -> Object {
        let meta = json!({"name": "c", "namespace": "d", "annotations": {"mine": "1"}});
        Object::from_json(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})).unwrap()
    }

    #[test]
    fn the_annotation_says_what_the_file_said_and_no_more() {
        let made = to_create(&config_map(json!({"a": "1"})));
        let annotations = made.meta().annotations.clone().unwrap();
        let said: Value = serde_json::from_str(&annotations[LAST_APPLIED]).unwrap();
        assert_eq!(annotations["mine"], "1");
        assert_eq!(
            said,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"},
                "metadata": {"name": "c", "namespace": "d", "annotations": {"mine": "1"}}})
        );
        assert_eq!(to_patch(&config_map(json!({"a": "1"})), &made), Ok(None), "unchanged");
    }

    #[test]
    fn fields_of_others_stay_and_those_that_left_the_file_go() {
        let mut live = to_create(&config_map(json!({"a": "1", "b": "1"})));
        live.meta_mut().labels.get_or_insert_default().insert("theirs".to_owned(), "1".to_owned());
        let patch = to_patch(&config_map(json!({"a": "2"})), &live).unwrap().unwrap();
        assert_eq!(patch["data"], json!({"a": "2", "b": null}));
        assert_eq!(patch["metadata"].get("labels"), None);
        live.meta_mut().annotations.as_mut().unwrap().remove(LAST_APPLIED);
        let patch = to_patch(&config_map(json!({"a": "2"})), &live).unwrap().unwrap();
        assert_eq!(patch["data"], json!({"a": "2"}), "without the annotation nothing is taken away");
    }
}
