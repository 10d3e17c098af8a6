//! The node lifecycle controller and the taint manager: heartbeats determine conditions, conditions determine taints,
//! taints cause evictions.
//!
//! Keys: one for the periodic check of all nodes, one for each node, one for each pod on a tainted node. A lease
//! renewal, or a status report without changes, adds no key: it is recorded when it arrives, and the periodic check
//! compares two timestamps for a healthy node. Each step writes one thing; the event of that write triggers the next
//! step.

mod eviction;
mod health;
mod taints;
mod zone;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use k8s_openapi::api::coordination::v1 as coordination_v1;
use k8s_openapi::api::core::v1::{self as core_v1, Taint};

use super::{Controller, EventNote, Plan, Write};
use crate::api::Subresource;
use crate::client::{Change, EventType, Index, Views, Watched};
use crate::limits;
use crate::machine::{Mono, Now};
use crate::object::{
    KeyMap, Kind, Lease, NODE_LEASE_NAMESPACE, Node, Object, ObjectKey, Pod, Revision, is_mere_report,
};
use crate::read_ahead::Step;
use eviction::Stay;
use health::{Beat, NodeState, Readiness};
use zone::Zones;

static WATCHED: &[Watched] = &[
    Watched { kind: Kind::NODE, indexes: &[] },
    Watched { kind: Kind::LEASE, indexes: &[] },
    Watched { kind: Kind::POD, indexes: &[Index::Node] },
];

/// Monitors nodes. Its observations are lost with the process; a new process measures silence from its own start.
#[derive(Debug)]
pub struct NodeLifecycleController {
    look: ObjectKey,
    next_look: Mono,
    looked: bool,
    nodes: KeyMap<NodeState>,
    /// The last heartbeat of each lease, by the lease's key, so that recording a renewal takes one look-up.
    beats: KeyMap<Beat>,
    /// Nodes that were created, deleted or changed since the last check, or whose lease was created or deleted.
    touched: BTreeSet<ObjectKey>,
    zones: Zones,
    all_disrupted: bool,
    /// No node can exceed its grace period before this time, so silence need not be checked earlier.
    judge_at: Mono,
    /// Revision of the view of leases at the last check, and when it last advanced.
    leases: (Revision, Mono),
    /// When it last heard of a change of a lease, and whether a long pause came before one since the last check.
    heard: (Mono, bool),
    /// Pods that will have to leave: UID of the pod and since when this is known.
    leaving: BTreeMap<ObjectKey, (Rc<str>, Mono)>,
}

impl Default for NodeLifecycleController {
    fn default() -> Self {
        NodeLifecycleController {
            look: ObjectKey::new(Kind::NODE, "", ""),
            next_look: Mono::ZERO,
            looked: false,
            nodes: KeyMap::default(),
            beats: KeyMap::default(),
            touched: BTreeSet::new(),
            zones: Zones::default(),
            all_disrupted: false,
            judge_at: Mono::ZERO,
            leases: (Revision(0), Mono::ZERO),
            heard: (Mono::ZERO, false),
            leaving: BTreeMap::new(),
        }
    }
}

impl NodeLifecycleController {
    /// Reads what [`observe`](Controller::observe) will touch for news of these Leases.
    pub(super) fn read_ahead(&self, keys: &[&ObjectKey], step: Step) {
        for key in keys {
            self.beats.read_ahead(key, step);
        }
    }
}

impl Controller for NodeLifecycleController {
    fn name(&self) -> &'static str {
        "node-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHED
    }

    fn observe(&mut self, change: &Change, now: Now) {
        if let Some(Object::Lease(_)) = change.new {
            let (last, paused) = self.heard;
            self.heard = (now.mono, paused || now.mono.since(last) > limits::LEASE_VIEW_QUIET);
        }
        match (&change.old, &change.new) {
            (old, Some(Object::Lease(lease))) => {
                // Only node Leases have an entry in `beats`, so an existing entry makes it unnecessary to check the
                // Lease's namespace.
                match self.beats.get_mut(&change.key) {
                    Some(beat) => beat.see(lease.rv, now.mono),
                    None if change.key.namespace() == NODE_LEASE_NAMESPACE => {
                        self.begin_beats(&change.key, lease.rv, now.mono);
                    }
                    None => return,
                }
                if old.is_none() {
                    self.touched.insert(ObjectKey::new(Kind::NODE, "", change.key.name()));
                }
            }
            (Some(Object::Lease(_)), None) if self.nodes.find(Kind::NODE, "", change.key.name()).is_none() => {
                self.beats.remove(&change.key);
            }
            (Some(Object::Node(old)), Some(Object::Node(new)))
                if is_mere_report(old, new) && self.hears(&change.key, old, new, now.mono) => {}
            (Some(Object::Node(_)), _) | (_, Some(Object::Node(_))) => drop(self.touched.insert(change.key.clone())),
            _ => {}
        }
    }

    fn keys(&self, change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
        match (&change.old, &change.new) {
            (Some(Object::Node(old)), Some(Object::Node(new))) => node_changed(change, old, new, views, keys),
            (_, Some(Object::Node(new))) => {
                keys.push(self.look.clone());
                keys.push(change.key.clone());
                if no_execute(new).next().is_some() {
                    keys.extend(pods_on(views, new.name()).map(Pod::key));
                }
            }
            (Some(Object::Node(old)), None) => {
                keys.push(change.key.clone());
                keys.extend(pods_on(views, old.name()).map(Pod::key).filter(|k| self.leaving.contains_key(k)));
            }
            (old, Some(Object::Pod(new))) => {
                let old = old.as_ref().and_then(Object::get::<core_v1::Pod>);
                let same = old.is_some_and(|o| {
                    o.spec.node == new.spec.node
                        && (o.spec.shared.is_held_as(&new.spec.shared) || o.spec.tolerations == new.spec.tolerations)
                        && o.meta.deletion_timestamp == new.meta.deletion_timestamp
                        && o.meta.uid == new.meta.uid
                });
                if !same && node_of(views, new).is_some_and(|n| no_execute(n).next().is_some()) {
                    keys.push(change.key.clone());
                }
            }
            (Some(Object::Pod(_)), None) if self.leaving.contains_key(&change.key) => keys.push(change.key.clone()),
            _ => {}
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        if *key == self.look {
            self.look_at_all(views, now)
        } else if key.kind == Kind::POD {
            self.reconcile_pod(views, key, now)
        } else {
            self.reconcile_node(views, key, now)
        }
    }

    fn succeeded(
        &mut self,
        _views: &Views,
        key: &ObjectKey,
        write: &Write,
        _object: Option<&Object>,
    ) -> Option<EventNote> {
        if let Write::Update(Object::Pod(pod), _) = write
            && key.kind == Kind::NODE
            && let Some(state) = self.nodes.get_mut(key)
        {
            state.marked.insert(Rc::from(pod.uid()));
        }
        None
    }
}

fn node_changed(change: &Change, old: &Node, new: &Node, views: &Views, keys: &mut Vec<ObjectKey>) {
    if is_mere_report(old, new) {
        return;
    }
    fn conditions(node: &Node) -> impl Iterator<Item = (&str, &str)> {
        node.status.conditions.iter().flatten().map(|c| (&*c.type_, &*c.status))
    }
    let same_spec = Rc::ptr_eq(&old.spec, &new.spec) || old.spec == new.spec;
    if !same_spec || !conditions(old).eq(conditions(new)) || old.meta.uid != new.meta.uid {
        keys.push(change.key.clone());
    }
    if !same_spec && !no_execute(old).eq(no_execute(new)) {
        keys.extend(pods_on(views, new.name()).map(Pod::key));
    }
}

fn no_execute(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.taints.iter().flatten().filter(|t| t.effect == taints::NO_EXECUTE)
}

fn pods_on<'a>(views: &'a Views, node: &str) -> impl Iterator<Item = &'a Pod> + use<'a> {
    views.view(Kind::POD).indexed(Index::Node, node).filter_map(Object::get::<core_v1::Pod>)
}

fn node_of<'a>(views: &'a Views, pod: &Pod) -> Option<&'a Node> {
    views.named::<core_v1::Node>("", pod.spec.node.as_deref()?)
}

fn lease_of<'a>(views: &'a Views, node: &str) -> Option<&'a Lease> {
    views.named::<coordination_v1::Lease>(NODE_LEASE_NAMESPACE, node)
}

impl NodeLifecycleController {
    /// Records the first heartbeat of a lease. The record is kept when the lease is deleted, as long as its node
    /// exists.
    fn begin_beats(&mut self, lease: &ObjectKey, rv: Revision, now: Mono) {
        let slot = self.beats.insert_new(lease.clone(), Beat::new(rv, now));
        if let Some(node) = self.nodes.find(Kind::NODE, "", lease.name()) {
            self.nodes.at_mut(node).1.beat = Some(slot);
        }
    }

    /// Handles a status report without changes if the previous version of the node was examined; returns whether it
    /// was.
    fn hears(&mut self, node: &ObjectKey, old: &Node, new: &Node, now: Mono) -> bool {
        self.nodes.get_mut(node).is_some_and(|state| state.see_report(old, new, now))
    }

    /// The periodic check: which nodes sent heartbeats, which zones are disrupted, which node is tainted next.
    fn look_at_all(&mut self, views: &Views, now: Now) -> Plan {
        let mut plan = Plan::nothing();
        if self.looked && now.mono < self.next_look {
            plan.requeue(self.next_look.since(now.mono));
            return plan;
        }
        let can_see = self.can_see(views.view(Kind::LEASE).revision(), now.mono);
        self.walk(views, now, can_see, &mut plan);
        let all_disrupted = self.zones.judge();
        if all_disrupted != self.all_disrupted {
            self.all_disrupted = all_disrupted;
            for (key, state) in self.nodes.iter_mut() {
                state.granted = false;
                if !all_disrupted {
                    state.heard = now.mono;
                    state.silent = false;
                }
                if state.tainted {
                    plan.wake.push(key.clone());
                }
            }
        }
        self.grant_taints(now.mono, &mut plan);
        self.looked = true;
        self.next_look = now.mono + limits::NODE_MONITOR_PERIOD;
        plan.requeue(limits::NODE_MONITOR_PERIOD);
        plan
    }

    /// Whether the view of leases is recent enough to declare a node silent. After a long time without any news of it,
    /// silence is measured anew for all nodes; and after a pause that an event ends, since what the other nodes have
    /// written meanwhile is still on its way. A bookmark says that there is nothing.
    fn can_see(&mut self, revision: Revision, now: Mono) -> bool {
        let paused = std::mem::take(&mut self.heard.1);
        if revision != self.leases.0 {
            let blind = self.looked && (paused || now.since(self.leases.1) > limits::LEASE_VIEW_BLIND);
            self.leases = (revision, now);
            if blind {
                for (_, state) in self.nodes.iter_mut() {
                    state.heard = now;
                }
            }
        }
        now.since(self.leases.1) <= limits::LEASE_VIEW_QUIET
    }

    /// Examines the nodes that were touched, and checks the silence of all nodes if one may have exceeded its grace
    /// period.
    fn walk(&mut self, views: &Views, now: Now, can_see: bool, plan: &mut Plan) {
        if !self.looked {
            // Objects that existed before the first check were not observed as changes.
            let nodes = views.view(Kind::NODE).iter().map(|(key, _)| key.clone());
            let leases = views.list::<coordination_v1::Lease>(NODE_LEASE_NAMESPACE);
            self.touched.extend(nodes.chain(leases.map(|l| ObjectKey::new(Kind::NODE, "", l.name()))));
        }
        for key in std::mem::take(&mut self.touched) {
            self.take_in(key, views, now, plan);
        }
        if !can_see || now.mono < self.judge_at {
            return;
        }
        self.judge_at = Mono(u64::MAX);
        for (key, state) in self.nodes.iter_mut() {
            let beat = state.beat.map(|slot| &self.beats.at(slot).1);
            if state.judge(beat, now.mono) {
                plan.wake.push(key.clone());
            }
            // Silent nodes are checked every time, because they may send heartbeats again.
            self.judge_at = self.judge_at.min(if state.silent { Mono::ZERO } else { state.silent_after(beat) });
        }
    }

    /// Handles a node that was created, deleted or changed, or a lease without a node.
    fn take_in(&mut self, key: ObjectKey, views: &Views, now: Now, plan: &mut Plan) {
        let Some(node) = views.get::<core_v1::Node>(&key) else {
            let state = self.nodes.remove(&key);
            if let Some(state) = state.as_ref().filter(|state| state.counted) {
                self.zones.discount(state.zone, state.readiness == Readiness::True);
            }
            let beat = state.and_then(|state| state.beat);
            if lease_of(views, key.name()).is_some() {
                plan.wake.push(key);
            } else if let Some(slot) = beat {
                self.beats.take(slot);
            }
            return;
        };
        if let Some(state) = self.nodes.get_mut(&key) {
            look_at(state, node, &mut self.zones, now.mono);
            self.judge_at = self.judge_at.min(state.silent_after(state.beat.map(|slot| &self.beats.at(slot).1)));
            return;
        }
        let mut state = NodeState::new(now.mono);
        if let Some(lease) = lease_of(views, key.name()) {
            let lease_key = lease.meta.key(Kind::LEASE);
            let slot = self.beats.slot_of(lease_key);
            state.beat = slot.or_else(|| Some(self.beats.insert_new(lease_key.clone(), Beat::new(lease.rv, now.mono))));
        }
        look_at(&mut state, node, &mut self.zones, now.mono);
        self.judge_at = self.judge_at.min(state.silent_after(None));
        self.nodes.insert_new(key, state);
        if self.looked {
            let name = node.name();
            plan.events.push(EventNote {
                about: Object::Node(node.clone()),
                type_: EventType::Normal,
                reason: "RegisteredNode",
                message: format!("Node {name} event: Registered Node {name} in Controller"),
            });
        }
    }

    /// Lets each zone taint the next of its nodes that is not ready, if its interval has passed.
    fn grant_taints(&mut self, now: Mono, plan: &mut Plan) {
        if self.all_disrupted || self.zones.all_ready() {
            return;
        }
        for (key, state) in self.nodes.iter_mut() {
            let waits = state.readiness != Readiness::True && !state.granted && !state.tainted;
            if waits && self.zones.get_mut(state.zone).grant(now) {
                state.granted = true;
                plan.wake.push(key.clone());
            }
        }
    }

    fn reconcile_node(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        let Some(node) = views.get::<core_v1::Node>(key) else { return abandoned_lease(views, key) };
        let mut plan = Plan::nothing();
        let Some(state) = self.nodes.get_mut(key) else {
            // The periodic check examines the node; taints for conditions need not wait for it.
            plan.wake.push(self.look.clone());
            let tainted = node.spec.taints.iter().flatten().any(taints::is_own_no_execute);
            push_taints(&mut plan, node, tainted, now);
            return plan;
        };
        if state.silent
            && state.still_silent(node, lease_of(views, key.name()), state.beat.map(|slot| &self.beats.at(slot).1))
            && let Some(next) = health::conditions_unknown(node, now)
        {
            if Readiness::of(node) == Readiness::True {
                plan.events.push(EventNote {
                    about: Object::Node(node.clone()),
                    type_: EventType::Normal,
                    reason: "NodeNotReady",
                    message: format!("Node {} status is now: NodeNotReady", node.name()),
                });
            }
            plan.writes.push(Write::Update(next.into(), Subresource::Status));
            return plan;
        }
        let tainted = node.spec.taints.iter().flatten().any(taints::is_own_no_execute);
        let no_execute = !self.all_disrupted && (state.granted || tainted);
        if push_taints(&mut plan, node, no_execute, now) {
            return plan;
        }
        if Readiness::of(node) == Readiness::True {
            state.pods_marked = false;
            state.marked.clear();
        } else if !state.pods_marked {
            state.pods_marked = mark_pods(&mut plan, views, node, &state.marked, now);
        }
        plan
    }

    fn reconcile_pod(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let Some(pod) = views.get::<core_v1::Pod>(key).filter(|p| p.meta.deletion_timestamp.is_none()) else {
            self.leaving.remove(key);
            return plan;
        };
        let taints: Vec<&Taint> = node_of(views, pod).into_iter().flat_map(no_execute).collect();
        let tolerations = pod.spec.tolerations.as_deref().unwrap_or(&[]);
        let time = match eviction::stay(tolerations, &taints) {
            Stay::For(time) => time,
            Stay::Forever => {
                if self.leaving.remove(key).is_some_and(|(uid, _)| *uid == *pod.uid()) {
                    plan.events.push(taint_event(pod, format!("Cancelling deletion of Pod {}", key.path())));
                }
                return plan;
            }
        };
        let known = self.leaving.get(key).filter(|(uid, _)| **uid == *pod.uid()).map(|(_, since)| *since);
        let since = known.unwrap_or_else(|| {
            self.leaving.insert(key.clone(), (Rc::from(pod.uid()), now.mono));
            now.mono
        });
        let stayed = now.mono.since(since);
        if stayed < time {
            plan.requeue(time - stayed);
            return plan;
        }
        if let Some(next) = eviction::disruption_target(pod, now) {
            plan.writes.push(Write::Update(next.into(), Subresource::Status));
        }
        plan.writes.push(Write::Delete {
            key: key.clone(),
            uid: Rc::from(pod.uid()),
            rv: None,
            grace_seconds: None,
            propagation: None,
        });
        plan.events.push(taint_event(pod, format!("Marking for deletion Pod {}", key.path())));
        plan
    }
}

/// Examines a node and updates its state.
fn look_at(state: &mut NodeState, node: &Node, zones: &mut Zones, now: Mono) {
    let was_ready = state.readiness == Readiness::True;
    if state.see_node(node, now) {
        if std::mem::replace(&mut state.counted, true) {
            zones.discount(state.zone, was_ready);
        }
        state.zone = zones.number(node);
        zones.count(state.zone, state.readiness == Readiness::True);
        state.tainted = node.spec.taints.iter().flatten().any(taints::is_own_no_execute);
        if state.readiness == Readiness::True {
            state.granted = false;
        }
    }
}

/// Writes the taints that the node should have if they differ; returns whether they did.
fn push_taints(plan: &mut Plan, node: &Node, no_execute: bool, now: Now) -> bool {
    let Some(list) = taints::desired(node, no_execute, &now.wall.to_time()) else { return false };
    let mut next = node.clone();
    next.spec_mut().taints = (!list.is_empty()).then_some(list);
    plan.writes.push(Write::Update(next.into(), Subresource::None));
    true
}

/// Marks the node's pods not ready; returns whether none is left to mark.
fn mark_pods(plan: &mut Plan, views: &Views, node: &Node, marked: &BTreeSet<Rc<str>>, now: Now) -> bool {
    for pod in pods_on(views, node.name()).filter(|p| !marked.contains(p.uid())) {
        if let Some(next) = eviction::not_ready(pod, now) {
            plan.writes.push(Write::Update(next.into(), Subresource::Status));
            plan.events.push(EventNote {
                about: Object::Pod(pod.clone()),
                type_: EventType::Warning,
                reason: "NodeNotReady",
                message: "Node is not ready".to_owned(),
            });
        }
    }
    let done = plan.writes.is_empty();
    if !done {
        plan.requeue(limits::STALE_VIEW_RETRY);
    }
    done
}

fn taint_event(pod: &Pod, message: String) -> EventNote {
    EventNote { about: Object::Pod(pod.clone()), type_: EventType::Normal, reason: "TaintManagerEviction", message }
}

/// Deletes the heartbeat Lease of a deleted node. The garbage collector does not watch Leases, because there are many
/// and they change all the time.
fn abandoned_lease(views: &Views, key: &ObjectKey) -> Plan {
    let mut plan = Plan::nothing();
    let Some(lease) = lease_of(views, key.name()).filter(|l| l.meta.deletion_timestamp.is_none()) else { return plan };
    let owned = lease.meta.owner_references.iter().flatten().any(|o| o.kind == "Node" && o.name == key.name());
    if !owned {
        return plan;
    }
    // Only a view of nodes that is as new as the lease can tell a deleted node from one that is not in the view yet.
    if views.view(Kind::NODE).revision() < lease.rv {
        plan.wait_for(Kind::NODE, limits::NODE_MONITOR_GRACE);
        return plan;
    }
    plan.writes.push(Write::Delete {
        key: lease.key(),
        uid: Rc::from(lease.uid()),
        rv: Some(lease.rv),
        grace_seconds: None,
        propagation: None,
    });
    plan
}

#[cfg(test)]
mod tests;
