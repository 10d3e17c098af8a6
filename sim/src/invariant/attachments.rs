//! `one-node-per-volume`: a volume that one node may use at a time is never attached to two.
//!
//! Checked when a VolumeAttachment is created. One that is being deleted still counts; one that is gone, be it because
//! the volume was detached by force, does not.

use std::collections::{BTreeMap, BTreeSet};

use skeg_core::Object;
use skeg_core::object::{Kind, ObjectKey};

use super::{Commit, Invariant, Report};

/// The nodes that volumes are attached to, by the volumes' names.
#[derive(Debug, Default)]
pub(super) struct Attachments(BTreeMap<String, BTreeSet<String>>);

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
                let nodes = self.0.entry(volume.clone()).or_default();
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
                if let Some(nodes) = self.0.get_mut(&volume) {
                    nodes.remove(&node);
                    if nodes.is_empty() {
                        self.0.remove(&volume);
                    }
                }
            }
            (_, _) => {}
        }
    }
}
