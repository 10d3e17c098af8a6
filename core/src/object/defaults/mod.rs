//! Kubernetes' v1 defaults: the values of fields that a client left out.
//!
//! Everything is copy-on-write: a part in which nothing is missing stays shared.

mod pod;
mod rules;
mod service;
mod workload;

use std::rc::Rc;

use k8s_openapi::api::core::v1::PodSpec;

use super::{HasTemplate, Job, Namespace, Object, Pod, ReplicationController, Templated, Text, qos_class};
pub(super) use rules::Defaults;

/// Sets all missing fields to their defaults, as the API server does on every write before validation.
pub fn apply(object: &mut Object) {
    object.apply_defaults();
}

/// Sets the defaults of a pod's spec (`SetDefaults_Pod`): those of a template, and also requests that default to
/// limits, service links and host ports.
pub fn pod_spec(spec: &mut PodSpec) {
    pod::OfPod(spec).fill();
}

/// Whether [`pod_spec`] would change anything.
pub fn pod_spec_lacks(spec: &PodSpec) -> bool {
    pod::OfPod::lacks(spec)
}

/// Sets the defaults of a template's pod spec (`SetDefaults_PodSpec`).
pub fn template_spec(spec: &mut PodSpec) {
    spec.fill();
}

pub(super) fn fill_shared<T: Defaults + Clone>(part: &mut Rc<T>) {
    if part.lacks() {
        Rc::make_mut(part).fill();
    }
}

pub(super) fn templated<S: HasTemplate + Defaults>(spec: &mut Rc<Templated<S>>) {
    if spec.fields.lacks() {
        Rc::make_mut(spec).fields.fill();
    }
    if spec.fields.has_template() && spec.pod.lacks() {
        Rc::make_mut(spec).pod_mut().fill();
    }
}

/// Sets the defaults of a pod. The phase defaults to `Pending`, and the QoS class is computed unless it is set already.
pub(super) fn apply_pod(pod: &mut Pod) {
    if pod_spec_lacks(&pod.spec.shared) {
        pod_spec(pod.spec_mut().shared.make_mut());
    }
    if pod.status.phase.is_empty() || pod.status.qos_class.is_empty() {
        let class = qos_class(&pod.spec.shared);
        let status = pod.status_mut();
        status.phase = status.phase.or(|| Text::PENDING);
        status.qos_class = status.qos_class.or(|| class.into());
    }
}

/// Sets a namespace's name label. A namespace without a phase becomes `Active` and gets the `kubernetes` finalizer.
pub(super) fn namespace(ns: &mut Namespace) {
    const NAME_LABEL: &str = "kubernetes.io/metadata.name";
    let name = ns.name();
    let labelled = ns.meta.labels.as_ref().and_then(|l| l.get(NAME_LABEL)).is_some_and(|l| l == name);
    if !labelled && !name.is_empty() {
        let name = name.to_owned();
        ns.meta_mut().labels.get_or_insert_default().insert(NAME_LABEL.to_owned(), name);
    }
    if ns.status.phase.is_none() && ns.meta.deletion_timestamp.is_none() {
        ns.status_mut().phase = Some("Active".to_owned());
        let finalizer = "kubernetes".to_owned();
        if !ns.spec.finalizers.iter().flatten().any(|f| *f == finalizer) {
            ns.spec_mut().finalizers.get_or_insert_default().push(finalizer);
        }
    }
}

/// Copies the template's labels to a Job without labels.
pub(super) fn job(job: &mut Job) {
    if job.meta.labels.as_ref().is_none_or(|l| l.is_empty()) {
        let labels = job.spec.template_meta().and_then(|m| m.labels.clone()).filter(|l| !l.is_empty());
        if labels.is_some() {
            job.meta_mut().labels = labels;
        }
    }
}

/// Copies the template's labels to a ReplicationController's labels and selector, if these are empty.
pub(super) fn replication_controller(rc: &mut ReplicationController) {
    let Some(labels) = rc.spec.template_meta().and_then(|m| m.labels.as_ref()).filter(|l| !l.is_empty()) else {
        return;
    };
    let labels = labels.clone();
    if rc.meta.labels.as_ref().is_none_or(|l| l.is_empty()) {
        rc.meta_mut().labels = Some(labels.clone());
    }
    if rc.spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
        rc.spec_mut().selector = Some(labels);
    }
}

#[cfg(test)]
mod tests;
