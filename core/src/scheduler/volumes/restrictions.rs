//! VolumeRestrictions: a claim of access mode ReadWriteOncePod is for one pod. Source: `plugins/volumerestrictions`.

use super::{Needs, There, Volumes};
use crate::object::{Object, ObjectKey};
use crate::scheduler::cache::Nodes;
use crate::scheduler::framework::Rejection;
use crate::volume;

/// Said while another pod uses the claim.
const CONFLICT: &str = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";

/// Whether one pod only may use a claim.
pub(super) fn is_exclusive(claim: &Object) -> bool {
    volume::access_modes(claim).any(|mode| mode == "ReadWriteOncePod")
}

/// Why a node is none, as long as others use a claim, be it there or on another node.
pub(super) fn rejection(volumes: &Volumes, needs: &Needs, nodes: &Nodes, there: &There<'_>) -> Option<Rejection> {
    let used = |claim: &ObjectKey| {
        let mut users = volumes.users.get(claim).into_iter().flatten();
        users.any(|(pod, slot)| nodes.is_present(*slot) && !there.gone.contains(pod))
            || nominee_uses(volumes, claim, there)
    };
    needs.exclusive.iter().any(used).then(|| Rejection::resolvable("VolumeRestrictions", CONFLICT))
}

fn nominee_uses(volumes: &Volumes, claim: &ObjectKey, there: &There<'_>) -> bool {
    let claims = there.nominees.iter().filter_map(|pod| volumes.claims.get(pod)).flat_map(|claims| claims.iter());
    claims.into_iter().any(|used| used.key == *claim)
}
