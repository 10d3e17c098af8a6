//! Job. Source: `pkg/registry/batch/job/strategy.go`.

use std::borrow::Cow;
use std::rc::Rc;

use k8s_openapi::api::batch::v1 as batch_v1;

use super::{GarbageCollection, Strategy, number};
use crate::object::validation::job as rules;
use crate::object::{
    FieldError, HasTemplate, Job, Kind, Obj, Object, ObjectMeta, Resource, SharedPodSpec, Templated, defaults,
};

templated!(Job batch_v1::Job, JOB, batch_v1::JobSpec, batch_v1::JobStatus);

const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

/// Labels the template with the Job's name and UID, and sets the selector to the UID (`generateSelector`). Labels with
/// these names that the client has set stay; validation checks them.
fn select_own_pods(job: &mut Job) {
    let (name, uid) = (job.name().to_owned(), job.uid().to_owned());
    let spec = job.spec_mut();
    let labels = spec.template_mut().metadata.get_or_insert_default().labels.get_or_insert_default();
    for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
        for key in keys {
            labels.entry(key.to_owned()).or_insert_with(|| value.clone());
        }
    }
    let selected = spec.selector.get_or_insert_default().match_labels.get_or_insert_default();
    selected.entry(UID_LABELS[1].to_owned()).or_insert(uid);
}

impl Strategy for batch_v1::Job {
    /// Jobs were introduced before the garbage collector; for compatibility they orphan by default.
    const GARBAGE_COLLECTION: GarbageCollection = GarbageCollection::OrphanDependents;

    /// Generates labels and selector unless the client asked for `manualSelector`.
    fn prepare_for_create(job: &mut Job) {
        job.set_status(batch_v1::JobStatus::default());
        if job.spec.manual_selector != Some(true) {
            select_own_pods(job);
        }
    }

    fn apply_defaults(job: &mut Job) {
        defaults::templated(&mut job.spec);
        defaults::job(job);
    }

    fn validate(job: &Job, errors: &mut Vec<FieldError>) {
        rules::job(&job.spec, errors);
        rules::host_names(job.name(), &job.spec, errors);
    }

    fn validate_update(new: &Job, old: &Job, errors: &mut Vec<FieldError>) {
        if !Rc::ptr_eq(&new.spec, &old.spec) {
            rules::job(&new.spec, errors);
            rules::update(&new.spec, &old.spec, errors);
        }
    }

    /// `status.successful`.
    fn field<'a>(job: &'a Job, _path: &str) -> Option<Cow<'a, str>> {
        number(job.status.succeeded)
    }

    pod_template!();
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::object::Object;

    fn check(spec: Value, labels: Value, selector: Value) {
        let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "uid": "u"}, "spec": spec});
        let mut job = Object::from_json(job).unwrap();
        job.prepare_for_create();
        let spec = &job.to_json()["spec"];
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
