//! Watches: what each receives, and how they start, resume and end.

use proptest::{collection, prop_assert_eq, proptest};

use super::{cluster, config_map, key, pod, refusal, request, set_data, set_phase};
use crate::api::{Call, Reason, ToServer, WatchOptions};
use crate::apiserver::{ConnId, In};
use crate::limits;
use crate::machine::Machine;
use crate::object::{FieldSelector, Kind, Revision, Selector};

fn from(rv: Revision) -> WatchOptions {
    WatchOptions { rv, ..WatchOptions::default() }
}

fn fields(text: &str) -> WatchOptions {
    WatchOptions { fields: FieldSelector::parse(text).unwrap(), ..WatchOptions::default() }
}

#[test]
fn a_watch_from_zero_begins_with_everything() {
    let mut c = cluster(1);
    c.create(config_map("a")).unwrap();
    let plain = c.watch_at(0, Kind::CONFIG_MAP, "default", WatchOptions::default());
    let initial = WatchOptions { send_initial_events: true, ..WatchOptions::default() };
    let initial = c.watch_at(0, Kind::CONFIG_MAP, "", initial);
    assert_eq!((c.seen(plain), c.seen(initial)), ("+a".to_owned(), "+a !".to_owned()));
    let made = c.create(config_map("b")).unwrap();
    c.delete(&made.key(), Default::default()).unwrap();
    assert_eq!((c.seen(plain), c.seen(initial)), ("+b -b".to_owned(), "+b -b".to_owned()));
}

#[test]
fn a_watch_list_is_consistent() {
    let mut c = cluster(2);
    c.lagging[1] = true;
    c.create(config_map("a")).unwrap();
    let options = WatchOptions { send_initial_events: true, ..WatchOptions::default() };
    let watch = c.watch_at(1, Kind::CONFIG_MAP, "", options);
    assert_eq!(c.seen(watch), "");
    c.catch_up(1);
    assert_eq!(c.seen(watch), "+a !");
}

#[test]
fn a_watch_resumes_where_it_was() {
    for (resume, expect) in [(0, "+b -a"), (1, "-a"), (2, "")] {
        let mut c = cluster(1);
        let a = c.create(config_map("a")).unwrap();
        let b = c.create(config_map("b")).unwrap();
        let gone = c.delete(&a.key(), Default::default()).unwrap();
        let watch = c.watch_at(0, Kind::CONFIG_MAP, "", from([a.rv(), b.rv(), gone.rv()][resume]));
        assert_eq!(c.seen(watch), expect);
        c.create(config_map("c")).unwrap();
        assert_eq!(c.seen(watch), "+c");
    }
}

#[test]
fn a_watch_that_resumes_sees_no_other_namespace() {
    let mut c = cluster(1);
    let a = c.create(config_map("a")).unwrap();
    for name in ["b", "c"] {
        let mut elsewhere = config_map(name);
        elsewhere["metadata"]["namespace"] = "kube-system".into();
        c.create(elsewhere).unwrap();
    }
    c.create(config_map("d")).unwrap();
    for (namespace, expect) in [("default", "+d"), ("kube-system", "+b +c"), ("", "+b +c +d")] {
        let watch = c.watch_at(0, Kind::CONFIG_MAP, namespace, from(a.rv()));
        assert_eq!(c.seen(watch), expect, "{namespace:?}");
    }
}

#[test]
fn a_watch_of_the_past_is_too_old() {
    let mut c = cluster(2);
    let first = c.create(config_map("a")).unwrap();
    let mut last = first.clone();
    for i in 1..limits::WATCH_CACHE_EVENTS + limits::FORGOTTEN_AT_ONCE {
        set_data(&mut last, &i.to_string());
        last = c.update(last).unwrap();
    }
    let watch = c.watch_at(0, Kind::CONFIG_MAP, "", from(first.rv()));
    let (reason, text) = refusal(c.reply(watch).unwrap());
    assert_eq!((reason, reason.code()), (Reason::Expired, 410));
    let oldest = first.rv().0 + limits::FORGOTTEN_AT_ONCE as u64 - 1;
    assert_eq!(text, format!("too old resource version: {} ({oldest})", first.rv()));
    let watch = c.watch_at(0, Kind::CONFIG_MAP, "", from(Revision(oldest)));
    assert_eq!(c.seen(watch).split(' ').count(), limits::WATCH_CACHE_EVENTS);
    // Each kind has its own ring of events.
    let other = c.watch_at(0, Kind::POD, "", from(first.rv()));
    assert!(c.reply(other).is_none());
}

#[test]
fn each_watch_sees_its_own() {
    let mut c = cluster(1);
    let n1 = c.watch_at(0, Kind::POD, "", fields("spec.nodeName=n1"));
    let unbound = c.watch_at(0, Kind::POD, "", fields("spec.nodeName="));
    let named = c.watch_at(0, Kind::POD, "default", fields("metadata.name=b"));
    let all = c.watch_at(0, Kind::POD, "", WatchOptions::default());
    let elsewhere = c.watch_at(0, Kind::POD, "kube-system", WatchOptions::default());
    let running = c.watch_at(0, Kind::POD, "", fields("status.phase=Running"));
    let labels = Selector::parse("app=api").unwrap();
    let labelled = c.watch_at(0, Kind::POD, "", WatchOptions { labels, ..WatchOptions::default() });
    c.running_pod("a", "n1");
    c.running_pod("b", "n2");
    let mut a = c.get(&key(Kind::POD, "a")).unwrap();
    a.meta_mut().labels = Some([("app".to_owned(), "api".to_owned())].into());
    let mut a = c.update(a).unwrap();
    set_phase(&mut a, "Failed");
    c.update_status(a).unwrap();
    c.delete(&key(Kind::POD, "a"), Default::default()).unwrap();
    for (watch, expect) in [
        (n1, "+a ~a ~a ~a -a"),
        (unbound, "+a -a +b -b"),
        (named, "+b ~b ~b"),
        (all, "+a ~a ~a +b ~b ~b ~a ~a -a"),
        (elsewhere, ""),
        (running, "+a +b ~a -a"),
        (labelled, "+a ~a -a"),
    ] {
        assert_eq!(c.seen(watch), expect);
    }
}

#[test]
fn a_deletion_carries_its_own_revision() {
    let mut c = cluster(1);
    let made = c.create(config_map("a")).unwrap();
    let watch = c.watch_at(0, Kind::CONFIG_MAP, "", from(made.rv()));
    c.delete(&made.key(), Default::default()).unwrap();
    let events = c.watched.remove(&watch).unwrap();
    assert_eq!(events[0].rv(), c.store.revision());
    assert!(events[0].rv() > made.rv());
}

#[test]
fn bookmarks_tell_of_what_did_not_concern() {
    let mut c = cluster(1);
    let options = WatchOptions { bookmarks: true, ..fields("spec.nodeName=n1") };
    let asked = c.watch_at(0, Kind::POD, "", options.clone());
    let not_asked = c.watch_at(0, Kind::POD, "", fields("spec.nodeName=n1"));
    let interval = limits::BOOKMARK_INTERVAL.as_secs();
    c.tick(interval + 1);
    assert_eq!(c.seen(asked), "", "nothing has happened");
    c.create(pod("a")).unwrap();
    c.create(config_map("x")).unwrap();
    c.tick(interval + 1);
    assert_eq!((c.seen(asked), c.seen(not_asked)), ("*".to_owned(), String::new()));
    c.create(config_map("y")).unwrap();
    c.tick(interval + 1);
    assert_eq!(c.seen(asked), "", "nothing has happened to the kind");
    // A watch that has received the last event itself needs no bookmark.
    c.running_pod("b", "n1");
    assert_eq!(c.seen(asked), "+b ~b");
    c.tick(interval + 1);
    assert_eq!(c.seen(asked), "");
}

#[test]
fn a_watch_that_times_out_has_a_bookmark_before() {
    let check = |timeout: Option<u64>, expect: u64| {
        let mut c = cluster(1);
        let timeout = timeout.map(std::time::Duration::from_secs);
        let options = WatchOptions { bookmarks: true, timeout, ..fields("spec.nodeName=n1") };
        // Another one, whose bookmarks come later.
        c.watch_at(0, Kind::POD, "", WatchOptions { bookmarks: true, ..WatchOptions::default() });
        let watch = c.watch_at(0, Kind::POD, "", options);
        c.create(pod("a")).unwrap();
        c.tick(expect - 1);
        assert_eq!(c.seen(watch), "", "{timeout:?}");
        c.tick(2);
        assert_eq!(c.seen(watch), "*", "{timeout:?}");
    };
    check(Some(10), 8);
    check(Some(600), 60);
    check(Some(1), 60);
    check(None, 60);
}

#[test]
fn watches_end_when_they_are_cancelled() {
    let mut c = cluster(1);
    let a = c.watch_at(0, Kind::CONFIG_MAP, "", WatchOptions::default());
    let b = c.watch_at(0, Kind::CONFIG_MAP, "default", WatchOptions::default());
    assert_eq!(c.servers[0].watches(Kind::CONFIG_MAP), 2);
    let cancel = In::Client(ConnId(1), ToServer::Cancel(crate::api::ReqId(a)));
    c.servers[0].handle(c.now, cancel, &mut Vec::new());
    c.create(config_map("x")).unwrap();
    assert_eq!((c.seen(a), c.seen(b)), (String::new(), "+x".to_owned()));
    c.servers[0].handle(c.now, In::Closed(ConnId(1)), &mut Vec::new());
    assert_eq!(c.servers[0].watches(Kind::CONFIG_MAP), 0);
    c.create(config_map("y")).unwrap();
    assert_eq!(c.seen(b), "");
}

#[test]
fn unknown_fields_are_refused() {
    let mut c = cluster(1);
    let id = c.send(0, request(Call::Watch { kind: Kind::POD, namespace: "".into(), options: fields("a.b=c") }));
    assert_eq!(refusal(c.reply(id).unwrap()).0, Reason::BadRequest);
}

/// Performs random writes and checks that a watch, resumed at any point, leads to the final list.
fn replayed(writes: Vec<(u8, u8)>, resume: usize) -> Result<(), proptest::test_runner::TestCaseError> {
    let mut c = cluster(1);
    let start = c.store.revision();
    let nodes = ["n1", "n2"];
    let mut watches = vec![c.watch_at(0, Kind::POD, "", from(start))];
    let on: Vec<u64> =
        nodes.iter().map(|n| c.watch_at(0, Kind::POD, "", fields(&format!("spec.nodeName={n}")))).collect();
    for (step, (name, what)) in writes.iter().enumerate() {
        let name = format!("p{name}");
        match (c.get(&key(Kind::POD, &name)), what) {
            (None, _) => drop(c.create(pod(&name))),
            (Some(p), 0 | 1) => drop(c.bind(0, &p, nodes[usize::from(*what)])),
            (Some(mut p), 2) => {
                set_phase(&mut p, "Failed");
                drop(c.update_status(p));
            }
            (Some(p), _) => drop(c.delete(&p.key(), Default::default())),
        }
        if step == resume {
            watches.push(c.watch_at(0, Kind::POD, "", from(start)));
        }
    }
    let mut rebuilt: Vec<Vec<String>> = Vec::new();
    for watch in watches.into_iter().chain(on) {
        let mut names = std::collections::BTreeSet::new();
        for event in c.seen(watch).split(' ').filter(|e| !e.is_empty()) {
            let fits = match &event[..1] {
                "+" => names.insert(event[1..].to_owned()),
                "~" => names.contains(&event[1..]),
                _ => names.remove(&event[1..]),
            };
            prop_assert_eq!(fits, true, "{} out of turn", event);
        }
        rebuilt.push(names.into_iter().collect());
    }
    let listed = c.list_at(0, Kind::POD, Default::default()).unwrap();
    let on_nodes = rebuilt.split_off(rebuilt.len() - 2);
    for names in rebuilt {
        prop_assert_eq!(&names, &listed);
    }
    for (node, names) in nodes.iter().zip(on_nodes) {
        let fields = FieldSelector::equal("spec.nodeName", node);
        let listed = c.list_at(0, Kind::POD, crate::api::ListOptions { fields, ..Default::default() }).unwrap();
        prop_assert_eq!(names, listed);
    }
    Ok(())
}

proptest! {
    #[test]
    fn watches_lead_to_what_is_listed(writes in collection::vec((0u8..4, 0u8..4), 1..40), resume in 0usize..40) {
        replayed(writes, resume)?;
    }
}
