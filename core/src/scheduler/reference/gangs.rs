//! Naive pod groups: who waits for whom, and whether a gang is placed.

use serde_json::{Value, json};

use super::naive::{Naive, World};
use super::{Play, pick};
use crate::object::{Kind, Object, ObjectKey};
use crate::scheduler::pod_groups::{GangDecision, Tried};
use proptest::prelude::*;

/// A group's namespace and name.
pub type Name = (String, String);

/// A group of this name, in this namespace, gets this policy: a least number of pods, or none; or it goes.
#[derive(Clone, Debug)]
pub struct Change(&'static str, &'static str, Option<Option<usize>>);

const NAMES: [&str; 2] = ["g", "h"];

/// The group that a pod is drawn to name: mostly none.
pub fn of_pod() -> BoxedStrategy<Option<&'static str>> {
    prop_oneof![3 => Just(None), 1 => pick(&NAMES).prop_map(Some)].boxed()
}

pub fn change() -> BoxedStrategy<Change> {
    let policy = prop_oneof![1 => Just(None), 1 => Just(Some(None)), 5 => (1..5usize).prop_map(|n| Some(Some(n)))];
    (pick(&super::NAMESPACES), pick(&NAMES), policy).prop_map(|(ns, name, policy)| Change(ns, name, policy)).boxed()
}

impl World {
    fn group(pod: &Naive) -> Option<Name> {
        let name = pod.pod.spec.scheduling_group.as_ref()?.pod_group_name.clone()?;
        Some((pod.pod.namespace().to_owned(), name))
    }

    fn members<'a>(&'a self, group: &'a Name) -> impl Iterator<Item = &'a Naive> {
        let known = |p: &&Naive| p.on.is_some() || self.profile(&p.pod).is_some();
        self.pods.values().filter(|p| World::group(p).as_ref() == Some(group)).filter(known)
    }

    /// How many pods of its gang are to be placed at least, if a pod is of one.
    pub fn gang(&self, pod: &Naive) -> Option<usize> {
        self.groups.get(&World::group(pod)?).copied().flatten()
    }

    /// Whether a pod's group is not there, or is a gang that lacks pods.
    pub fn waits_for_group(&self, pod: &Naive) -> bool {
        let Some(group) = World::group(pod) else { return false };
        match self.groups.get(&group) {
            None => true,
            Some(None) => false,
            Some(Some(least)) => self.members(&group).count() < *least,
        }
    }

    /// The pods of a group that wait, in the order in which they are tried.
    fn waiting(&self, group: &Name) -> Vec<String> {
        let waits = |p: &&Naive| p.on.is_none() && !self.waits_for_claims(p);
        let mut all: Vec<&Naive> = self.members(group).filter(waits).collect();
        let number = |p: &Naive| p.pod.name()[1..].parse::<u32>().unwrap();
        all.sort_by_key(|p| (-p.priority, number(p)));
        all.into_iter().map(|p| p.pod.name().to_owned()).collect()
    }

    /// Why a pod of a gang fits nowhere.
    fn unfit_in_gang(&self, pod: &Naive) -> String {
        // Without the preemption that others may do.
        let mut reasons = std::collections::BTreeMap::<String, u32>::new();
        for node in self.nodes.values() {
            let (said, _) = self.refusal(pod, node).expect("no node is feasible");
            said.into_iter().for_each(|reason| *reasons.entry(reason).or_default() += 1);
        }
        if self.nodes.is_empty() {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut counted: Vec<String> = reasons.into_iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        counted.sort();
        let before = self.refused(pod).or_else(|| self.devices_refused(pod));
        let said = match self.named_only(&pod.pod) {
            Some(names) if names.is_empty() => "pod affinity terms conflict".to_owned(),
            Some(_) | None => before.unwrap_or_else(|| counted.join(", ")),
        };
        let preempts = self.profile(&pod.pod).unwrap().preempts;
        let after = if preempts { " preemption: pods of a gang do not preempt yet" } else { "" };
        format!("0/{} nodes are available: {said}.{after}", self.nodes.len())
    }
}

impl Play {
    pub fn change_group(&mut self, Change(namespace, name, policy): &Change) {
        let key = ObjectKey::new(Kind::POD_GROUP, namespace, name);
        let group = ((*namespace).to_owned(), (*name).to_owned());
        let object = policy.map(|policy| {
            let policy = policy.map_or(json!({"basic": {}}), |least| json!({"gang": {"minCount": least}}));
            let value: Value = json!({"apiVersion": "scheduling.k8s.io/v1alpha2", "kind": "PodGroup",
                "metadata": {"name": name, "namespace": namespace}, "spec": {"schedulingPolicy": policy}});
            Object::from_json(value).unwrap()
        });
        self.s.pod_group_changed(self.now, &key, object.as_ref());
        match policy {
            Some(policy) => self.world.groups.insert(group, *policy),
            None => self.world.groups.remove(&group),
        };
    }

    /// Checks what was decided about a gang, step by step, and does the same.
    pub fn check_gang(&mut self, decision: &GangDecision) {
        let group: Name = (decision.group.namespace().to_owned(), decision.group.name().to_owned());
        let least = self.world.groups[&group].expect("only a gang is tried as one");
        let there = self.world.members(&group).filter(|p| p.on.is_some()).count();
        assert!(self.world.members(&group).count() >= least, "{group:?} lacks pods");
        let names: Vec<&str> = decision.tried.iter().map(|t| t.pod.name()).collect();
        let waiting = self.world.waiting(&group);
        // A pod whose claims have gone again since may be tried as well.
        let all_there = |name: &&&str| !self.world.waits_for_claims(&self.world.pods[**name]);
        assert_eq!(names.iter().filter(all_there).copied().collect::<Vec<_>>(), waiting, "{group:?}");
        let schedulers = names.iter().map(|n| self.world.pods[*n].pod.spec.scheduler_name.clone());
        if schedulers.collect::<std::collections::BTreeSet<_>>().len() > 1 {
            assert!(!decision.placed && decision.message.contains("should have the same .spec.schedulerName"));
            return;
        }
        for tried in &decision.tried {
            self.check_tried(tried);
        }
        let fits = decision.tried.iter().filter(|tried| tried.outcome.is_ok()).count();
        assert_eq!(decision.placed, fits > 0 && there + fits >= least, "{group:?}: {there} + {fits} of {least}");
        if !decision.placed {
            let told = format!("minCount ({least}) cannot be satisfied: {} scheduled, 0 remaining", there + fits);
            assert_eq!(decision.message, told);
            for name in names {
                let p = self.world.pods.get_mut(name).unwrap();
                p.on = None;
                p.steps.clear();
                p.allocations.clear();
                p.pod.meta_mut().annotations = p.annotations.clone();
            }
        }
    }

    fn check_tried(&mut self, tried: &Tried) {
        let name = tried.pod.name();
        let p = self.world.pods.get_mut(name).unwrap();
        assert_eq!(tried.cleared, p.nominated.take().is_some(), "{name}");
        let p = &self.world.pods[name];
        let best = self.world.best(p);
        match &tried.outcome {
            Ok(place) => {
                assert!(best.contains(&*place.node), "{name}: chose {}, best are {best:?}", place.node);
                let slot = |node: &str| self.s.nodes().slot(node);
                let first = best.iter().min_by_key(|node| slot(node)).map(String::as_str);
                assert!(first == Some(&*place.node) || self.world.draws(p), "{name}: {} is not the first", place.node);
                self.check_steps(name, &place.node, &place.volumes);
                self.check_claims(name, &place.node, &place.claims);
                self.world.check_devices(name, &place.node, &place.devices.to_string());
                self.world.pods.get_mut(name).unwrap().on = Some(place.node.to_string());
            }
            Err(message) => {
                assert!(best.is_empty(), "{name}: {message}, but there are {best:?}");
                assert_eq!(*message, self.world.unfit_in_gang(p), "{name}");
            }
        }
    }
}
