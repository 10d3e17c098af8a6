//! What becomes of pods about which extenders are asked.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use super::tests::Cluster;
use crate::api::Call;
use crate::apiserver::Answered;
use crate::object::{Kind, Object, ObjectKey};
use crate::scheduler::extenders::{Extender, Question, Verb};

fn extender(more: impl FnOnce(&mut Extender)) -> Extender {
    let mut extender = Extender {
        url_prefix: "http://e".to_owned(),
        filter_verb: "filter".to_owned(),
        prioritize_verb: String::new(),
        preempt_verb: String::new(),
        bind_verb: String::new(),
        weight: 1,
        timeout: Duration::from_secs(5),
        node_cache_capable: true,
        managed_resources: Vec::new(),
        ignorable: false,
    };
    more(&mut extender);
    extender
}

/// A cluster of these nodes of two CPUs, whose scheduler asks these extenders.
fn cluster(
    nodes: &[&str],
    extenders: Vec<Extender>,
    extends: impl FnMut(&Question) -> Option<Answered> + 'static,
) -> Cluster {
    let mut c = Cluster::new(1);
    nodes.iter().for_each(|name| c.node(name, "2"));
    c.extenders = extenders.into();
    c.extends = Box::new(extends);
    c.start("a", true);
    c
}

fn node_of(c: &Cluster, pod: &str) -> Option<String> {
    c.pods().iter().find(|p| p.name() == pod).expect("it is there").spec.node.as_deref().map(str::to_owned)
}

/// The reason and the message of a pod's condition.
fn condition(c: &Cluster, pod: &str) -> (String, String) {
    let pod = c.pods().into_iter().find(|p| p.name() == pod).expect("it is there");
    let value = Object::Pod(pod.clone()).to_json();
    let all = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let scheduled = all.iter().find(|c| c["type"] == "PodScheduled").cloned().unwrap_or_default();
    let text = |key: &str| scheduled[key].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

fn bind(c: &mut Cluster, pod: &str, node: &str) {
    let uid = c.pods().iter().find(|p| p.name() == pod).map(|p| Rc::from(p.uid())).expect("it is there");
    let pod = ObjectKey::new(Kind::POD, "default", pod);
    c.user(Call::Bind { pod, uid, node: Rc::from(node), annotations: Default::default() });
}

#[test]
fn each_is_asked_about_what_the_ones_before_have_passed() {
    let asked: Rc<RefCell<Vec<(usize, Value)>>> = Rc::default();
    let seen = Rc::clone(&asked);
    let extenders = vec![extender(|_| {}), extender(|e| e.node_cache_capable = false)];
    let mut c = cluster(&["n1", "n2", "n3"], extenders, move |question| {
        let names = if question.extender == 0 {
            question.body["NodeNames"].clone()
        } else {
            let items = question.body["Nodes"]["items"].as_array().expect("it knows no nodes");
            assert!(items.iter().all(|node| node["status"]["allocatable"]["cpu"] == "2"), "{items:?}");
            items.iter().map(|node| node["metadata"]["name"].clone()).collect()
        };
        assert_eq!(question.body["Pod"]["metadata"]["name"], "p");
        assert!(question.body["Pod"].get("kind").is_none());
        seen.borrow_mut().push((question.extender, names));
        Some(Ok(match question.extender {
            0 => json!({"NodeNames": ["n1", "n3"], "FailedNodes": {"n2": "no"}}),
            _ => json!({"Nodes": {"items": [{"metadata": {"name": "n3"}}]}}),
        }))
    });
    c.pod("p", "1");
    c.run(Duration::from_secs(5));
    assert_eq!(*asked.borrow(), [(0, json!(["n1", "n2", "n3"])), (1, json!(["n1", "n3"]))]);
    assert_eq!(node_of(&c, "p").as_deref(), Some("n3"));
    assert_eq!(c.events("FailedScheduling").len(), 0);
    c.check_counts(0);
}

#[test]
fn scores_decide_among_what_is_left() {
    let extenders = vec![
        extender(|e| (e.filter_verb, e.prioritize_verb, e.weight) = (String::new(), "score".to_owned(), 100)),
        extender(|e| (e.filter_verb, e.prioritize_verb) = (String::new(), "score".to_owned())),
        extender(|e| (e.filter_verb, e.prioritize_verb) = (String::new(), "score".to_owned())),
    ];
    let mut c = cluster(&["n1", "n2", "n3"], extenders, |question| {
        assert_eq!((question.verb, question.url.as_str()), (Verb::Prioritize, "http://e/score"));
        match question.extender {
            0 => Some(Ok(json!([{"Host": "n2", "Score": 10}, {"Host": "n1", "Score": 8}]))),
            1 => Some(Ok(json!([{"Host": "n1", "Score": 10}, {"Host": "gone", "Score": 10}]))),
            // Who gives no scores is passed over.
            _ => Some(Err("Post \"http://e/score\": EOF".to_owned())),
        }
    });
    // The scheduler alone would take another node.
    c.pod("filler", "1");
    bind(&mut c, "filler", "n2");
    c.pod("p", "1");
    c.run(Duration::from_secs(5));
    assert_eq!(node_of(&c, "p").as_deref(), Some("n2"), "10 * 100 against 8 * 100 + 10");
}

#[test]
fn refusals_are_told_and_any_event_has_them_asked_again() {
    let open = Rc::new(RefCell::new(false));
    let opened = Rc::clone(&open);
    let mut c = cluster(&["n1", "n2", "n3"], vec![extender(|_| {})], move |_| {
        let failed = json!({"n1": "too noisy", "n2": "too noisy"});
        Some(Ok(if *opened.borrow() { json!({"NodeNames": ["n3"]}) } else { json!({"FailedNodes": failed}) }))
    });
    c.pod("p", "1");
    c.run(Duration::from_secs(5));
    let message = "0/3 nodes are available: 2 too noisy. preemption: 0/3 nodes are available: 1 Preemption is not \
                   helpful for scheduling, 2 No preemption victims found for incoming pod.";
    assert_eq!(condition(&c, "p"), ("Unschedulable".to_owned(), message.to_owned()));
    assert_eq!(c.events("FailedScheduling")[0]["message"], message);
    *open.borrow_mut() = true;
    c.run(Duration::from_secs(60));
    assert_eq!(node_of(&c, "p"), None, "nothing has happened");
    c.node("n4", "1");
    c.run(Duration::from_secs(10));
    assert_eq!(node_of(&c, "p").as_deref(), Some("n3"));
}

#[test]
fn failures() {
    let check = |ignorable: bool, answer: Option<Answered>, expect: Result<(), &str>| {
        let again = answer.clone();
        let mut c = cluster(&["n1", "n2"], vec![extender(|e| e.ignorable = ignorable)], move |_| again.clone());
        c.pod("p", "1");
        c.run(Duration::from_secs(8));
        match expect {
            Ok(()) => assert_eq!(c.bound(), 1, "{answer:?}"),
            Err(why) => {
                assert_eq!(condition(&c, "p"), ("SchedulerError".to_owned(), why.to_owned()));
                assert_eq!(c.events("FailedScheduling")[0]["message"], why);
                let now = Some(Ok(json!({"NodeNames": ["n1", "n2"]})));
                c.extends = Box::new(move |_| now.clone());
                c.run(Duration::from_secs(20));
                assert_eq!(c.bound(), 1, "it is tried again, without any event");
            }
        }
    };
    let code = "failed filter with extender at URL http://e/filter, code 500";
    check(false, Some(Err(code.to_owned())), Err(code));
    check(false, Some(Ok(json!({"Error": "busy"}))), Err("busy"));
    check(
        false,
        None,
        Err("Post \"http://e/filter\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"),
    );
    let unknown = "extender \"http://e\" claims a filtered node \"n9\" which is not found in the input node list";
    check(false, Some(Ok(json!({"NodeNames": ["n9"]}))), Err(unknown));
    check(true, Some(Err(code.to_owned())), Ok(()));
    check(true, Some(Ok(json!({"Error": "busy"}))), Ok(()));
    check(true, None, Ok(()));
}

#[test]
fn a_silent_extender_stops_nobody_else() {
    let manages = |e: &mut Extender| e.managed_resources = vec!["a.b/c".to_owned()];
    let mut c = cluster(&["n1"], vec![extender(manages)], |_| None);
    let wants = json!({"requests": {"cpu": "1", "a.b/c": "1"}, "limits": {"a.b/c": "1"}});
    let container = json!({"name": "c", "image": "i", "resources": wants});
    c.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "waits", "namespace": "default"},
        "spec": {"containers": [container]}}));
    let has = json!({"status": {"allocatable": {"a.b/c": "4"}}});
    c.user(Call::Patch {
        key: ObjectKey::new(Kind::NODE, "", "n1"),
        patch: crate::api::Patch::Merge(has),
        subresource: crate::api::Subresource::Status,
        precondition: crate::api::Precondition::default(),
        options: crate::api::WriteOptions::default(),
    });
    c.run(Duration::from_secs(1));
    c.pod("p", "1");
    c.run(Duration::from_secs(1));
    assert_eq!((node_of(&c, "p").as_deref(), node_of(&c, "waits")), (Some("n1"), None));
}

/// Room that others have taken meanwhile is not given again; what has become free meanwhile is asked about.
#[test]
fn the_cluster_changes_while_it_is_asked() {
    let answers: Rc<RefCell<Option<Answered>>> = Rc::default();
    let said = Rc::clone(&answers);
    let mut c = cluster(&["n1"], vec![extender(|e| e.timeout = Duration::from_secs(60))], move |_| {
        // The first question is answered by hand, later.
        said.borrow().clone()
    });
    c.pod("p", "2");
    c.run(Duration::from_secs(1));
    c.pod("other", "1");
    bind(&mut c, "other", "n1");
    c.node("n2", "2");
    c.run(Duration::from_secs(1));
    *answers.borrow_mut() = Some(Ok(json!({"NodeNames": ["n2"]})));
    let answer = Ok(json!({"NodeNames": ["n1"]}));
    c.tell(0, super::In::Extender { asked: 1, answer });
    c.run(Duration::from_secs(5));
    assert_eq!(node_of(&c, "p").as_deref(), Some("n2"));
    assert_eq!(c.events("FailedScheduling").len(), 0, "it was tried again, since nobody had been asked about n2");
}

#[test]
fn a_pod_that_is_gone_or_bound_by_another_needs_no_answer() {
    let mut c = cluster(&["n1", "n2"], vec![extender(|e| e.timeout = Duration::from_secs(60))], |_| None);
    c.pod("p", "1");
    c.pod("q", "1");
    c.run(Duration::from_secs(1));
    c.delete("p");
    bind(&mut c, "q", "n2");
    c.run(Duration::from_secs(1));
    for asked in 1..=2 {
        c.tell(0, super::In::Extender { asked, answer: Ok(json!({"NodeNames": ["n1"]})) });
    }
    c.run(Duration::from_secs(5));
    assert_eq!(node_of(&c, "q").as_deref(), Some("n2"));
    c.check_counts(0);
}

#[test]
fn binding_is_left_to_it() {
    let check = |ignorable: bool, answer: Answered, binds: bool, expect: Result<(), Option<&str>>| {
        let asked: Rc<RefCell<Vec<Value>>> = Rc::default();
        let seen = Rc::clone(&asked);
        let binder = extender(|e| {
            (e.filter_verb, e.bind_verb, e.ignorable) = (String::new(), "bind".to_owned(), ignorable);
        });
        let again = answer.clone();
        let mut c = cluster(&["n1"], vec![binder], move |question| {
            assert_eq!(question.verb, Verb::Bind);
            seen.borrow_mut().push(question.body.clone());
            Some(again.clone())
        });
        c.run(Duration::from_secs(2));
        c.pod("p", "1");
        c.run(Duration::from_millis(300));
        let first = asked.borrow()[0].clone();
        assert_eq!((&first["PodName"], &first["Node"]), (&json!("p"), &json!("n1")));
        assert_eq!(first["PodUID"], c.pods()[0].uid());
        if binds {
            bind(&mut c, "p", "n1");
        }
        c.run(Duration::from_secs(3));
        match expect {
            Ok(()) => {
                assert_eq!(node_of(&c, "p").as_deref(), Some("n1"), "{answer:?}");
                assert_eq!(c.events("Scheduled").len(), 1);
                c.check_counts(0);
            }
            Err(why) => {
                assert_eq!(node_of(&c, "p"), None);
                let told: Vec<_> = c.events("FailedScheduling").iter().map(|e| e["message"].clone()).collect();
                assert_eq!(told.first().and_then(Value::as_str), why);
                assert!(asked.borrow().len() > 1, "it is scheduled again");
            }
        }
    };
    check(false, Ok(json!({})), true, Ok(()));
    check(false, Err("EOF".to_owned()), true, Ok(()));
    check(false, Ok(json!({"Error": "no"})), false, Err(Some("no")));
    // It says that it has bound the pod, and has not.
    check(false, Ok(json!({})), false, Err(None));
    check(true, Ok(json!({"Error": "no"})), false, Ok(()));
}

#[test]
fn victims_are_its_choice() {
    let check = |more: fn(&mut Extender), answer: fn(&Value) -> Answered, expect: Result<&str, &str>| {
        let preempts = extender(|e| {
            (e.filter_verb, e.preempt_verb) = (String::new(), "preempt".to_owned());
            more(e);
        });
        let mut c = cluster(&["n1", "n2"], vec![preempts], move |question| {
            assert_eq!(question.verb, Verb::Preempt);
            Some(answer(&question.body))
        });
        for (pod, node) in [("low1", "n1"), ("low2", "n2")] {
            c.pod(pod, "2");
            bind(&mut c, pod, node);
        }
        let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}}});
        c.create(json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 10,
            "metadata": {"name": "high"}}));
        c.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "high", "namespace": "default"},
            "spec": {"priorityClassName": "high", "containers": [container]}}));
        c.run(Duration::from_secs(3));
        let gone = |name: &str| !c.pods().iter().any(|p| p.name() == name && p.meta.deletion_timestamp.is_none());
        match expect {
            Ok(victim) => {
                let other = if victim == "low1" { "low2" } else { "low1" };
                assert!(gone(victim) && !gone(other), "{:?}", condition(&c, "high"));
            }
            Err(why) => {
                assert!(!gone("low1") && !gone("low2"));
                let message = format!("0/2 nodes are available: 2 Insufficient cpu. preemption: {why}");
                assert_eq!(condition(&c, "high").1, message);
            }
        }
    };
    fn only(body: &Value, node: &str) -> Answered {
        Ok(json!({"NodeNameToMetaVictims": {node: body["NodeNameToMetaVictims"][node]}}))
    }
    check(|_| {}, |body| only(body, "n1"), Ok("low1"));
    check(|_| {}, |body| only(body, "n2"), Ok("low2"));
    check(
        |e| e.node_cache_capable = false,
        |body| {
            let uid = &body["NodeNameToVictims"]["n2"]["Pods"][0]["metadata"]["uid"];
            Ok(json!({"NodeNameToMetaVictims": {"n2": {"Pods": [{"UID": uid}]}}}))
        },
        Ok("low2"),
    );
    check(|_| {}, |_| Ok(json!({})), Err("no candidate node for preemption"));
    check(|_| {}, |_| Err("EOF".to_owned()), Err("EOF"));
    let strange = |_: &Value| Ok(json!({"NodeNameToMetaVictims": {"n1": {"Pods": [{"UID": "u9"}]}}}));
    let why = "extender: http://e claims to preempt pod (UID: u9) on node: n1, but the pod is not found on that node";
    check(|_| {}, strange, Err(why));
}

/// A leader that is deposed forgets what it has asked; the next one asks anew.
#[test]
fn an_answer_after_the_leadership_decides_nothing() {
    let mut c = cluster(&["n1"], vec![extender(|e| e.timeout = Duration::from_secs(600))], |_| None);
    c.start("b", true);
    c.pod("p", "1");
    c.run(Duration::from_secs(5));
    let leader = usize::from(!c.lines[0].process.is_leader(c.now));
    c.resign(leader);
    c.tell(leader, super::In::Extender { asked: 1, answer: Ok(json!({"NodeNames": ["n1"]})) });
    c.run(Duration::from_millis(500));
    assert_eq!(node_of(&c, "p"), None, "it leads no more");
    c.extends = Box::new(|_| Some(Ok(json!({"NodeNames": ["n1"]}))));
    c.run(Duration::from_secs(60));
    assert_eq!(node_of(&c, "p").as_deref(), Some("n1"), "whoever leads has asked again");
    assert_eq!(c.events("Scheduled").len(), 1);
}
