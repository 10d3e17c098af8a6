//! `kubectl drain --ignore-daemonsets --delete-emptydir-data --force`: cordons the node, then evicts its pods in
//! parallel. If a PodDisruptionBudget protects a pod, its eviction is retried every five seconds without a limit. This
//! delays only the end of the drain, not the other evictions.
//!
//! Source: kubectl's `pkg/drain/{drain,filters}.go`. If several nodes are drained, each is drained by a separate
//! kubectl.

use std::rc::Rc;
use std::time::Duration;

use serde_json::json;

use skeg_core::api::{Patch, Reason, Status};
use skeg_core::object::{FieldSelector, Kind, Object, ObjectKey, controller_of, is_pod_terminal};

use super::command::{Next, Task, Then, patch_task};

/// How long kubectl waits after a budget has rejected an eviction.
const RETRY: Duration = Duration::from_secs(5);
/// The annotation of mirror pods, which represent static pods.
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

/// The tasks of draining one node.
pub(super) fn tasks(node: &str) -> [Task; 2] {
    let fields = FieldSelector::equal("spec.nodeName", node);
    [cordon(node, true), Task::List(Kind::POD, Rc::from(""), fields, Then::Drain { node: Rc::from(node) })]
}

/// An eviction for each pod of the node that a drain must evict.
pub(super) fn evictions(pods: &[Object], node: &Rc<str>) -> Vec<Task> {
    let evict = |o: &Object| {
        let victim = Victim { node: Rc::clone(node), pod: o.key(), uid: Rc::from(o.uid()) };
        Task::Evict(victim)
    };
    pods.iter().filter(|o| !is_left_alone(o)).map(evict).collect()
}

/// Whether a drain skips this pod: DaemonSet pods would be created again at once, and static pods cannot be deleted
/// through the API. A terminated pod is always evicted.
fn is_left_alone(object: &Object) -> bool {
    let Object::Pod(pod) = object else { return true };
    let mirror = pod.meta.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR));
    let of_daemon = controller_of(&pod.meta).is_some_and(|c| c.kind == "DaemonSet");
    mirror || (of_daemon && !is_pod_terminal(pod))
}

/// Handles a rejected eviction (`evictPods`).
pub(super) fn refused(task: &Task, status: &Status) -> Next {
    match (task, status.reason) {
        // The pod is gone, or another pod has its name now.
        (_, Reason::NotFound | Reason::Conflict) => Next::Done(Vec::new(), None),
        (Task::Evict(_), Reason::TooManyRequests) => Next::Again(RETRY),
        // A pod in a terminating namespace is deleted anyway.
        (Task::Evict(victim), Reason::Forbidden) if status.message.contains("is being terminated") => {
            Next::Instead(Task::AwaitGone(victim.clone()), RETRY)
        }
        (Task::AwaitGone(_), Reason::TooManyRequests | Reason::InternalError) => Next::Again(RETRY),
        // Every other reason is for good.
        (_, _) => Next::Refused(words(status)),
    }
}

/// The message of a rejection with its cause, which names the budget.
pub(super) fn words(status: &Status) -> String {
    let causes = status.details.iter().flat_map(|d| &d.causes).filter(|c| c.reason == "DisruptionBudget");
    let texts: Vec<&str> = causes.map(|c| c.message.as_str()).collect();
    [&*status.message].into_iter().chain(texts).collect::<Vec<_>>().join(" ")
}
