//! What simulated pods use, as the metrics API tells it: by the profiles of their images, and by the load that the
//! scenario puts on a workload.

use std::collections::BTreeMap;
use std::time::Duration;

use skeg_core::Now;
use skeg_core::controllers::{MetricsSource, PodUsage};
use skeg_core::object::{Milli, Pod, Selector, is_pod_ready, pod_phase};
use skeg_core::{Object, Wall};

use crate::runtime::profile;
use crate::scenario::{Action, ImageProfile, Load, Scenario, UserAction};

/// Interval between two measurements, each over the time since the last one (metrics-server's `--metric-resolution`).
const RESOLUTION: Duration = Duration::from_secs(15);

/// The metrics of a run: a pure function of time and pods.
#[derive(Debug)]
pub struct SimulatedMetrics {
    images: BTreeMap<String, ImageProfile>,
    loads: Vec<(Load, Selector)>,
}

impl SimulatedMetrics {
    /// The metrics of pods whose images have these profiles, without any load.
    pub fn of_images(images: BTreeMap<String, ImageProfile>) -> SimulatedMetrics {
        SimulatedMetrics { images, loads: Vec::new() }
    }

    /// The metrics of a scenario's pods.
    pub fn of(scenario: &Scenario) -> SimulatedMetrics {
        let loads = scenario.loads.iter().filter_map(|load| Some((load.clone(), selector(scenario, load)?)));
        SimulatedMetrics { images: scenario.images.clone(), loads: loads.collect() }
    }

    /// The load on a pod's workload at a time, in thousandths of a core: the last one that has begun.
    fn load(&self, now: Now, pod: &Pod) -> Option<u64> {
        let concerns = |(load, selector): &&(Load, Selector)| {
            load.target.namespace() == pod.namespace()
                && selector.matches(pod.meta.labels.as_ref())
                && load.at.as_nanos() as u64 <= now.mono.0
        };
        self.loads.iter().filter(concerns).max_by_key(|(load, _)| load.at).map(|(load, _)| load.cpu_milli)
    }
}

/// The pods of a load's workload, as the manifests select them.
fn selector(scenario: &Scenario, load: &Load) -> Option<Selector> {
    let mut objects = scenario.timeline.iter().flat_map(|step| match &step.action {
        Action::User(UserAction::Apply(all) | UserAction::Create(all) | UserAction::Replace { objects: all, .. }) => {
            all.as_slice()
        }
        Action::User(_) | Action::Fault(_) => &[],
    });
    let same = |object: &&Object| {
        let namespace = if object.namespace().is_empty() { "default" } else { object.namespace() };
        object.kind() == load.target.kind && object.name() == load.target.name() && namespace == load.target.namespace()
    };
    let scale = objects.rfind(same)?.scale()?;
    Selector::parse(&scale.selector).ok()
}

impl MetricsSource for SimulatedMetrics {
    fn usage(&self, now: Now, pod: &Pod, others: &[&Pod]) -> Option<PodUsage> {
        let started = pod.status.start_time.to_time().map(|t| Wall::from_time(&t))?;
        let step = RESOLUTION.as_micros() as i64;
        let at = Wall(now.wall.0 - now.wall.0.rem_euclid(step));
        if pod_phase(pod) != "Running" || at < started + RESOLUTION {
            return None;
        }
        let containers = &pod.spec.shared.containers;
        let share = self.load(now, pod).filter(|_| is_pod_ready(pod)).map(|load| {
            let ready = others.iter().filter(|pod| is_pod_ready(pod)).count().max(1);
            load / (ready * containers.len().max(1)) as u64
        });
        let default = ImageProfile::default();
        let each = containers.iter().map(|c| {
            let profile = profile(&self.images, c.image.as_deref().unwrap_or(""), &default);
            let cpu = share.unwrap_or(profile.cpu_milli) as i64;
            let limit = c.resources.as_ref().and_then(|r| r.limits.as_ref()?.get("cpu")).map(|q| Milli::of(q).0 as i64);
            let memory = profile.memory_bytes as i64 * 1000;
            let used = [("cpu".to_owned(), cpu.min(limit.unwrap_or(cpu))), ("memory".to_owned(), memory)];
            (c.name.clone(), BTreeMap::from(used))
        });
        Some(PodUsage { at, window: RESOLUTION, containers: each.collect() })
    }
}
