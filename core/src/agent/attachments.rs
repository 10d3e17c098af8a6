//! The volumes of CSI drivers that have to be attached to the node: which ones its pods use, and which may be mounted.
//!
//! A volume is in use from the moment that a pod needs it until the pod's containers have ended. The node's status says
//! so (`volumesInUse`) before the volume is mounted, and only then counts what the attach/detach controller says there
//! (`volumesAttached`): the controller takes back nothing that the status says is in use.
//!
//! Of a pod that has been running since before the agent started, nobody knows at first which volumes it uses. Until
//! that is known, what the status said before is still in use.
//!
//! Source: upstream's `pkg/kubelet/volumemanager` (`GetVolumesInUse`, `MarkVolumesAsReportedInUse`).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use super::pod::{Ctx, PodState};
use super::references::claim_needed;
use crate::object::ObjectKey;

/// The attachable volumes of a pod: the name in the pod's spec, and the unique name.
pub(super) type PodAttachables = Rc<[(String, Rc<str>)]>;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    /// The attachable volumes of pods, by the pods' slots.
    pods: BTreeMap<u32, PodAttachables>,
    /// Slots of the pods of which it is not known what they use.
    unsure: BTreeSet<u32>,
    /// How many pods use a volume.
    in_use: BTreeMap<Rc<str>, u32>,
    /// What the node's status has said to be in use ever since the API server confirmed it.
    told: BTreeSet<String>,
    /// What the node's status says is attached.
    attached: BTreeSet<String>,
    changed: bool,
}

impl Attachments {
    /// Notes what a pod uses from now on.
    pub(super) fn uses(&mut self, slot: u32, volumes: PodAttachables) {
        self.unsure.remove(&slot);
        self.release(slot);
        for (_, name) in volumes.iter() {
            let count = self.in_use.entry(Rc::clone(name)).or_default();
            self.changed |= *count == 0;
            *count += 1;
        }
        self.pods.insert(slot, volumes);
    }

    /// What a pod uses; `None` if it is not known.
    pub(super) fn of(&self, slot: u32) -> Option<PodAttachables> {
        self.pods.get(&slot).cloned()
    }

    /// Notes that a pod uses volumes, and that it is not known which.
    pub(super) fn doubt(&mut self, slot: u32) {
        if !self.pods.contains_key(&slot) {
            self.unsure.insert(slot);
        }
    }

    /// Whether it is not known which volumes a pod uses.
    #[inline(always)]
    pub(super) fn is_unsure(&self, slot: u32) -> bool {
        !self.unsure.is_empty() && self.unsure.contains(&slot)
    }

    /// Notes that a pod uses nothing any more.
    #[inline]
    pub(super) fn release(&mut self, slot: u32) {
        if self.unsure.remove(&slot) {
            self.changed = true;
        }
        for (_, name) in self.pods.remove(&slot).iter().flat_map(|volumes| volumes.iter()) {
            let Some(count) = self.in_use.get_mut(name) else { continue };
            *count -= 1;
            if *count == 0 {
                self.in_use.remove(name);
                self.changed = true;
            }
        }
    }

    /// The unique names of the volumes that are in use; the second value says whether there may be more.
    pub(super) fn in_use(&self) -> (Vec<String>, bool) {
        (self.in_use.keys().map(|name| name.to_string()).collect(), !self.unsure.is_empty())
    }

    /// Whether what is in use has changed since this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Handles what the node's status says is in use and attached. If that is news, returns the slots of the pods with
    /// volumes.
    pub(super) fn told(&mut self, told: &BTreeSet<String>, attached: &[core_v1::AttachedVolume]) -> Vec<u32> {
        let is_known = |volume: &core_v1::AttachedVolume| self.attached.contains(&volume.name);
        if self.told == *told && self.attached.len() == attached.len() && attached.iter().all(is_known) {
            return Vec::new();
        }
        self.told.clone_from(told);
        self.attached = attached.iter().map(|volume| volume.name.clone()).collect();
        self.pods.keys().copied().collect()
    }

    /// Whether the node's status says that a volume is in use.
    pub(super) fn is_told(&self, name: &str) -> bool {
        self.told.contains(name)
    }

    /// Whether the node's status says that a volume is attached.
    pub(super) fn is_attached(&self, name: &str) -> bool {
        self.attached.contains(name)
    }
}

/// Why a pod's volumes are not mounted.
#[derive(Default)]
pub(super) struct Unmounted {
    /// Volumes, with what is wrong with the objects that they show.
    pub(super) failed: Vec<(String, String)>,
    /// A volume whose claim cannot be used, the claim, and why.
    pub(super) unusable: Option<(String, ObjectKey, String)>,
    /// Volumes that are not attached yet.
    pub(super) unattached: Vec<String>,
}

impl Unmounted {
    pub(super) fn is_empty(&self) -> bool {
        self.failed.is_empty() && self.unusable.is_none() && self.unattached.is_empty()
    }
}

impl PodState {
    /// Notes which volumes are not attached to the node yet. Returns whether that is known of all: not before the
    /// node's status says that they are in use.
    pub(super) fn attaches(&self, ctx: &mut Ctx<'_>, unmounted: &mut Unmounted) -> bool {
        let Some(volumes) = ctx.shared.attachments.of(self.slot).or_else(|| self.attachable(ctx, unmounted)) else {
            return !unmounted.is_empty();
        };
        let attachments = &ctx.shared.attachments;
        let unattached = volumes.iter().filter(|(_, name)| !attachments.is_attached(name));
        unmounted.unattached = unattached.map(|(volume, _)| volume.clone()).collect();
        volumes.iter().all(|(_, name)| attachments.is_told(name))
    }

    /// Finds out which volumes of the pod have to be attached, and notes that they are in use. `None` if that is not
    /// known yet, or a volume is not there.
    fn attachable(&self, ctx: &mut Ctx<'_>, unmounted: &mut Unmounted) -> Option<PodAttachables> {
        let (mut volumes, mut known) = (Vec::new(), true);
        for volume in self.pod.spec.shared.volumes.iter().flatten() {
            let Some(claim) = claim_needed(self.pod.name(), self.pod.namespace(), volume) else { continue };
            match ctx.shared.references.attachable(&claim.key, self.slot, ctx.now, ctx.out) {
                Some(Ok(Some(name))) => volumes.push((volume.name.clone(), Rc::from(name))),
                Some(Ok(None)) => {}
                Some(Err(why)) => unmounted.unusable = Some((volume.name.clone(), claim.key, why)),
                None => known = false,
            }
        }
        if !known || !unmounted.is_empty() {
            return None;
        }
        let volumes = PodAttachables::from(volumes);
        ctx.shared.attachments.uses(self.slot, Rc::clone(&volumes));
        Some(volumes)
    }

    /// Finds out which volumes a pod uses that has been running since before the agent started.
    pub(super) fn recall_volumes(&self, ctx: &mut Ctx<'_>) {
        let namespace = self.pod.namespace();
        let mut known = true;
        for volume in self.pod.spec.shared.volumes.iter().flatten() {
            let Some(claim) = claim_needed(self.pod.name(), namespace, volume) else { continue };
            known &= ctx.shared.references.ask(&claim.key, self.slot, ctx.now, ctx.out);
        }
        if known {
            self.attachable(ctx, &mut Unmounted::default());
        }
    }
}
