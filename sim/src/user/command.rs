//! One command of a user, carried out as kubectl does: a sequence of tasks, each of one or two requests.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use serde_json::json;

use skeg_core::api::{
    Call, DeleteOptions, ListOptions, Patch, Precondition, Reason, ReqId, Response, Status, Subresource, WriteOptions,
};
use skeg_core::object::{FieldSelector, Kind, Object, ObjectKey, Revision};
use skeg_core::{Mono, Now};

use super::{PATIENCE, PAUSE, apply, drain, rollout, taint};

/// How often the restore of an exported object is retried before other objects are allowed to overtake it, if its
/// service account or namespace does not exist yet.
const MOMENTS: u32 = 10;

/// One step of a command, about one request.
#[derive(Clone, Debug)]
pub(super) enum Task {
    /// `kubectl apply`: gets the object.
    Apply(Rc<Object>),
    /// Creates the object, which does not exist.
    Create(Rc<Object>),
    /// Patches the existing object to match the file.
    Change(Rc<Object>, serde_json::Value),
    /// Creates an object of an export as it was.
    Restore(Rc<Object>),
    /// Replaces an existing object with the one in the export.
    Replace(Rc<Object>, Revision),
    Get(ObjectKey, Then),
    List(Kind, Rc<str>, FieldSelector, Then),
    /// Evicts a pod.
    Evict(drain::Victim),
    /// Waits until the pod is gone.
    AwaitGone(drain::Victim),
    Call(Box<Call>),
    /// A write that is right only for the object as it was read; if it has changed, it is read again.
    Guarded {
        write: Box<Call>,
        read: Box<Task>,
    },
}

/// What to do with an object or list that was read.
#[derive(Clone, Debug)]
pub(super) enum Then {
    Replace(Rc<Object>),
    SetImage {
        container: String,
        image: String,
    },
    Restart {
        stamp: String,
    },
    Rollback {
        to_revision: Option<i64>,
    },
    Undo {
        deployment: Box<Object>,
        to_revision: Option<i64>,
    },
    Drain {
        node: Rc<str>,
    },
    Taint {
        taint: Box<Taint>,
        removed: bool,
    },
    /// Wait until the object is gone that is being deleted.
    AwaitDeleted,
}

/// What to do after a reply.
pub(super) enum Next {
    /// The first task is done, and these tasks follow it. The text is for the report.
    Done(Vec<Task>, Option<String>),
    /// The first task is done, and each of these tasks becomes a separate command.
    Spawn(Vec<Task>),
    /// Retry the same task after a delay.
    Again(Duration),
    /// Replace the first task by this one after a delay. Its number of attempts is kept.
    Instead(Task, Duration),
    /// The first task becomes a separate command that continues after a delay, so that the tasks after it need not
    /// wait.
    Apart(Duration),
    /// Rejected permanently, with this message.
    Refused(String),
}

/// A command in progress.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) tasks: VecDeque<Task>,
    /// How many attempts of the first task have failed.
    pub(super) tries: u32,
    /// The API's message at the last rejection of the first task.
    pub(super) refusal: Option<String>,
    pub(super) in_flight: Option<(ReqId, Mono)>,
    /// Whether what the request in flight acts on was still being declared when it was sent.
    pub(super) is_early: bool,
    pub(super) wake: Mono,
}

impl Command {
    pub(super) fn new(tasks: impl IntoIterator<Item = Task>, wake: Mono) -> Command {
        let tasks = tasks.into_iter().collect();
        Command { tasks, tries: 0, refusal: None, in_flight: None, is_early: false, wake }
    }

    /// When it must be woken.
    pub(super) fn due(&self) -> (Mono, &'static str) {
        self.in_flight.map_or((self.wake, "next call"), |(_, until)| (until, "give up a request"))
    }

    /// What its first task is waiting for; for the report of a run that ends before it is done.
    pub(super) fn waiting(&self) -> Option<(String, String)> {
        let task = self.tasks.front()?;
        let why = match (&self.refusal, task) {
            (Some(why), _) => why.clone(),
            (None, Task::AwaitGone(_)) => "it is evicted, and not gone yet".to_owned(),
            (None, Task::Get(_, Then::AwaitDeleted)) => "it is deleted, and not gone yet".to_owned(),
            (None, Task::Get(_, Then::Rollback { .. })) => "its controller has not seen the last change".to_owned(),
            (None, _) => "there is no answer yet".to_owned(),
        };
        Some((task.describe(), why))
    }
}

impl Task {
    /// The API call of its first task.
    pub(super) fn call(&self) -> Call {
        let options = WriteOptions::default();
        match self {
            Task::Apply(object) => Call::Get { key: object.key(), rv: None },
            Task::Create(object) => Call::Create { object: apply::to_create(object), options },
            Task::Change(object, patch) => patch_call(&object.key(), Patch::Strategic(patch.clone())),
            Task::Restore(object) => Call::Create { object: (**object).clone(), options },
            Task::Replace(object, rv) => {
                let mut object = (**object).clone();
                object.set_rv(*rv);
                Call::Update { object, subresource: Subresource::None, options }
            }
            Task::Get(key, _) => Call::Get { key: key.clone(), rv: None },
            Task::List(kind, namespace, fields, _) => {
                let options = ListOptions { fields: fields.clone(), ..ListOptions::default() };
                Call::List { kind: *kind, namespace: Rc::clone(namespace), options }
            }
            Task::Evict(victim) => {
                let precondition = Precondition { uid: Some(Rc::clone(&victim.uid)), rv: None };
                let options = DeleteOptions { precondition, ..DeleteOptions::default() };
                Call::Evict { pod: victim.pod.clone(), options }
            }
            Task::AwaitGone(victim) => Call::Get { key: victim.pod.clone(), rv: None },
            Task::Call(call) | Task::Guarded { write: call, .. } => (**call).clone(),
        }
    }

    /// Describes the command for the report.
    pub(super) fn describe(&self) -> String {
        match self {
            Task::Apply(o) | Task::Create(o) | Task::Change(o, _) => format!("apply {}", o.key()),
            Task::Restore(o) | Task::Replace(o, _) => format!("create {}", o.key()),
            Task::Get(key, Then::Replace(_)) => format!("create {key}"),
            Task::Get(key, Then::SetImage { .. }) => format!("set image of {key}"),
            Task::Get(key, Then::Restart { .. }) => format!("restart {key}"),
            Task::Get(key, Then::AwaitDeleted) => format!("delete {key}"),
            Task::Get(key, Then::Taint { .. }) => format!("taint {key}"),
            Task::Guarded { read, .. } => read.describe(),
            Task::Get(key, _) => format!("roll {key} back"),
            Task::List(_, _, _, Then::Drain { node }) => format!("drain {node}"),
            Task::List(kind, ..) => format!("list {kind}"),
            Task::Evict(victim) | Task::AwaitGone(victim) => format!("drain {}: evict {}", victim.node, victim.pod),
            Task::Call(call) => match &**call {
                Call::Delete { key, .. } => format!("delete {key}"),
                Call::SetScale { key, replicas, .. } => format!("scale {key} to {replicas}"),
                Call::Patch { key, .. } => format!("patch {key}"),
                other => format!("{other:?}"),
            },
        }
    }

    /// The key of the object that it declares, if any.
    pub(super) fn declares(&self) -> Option<ObjectKey> {
        match self {
            Task::Apply(o) | Task::Create(o) | Task::Change(o, _) | Task::Restore(o) | Task::Replace(o, _) => {
                Some(o.key())
            }
            Task::Get(key, Then::Replace(_)) => Some(key.clone()),
            Task::Get(..) | Task::List(..) | Task::Evict(_) | Task::AwaitGone(_) => None,
            Task::Call(_) | Task::Guarded { .. } => None,
        }
    }

    /// The key of the existing object that it acts on, if any.
    pub(super) fn acts_on(&self) -> Option<&ObjectKey> {
        match self {
            // It waits for the end of what its own command deletes, whoever else declares it.
            Task::Get(_, Then::AwaitDeleted) => None,
            Task::Get(key, _) => Some(key),
            Task::Call(call) => match &**call {
                Call::SetScale { key, .. } | Call::Patch { key, .. } => Some(key),
                _ => None,
            },
            Task::Apply(_) | Task::Create(_) | Task::Change(..) | Task::Restore(_) | Task::Replace(..) => None,
            Task::List(..) | Task::Evict(_) | Task::AwaitGone(_) => None,
            Task::Guarded { read, .. } => read.acts_on(),
        }
    }

    /// The node whose taints it changes, and whether it removes one.
    pub(super) fn taints(&self) -> Option<(&ObjectKey, bool)> {
        match self {
            Task::Get(node, Then::Taint { removed, .. }) => Some((node, *removed)),
            Task::Guarded { read, .. } => read.taints(),
            _ => None,
        }
    }

    /// Handles a successful reply.
    pub(super) fn answered(&self, response: &Response) -> Next {
        let then = match (self, response) {
            (Task::Apply(object), Response::Object(live)) => {
                return match apply::to_patch(object, live) {
                    Ok(Some(patch)) => Next::Instead(Task::Change(Rc::clone(object), patch), Duration::ZERO),
                    Ok(None) => Next::Done(Vec::new(), Some(format!("{}: unchanged", self.describe()))),
                    Err(why) => Next::Refused(why),
                };
            }
            (Task::Evict(victim), _) => {
                return Next::Done(vec![Task::AwaitGone(victim.clone())], Some(self.describe()));
            }
            (Task::AwaitGone(victim), Response::Object(live)) if live.uid() == &*victim.uid => {
                return Next::Again(PAUSE);
            }
            (Task::AwaitGone(_), _) => return Next::Done(Vec::new(), None),
            (Task::Get(_, then) | Task::List(_, _, _, then), _) => then,
            (
                Task::Apply(_)
                | Task::Create(_)
                | Task::Change(..)
                | Task::Restore(_)
                | Task::Replace(..)
                | Task::Call(_)
                | Task::Guarded { .. },
                _,
            ) => return Next::Done(Vec::new(), Some(self.describe())),
        };
        let next = match (then, response) {
            (Then::AwaitDeleted, Response::Object(live)) if live.is_deleting() => return Next::Again(PAUSE),
            (Then::AwaitDeleted, _) => return Next::Done(Vec::new(), None),
            (Then::Replace(object), Response::Object(live)) => Ok(vec![Task::Replace(Rc::clone(object), live.rv())]),
            (Then::SetImage { container, image }, Response::Object(live)) => set_image(live, container, image),
            (Then::Taint { taint, removed }, Response::Object(live)) => {
                taint::change(live, taint, *removed).map(|write| {
                    write
                        .map(|write| Task::Guarded { write: Box::new(write), read: Box::new(self.clone()) })
                        .into_iter()
                        .collect()
                })
            }
            (Then::Restart { stamp }, Response::Object(live)) => rollout::restart(live, stamp),
            (Then::Rollback { to_revision }, Response::Object(live)) => {
                let then = Then::Undo { deployment: Box::new(live.clone()), to_revision: *to_revision };
                let task = Task::List(Kind::REPLICA_SET, Rc::from(live.namespace()), FieldSelector::everything(), then);
                return Next::Instead(task, Duration::ZERO);
            }
            (Then::Undo { deployment, to_revision }, Response::List { items, .. })
                if rollout::is_unseen(deployment, items) =>
            {
                let again = Task::Get(deployment.key(), Then::Rollback { to_revision: *to_revision });
                return Next::Instead(again, PAUSE);
            }
            (Then::Undo { deployment, to_revision }, Response::List { items, .. }) => {
                rollout::undo(deployment, items, *to_revision)
            }
            (Then::Drain { node }, Response::List { items, .. }) => return Next::Spawn(drain::evictions(items, node)),
            (then, response) => panic!("{then:?} does not follow from {response:?}"),
        };
        match next {
            Ok(tasks) => Next::Done(tasks, None),
            Err(why) => Next::Refused(why),
        }
    }

    /// Handles an error. An error that is not the API's decision (overload, lost server) is retried, as a user at a
    /// terminal would.
    pub(super) fn refused(&self, status: &Status, tries: u32) -> Next {
        let unanswered = matches!(status.reason, Reason::Timeout | Reason::ServerTimeout | Reason::ServiceUnavailable);
        let patient = tries < PATIENCE;
        match (self, status.reason) {
            _ if unanswered => Next::Again(PAUSE),
            (Task::Evict(_) | Task::AwaitGone(_), _) => drain::refused(self, status),
            (_, Reason::TooManyRequests) => Next::Again(PAUSE),
            (Task::Apply(object), Reason::NotFound) => Next::Instead(Task::Create(Rc::clone(object)), Duration::ZERO),
            (Task::Create(object), Reason::AlreadyExists) => {
                Next::Instead(Task::Apply(Rc::clone(object)), Duration::ZERO)
            }
            (Task::Change(object, _), Reason::NotFound | Reason::Conflict) if patient => {
                Next::Instead(Task::Apply(Rc::clone(object)), PAUSE)
            }
            (Task::Restore(object), Reason::AlreadyExists) | (Task::Replace(object, _), Reason::Conflict) => {
                let pause = if status.reason == Reason::Conflict { PAUSE } else { Duration::ZERO };
                Next::Instead(Task::Get(object.key(), Then::Replace(Rc::clone(object))), pause)
            }
            // An export is restored in its order, pods before the sets that adopt them: a missing object will exist
            // soon.
            (Task::Restore(_), Reason::NotFound | Reason::Forbidden) if tries < MOMENTS => Next::Again(PAUSE),
            // A namespace or service account that does not exist yet or is still being deleted.
            (Task::Create(_) | Task::Restore(_), Reason::NotFound | Reason::Forbidden | Reason::InternalError)
                if patient =>
            {
                Next::Apart(PAUSE)
            }
            (Task::Get(_, Then::AwaitDeleted), Reason::NotFound) => Next::Done(Vec::new(), None),
            // The object to be deleted is already gone.
            (Task::Call(call), Reason::NotFound) if matches!(**call, Call::Delete { .. }) => {
                Next::Done(Vec::new(), Some(self.describe()))
            }
            (Task::Guarded { read, .. }, Reason::Conflict) => Next::Instead((**read).clone(), PAUSE),
            (_, Reason::Conflict | Reason::InternalError) if patient => Next::Again(PAUSE),
            // Every task can be refused for good, for whatever reason.
            (_, _) => Next::Refused(status.message.to_string()),
        }
    }
}

pub(super) fn patch_call(key: &ObjectKey, patch: Patch) -> Call {
    let (precondition, options) = (Precondition::default(), WriteOptions::default());
    Call::Patch { key: key.clone(), patch, subresource: Subresource::None, precondition, options }
}

pub(super) fn patch_task(key: &ObjectKey, patch: Patch) -> Task {
    Task::Call(Box::new(patch_call(key, patch)))
}

fn set_image(live: &Object, container: &str, image: &str) -> Result<Vec<Task>, String> {
    let value = live.to_json();
    let containers = value.pointer("/spec/template/spec/containers").and_then(|c| c.as_array());
    let index = containers.into_iter().flatten().position(|c| container == "*" || c["name"] == container);
    let index = index.ok_or_else(|| format!("unable to find container named {container:?}"))?;
    let path = format!("/spec/template/spec/containers/{index}/image");
    Ok(vec![patch_task(&live.key(), Patch::Json(json!([{"op": "replace", "path": path, "value": image}])))])
}

/// The time in the format of an annotation: `2026-11-28T12:00:00Z`.
pub(super) fn timestamp(now: Now) -> String {
    let time = serde_json::to_value(now.wall.to_time()).expect("a time is a text");
    time.as_str().expect("a time is a text").to_owned()
}
