//! The horizontal pod autoscaler: keeps a metric of a workload's pods at its target by changing how many there are.
//!
//! What comes in: autoscalers, what they scale, pods, and metrics through a port ([`MetricsSource`]). What goes out:
//! scales, statuses, Events. Never scales faster than the autoscaler's policies allow, or below what was recommended
//! within its stabilisation window, as far as this process remembers; a new one remembers nothing, as upstream.
//!
//! `metrics` is the port, `replicas` calculates what one metric asks for, `behavior` limits it, `conditions` words the
//! status. Kinds that CustomResourceDefinitions define are not scaled yet.
//!
//! Source: upstream's `pkg/controller/podautoscaler`, <https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/>.

mod behavior;
mod conditions;
mod metrics;
mod replicas;
mod sample;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2 as autoscaling_v2;
use k8s_openapi::api::core::v1 as core_v1;
use serde_json::{Value, json};

use super::{Controller, EventNote, Plan, Write};
use crate::api::{Status, Subresource};
use crate::client::{Change, EventType, Index, Views, Watched};
use crate::machine::{Mono, Now};
use crate::object::{Kind, Milli, Object, ObjectKey, Pod, Requirement, Selector};
use behavior::{Ask, Limited, Memory};
use conditions::Conditions;
pub use metrics::{Described, Metrics, MetricsSource, PodUsage};
use replicas::{Tolerance, Workload};

/// Interval between two looks at an autoscaler (`--horizontal-pod-autoscaler-sync-period`).
const SYNC_PERIOD: Duration = Duration::from_secs(15);
/// By which fraction usage may be off before anything is done (`--horizontal-pod-autoscaler-tolerance`).
const TOLERANCE: f64 = 0.1;

/// The controller.
#[derive(Debug)]
pub struct HorizontalPodAutoscalerController {
    metrics: Metrics,
    known: BTreeMap<ObjectKey, Known>,
}

/// What is remembered of one autoscaler.
#[derive(Debug, Default)]
struct Known {
    memory: Memory,
    /// When it is to be looked at next.
    due: Option<Mono>,
    /// The change that is being written: when it was decided, from how many replicas to how many.
    scaling: Option<(Mono, i32, i32)>,
}

impl HorizontalPodAutoscalerController {
    /// An autoscaler that gets metrics from this source.
    pub fn new(metrics: Metrics) -> HorizontalPodAutoscalerController {
        HorizontalPodAutoscalerController { metrics, known: BTreeMap::new() }
    }
}

const WATCHES: &[Watched] = &[
    Watched { kind: Kind::HORIZONTAL_POD_AUTOSCALER, indexes: &[] },
    Watched { kind: Kind::POD, indexes: &[Index::Label] },
    Watched { kind: Kind::DEPLOYMENT, indexes: &[] },
    Watched { kind: Kind::REPLICA_SET, indexes: &[] },
    Watched { kind: Kind::STATEFUL_SET, indexes: &[] },
    Watched { kind: Kind::REPLICATION_CONTROLLER, indexes: &[] },
];

/// An autoscaler, taken apart.
struct Autoscaler<'a> {
    object: &'a Object,
    spec: autoscaling_v2::HorizontalPodAutoscalerSpec,
    status: autoscaling_v2::HorizontalPodAutoscalerStatus,
}

/// What one look at an autoscaler comes to.
struct Outcome {
    current: i32,
    desired: i32,
    /// Why the workload is scaled; `None` if it is not.
    rescale: Option<String>,
    metrics: Vec<autoscaling_v2::MetricStatus>,
}

impl Controller for HorizontalPodAutoscalerController {
    fn name(&self) -> &'static str {
        "horizontal-pod-autoscaler"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHES
    }

    fn keys(&self, change: &Change, _views: &Views, keys: &mut Vec<ObjectKey>) {
        if change.key.kind == Kind::HORIZONTAL_POD_AUTOSCALER {
            keys.push(change.key.clone());
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let object = views.view(Kind::HORIZONTAL_POD_AUTOSCALER).get(key).filter(|o| !o.is_deleting());
        let Some(hpa) = object.and_then(read) else {
            self.known.remove(key);
            return plan;
        };
        let known = self.known.entry(key.clone()).or_default();
        let due = *known.due.get_or_insert(now.mono + SYNC_PERIOD);
        if due > now.mono {
            plan.requeue(due - now.mono);
            return plan;
        }
        known.due = Some(now.mono + SYNC_PERIOD);
        plan.requeue(SYNC_PERIOD);
        self.sync(views, &hpa, now, &mut plan);
        plan
    }

    fn succeeded(&mut self, views: &Views, key: &ObjectKey, write: &Write, _: Option<&Object>) -> Option<EventNote> {
        let Write::SetScale { .. } = write else { return None };
        let known = self.known.get_mut(key)?;
        let (at, from, to) = known.scaling.take()?;
        let hpa = views.view(Kind::HORIZONTAL_POD_AUTOSCALER).get(key).and_then(read)?;
        known.memory.scaled(at, hpa.spec.behavior.as_ref(), from, to);
        None
    }

    fn failed(&mut self, views: &Views, key: &ObjectKey, write: &Write, error: &Status) -> Option<EventNote> {
        let Write::SetScale { replicas, reason, .. } = write else { return None };
        if let Some(known) = self.known.get_mut(key) {
            known.scaling = None;
        }
        let about = views.view(Kind::HORIZONTAL_POD_AUTOSCALER).get(key)?.clone();
        let message = format!("New size: {replicas}; reason: {reason}; error: {error}");
        Some(EventNote { about, type_: EventType::Warning, reason: "FailedRescale", message })
    }
}

fn read(object: &Object) -> Option<Autoscaler<'_>> {
    let whole: autoscaling_v2::HorizontalPodAutoscaler = serde_json::from_value(object.to_json()).ok()?;
    Some(Autoscaler { object, spec: whole.spec, status: whole.status.unwrap_or_default() })
}

impl HorizontalPodAutoscalerController {
    /// `reconcileAutoscaler`.
    fn sync(&mut self, views: &Views, hpa: &Autoscaler<'_>, now: Now, plan: &mut Plan) {
        let mut conditions = Conditions::of(&hpa.status, now);
        let target = match target(views, hpa) {
            Ok(target) => target,
            Err(why) => {
                let message = format!("the HPA controller was unable to get the target's current scale: {why}");
                conditions.set("AbleToScale", false, "FailedGetScale", message);
                warn(plan, hpa.object, "FailedGetScale", why);
                let desired = hpa.status.desired_replicas;
                let current = hpa.status.current_replicas.unwrap_or(0);
                let metrics = hpa.status.current_metrics.clone().unwrap_or_default();
                let outcome = Outcome { current, desired, rescale: None, metrics };
                return write_status(hpa, &outcome, conditions, now, plan);
            }
        };
        let able = "the HPA controller was able to get the target's current scale";
        conditions.set("AbleToScale", true, "SucceededGetScale", able.to_owned());
        let known = self.known.get_mut(hpa.object.key_ref()).expect("it was noted above");
        let scale = target.scale().expect("a target has a scale");
        known.memory.begin(now.mono, scale.wanted);
        let outcome = match decide(
            views,
            hpa,
            (scale.wanted, scale.current, &scale.selector),
            (known, &self.metrics),
            now,
            &mut conditions,
            plan,
        ) {
            Ok(outcome) => outcome,
            Err(metrics) => {
                let desired = hpa.status.desired_replicas;
                let outcome = Outcome { current: scale.wanted, desired, rescale: None, metrics };
                return write_status(hpa, &outcome, conditions, now, plan);
            }
        };
        if let Some(reason) = &outcome.rescale {
            let to = outcome.desired;
            known.scaling = Some((now.mono, outcome.current, to));
            let message = format!("the HPA controller was able to update the target scale to {to}");
            conditions.set("AbleToScale", true, "SucceededRescale", message);
            let (key, rv) = (target.key(), target.rv());
            plan.writes.push(Write::SetScale { key, replicas: to, rv, reason: reason.clone() });
            let message = format!("New size: {to}; reason: {reason}");
            let about = hpa.object.clone();
            plan.events.push(EventNote { about, type_: EventType::Normal, reason: "SuccessfulRescale", message });
        }
        write_status(hpa, &outcome, conditions, now, plan);
    }
}

fn warn(plan: &mut Plan, about: &Object, reason: &'static str, message: String) {
    plan.events.push(EventNote { about: about.clone(), type_: EventType::Warning, reason, message });
}

/// What an autoscaler scales.
fn target<'a>(views: &'a Views, hpa: &Autoscaler<'_>) -> Result<&'a Object, String> {
    let of = &hpa.spec.scale_target_ref;
    let kinds = [Kind::DEPLOYMENT, Kind::REPLICA_SET, Kind::STATEFUL_SET, Kind::REPLICATION_CONTROLLER];
    let group = |version: &str| version.rsplit_once('/').map_or("", |(group, _)| group).to_owned();
    let asked = group(of.api_version.as_deref().unwrap_or(""));
    let kind = kinds.into_iter().find(|kind| *kind.row().kind == *of.kind && group(&kind.row().api_version()) == asked);
    let Some(kind) = kind else {
        return Err(format!("no matches for kind {:?} in group {asked:?}", of.kind));
    };
    let missing = || format!("{} {:?} not found", kind.row().qualified(), of.name);
    views.view(kind).find(hpa.object.namespace(), &of.name).ok_or_else(missing)
}

/// The pods of a workload, in order of their names.
fn pods<'a>(views: &'a Views, namespace: &str, selector: &Selector) -> Vec<&'a Pod> {
    let view = views.view(Kind::POD);
    let label = selector.requirements.iter().find_map(|r| match r {
        Requirement::In(key, values) if values.len() == 1 => Some((key.clone(), values[0].clone())),
        _ => None,
    });
    let all: Vec<&Object> = match &label {
        Some((key, value)) => view.paired(Index::Label, namespace, key, value).collect(),
        None => view.namespace(namespace).collect(),
    };
    let mut pods: Vec<&Pod> = all.into_iter().filter_map(Object::get::<core_v1::Pod>).collect();
    pods.retain(|pod| selector.matches(pod.meta.labels.as_ref()));
    pods.sort_by(|a, b| a.name().cmp(b.name()));
    pods
}

/// How many replicas there are to be. The error is the metrics of which a status is still worth writing.
fn decide(
    views: &Views,
    hpa: &Autoscaler<'_>,
    (wanted, there, selector): (i32, i32, &str),
    (known, metrics): (&mut Known, &Metrics),
    now: Now,
    conditions: &mut Conditions,
    plan: &mut Plan,
) -> Result<Outcome, Vec<autoscaling_v2::MetricStatus>> {
    let (min, max) = (hpa.spec.min_replicas.unwrap_or(1), hpa.spec.max_replicas);
    let kept = hpa.status.current_metrics.clone().unwrap_or_default();
    let forced = |desired: i32, why: &str| {
        Ok(Outcome { current: wanted, desired, rescale: Some(why.to_owned()), metrics: kept.clone() })
    };
    if wanted == 0 && min != 0 {
        let message = "scaling is disabled since the replica count of the target is zero";
        conditions.set("ScalingActive", false, "ScalingDisabled", message.to_owned());
        return Ok(Outcome { current: 0, desired: 0, rescale: None, metrics: kept });
    }
    if wanted > max {
        return forced(max, "Current number of replicas above Spec.MaxReplicas");
    }
    if wanted < min {
        return forced(min, "Current number of replicas below Spec.MinReplicas");
    }
    let selector = match Selector::parse(selector).ok().filter(|s| !s.is_everything()) {
        Some(selector) => selector,
        None => {
            let message = "the HPA target's scale is missing a selector";
            conditions.set("ScalingActive", false, "InvalidSelector", message.to_owned());
            warn(plan, hpa.object, "SelectorRequired", "selector is required".to_owned());
            warn(plan, hpa.object, "FailedComputeMetricsReplicas", "selector is required".to_owned());
            return Err(Vec::new());
        }
    };
    let behavior = hpa.spec.behavior.as_ref();
    let tolerance = |rules: Option<&autoscaling_v2::HPAScalingRules>| {
        let given = rules.and_then(|r| r.tolerance.as_ref()).map(|q| Milli::of(q).0 as f64 / 1000.0);
        given.unwrap_or(TOLERANCE)
    };
    let tolerance = Tolerance {
        up: tolerance(behavior.and_then(|b| b.scale_up.as_ref())),
        down: tolerance(behavior.and_then(|b| b.scale_down.as_ref())),
    };
    let pods = pods(views, hpa.object.namespace(), &selector);
    let workload = Workload { pods: &pods, current: wanted, tolerance };
    let of = sample::Of { metrics: metrics.as_deref(), namespace: hpa.object.namespace(), there, now };
    let (proposal, name, metrics) = sample::all(hpa, &of, &workload, conditions, plan)?;
    let ask = Ask { min, max, current: wanted, desired: proposal };
    let Limited { replicas, able, limited } = known.memory.limit(now.mono, behavior, ask);
    conditions.set("AbleToScale", true, able.0, able.1.to_owned());
    conditions.set("ScalingLimited", limited.0, limited.1, limited.2.to_owned());
    // Upstream gives no reason where an earlier, higher recommendation is followed.
    let reason = match proposal.cmp(&wanted) {
        Ordering::Greater => format!("{name} above target"),
        Ordering::Equal => String::new(),
        Ordering::Less => "All metrics below target".to_owned(),
    };
    Ok(Outcome { current: wanted, desired: replicas, rescale: (replicas != wanted).then_some(reason), metrics })
}

/// Writes a status that differs from what is stored.
fn write_status(hpa: &Autoscaler<'_>, outcome: &Outcome, conditions: Conditions, now: Now, plan: &mut Plan) {
    let mut status = autoscaling_v2::HorizontalPodAutoscalerStatus {
        observed_generation: hpa.object.meta().generation,
        current_replicas: Some(outcome.current),
        desired_replicas: outcome.desired,
        last_scale_time: hpa.status.last_scale_time.clone(),
        current_metrics: (!outcome.metrics.is_empty()).then(|| outcome.metrics.clone()),
        conditions: Some(conditions.list),
    };
    if outcome.rescale.is_some() {
        status.last_scale_time = Some(now.wall.to_time());
    }
    if status == hpa.status {
        return;
    }
    let mut value = hpa.object.to_json();
    value["status"] = json!(status);
    prune(&mut value["status"]);
    let copy = Object::from_json(value).expect("an autoscaler with a status reads");
    plan.writes.push(Write::Update(copy, Subresource::Status));
}

/// Removes fields without a value.
fn prune(value: &mut Value) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, v| !v.is_null());
    }
}
