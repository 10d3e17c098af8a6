//! How many replicas a metric asks for.
//!
//! Source: upstream's `pkg/controller/podautoscaler/replica_calculator.go`. Ratios are floating point there, and so
//! here: the same inputs give the same bits on every machine, since only the four operations and `ceil` are used.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::metrics::PodUsage;
use crate::machine::{Now, Wall};
use crate::object::{Milli, Pod, Text, is_pod_ready, is_restartable_init, pod_phase};

/// How long after its start a pod's CPU samples may be those of its start-up
/// (`--horizontal-pod-autoscaler-cpu-initialization-period`).
const CPU_INITIALIZATION: Duration = Duration::from_secs(300);
/// How long a pod that starts counts as never having been ready
/// (`--horizontal-pod-autoscaler-initial-readiness-delay`).
const READINESS_DELAY: Duration = Duration::from_secs(30);

/// By how much usage may be off before anything is done, as fractions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerance {
    pub(super) up: f64,
    pub(super) down: f64,
}

impl Tolerance {
    fn covers(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// What is measured of the pods of a workload: by pod, in thousandths.
pub(super) type Samples = BTreeMap<String, i64>;

/// The pods of a workload, and how many replicas are asked for at present.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workload<'a> {
    pub(super) pods: &'a [&'a Pod],
    pub(super) current: i32,
    pub(super) tolerance: Tolerance,
}

/// A proposal: replicas, and the measured value for the status (utilisation in percent or an amount in thousandths).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    pub(super) utilization: Option<i32>,
    pub(super) value: i64,
}

#[derive(Debug, Default)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
}

/// What one resource of some container, or of all containers, of each pod used.
pub(super) fn samples(usage: &BTreeMap<String, PodUsage>, resource: &str, container: Option<&str>) -> Samples {
    let of = |usage: &PodUsage| -> Option<i64> {
        let mut all = usage.containers.iter().filter(|(name, _)| container.is_none_or(|c| *name == c)).peekable();
        all.peek()?;
        all.map(|(_, used)| used.get(resource).copied()).sum()
    };
    usage.iter().filter_map(|(pod, usage)| Some((pod.clone(), of(usage)?))).collect()
}

impl Workload<'_> {
    /// By utilisation: usage as a percentage of what the pods request (`GetResourceReplicas`).
    pub(super) fn by_utilization(
        &self,
        now: Now,
        usage: &BTreeMap<String, PodUsage>,
        (resource, container): (&str, Option<&str>),
        target: i32,
    ) -> Result<Proposal, String> {
        let mut samples = self.known(samples(usage, resource, container), resource)?;
        let groups = self.group(now, usage, &mut samples, resource)?;
        let requests = self.requests(resource, container)?;
        let percent = |samples: &Samples| -> Option<(f64, i32, i64)> {
            let (mut used, mut asked, mut pods) = (0_i128, 0_i128, 0_i128);
            for (pod, sample) in samples {
                if let Some(request) = requests.get(pod) {
                    (used, asked, pods) = (used + i128::from(*sample), asked + i128::from(*request), pods + 1);
                }
            }
            if asked == 0 {
                return None;
            }
            let utilization = i32::try_from(used * 100 / asked).unwrap_or(i32::MAX);
            let average = i64::try_from(used / pods).unwrap_or(i64::MAX);
            Some((f64::from(utilization) / f64::from(target), utilization, average))
        };
        let (ratio, utilization, value) = percent(&samples).ok_or("no metrics returned matched known pods")?;
        let most = i64::from(target.max(100));
        let fallback = |pod: &String| requests.get(pod).map_or(0, |request| request * most / 100);
        let again = |samples: &Samples| percent(samples).map_or(ratio, |(ratio, ..)| ratio);
        let replicas = self.settle(ratio, samples, &groups, fallback, again);
        Ok(Proposal { replicas, utilization: Some(utilization), value })
    }

    /// By average amount (`calcPlainMetricReplicas`). `usage` is that of the resource, for pods that start up.
    pub(super) fn by_average(
        &self,
        now: Now,
        usage: &BTreeMap<String, PodUsage>,
        samples: Samples,
        (resource, target): (&str, i64),
    ) -> Result<Proposal, String> {
        let mut samples = self.known(samples, resource)?;
        let groups = self.group(now, usage, &mut samples, resource)?;
        let average = |samples: &Samples| samples.values().sum::<i64>() / samples.len().max(1) as i64;
        let ratio = |samples: &Samples| average(samples) as f64 / target as f64;
        let (first, value) = (ratio(&samples), average(&samples));
        let replicas = self.settle(first, samples, &groups, |_| target, ratio);
        Ok(Proposal { replicas, utilization: None, value })
    }

    /// By one value for the whole workload (`getUsageRatioReplicaCount`).
    pub(super) fn by_value(&self, value: i64, target: i64) -> Proposal {
        let ratio = value as f64 / target as f64;
        let replicas = if self.current == 0 {
            ceil(ratio)
        } else if self.tolerance.covers(ratio) {
            self.current
        } else {
            let ready = self.pods.iter().filter(|pod| pod_phase(pod) == "Running" && is_pod_ready(pod)).count();
            ceil(ratio * ready as f64)
        };
        Proposal { replicas, utilization: None, value }
    }

    /// By one value that is shared by the replicas there are (`GetExternalPerPodMetricReplicas`).
    pub(super) fn by_share(&self, there: i32, value: i64, target: i64) -> Proposal {
        let ratio = value as f64 / (target as f64 * f64::from(there));
        let replicas = if self.tolerance.covers(ratio) { there } else { ceil(value as f64 / target as f64) };
        let share = (value as f64 / f64::from(there)).ceil() as i64;
        Proposal { replicas, utilization: None, value: share }
    }

    fn known(&self, samples: Samples, resource: &str) -> Result<Samples, String> {
        if samples.is_empty() {
            let why = "no metrics returned from resource metrics API";
            return Err(format!("unable to get metrics for resource {resource}: {why}"));
        }
        if self.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".to_owned());
        }
        Ok(samples)
    }

    /// Groups the pods, and removes the samples of those that do not count (`groupPods`).
    fn group(
        &self,
        now: Now,
        usage: &BTreeMap<String, PodUsage>,
        samples: &mut Samples,
        resource: &str,
    ) -> Result<Groups, String> {
        let mut groups = Groups::default();
        for pod in self.pods {
            let name = pod.name();
            if pod.meta.deletion_timestamp.is_some() || pod_phase(pod) == "Failed" {
                samples.remove(name);
            } else if pod_phase(pod) == "Pending" {
                samples.remove(name);
                groups.unready.insert(name.to_owned());
            } else if !samples.contains_key(name) {
                groups.missing.insert(name.to_owned());
            } else if resource == "cpu" && usage.get(name).is_some_and(|usage| starts_up(now, pod, usage)) {
                samples.remove(name);
                groups.unready.insert(name.to_owned());
            } else {
                groups.ready += 1;
            }
        }
        let listed: BTreeSet<&str> = self.pods.iter().map(|pod| pod.name()).collect();
        samples.retain(|pod, _| listed.contains(pod.as_str()));
        if samples.is_empty() {
            return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
        }
        Ok(groups)
    }

    /// The common end: takes pods without a sample for as good as possible in the direction of the change, and looks
    /// again.
    fn settle(
        &self,
        ratio: f64,
        mut samples: Samples,
        groups: &Groups,
        missing: impl Fn(&String) -> i64,
        again: impl Fn(&Samples) -> f64,
    ) -> i32 {
        let up_with_unready = !groups.unready.is_empty() && ratio > 1.0;
        if !up_with_unready && groups.missing.is_empty() {
            return if self.tolerance.covers(ratio) { self.current } else { ceil(ratio * groups.ready as f64) };
        }
        for pod in &groups.missing {
            if ratio < 1.0 {
                samples.insert(pod.clone(), missing(pod));
            } else if ratio > 1.0 {
                samples.insert(pod.clone(), 0);
            }
        }
        if up_with_unready {
            samples.extend(groups.unready.iter().map(|pod| (pod.clone(), 0)));
        }
        let second = again(&samples);
        let turned = ratio < 1.0 && second > 1.0 || ratio > 1.0 && second < 1.0;
        if self.tolerance.covers(second) || turned {
            return self.current;
        }
        let replicas = ceil(second * samples.len() as f64);
        let wrong_way = second < 1.0 && replicas > self.current || second > 1.0 && replicas < self.current;
        if wrong_way { self.current } else { replicas }
    }

    /// What each pod requests, in thousandths (`calculatePodRequests`).
    fn requests(&self, resource: &str, container: Option<&str>) -> Result<BTreeMap<String, i64>, String> {
        let mut all = BTreeMap::new();
        for pod in self.pods {
            let spec = &pod.spec.shared;
            let sidecars = spec.init_containers.iter().flatten().filter(|c| is_restartable_init(c));
            let pod_level = spec.resources.as_ref().and_then(|r| r.requests.as_ref()?.get(resource));
            if let (Some(request), None) = (pod_level, container) {
                all.insert(pod.name().to_owned(), milli(Milli::of(request)));
                continue;
            }
            let mut sum = 0;
            let mut found = false;
            for c in spec.containers.iter().chain(sidecars).filter(|c| container.is_none_or(|name| c.name == name)) {
                found = true;
                let request = c.resources.as_ref().and_then(|r| r.requests.as_ref()?.get(resource));
                let missing =
                    || format!("missing request for {resource} in container {} of Pod {}", c.name, pod.name());
                sum += milli(Milli::of(request.ok_or_else(missing)?));
            }
            if !found && let Some(name) = container {
                return Err(format!("container {name} not found in Pod {}", pod.name()));
            }
            all.insert(pod.name().to_owned(), sum);
        }
        Ok(all)
    }
}

fn milli(amount: Milli) -> i64 {
    i64::try_from(amount.0).unwrap_or(i64::MAX)
}

/// Rounds up to whole replicas.
fn ceil(ratio: f64) -> i32 {
    ratio.ceil().clamp(0.0, f64::from(i32::MAX)) as i32
}

/// Whether a pod's CPU sample may be of its start-up.
fn starts_up(now: Now, pod: &Pod, usage: &PodUsage) -> bool {
    let started = pod.status.start_time.to_time().map(|t| Wall::from_time(&t));
    let ready = pod.status.condition(&Text::READY);
    let (Some(started), Some(ready)) = (started, ready) else { return true };
    let is_unready = ready.status == Text::FALSE;
    let since = ready.last_transition_time.to_time().map_or(started, |t| Wall::from_time(&t));
    if now.wall.since(started) < CPU_INITIALIZATION {
        is_unready || usage.at < since + usage.window
    } else {
        is_unready && since < started + READINESS_DELAY
    }
}
