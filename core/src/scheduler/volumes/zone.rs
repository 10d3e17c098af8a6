//! VolumeZone: a volume that carries labels for its zone or region is used there only. Source: `plugins/volumezone`.

use super::Needs;
use crate::object::{Object, REGION_LABEL, ZONE_LABEL};
use crate::scheduler::cache::{Nodes, Slot};
use crate::scheduler::framework::Rejection;

/// Said of nodes in another zone.
const CONFLICT: &str = "node(s) had no available volume zone";
/// The labels, as they are now and as they were called before.
const LABELS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", ZONE_LABEL),
    ("failure-domain.beta.kubernetes.io/region", REGION_LABEL),
    (ZONE_LABEL, ZONE_LABEL),
    (REGION_LABEL, REGION_LABEL),
];

/// What a volume's labels ask.
pub(super) fn ask(volume: &Object, needs: &mut Needs) {
    for (label, _) in LABELS {
        if let Some(value) = volume.labels().and_then(|labels| labels.get(label)) {
            let values = value.split("__").map(|zone| zone.trim().to_owned()).collect();
            needs.zones.push((label.to_owned(), values));
        }
    }
}

/// Why a node is none. A node without any such label is taken to be alone in the world.
pub(super) fn rejection(needs: &Needs, nodes: &Nodes, slot: Slot) -> Option<Rejection> {
    let labels = nodes.meta(slot).labels.as_ref();
    let get = |key: &str| labels.and_then(|labels| labels.get(key));
    if needs.zones.is_empty() || LABELS.iter().all(|(label, _)| get(label).is_none()) {
        return None;
    }
    let newer = |key: &str| LABELS.iter().find(|(label, _)| *label == key).map_or(ZONE_LABEL, |(_, newer)| *newer);
    let fits = |(key, values): &(String, Vec<String>)| {
        get(key).or_else(|| get(newer(key))).is_some_and(|value| values.contains(value))
    };
    (!needs.zones.iter().all(fits)).then(|| Rejection::unresolvable("VolumeZone", CONFLICT))
}
