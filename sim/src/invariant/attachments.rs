//! `one-node-per-volume`: a volume that one node may use at a time is never attached to two. `detached-when-unused`: it
//! is not detached from a node that says that it uses it, unless the node is gone, declared out of service, or has not
//! been ready for six minutes after the last pod there that needs it.
//!
//! Checked when a VolumeAttachment is created. One that is being deleted still counts; one that is gone, be it because
//! the volume was detached by force, does not.

use std::collections::{BTreeMap, BTreeSet};

use skeg_core::Object;
use skeg_core::object::{Kind, ObjectKey};

use super::reading::{DRIFT, place};
use super::{Asked, Commit, Invariant, Report};

const CONTROLLER: &str = "attachdetach-controller";
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// How long, in seconds, the volumes of a node that is not ready stay attached.
const PATIENCE: f64 = 360.0;

/// A claim and a node.
type Use = (ObjectKey, String);

#[derive(Debug, Default)]
pub(super) struct Attachments {
    /// The nodes that volumes are attached to, by the volumes' names.
    nodes: BTreeMap<String, BTreeSet<String>>,
    /// When each claim was last seen to be needed on a node.
    needed: BTreeMap<Use, f64>,
    /// Since when each node says that it uses a volume.
    in_use: BTreeMap<(String, String), f64>,
}

/// The volume and the node of an attachment.
fn ends(attachment: &Object) -> (String, String) {
    let spec = attachment.to_json()["spec"].take();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("").to_owned();
    (text(&spec["source"]["persistentVolumeName"]), text(&spec["nodeName"]))
}

/// Whether a volume is for one node at a time.
fn is_for_one(commit: &Commit<'_>, volume: &str) -> bool {
    let volume = commit.store.object(&ObjectKey::new(Kind::PERSISTENT_VOLUME, "", volume));
    let modes = volume.map(|volume| volume.to_json()["spec"]["accessModes"].take());
    modes.is_some_and(|modes| {
        let modes: Vec<&str> = modes.as_array().into_iter().flatten().filter_map(|mode| mode.as_str()).collect();
        !modes.is_empty() && !modes.iter().any(|mode| matches!(*mode, "ReadWriteMany" | "ReadOnlyMany"))
    })
}

impl Attachments {
    pub fn attachment(&mut self, commit: &Commit<'_>, report: &mut Report) {
        match (commit.old, commit.new) {
            (None, Some(new)) => {
                let (volume, node) = ends(new);
                let nodes = self.nodes.entry(volume.clone()).or_default();
                if let Some(other) = nodes.iter().find(|other| **other != node)
                    && is_for_one(commit, &volume)
                {
                    let what = format!("volume {volume} is attached to {node} while it is attached to {other}");
                    report.broken(Invariant::OneNodePerVolume, commit.at, what);
                }
                nodes.insert(node);
            }
            (Some(old), None) => {
                let (volume, node) = ends(old);
                if let Some(nodes) = self.nodes.get_mut(&volume) {
                    nodes.remove(&node);
                    if nodes.is_empty() {
                        self.nodes.remove(&volume);
                    }
                }
            }
            (_, _) => {}
        }
    }

    /// Notes which claims are needed on which nodes.
    pub fn pod(&mut self, commit: &Commit<'_>) {
        for pod in [commit.old_pod(), commit.new_pod()].into_iter().flatten() {
            let Some(node) = place(pod) else { continue };
            let volumes = pod.spec.volumes.iter().flatten();
            for claim in volumes.filter_map(|volume| skeg_core::volume::claim_name(pod.name(), volume)) {
                let claim = ObjectKey::new(Kind::PERSISTENT_VOLUME_CLAIM, pod.namespace(), &claim);
                self.needed.insert((claim, node.to_string()), commit.at);
            }
        }
    }

    /// Notes which volumes a node says that it uses.
    pub fn node(&mut self, commit: &Commit<'_>) {
        let Some(name) = commit.new.or(commit.old).map(Object::name) else { return };
        let listed: BTreeSet<&String> = match commit.new {
            Some(Object::Node(node)) => node.status.volumes_in_use.iter().flatten().collect(),
            _ => BTreeSet::new(),
        };
        self.in_use.retain(|(node, volume), _| node != name || listed.contains(volume));
        for volume in listed {
            self.in_use.entry((name.to_owned(), volume.clone())).or_insert(commit.at);
        }
    }

    /// Checks a delete as it arrives. A view may lag by `lag` seconds.
    pub fn asked(&self, asked: &Asked<'_>, key: &ObjectKey, lag: f64, report: &mut Report) {
        if *asked.request.user != *CONTROLLER || key.kind != Kind::VOLUME_ATTACHMENT {
            return;
        }
        let Some((volume, name)) = asked.store.object(key).filter(|a| !a.is_deleting()).map(ends) else { return };
        let Some(Object::Node(node)) = asked.store.object(&ObjectKey::new(Kind::NODE, "", &name)) else { return };
        let Some(volume) = asked.store.object(&ObjectKey::new(Kind::PERSISTENT_VOLUME, "", &volume)) else { return };
        let is_given_up = node.spec.taints.iter().flatten().any(|taint| taint.key == OUT_OF_SERVICE);
        let unique = skeg_core::volume::unique_name(volume);
        let since = unique.and_then(|unique| self.in_use.get(&(name.clone(), unique)));
        let is_known = since.is_some_and(|since| asked.at - since > lag);
        let Some((claim, _)) = skeg_core::volume::claim_of(volume).filter(|_| is_known && !is_given_up) else { return };
        let needed = self.needed.get(&(claim, name.clone()));
        if let Some(passed) = needed.map(|at| asked.at - at).filter(|passed| *passed < PATIENCE * (1.0 - DRIFT)) {
            let volume = volume.name();
            let what =
                format!("{volume} is detached from {name}, which uses it, {passed:.1} s after it was needed there");
            report.broken(Invariant::DetachedWhenUnused, asked.at, what);
        }
    }
}
