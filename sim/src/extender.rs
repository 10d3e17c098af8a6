//! The scheduler's extenders, as a simulation plays them: they pass every node, score none, and agree with every choice
//! of victims, unless faults have them fail, be silent or refuse nodes. They bind no pods: whoever runs a simulation is
//! told so.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde_json::{Value, json};
use skeg_core::apiserver::Answered;
use skeg_core::scheduler::extenders::{Extender, Question, Verb};

use crate::fault::FaultId;
use crate::scenario::Extending;

/// What is wrong with extenders.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// They answer with an error.
    Fails,
    /// They do not answer.
    Silent,
    /// They refuse these nodes.
    Refuses(BTreeSet<String>),
}

/// All extenders of a world.
#[derive(Debug, Default)]
pub(crate) struct Extenders {
    troubles: BTreeMap<FaultId, Trouble>,
}

/// The extenders that a simulated scheduler asks.
pub(crate) fn simulated(extenders: &[Extending]) -> Rc<[Extender]> {
    let played = extenders.iter().map(|e| Extender { bind_verb: String::new(), ..e.extender.clone() });
    played.collect()
}

impl Extenders {
    /// A fault begins.
    pub(crate) fn strike(&mut self, id: FaultId, trouble: Trouble) {
        self.troubles.insert(id, trouble);
    }

    /// A fault ends.
    pub(crate) fn heal(&mut self, id: FaultId) {
        self.troubles.remove(&id);
    }

    /// What comes of a question; `None` if nothing ever does.
    pub(crate) fn answer(&self, question: &Question) -> Option<Answered> {
        if self.troubles.values().any(|trouble| *trouble == Trouble::Silent) {
            return None;
        }
        if self.troubles.values().any(|trouble| *trouble == Trouble::Fails) {
            let Question { action, url, .. } = question;
            return Some(Err(format!("failed {action} with extender at URL {url}, code 500")));
        }
        Some(Ok(match question.verb {
            Verb::Filter => self.filter(&question.body),
            Verb::Prioritize => json!([]),
            Verb::Preempt => json!({"NodeNameToMetaVictims": agreed(&question.body)}),
            Verb::Bind => json!({"Error": "this extender binds no pods"}),
        }))
    }

    fn is_refused(&self, node: &Value) -> bool {
        let node = node.as_str().unwrap_or_default();
        self.troubles.values().any(|trouble| matches!(trouble, Trouble::Refuses(names) if names.contains(node)))
    }

    fn filter(&self, body: &Value) -> Value {
        let names: Vec<Value> = match body["NodeNames"].as_array() {
            Some(names) => names.clone(),
            None => {
                body["Nodes"]["items"].as_array().into_iter().flatten().map(|n| n["metadata"]["name"].clone()).collect()
            }
        };
        let (refused, passed): (Vec<Value>, Vec<Value>) = names.into_iter().partition(|name| self.is_refused(name));
        let why = |name: Value| (name.as_str().unwrap_or_default().to_owned(), json!("the extender refuses it"));
        let failed: serde_json::Map<String, Value> = refused.into_iter().map(why).collect();
        if body["NodeNames"].is_array() {
            return json!({"NodeNames": passed, "FailedNodes": failed});
        }
        let items: Vec<Value> = passed.into_iter().map(|name| json!({"metadata": {"name": name}})).collect();
        json!({"Nodes": {"items": items}, "FailedNodes": failed})
    }
}

/// The victims of `ExtenderPreemptionArgs`, by their UIDs.
fn agreed(body: &Value) -> Value {
    if !body["NodeNameToMetaVictims"].is_null() {
        return body["NodeNameToMetaVictims"].clone();
    }
    let mut nodes = body["NodeNameToVictims"].clone();
    for victims in nodes.as_object_mut().into_iter().flat_map(|nodes| nodes.values_mut()) {
        for pod in victims["Pods"].as_array_mut().into_iter().flatten() {
            *pod = json!({"UID": pod["metadata"]["uid"]});
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use serde_json::{Value, json};
    use skeg_core::scheduler::extenders::{Question, Verb};

    use super::{Extenders, Trouble};
    use crate::fault::FaultId;

    fn check(extenders: &Extenders, verb: Verb, body: Value, expect: Option<Result<Value, String>>) {
        let (action, url) = ("act".to_owned(), "http://e/act".to_owned());
        let question = Question { extender: 0, verb, action, url, timeout: Duration::from_secs(5), body };
        assert_eq!(extenders.answer(&question), expect, "{verb:?}");
    }

    #[test]
    fn it_refuses_and_fails_as_faults_say_and_no_longer() {
        let mut e = Extenders::default();
        let names = || json!({"Pod": {}, "Nodes": null, "NodeNames": ["a", "b"]});
        let all = || Some(Ok(json!({"NodeNames": ["a", "b"], "FailedNodes": {}})));
        check(&e, Verb::Filter, names(), all());
        e.strike(FaultId(1), Trouble::Refuses(BTreeSet::from(["b".to_owned()])));
        let refused = json!({"b": "the extender refuses it"});
        check(&e, Verb::Filter, names(), Some(Ok(json!({"NodeNames": ["a"], "FailedNodes": refused}))));
        let node = |name: &str| json!({"metadata": {"name": name}});
        let whole = json!({"Pod": {}, "Nodes": {"items": [node("a"), node("b")]}, "NodeNames": null});
        check(&e, Verb::Filter, whole, Some(Ok(json!({"Nodes": {"items": [node("a")]}, "FailedNodes": refused}))));
        e.strike(FaultId(2), Trouble::Fails);
        let failed = "failed act with extender at URL http://e/act, code 500";
        check(&e, Verb::Filter, names(), Some(Err(failed.to_owned())));
        e.strike(FaultId(3), Trouble::Silent);
        check(&e, Verb::Filter, names(), None);
        (1..=3).for_each(|id| e.heal(FaultId(id)));
        check(&e, Verb::Filter, names(), all());
        let victims = json!({"n": {"Pods": [{"metadata": {"uid": "u"}}], "NumPDBViolations": 1}});
        let meta = json!({"n": {"Pods": [{"UID": "u"}], "NumPDBViolations": 1}});
        let agreed = Some(Ok(json!({"NodeNameToMetaVictims": meta})));
        check(&e, Verb::Preempt, json!({"NodeNameToVictims": victims, "NodeNameToMetaVictims": null}), agreed);
    }
}
