//! HTTP extenders: servers outside that refuse and score nodes for pods, have a say in preemption, and bind pods.
//!
//! [`Extender`] is what a KubeSchedulerConfiguration says of one; how it is reached (TLS) is its driver's. This file
//! makes the questions and reads the answers; [`asked`](super::asked) is what answers mean for a pod that waits for
//! them. Sources: `pkg/scheduler/extender.go`, `k8s.io/kube-scheduler/extender/v1`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PodSpec;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::framework::MAX_NODE_SCORE;

/// `MaxExtenderPriority`.
const MAX_PRIORITY: i64 = 10;

/// How long an extender may take where its configuration does not say (`DefaultExtenderTimeout`).
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// What Go says of an answer that has not come in time.
pub const TIMED_OUT: &str = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";

/// An extender (`Extender` of `kubescheduler.config.k8s.io/v1`, with its defaults filled in). An empty verb is one that
/// it does not serve.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Extender {
    /// Where it is: the beginning of its URLs.
    pub url_prefix: String,
    /// Refuses nodes.
    pub filter_verb: String,
    /// Scores nodes.
    pub prioritize_verb: String,
    /// Chooses among victims.
    pub preempt_verb: String,
    /// Binds pods.
    pub bind_verb: String,
    /// What its scores are multiplied by.
    pub weight: i64,
    /// How long it may take.
    pub timeout: Duration,
    /// Whether it knows the nodes, so that names are enough.
    pub node_cache_capable: bool,
    /// The resources for whose sake it is asked; empty for every pod.
    pub managed_resources: Vec<String>,
    /// Whether pods are scheduled without it where it fails.
    pub ignorable: bool,
}

/// What an extender is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Verb {
    /// `filterVerb`.
    Filter,
    /// `prioritizeVerb`.
    Prioritize,
    /// `preemptVerb`.
    Preempt,
    /// `bindVerb`.
    Bind,
}

/// A question to an extender, which the driver posts as JSON.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Question {
    /// The number of the extender among those that are configured.
    pub extender: usize,
    /// What it is asked for.
    pub verb: Verb,
    /// How it calls that: the last part of the URL.
    pub action: String,
    /// Where to post it.
    pub url: String,
    /// How long the driver may wait. The scheduler does not wait longer.
    pub timeout: Duration,
    /// What to post.
    pub body: Value,
}

/// Why an extender refuses a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Its words.
    pub why: Rc<str>,
    /// Whether no eviction could help.
    pub unresolvable: bool,
}

/// What extenders have said about nodes for a pod.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Opinion {
    /// The nodes that they were asked about.
    pub asked: BTreeSet<Rc<str>>,
    /// Those of them that none has refused.
    pub passed: BTreeSet<Rc<str>>,
    /// Why others were refused, where they have said so.
    pub refused: BTreeMap<Rc<str>, Refused>,
    /// What nodes score with them, weighed.
    pub scores: BTreeMap<Rc<str>, i64>,
}

/// A node with the pods that would be evicted there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The node.
    pub node: Rc<str>,
    /// The UIDs of the victims.
    pub victims: Vec<Rc<str>>,
    /// How many of them their disruption budgets protect.
    pub violations: i64,
}

/// What an extender says to a list of nodes.
#[derive(Debug, PartialEq, Eq)]
pub struct Filtered {
    /// The nodes that it does not refuse.
    pub passed: BTreeSet<Rc<str>>,
    /// Why it refuses others.
    pub refused: BTreeMap<Rc<str>, Refused>,
}

impl Extender {
    /// How a verb is called there; empty if it is not served.
    pub fn verb(&self, verb: Verb) -> &str {
        match verb {
            Verb::Filter => &self.filter_verb,
            Verb::Prioritize => &self.prioritize_verb,
            Verb::Preempt => &self.preempt_verb,
            Verb::Bind => &self.bind_verb,
        }
    }

    /// Whether it is asked about pods of this spec for a verb.
    pub fn serves(&self, verb: Verb, spec: &PodSpec) -> bool {
        !self.verb(verb).is_empty() && self.is_interested(spec)
    }

    /// Whether a container asks for one of its resources (`IsInterested`).
    fn is_interested(&self, spec: &PodSpec) -> bool {
        if self.managed_resources.is_empty() {
            return true;
        }
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let lists = containers.filter_map(|c| c.resources.as_ref()).flat_map(|r| [&r.requests, &r.limits]);
        let mut asked = lists.flatten().flat_map(|list| list.keys());
        asked.any(|name| self.managed_resources.contains(name))
    }

    /// A question.
    pub fn question(&self, number: usize, verb: Verb, body: Value) -> Question {
        let path = self.verb(verb);
        let url = format!("{}/{path}", self.url_prefix.trim_end_matches('/'));
        Question { extender: number, verb, action: path.to_owned(), url, timeout: self.timeout, body }
    }

    /// Reads the answer to [`Verb::Filter`] about these nodes.
    pub fn filtered(&self, answer: &Value, asked: &BTreeSet<Rc<str>>) -> Result<Filtered, String> {
        said_error(answer)?;
        let names = match (field(answer, "NodeNames"), field(answer, "Nodes")) {
            (Some(names), _) if self.node_cache_capable => texts(names, "NodeNames")?,
            (_, Some(nodes)) => {
                let items = field(nodes, "items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                let name = |node: &Value| node["metadata"]["name"].as_str().map(str::to_owned);
                let names: Option<Vec<String>> = items.iter().map(name).collect();
                names.ok_or("invalid answer: a node of Nodes has no name")?
            }
            (_, None) => Vec::new(),
        };
        let mut passed = BTreeSet::new();
        for name in names {
            let known = asked.get(name.as_str()).ok_or_else(|| {
                let url = &self.url_prefix;
                format!("extender {url:?} claims a filtered node {name:?} which is not found in the input node list")
            })?;
            passed.insert(Rc::clone(known));
        }
        let mut refused = BTreeMap::new();
        // What is said last counts: that no eviction helps takes precedence.
        for (key, unresolvable) in [("FailedNodes", false), ("FailedAndUnresolvableNodes", true)] {
            for (node, why) in failed(answer, key)? {
                refused.insert(node, Refused { why, unresolvable });
            }
        }
        refused.retain(|node, _| asked.contains(node) && !passed.contains(node));
        Ok(Filtered { passed, refused })
    }

    /// Reads the answer to [`Verb::Prioritize`]: what nodes score, weighed, on the scheduler's scale.
    pub fn prioritized(&self, answer: &Value) -> Result<BTreeMap<Rc<str>, i64>, String> {
        let wrong = || "invalid answer: it is no list of hosts and scores".to_owned();
        let mut scores = BTreeMap::new();
        for host in answer.as_array().ok_or_else(wrong)? {
            let name = field(host, "Host").and_then(Value::as_str).unwrap_or_default();
            let score = field(host, "Score").map_or(Some(0), Value::as_i64).ok_or_else(wrong)?;
            let weighed = score.saturating_mul(self.weight).saturating_mul(MAX_NODE_SCORE / MAX_PRIORITY);
            let sum: &mut i64 = scores.entry(Rc::from(name)).or_default();
            *sum = sum.saturating_add(weighed);
        }
        Ok(scores)
    }

    /// Reads the answer to [`Verb::Preempt`].
    pub fn victims(&self, answer: &Value) -> Result<Vec<Candidate>, String> {
        let wrong = || "invalid answer: NodeNameToMetaVictims is no map of victims".to_owned();
        let Some(nodes) = field(answer, "NodeNameToMetaVictims") else { return Ok(Vec::new()) };
        let mut candidates = Vec::new();
        for (node, victims) in nodes.as_object().ok_or_else(wrong)? {
            let pods = field(victims, "Pods").map_or(Some(&[][..]), |pods| pods.as_array().map(Vec::as_slice));
            let uid = |pod: &Value| field(pod, "UID").and_then(Value::as_str).map(Rc::from);
            let uids: Option<Vec<Rc<str>>> = pods.ok_or_else(wrong)?.iter().map(uid).collect();
            let violations = field(victims, "NumPDBViolations").and_then(Value::as_i64).unwrap_or(0);
            let victims = uids.ok_or_else(wrong)?;
            if victims.is_empty() && self.ignorable {
                continue;
            }
            if victims.is_empty() {
                return Err(format!("expected at least one victim pod on node {node:?}"));
            }
            candidates.push(Candidate { node: Rc::from(node.as_str()), victims, violations });
        }
        Ok(candidates)
    }

    /// Reads the answer to [`Verb::Bind`].
    pub fn bound(&self, answer: &Value) -> Result<(), String> {
        said_error(answer)
    }
}

/// `ExtenderArgs`. `nodes` are their objects for an extender that does not know them.
pub fn about_nodes(pod: Value, names: &BTreeSet<Rc<str>>, nodes: Option<Vec<Value>>) -> Value {
    let names = nodes.is_none().then_some(names);
    let list = nodes.map(|items| json!({"metadata": {}, "items": items}));
    json!({"Pod": pod, "Nodes": list, "NodeNames": names})
}

/// `ExtenderPreemptionArgs`. `pod_of` gives the objects of victims for an extender that does not know them.
pub fn about_victims(pod: Value, candidates: &[Candidate], pod_of: Option<&dyn Fn(&str) -> Value>) -> Value {
    let victims = |candidate: &Candidate| {
        let pod = |uid: &Rc<str>| pod_of.map_or_else(|| json!({"UID": uid}), |pod_of| pod_of(uid));
        let pods: Vec<Value> = candidate.victims.iter().map(pod).collect();
        (candidate.node.to_string(), json!({"Pods": pods, "NumPDBViolations": candidate.violations}))
    };
    let all: serde_json::Map<String, Value> = candidates.iter().map(victims).collect();
    let (whole, meta) = if pod_of.is_some() { (json!(all), Value::Null) } else { (Value::Null, json!(all)) };
    json!({"Pod": pod, "NodeNameToVictims": whole, "NodeNameToMetaVictims": meta})
}

/// `ExtenderBindingArgs`.
pub fn about_binding(namespace: &str, name: &str, uid: &str, node: &str) -> Value {
    json!({"PodName": name, "PodNamespace": namespace, "PodUID": uid, "Node": node})
}

/// A field as Go finds it: by its name, or by its name in other letters. `None` if it is null.
fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let map = value.as_object()?;
    let found = map.get(name).or_else(|| map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v));
    found.filter(|value| !value.is_null())
}

/// What an answer says of a failure.
fn said_error(answer: &Value) -> Result<(), String> {
    match field(answer, "Error").and_then(Value::as_str) {
        None | Some("") => Ok(()),
        Some(why) => Err(why.to_owned()),
    }
}

fn texts(value: &Value, name: &str) -> Result<Vec<String>, String> {
    let texts = value.as_array().and_then(|all| all.iter().map(|v| v.as_str().map(str::to_owned)).collect());
    texts.ok_or_else(|| format!("invalid answer: {name} is no list of names"))
}

/// A `FailedNodesMap`.
fn failed(answer: &Value, name: &str) -> Result<Vec<(Rc<str>, Rc<str>)>, String> {
    let Some(map) = field(answer, name) else { return Ok(Vec::new()) };
    let read = |map: &serde_json::Map<String, Value>| -> Option<Vec<(Rc<str>, Rc<str>)>> {
        map.iter().map(|(node, why)| Some((Rc::from(node.as_str()), Rc::from(why.as_str()?)))).collect()
    };
    map.as_object().and_then(read).ok_or_else(|| format!("invalid answer: {name} is no map of messages"))
}

#[cfg(test)]
mod tests;
