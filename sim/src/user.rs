//! Whoever carries out the timeline at the API: a client as kubectl is, that tries again until it has an answer.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use serde_json::json;

use skeg_core::api::{
    Call, DeleteOptions, FromServer, ListOptions, Patch, Precondition, Propagation, Reason, ReqId, ReqIds, Request,
    Response, Status, Subresource, ToServer, WriteOptions,
};
use skeg_core::controllers::rolling_update::{RollingUpdate, RollingUpdateConfig, UpdateState};
use skeg_core::object::{FieldSelector, Kind, Object, ObjectKey, Revision};
use skeg_core::{Deadline, Machine, Mono, Now, Rng};

use crate::scenario::UserAction;

const TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(1);
/// How often a refusal that may pass (a namespace that is not there yet) is tried again.
const PATIENCE: u32 = 60;

/// One thing to do, as small as a call or two.
#[derive(Clone, Debug)]
enum Task {
    Apply(Box<Object>),
    Replace(Box<Object>, Revision),
    Get(ObjectKey, Then),
    List(Kind, Rc<str>, FieldSelector, Then),
    Call(Box<Call>),
}

/// What follows from what was read.
#[derive(Clone, Debug)]
enum Then {
    Replace(Box<Object>),
    SetImage { container: String, image: String },
    Rollback { to_revision: Option<i64> },
    Undo { deployment: Box<Object>, to_revision: Option<i64> },
    Evict { node: String },
}

/// What became of an action, for the report.
#[derive(Clone, Debug)]
pub struct Done {
    /// What was asked.
    pub what: String,
    /// The refusal, if it was refused.
    pub error: Option<String>,
}

/// How often a rolling update that timed out is begun again.
const MORE_TRIES: u32 = 10;

/// A rolling update of a ReplicationController.
#[derive(Debug)]
struct Update {
    machine: RollingUpdate,
    old: ObjectKey,
    /// When it is to turn round.
    rollback_at: Option<Mono>,
    tries_left: u32,
}

impl Update {
    fn has_ended(&self) -> bool {
        matches!(self.machine.state(), UpdateState::Done | UpdateState::Failed(_)) && self.rollback_at.is_none()
    }
}

/// The client. In: messages of the server. Out: requests.
#[derive(Debug)]
pub struct User {
    user: Rc<str>,
    ids: ReqIds,
    tasks: VecDeque<(Task, u32)>,
    in_flight: Option<(ReqId, Mono)>,
    wake: Mono,
    done: Vec<Done>,
    updates: Vec<Update>,
    rng: Rng,
}

impl User {
    /// A client with nothing to do.
    pub fn new(rng: Rng) -> User {
        User {
            updates: Vec::new(),
            rng,
            user: Rc::from("kubernetes-admin"),
            ids: ReqIds::new(1),
            tasks: VecDeque::new(),
            in_flight: None,
            wake: Mono::ZERO,
            done: Vec::new(),
        }
    }

    /// Adds an action.
    pub fn act(&mut self, now: Now, action: &UserAction, nodes: &[String]) {
        let call = |c: Call| Task::Call(Box::new(c));
        match action {
            UserAction::Apply(objects) => {
                let rank = |o: &Object| match o.kind() {
                    Kind::NAMESPACE => 0,
                    Kind::PRIORITY_CLASS | Kind::SERVICE_ACCOUNT | Kind::CONFIG_MAP | Kind::SECRET => 1,
                    Kind::SERVICE => 2,
                    _ => 3,
                };
                let mut sorted: Vec<&Object> = objects.iter().collect();
                sorted.sort_by_key(|o| rank(o));
                self.push_all(sorted.into_iter().map(|o| Task::Apply(Box::new(o.clone()))));
            }
            UserAction::Delete(key) => {
                let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
                self.push(call(Call::Delete { key: key.clone(), options }));
            }
            UserAction::Scale { key, replicas } => {
                let (rv, options) = (Revision(0), WriteOptions::default());
                self.push(call(Call::SetScale { key: key.clone(), replicas: *replicas, rv, options }));
            }
            UserAction::SetImage { key, container, image } => {
                let then = Then::SetImage { container: container.clone(), image: image.clone() };
                self.push(Task::Get(key.clone(), then));
            }
            UserAction::Patch { key, patch } => self.push(patch_task(key, patch.clone())),
            UserAction::Rollback { key, to_revision } => {
                self.push(Task::Get(key.clone(), Then::Rollback { to_revision: *to_revision }));
            }
            UserAction::Pause { key, paused } => {
                self.push(patch_task(key, Patch::Merge(json!({"spec": {"paused": paused}}))));
            }
            UserAction::Restart { key } => {
                let stamp = self.done.len().to_string();
                let annotations = json!({"kubectl.kubernetes.io/restartedAt": stamp});
                let body = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
                self.push(patch_task(key, Patch::Merge(body)));
            }
            UserAction::Cordon { cordoned, .. } => {
                self.push_all(nodes.iter().map(|n| cordon(n, *cordoned)));
            }
            UserAction::Drain { .. } => {
                for node in nodes {
                    self.push(cordon(node, true));
                    self.push(pods_of(node));
                }
            }
            UserAction::RollingUpdate { old, new, interval, rollback_after } => {
                let Object::ReplicationController(new) = &**new else {
                    let error = Some(format!("{} cannot be rolling-updated", new.kind()));
                    self.done.push(Done { what: format!("rolling-update {old}"), error });
                    return;
                };
                let mut config = RollingUpdateConfig::new(old.namespace(), old.name(), new.clone());
                config.update_period = *interval;
                // Parts of this client's connection: 1 is the user's own.
                let part = 2 + self.updates.len() as u16;
                let machine = RollingUpdate::new(config, part, Rng::from_seed(self.rng.next_u64()));
                let rollback_at = rollback_after.map(|after| now.mono + after);
                self.updates.push(Update { machine, old: old.clone(), rollback_at, tries_left: MORE_TRIES });
            }
        }
    }

    /// Takes down what the rolling updates say, and turns round those whose time has come. One that timed out is begun
    /// again, as somebody at a terminal would: it goes on where it was.
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
                let again = why.starts_with("timed out");
                self.done.push(Done { what: format!("rolling-update {}", update.old), error: Some(why.clone()) });
                update.tries_left = if again { update.tries_left - 1 } else { 0 };
                if again {
                    update.machine.resume(now);
                }
            }
        }
    }

    fn push(&mut self, task: Task) {
        self.tasks.push_back((task, 0));
    }

    fn push_all(&mut self, tasks: impl Iterator<Item = Task>) {
        self.tasks.extend(tasks.map(|t| (t, 0)));
    }

    /// Whether everything is done.
    pub fn is_idle(&self) -> bool {
        self.tasks.is_empty() && self.updates.iter().all(Update::has_ended)
    }

    /// What was done since the last call.
    pub fn take_done(&mut self) -> Vec<Done> {
        std::mem::take(&mut self.done)
    }

    fn send(&mut self, now: Now, out: &mut Vec<ToServer>) {
        let Some((task, _)) = self.tasks.front() else { return };
        let call = match task {
            Task::Apply(object) => Call::Create { object: (**object).clone(), options: WriteOptions::default() },
            Task::Replace(object, rv) => {
                let mut object = (**object).clone();
                object.set_rv(*rv);
                Call::Update { object, subresource: Subresource::None, options: WriteOptions::default() }
            }
            Task::Get(key, _) => Call::Get { key: key.clone(), rv: None },
            Task::List(kind, namespace, fields, _) => {
                let options = ListOptions { fields: fields.clone(), ..ListOptions::default() };
                Call::List { kind: *kind, namespace: Rc::clone(namespace), options }
            }
            Task::Call(call) => (**call).clone(),
        };
        let id = self.ids.next();
        self.in_flight = Some((id, now.mono + TIMEOUT));
        out.push(ToServer::Request(id, Request::new(&self.user, call)));
    }

    fn retry(&mut self, now: Now, after: Duration) {
        self.in_flight = None;
        if let Some((_, attempts)) = self.tasks.front_mut() {
            *attempts += 1;
        }
        self.wake = now.mono + after;
    }

    fn answer(&mut self, now: Now, result: &Result<Response, Status>, out: &mut Vec<ToServer>) {
        self.in_flight = None;
        let Some((task, attempts)) = self.tasks.front().cloned() else { return };
        match result {
            Ok(response) => {
                self.tasks.pop_front();
                if let (Task::List(_, _, _, Then::Undo { deployment, to_revision }), true) =
                    (&task, attempts < PATIENCE)
                    && is_unseen(deployment)
                {
                    let again = Task::Get(deployment.key(), Then::Rollback { to_revision: *to_revision });
                    self.tasks.push_front((again, attempts + 1));
                    self.wake = now.mono + PAUSE;
                    return;
                }
                self.follow(task, attempts, response);
                self.send(now, out);
            }
            Err(status) => self.refused(now, task, attempts, status, out),
        }
    }

    fn refused(&mut self, now: Now, task: Task, attempts: u32, status: &Status, out: &mut Vec<ToServer>) {
        let passes = match status.reason {
            Reason::Timeout | Reason::ServerTimeout | Reason::ServiceUnavailable | Reason::InternalError => true,
            Reason::TooManyRequests => true,
            Reason::Conflict => true,
            Reason::NotFound | Reason::Forbidden => attempts < PATIENCE && matches!(task, Task::Apply(_)),
            _ => false,
        };
        match (&task, status.reason) {
            (Task::Apply(object), Reason::AlreadyExists) => {
                let get = Task::Get(object.key(), Then::Replace(object.clone()));
                *self.tasks.front_mut().expect("the task is still there") = (get, attempts + 1);
                self.send(now, out);
            }
            (Task::Replace(object, _), Reason::Conflict) => {
                let get = Task::Get(object.key(), Then::Replace(object.clone()));
                *self.tasks.front_mut().expect("the task is still there") = (get, attempts + 1);
                self.retry(now, PAUSE);
            }
            (Task::Call(call), Reason::Conflict) if matches!(**call, Call::Patch { .. }) && attempts < 5 => {
                self.retry(now, PAUSE);
            }
            // What is to be deleted or evicted is gone already.
            (Task::Call(call), Reason::NotFound | Reason::Conflict)
                if matches!(**call, Call::Delete { .. } | Call::Evict { .. }) =>
            {
                self.tasks.pop_front();
                self.send(now, out);
            }
            _ if passes => self.retry(now, PAUSE),
            _ => {
                self.tasks.pop_front();
                self.done.push(Done { what: describe(&task), error: Some(status.message.to_string()) });
                self.send(now, out);
            }
        }
    }

    /// Goes on with what was read; a task without a sequel is done.
    fn follow(&mut self, task: Task, attempts: u32, response: &Response) {
        let then = match &task {
            Task::Get(_, then) | Task::List(_, _, _, then) => then.clone(),
            Task::Apply(_) | Task::Replace(..) | Task::Call(_) => {
                self.done.push(Done { what: describe(&task), error: None });
                return;
            }
        };
        let next = match (then, response) {
            (Then::Replace(object), Response::Object(current)) => Ok(vec![Task::Replace(object, current.rv())]),
            (Then::SetImage { container, image }, Response::Object(current)) => {
                set_image(current, &container, &image).map(|t| vec![t])
            }
            (Then::Rollback { to_revision }, Response::Object(current)) => {
                let then = Then::Undo { deployment: Box::new(current.clone()), to_revision };
                let namespace = Rc::from(current.namespace());
                Ok(vec![Task::List(Kind::REPLICA_SET, namespace, FieldSelector::everything(), then)])
            }
            (Then::Undo { deployment, to_revision }, Response::List { items, .. }) => {
                undo(&deployment, items, to_revision)
            }
            (Then::Evict { node }, Response::List { items, .. }) => Ok(evictions(items, &node)),
            (then, response) => panic!("{then:?} does not follow from {response:?}"),
        };
        match next {
            Ok(tasks) => {
                for task in tasks.into_iter().rev() {
                    // A rollback counts its tries over all its steps.
                    let attempts = if matches!(task, Task::List(_, _, _, Then::Undo { .. })) { attempts } else { 0 };
                    self.tasks.push_front((task, attempts));
                }
            }
            Err(error) => self.done.push(Done { what: describe(&task), error: Some(error) }),
        }
    }
}

fn cordon(node: &str, cordoned: bool) -> Task {
    let key = ObjectKey::new(Kind::NODE, "", node);
    patch_task(&key, Patch::Strategic(json!({"spec": {"unschedulable": cordoned}})))
}

fn pods_of(node: &str) -> Task {
    let fields = FieldSelector::equal("spec.nodeName", node);
    Task::List(Kind::POD, Rc::from(""), fields, Then::Evict { node: node.to_owned() })
}

fn patch_task(key: &ObjectKey, patch: Patch) -> Task {
    Task::Call(Box::new(Call::Patch {
        key: key.clone(),
        patch,
        subresource: Subresource::None,
        precondition: Precondition::default(),
        options: WriteOptions::default(),
    }))
}

fn set_image(current: &Object, container: &str, image: &str) -> Result<Task, String> {
    let value = current.to_json();
    let containers = value.pointer("/spec/template/spec/containers").and_then(|c| c.as_array());
    let index = containers.into_iter().flatten().position(|c| container == "*" || c["name"] == container);
    let index = index.ok_or_else(|| format!("unable to find container named {container:?}"))?;
    let path = format!("/spec/template/spec/containers/{index}/image");
    Ok(patch_task(&current.key(), Patch::Json(json!([{"op": "replace", "path": path, "value": image}]))))
}

/// Whether the controller has not seen a Deployment's newest template yet: what to roll back to cannot be told.
/// Somebody at a terminal waits for the rollout to begin.
fn is_unseen(deployment: &Object) -> bool {
    matches!(deployment, Object::Deployment(d) if d.status.observed_generation < d.meta.generation)
}

fn undo(deployment: &Object, items: &[Object], to_revision: Option<i64>) -> Result<Vec<Task>, String> {
    let Object::Deployment(d) = deployment else { return Err(format!("{} cannot be rolled back", deployment.kind())) };
    let sets = items.iter().filter_map(|o| match o {
        Object::ReplicaSet(rs) => Some(rs),
        _ => None,
    });
    let patch = skeg_core::controllers::deployment::rollback_patch(d, sets, to_revision)?;
    Ok(vec![patch_task(&deployment.key(), patch)])
}

/// Evicts what is left on a node, and looks again, until nothing is.
fn evictions(items: &[Object], node: &str) -> Vec<Task> {
    let of_daemon = |o: &Object| skeg_core::object::controller_of(o.meta()).is_some_and(|c| c.kind == "DaemonSet");
    let left: Vec<&Object> = items.iter().filter(|o| !of_daemon(o)).collect();
    if left.is_empty() {
        return Vec::new();
    }
    let evict = |o: &&Object| {
        let precondition = Precondition { uid: Some(Rc::from(o.uid())), rv: None };
        let options = DeleteOptions { precondition, ..DeleteOptions::default() };
        Task::Call(Box::new(Call::Evict { pod: o.key(), options }))
    };
    left.iter().filter(|o| !o.is_deleting()).map(evict).chain([pods_of(node)]).collect()
}

fn describe(task: &Task) -> String {
    match task {
        Task::Apply(o) | Task::Replace(o, _) => format!("apply {}", o.key()),
        Task::Get(key, _) => format!("change {key}"),
        Task::List(kind, ..) => format!("list {kind}"),
        Task::Call(call) => match &**call {
            Call::Delete { key, .. } => format!("delete {key}"),
            Call::SetScale { key, replicas, .. } => format!("scale {key} to {replicas}"),
            Call::Patch { key, .. } => format!("patch {key}"),
            Call::Evict { pod, .. } => format!("evict {pod}"),
            other => format!("{other:?}"),
        },
    }
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
            FromServer::Reply(id, result) if self.in_flight.is_some_and(|(f, _)| f == id) => {
                self.answer(now, &result, out);
            }
            FromServer::Reply(..) | FromServer::Watch(..) => {}
            FromServer::Disconnected => {
                if self.in_flight.is_some() {
                    self.retry(now, PAUSE);
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Now, out: &mut Vec<ToServer>) {
        for update in &mut self.updates {
            update.machine.handle_timeout(now, out);
        }
        self.tend_updates(now);
        if self.in_flight.is_some_and(|(_, until)| until <= now.mono) {
            self.retry(now, Duration::ZERO);
        }
        if self.in_flight.is_none() && !self.tasks.is_empty() && self.wake <= now.mono {
            // A drain looks again after a while, not at once.
            if matches!(self.tasks.front(), Some((Task::List(_, _, _, Then::Evict { .. }), _))) {
                self.wake = now.mono + PAUSE;
            }
            self.send(now, out);
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let mut next = match self.in_flight {
            Some((_, until)) => Some(Deadline { at: until, why: "give up a request" }),
            None if self.tasks.is_empty() => None,
            None => Some(Deadline { at: self.wake, why: "next call" }),
        };
        for update in &self.updates {
            next = Deadline::earlier(next, update.machine.poll_timeout());
            next = Deadline::earlier(next, update.rollback_at.map(|at| Deadline { at, why: "roll back" }));
        }
        next
    }
}
