//! Features that the input uses and that this build does not implement yet. Each use gives a warning that names the
//! object and the field, because the run's results do not reflect it; with `--strict` it is an error. When a feature is
//! implemented, its row is removed from the table.
//!
//! Features that cannot affect a run are not listed, since containers do nothing in the simulator: permissions (RBAC),
//! security contexts and the contents of volumes.

use serde_json::{Value, json};

use skeg_core::api::Patch;
use skeg_core::features::FeatureGates;
use skeg_core::object::ObjectKey;
use skeg_core::{Kind, Object};

use crate::scenario::{Action, Step, UserAction};

/// The maximum number of warnings of one row; further ones are only counted.
const TOLD: usize = 20;

/// The objects to which a row applies.
#[derive(Clone, Copy)]
enum Of {
    /// Every object of a kind. The path is empty.
    Kind(Kind),
    /// A field of a kind.
    Field(Kind),
    /// A field of the pod spec, in Pods and in all kinds with a pod template.
    PodSpec,
}

/// The values to which a row applies.
#[derive(Clone, Copy)]
enum Is {
    /// Any value except null, an empty string and an empty list.
    Given,
    This(&'static str),
}

/// A feature that is not implemented: the field that uses it, and what happens instead.
struct Gap {
    of: Of,
    /// The field; `*` stands for every item of a list.
    path: &'static [&'static str],
    is: Is,
    instead: &'static str,
}

const fn kind(kind: Kind, instead: &'static str) -> Gap {
    Gap { of: Of::Kind(kind), path: &[], is: Is::Given, instead }
}

const fn pod(path: &'static [&'static str], instead: &'static str) -> Gap {
    Gap { of: Of::PodSpec, path, is: Is::Given, instead }
}

const fn field(kind: Kind, path: &'static [&'static str], instead: &'static str) -> Gap {
    Gap { of: Of::Field(kind), path, is: Is::Given, instead }
}

const NO_VOLUME: &str = "volumes are not attached or mounted yet: the pod runs as if the volume were there";
const NO_WEBHOOK: &str = "no webhook is called yet";
const NO_DEVICE: &str = "such devices are not allocated yet";
const NO_CAPACITY: &str = "devices are not shared yet: a claim gets a whole one";

/// The table.
const GAPS: &[Gap] = &[
    kind(Kind::NETWORK_POLICY, "network policies are not simulated yet"),
    kind(Kind::INGRESS, "ingress is not simulated yet"),
    kind(Kind::CUSTOM_RESOURCE_DEFINITION, "its resources are not served yet"),
    kind(Kind::MUTATING_WEBHOOK_CONFIGURATION, NO_WEBHOOK),
    kind(Kind::VALIDATING_WEBHOOK_CONFIGURATION, NO_WEBHOOK),
    kind(Kind::MUTATING_ADMISSION_POLICY, "no policy changes objects yet"),
    kind(Kind::API_SERVICE, "the group that it names is not served yet"),
    kind(Kind::CERTIFICATE_SIGNING_REQUEST, "nothing signs it yet"),
    field(Kind::RESOURCE_SLICE, &["spec", "perDeviceNodeSelection"], NO_DEVICE),
    field(Kind::RESOURCE_SLICE, &["spec", "devices", "*", "consumesCounters"], NO_DEVICE),
    field(Kind::RESOURCE_SLICE, &["spec", "devices", "*", "bindingConditions"], NO_DEVICE),
    field(Kind::RESOURCE_SLICE, &["spec", "devices", "*", "allowMultipleAllocations"], NO_CAPACITY),
    field(Kind::RESOURCE_CLAIM, &["spec", "devices", "requests", "*", "exactly", "capacity"], NO_CAPACITY),
    field(
        Kind::RESOURCE_CLAIM_TEMPLATE,
        &["spec", "spec", "devices", "requests", "*", "exactly", "capacity"],
        NO_CAPACITY,
    ),
    field(Kind::DEVICE_CLASS, &["spec", "extendedResourceName"], "pods get no devices by asking for the resource yet"),
    Gap {
        of: Of::Field(Kind::SERVICE),
        path: &["spec", "type"],
        is: Is::This("LoadBalancer"),
        instead: "no load balancer is made: the Service never gets an address from outside",
    },
    pod(&["volumes", "*", "csi"], NO_VOLUME),
    pod(&["volumes", "*", "nfs"], NO_VOLUME),
    pod(&["volumes", "*", "iscsi"], NO_VOLUME),
    pod(&["volumes", "*", "fc"], NO_VOLUME),
    pod(&["volumes", "*", "rbd"], NO_VOLUME),
    pod(&["volumes", "*", "cephfs"], NO_VOLUME),
    pod(&["volumes", "*", "awsElasticBlockStore"], NO_VOLUME),
    pod(&["volumes", "*", "azureDisk"], NO_VOLUME),
    pod(&["volumes", "*", "azureFile"], NO_VOLUME),
    pod(&["volumes", "*", "gcePersistentDisk"], NO_VOLUME),
    pod(&["volumes", "*", "vsphereVolume"], NO_VOLUME),
];

/// What is dropped while the gate GenericWorkload is off.
const GATED: &[Gap] = &[pod(&["schedulingGroup"], "it is dropped, since the feature gate GenericWorkload is off")];

/// The warnings for everything that a run applies: the manifests, and the objects and patches of its steps.
pub fn warnings(manifests: &[Object], timeline: &[Step], features: FeatureGates) -> Vec<String> {
    let mut input: Vec<(ObjectKey, Value)> = manifests.iter().map(|o| (o.key(), o.to_json())).collect();
    for step in timeline {
        let Action::User(action) = &step.action else { continue };
        match action {
            UserAction::Apply(objects) | UserAction::Create(objects) | UserAction::Replace { objects, .. } => {
                input.extend(objects.iter().map(|o| (o.key(), o.to_json())));
            }
            UserAction::RollingUpdate { new, .. } => input.push((new.key(), new.to_json())),
            UserAction::Patch { key, patch } => input.extend(patched(patch).into_iter().map(|v| (key.clone(), v))),
            UserAction::Delete { .. }
            | UserAction::Scale { .. }
            | UserAction::SetImage { .. }
            | UserAction::Rollback { .. }
            | UserAction::Pause { .. }
            | UserAction::Restart { .. }
            | UserAction::Cordon { .. }
            | UserAction::Taint { .. }
            | UserAction::Drain { .. } => {}
        }
    }
    let gated = GATED.iter().filter(|_| !features.generic_workload);
    GAPS.iter().chain(gated).flat_map(|gap| finds(gap, &input)).collect()
}

/// Why an object that a run applies is refused: no API server serves its kind.
pub fn unserved(manifests: &[Object], timeline: &[Step], features: FeatureGates) -> Option<String> {
    let steps = timeline.iter().filter_map(|step| match &step.action {
        Action::User(
            UserAction::Apply(objects) | UserAction::Create(objects) | UserAction::Replace { objects, .. },
        ) => Some(objects),
        Action::User(_) | Action::Fault(_) => None,
    });
    let object = manifests.iter().chain(steps.flatten()).find(|object| !features.serves(object.kind()))?;
    let (kind, version) = (object.kind(), object.info().api_version());
    Some(format!(
        "{kind} {}: {version} is served only where the feature gate GenericWorkload is on: \
         spec.cluster.featureGates of a Scenario",
        object.key().path()
    ))
}

/// The values that a patch sets, in the shape of the patched object.
fn patched(patch: &Patch) -> Vec<Value> {
    match patch {
        Patch::Merge(body) | Patch::Strategic(body) | Patch::Apply { body, .. } => vec![body.clone()],
        Patch::Json(steps) => steps.as_array().into_iter().flatten().filter_map(set_by).collect(),
    }
}

fn set_by(step: &Value) -> Option<Value> {
    let (path, value) = (step["path"].as_str()?, step.get("value")?);
    let place = |inner: Value, key: &str| match key.parse::<usize>() {
        Ok(_) => json!([inner]),
        Err(_) if key == "-" => json!([inner]),
        Err(_) => json!({key.replace("~1", "/").replace("~0", "~"): inner}),
    };
    Some(path.split('/').skip(1).collect::<Vec<_>>().into_iter().rev().fold(value.clone(), place))
}

fn finds(gap: &Gap, input: &[(ObjectKey, Value)]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut more = 0;
    for (key, value) in input {
        let base: Option<&[&str]> = match gap.of {
            Of::Kind(kind) if kind == key.kind => {
                let line = format!("{} {}: kind: stored, but {}", key.kind, key.path(), gap.instead);
                let known = found.contains(&line);
                push(&mut found, &mut more, (!known).then_some(line));
                continue;
            }
            Of::Field(kind) if kind == key.kind => Some(&[]),
            Of::PodSpec => pod_spec_of(key.kind),
            Of::Kind(_) | Of::Field(_) => None,
        };
        let Some(base) = base else { continue };
        let path: Vec<&str> = base.iter().chain(gap.path).copied().collect();
        let mut fields = Vec::new();
        walk(value, &path, String::new(), gap.is, &mut fields);
        for field in fields {
            let line = format!("{} {}: {field}: {}", key.kind, key.path(), gap.instead);
            let known = found.contains(&line);
            push(&mut found, &mut more, (!known).then_some(line));
        }
    }
    if more > 0 {
        found.push(format!("and {more} more of the last kind: {}", gap.instead));
    }
    found
}

fn push(found: &mut Vec<String>, more: &mut usize, line: Option<String>) {
    match line {
        Some(line) if found.len() < TOLD => found.push(line),
        Some(_) => *more += 1,
        None => {}
    }
}

/// The path of the pod spec in objects of this kind; `None` if they have none.
fn pod_spec_of(kind: Kind) -> Option<&'static [&'static str]> {
    match kind {
        Kind::POD => Some(&["spec"]),
        Kind::DEPLOYMENT
        | Kind::REPLICA_SET
        | Kind::REPLICATION_CONTROLLER
        | Kind::STATEFUL_SET
        | Kind::DAEMON_SET
        | Kind::JOB => Some(&["spec", "template", "spec"]),
        Kind::CRON_JOB => Some(&["spec", "jobTemplate", "spec", "template", "spec"]),
        _ => None,
    }
}

/// Collects the fields that match a path, written as in `spec.containers[0].image`.
fn walk(value: &Value, path: &[&str], written: String, is: Is, found: &mut Vec<String>) {
    match path {
        [] if holds(value, is) => found.push(written),
        [] => {}
        ["*", rest @ ..] => {
            for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                walk(item, rest, format!("{written}[{i}]"), is, found);
            }
        }
        [key, rest @ ..] => {
            let Some(inner) = value.get(key) else { return };
            let written = match (written.is_empty(), key.contains(['.', '/'])) {
                (_, true) => format!("{written}[{key}]"),
                (true, false) => (*key).to_owned(),
                (false, false) => format!("{written}.{key}"),
            };
            walk(inner, rest, written, is, found);
        }
    }
}

fn holds(value: &Value, is: Is) -> bool {
    match is {
        Is::This(text) => value == text,
        Is::Given => match value {
            Value::Null => false,
            Value::String(s) => !s.is_empty(),
            Value::Array(items) => !items.is_empty(),
            // `ephemeral: {}` uses the feature although the map is empty.
            Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{FeatureGates, GAPS, NO_VOLUME, Of, Step, TOLD, warnings};
    use crate::scenario::UserAction;
    use serde_json::{Value, json};
    use skeg_core::api::Patch;
    use skeg_core::object::ObjectKey;
    use skeg_core::{Kind, Object};
    use std::time::Duration;

    fn object(value: Value) -> Object {
        Object::from_json(value).unwrap()
    }

    fn deployment(name: &str, spec: Value) -> Object {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "a", "image": "x"}]);
        object(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "d"},
            "spec": {"selector": {}, "template": {"spec": spec}}}))
    }

    fn check(objects: &[Object], want: &[&str]) {
        let got = warnings(objects, &[], FeatureGates::default());
        assert_eq!(got.len(), want.len(), "{got:#?}");
        for (got, want) in got.iter().zip(want) {
            assert!(got.starts_with(want), "{got}\n  is not {want}");
        }
    }

    #[test]
    fn object_and_field_are_named() {
        let volumes = json!([{"name": "a", "emptyDir": {}}, {"name": "b", "nfs": {"server": "s", "path": "/"}}]);
        check(
            &[deployment("web", json!({"volumes": volumes}))],
            &["Deployment d/web: spec.template.spec.volumes[1].nfs: volumes are not"],
        );
        let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "p", "namespace": "d"}});
        check(&[object(policy)], &["NetworkPolicy d/p: kind: stored, but network policies are not simulated yet"]);
        check(&[deployment("plain", json!({"affinity": {}, "volumes": []}))], &[]);
    }

    #[test]
    fn what_a_gate_drops_is_told_while_it_is_off() {
        let group = json!({"schedulingGroup": {"podGroupName": "g"}});
        check(
            &[deployment("web", group.clone())],
            &["Deployment d/web: spec.template.spec.schedulingGroup: it is dropped, since the feature gate"],
        );
        let on = FeatureGates { generic_workload: true, ..FeatureGates::default() };
        assert_eq!(warnings(&[deployment("web", group)], &[], on), Vec::<String>::new());
    }

    #[test]
    fn what_steps_bring_counts_too() {
        let key = ObjectKey::new(Kind::DEPLOYMENT, "d", "web");
        let volumes = json!([{"name": "v", "csi": {"driver": "d"}}]);
        let patch = |patch| Step::at(Duration::ZERO, UserAction::Patch { key: key.clone(), patch });
        let claimed = deployment("other", json!({"volumes": volumes}));
        let applied = Step::at(Duration::ZERO, UserAction::Apply(vec![claimed]));
        let steps = [
            patch(Patch::Merge(json!({"spec": {"template": {"spec": {"volumes": volumes}}}}))),
            patch(Patch::Json(json!([{"op": "add", "path": "/spec/template/spec/volumes/-",
                "value": {"name": "v", "nfs": {"server": "s", "path": "/"}}}]))),
            applied,
        ];
        let got = warnings(&[], &steps, FeatureGates::default());
        assert_eq!(got.len(), 3, "{got:#?}");
        assert!(got[0].starts_with("Deployment d/web: spec.template.spec.volumes[0].csi: volumes are not"), "{got:#?}");
        assert!(got[1].starts_with("Deployment d/other: spec.template.spec.volumes[0].csi"), "{got:#?}");
        assert!(got[2].starts_with("Deployment d/web: spec.template.spec.volumes[0].nfs"), "{got:#?}");
    }

    #[test]
    fn a_long_list_is_cut_with_a_word() {
        let volumes = json!([{"name": "v", "csi": {"driver": "d"}}]);
        let many: Vec<Object> = (0..25).map(|i| deployment(&format!("d{i}"), json!({"volumes": volumes}))).collect();
        let got = warnings(&many, &[], FeatureGates::default());
        assert_eq!(got.len(), TOLD + 1);
        assert_eq!(got[TOLD], format!("and 5 more of the last kind: {NO_VOLUME}"));
    }

    #[test]
    fn every_row_says_something_and_looks_somewhere() {
        for gap in GAPS {
            assert!(!gap.instead.is_empty() && !gap.instead.ends_with('.'), "{}", gap.instead);
            assert_eq!(matches!(gap.of, Of::Kind(_)), gap.path.is_empty(), "{}", gap.instead);
        }
    }
}
