//! Which node scores how, and which of its devices a pod gets.

use serde::{Deserialize, Serialize};

use super::fragmentation::Fragmentation;
use super::{Ask, Devices, Room, WHOLE, tightest};
use crate::scheduler::framework::MAX_NODE_SCORE;

/// How GPUs are shared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Policy {
    /// Any node that fits, and any device.
    Random,
    /// A node whose free CPU and GPU, as a vector, has the least dot product with what the pod asks for.
    DotProd,
    /// The node that has the least CPU and GPU left with the pod, and the device that fits most tightly.
    BestFit,
    /// Devices that are used already before idle ones, and those on used nodes before idle nodes. What asks for no GPU
    /// runs anywhere.
    Packing,
    /// Where the pod leaves the least more of the GPUs unusable for a pod of the workload (fragmentation gradient
    /// descent).
    Fgd,
}

impl Policy {
    /// All of them.
    pub const ALL: [Policy; 5] = [Policy::Random, Policy::DotProd, Policy::BestFit, Policy::Packing, Policy::Fgd];

    /// Its name in arguments.
    pub fn name(self) -> &'static str {
        match self {
            Policy::Random => "Random",
            Policy::DotProd => "DotProd",
            Policy::BestFit => "BestFit",
            Policy::Packing => "Packing",
            Policy::Fgd => "FGD",
        }
    }
}

/// Pods of the workload that fragmentation is measured by.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Target {
    /// What they request of CPU, in thousandths.
    pub cpu: i64,
    /// What they ask of GPUs.
    pub gpu: Ask,
    /// The models that they take; none for any.
    pub models: Vec<String>,
    /// How many of the workload's pods they are.
    pub pods: i64,
}

/// The arguments of the plug-in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GpuShare {
    /// How GPUs are shared.
    pub policy: Policy,
    /// CPU and GPU of the largest node, in thousandths: BestFit and DotProd weigh both as shares of this.
    pub largest: (i64, i64),
    /// The workload that FGD measures fragmentation by.
    pub workload: Vec<Target>,
}

impl Default for GpuShare {
    fn default() -> GpuShare {
        GpuShare { policy: Policy::BestFit, largest: (128_000, 8 * WHOLE), workload: Vec::new() }
    }
}

/// The arguments, in the form in which nodes are scored by them.
#[derive(Debug)]
pub struct Sharing {
    policy: Policy,
    largest: (i64, i64),
    fragmentation: Fragmentation,
}

impl Sharing {
    /// Prepares arguments.
    pub fn new(of: &GpuShare) -> Sharing {
        Sharing { policy: of.policy, largest: of.largest, fragmentation: Fragmentation::new(&of.workload) }
    }

    /// How GPUs are shared.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The score of a node for a pod that requests so much CPU. Zero if its devices do not have what it asks for.
    pub fn score(&self, ask: Ask, cpu: i64, room: Room<'_>) -> i64 {
        if !ask.fits(room.gpus) {
            return 0;
        }
        let gpu: i64 = room.gpus.iter().sum();
        match self.policy {
            Policy::Random => 0,
            Policy::DotProd => self.dot_product((cpu, ask.milli()), (room.cpu, gpu)),
            Policy::BestFit => self.left((room.cpu.saturating_sub(cpu), gpu - ask.milli())),
            Policy::Packing => packing(ask, room.gpus),
            Policy::Fgd => self.fragmentation.best(ask, cpu, room).0,
        }
    }

    /// The devices that a pod gets on a node that it fits. `draw` draws one of so many.
    pub fn devices(&self, ask: Ask, cpu: i64, room: Room<'_>, draw: impl FnOnce(u32) -> u32) -> Devices {
        match (self.policy, ask) {
            (Policy::Random, Ask::Share(milli)) => {
                let fitting = || room.gpus.iter().enumerate().filter(|(_, free)| **free >= milli);
                let n = draw(fitting().count() as u32) as usize;
                fitting().nth(n).map(|(index, _)| index).into_iter().collect()
            }
            (Policy::Fgd, Ask::Share(_)) => self.fragmentation.best(ask, cpu, room).1,
            (Policy::Random | Policy::DotProd | Policy::BestFit | Policy::Packing | Policy::Fgd, _) => {
                tightest(ask, room.gpus).unwrap_or_default()
            }
        }
    }

    /// What is left of CPU and GPU, each a half: the less, the higher.
    fn left(&self, (cpu, gpu): (i64, i64)) -> i64 {
        let (most_cpu, most_gpu) = (i128::from(self.largest.0), i128::from(self.largest.1));
        let left = i128::from(cpu.max(0)) * most_gpu + i128::from(gpu) * most_cpu;
        of_hundred(2 * most_cpu * most_gpu, left)
    }

    /// The dot product of what is asked for and what is free: the less, the higher.
    fn dot_product(&self, asked: (i64, i64), free: (i64, i64)) -> i64 {
        let square = |n: i64| i128::from(n) * i128::from(n);
        let (most_cpu, most_gpu) = (square(self.largest.0), square(self.largest.1));
        let product = |a: i64, b: i64| i128::from(a) * i128::from(b.max(0));
        let cpu = product(asked.0, free.0).saturating_mul(most_gpu);
        let sum = cpu.saturating_add(product(asked.1, free.1).saturating_mul(most_cpu));
        of_hundred(2 * most_cpu * most_gpu, sum)
    }
}

/// A hundred less so many hundredths as a part is of a whole, rounded down.
fn of_hundred(whole: i128, part: i128) -> i64 {
    let hundred = i128::from(MAX_NODE_SCORE);
    (whole - part.min(whole)).saturating_mul(hundred).div_euclid(whole).max(0) as i64
}

/// From high to low: devices that others share, by how little is free of them; idle devices of a used node, by how few;
/// devices of an idle node, by how few it has.
fn packing(ask: Ask, free: &[i64]) -> i64 {
    let idle = free.iter().filter(|free| **free == WHOLE).count() as i64;
    let (of_node, of_device) = (MAX_NODE_SCORE / 3, MAX_NODE_SCORE / 2);
    let fresh = |devices: i64| (of_device - devices).max(of_node);
    match ask {
        Ask::Nothing | Ask::Odd => 0,
        Ask::Share(_) | Ask::Whole(_) if idle == free.len() as i64 => (of_node - idle).max(0),
        Ask::Share(milli) => match free.iter().filter(|free| **free >= milli).min() {
            None | Some(&WHOLE) => fresh(1),
            Some(free) => (MAX_NODE_SCORE - free * MAX_NODE_SCORE / WHOLE / 10).max(of_device),
        },
        Ask::Whole(devices) => fresh(devices as i64),
    }
}
