//! How much of a node's free GPUs a pod of the workload could not use.
//!
//! For a pod that does not fit the node that is all that is free; for one that fits, what is free of devices that have
//! too little for it. A node's fragmentation is the mean over the workload. The sums over the workload's pods are made
//! once, by CPU and by share, so that a node costs a few look-ups for each of its devices.

use std::collections::BTreeSet;

use super::{Ask, Devices, Room, Target, WHOLE};

/// `ln(k / (100 - k))` in billionths for k from 51 to 99: where `100 / (1 + exp(-x))` reaches k. By them the score is
/// exact without floating point.
pub(super) const LOGIT: [i64; 49] = [
    40_005_335,
    80_042_708,
    120_144_312,
    160_342_650,
    200_670_695,
    241_162_057,
    281_851_152,
    322_773_392,
    363_965_377,
    405_465_108,
    447_312_218,
    489_548_225,
    532_216_814,
    575_364_145,
    619_039_208,
    663_294_217,
    708_185_058,
    753_771_802,
    800_119_300,
    847_297_860,
    895_384_047,
    944_461_609,
    994_622_575,
    1_045_968_555,
    1_098_612_289,
    1_152_679_510,
    1_208_311_206,
    1_265_666_373,
    1_324_925_415,
    1_386_294_361,
    1_450_010_176,
    1_516_347_489,
    1_585_627_264,
    1_658_228_077,
    1_734_601_055,
    1_815_289_967,
    1_900_958_761,
    1_992_430_165,
    2_090_741_097,
    2_197_224_577,
    2_313_634_929,
    2_442_347_035,
    2_586_689_344,
    2_751_535_313,
    2_944_438_979,
    3_178_053_830,
    3_476_098_690,
    3_891_820_298,
    4_595_119_850,
];

/// The workload's pods that a node of some model may run, summed up.
#[derive(Debug)]
struct Sums {
    /// The CPU requests of pods with GPUs, ascending.
    cpus: Vec<i64>,
    /// The shares that pods of one device ask for, a whole one among them, ascending.
    shares: Vec<i64>,
    /// By how many of `cpus`, then by how many of `shares` there is room for: the pods of one device.
    ones: Vec<Vec<i64>>,
    /// By how many of `cpus` there is room for, then by a number of devices: the pods of several that need no more.
    more: Vec<Vec<i64>>,
}

/// The workload.
#[derive(Debug)]
pub struct Fragmentation {
    /// All its pods.
    pods: i64,
    /// The models that some of its pods ask for, in order.
    models: Vec<String>,
    /// For nodes of each of these models, and the last one for other nodes.
    sums: Vec<Sums>,
}

impl Fragmentation {
    /// Sums a workload up.
    pub fn new(workload: &[Target]) -> Fragmentation {
        let models: BTreeSet<&String> = workload.iter().flat_map(|t| &t.models).collect();
        let models: Vec<String> = models.into_iter().cloned().collect();
        let takes = |target: &&Target, model: Option<&String>| {
            target.models.is_empty() || model.is_some_and(|model| target.models.contains(model))
        };
        let each = models.iter().map(Some).chain([None]);
        let sums = each.map(|model| Sums::new(workload.iter().filter(|t| takes(t, model))));
        Fragmentation { pods: workload.iter().map(|t| t.pods).sum(), sums: sums.collect(), models }
    }

    fn sums(&self, model: Option<&str>) -> &Sums {
        let at = model.and_then(|model| self.models.binary_search_by(|m| m.as_str().cmp(model)).ok());
        &self.sums[at.unwrap_or(self.models.len())]
    }

    /// The score of a node for a pod that it has what it asks for, and the devices that the pod gets there: where
    /// fragmentation grows least or shrinks most.
    pub fn best(&self, ask: Ask, cpu: i64, room: Room<'_>) -> (i64, Devices) {
        if self.pods == 0 {
            return (0, super::tightest(ask, room.gpus).unwrap_or_default());
        }
        let sums = self.sums(room.model);
        let idle = room.gpus.iter().filter(|free| **free == WHOLE).count();
        let total: i64 = room.gpus.iter().sum();
        let useful = |row: usize, free: i64| free * sums.one(row, free);
        let of_all = |row: usize| room.gpus.iter().map(|free| useful(row, *free)).sum::<i64>();
        let before = self.pods * total - of_all(sums.row(room.cpu)) - sums.several(sums.row(room.cpu), idle);
        let row = sums.row(room.cpu.saturating_sub(cpu));
        let rest = of_all(row);
        let (after, devices) = match ask {
            Ask::Nothing | Ask::Odd => (self.pods * total - rest - sums.several(row, idle), Devices::NONE),
            Ask::Whole(n) => {
                let rest = rest - n as i64 * useful(row, WHOLE);
                let after = self.pods * (total - ask.milli()) - rest - sums.several(row, idle.saturating_sub(n));
                (after, super::tightest(ask, room.gpus).unwrap_or_default())
            }
            Ask::Share(milli) => {
                let fitting = room.gpus.iter().enumerate().filter(|(_, free)| **free >= milli);
                // Devices of which the same is free are alike.
                let first = fitting.filter(|(index, free)| !room.gpus[..*index].contains(free));
                let after = first.map(|(index, free)| {
                    let rest = rest - useful(row, *free) + useful(row, *free - milli);
                    let idle = idle - usize::from(*free == WHOLE);
                    (self.pods * (total - milli) - rest - sums.several(row, idle), index)
                });
                let Some((after, index)) = after.min() else { return (0, Devices::NONE) };
                (after, [index].into_iter().collect())
            }
        };
        (self.squash(before - after), devices)
    }

    /// `100 / (1 + exp(-x))`, rounded down, where x is how many GPUs less are fragmented.
    fn squash(&self, less: i64) -> i64 {
        let (less, pods) = (i128::from(less) * 1_000_000, i128::from(self.pods));
        let passed = LOGIT.partition_point(|step| less.abs() >= i128::from(*step) * pods) as i64;
        // Below the middle, what is not reached is passed from the other side.
        if less >= 0 { 50 + passed } else { 49 - passed }
    }
}

impl Sums {
    fn new<'a>(targets: impl Iterator<Item = &'a Target> + Clone) -> Sums {
        let gpu = targets.filter(|t| !matches!(t.gpu, Ask::Nothing | Ask::Odd));
        let single = |t: &&Target| t.gpu.milli() <= WHOLE;
        let cpus: BTreeSet<i64> = gpu.clone().map(|t| t.cpu).collect();
        let shares: BTreeSet<i64> = gpu.clone().filter(single).map(|t| t.gpu.milli()).collect();
        let most = gpu.clone().map(|t| t.gpu.milli() / WHOLE).max().unwrap_or(0) as usize;
        let (cpus, shares): (Vec<i64>, Vec<i64>) = (cpus.into_iter().collect(), shares.into_iter().collect());
        let mut ones = vec![vec![0; shares.len() + 1]; cpus.len() + 1];
        let mut more = vec![vec![0; most + 1]; cpus.len() + 1];
        for t in gpu {
            let row = cpus.partition_point(|asked| *asked < t.cpu) + 1;
            if single(&t) {
                ones[row][shares.partition_point(|asked| *asked < t.gpu.milli()) + 1] += t.pods;
            } else {
                more[row][(t.gpu.milli() / WHOLE) as usize] += t.pods;
            }
        }
        add_up(&mut ones);
        add_up(&mut more);
        Sums { cpus, shares, ones, more }
    }

    /// For how many of the CPU requests there is room.
    fn row(&self, cpu: i64) -> usize {
        self.cpus.partition_point(|asked| *asked <= cpu)
    }

    /// The pods of one device that fit a device of which so much is free.
    fn one(&self, row: usize, free: i64) -> i64 {
        self.ones[row][self.shares.partition_point(|asked| *asked <= free)]
    }

    /// What pods of several devices can use of idle ones, summed over these pods.
    fn several(&self, row: usize, idle: usize) -> i64 {
        let of = &self.more[row];
        of[idle.min(of.len() - 1)] * idle as i64 * WHOLE
    }
}

/// Makes each number the sum of those up to its row and column.
fn add_up(table: &mut [Vec<i64>]) {
    for row in 0..table.len() {
        let mut so_far = 0;
        for column in 0..table[row].len() {
            so_far += table[row][column];
            let above = if row == 0 { 0 } else { table[row - 1][column] };
            table[row][column] = so_far + above;
        }
    }
}
