//! Asks extenders, and gives the scheduler what they say.
//!
//! A question goes out with a number, by which its answer comes back; the driver carries both. Whoever does not answer
//! in time has failed. Extenders are asked about nodes one after the other, each about those that the ones before have
//! passed, and all at once for scores. An answer is looked at once this process leads and its views are fresh, as
//! anything else that leads to a decision.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use serde_json::Value;

use super::SchedulerProcess;
use crate::api::ToServer;
use crate::apiserver::Answered;
use crate::client::EventType;
use crate::machine::{Deadline, Mono, Now};
use crate::object::{Kind, Object, ObjectKey, Pod};
use crate::scheduler::extenders::{
    Candidate, Extender, Opinion, Question, TIMED_OUT, Verb, about_binding, about_nodes, about_victims,
};

/// What a pod waits for.
#[derive(Debug)]
enum Step {
    /// What an extender says about nodes.
    Nodes,
    /// The scores of extenders.
    Scores,
    /// What an extender says about victims.
    Victims(Vec<Candidate>),
}

/// A pod about which extenders are asked.
#[derive(Debug)]
struct Ask {
    uid: Rc<str>,
    opinion: Opinion,
    /// Whether it is about the node alone that the pod is nominated for.
    nominated: bool,
    step: Step,
    /// The questions about it that have no answer yet.
    questions: BTreeSet<u64>,
}

impl Ask {
    fn new(uid: Rc<str>, opinion: Opinion, nominated: bool, step: Step) -> Ask {
        Ask { uid, opinion, nominated, step, questions: BTreeSet::new() }
    }
}

/// A question that has no answer yet.
#[derive(Debug)]
struct Open {
    until: Mono,
    pod: ObjectKey,
    extender: usize,
    verb: Verb,
}

/// All that is asked of extenders.
#[derive(Debug)]
pub(super) struct Asks {
    extenders: Rc<[Extender]>,
    pods: BTreeMap<ObjectKey, Ask>,
    next: u64,
    open: BTreeMap<u64, Open>,
    timeouts: BTreeSet<(Mono, u64)>,
    /// Questions that have to go out.
    outbox: Vec<(u64, Question)>,
    /// Answers that have not been looked at.
    inbox: VecDeque<(u64, Open, Answered)>,
}

impl Asks {
    pub(super) fn new(extenders: Rc<[Extender]>) -> Asks {
        Asks {
            extenders,
            pods: BTreeMap::new(),
            next: 0,
            open: BTreeMap::new(),
            timeouts: BTreeSet::new(),
            outbox: Vec::new(),
            inbox: VecDeque::new(),
        }
    }

    /// How many questions have no answer.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Forgets all pods that wait, and all questions.
    pub(super) fn clear(&mut self) {
        self.pods.clear();
        self.open.clear();
        self.timeouts.clear();
        self.outbox.clear();
        self.inbox.clear();
    }

    /// Forgets a pod that is gone.
    pub(super) fn remove(&mut self, pod: &ObjectKey) {
        self.pods.remove(pod);
    }

    /// The questions that have to go out.
    pub(super) fn take_questions(&mut self) -> impl Iterator<Item = (u64, Question)> + use<'_> {
        self.outbox.drain(..)
    }

    /// An answer has come. One to a question that is forgotten, or was answered before, does not matter.
    pub(super) fn answered(&mut self, number: u64, answer: Answered) {
        if let Some(open) = self.open.remove(&number) {
            self.timeouts.remove(&(open.until, number));
            self.inbox.push_back((number, open, answer));
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Now) {
        while let Some((_, number)) = self.timeouts.first().copied().filter(|(at, _)| *at <= now.mono) {
            let open = &self.open[&number];
            let url = self.extenders[open.extender].question(open.extender, open.verb, Value::Null).url;
            self.answered(number, Err(format!("Post {url:?}: {TIMED_OUT}")));
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        self.timeouts.first().map(|(at, _)| Deadline { at: *at, why: "extender does not answer" })
    }

    /// The first extender from this one on that serves a verb for a pod.
    fn serving(&self, from: usize, verb: Verb, pod: &Pod) -> Option<usize> {
        (from..self.extenders.len()).find(|i| self.extenders[*i].serves(verb, &pod.spec.shared))
    }

    fn ask(&mut self, now: Now, pod: &ObjectKey, (extender, verb): (usize, Verb), body: Value) -> u64 {
        let question = self.extenders[extender].question(extender, verb, body);
        let until = now.mono + question.timeout;
        self.next += 1;
        self.timeouts.insert((until, self.next));
        self.open.insert(self.next, Open { until, pod: pod.clone(), extender, verb });
        if let Some(ask) = self.pods.get_mut(pod) {
            ask.questions.insert(self.next);
        }
        self.outbox.push((self.next, question));
        self.next
    }
}

/// An object as an extender gets it: Go's informers know no kinds.
fn sent(object: &Object) -> Value {
    let mut value = object.to_json();
    if let Some(map) = value.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    value
}

impl SchedulerProcess {
    /// Has extenders asked about the nodes for a pod.
    pub(super) fn ask_about_nodes(
        &mut self,
        now: Now,
        (pod, uid): (ObjectKey, Rc<str>),
        nodes: BTreeSet<Rc<str>>,
        nominated: bool,
        out: &mut Vec<ToServer>,
    ) {
        let opinion = Opinion { asked: nodes.clone(), passed: nodes, ..Opinion::default() };
        self.asks.pods.insert(pod.clone(), Ask::new(uid, opinion, nominated, Step::Nodes));
        self.ask_about_nodes_from(now, &pod, 0, out);
    }

    /// Has extenders asked about the victims of a pod.
    pub(super) fn ask_about_victims(
        &mut self,
        now: Now,
        (pod, uid): (ObjectKey, Rc<str>),
        (opinion, candidates): (Opinion, Vec<Candidate>),
        out: &mut Vec<ToServer>,
    ) {
        self.asks.pods.insert(pod.clone(), Ask::new(uid, opinion, false, Step::Victims(candidates)));
        self.ask_about_victims_from(now, &pod, 0, out);
    }

    /// A pod that waits, as the view shows it; it is forgotten if it is gone.
    fn asked_pod(&mut self, key: &ObjectKey) -> Option<Pod> {
        let uid = &self.asks.pods.get(key)?.uid;
        match self.pods.get(key) {
            Some(Object::Pod(pod)) if *pod.uid() == **uid => Some(pod.clone()),
            _ => {
                self.asks.remove(key);
                None
            }
        }
    }

    /// Asks the next extender, from this one on, that filters nodes; for scores if there is none.
    fn ask_about_nodes_from(&mut self, now: Now, key: &ObjectKey, from: usize, out: &mut Vec<ToServer>) {
        let Some(pod) = self.asked_pod(key) else { return };
        let ask = &self.asks.pods[key];
        let next = self.asks.serving(from, Verb::Filter, &pod).filter(|_| !ask.opinion.passed.is_empty());
        let passed = ask.opinion.passed.clone();
        if let Some(extender) = next {
            let body = self.about_nodes(&pod, extender, &passed);
            self.asks.ask(now, key, (extender, Verb::Filter), body);
            return;
        }
        self.asks.pods.get_mut(key).expect("it was there above").step = Step::Scores;
        let mut from = 0;
        // A single node needs no score.
        while passed.len() > 1
            && let Some(extender) = self.asks.serving(from, Verb::Prioritize, &pod)
        {
            let body = self.about_nodes(&pod, extender, &passed);
            self.asks.ask(now, key, (extender, Verb::Prioritize), body);
            from = extender + 1;
        }
        if from == 0 {
            self.finish_nodes(now, key, out);
        }
    }

    fn about_nodes(&self, pod: &Pod, extender: usize, names: &BTreeSet<Rc<str>>) -> Value {
        let node = |name: &Rc<str>| self.nodes.get(&ObjectKey::new(Kind::NODE, "", name)).map(sent);
        let knows = self.asks.extenders[extender].node_cache_capable;
        let nodes = (!knows).then(|| names.iter().filter_map(node).collect());
        about_nodes(sent(&Object::Pod(pod.clone())), names, nodes)
    }

    /// Every extender has said what it thinks of nodes.
    fn finish_nodes(&mut self, now: Now, key: &ObjectKey, out: &mut Vec<ToServer>) {
        let Some(ask) = self.asks.pods.remove(key) else { return };
        let decision = self.core.nodes_answered(now, (key, &ask.uid), &ask.opinion, ask.nominated);
        self.carry_out(now, decision, out);
    }

    /// Asks the next extender, from this one on, that has a say about victims.
    fn ask_about_victims_from(&mut self, now: Now, key: &ObjectKey, from: usize, out: &mut Vec<ToServer>) {
        let Some(pod) = self.asked_pod(key) else { return };
        let ask = &self.asks.pods[key];
        let Step::Victims(candidates) = &ask.step else { panic!("it is asked about victims") };
        let next = self.asks.serving(from, Verb::Preempt, &pod).filter(|_| !candidates.is_empty());
        if let Some(extender) = next {
            let node_of: BTreeMap<&str, &str> =
                candidates.iter().flat_map(|c| c.victims.iter().map(|uid| (&**uid, &*c.node))).collect();
            let object = |uid: &str| {
                let key = node_of.get(uid).and_then(|node| self.core.pod_on(node, uid));
                key.and_then(|key| self.pods.get(key)).map_or(Value::Null, sent)
            };
            let knows = self.asks.extenders[extender].node_cache_capable;
            let pod_of: Option<&dyn Fn(&str) -> Value> = if knows { None } else { Some(&object) };
            let body = about_victims(sent(&Object::Pod(pod)), candidates, pod_of);
            self.asks.ask(now, key, (extender, Verb::Preempt), body);
            return;
        }
        let chosen = candidates.clone();
        self.finish_victims(now, key, Ok(chosen), out);
    }

    fn finish_victims(
        &mut self,
        now: Now,
        key: &ObjectKey,
        chosen: Result<Vec<Candidate>, String>,
        out: &mut Vec<ToServer>,
    ) {
        let Some(ask) = self.asks.pods.remove(key) else { return };
        let decision = self.core.victims_answered(now, (key, &ask.uid), &ask.opinion, chosen);
        self.carry_out(now, decision, out);
    }

    /// Looks at the answers that have come. Only a leader with fresh views may.
    pub(super) fn take_answers(&mut self, now: Now, out: &mut Vec<ToServer>) {
        while let Some((number, open, answer)) = self.asks.inbox.pop_front() {
            let waits = self.asks.pods.get_mut(&open.pod).is_some_and(|ask| ask.questions.remove(&number));
            match open.verb {
                Verb::Bind => self.take_binding(now, number, &open, answer, out),
                Verb::Filter if waits => self.take_filtered(now, &open, answer, out),
                Verb::Prioritize if waits => self.take_scores(now, &open, answer, out),
                Verb::Preempt if waits => self.take_victims(now, &open, answer, out),
                Verb::Filter | Verb::Prioritize | Verb::Preempt => {}
            }
        }
    }

    fn take_filtered(&mut self, now: Now, open: &Open, answer: Answered, out: &mut Vec<ToServer>) {
        let extender = &self.asks.extenders[open.extender];
        let ignorable = extender.ignorable;
        let ask = self.asks.pods.get_mut(&open.pod).expect("the caller has looked");
        match answer.and_then(|answer| extender.filtered(&answer, &ask.opinion.passed)) {
            Ok(filtered) => {
                ask.opinion.passed = filtered.passed;
                ask.opinion.refused.extend(filtered.refused);
            }
            Err(_) if ignorable => {}
            // The other nodes are tried.
            Err(_) if ask.nominated => ask.opinion.passed.clear(),
            Err(why) => {
                let uid = Rc::clone(&ask.uid);
                self.asks.remove(&open.pod);
                let decision = self.core.not_answered(now, (&open.pod, &uid), why);
                return self.carry_out(now, decision, out);
            }
        }
        self.ask_about_nodes_from(now, &open.pod, open.extender + 1, out);
    }

    fn take_scores(&mut self, now: Now, open: &Open, answer: Answered, out: &mut Vec<ToServer>) {
        let ask = self.asks.pods.get_mut(&open.pod).expect("the caller has looked");
        assert!(matches!(ask.step, Step::Scores), "scores are asked for when nothing else is");
        let done = ask.questions.is_empty();
        // An extender that fails gives no scores; the others' count.
        if let Ok(scores) = answer.and_then(|answer| self.asks.extenders[open.extender].prioritized(&answer)) {
            for (node, score) in scores {
                let sum = ask.opinion.scores.entry(node).or_default();
                *sum = sum.saturating_add(score);
            }
        }
        if done {
            self.finish_nodes(now, &open.pod, out);
        }
    }

    fn take_victims(&mut self, now: Now, open: &Open, answer: Answered, out: &mut Vec<ToServer>) {
        let extender = &self.asks.extenders[open.extender];
        let chosen = answer.and_then(|answer| extender.victims(&answer)).and_then(|candidates| {
            candidates.iter().try_for_each(|candidate| self.core.check_victims(extender, candidate))?;
            Ok(candidates)
        });
        match chosen {
            Ok(candidates) => {
                let ask = self.asks.pods.get_mut(&open.pod).expect("the caller has looked");
                ask.step = Step::Victims(candidates);
            }
            Err(_) if extender.ignorable => {}
            Err(why) => return self.finish_victims(now, &open.pod, Err(why), out),
        }
        self.ask_about_victims_from(now, &open.pod, open.extender + 1, out);
    }

    /// Has an extender bind a pod, from this one on. Returns whether there is one.
    pub(super) fn bind_by_extender(
        &mut self,
        now: Now,
        (pod, uid): (&ObjectKey, &Rc<str>),
        node: &Rc<str>,
        from: usize,
    ) -> bool {
        // What GPUs a pod gets is written down with its binding, which an extender does not know of.
        if self.asks.extenders.is_empty() || !self.core.devices(pod).is_empty() {
            return false;
        }
        let Some(Object::Pod(object)) = self.pods.get(pod) else { return false };
        let Some(extender) = self.asks.serving(from, Verb::Bind, object) else { return false };
        let body = about_binding(pod.namespace(), pod.name(), uid, node);
        let question = self.asks.ask(now, pod, (extender, Verb::Bind), body);
        self.binds.asked(pod.clone(), Rc::clone(uid), Rc::clone(node), question);
        true
    }

    /// An extender has bound a pod, or has not. Either is seen in the store: what it says is not relied on, since the
    /// pod would keep its place for ever if it were wrong.
    fn take_binding(&mut self, now: Now, number: u64, open: &Open, answer: Answered, out: &mut Vec<ToServer>) {
        let Some(bind) = self.binds.get(&open.pod).filter(|bind| bind.waits_for(number)) else { return };
        let (uid, node) = (Rc::clone(&bind.uid), Rc::clone(&bind.node));
        let extender = &self.asks.extenders[open.extender];
        match answer.and_then(|answer| extender.bound(&answer)) {
            Ok(()) => self.binds.doubt(now, &open.pod),
            Err(_) if extender.ignorable => {
                if !self.bind_by_extender(now, (&open.pod, &uid), &node, open.extender + 1) {
                    self.bind_ourselves(now, open.pod.clone(), uid, node, out);
                }
            }
            Err(why) => {
                if let Some(pod) = self.pods.get(&open.pod) {
                    self.recorder.record(now, pod, EventType::Warning, "FailedScheduling", &why, out);
                }
                self.binds.doubt(now, &open.pod);
            }
        }
    }
}
