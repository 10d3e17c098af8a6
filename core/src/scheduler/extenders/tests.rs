use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};

use super::{Candidate, Extender, Filtered, Refused, Verb, about_binding, about_nodes, about_victims};

fn extender(more: impl FnOnce(&mut Extender)) -> Extender {
    let mut extender = Extender {
        url_prefix: "http://e:80/api/".to_owned(),
        filter_verb: "filter".to_owned(),
        prioritize_verb: "prioritize".to_owned(),
        preempt_verb: "preempt".to_owned(),
        bind_verb: "bind".to_owned(),
        weight: 3,
        timeout: Duration::from_secs(5),
        node_cache_capable: true,
        managed_resources: Vec::new(),
        ignorable: false,
    };
    more(&mut extender);
    extender
}

fn names(names: &[&str]) -> BTreeSet<Rc<str>> {
    names.iter().map(|name| Rc::from(*name)).collect()
}

#[test]
fn questions_are_posted_below_the_prefix() {
    let question = extender(|_| {}).question(1, Verb::Filter, json!({"a": 1}));
    assert_eq!((question.url.as_str(), &*question.action, question.extender), ("http://e:80/api/filter", "filter", 1));
    assert_eq!((question.timeout, question.body), (Duration::from_secs(5), json!({"a": 1})));
}

#[test]
fn it_is_asked_about_pods_that_want_what_it_manages() {
    let check = |managed: &[&str], verb: &str, spec: Value, expect: bool| {
        let e = extender(|e| {
            e.managed_resources = managed.iter().map(|m| (*m).to_owned()).collect();
            e.filter_verb = verb.to_owned();
        });
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(e.serves(Verb::Filter, &spec), expect, "{managed:?} {verb:?} {spec:?}");
    };
    let with = |list: &str, name: &str| json!([{"name": "c", "resources": {list: {name: "1"}}}]);
    check(&[], "filter", json!({"containers": []}), true);
    check(&[], "", json!({"containers": []}), false);
    check(&["a.b/c"], "filter", json!({"containers": with("requests", "cpu")}), false);
    check(&["a.b/c"], "filter", json!({"containers": with("requests", "a.b/c")}), true);
    check(&["x.y/z", "a.b/c"], "filter", json!({"containers": with("limits", "a.b/c")}), true);
    check(&["a.b/c"], "filter", json!({"containers": [], "initContainers": with("limits", "a.b/c")}), true);
}

#[test]
fn what_it_filters_is_read_as_go_reads_it() {
    let check = |caches: bool, answer: Value, expect: Result<(&[&str], &[(&str, &str, bool)]), &str>| {
        let e = extender(|e| e.node_cache_capable = caches);
        let expect = expect.map_err(str::to_owned).map(|(passed, refused)| Filtered {
            passed: names(passed),
            refused: refused
                .iter()
                .map(|(node, why, unresolvable)| {
                    (Rc::from(*node), Refused { why: Rc::from(*why), unresolvable: *unresolvable })
                })
                .collect(),
        });
        assert_eq!(e.filtered(&answer, &names(&["a", "b", "c"])), expect, "{answer}");
    };
    let node = |name: &str| json!({"metadata": {"name": name}});
    check(true, json!({"NodeNames": ["a", "c"]}), Ok((&["a", "c"], &[])));
    check(true, json!({"nodenames": ["a"], "nodes": null}), Ok((&["a"], &[])));
    check(true, json!({"Nodes": {"items": [node("b")]}}), Ok((&["b"], &[])));
    check(false, json!({"Nodes": {"items": [node("b")]}, "NodeNames": ["a"]}), Ok((&["b"], &[])));
    check(false, json!({"NodeNames": ["a"]}), Ok((&[], &[])));
    check(true, json!({}), Ok((&[], &[])));
    check(
        true,
        json!({"NodeNames": ["a"], "FailedNodes": {"b": "full", "c": "small"},
            "FailedAndUnresolvableNodes": {"c": "wrong", "z": "unknown"}}),
        Ok((&["a"], &[("b", "full", false), ("c", "wrong", true)])),
    );
    check(true, json!({"NodeNames": ["a"], "Error": "busy"}), Err("busy"));
    check(true, json!({"NodeNames": ["a"], "Error": ""}), Ok((&["a"], &[])));
    let unknown =
        "extender \"http://e:80/api/\" claims a filtered node \"z\" which is not found in the input node list";
    check(true, json!({"NodeNames": ["a", "z"]}), Err(unknown));
    check(true, json!({"NodeNames": "a"}), Err("invalid answer: NodeNames is no list of names"));
    check(true, json!({"FailedNodes": ["a"]}), Err("invalid answer: FailedNodes is no map of messages"));
    check(false, json!({"Nodes": {"items": [{}]}}), Err("invalid answer: a node of Nodes has no name"));
}

#[test]
fn its_scores_are_scaled_and_weighed() {
    let e = extender(|_| {});
    let check = |answer: Value, expect: Result<&[(&str, i64)], &str>| {
        let expect: Result<BTreeMap<Rc<str>, i64>, String> = match expect {
            Ok(scores) => Ok(scores.iter().map(|(node, score)| (Rc::from(*node), *score)).collect()),
            Err(why) => Err(why.to_owned()),
        };
        assert_eq!(e.prioritized(&answer), expect, "{answer}");
    };
    check(json!([{"Host": "a", "Score": 10}, {"host": "b", "score": 1}]), Ok(&[("a", 300), ("b", 30)]));
    check(json!([{"Host": "a"}]), Ok(&[("a", 0)]));
    check(json!([{"Host": "a", "Score": i64::MAX}]), Ok(&[("a", i64::MAX)]));
    check(json!({"Host": "a"}), Err("invalid answer: it is no list of hosts and scores"));
    check(json!([{"Host": "a", "Score": "1"}]), Err("invalid answer: it is no list of hosts and scores"));
}

#[test]
fn its_victims_are_read() {
    let check = |ignorable: bool, answer: Value, expect: Result<Vec<Candidate>, &str>| {
        let e = extender(|e| e.ignorable = ignorable);
        assert_eq!(e.victims(&answer), expect.map_err(str::to_owned), "{answer}");
    };
    let one = || Candidate { node: Rc::from("a"), victims: vec![Rc::from("u1"), Rc::from("u2")], violations: 1 };
    let a = json!({"Pods": [{"UID": "u1"}, {"uid": "u2"}], "NumPDBViolations": 1});
    check(false, json!({"NodeNameToMetaVictims": {"a": a}}), Ok(vec![one()]));
    check(false, json!({"NodeNameToMetaVictims": {}}), Ok(vec![]));
    check(false, json!({}), Ok(vec![]));
    check(true, json!({"NodeNameToMetaVictims": {"a": a, "b": {"Pods": []}}}), Ok(vec![one()]));
    let none = json!({"NodeNameToMetaVictims": {"a": a, "b": null}});
    check(false, none, Err("expected at least one victim pod on node \"b\""));
    let wrong = "invalid answer: NodeNameToMetaVictims is no map of victims";
    check(false, json!({"NodeNameToMetaVictims": []}), Err(wrong));
}

#[test]
fn questions_are_as_gos_types_are() {
    let pod = json!({"metadata": {"name": "p"}});
    let nodes = names(&["a", "b"]);
    let by_name = json!({"Pod": pod, "Nodes": null, "NodeNames": ["a", "b"]});
    assert_eq!(about_nodes(pod.clone(), &nodes, None), by_name);
    let whole = json!({"Pod": pod, "Nodes": {"metadata": {}, "items": [{}]}, "NodeNames": null});
    assert_eq!(about_nodes(pod.clone(), &nodes, Some(vec![json!({})])), whole);
    let candidates = [Candidate { node: Rc::from("a"), victims: vec![Rc::from("u")], violations: 2 }];
    let meta = json!({"a": {"Pods": [{"UID": "u"}], "NumPDBViolations": 2}});
    let by_uid = json!({"Pod": pod, "NodeNameToVictims": null, "NodeNameToMetaVictims": meta});
    assert_eq!(about_victims(pod.clone(), &candidates, None), by_uid);
    let whole = json!({"a": {"Pods": [{"of": "u"}], "NumPDBViolations": 2}});
    let whole = json!({"Pod": pod, "NodeNameToVictims": whole, "NodeNameToMetaVictims": null});
    assert_eq!(about_victims(pod, &candidates, Some(&|uid| json!({"of": uid}))), whole);
    let binding = json!({"PodName": "p", "PodNamespace": "d", "PodUID": "u", "Node": "a"});
    assert_eq!(about_binding("d", "p", "u", "a"), binding);
}
