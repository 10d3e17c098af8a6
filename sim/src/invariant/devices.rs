//! `one-claim-per-device`: a device is never allocated to two claims at a time, but for admin access.
//!
//! Checked when a claim's allocation is written. A claim that has no allocation any more, or is gone, has no device.

use std::collections::{BTreeMap, BTreeSet};

use skeg_core::Object;
use skeg_core::object::ObjectKey;
use skeg_core::resource_claim::{self, DeviceId};

use super::{Commit, Invariant, Report};

/// The claims that devices are allocated to.
#[derive(Debug, Default)]
pub(super) struct Devices(BTreeMap<DeviceId, BTreeSet<ObjectKey>>);

fn devices(claim: Option<&Object>) -> BTreeSet<DeviceId> {
    claim.and_then(resource_claim::allocation).into_iter().flat_map(resource_claim::devices).collect()
}

impl Devices {
    pub fn claim(&mut self, commit: &Commit<'_>, report: &mut Report) {
        let Some(key) = commit.new.or(commit.old).map(Object::key) else { return };
        let (before, now) = (devices(commit.old), devices(commit.new));
        for device in before.difference(&now) {
            if let Some(claims) = self.0.get_mut(device) {
                claims.remove(&key);
                if claims.is_empty() {
                    self.0.remove(device);
                }
            }
        }
        for device in now.difference(&before) {
            let claims = self.0.entry(device.clone()).or_default();
            if let Some(other) = claims.first() {
                let what = format!("device {device} is allocated to {key} while {other} has it");
                report.broken(Invariant::OneClaimPerDevice, commit.at, what);
            }
            claims.insert(key.clone());
        }
    }
}
