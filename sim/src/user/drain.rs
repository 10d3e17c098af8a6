//! `kubectl drain --ignore-daemonsets --delete-emptydir-data --force`: the node is cordoned, then its pods are evicted
//! side by side. A pod that a budget protects is tried again every five seconds, for as long as it takes, and holds up
//! nobody but the end of the drain.
//!
//! Source: kubectl's `pkg/drain/{drain,filters}.go`. Of several nodes, each is drained by a kubectl of its own.

use std::rc::Rc;
use std::time::Duration;

use serde_json::json;

use skeg_core::api::{Patch, Reason, Status};
use skeg_core::object::{FieldSelector, Kind, Object, ObjectKey, controller_of, is_pod_terminal};

use super::command::{Next, Task, Then, patch_task};

/// How long kubectl waits after a budget's refusal.
const RETRY: Duration = Duration::from_secs(5);
/// The annotation of a static pod's copy at the API.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod that a drain evicts.
#[derive(Clone, Debug)]
pub(super) struct Victim {
    pub(super) node: Rc<str>,
    pub(super) pod: ObjectKey,
    pub(super) uid: Rc<str>,
}

/// `kubectl cordon` and `uncordon`.
pub(super) fn cordon(node: &str, cordoned: bool) -> Task {
    let key = ObjectKey::new(Kind::NODE, "", node);
    patch_task(&key, Patch::Strategic(json!({"spec": {"unschedulable": cordoned}})))
}

/// The tasks of one node's drain.
pub(super) fn tasks(node: &str) -> [Task; 2] {
    let fields = FieldSelector::equal("spec.nodeName", node);
    [cordon(node, true), Task::List(Kind::POD, Rc::from(""), fields, Then::Drain { node: Rc::from(node) })]
}

/// An eviction for each pod of the node that a drain does not leave alone.
pub(super) fn evictions(pods: &[Object], node: &Rc<str>) -> Vec<Task> {
    let evict = |o: &Object| {
        let victim = Victim { node: Rc::clone(node), pod: o.key(), uid: Rc::from(o.uid()) };
        Task::Evict(victim)
    };
    pods.iter().filter(|o| !is_left_alone(o)).map(evict).collect()
}

/// Pods of DaemonSets would come again at once, and static pods are not the API's to remove. One that has run to its
/// end is evicted whosever it is.
fn is_left_alone(object: &Object) -> bool {
    let Object::Pod(pod) = object else { return true };
    let mirror = pod.meta.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR));
    let of_daemon = controller_of(&pod.meta).is_some_and(|c| c.kind == "DaemonSet");
    mirror || (of_daemon && !is_pod_terminal(pod))
}

/// What follows from a refusal (`evictPods`).
pub(super) fn refused(task: &Task, status: &Status) -> Next {
    match (task, status.reason) {
        // It is gone, or another pod has its name by now.
        (_, Reason::NotFound | Reason::Conflict) => Next::Done(Vec::new(), None),
        (Task::Evict(_), Reason::TooManyRequests) => Next::Again(RETRY),
        // In a namespace that is going away a pod is deleted without us.
        (Task::Evict(victim), Reason::Forbidden) if status.message.contains("is being terminated") => {
            Next::Instead(Task::AwaitGone(victim.clone()), RETRY)
        }
        (Task::AwaitGone(_), Reason::TooManyRequests | Reason::InternalError) => Next::Again(RETRY),
        _ => Next::Refused(words(status)),
    }
}

/// A refusal with its cause, which names the budget.
pub(super) fn words(status: &Status) -> String {
    let causes = status.details.iter().flat_map(|d| &d.causes).filter(|c| c.reason == "DisruptionBudget");
    let texts: Vec<&str> = causes.map(|c| c.message.as_str()).collect();
    [&*status.message].into_iter().chain(texts).collect::<Vec<_>>().join(" ")
}
