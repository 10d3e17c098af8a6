//! Evicts pods from a node that is short of something, and those that hold more on its disk than they may.
//!
//! Call order, again and again: [`Evictor::handle_timeout`] has the node measured; [`Evictor::measured`] takes in what
//! it uses and says what follows. Before pods go for the sake of the disk, images do that nothing uses
//! ([`Act::Reclaim`], then [`Evictor::reclaimed`]). One pod goes at a time, and no other before it has ended, or half a
//! minute has passed.
//!
//! Source: kubernetes `pkg/kubelet/eviction/eviction_manager.go`.

use std::rc::Rc;
use std::time::Duration;

use super::pod::{EVICTION_SLOT, OP_BITS};
use super::pressure::{
    Candidate, Eviction, EvictionPolicy, Pressure, Signal, is_critical, is_limited, met, over_limit, victim,
};
use super::runtime::{NodeUse, OpId};
use crate::limits::RUNTIME_REQUEST_TIMEOUT;
use crate::machine::{Deadline, Mono};

/// How long a pod that was evicted may take to end before another follows it (`podCleanupTimeout`).
const CLEANUP: Duration = Duration::from_secs(30);
/// How often it is looked whether it has (`podCleanupPollFreq`).
const CLEANUP_POLL: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// The node must be measured, and these pods.
    Measure(OpId, Vec<Rc<str>>),
    /// All images that nothing uses must go, because this is short.
    Reclaim(Signal),
    /// These pods must go.
    Evict(Vec<Eviction>),
}

/// What has been decided: what to do, and of what to tell the node's readers that it is short now.
pub(super) type Decided = (Option<Act>, Option<Signal>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Resting,
    /// The node is measured, with the pods that are limited.
    Looking(OpId),
    /// Images are being removed.
    Reclaiming,
    /// The node is measured, with all pods.
    Ranking(OpId),
}

/// Decides about evictions. See the module's documentation for the order of calls.
#[derive(Debug)]
pub(super) struct Evictor {
    policy: EvictionPolicy,
    phase: Phase,
    /// When to look again, or when the phase is overdue.
    next: Mono,
    /// When the node was last seen to be short of memory, disk and process ids.
    seen: [Option<Mono>; 3],
    /// Pods that were evicted and may still be ending, and until when that is waited for.
    leaving: (Vec<Rc<str>>, Mono),
    last_op: u64,
}

impl Evictor {
    pub(super) fn new(policy: EvictionPolicy) -> Evictor {
        Evictor {
            policy,
            phase: Phase::Resting,
            next: Mono::ZERO,
            seen: [None; 3],
            leaving: (Vec::new(), Mono::ZERO),
            last_op: 0,
        }
    }

    /// What the node counts as short of now.
    pub(super) fn pressure(&self, now: Mono) -> Pressure {
        let period = self.policy.transition_period;
        let [memory, disk, pids] = self.seen.map(|seen| seen.is_some_and(|at| now.since(at) < period));
        Pressure { memory, disk, pids }
    }

    pub(super) fn poll_timeout(&self) -> Deadline {
        let why = match self.phase {
            Phase::Resting => "look whether the node is short of something",
            Phase::Looking(_) | Phase::Ranking(_) => "what the node uses is overdue",
            Phase::Reclaiming => "the removal of images is overdue",
        };
        Deadline { at: self.next, why }
    }

    /// Does what is due. `candidates` are the pods that are not ending.
    pub(super) fn handle_timeout(&mut self, now: Mono, candidates: &[Candidate<'_>]) -> Option<Act> {
        if self.next > now {
            return None;
        }
        match self.phase {
            Phase::Resting => {}
            Phase::Reclaiming => return Some(self.reclaimed(now, candidates)),
            Phase::Looking(_) | Phase::Ranking(_) => {
                self.rest(now);
                return None;
            }
        }
        let limited = candidates.iter().filter(|c| is_limited(&c.pod.spec.shared)).map(|c| Rc::clone(c.uid));
        let limited: Vec<_> = limited.collect();
        if limited.is_empty() && self.policy.thresholds.is_empty() {
            self.rest(now);
            return None;
        }
        let op = self.op(now);
        self.phase = Phase::Looking(op);
        Some(Act::Measure(op, limited))
    }

    /// Handles that a pod that was evicted has ended, or never will be heard of again.
    pub(super) fn is_waiting_for(&self, now: Mono) -> Option<&[Rc<str>]> {
        let (leaving, until) = &self.leaving;
        (!leaving.is_empty() && now < *until).then_some(leaving)
    }

    /// Handles that pods which were evicted are still ending: nothing is looked at before they have.
    pub(super) fn wait(&mut self, now: Mono) {
        if self.phase == Phase::Resting {
            self.next = now + CLEANUP_POLL;
        }
    }

    /// Handles that no more images can be removed: the pods are measured.
    pub(super) fn reclaimed(&mut self, now: Mono, candidates: &[Candidate<'_>]) -> Act {
        let op = self.op(now);
        self.phase = Phase::Ranking(op);
        Act::Measure(op, candidates.iter().map(|c| Rc::clone(c.uid)).collect())
    }

    /// Whether images are being removed for this.
    pub(super) fn is_reclaiming(&self) -> bool {
        self.phase == Phase::Reclaiming
    }

    /// Handles what the node uses; an error means that it could not be measured.
    pub(super) fn measured(
        &mut self,
        now: Mono,
        op: OpId,
        node: Result<&NodeUse, ()>,
        candidates: &[Candidate<'_>],
    ) -> Decided {
        let ranking = match self.phase {
            Phase::Looking(asked) if asked == op => false,
            Phase::Ranking(asked) if asked == op => true,
            // It was late.
            Phase::Resting | Phase::Looking(_) | Phase::Reclaiming | Phase::Ranking(_) => return (None, None),
        };
        self.rest(now);
        let Ok(node) = node else { return (None, None) };
        let met = met(&self.policy, node);
        let Pressure { memory, disk, pids } = Pressure::of(&met);
        for (seen, is_short) in self.seen.iter_mut().zip([memory, disk, pids]) {
            *seen = if is_short { Some(now) } else { *seen };
        }
        // As in the kubelet, no limit ends a critical pod.
        let over = candidates.iter().filter(|c| !is_critical(&c.pod.spec.shared)).filter_map(|candidate| {
            let used = node.pods.iter().find(|used| used.pod_uid == *candidate.uid)?;
            let message = over_limit(candidate.pod, used, node.has_image_disk)?;
            Some(Eviction { slot: candidate.slot, uid: Rc::clone(candidate.uid), message, is_for_node: false })
        });
        let over: Vec<_> = over.collect();
        if !over.is_empty() {
            return (Some(self.evict(now, over)), None);
        }
        let Some(threshold) = met.first() else { return (None, None) };
        let signal = threshold.signal;
        if ranking {
            let victim = victim(threshold, node, candidates);
            return (victim.map(|victim| self.evict(now, vec![victim])), None);
        }
        if signal.is_of_images(node.has_image_disk) {
            self.phase = Phase::Reclaiming;
            self.next = now + RUNTIME_REQUEST_TIMEOUT;
            return (Some(Act::Reclaim(signal)), Some(signal));
        }
        (Some(self.reclaimed(now, candidates)), Some(signal))
    }

    fn evict(&mut self, now: Mono, evictions: Vec<Eviction>) -> Act {
        self.leaving = (evictions.iter().map(|eviction| Rc::clone(&eviction.uid)).collect(), now + CLEANUP);
        Act::Evict(evictions)
    }

    fn rest(&mut self, now: Mono) {
        self.phase = Phase::Resting;
        self.next = now + self.policy.period;
    }

    fn op(&mut self, now: Mono) -> OpId {
        self.last_op += 1;
        self.next = now + RUNTIME_REQUEST_TIMEOUT;
        OpId(u64::from(EVICTION_SLOT) << OP_BITS | self.last_op)
    }
}
