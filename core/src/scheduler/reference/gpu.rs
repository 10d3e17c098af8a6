//! The naive GPU sharing: every device and every pod of the workload, one after the other.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::naive::{Naive, World};
use super::pick;
use crate::object::{Node, Pod};
use crate::scheduler::gpu::{Ask, GpuShare, Policy, Target};
use crate::scheduler::profile::Plugin;

pub const GPU: &str = "alibabacloud.com/gpu-milli";
pub const INDEX: &str = "alibabacloud.com/gpu-index";
pub const MODEL: &str = "alibabacloud.com/gpu-card-model";

const ODD: &str =
    "node(s) can't give parts of several GPUs, alibabacloud.com/gpu-milli must be less or a multiple of 1000";

/// The arguments of a profile.
pub fn arguments() -> BoxedStrategy<GpuShare> {
    let asks = pick(&[0, 100, 250, 500, 999, 1000, 2000, 3000]);
    let models = prop::collection::btree_set(pick(&["T4", "A10"]), 0..3);
    let target = (pick(&[0, 100, 500, 2000]), asks, models, 1..5i64).prop_map(|(cpu, gpu, models, pods)| Target {
        cpu,
        gpu: Ask::of(gpu),
        models: models.into_iter().map(str::to_owned).collect(),
        pods,
    });
    let largest = (pick(&[500, 4000, 128_000]), pick(&[1000, 3000, 8000]));
    (pick(&Policy::ALL), largest, prop::collection::vec(target, 0..6))
        .prop_map(|(policy, largest, workload)| GpuShare { policy, largest, workload })
        .boxed()
}

/// The devices that a pod on a node names.
fn named(pod: &Pod) -> Vec<usize> {
    let text = pod.meta.annotations.as_ref().and_then(|a| a.get(INDEX)).cloned().unwrap_or_default();
    let parts: Vec<Option<usize>> = text.split('-').map(|part| part.parse().ok()).collect();
    if parts.iter().any(|part| part.is_none_or(|index| index > 63)) {
        return Vec::new();
    }
    parts.into_iter().flatten().collect::<BTreeSet<usize>>().into_iter().collect()
}

/// The lists of devices that a request can be given, of which so much is free.
fn choices(milli: i64, free: &[i64]) -> Vec<Vec<usize>> {
    if milli % 1000 == 0 {
        let idle: Vec<usize> = (0..free.len()).filter(|i| free[*i] == 1000).take((milli / 1000) as usize).collect();
        return if idle.len() as i64 == milli / 1000 { vec![idle] } else { vec![] };
    }
    (0..free.len()).filter(|i| milli < 1000 && free[*i] >= milli).map(|i| vec![i]).collect()
}

fn take(free: &[i64], devices: &[usize], milli: i64) -> Vec<i64> {
    let of = |i: usize| if devices.contains(&i) { milli.min(1000) } else { 0 };
    free.iter().enumerate().map(|(i, free)| free - of(i)).collect()
}

fn tightest(milli: i64, free: &[i64]) -> Option<Vec<usize>> {
    choices(milli, free)
        .into_iter()
        .min_by_key(|devices| (devices.iter().map(|i| free[*i]).sum::<i64>(), devices.first().copied()))
}

/// What of the free GPUs a pod of the workload could not use.
fn wasted(target: &Target, cpu: i64, free: &[i64], model: Option<&String>) -> i64 {
    let total = free.iter().sum();
    let milli = target.gpu.milli();
    let takes = target.models.is_empty() || model.is_some_and(|model| target.models.contains(model));
    if milli == 0 || !takes || target.cpu > cpu || choices(milli, free).is_empty() {
        return total;
    }
    free.iter().filter(|free| **free < milli.min(1000)).sum()
}

impl World {
    /// What a pod asks of GPUs, if its profile shares them.
    fn asks(&self, pod: &Naive) -> i64 {
        let shares = self.profile(&pod.pod).is_some_and(|p| p.filters.has(Plugin::GPUShare));
        if shares { pod.asked(GPU) } else { 0 }
    }

    /// What is free of each device of a node beside these pods.
    fn free(node: &Node, here: &[&Naive]) -> Vec<i64> {
        let whole = super::naive::allocatable(node, GPU);
        let mut free = vec![1000; (whole / 1000).clamp(0, 64) as usize];
        for pod in here.iter().filter(|p| p.on.is_some()) {
            free = take(&free, &named(&pod.pod), pod.asked(GPU));
        }
        free.iter().map(|free| (*free).max(0)).collect()
    }

    /// Why the GPUs of a node do not have what a pod asks for beside these, of which some are only nominated.
    pub fn gpu_refusal(&self, pod: &Naive, node: &Node, here: &[&Naive]) -> Option<(Vec<String>, bool)> {
        let asked = self.asks(pod);
        if asked == 0 {
            return None;
        }
        let mut free = World::free(node, here);
        let mut first: Vec<i64> = here.iter().filter(|p| p.on.is_none()).map(|p| self.asks(p)).collect();
        first.retain(|milli| *milli > 0 && (*milli < 1000 || milli % 1000 == 0));
        first.sort_by_key(|milli| Reverse(*milli));
        for milli in first.into_iter().chain([asked]) {
            match tightest(milli, &free) {
                Some(devices) => free = take(&free, &devices, milli),
                None if milli > 1000 && milli % 1000 != 0 => return Some((vec![ODD.to_owned()], true)),
                None if milli < 1000 => {
                    let why = "node(s) didn't have a GPU with enough alibabacloud.com/gpu-milli free";
                    return Some((vec![why.to_owned()], free.is_empty()));
                }
                None => {
                    let hopeless = (free.len() as i64) < milli / 1000;
                    return Some((vec!["node(s) didn't have enough idle GPUs".to_owned()], hopeless));
                }
            }
        }
        None
    }

    /// The score of a node for a pod beside the pods on it, and the lists of devices that the pod may get there.
    pub fn gpu_share(&self, pod: &Naive, node: &Node, here: &[&Naive]) -> (i64, Vec<Vec<usize>>) {
        let of = &self.profile(&pod.pod).unwrap().gpu_share;
        let asked = self.asks(pod);
        let free = World::free(node, here);
        let mut all = choices(asked, &free);
        if asked == 0 {
            all = vec![vec![]];
        }
        let Some(tight) = tightest(asked, &free).or_else(|| all.first().cloned()) else { return (0, all) };
        let cpu = super::naive::allocatable(node, "cpu") - here.iter().map(|p| p.asked("cpu")).sum::<i64>();
        let wanted = pod.asked("cpu");
        let (most_cpu, most_gpu) = (of.largest.0 as f64, of.largest.1 as f64);
        let total: i64 = free.iter().sum();
        let hundred = |share: f64| (100.0 * (1.0 - share) + 1e-9).floor().clamp(0.0, 100.0) as i64;
        match of.policy {
            Policy::Random => (0, all),
            Policy::BestFit => {
                let left = ((cpu - wanted).max(0) as f64 / most_cpu, (total - asked) as f64 / most_gpu);
                (hundred((left.0 + left.1) / 2.0), vec![tight])
            }
            Policy::DotProd => {
                let of_cpu = wanted as f64 / most_cpu * (cpu.max(0) as f64 / most_cpu);
                let of_gpu = asked as f64 / most_gpu * (total as f64 / most_gpu);
                (hundred((of_cpu + of_gpu) / 2.0), vec![tight])
            }
            Policy::Packing if asked == 0 => (0, vec![tight]),
            Policy::Packing if free.iter().all(|free| *free == 1000) => ((33 - free.len() as i64).max(0), vec![tight]),
            Policy::Packing => {
                let idle = tight.iter().filter(|i| free[**i] == 1000).count() as i64;
                let score = if idle > 0 { (50 - idle).max(33) } else { (100 - free[tight[0]] / 100).max(50) };
                (score, vec![tight])
            }
            Policy::Fgd => {
                let model = node.meta.labels.as_ref().and_then(|l| l.get(MODEL));
                let pods: i64 = of.workload.iter().map(|t| t.pods).sum();
                if pods == 0 {
                    return (0, vec![tight]);
                }
                let fragmented = |cpu: i64, free: &[i64]| -> i64 {
                    of.workload.iter().map(|t| t.pods * wasted(t, cpu, free, model)).sum()
                };
                let before = fragmented(cpu, &free);
                let after = |devices: &Vec<usize>| fragmented(cpu - wanted, &take(&free, devices, asked));
                let best = all.into_iter().min_by_key(after).unwrap();
                let less = (before - after(&best)) as f64 / (1000 * pods) as f64;
                ((100.0 / (1.0 + (-less).exp())) as i64, vec![best])
            }
        }
    }

    /// Whether one of several equally good nodes is drawn for a pod.
    pub fn draws(&self, pod: &Naive) -> bool {
        let profile = self.profile(&pod.pod).unwrap();
        profile.weights.of(Plugin::GPUShare) == 0 || profile.gpu_share.policy == Policy::Random
    }

    /// Checks the devices that a pod gets on a node, and notes them.
    pub fn check_devices(&mut self, pod: &str, node: &str, got: &str) {
        let placed = self.placed();
        let here: Vec<&Naive> = placed.iter().filter(|(_, on)| on.name() == node).map(|(p, _)| *p).collect();
        let p = &self.pods[pod];
        let (_, all) = self.gpu_share(p, &self.nodes[node], &here);
        let text = |devices: &Vec<usize>| devices.iter().map(ToString::to_string).collect::<Vec<_>>().join("-");
        assert!(all.iter().any(|devices| text(devices) == got), "{pod} on {node}: {got:?} is none of {all:?}");
        if !got.is_empty() {
            let annotations = self.pods.get_mut(pod).unwrap().pod.meta_mut().annotations.get_or_insert_default();
            annotations.insert(INDEX.to_owned(), got.to_owned());
        }
    }
}
