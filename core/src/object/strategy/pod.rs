//! Pod. Source: `pkg/registry/core/pod/strategy.go`.

use std::borrow::Cow;
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use super::{Strategy, flag, text};
use crate::object::{
    BoundPodSpec, FieldError, Kind, Obj, Object, ObjectMeta, Pod, PodStatus, Resource, SharedPodSpec, Summarized,
    defaults, validation,
};

resource!(Pod core_v1::Pod, POD, Rc BoundPodSpec, Summarized PodStatus,
|w| (w.metadata, BoundPodSpec::new(w.spec.unwrap_or_default()), w.status.map(PodStatus::new).unwrap_or_default()),
|meta, spec, status| Self {
    metadata: meta,
    spec: Some(spec.to_whole()),
    status: (*status != Default::default()).then(|| status.to_whole()),
});

impl Strategy for core_v1::Pod {
    /// Admission sets the status together with the QoS class, so it is not cleared here.
    fn prepare_for_create(_pod: &mut Pod) {}

    fn apply_defaults(pod: &mut Pod) {
        defaults::apply_pod(pod);
    }

    fn validate(pod: &Pod, errors: &mut Vec<FieldError>) {
        validation::pod::create(pod, errors);
    }

    fn validate_update(new: &Pod, old: &Pod, errors: &mut Vec<FieldError>) {
        validation::pod::update(new, old, errors);
    }

    fn validate_status_update(new: &Pod, old: &Pod, errors: &mut Vec<FieldError>) {
        validation::pod::status_update(new, old, errors);
    }

    fn field<'a>(pod: &'a Pod, path: &str) -> Option<Cow<'a, str>> {
        match path {
            "spec.nodeName" => text(pod.spec.node.as_deref()),
            "spec.restartPolicy" => text(pod.spec.restart_policy.as_deref()),
            "spec.schedulerName" => text(pod.spec.scheduler_name.as_deref()),
            "spec.serviceAccountName" => text(pod.spec.service_account_name.as_deref()),
            "spec.hostNetwork" => flag(pod.spec.host_network),
            "status.phase" => text(pod.status.phase.get()),
            "status.podIP" | "status.podIPs" => text(pod.status.pod_ip.get()),
            "status.nominatedNodeName" => text(pod.status.nominated_node_name.get()),
            _ => None,
        }
    }

    fn pod_spec(pod: &Pod) -> Option<&SharedPodSpec> {
        Some(&pod.spec.shared)
    }

    fn set_pod_spec(pod: &mut Pod, spec: SharedPodSpec) {
        pod.spec_mut().shared = spec;
    }
}
