//! How fast a workload may be scaled, and how long recommendations are remembered.
//!
//! Source: upstream's `pkg/controller/podautoscaler/horizontal.go` (`normalizeDesiredReplicas…`).

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2 as autoscaling_v2;

use crate::machine::Mono;

/// `--horizontal-pod-autoscaler-downscale-stabilization`.
const STABILIZATION: Duration = Duration::from_secs(300);

/// What became of a proposal, and the words for the conditions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Limited {
    pub(super) replicas: i32,
    /// Reason and message of AbleToScale.
    pub(super) able: (&'static str, &'static str),
    /// Whether ScalingLimited holds, its reason and message.
    pub(super) limited: (bool, &'static str, &'static str),
}

/// Bounds, and what is asked for at present and would be best.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) min: i32,
    pub(super) max: i32,
    pub(super) current: i32,
    pub(super) desired: i32,
}

/// What is remembered of one autoscaler.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Recommendations and when they were made.
    recommendations: Vec<(Mono, i32)>,
    /// By how much, and when, it was scaled up and down.
    ups: Vec<(Mono, i32)>,
    downs: Vec<(Mono, i32)>,
}

const READY: (&str, &str) = ("ReadyForNewScale", "recommended size matches current size");
const UP_STABILIZED: (&str, &str) = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const DOWN_STABILIZED: (&str, &str) = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const WITHIN: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_MANY: (&str, &str) = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: (&str, &str) = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const UP_LIMIT: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");

impl Memory {
    /// Remembers what was asked for when the autoscaler was first seen.
    pub(super) fn begin(&mut self, now: Mono, current: i32) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    /// What a proposal comes to.
    pub(super) fn limit(
        &mut self,
        now: Mono,
        behavior: Option<&autoscaling_v2::HorizontalPodAutoscalerBehavior>,
        ask: Ask,
    ) -> Limited {
        let (stable, able) = match behavior {
            None => self.stabilize_by_default(now, ask),
            Some(behavior) => self.stabilize(now, behavior, ask),
        };
        let (replicas, why) = match behavior {
            None => by_default(Ask { desired: stable, ..ask }),
            Some(behavior) => self.by_rules(now, behavior, Ask { desired: stable, ..ask }),
        };
        Limited { replicas, able, limited: (replicas != stable, why.0, why.1) }
    }

    fn stabilize_by_default(&mut self, now: Mono, ask: Ask) -> (i32, (&'static str, &'static str)) {
        self.recommendations.retain(|(at, _)| *at + STABILIZATION > now);
        let most = self.recommendations.iter().map(|(_, n)| *n).max().unwrap_or(ask.desired).max(ask.desired);
        self.recommendations.push((now, ask.desired));
        (most, if most == ask.desired { READY } else { DOWN_STABILIZED })
    }

    fn stabilize(
        &mut self,
        now: Mono,
        behavior: &autoscaling_v2::HorizontalPodAutoscalerBehavior,
        ask: Ask,
    ) -> (i32, (&'static str, &'static str)) {
        let window = |rules: Option<&autoscaling_v2::HPAScalingRules>, default: Duration| {
            let seconds = rules.and_then(|r| r.stabilization_window_seconds).and_then(|s| u64::try_from(s).ok());
            seconds.map_or(default, Duration::from_secs)
        };
        let up = window(behavior.scale_up.as_ref(), Duration::ZERO);
        let down = window(behavior.scale_down.as_ref(), STABILIZATION);
        let within =
            |window: Duration| self.recommendations.iter().filter(move |(at, _)| *at + window > now).map(|(_, n)| *n);
        let least = within(up).min().map_or(ask.desired, |n| n.min(ask.desired));
        let most = within(down).max().map_or(ask.desired, |n| n.max(ask.desired));
        self.recommendations.retain(|(at, _)| *at + up.max(down) > now);
        self.recommendations.push((now, ask.desired));
        let stable = ask.current.max(least).min(most);
        let able = match stable == ask.desired {
            true => READY,
            false if ask.desired >= ask.current => UP_STABILIZED,
            false => DOWN_STABILIZED,
        };
        (stable, able)
    }

    /// `convertDesiredReplicasWithBehaviorRate`.
    fn by_rules(
        &self,
        now: Mono,
        behavior: &autoscaling_v2::HorizontalPodAutoscalerBehavior,
        ask: Ask,
    ) -> (i32, (&'static str, &'static str)) {
        if ask.desired > ask.current {
            let limit = self.up_limit(now, behavior.scale_up.as_ref(), ask.current).max(ask.current);
            let (most, why) = if ask.max > limit { (limit, UP_LIMIT) } else { (ask.max, TOO_MANY) };
            if ask.desired > most {
                return (most, why);
            }
        } else if ask.desired < ask.current {
            let limit = self.down_limit(now, behavior.scale_down.as_ref(), ask.current).min(ask.current);
            let (least, why) = if ask.min < limit { (limit, DOWN_LIMIT) } else { (ask.min, TOO_FEW) };
            if ask.desired < least {
                return (least, why);
            }
        }
        (ask.desired, WITHIN)
    }

    /// By how much an autoscaler has changed its workload within a period, up and down.
    fn changes(&self, now: Mono, period: i32) -> (i32, i32) {
        let period = Duration::from_secs(u64::try_from(period).unwrap_or(0));
        let sum = |events: &[(Mono, i32)]| events.iter().filter(|(at, _)| *at + period > now).map(|(_, n)| n).sum();
        (sum(&self.ups), sum(&self.downs))
    }

    fn up_limit(&self, now: Mono, rules: Option<&autoscaling_v2::HPAScalingRules>, current: i32) -> i32 {
        let limits = |policy: &autoscaling_v2::HPAScalingPolicy| {
            let (ups, downs) = self.changes(now, policy.period_seconds);
            let start = current - ups + downs;
            match policy.type_.as_str() {
                "Pods" => start.saturating_add(policy.value),
                _ => {
                    (f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil().min(f64::from(i32::MAX)) as i32
                }
            }
        };
        let policies = rules.and_then(|r| r.policies.clone()).filter(|p| !p.is_empty()).unwrap_or_else(up_policies);
        match rules.and_then(|r| r.select_policy.as_deref()) {
            Some("Disabled") => current,
            Some("Min") => policies.iter().map(limits).min().unwrap_or(current),
            _ => policies.iter().map(limits).max().unwrap_or(current),
        }
    }

    fn down_limit(&self, now: Mono, rules: Option<&autoscaling_v2::HPAScalingRules>, current: i32) -> i32 {
        let limits = |policy: &autoscaling_v2::HPAScalingPolicy| {
            let (ups, downs) = self.changes(now, policy.period_seconds);
            let start = current - ups + downs;
            match policy.type_.as_str() {
                "Pods" => start - policy.value,
                _ => (f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
            }
        };
        let policies = rules.and_then(|r| r.policies.clone()).filter(|p| !p.is_empty()).unwrap_or_else(down_policies);
        match rules.and_then(|r| r.select_policy.as_deref()) {
            Some("Disabled") => current,
            Some("Min") => policies.iter().map(limits).max().unwrap_or(current),
            _ => policies.iter().map(limits).min().unwrap_or(current),
        }
    }

    /// Remembers that the workload was scaled, as long as any policy asks (`storeScaleEvent`).
    pub(super) fn scaled(
        &mut self,
        now: Mono,
        behavior: Option<&autoscaling_v2::HorizontalPodAutoscalerBehavior>,
        from: i32,
        to: i32,
    ) {
        let Some(behavior) = behavior else { return };
        let (events, rules) = match to > from {
            true => (&mut self.ups, behavior.scale_up.as_ref()),
            false => (&mut self.downs, behavior.scale_down.as_ref()),
        };
        let periods = rules.iter().flat_map(|r| r.policies.iter().flatten()).map(|p| p.period_seconds);
        let longest = periods.max().and_then(|s| u64::try_from(s).ok()).unwrap_or(15);
        events.retain(|(at, _)| *at + Duration::from_secs(longest) > now);
        events.push((now, (to - from).abs()));
    }
}

fn policy(type_: &str, value: i32) -> autoscaling_v2::HPAScalingPolicy {
    autoscaling_v2::HPAScalingPolicy { type_: type_.to_owned(), value, period_seconds: 15 }
}

fn up_policies() -> Vec<autoscaling_v2::HPAScalingPolicy> {
    vec![policy("Pods", 4), policy("Percent", 100)]
}

fn down_policies() -> Vec<autoscaling_v2::HPAScalingPolicy> {
    vec![policy("Percent", 100)]
}

/// `convertDesiredReplicasWithRules`.
fn by_default(ask: Ask) -> (i32, (&'static str, &'static str)) {
    let limit = (2 * ask.current).max(4);
    let (most, why) = if ask.max > limit { (limit, UP_LIMIT) } else { (ask.max, TOO_MANY) };
    if ask.desired < ask.min {
        (ask.min, TOO_FEW)
    } else if ask.desired > most {
        (most, why)
    } else {
        (ask.desired, WITHIN)
    }
}
