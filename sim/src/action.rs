//! User actions: the nodes they apply to, and their descriptions.

use skeg_core::api::Propagation;
use skeg_core::object::ObjectKey;

use crate::scenario::{NodeSet, UserAction};
use crate::user::taint;

impl UserAction {
    /// The nodes that the action applies to; `None` if it applies to none.
    pub fn nodes(&self) -> Option<&NodeSet> {
        match self {
            UserAction::Cordon { nodes, .. } | UserAction::Taint { nodes, .. } | UserAction::Drain { nodes } => {
                Some(nodes)
            }
            UserAction::Apply(_)
            | UserAction::Create(_)
            | UserAction::Replace { .. }
            | UserAction::Delete { .. }
            | UserAction::Scale { .. }
            | UserAction::SetImage { .. }
            | UserAction::Patch { .. }
            | UserAction::Rollback { .. }
            | UserAction::Pause { .. }
            | UserAction::Restart { .. }
            | UserAction::RollingUpdate { .. } => None,
        }
    }

    /// The object that the action changes or deletes; `None` if it names none, or declares whole objects.
    pub fn target(&self) -> Option<&ObjectKey> {
        match self {
            UserAction::Delete { key, .. }
            | UserAction::Scale { key, .. }
            | UserAction::SetImage { key, .. }
            | UserAction::Patch { key, .. }
            | UserAction::Rollback { key, .. }
            | UserAction::Pause { key, .. }
            | UserAction::Restart { key }
            | UserAction::RollingUpdate { old: key, .. } => Some(key),
            UserAction::Apply(_)
            | UserAction::Create(_)
            | UserAction::Replace { .. }
            | UserAction::Cordon { .. }
            | UserAction::Taint { .. }
            | UserAction::Drain { .. } => None,
        }
    }

    /// By which of so many users the action is carried out: all that is done to one object is done by one of them. What
    /// is applied together is told by its last object, a workload after what it refers to.
    pub fn shared_by(&self, users: usize) -> usize {
        let name = match self {
            UserAction::Apply(objects) | UserAction::Create(objects) | UserAction::Replace { objects, .. } => {
                objects.last().map(|object| object.name())
            }
            UserAction::Cordon { nodes, .. } | UserAction::Taint { nodes, .. } | UserAction::Drain { nodes } => {
                match nodes {
                    NodeSet::Names(names) => names.first().map(String::as_str),
                    _ => None,
                }
            }
            _ => self.target().map(ObjectKey::name),
        };
        name.unwrap_or_default().bytes().map(usize::from).sum::<usize>() % users
    }

    /// Describes the action in words.
    pub fn describe(&self) -> String {
        match self {
            UserAction::Apply(objects) => format!("apply {} object(s)", objects.len()),
            UserAction::Create(objects) => format!("create {} object(s)", objects.len()),
            UserAction::Replace { objects, cascade } => {
                let names: Vec<String> = objects.iter().map(|o| o.key().to_string()).collect();
                format!("replace {}{}", names.join(", "), kept(*cascade))
            }
            UserAction::Delete { key, cascade, grace_period } => {
                let at_once = if *grace_period == Some(0) { ", at once" } else { "" };
                format!("delete {key}{}{at_once}", kept(*cascade))
            }
            UserAction::Scale { key, replicas } => format!("scale {key} to {replicas}"),
            UserAction::SetImage { key, image, .. } => format!("set image of {key} to {image}"),
            UserAction::Patch { key, .. } => format!("patch {key}"),
            UserAction::Rollback { key, .. } => format!("roll {key} back"),
            UserAction::Pause { key, paused } => format!("{} {key}", if *paused { "pause" } else { "resume" }),
            UserAction::Restart { key } => format!("restart {key}"),
            UserAction::RollingUpdate { old, new, .. } => format!("rolling-update {old} to {}", new.name()),
            UserAction::Cordon { nodes, cordoned } => {
                format!("{} {nodes}", if *cordoned { "cordon" } else { "uncordon" })
            }
            UserAction::Taint { nodes, taint, removed } => {
                format!("{} {nodes} with {}", if *removed { "untaint" } else { "taint" }, taint::text(taint))
            }
            UserAction::Drain { nodes } => format!("drain {nodes}"),
        }
    }
}

fn kept(cascade: Propagation) -> &'static str {
    match cascade {
        Propagation::Orphan => ", and keep what it has made",
        Propagation::Background | Propagation::Foreground => "",
    }
}
