//! The devices of a node, and what of them is free.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{GPU_INDEX, WHOLE};
use crate::limits;
use crate::object::ObjectMeta;

/// Some of a node's devices.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Devices(u64);

impl Devices {
    /// None of them.
    pub const NONE: Devices = Devices(0);

    /// Those that an annotation names; none if it is malformed.
    pub fn parse(text: &str) -> Devices {
        let index = |part: &str| part.parse().ok().filter(|index| *index < limits::GPU_DEVICES);
        text.split('-').map(index).collect::<Option<Devices>>().unwrap_or_default()
    }

    /// Those that a pod says it has, once it is on a node.
    pub fn of(meta: &ObjectMeta) -> Devices {
        let named = meta.annotations.as_ref().and_then(|all| all.get(GPU_INDEX));
        named.map_or(Devices::NONE, |text| Devices::parse(text))
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their indices, in order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..limits::GPU_DEVICES).filter(move |index| self.0 & (1 << index) != 0)
    }
}

impl FromIterator<usize> for Devices {
    fn from_iter<I: IntoIterator<Item = usize>>(indices: I) -> Devices {
        Devices(indices.into_iter().fold(0, |all, index| all | 1 << index))
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let indices: Vec<String> = self.iter().map(|index| index.to_string()).collect();
        f.write_str(&indices.join("-"))
    }
}

/// What a pod asks of GPUs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Nothing.
    #[default]
    Nothing,
    /// So many thousandths of one device.
    Share(i64),
    /// So many whole devices.
    Whole(usize),
    /// Parts of several devices, which nobody gives.
    Odd,
}

impl Ask {
    /// What a request of the resource asks for.
    pub fn of(milli: i64) -> Ask {
        match milli {
            i64::MIN..=0 => Ask::Nothing,
            1..WHOLE => Ask::Share(milli),
            _ if milli % WHOLE == 0 => Ask::Whole((milli / WHOLE) as usize),
            _ => Ask::Odd,
        }
    }

    /// Thousandths, of all devices together.
    pub fn milli(self) -> i64 {
        match self {
            Ask::Nothing | Ask::Odd => 0,
            Ask::Share(milli) => milli,
            Ask::Whole(devices) => (devices as i64).saturating_mul(WHOLE),
        }
    }

    /// Whether devices of which this is free have what is asked for.
    pub fn fits(self, free: &[i64]) -> bool {
        match self {
            Ask::Nothing => true,
            Ask::Share(milli) => free.iter().any(|free| *free >= milli),
            Ask::Whole(devices) => idle(free).take(devices).count() == devices,
            Ask::Odd => false,
        }
    }
}

/// The devices that nobody uses.
fn idle(free: &[i64]) -> impl Iterator<Item = usize> + use<'_> {
    free.iter().enumerate().filter(|(_, free)| **free == WHOLE).map(|(index, _)| index)
}

/// The first devices that fit most tightly; `None` if none fit.
pub fn tightest(ask: Ask, free: &[i64]) -> Option<Devices> {
    match ask {
        _ if !ask.fits(free) => None,
        Ask::Nothing | Ask::Odd => Some(Devices::NONE),
        Ask::Share(milli) => {
            let fitting = free.iter().enumerate().filter(|(_, free)| **free >= milli);
            fitting.min_by_key(|(_, free)| **free).map(|(index, _)| [index].into_iter().collect())
        }
        Ask::Whole(devices) => Some(idle(free).take(devices).collect()),
    }
}

/// The devices of a node.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Gpus {
    /// What pods use of each; also of devices that pods name and the node does not have.
    used: Vec<i64>,
    /// What is free of each that the node has.
    free: Vec<i64>,
}

impl Gpus {
    /// Takes note of the node's allocatable amount.
    pub fn resize(&mut self, milli: i64) {
        let devices = (milli / WHOLE).clamp(0, limits::GPU_DEVICES as i64) as usize;
        if devices != self.free.len() {
            let used = |index: usize| self.used.get(index).copied().unwrap_or(0);
            self.free = (0..devices).map(|index| left(used(index))).collect();
        }
    }

    /// What is free of each device.
    pub fn free(&self) -> &[i64] {
        &self.free
    }

    /// Counts a pod that requests so much on these devices (`sign` 1), or no longer (-1).
    pub fn count(&mut self, devices: Devices, milli: i64, sign: i64) {
        if devices.is_empty() || milli <= 0 {
            return;
        }
        for index in devices.iter() {
            if self.used.len() <= index {
                self.used.resize(index + 1, 0);
            }
            // Each device of a pod that has several is its own.
            self.used[index] += sign * milli.min(WHOLE);
            if let Some(free) = self.free.get_mut(index) {
                *free = left(self.used[index]);
            }
        }
    }
}

/// What is left of a device; nothing if pods use more than there is.
fn left(used: i64) -> i64 {
    (WHOLE - used).max(0)
}
