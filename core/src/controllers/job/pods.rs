//! The pods of a Job: their labels and annotations, and how a new one is built.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core_v1;
use serde_json::{Value, json};

use super::{Sync, TRACKING};
use crate::api::{Patch, Subresource};
use crate::controllers::Write;
use crate::controllers::claim::controller_ref;
use crate::object::{BoundPodSpec, Object, ObjectMeta, Pod, PodStatus};

pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// Whether a pod still has the finalizer, that is, is not counted yet.
pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.meta.finalizers.iter().flatten().any(|f| f == TRACKING)
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The completion index of a pod; `None` if it has none.
pub(super) fn index_of(pod: &Pod) -> Option<i32> {
    annotation(pod, INDEX)?.parse().ok().filter(|i| *i >= 0)
}

/// The failures of the pod's index before the pod was created: counted ones and ignored ones.
pub(super) fn failures_before(pod: &Pod) -> (i32, i32) {
    let count = |key| annotation(pod, key).and_then(|n| n.parse().ok()).unwrap_or(0);
    (count(FAILURES), count(IGNORED_FAILURES))
}

/// Removes the finalizer, so that the pod can be deleted.
pub(super) fn untrack(pod: &Pod) -> Write {
    let left: Vec<&String> = pod.meta.finalizers.iter().flatten().filter(|f| *f != TRACKING).collect();
    let left = if left.is_empty() { Value::Null } else { json!(left) };
    Write::Patch {
        key: pod.key(),
        uid: pod.uid().into(),
        rv: Some(pod.rv),
        patch: Patch::Merge(json!({"metadata": {"finalizers": left}})),
        subresource: Subresource::None,
    }
}

impl Sync<'_> {
    /// A new pod. Pods share the template's spec, except those of an Indexed Job, whose host names differ.
    pub(super) fn new_pod(&self, index: Option<i32>, failures: Option<(i32, i32)>) -> Object {
        let of_template = self.spec.template_meta().cloned().unwrap_or_default();
        let mut labels = of_template.labels.unwrap_or_default();
        let mut annotations = of_template.annotations.unwrap_or_default();
        let mut spec = self.spec.pod.clone();
        let mut generate_name = format!("{}-", self.object.name());
        if let Some(index) = index {
            generate_name = format!("{}-{index}-", self.object.name());
            labels.insert(INDEX.to_owned(), index.to_string());
            annotations.insert(INDEX.to_owned(), index.to_string());
            let own = spec.make_mut();
            own.hostname = Some(host_name(self.object.name(), index));
            add_index_variable(own);
        }
        if let Some((counted, ignored)) = failures {
            annotations.insert(FAILURES.to_owned(), counted.to_string());
            if ignored > 0 {
                annotations.insert(IGNORED_FAILURES.to_owned(), ignored.to_string());
            }
        }
        let mut finalizers = of_template.finalizers.unwrap_or_default();
        finalizers.push(TRACKING.to_owned());
        let none = |map: &BTreeMap<String, String>| map.is_empty();
        let meta = ObjectMeta {
            generate_name: Some(generate_name),
            namespace: self.object.meta().namespace.clone(),
            labels: Some(labels).filter(|l| !none(l)),
            annotations: Some(annotations).filter(|a| !none(a)),
            finalizers: Some(finalizers),
            owner_references: Some(vec![controller_ref(self.object)]),
            ..ObjectMeta::default()
        };
        Object::from(Pod::new(meta, BoundPodSpec::of_template(&spec), PodStatus::default()))
    }
}

/// `job-3`: the Job's name is cut so that the host name has at most 63 characters (`podGenerateNameWithIndex`).
fn host_name(job: &str, index: i32) -> String {
    let index = index.to_string();
    let prefix: String = job.chars().take(63 - 1 - index.len()).collect();
    format!("{prefix}-{index}")
}

/// Adds `JOB_COMPLETION_INDEX`, from the pod's annotation, to every container that does not define it.
fn add_index_variable(spec: &mut core_v1::PodSpec) {
    const NAME: &str = "JOB_COMPLETION_INDEX";
    let field = core_v1::ObjectFieldSelector {
        api_version: Some("v1".to_owned()),
        field_path: format!("metadata.annotations['{INDEX}']"),
    };
    let variable = core_v1::EnvVar {
        name: NAME.to_owned(),
        value_from: Some(core_v1::EnvVarSource { field_ref: Some(field), ..core_v1::EnvVarSource::default() }),
        ..core_v1::EnvVar::default()
    };
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let env = container.env.get_or_insert_default();
        if !env.iter().any(|v| v.name == NAME) {
            env.push(variable.clone());
        }
    }
}
