//! Actions of a timeline: who carries them out, and what they are called in reports.

use crate::scenario::{Action, NodeSet};

/// Whether a user does it, at the API.
pub fn is_users(action: &Action) -> bool {
    matches!(
        action,
        Action::Apply(_)
            | Action::Create(_)
            | Action::Delete(_)
            | Action::Scale { .. }
            | Action::SetImage { .. }
            | Action::Patch { .. }
            | Action::Rollback { .. }
            | Action::Pause { .. }
            | Action::Restart { .. }
            | Action::RollingUpdate { .. }
            | Action::Cordon { .. }
            | Action::Drain { .. }
    )
}

/// An action in words.
pub fn describe(action: &Action) -> String {
    let nodes = |set: &NodeSet| match set {
        NodeSet::All => "all nodes".to_owned(),
        NodeSet::Names(names) => names.join(", "),
        NodeSet::Zone(zone) => zone.clone(),
        NodeSet::Labels(s) => format!("nodes with {s}"),
        NodeSet::Random(n) => format!("{n} random node(s)"),
        NodeSet::ControlPlane => "the control plane".to_owned(),
    };
    match action {
        Action::Apply(objects) => format!("apply {} object(s)", objects.len()),
        Action::Create(objects) => format!("create {} object(s)", objects.len()),
        Action::Delete(key) => format!("delete {key}"),
        Action::Scale { key, replicas } => format!("scale {key} to {replicas}"),
        Action::SetImage { key, image, .. } => format!("set image of {key} to {image}"),
        Action::Patch { key, .. } => format!("patch {key}"),
        Action::Rollback { key, .. } => format!("roll {key} back"),
        Action::Pause { key, paused } => format!("{} {key}", if *paused { "pause" } else { "resume" }),
        Action::Restart { key } => format!("restart {key}"),
        Action::RollingUpdate { old, new, .. } => format!("rolling-update {old} to {}", new.name()),
        Action::Cordon { nodes: set, cordoned } => {
            format!("{} {}", if *cordoned { "cordon" } else { "uncordon" }, nodes(set))
        }
        Action::Drain { nodes: set } => format!("drain {}", nodes(set)),
        Action::Kill { nodes: set, disk_lost } => {
            format!("kill {}{}", nodes(set), if *disk_lost { " with its disk" } else { "" })
        }
        Action::Start { nodes: set } => format!("start {}", nodes(set)),
        Action::RestartAgent { nodes: set } => format!("restart the agent of {}", nodes(set)),
        Action::Partition { from, to, one_way } => {
            format!("partition {} from {}{}", nodes(from), nodes(to), if *one_way { ", one way" } else { "" })
        }
        Action::Heal => "heal".to_owned(),
        Action::Degrade { nodes: set, extra_latency, loss_percent } => {
            format!("links of {} get {extra_latency:?} slower and lose {loss_percent}%", nodes(set))
        }
        Action::ClockJump { nodes: set, by_seconds } => format!("clock of {} jumps by {by_seconds}s", nodes(set)),
        Action::ClockDrift { nodes: set, ppm } => format!("clock of {} drifts by {ppm} ppm", nodes(set)),
        Action::Clog { nodes: set, for_ } => format!("links of {} are clogged for {for_:?}", nodes(set)),
        Action::Overload { index, one_in: 0 } => format!("API server {index} is overloaded no more"),
        Action::Overload { index, one_in } => format!("API server {index} turns away one request in {one_in}"),
        Action::RestartApiServer { index, down_for } => match index {
            Some(i) => format!("API server {i} is down for {down_for:?}"),
            None => format!("an API server is down for {down_for:?}"),
        },
        Action::ChangeLeader { down_for } => format!("the leaders crash, for {down_for:?}"),
        Action::Compact => "compact the store".to_owned(),
        Action::Lag { index, by } if by.is_zero() => format!("API server {index} lags no more"),
        Action::Lag { index, by } => format!("API server {index} lags by {by:?}"),
        Action::StallStore { for_ } => format!("the store stalls for {for_:?}"),
        Action::CrashPods { namespace, selector } => format!("pods {selector} in {namespace} crash"),
        Action::DropConnections { nodes: set } => format!("connections of {} die", nodes(set)),
        Action::RuntimeTrouble { nodes: set, one_in: 0 } => {
            format!("the container runtimes of {} work again", nodes(set))
        }
        Action::RuntimeTrouble { nodes: set, one_in } => {
            format!("the container runtimes of {} fail one time in {one_in}", nodes(set))
        }
    }
}
