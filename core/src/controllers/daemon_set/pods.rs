//! The pods of a DaemonSet: for which node each one is, which ones are surplus, and how a new one is built.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core_v1;

use super::fit::Fit;
use super::{FAILED_POD_BACKOFF, Sync, hash_of};
use crate::client::EventType;
use crate::controllers::EventNote;
use crate::controllers::availability::until_available;
use crate::controllers::claim::controller_ref;
use crate::controllers::history::POD_REVISION_LABEL;
use crate::object::{BoundPodSpec, Node, ObjectMeta, Pod, PodPhase, PodStatus, is_pod_ready};

const NODE_NAME_FIELD: &str = "metadata.name";

/// A set's pods by the node that each one runs on or is meant for.
pub(super) struct PerNode<'a>(BTreeMap<&'a str, Vec<&'a Pod>>);

impl<'a> PerNode<'a> {
    pub(super) fn of(pods: impl Iterator<Item = &'a Pod>) -> PerNode<'a> {
        let mut per_node: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
        for pod in pods {
            if let Some(node) = target(pod) {
                per_node.entry(node).or_default().push(pod);
            }
        }
        per_node.values_mut().for_each(|pods| pods.sort_by_key(|p| seniority(p)));
        PerNode(per_node)
    }

    /// The pods of a node, in the order of `seniority`.
    pub(super) fn on(&self, node: &str) -> &[&'a Pod] {
        self.0.get(node).map_or(&[], Vec::as_slice)
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = &'a Pod> + '_ {
        self.0.values().flatten().copied()
    }

    fn nodes(&self) -> impl Iterator<Item = (&'a str, &[&'a Pod])> {
        self.0.iter().map(|(node, pods)| (*node, pods.as_slice()))
    }
}

/// The sort key of a node's pods: bound pods first, then the oldest first (`podByCreationTimestampAndPhase`).
fn seniority(pod: &Pod) -> (bool, Option<&crate::object::Time>, &str) {
    (pod.spec.node.is_none(), pod.meta.creation_timestamp.as_ref(), pod.name())
}

/// The node that a pod is bound to or, if it is not bound, that its affinity names (`GetTargetNodeName`).
pub fn target(pod: &Pod) -> Option<&str> {
    if let Some(node) = pod.spec.node.as_deref() {
        return Some(node);
    }
    let affinity = pod.spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let fields = terms.iter().flat_map(|t| t.match_fields.iter().flatten());
    let names = fields.filter(|f| f.key == NODE_NAME_FIELD && f.operator == "In");
    names.filter_map(|f| f.values.as_deref()?.first()).map(String::as_str).next()
}

impl<'a> Sync<'a> {
    /// Creates missing pods, and deletes pods that have failed, have finished, are surplus or are on the wrong node.
    pub(super) fn manage(&mut self, fits: &[(&'a Node, Fit)], per_node: &PerNode<'a>, hash: &str) {
        let (mut create, mut delete) = (Vec::new(), Vec::new());
        for (node, fit) in fits {
            let pods = per_node.on(node.name());
            match fit {
                Fit::Runs if pods.is_empty() => create.push(node.name()),
                Fit::Runs | Fit::Stays => {
                    let alive = self.alive(node.name(), pods, &mut delete);
                    if self.surges() {
                        // One that has failed is deleted first, after its back-off.
                        let all_go = pods.iter().all(|p| p.meta.deletion_timestamp.is_some());
                        if all_go && *fit == Fit::Runs {
                            create.push(node.name());
                        }
                        self.prune_surged(&alive, hash, &mut delete);
                    } else {
                        delete.extend(alive.iter().skip(1));
                    }
                }
                Fit::Goes => delete.extend(pods.iter().filter(|p| p.meta.deletion_timestamp.is_none())),
            }
        }
        // If a node was deleted before its pod was bound, the pod can never be scheduled, and no other controller
        // deletes it.
        let known: Vec<&str> = fits.iter().map(|(node, _)| node.name()).collect();
        for (node, pods) in per_node.nodes() {
            if known.binary_search(&node).is_err() {
                let unbound = |p: &&&Pod| p.spec.node.is_none() && p.meta.deletion_timestamp.is_none();
                delete.extend(pods.iter().filter(unbound));
            }
        }
        self.sync_nodes(&delete, &create, hash);
    }

    /// Returns the pods of a node that have not terminated. Adds finished pods to `delete`, and failed ones once their
    /// back-off is over.
    fn alive(&mut self, node: &str, pods: &[&'a Pod], delete: &mut Vec<&'a Pod>) -> Vec<&'a Pod> {
        let mut alive = Vec::new();
        for pod in pods.iter().filter(|p| p.meta.deletion_timestamp.is_none()) {
            let found = |what: &str, will: &str| {
                format!(
                    "Found {what} daemon pod {}/{} on node {node}, will try to {will} it",
                    pod.namespace(),
                    pod.name()
                )
            };
            match pod.status.summary().phase {
                PodPhase::Failed => {
                    if self.may_replace_failed(node) {
                        self.note(EventType::Warning, "FailedDaemonPod", found("failed", "kill"));
                        delete.push(pod);
                    }
                }
                PodPhase::Succeeded => {
                    self.note(EventType::Normal, "SucceededDaemonPod", found("succeeded", "delete"));
                    delete.push(pod);
                }
                PodPhase::Pending | PodPhase::Running | PodPhase::Unknown | PodPhase::Other => alive.push(*pod),
            }
        }
        alive
    }

    fn note(&mut self, type_: EventType, reason: &'static str, message: String) {
        self.plan.events.push(EventNote { about: self.object.clone(), type_, reason, message });
    }

    /// Whether the failed pod of a node may be replaced now. If so, the back-off for the next failure is doubled.
    fn may_replace_failed(&mut self, node: &str) -> bool {
        let (first, most) = FAILED_POD_BACKOFF;
        let key = (self.object.key(), node.to_owned());
        let next = match self.failed.get(&key) {
            Some((wait, since)) if self.now.mono.since(*since) < *wait => {
                let left = *wait - self.now.mono.since(*since);
                self.plan.requeue(left);
                return false;
            }
            Some((wait, since)) if self.now.mono.since(*since) < most * 2 => (*wait * 2).min(most),
            Some(_) | None => first,
        };
        self.failed.insert(key, (next, self.now.mono));
        true
    }

    /// Keeps the oldest pod of the current revision on a node and, as long as that pod is not available, the oldest one
    /// of another revision if it is ready. Adds the others to `delete`.
    fn prune_surged(&mut self, alive: &[&'a Pod], hash: &str, delete: &mut Vec<&'a Pod>) {
        let (new, old): (Vec<&Pod>, Vec<&Pod>) = alive.iter().copied().partition(|p| hash_of(p) == hash);
        delete.extend(new.iter().skip(1).chain(old.iter().skip(1)));
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!is_pod_ready(old) || self.is_available(new))
        {
            delete.push(old);
        }
    }

    /// Whether the pod is ready for `minReadySeconds`. If only time is missing, requeues the key.
    pub(super) fn is_available(&mut self, pod: &Pod) -> bool {
        if !is_pod_ready(pod) {
            return false;
        }
        let left = until_available(pod, self.spec.min_ready_seconds, self.now);
        if let Some(left) = left {
            self.plan.requeue(left);
        }
        left.is_none()
    }

    /// The template's pod spec with the tolerations that every daemon pod gets (`AddOrUpdateDaemonPodTolerations`).
    pub(super) fn pod_spec(&self) -> core_v1::PodSpec {
        let mut spec = core_v1::PodSpec::clone(&self.spec.pod);
        let network = spec.host_network == Some(true);
        let all = [
            ("node.kubernetes.io/not-ready", "NoExecute"),
            ("node.kubernetes.io/unreachable", "NoExecute"),
            ("node.kubernetes.io/disk-pressure", "NoSchedule"),
            ("node.kubernetes.io/memory-pressure", "NoSchedule"),
            ("node.kubernetes.io/pid-pressure", "NoSchedule"),
            ("node.kubernetes.io/unschedulable", "NoSchedule"),
            ("node.kubernetes.io/network-unavailable", "NoSchedule"),
        ];
        let tolerations = spec.tolerations.get_or_insert_default();
        for (key, effect) in all.into_iter().take(if network { 7 } else { 6 }) {
            let toleration = core_v1::Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some(effect.to_owned()),
                ..core_v1::Toleration::default()
            };
            let is_same = |t: &core_v1::Toleration| {
                let plain = t.value.as_deref().unwrap_or("").is_empty();
                plain && t.key == toleration.key && t.effect == toleration.effect && t.operator == toleration.operator
            };
            match tolerations.iter_mut().find(|t| is_same(t)) {
                Some(known) => *known = toleration,
                None => tolerations.push(toleration),
            }
        }
        spec
    }

    /// A pod for a node, with an affinity so that the scheduler binds it to no other node.
    pub(super) fn new_pod(&self, node: &str, hash: &str) -> Pod {
        let of_template = self.spec.template_meta().cloned().unwrap_or_default();
        let mut labels = of_template.labels.unwrap_or_default();
        let annotation = self.object.meta().annotations.as_ref().and_then(|a| a.get(TEMPLATE_GENERATION));
        if let Some(generation) = annotation.filter(|g| g.parse::<i64>().is_ok()) {
            labels.insert("pod-template-generation".to_owned(), generation.clone());
        }
        labels.insert(POD_REVISION_LABEL.to_owned(), hash.to_owned());
        let mut spec = self.pod_spec();
        let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
        affinity.required_during_scheduling_ignored_during_execution = Some(only(node));
        let meta = ObjectMeta {
            generate_name: Some(format!("{}-", self.object.name())),
            namespace: self.object.meta().namespace.clone(),
            labels: Some(labels),
            annotations: of_template.annotations,
            finalizers: of_template.finalizers,
            owner_references: Some(vec![controller_ref(self.object)]),
            ..ObjectMeta::default()
        };
        Pod::new(meta, BoundPodSpec::new(spec), PodStatus::default())
    }
}

/// The annotation in which apps/v1 keeps the former field `spec.templateGeneration`.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn only(node: &str) -> core_v1::NodeSelector {
    let field = core_v1::NodeSelectorRequirement {
        key: NODE_NAME_FIELD.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = core_v1::NodeSelectorTerm { match_expressions: None, match_fields: Some(vec![field]) };
    core_v1::NodeSelector { node_selector_terms: vec![term] }
}
