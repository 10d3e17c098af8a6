//! What strikes at a certain message rather than at a certain time: a process crashes, freezes, loses its connection or
//! goes on with an old view just when it has decided, written or heard something.

use std::time::Duration;

use skeg_core::Kind;

use super::draw::{Class, Draw};
use super::{
    DropConnections, FaultId, FaultKind, Freeze, Kill, LateReplies, RestartAgent, RestartApiServer, Skew, Target,
    optional,
};
use crate::files::action::node_set;
use crate::files::fields::{Field, Fields};
use crate::files::write;
use crate::moment::{Moment, Stage};
use crate::scenario::NodeSet;
use crate::world::World;

/// The processes on these machines crash, and start again. What they have sent arrives.
#[derive(Clone, Debug, PartialEq)]
pub struct Crash {
    /// The machines.
    pub nodes: NodeSet,
    /// How long they are down.
    pub down_for: Duration,
}

impl FaultKind for Crash {
    fn read(f: &Fields<'_>) -> Option<Crash> {
        let down_for = optional(f, "downFor", Duration::from_secs(10), Field::duration);
        Some(Crash { nodes: node_set(f)?, down_for: down_for? })
    }

    fn write(&self) -> write::Fields {
        vec![write::nodes(&self.nodes), ("downFor", write::duration(self.down_for))]
    }

    fn targets(&self) -> Vec<Target<'_>> {
        vec![Target::Nodes(&self.nodes)]
    }

    fn node_sets_mut(&mut self) -> Vec<&mut NodeSet> {
        vec![&mut self.nodes]
    }

    fn times_mut(&mut self) -> Vec<&mut Duration> {
        vec![&mut self.down_for]
    }

    fn describe(&self) -> String {
        format!("the processes of {} crash, for {:?}", self.nodes, self.down_for)
    }

    fn lasts(&self) -> Option<Duration> {
        None
    }

    fn disturbs_control(&self) -> Option<Duration> {
        Some(self.down_for)
    }

    fn strike(&self, world: &mut World, id: FaultId) {
        let hosts = world.hosts(&self.nodes);
        for process in world.processes.ids() {
            let is_meant = hosts.contains(&world.processes[process].host);
            if is_meant && !world.processes[process].role.is_user() {
                world.restart_after(process, id, self.down_for);
            }
        }
    }

    fn heal(&self, world: &mut World, id: FaultId) {
        world.bring_back(id);
    }
}

/// Who writes what for objects of a kind, if these writes are many steps of one plan, or are not to be done twice.
fn writes(kind: Kind) -> &'static [(Kind, &'static str)] {
    match kind {
        Kind::DEPLOYMENT => &[(Kind::REPLICA_SET, "deployment-controller"), (Kind::POD, "replicaset-controller")],
        Kind::REPLICA_SET => &[(Kind::POD, "replicaset-controller")],
        Kind::REPLICATION_CONTROLLER => &[(Kind::POD, "replication-controller")],
        Kind::STATEFUL_SET => &[(Kind::POD, "statefulset-controller"), (Kind::STATEFUL_SET, "statefulset-controller")],
        Kind::DAEMON_SET => &[(Kind::POD, "daemonset-controller")],
        Kind::JOB => &[(Kind::POD, "job-controller"), (Kind::JOB, "job-controller"), (Kind::JOB, "job-controller")],
        Kind::CRON_JOB => &[(Kind::JOB, "cronjob-controller"), (Kind::JOB, "job-controller")],
        Kind::HORIZONTAL_POD_AUTOSCALER => &[(Kind::DEPLOYMENT, "horizontal-pod-autoscaler")],
        Kind::SERVICE => &[(Kind::ENDPOINT_SLICE, "endpoint-slice-controller")],
        Kind::POD_DISRUPTION_BUDGET => &[(Kind::POD_DISRUPTION_BUDGET, "disruption-controller")],
        _ => &[],
    }
}

/// What is written whatever is declared.
const ALWAYS: [(Kind, &str); 3] =
    [(Kind::POD, "kube-scheduler"), (Kind::POD, "generic-garbage-collector"), (Kind::POD, "node-controller")];

impl Draw<'_> {
    /// Which occurrence: mostly one of the first, seldom a late one.
    fn nth(&mut self) -> u64 {
        let most = 1 << self.rng.below(6);
        1 + self.rng.below(most)
    }

    /// A write of a controller, or of anybody.
    fn write(&mut self, stage: Stage) -> Moment {
        let nth = self.nth();
        if self.rng.chance(1, 5) {
            return Moment { stage, kind: None, by: None, nth };
        }
        let all: Vec<(Kind, &str)> = self.kinds.iter().flat_map(|kind| writes(*kind)).chain(&ALWAYS).copied().collect();
        let (kind, by) = *self.rng.pick(&all).expect("some are always there");
        Moment { stage, kind: Some(kind), by: Some(by.to_owned()), nth }
    }

    /// Something that a user is about to do to what was declared, or to anything.
    fn users_write(&mut self) -> Moment {
        let kinds: Vec<Kind> = self.kinds.iter().copied().collect();
        let kind = if self.rng.chance(3, 4) { self.rng.pick(&kinds).copied() } else { None };
        let nth = 1 + self.rng.below(3);
        Moment { stage: Stage::Send, kind, by: Some("kubernetes-admin".to_owned()), nth }
    }
}

pub(super) const CLASSES: &[Class] = &[
    Class {
        name: "crash",
        rate: (0, 3),
        draw: |draw| {
            let (nodes, down_for) = (draw.control_machine(), draw.seconds(0, 40));
            draw.push(draw.at, Crash { nodes, down_for });
        },
    },
    // A plan is left half done, or done and nobody knows of it.
    Class {
        name: "crash-at-write",
        rate: (1, 6),
        draw: |draw| {
            let stage = *draw.rng.pick(&[Stage::Send, Stage::Commit]).expect("there are some");
            let (moment, down_for) = (draw.write(stage), draw.seconds(0, 30));
            draw.push_when(moment, Crash { nodes: NodeSet::Actor, down_for });
        },
    },
    // The write or its reply is lost, and its process goes on.
    Class {
        name: "lost-at-write",
        rate: (1, 8),
        draw: |draw| {
            let stage = *draw.rng.pick(&[Stage::Send, Stage::Commit]).expect("there are some");
            let moment = draw.write(stage);
            match draw.rng.below(4) {
                0 => draw.push_when(moment, RestartApiServer { index: None, down_for: Duration::from_secs(2) }),
                1 => {
                    let up_to = draw.seconds(1, 20);
                    draw.push_when(moment, LateReplies { nodes: NodeSet::Actor, up_to, for_: draw.lasts });
                }
                _ => draw.push_when(moment, DropConnections { nodes: NodeSet::Actor }),
            }
        },
    },
    // What has just been written does not show in its process's views until others have acted.
    Class {
        name: "held-at-write",
        rate: (1, 6),
        draw: |draw| {
            let (moment, nodes) = match draw.rng.below(3) {
                0 => (draw.users_write(), NodeSet::ControlPlane),
                _ => (draw.write(Stage::Commit), NodeSet::Actor),
            };
            let (up_to, for_) = (draw.seconds(2, 90), Some(draw.seconds(5, 120)));
            draw.push_when(moment, Skew { nodes, up_to, for_ });
        },
    },
    // A process is paused between two events, and others lead when it goes on.
    Class {
        name: "frozen-at-event",
        rate: (0, 4),
        draw: |draw| {
            let stage = *draw.rng.pick(&[Stage::Send, Stage::Hear]).expect("there are some");
            let moment = match stage {
                Stage::Hear => Moment { stage, kind: Some(Kind::POD), by: None, nth: 2 * draw.nth() },
                _ => draw.write(stage),
            };
            let for_ = Some(draw.seconds(1, 60));
            draw.push_when(moment, Freeze { nodes: NodeSet::Actor, for_ });
        },
    },
    // A node loses power, or its agent crashes, when it is about to tell how far a pod is.
    Class {
        name: "node-at-write",
        rate: (0, 5),
        draw: |draw| {
            let NodeSet::Names(names) = draw.some_nodes(1) else { unreachable!("they are names") };
            let by = names.first().map(|name| format!("system:node:{name}"));
            let moment = Moment { stage: Stage::Send, kind: Some(Kind::POD), by, nth: draw.nth() };
            let for_ = Some(draw.seconds(1, 60));
            match draw.rng.chance(1, 3) {
                true => draw.push_when(moment, RestartAgent { nodes: NodeSet::Actor }),
                false => draw.push_when(moment, Kill { nodes: NodeSet::Actor, disk_lost: false, for_ }),
            }
        },
    },
];
