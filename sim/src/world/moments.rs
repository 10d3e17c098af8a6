//! Steps that wait for a moment: what processes send, commit and hear is counted while some step waits.

use std::rc::Rc;

use skeg_core::api::{FromServer, ToServer, WatchEvent};
use skeg_core::store::KeyValue;
use skeg_core::{Kind, Object};

use super::{Tag, World};
use crate::ids::{ApiId, ProcessId};
use crate::moment::{Moment, Stage};
use crate::outcome::Happening;
use crate::process::Running;

/// A step that waits.
pub(super) struct Waiting {
    step: usize,
    moment: Moment,
    /// How often what it waits for has happened.
    seen: u64,
}

/// Something that steps may wait for.
pub(super) struct Noticed {
    stage: Stage,
    kinds: Vec<Kind>,
    /// Who did it, by the name that steps use.
    who: String,
    process: ProcessId,
}

impl World {
    /// Lets a step wait for its moment.
    pub(super) fn wait(&mut self, step: usize, moment: Moment) {
        self.waiting.push(Waiting { step, moment, seen: 0 });
    }

    /// Carries out the steps that have waited for this.
    #[cold]
    pub(super) fn notice(&mut self, noticed: Noticed) {
        let Noticed { stage, kinds, who, process } = noticed;
        let come = self.waiting.extract_if(.., |waiting| {
            let counted = kinds.iter().filter(|kind| waiting.moment.counts(stage, **kind, &who)).count();
            waiting.seen += counted as u64;
            counted > 0 && waiting.seen >= waiting.moment.nth
        });
        let come: Vec<usize> = come.map(|waiting| waiting.step).collect();
        for step in come {
            self.record_event(self.now, Tag::Step, step as u64, 1);
            self.actor = Some(self.processes[process].host);
            self.act(step);
            self.actor = None;
        }
    }

    /// Counts a request that is about to be sent. Returns false if its process has crashed at this moment.
    #[cold]
    pub(super) fn goes_out(&mut self, process: ProcessId, message: &ToServer) -> bool {
        if let ToServer::Request(_, request) = message
            && request.call.writes()
        {
            let (kinds, who) = (vec![request.call.kind()], request.user.to_string());
            self.notice(Noticed { stage: Stage::Send, kinds, who, process });
        }
        self.processes[process].running.is_some()
    }

    /// What the store has just committed for a client of an API server; none if nothing, or for the server itself.
    #[cold]
    pub(super) fn committed(&self, api: ApiId, id: u64) -> Option<Noticed> {
        let changes = self.store.just_changed().flat_map(|batch| &**batch);
        let kind = |kv: &Option<Rc<KeyValue>>| kv.as_ref().and_then(|kv| kv.value.object()).map(Object::kind);
        let kinds: Vec<Kind> =
            changes.filter_map(|change| kind(&change.value).or_else(|| kind(&change.previous))).collect();
        let Some(Running::Api(server)) = &self.processes[self.apis[api].process].running else { return None };
        let (conn, user) = server.asker(id)?;
        let process = self.conns[conn.0 as usize].client;
        (!kinds.is_empty()).then(|| Noticed { stage: Stage::Commit, kinds, who: user.to_owned(), process })
    }

    /// What a process is about to hear of by a watch.
    #[cold]
    pub(super) fn heard(&self, process: ProcessId, message: &FromServer) -> Option<Noticed> {
        let FromServer::Watch(_, event) = message else { return None };
        let (WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object)) = event else {
            return None;
        };
        let who = self.processes[process].name.replace(' ', "-");
        Some(Noticed { stage: Stage::Hear, kinds: vec![object.kind()], who, process })
    }

    /// Ends the waiting of all steps.
    pub(crate) fn give_up(&mut self) {
        let at = self.seconds();
        for Waiting { step, moment, seen } in std::mem::take(&mut self.waiting) {
            let what = self.timeline[step].action.describe();
            let what = format!("did not happen: {what}, {moment}; there were {seen} by then");
            self.in_vain.push(Happening { at, what });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use skeg_core::{Kind, Object};

    use crate::converge::objects;
    use crate::fault::{Crash, DropConnections, Fault};
    use crate::moment::{Moment, Stage};
    use crate::process::Role;
    use crate::run::plain;
    use crate::scenario::{NodeSet, Step, UserAction};
    use crate::world::World;

    fn moment(stage: Stage, by: &str, nth: u64) -> Moment {
        Moment { stage, kind: Some(Kind::POD), by: Some(by.to_owned()), nth }
    }

    fn crash() -> Fault {
        Crash { nodes: NodeSet::Actor, down_for: Duration::from_secs(20) }.into()
    }

    /// A cluster of one controller manager, in which a ReplicaSet of five pods is made, as far as until the fault.
    fn struck(moment: Moment, fault: Fault) -> World {
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
            {"name": "main", "image": "web:1"}]}});
        let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": 5, "selector": {"matchLabels": {"app": "web"}}, "template": template}});
        let set = Object::from_json(set).expect("it is a ReplicaSet");
        let mut scenario = plain(2, 1);
        (scenario.cluster.api_servers, scenario.cluster.control_replicas) = (1, 1);
        let steps = vec![
            Step::when(Duration::ZERO, moment, fault),
            Step::at(Duration::from_secs(5), UserAction::Apply(vec![set])),
        ];
        let mut world = World::new(&scenario, 1, steps, false);
        while world.faults.is_empty() && world.step(60_000_000_000) {}
        world
    }

    fn go_on(world: &mut World, seconds: u64) {
        let until = world.now + seconds * 1_000_000_000;
        while world.step(until) {}
    }

    fn pods(world: &World) -> usize {
        objects(&world.store, Kind::POD).count()
    }

    fn managers_run(world: &World) -> bool {
        world.processes.iter().any(|p| matches!(p.role, Role::Manager(_)) && p.running.is_some())
    }

    #[test]
    fn before_a_write_it_is_not_sent() {
        for nth in 1..=5 {
            let mut world = struck(moment(Stage::Send, "replicaset-controller", nth), crash());
            assert!(!managers_run(&world));
            go_on(&mut world, 10);
            assert_eq!(pods(&world) as u64, nth - 1, "those before it arrive");
            go_on(&mut world, 60);
            assert_eq!(pods(&world), 5);
        }
    }

    #[test]
    fn after_a_commit_nobody_has_heard_of_it() {
        for nth in 1..=5 {
            let world = struck(moment(Stage::Commit, "replicaset-controller", nth), crash());
            assert_eq!((pods(&world) as u64, managers_run(&world)), (nth, false));
        }
    }

    #[test]
    fn after_an_event_its_hearer_is_struck() {
        let fault = DropConnections { nodes: NodeSet::Actor };
        let world = struck(moment(Stage::Hear, "controller-manager-0", 2), fault.into());
        assert!(pods(&world) >= 1 && managers_run(&world));
        let cut = |p: &&crate::process::Process| p.connection.is_none_or(|c| c.dead);
        let names: Vec<&str> = world.processes.iter().filter(cut).map(|p| &*p.name).collect();
        assert!(names.contains(&"controller-manager 0") && !names.contains(&"agent node-0"), "{names:?}");
    }

    #[test]
    fn what_never_comes_is_told() {
        let mut world = struck(moment(Stage::Commit, "replicaset-controller", 6), crash());
        assert!(world.faults.is_empty() && pods(&world) == 5 && world.in_vain.is_empty());
        world.heal_all();
        let told: Vec<&str> = world.in_vain.iter().map(|told| told.what.as_str()).collect();
        let [one] = told[..] else { panic!("{told:?}") };
        assert!(one.ends_with("after commit 6 of pods by replicaset-controller; there were 5 by then"), "{one}");
    }
}
