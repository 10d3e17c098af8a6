//! `autoscalers-keep-bounds`: a HorizontalPodAutoscaler never asks for fewer replicas than its minimum or more than its
//! maximum, scales nothing that a user has scaled to zero, and within its stabilisation window never scales down below
//! what it has scaled up to.
//!
//! A new leader has no recommendations of before, and takes the present size for one, which comes to the same.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2 as autoscaling_v2;
use skeg_core::api::Call;
use skeg_core::object::{Kind, Object, ObjectKey};

use super::reading::DRIFT;
use super::{Asked, Invariant, Report};
use crate::converge::objects;

const USER: &str = "horizontal-pod-autoscaler";
/// The default window, in seconds.
const WINDOW: i32 = 300;

/// What autoscalers and others have done to the sizes of workloads.
#[derive(Debug, Default)]
pub(super) struct Autoscalers {
    /// To how many replicas, and when, each was scaled up.
    ups: BTreeMap<ObjectKey, Vec<(f64, i32)>>,
    /// When somebody else has scaled it.
    others: BTreeMap<ObjectKey, f64>,
}

/// The autoscaler of a workload.
fn autoscaler(asked: &Asked<'_>, target: &ObjectKey) -> Option<autoscaling_v2::HorizontalPodAutoscalerSpec> {
    objects(asked.store, Kind::HORIZONTAL_POD_AUTOSCALER)
        .filter(|object| object.namespace() == target.namespace())
        .filter_map(|object| serde_json::from_value(object.to_json()["spec"].take()).ok())
        .find(|spec: &autoscaling_v2::HorizontalPodAutoscalerSpec| {
            spec.scale_target_ref.name == target.name() && *spec.scale_target_ref.kind == *target.kind.row().kind
        })
}

/// `spec.replicas` of a workload.
fn size(workload: &Object) -> Option<i32> {
    match workload {
        Object::Deployment(o) => o.spec.replicas,
        Object::ReplicaSet(o) => o.spec.replicas,
        Object::ReplicationController(o) => o.spec.replicas,
        Object::StatefulSet(o) => o.spec.replicas,
        _ => None,
    }
}

impl Autoscalers {
    /// Checks a change of a scale as it arrives.
    pub fn asked(&mut self, asked: &Asked<'_>, report: &mut Report) {
        let Call::SetScale { key, replicas, rv, .. } = &asked.request.call else { return };
        // Of a stale version it comes to nothing.
        if *asked.request.user != *USER {
            self.others.insert(key.clone(), asked.at);
            return;
        }
        let stored = asked.store.object(key).filter(|stored| stored.rv() == *rv);
        let Some(now) = stored.and_then(size) else { return };
        let Some(spec) = autoscaler(asked, key) else { return };
        let (least, most) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
        let mut broken = |what: String| report.broken(Invariant::AutoscalersKeepBounds, asked.at, what);
        if *replicas < least || *replicas > most {
            broken(format!("{key} is to have {replicas} replicas, and its autoscaler's bounds are {least} and {most}"));
        }
        if now == 0 && least > 0 {
            broken(format!("{key} is scaled to {replicas}, and somebody has scaled it to zero"));
        }
        let down = spec.behavior.and_then(|behavior| behavior.scale_down);
        let window = f64::from(down.and_then(|rules| rules.stabilization_window_seconds).unwrap_or(WINDOW));
        let ups = self.ups.entry(key.clone()).or_default();
        if *replicas > now {
            // What undoes the scaling of somebody else may follow a recommendation from before that.
            if self.others.get(key).is_none_or(|at| asked.at - at > window) {
                ups.push((asked.at, *replicas));
            }
            return;
        }
        ups.retain(|(at, _)| asked.at - at < window * (1.0 - DRIFT));
        // A user may have scaled it down since, and then scaled it somewhat up again.
        if let Some((at, up)) = ups.iter().find(|(_, up)| replicas < up && now >= *up && *up <= most) {
            broken(format!("{key} is scaled down to {replicas}; at {at:.1} s it was scaled up to {up}"));
        }
    }
}
