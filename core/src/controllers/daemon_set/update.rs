//! The rolling update of a DaemonSet: at most `maxUnavailable` nodes without an available pod, or at most `maxSurge`
//! nodes with two pods.

use super::Sync;
use super::fit::Fit;
use super::hash_of;
use super::pods::PerNode;
use crate::object::{IntOrString, Node, Pod, is_pod_ready, scaled};

/// The pods of a node that are not being deleted: that of the newest revision, and that of an older one.
struct Pair<'a> {
    new: Option<&'a Pod>,
    old: Option<&'a Pod>,
}

/// `None` if there are several of one sort; `manage` deletes the surplus ones.
fn pair<'a>(pods: &[&'a Pod], hash: &str) -> Option<Pair<'a>> {
    let mut pair = Pair { new: None, old: None };
    for pod in pods.iter().filter(|p| p.meta.deletion_timestamp.is_none()) {
        let place = if hash_of(pod) == hash { &mut pair.new } else { &mut pair.old };
        if place.replace(pod).is_some() {
            return None;
        }
    }
    Some(pair)
}

impl<'a> Sync<'a> {
    fn rolling(
        &self,
        value: impl Fn(&k8s_openapi::api::apps::v1::RollingUpdateDaemonSet) -> Option<IntOrString>,
    ) -> IntOrString {
        let rolling = self.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        rolling.and_then(value).unwrap_or(IntOrString::Int(0))
    }

    fn is_rolling(&self) -> bool {
        self.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("RollingUpdate")
    }

    /// Whether an update may run a second pod on a node (`maxSurge`).
    pub(super) fn surges(&self) -> bool {
        let one = scaled(&self.rolling(|r| r.max_surge.clone()), 1, true);
        self.is_rolling() && one.is_some_and(|n| n > 0)
    }

    /// Replaces pods of other revisions, as many as the strategy allows now.
    pub(super) fn update(&mut self, fits: &[(&'a Node, Fit)], per_node: &PerNode<'a>, hash: &str) {
        if !self.is_rolling() {
            return;
        }
        let desired = fits.iter().filter(|(_, fit)| *fit == Fit::Runs).count();
        let desired = i32::try_from(desired).unwrap_or(i32::MAX);
        let most = |value: IntOrString| usize::try_from(scaled(&value, desired, true).unwrap_or(0)).unwrap_or(0);
        let nodes: Vec<(&'a str, Option<Pair<'a>>)> = fits
            .iter()
            .map(|(node, _)| (node.name(), per_node.on(node.name())))
            .filter(|(_, pods)| !pods.is_empty())
            .map(|(node, pods)| (node, pair(pods, hash)))
            .collect();
        if self.surges() {
            self.surge(&nodes, most(self.rolling(|r| r.max_surge.clone())), hash);
        } else {
            self.replace(&nodes, most(self.rolling(|r| r.max_unavailable.clone())), hash);
        }
    }

    /// Deletes old pods before their replacements are created: unavailable ones right away, and available ones as long
    /// as no more than `most` nodes are unavailable.
    fn replace(&mut self, nodes: &[(&'a str, Option<Pair<'a>>)], most: usize, hash: &str) {
        let (mut unavailable, mut delete, mut candidates) = (0, Vec::new(), Vec::new());
        for (_, pair) in nodes {
            match pair {
                Some(Pair { new: Some(new), old: None }) => unavailable += usize::from(!self.is_available(new)),
                Some(Pair { new: None, old: Some(old) }) if self.is_available(old) => candidates.push(*old),
                Some(Pair { new: None, old: Some(old) }) => {
                    delete.push(*old);
                    unavailable += 1;
                }
                Some(Pair { new: None, old: None } | Pair { new: Some(_), old: Some(_) }) | None => unavailable += 1,
            }
        }
        delete.extend(candidates.into_iter().take(most.saturating_sub(unavailable)));
        self.sync_nodes(&delete, &[], hash);
    }

    /// Creates new pods beside the old ones, on at most `most` nodes. An old pod is deleted once the new one is
    /// available or the old one is not ready.
    fn surge(&mut self, nodes: &[(&'a str, Option<Pair<'a>>)], most: usize, hash: &str) {
        let (mut surging, mut delete, mut create, mut candidates) = (0, Vec::new(), Vec::new(), Vec::new());
        for (node, pair) in nodes {
            match pair {
                None => surging += 1,
                Some(Pair { old: None, .. }) => {}
                Some(Pair { new: None, old: Some(old) }) if self.is_available(old) => candidates.push(*node),
                Some(Pair { new: None, old: Some(_) }) => create.push(*node),
                Some(Pair { new: Some(new), old: Some(old) }) => {
                    if !is_pod_ready(old) || self.is_available(new) {
                        delete.push(*old);
                    } else {
                        surging += 1;
                    }
                }
            }
        }
        create.extend(candidates.into_iter().take(most.saturating_sub(surging)));
        self.sync_nodes(&delete, &create, hash);
    }
}
