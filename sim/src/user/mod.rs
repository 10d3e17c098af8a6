//! The users who carry out the timeline's actions at the API, each with a separate kubectl.
//!
//! What comes in: the timeline's actions and the server's messages. What goes out: requests. Each action is a command
//! that runs in parallel to the others, so that one that waits (such as a drain that waits for a budget) delays no
//! other. A request without a reply is retried. A rejected command is reported with the API's message and remembered:
//! an object that is declared but does not exist has not converged.

mod apply;
mod command;
mod drain;
mod rollout;
pub mod taint;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use serde_json::json;

use skeg_core::api::{
    Call, DeleteOptions, FromServer, Patch, Propagation, Reason, ReqId, ReqIds, Request, Response, Status, ToServer,
    WriteOptions,
};
use skeg_core::controllers::rolling_update::{RollingUpdate, RollingUpdateConfig, UpdateState};
use skeg_core::object::{Kind, Object, ObjectKey, Revision};
use skeg_core::{Deadline, Machine, Mono, Now, Rng};

use crate::scenario::UserAction;
use command::{Command, Next, Task, Then, patch_task, timestamp};

const TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(1);
/// How often a request is retried after an error that may be temporary (such as a namespace that does not exist yet).
const PATIENCE: u32 = 60;

/// The result of an action, for the report.
#[derive(Clone, Debug)]
pub struct Done {
    /// The action in words.
    pub what: String,
    /// The error if it was rejected.
    pub error: Option<String>,
}

/// An object that was declared and has not been deleted by a user since.
#[derive(Clone, Debug)]
pub struct Declared {
    /// The object as last declared.
    pub object: Rc<Object>,
    /// Why the API rejected it, if it did.
    pub refused: Option<String>,
    /// It has a managing owner, which may delete it: for example, a pod in an export.
    pub of_controller: bool,
}

/// How often a rolling update that timed out is resumed.
const MORE_TRIES: u32 = 10;

/// A rolling update of a ReplicationController.
#[derive(Debug)]
struct Update {
    machine: RollingUpdate,
    old: ObjectKey,
    /// When it must roll back.
    rollback_at: Option<Mono>,
    tries_left: u32,
}

impl Update {
    fn has_ended(&self) -> bool {
        matches!(self.machine.state(), UpdateState::Done | UpdateState::Failed(_)) && self.rollback_at.is_none()
    }
}

/// The client machine of all users. In: messages from the server. Out: requests.
#[derive(Debug)]
pub struct User {
    user: Rc<str>,
    ids: ReqIds,
    /// By number, in the order in which they were given.
    commands: BTreeMap<u64, Command>,
    next_command: u64,
    /// When each command must be woken.
    due: BTreeSet<(Mono, u64)>,
    asked: BTreeMap<ReqId, u64>,
    done: Vec<Done>,
    declared: BTreeMap<ObjectKey, Declared>,
    /// Nodes that users have deleted.
    deleted: BTreeSet<ObjectKey>,
    /// Other actions that were rejected, and why.
    refused: Vec<(String, String)>,
    updates: Vec<Update>,
    rng: Rng,
}

impl User {
    /// Creates a client without commands.
    pub fn new(rng: Rng) -> User {
        User {
            user: Rc::from("kubernetes-admin"),
            ids: ReqIds::new(1),
            commands: BTreeMap::new(),
            next_command: 0,
            due: BTreeSet::new(),
            asked: BTreeMap::new(),
            done: Vec::new(),
            declared: BTreeMap::new(),
            deleted: BTreeSet::new(),
            refused: Vec::new(),
            updates: Vec::new(),
            rng,
        }
    }

    /// Starts an action.
    pub fn act(&mut self, now: Now, action: &UserAction, nodes: &[String]) {
        let call = |c: Call| Task::Call(Box::new(c));
        let one = match action {
            UserAction::Apply(objects) => {
                let tasks = self.declare(objects, Task::Apply);
                return self.begin(now, tasks);
            }
            UserAction::Create(objects) => {
                let tasks = self.declare(objects, Task::Restore);
                return self.begin(now, tasks);
            }
            UserAction::Replace { objects, cascade } => {
                let mut tasks = Vec::new();
                for task in self.declare(objects, Task::Apply) {
                    let key = task.declares().expect("what is applied is declared");
                    tasks.push(call(delete(&key, *cascade, None)));
                    // Until then it still has the finalizer by which the garbage collector looks after its dependents.
                    if *cascade != Propagation::Background {
                        tasks.push(Task::Get(key, Then::AwaitDeleted));
                    }
                    tasks.push(task);
                }
                return self.begin(now, tasks);
            }
            UserAction::Delete { key, cascade, grace_period } => {
                self.withdraw(key);
                call(delete(key, *cascade, *grace_period))
            }
            UserAction::Scale { key, replicas } => {
                let (rv, options) = (Revision(0), WriteOptions::default());
                call(Call::SetScale { key: key.clone(), replicas: *replicas, rv, options })
            }
            UserAction::SetImage { key, container, image } => {
                let then = Then::SetImage { container: container.clone(), image: image.clone() };
                Task::Get(key.clone(), then)
            }
            UserAction::Patch { key, patch } => patch_task(key, patch.clone()),
            UserAction::Rollback { key, to_revision } => {
                Task::Get(key.clone(), Then::Rollback { to_revision: *to_revision })
            }
            UserAction::Pause { key, paused } => patch_task(key, Patch::Merge(json!({"spec": {"paused": paused}}))),
            UserAction::Restart { key } => Task::Get(key.clone(), Then::Restart { stamp: timestamp(now) }),
            UserAction::Cordon { cordoned, .. } => {
                return self.begin(now, nodes.iter().map(|n| drain::cordon(n, *cordoned)).collect());
            }
            UserAction::Taint { taint, removed, .. } => {
                return self.begin(now, nodes.iter().map(|n| taint::task(n, taint, *removed)).collect());
            }
            UserAction::Drain { .. } => return nodes.iter().for_each(|n| self.begin(now, drain::tasks(n).into())),
            UserAction::RollingUpdate { old, new, interval, rollback_after } => {
                return self.begin_update(now, old, new, *interval, *rollback_after);
            }
        };
        self.begin(now, vec![one]);
    }

    /// Records the declared objects and returns their tasks, with objects that others refer to first.
    fn declare(&mut self, objects: &[Object], task: fn(Rc<Object>) -> Task) -> Vec<Task> {
        let rank = |o: &Object| match o.kind() {
            Kind::NAMESPACE => 0,
            Kind::PRIORITY_CLASS | Kind::SERVICE_ACCOUNT | Kind::CONFIG_MAP | Kind::SECRET => 1,
            Kind::SERVICE => 2,
            _ => 3,
        };
        let mut sorted: Vec<Rc<Object>> = objects.iter().map(|o| Rc::new(o.clone())).collect();
        sorted.sort_by_key(|o| rank(o));
        for object in &sorted {
            let restored = matches!(task(Rc::clone(object)), Task::Restore(_));
            let of_controller = restored && matches!(object.kind(), Kind::POD | Kind::REPLICA_SET);
            let declared = Declared { object: Rc::clone(object), refused: None, of_controller };
            self.declared.insert(object.key(), declared);
        }
        sorted.into_iter().map(task).collect()
    }

    /// Handles the deletion of an object by a user: the object and everything in it are no longer declared.
    fn withdraw(&mut self, key: &ObjectKey) {
        self.declared.remove(key);
        match key.kind {
            Kind::NAMESPACE => self.declared.retain(|k, _| k.namespace() != key.name()),
            Kind::NODE => _ = self.deleted.insert(key.clone()),
            _ => {}
        }
    }

    fn begin(&mut self, now: Now, tasks: Vec<Task>) {
        if !tasks.is_empty() {
            self.put(Command::new(tasks, now.mono));
        }
    }

    fn begin_update(
        &mut self,
        now: Now,
        old: &ObjectKey,
        new: &Object,
        interval: Duration,
        rollback_after: Option<Duration>,
    ) {
        let Object::ReplicationController(new) = new else {
            return self.refuse(format!("rolling-update {old}"), format!("{} cannot be rolling-updated", new.kind()));
        };
        // The rolling update determines which of the two controllers is left.
        self.withdraw(old);
        let mut config = RollingUpdateConfig::new(old.namespace(), old.name(), new.clone());
        config.update_period = interval;
        // Parts of this client's connection: part 1 is for commands.
        let part = 2 + self.updates.len() as u16;
        let machine = RollingUpdate::new(config, part, Rng::from_seed(self.rng.next_u64()));
        let rollback_at = rollback_after.map(|after| now.mono + after);
        self.updates.push(Update { machine, old: old.clone(), rollback_at, tries_left: MORE_TRIES });
    }

    /// Collects the messages of the rolling updates, and rolls back those whose time has come. One that timed out is
    /// resumed where it was, as a user at a terminal would do.
    fn tend_updates(&mut self, now: Now) {
        for update in &mut self.updates {
            if update.rollback_at.is_some_and(|at| at <= now.mono) {
                (update.rollback_at, update.tries_left) = (None, MORE_TRIES);
                update.machine.rollback(now);
            }
            let messages = update.machine.take_messages();
            self.done.extend(messages.into_iter().map(|what| Done { what, error: None }));
            if let UpdateState::Failed(why) = update.machine.state()
                && update.tries_left > 0
            {
                let (what, why) = (format!("rolling-update {}", update.old), why.clone());
                let again = why.starts_with("timed out");
                update.tries_left = if again { update.tries_left - 1 } else { 0 };
                if again && update.tries_left > 0 {
                    update.machine.resume(now);
                } else {
                    self.refused.push((what.clone(), why.clone()));
                }
                self.done.push(Done { what, error: Some(why) });
            }
        }
    }

    /// Whether all commands are done.
    pub fn is_idle(&self) -> bool {
        self.commands.is_empty() && self.updates.iter().all(Update::has_ended)
    }

    /// The results of actions since the last call.
    pub fn take_done(&mut self) -> Vec<Done> {
        std::mem::take(&mut self.done)
    }

    /// The declared objects by key.
    pub fn declared(&self) -> impl Iterator<Item = (&ObjectKey, &Declared)> {
        self.declared.iter()
    }

    /// Whether a user has deleted this Node.
    pub fn has_deleted(&self, node: &ObjectKey) -> bool {
        self.deleted.contains(node)
    }

    /// Other rejected actions: the action, and the API's message.
    pub fn refused(&self) -> &[(String, String)] {
        &self.refused
    }

    /// Commands in progress, and what they are waiting for.
    pub fn waiting(&self) -> impl Iterator<Item = (String, String)> {
        let update = |u: &Update| (format!("rolling-update {}", u.old), "it is still under way".to_owned());
        let updates = self.updates.iter().filter(|u| !u.has_ended()).map(update);
        self.commands.values().filter_map(Command::waiting).chain(updates)
    }

    /// Whether a command that declares this object is under way. An action on it waits then, as people do who have seen
    /// their `kubectl apply` hang.
    fn is_declaring(&self, key: &ObjectKey) -> bool {
        self.commands.values().flat_map(|command| &command.tasks).any(|task| task.declares().as_ref() == Some(key))
    }

    /// Whether a task removes a taint of a node for which a command that taints it is under way: it waits, as people do
    /// who have seen their `kubectl taint` hang.
    fn is_tainting(&self, task: &Task) -> bool {
        let Some((node, true)) = task.taints() else { return false };
        let mut others = self.commands.values().flat_map(|command| &command.tasks);
        others.any(|other| other.taints() == Some((node, false)))
    }

    fn put(&mut self, command: Command) {
        let number = self.next_command;
        self.next_command += 1;
        self.put_back(number, command);
    }

    fn put_back(&mut self, number: u64, command: Command) {
        self.due.insert((command.due().0, number));
        self.commands.insert(number, command);
    }

    fn take(&mut self, number: u64) -> Option<Command> {
        let command = self.commands.remove(&number)?;
        self.due.remove(&(command.due().0, number));
        Some(command)
    }

    fn send(&mut self, now: Now, command: &mut Command, number: u64, out: &mut Vec<ToServer>) {
        let Some(task) = command.tasks.front() else { return };
        let id = self.ids.next();
        command.is_early = task.acts_on().is_some_and(|key| self.is_declaring(key));
        command.in_flight = Some((id, now.mono + TIMEOUT));
        self.asked.insert(id, number);
        out.push(ToServer::Request(id, Request::new(&self.user, task.call())));
    }

    fn answer(&mut self, now: Now, number: u64, result: &Result<Response, Status>, out: &mut Vec<ToServer>) {
        let Some(mut command) = self.take(number) else { return };
        command.in_flight = None;
        let Some(task) = command.tasks.pop_front() else { return };
        let next = match result {
            Ok(response) => match task.answered(response) {
                Next::Refused(_) if self.is_tainting(&task) => Next::Again(PAUSE),
                next => next,
            },
            Err(status) => {
                let words = drain::words(status);
                if matches!(task, Task::Evict(_)) && command.refusal.as_ref() != Some(&words) {
                    self.done.push(Done { what: task.describe(), error: Some(words.clone()) });
                }
                command.refusal = Some(words);
                let acts_on = task.acts_on().filter(|_| status.reason == Reason::NotFound);
                if acts_on.is_some_and(|key| command.is_early || self.is_declaring(key)) {
                    Next::Again(PAUSE)
                } else if acts_on.is_some_and(|key| self.deleted.contains(key)) {
                    // The same users have deleted it.
                    Next::Done(Vec::new(), Some(task.describe()))
                } else {
                    task.refused(status, command.tries)
                }
            }
        };
        self.follow(now, &mut command, task, next);
        if command.tasks.is_empty() {
            return;
        }
        if command.wake <= now.mono {
            self.send(now, &mut command, number, out);
        }
        self.put_back(number, command);
    }

    /// Continues a command after a task was answered.
    fn follow(&mut self, now: Now, command: &mut Command, task: Task, next: Next) {
        let pause = match next {
            Next::Again(pause) => {
                command.tasks.push_front(task);
                pause
            }
            Next::Instead(other, pause) => {
                command.tasks.push_front(other);
                pause
            }
            Next::Apart(pause) => {
                let mut apart = Command::new([task], now.mono + pause);
                (apart.tries, apart.refusal) = (command.tries + 1, command.refusal.take());
                self.put(apart);
                (command.tries, command.refusal) = (0, None);
                return;
            }
            Next::Spawn(tasks) => {
                tasks.into_iter().for_each(|task| self.put(Command::new([task], now.mono)));
                (command.tries, command.refusal) = (0, None);
                return;
            }
            Next::Done(tasks, text) => {
                self.finished(&task);
                self.done.extend(text.map(|what| Done { what, error: None }));
                tasks.into_iter().rev().for_each(|task| command.tasks.push_front(task));
                (command.tries, command.refusal) = (0, None);
                return;
            }
            Next::Refused(why) => {
                self.refuse_task(&task, why);
                (command.tries, command.refusal) = (0, None);
                return;
            }
        };
        command.tries += u32::from(!pause.is_zero());
        command.wake = now.mono + pause;
    }

    fn finished(&mut self, task: &Task) {
        if let Task::Evict(victim) = task {
            self.withdraw(&victim.pod);
        }
        if let Some(declared) = task.declares().and_then(|key| self.declared.get_mut(&key)) {
            declared.refused = None;
        }
    }

    fn refuse_task(&mut self, task: &Task, why: String) {
        match task.declares().and_then(|key| self.declared.get_mut(&key)) {
            Some(declared) => {
                declared.refused = Some(why.clone());
                self.done.push(Done { what: task.describe(), error: Some(why) });
            }
            None => self.refuse(task.describe(), why),
        }
    }

    fn refuse(&mut self, what: String, why: String) {
        self.done.push(Done { what: what.clone(), error: Some(why.clone()) });
        self.refused.push((what, why));
    }
}

/// What `kubectl delete` asks for.
fn delete(key: &ObjectKey, cascade: Propagation, grace_seconds: Option<i64>) -> Call {
    let options = DeleteOptions { propagation: Some(cascade), grace_seconds, ..DeleteOptions::default() };
    Call::Delete { key: key.clone(), options }
}

impl Machine for User {
    type In = FromServer;
    type Out = ToServer;

    fn handle(&mut self, now: Now, input: FromServer, out: &mut Vec<ToServer>) {
        for update in &mut self.updates {
            update.machine.handle(now, input.clone(), out);
        }
        self.tend_updates(now);
        match input {
            FromServer::Reply(id, result) => {
                if let Some(number) = self.asked.remove(&id) {
                    self.answer(now, number, &result, out);
                }
            }
            FromServer::Watch(..) => {}
            FromServer::Disconnected => {
                for number in std::mem::take(&mut self.asked).into_values() {
                    let Some(mut command) = self.take(number) else { continue };
                    (command.in_flight, command.wake) = (None, now.mono + PAUSE);
                    self.put_back(number, command);
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Now, out: &mut Vec<ToServer>) {
        for update in &mut self.updates {
            update.machine.handle_timeout(now, out);
        }
        self.tend_updates(now);
        while let Some((at, number)) = self.due.first().copied()
            && at <= now.mono
        {
            let mut command = self.take(number).expect("what is due is a command");
            if let Some((id, _)) = command.in_flight {
                self.asked.remove(&id);
            }
            self.send(now, &mut command, number, out);
            self.put_back(number, command);
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let first = self.due.first().and_then(|(_, number)| self.commands.get(number));
        let mut next = first.map(|command| {
            let (at, why) = command.due();
            Deadline { at, why }
        });
        for update in &self.updates {
            next = Deadline::earlier(next, update.machine.poll_timeout());
            next = Deadline::earlier(next, update.rollback_at.map(|at| Deadline { at, why: "roll back" }));
        }
        next
    }
}
