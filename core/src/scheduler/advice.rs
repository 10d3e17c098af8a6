//! Explains to people, node by node, where a pod could run, with scores, and what would have to change elsewhere.

use std::rc::Rc;

use super::cache::Slot;
use super::framework::{Reason, Rejection};
use super::gpu::Ask;
use super::queue::PodId;
use super::resources::ResourceId;
use super::shape::Effect;
use super::{Scheduler, State};
use crate::object::ObjectKey;

/// How the scheduler sees a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advice {
    /// Where the pod is, or what it waits for.
    pub state: String,
    /// The nodes, by name.
    pub nodes: Vec<(Rc<str>, Verdict)>,
}

/// How the scheduler sees a node for a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The node is feasible; a higher score is better.
    Fits(i32),
    /// The node is not feasible.
    Refused {
        /// Why, in kube-scheduler's words.
        why: Vec<String>,
        /// What would have to change.
        remedy: String,
    },
}

impl Scheduler {
    /// How the scheduler sees a pod now. A pod that is on a node is judged as if it were on none. `None` if the
    /// scheduler does not know the pod.
    pub fn advise(&mut self, key: &ObjectKey) -> Option<Advice> {
        let id = self.index.get(key).copied()?;
        let (state, on) = match self.tracked(id).state {
            State::Gated => (self.why_gated(id), None),
            State::Queued => (self.waits(id), None),
            State::Asked => ("waits for what extenders say".to_owned(), None),
            State::Assumed(slot) | State::Bound(slot) => (format!("is on {}", self.nodes.name(slot)), Some(slot)),
        };
        let before = self.tracked(id).state;
        if let Some(slot) = on {
            self.uncount(id, slot);
            // So that counters that are made for it meanwhile do not count it.
            self.tracked_mut(id).state = State::Gated;
        }
        let nominated = self.withdraw(id);
        let mut nodes = Vec::new();
        for (slot, judgement) in self.judgement(id) {
            let verdict = match judgement {
                Ok(score) => Verdict::Fits(score),
                Err(rejection) => self.refused(id, slot, &rejection),
            };
            nodes.push((Rc::clone(self.nodes.name(slot)), verdict));
        }
        nodes.sort_by(|(a, _), (b, _)| a.cmp(b));
        if let Some(slot) = nominated {
            self.nominate(id, slot);
        }
        if let Some(node) = on.map(|slot| Rc::clone(self.nodes.name(slot))) {
            self.count(id, &node);
            // If the node is gone, its slot was free meanwhile, and the pod may have got another one.
            if let (State::Assumed(_), State::Bound(slot)) = (before, self.tracked(id).state) {
                self.assumed += 1;
                self.tracked_mut(id).state = State::Assumed(slot);
            }
        }
        Some(Advice { state, nodes })
    }

    /// Why nothing is tried.
    fn why_gated(&self, id: PodId) -> String {
        if let Some(why) = self.waits_for_group(id).filter(|_| !self.tracked(id).gates) {
            return why;
        }
        let claims = self.peers.class(self.tracked(id).class).devices.as_ref();
        match claims.and_then(|claims| self.dynamic_resources.lacks(claims)).filter(|_| !self.tracked(id).gates) {
            Some(why) => format!("waits for its claims: {why}"),
            None => "has scheduling gates: nothing is tried before they are removed".to_owned(),
        }
    }

    fn waits(&self, id: PodId) -> String {
        match self.tracked(id).nominated {
            Some(slot) => format!("waits for room on {}, where others are going for it", self.nodes.name(slot)),
            None => "waits for a node".to_owned(),
        }
    }

    fn refused(&self, id: PodId, slot: Slot, rejection: &Rejection) -> Verdict {
        let why = rejection.reasons.iter().map(|r| r.text(&self.nodes.resources)).collect();
        let remedies: Vec<String> =
            rejection.reasons.iter().map(|r| self.remedy(id, slot, rejection.plugin, r)).collect();
        Verdict::Refused { why, remedy: remedies.join("; ") }
    }

    /// What would have to change so that a reason no longer holds.
    fn remedy(&self, id: PodId, slot: Slot, plugin: &str, reason: &Reason) -> String {
        let shape = self.shapes.get(self.tracked(id).shape);
        match (plugin, reason) {
            (_, Reason::Insufficient(resource)) => self.shortage(id, slot, *resource),
            ("NodeUnschedulable", _) => "uncordon the node".to_owned(),
            ("TaintToleration", _) => {
                let hard = self.nodes.taints(slot).iter();
                let hard = hard.filter(|t| matches!(t.effect, Effect::NoSchedule | Effect::NoExecute));
                let untolerated = hard.filter(|t| !shape.tolerates(&t.key, &t.value, t.effect));
                let named: Vec<String> = untolerated
                    .map(|t| match t.value.as_str() {
                        "" => format!("{}:{:?}", t.key, t.effect),
                        value => format!("{}={value}:{:?}", t.key, t.effect),
                    })
                    .collect();
                format!("tolerate {}", named.join(", "))
            }
            ("NodeAffinity", _) => "label the node as nodeSelector and node affinity ask, or ask for less".to_owned(),
            ("VolumeBinding" | "VolumeZone", _) => {
                "a claim whose volume can be reached from the node, or be made there".to_owned()
            }
            ("VolumeRestrictions", _) => "wait until the pod that uses the claim is gone".to_owned(),
            ("DynamicResources", _) => "free devices, as its claims ask for them, that the node can use".to_owned(),
            ("NodeVolumeLimits", _) => "fewer volumes on the node".to_owned(),
            ("NodeName", _) => "name this node, or none, in spec.nodeName".to_owned(),
            ("GPUShare", _) => self.lack_of_devices(id, slot),
            ("NodePorts", _) => {
                let taken = shape.ports.iter().filter(|p| self.nodes.is_port_taken(p, slot));
                let taken: Vec<String> = taken.map(|p| format!("{}/{}", p.port, p.protocol)).collect();
                format!("free host port {}", taken.join(", "))
            }
            _ => self.peers.remedy(self.tracked(id).class, slot, plugin),
        }
    }

    fn lack_of_devices(&self, id: PodId, slot: Slot) -> String {
        let free: Vec<String> = self.nodes.gpus(slot).free().iter().map(|free| format!("{free}m")).collect();
        let free = if free.is_empty() { "nothing".to_owned() } else { free.join(", ") };
        match self.shapes.get(self.tracked(id).shape).gpu {
            Ask::Share(milli) => format!("one GPU with {milli}m free: {free} is free"),
            Ask::Whole(devices) => format!("{devices} GPUs with 1000m free: {free} is free"),
            Ask::Nothing | Ask::Odd => "ask for less than 1000, or for a multiple of it".to_owned(),
        }
    }

    fn shortage(&self, id: PodId, slot: Slot, resource: ResourceId) -> String {
        let whole = self.nodes.allocatable(resource, slot);
        let used = self.nodes.requested(resource, slot);
        if resource == ResourceId::PODS {
            return format!("one pod fewer: {used} of {whole} are there");
        }
        let asked = self.shapes.get(self.tracked(id).shape).request(resource);
        let unit = |n: i64| match resource {
            ResourceId::CPU => format!("{n}m"),
            _ if n >= 10 << 20 => format!("{}Mi", n.div_euclid(1 << 20)),
            _ => n.to_string(),
        };
        let name = self.nodes.resources.name(resource);
        let free = whole.saturating_sub(used);
        let lacks = asked.saturating_sub(free);
        let more = format!(
            "{} more {name} free: it asks for {}, {} of {} is free",
            unit(lacks),
            unit(asked),
            unit(free),
            unit(whole)
        );
        if asked > whole { format!("a larger node, or a smaller request: {more}") } else { more }
    }
}
