//! NodeVolumeLimits: a node has no more volumes of a CSI driver attached than its CSINode allows.
//! Source: `plugins/nodevolumelimits`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Needs, There, Volumes, volume_of};
use crate::object::{Kind, Object};
use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::framework::Rejection;
use crate::volume;

/// Said of nodes that have as many as they may.
const EXCEEDED: &str = "node(s) exceed max volume count";

/// A volume that is attached: its driver, and what is unique to it.
type Attached = (String, String);

fn of_volume(volume: &Object) -> Option<Attached> {
    let csi = volume::value(volume, "/spec/csi")?;
    Some((csi["driver"].as_str()?.to_owned(), csi["volumeHandle"].as_str()?.to_owned()))
}

/// What a bound volume counts as.
pub(super) fn ask_bound(volume: &Object, needs: &mut Needs) {
    needs.attached.extend(of_volume(volume));
}

/// What the volume that is yet to be made for a claim will count as.
pub(super) fn ask_unbound(volumes: &Volumes, claim: &Object, needs: &mut Needs) {
    let class = volumes.get(Kind::STORAGE_CLASS, volume::class_of(claim));
    let driver = class.map(|class| volume::csi_name(volume::text(class, "/provisioner")));
    needs.attached.extend(driver.map(|driver| (driver.to_owned(), format!("pvc-{}", claim.uid()))));
}

/// Why a node is none.
pub(super) fn rejection(
    volumes: &Volumes,
    needs: &Needs,
    nodes: &Nodes,
    slot: Slot,
    there: &There<'_>,
) -> Option<Rejection> {
    if needs.attached.is_empty() {
        return None;
    }
    let node = volumes.get(Kind::CSI_NODE, nodes.name(slot))?;
    let drivers = volume::value(node, "/spec/drivers").and_then(Value::as_array)?;
    let limits = drivers.iter().filter_map(|d| Some((d["name"].as_str()?, d["allocatable"]["count"].as_u64()?)));
    let limits: Vec<(&str, u64)> = limits.filter(|(name, _)| needs.attached.iter().any(|(d, _)| d == name)).collect();
    if limits.is_empty() {
        return None;
    }
    let used = attached(volumes, there);
    let exceeds = |(driver, limit): &(&str, u64)| {
        let of_driver = |all: &BTreeSet<Attached>| all.iter().filter(|(d, _)| d == driver).count() as u64;
        let new: BTreeSet<Attached> = needs.attached.iter().filter(|v| !used.contains(v)).cloned().collect();
        of_driver(&new) > 0 && of_driver(&used) + of_driver(&new) > *limit
    };
    limits.iter().any(exceeds).then(|| Rejection::resolvable("NodeVolumeLimits", EXCEEDED))
}

/// The volumes of pods on a node.
fn attached(volumes: &Volumes, there: &There<'_>) -> BTreeSet<Attached> {
    let claims = there.pods().filter_map(|pod| volumes.claims.get(&pod)).flat_map(|claims| claims.iter());
    let mut all = BTreeSet::new();
    for claim in claims.filter_map(|claim| volumes.objects.get(&claim.key)) {
        match volumes.get(Kind::PERSISTENT_VOLUME, volume_of(claim)) {
            Some(volume) => all.extend(of_volume(volume)),
            None => {
                let mut of_claim = Needs::default();
                ask_unbound(volumes, claim, &mut of_claim);
                all.extend(of_claim.attached);
            }
        }
    }
    all
}
