//! What the API server adds to a new Job: the labels and the selector that identify its pods.
//!
//! Source: `generateSelector` of `pkg/registry/batch/job/strategy.go`.

use std::rc::Rc;

use serde_json::{Map, Value};

use crate::object::Dynamic;

const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

/// Labels the template with the Job's name and UID, and makes the selector match the UID, unless `manualSelector` is
/// set. Existing labels with these keys are kept for validation to check.
pub(super) fn select_own_pods(job: &mut Dynamic) {
    let (name, uid) = (job.meta.name.clone().unwrap_or_default(), job.meta.uid.clone().unwrap_or_default());
    let body = Rc::make_mut(&mut job.body);
    let Some(spec) = body.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if spec.get("manualSelector").and_then(Value::as_bool) == Some(true) {
        return;
    }
    let template = within(spec, "template").and_then(|t| within(t, "metadata")).and_then(|m| within(m, "labels"));
    let Some(labels) = template else { return };
    for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
        for key in keys {
            labels.entry(key).or_insert_with(|| Value::String(value.clone()));
        }
    }
    let selected = within(spec, "selector").and_then(|s| within(s, "matchLabels"));
    if let Some(selected) = selected {
        selected.entry(UID_LABELS[1]).or_insert(Value::String(uid));
    }
}

/// The object at a key, created if absent; `None` if the value is not an object, which validation rejects.
fn within<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    let value = map.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::select_own_pods;
    use crate::object::Object;

    fn check(spec: Value, labels: Value, selector: Value) {
        let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "uid": "u"}, "spec": spec});
        let Object::Dynamic(mut job) = Object::from_json(job).unwrap() else { panic!("a Job is held as JSON") };
        select_own_pods(&mut job);
        let spec = &job.body["spec"];
        assert_eq!((&spec["template"]["metadata"]["labels"], &spec["selector"]), (&labels, &selector));
    }

    #[test]
    fn pods_are_selected_by_the_uid_of_their_job() {
        let own = json!({"controller-uid": "u", "batch.kubernetes.io/controller-uid": "u",
            "job-name": "j", "batch.kubernetes.io/job-name": "j", "app": "a"});
        let by_uid = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}});
        check(json!({"template": {"metadata": {"labels": {"app": "a"}}}}), own, by_uid);
        let by_hand = json!({"matchLabels": {"app": "a"}});
        let template = json!({"metadata": {"labels": {"app": "a"}}});
        check(
            json!({"manualSelector": true, "selector": by_hand, "template": template}),
            json!({"app": "a"}),
            by_hand.clone(),
        );
    }
}
