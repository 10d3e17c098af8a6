//! What the containers of real nodes use, as it was measured last: what autoscalers go by there. It is told to the
//! controllers between their steps, and recorded as an input of theirs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skeg_core::controllers::{MetricsSource, PodUsage};
use skeg_core::object::Pod;
use skeg_core::{Now, Wall};

/// How often it is measured while an autoscaler needs it (metrics-server's `--metric-resolution`).
pub const INTERVAL: Duration = Duration::from_secs(15);
/// What is older says nothing of a pod any more, in microseconds.
const STALE: i64 = 120_000_000;

/// One measurement.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    /// When it was made.
    pub at: Wall,
    /// By UID of the pod and name of the container: CPU in thousandths of a core, and memory in bytes.
    pub pods: BTreeMap<String, BTreeMap<String, (u64, u64)>>,
}

/// The last measurement.
#[derive(Debug, Default)]
pub struct MeasuredMetrics(RefCell<Measured>);

impl MeasuredMetrics {
    /// Takes the next measurement.
    pub fn tell(&self, measured: Measured) {
        *self.0.borrow_mut() = measured;
    }
}

impl MetricsSource for MeasuredMetrics {
    fn usage(&self, now: Now, pod: &Pod, _others: &[&Pod]) -> Option<PodUsage> {
        let last = self.0.borrow();
        let containers = last.pods.get(pod.uid()).filter(|_| now.wall.0 - last.at.0 < STALE)?;
        let thousandths = |amount: u64| i64::try_from(amount.saturating_mul(1000)).unwrap_or(i64::MAX);
        let of = |(name, (cpu_milli, bytes)): (&String, &(u64, u64))| {
            let cpu = i64::try_from(*cpu_milli).unwrap_or(i64::MAX);
            let used = [("cpu".to_owned(), cpu), ("memory".to_owned(), thousandths(*bytes))];
            (name.clone(), BTreeMap::from(used))
        };
        Some(PodUsage { at: last.at, window: INTERVAL, containers: containers.iter().map(of).collect() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use skeg_core::controllers::MetricsSource;
    use skeg_core::{Mono, Now, Object, Wall};

    use super::{Measured, MeasuredMetrics, STALE};

    #[test]
    fn what_is_known_of_a_pod_is_what_was_measured_lately() {
        let metrics = MeasuredMetrics::default();
        let pod = |uid: &str| {
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d", "uid": uid},
                "spec": {"containers": [{"name": "c"}]}});
            let Ok(Object::Pod(pod)) = Object::from_json(pod) else { panic!("a pod") };
            pod
        };
        let used = |uid: &str, at: i64| {
            let now = Now { mono: Mono(0), wall: Wall(at) };
            metrics.usage(now, &pod(uid), &[]).map(|usage| (usage.at.0, usage.containers["c"].clone()))
        };
        assert_eq!(used("u", 0), None);
        let pods = [("u".to_owned(), [("c".to_owned(), (250, 3))].into())].into();
        metrics.tell(Measured { at: Wall(7), pods });
        let amounts = [("cpu".to_owned(), 250), ("memory".to_owned(), 3000)].into();
        assert_eq!(used("u", 8), Some((7, amounts)));
        assert_eq!((used("other", 8), used("u", 7 + STALE)), (None, None));
    }
}
