//! Field selectors: which fields may be selected by, and their values (upstream's field label conversions).

use std::borrow::Cow;

use crate::api::Status;
use crate::object::{FieldSelector, Kind, Object, pod_phase};

/// Refuses a selector on a field that the kind cannot be selected by.
pub(super) fn check(kind: Kind, selector: &FieldSelector) -> Result<(), Status> {
    for (path, _, _) in &selector.terms {
        let common = matches!(path.as_str(), "metadata.name" | "metadata.namespace");
        if !common && !extra(kind).contains(&path.as_str()) {
            return Err(Status::bad_request(format!("field label not supported: {path}")));
        }
    }
    Ok(())
}

fn extra(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::POD => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        Kind::EVENT => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        Kind::NODE => &["spec.unschedulable"],
        Kind::NAMESPACE => &["status.phase"],
        Kind::REPLICA_SET | Kind::REPLICATION_CONTROLLER => &["status.replicas"],
        Kind::SERVICE => &["spec.clusterIP", "spec.type"],
        Kind::SECRET => &["type"],
        Kind::JOB => &["status.successful"],
        _ => &[],
    }
}

/// The value of a field that [`check`] lets through.
pub(super) fn value<'a>(object: &'a Object, path: &str) -> Option<Cow<'a, str>> {
    fn text(s: Option<&String>) -> Option<Cow<'_, str>> {
        s.map(|s| Cow::Borrowed(s.as_str()))
    }
    match path {
        "metadata.name" => return Some(Cow::Borrowed(object.name())),
        "metadata.namespace" => return Some(Cow::Borrowed(object.namespace())),
        _ => {}
    }
    match object {
        Object::Pod(p) => match path {
            "spec.nodeName" => p.spec.node.as_deref().map(Cow::Borrowed),
            "spec.restartPolicy" => text(p.spec.restart_policy.as_ref()),
            "spec.schedulerName" => text(p.spec.scheduler_name.as_ref()),
            "spec.serviceAccountName" => text(p.spec.service_account_name.as_ref()),
            "spec.hostNetwork" => Some(Cow::Owned(p.spec.host_network.unwrap_or(false).to_string())),
            "status.phase" => Some(Cow::Borrowed(pod_phase(p))),
            "status.podIP" => text(p.status.pod_ip.as_ref()),
            "status.nominatedNodeName" => text(p.status.nominated_node_name.as_ref()),
            _ => None,
        },
        Object::Event(e) => match path {
            "involvedObject.kind" => text(e.spec.involved_object.kind.as_ref()),
            "involvedObject.namespace" => text(e.spec.involved_object.namespace.as_ref()),
            "involvedObject.name" => text(e.spec.involved_object.name.as_ref()),
            "involvedObject.uid" => text(e.spec.involved_object.uid.as_ref()),
            "involvedObject.apiVersion" => text(e.spec.involved_object.api_version.as_ref()),
            "involvedObject.resourceVersion" => text(e.spec.involved_object.resource_version.as_ref()),
            "involvedObject.fieldPath" => text(e.spec.involved_object.field_path.as_ref()),
            "reason" => text(e.spec.reason.as_ref()),
            "reportingComponent" => text(e.spec.reporting_component.as_ref()),
            "source" => text(e.spec.source.as_ref().and_then(|s| s.component.as_ref())),
            "type" => text(e.spec.type_.as_ref()),
            _ => None,
        },
        Object::Node(n) => Some(Cow::Owned(n.spec.unschedulable.unwrap_or(false).to_string())),
        Object::Namespace(n) => text(n.status.phase.as_ref()),
        Object::ReplicaSet(r) => Some(Cow::Owned(r.status.replicas.to_string())),
        Object::ReplicationController(r) => Some(Cow::Owned(r.status.replicas.to_string())),
        Object::Service(s) => match path {
            "spec.clusterIP" => text(s.spec.cluster_ip.as_ref()),
            _ => text(s.spec.type_.as_ref()),
        },
        Object::Dynamic(d) if path == "type" => d.body.get("type").and_then(|t| t.as_str()).map(Cow::Borrowed),
        Object::Dynamic(d) => {
            let n = d.status.as_ref().and_then(|s| s.get("succeeded")).and_then(serde_json::Value::as_i64);
            Some(Cow::Owned(n.unwrap_or(0).to_string()))
        }
        _ => None,
    }
}
