//! Field selectors: which fields of which kind may be selected on, and how they read.
//!
//! Source: the field label conversion functions of Kubernetes' `pkg/apis/*/v1/conversion.go`.

use std::borrow::Cow;

use super::custom;
use crate::api::Status;
use crate::object::{FieldSelector, Kind, KindInfo, Object};

/// Refuses selectors on fields that the kind does not offer.
pub(super) fn check(kind: Kind, of: &KindInfo, fields: &FieldSelector) -> Result<(), Status> {
    for (path, _, _) in &fields.terms {
        let common = path == "metadata.name" || (path == "metadata.namespace" && of.namespaced);
        if !common && !special(kind).contains(&path.as_str()) && !of.selectable.iter().any(|field| field == path) {
            let text = if special(kind).is_empty() && kind.built_in().is_some() {
                format!("{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
            } else {
                format!("field label not supported: {path}")
            };
            return Err(Status::bad_request(text));
        }
    }
    Ok(())
}

fn special(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::POD => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        Kind::NODE => &["spec.unschedulable"],
        Kind::NAMESPACE => &["status.phase"],
        Kind::SERVICE => &["spec.clusterIP", "spec.type"],
        Kind::REPLICA_SET | Kind::REPLICATION_CONTROLLER => &["status.replicas"],
        Kind::JOB => &["status.successful"],
        Kind::SECRET => &["type"],
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
        _ => &[],
    }
}

/// Whether an object's fields match.
pub(super) fn matches(object: &Object, fields: &FieldSelector) -> bool {
    fields.terms.is_empty() || fields.matches(|path| read(object, path))
}

fn read<'a>(object: &'a Object, path: &str) -> Option<Cow<'a, str>> {
    match path {
        "metadata.name" => return Some(Cow::Borrowed(object.name())),
        "metadata.namespace" => return Some(Cow::Borrowed(object.namespace())),
        _ => {}
    }
    let borrowed = |s: Option<&'a str>| s.map(Cow::Borrowed);
    let number = |n: Option<i32>| Some(Cow::Owned(n.unwrap_or(0).to_string()));
    match object {
        Object::Pod(pod) => match path {
            "spec.nodeName" => borrowed(pod.spec.node.as_deref()),
            "spec.restartPolicy" => borrowed(pod.spec.restart_policy.as_deref()),
            "spec.schedulerName" => borrowed(pod.spec.scheduler_name.as_deref()),
            "spec.serviceAccountName" => borrowed(pod.spec.service_account_name.as_deref()),
            "spec.hostNetwork" => flag(pod.spec.host_network),
            "status.phase" => borrowed(pod.status.phase.get()),
            "status.podIP" | "status.podIPs" => borrowed(pod.status.pod_ip.get()),
            "status.nominatedNodeName" => borrowed(pod.status.nominated_node_name.get()),
            _ => None,
        },
        Object::Node(node) => flag(node.spec.unschedulable),
        Object::Namespace(ns) => borrowed(ns.status.phase.as_deref()),
        Object::Service(service) => match path {
            "spec.clusterIP" => borrowed(service.spec.cluster_ip.as_deref()),
            _ => borrowed(service.spec.type_.as_deref()),
        },
        Object::ReplicaSet(rs) => number(Some(rs.status.replicas)),
        Object::ReplicationController(rc) => number(Some(rc.status.replicas)),
        Object::Event(event) => {
            let about = &event.spec.involved_object;
            match path {
                "involvedObject.kind" => borrowed(about.kind.as_deref()),
                "involvedObject.namespace" => borrowed(about.namespace.as_deref()),
                "involvedObject.name" => borrowed(about.name.as_deref()),
                "involvedObject.uid" => borrowed(about.uid.as_deref()),
                "involvedObject.apiVersion" => borrowed(about.api_version.as_deref()),
                "involvedObject.resourceVersion" => borrowed(about.resource_version.as_deref()),
                "involvedObject.fieldPath" => borrowed(about.field_path.as_deref()),
                "reason" => borrowed(event.spec.reason.as_deref()),
                "type" => borrowed(event.spec.type_.as_deref()),
                "reportingComponent" => borrowed(event.spec.reporting_component.as_deref()),
                "source" => {
                    let source = event.spec.source.as_ref().and_then(|s| s.component.as_deref());
                    borrowed(source.or(event.spec.reporting_component.as_deref()))
                }
                _ => None,
            }
        }
        Object::Dynamic(d) if d.kind.built_in().is_none() => custom::field(d, path).map(Cow::Owned),
        Object::Dynamic(d) => match path {
            "type" => d.body.get("type").and_then(|v| v.as_str()).map(Cow::Borrowed),
            "status.successful" => {
                let n = d.status.as_ref().and_then(|s| s.get("succeeded")).and_then(serde_json::Value::as_i64);
                Some(Cow::Owned(n.unwrap_or(0).to_string()))
            }
            _ => None,
        },
        Object::Lease(_)
        | Object::Endpoints(_)
        | Object::EndpointSlice(_)
        | Object::ServiceAccount(_)
        | Object::Deployment(_)
        | Object::PodDisruptionBudget(_) => None,
    }
}

fn flag(value: Option<bool>) -> Option<Cow<'static, str>> {
    Some(Cow::Borrowed(if value == Some(true) { "true" } else { "false" }))
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
