//! Get and list: freshness, selectors, pages.

use std::rc::Rc;

use super::{Cluster, cluster, config_map, key, pod, refusal, request, set_data};
use crate::api::{Call, ListOptions, Reason, Response, Status};
use crate::limits;
use crate::machine::Machine;
use crate::object::{FieldSelector, Kind, Revision, Selector};
use crate::store::{self, StoreClient, StoreRequest};

fn maps(c: &mut Cluster, names: &[&str]) {
    for name in names {
        c.create(config_map(name)).unwrap();
    }
}

fn at(rv: u64) -> ListOptions {
    ListOptions { rv: Some(Revision(rv)), ..ListOptions::default() }
}

#[test]
fn a_list_is_as_fresh_as_it_asks() {
    let mut c = cluster(2);
    maps(&mut c, &["a"]);
    c.lagging[1] = true;
    maps(&mut c, &["b"]);
    let newest = c.store.revision();
    assert_eq!(c.list_at(1, Kind::CONFIG_MAP, at(0)).unwrap(), ["a"], "whatever the cache has");
    // A read at a newer revision waits for the cache.
    let list = |options| request(Call::List { kind: Kind::CONFIG_MAP, namespace: Rc::from("default"), options });
    let waiting = [c.send(1, list(ListOptions::default())), c.send(1, list(at(newest.0)))];
    let get = c.send(1, request(Call::Get { key: key(Kind::CONFIG_MAP, "b"), rv: Some(newest) }));
    assert!(waiting.iter().all(|id| c.reply(*id).is_none()));
    assert!(c.reply(get).is_none());
    c.catch_up(1);
    for id in waiting {
        let Response::List { items, rv, .. } = c.reply(id).unwrap().unwrap() else { panic!() };
        assert_eq!((items.len(), rv), (2, newest));
    }
    assert!(c.reply(get).unwrap().is_ok());
}

#[test]
fn a_get_without_a_revision_comes_from_the_store() {
    let mut c = cluster(2);
    c.lagging[1] = true;
    maps(&mut c, &["a"]);
    let get = |rv| Call::Get { key: key(Kind::CONFIG_MAP, "a"), rv };
    assert!(c.call_at(1, get(None)).is_ok());
    assert_eq!(refusal(c.call_at(1, get(Some(Revision(0))))).0, Reason::NotFound);
}

#[test]
fn what_asks_for_the_future_is_told_so() {
    let mut c = cluster(1);
    let newest = c.store.revision();
    let list = Call::List { kind: Kind::POD, namespace: Rc::from(""), options: at(newest.0 + 5) };
    let id = c.send(0, request(list));
    c.tick(limits::CACHE_WAIT.as_secs() + 1);
    let status = c.reply(id).unwrap().unwrap_err();
    assert_eq!(status.reason.code(), 504);
    let text = format!("Timeout: Too large resource version: {}, current: {newest}", newest.0 + 5);
    assert_eq!(*status.message, *text);
}

#[test]
fn selectors_select() {
    let mut c = cluster(1);
    for name in ["a", "b", "c"] {
        let made = c.create(pod(name)).unwrap();
        if name != "c" {
            c.bind(0, &made, if name == "a" { "n1" } else { "n2" }).unwrap();
        }
    }
    for (labels, fields, expect) in [
        ("", "", vec!["a", "b", "c"]),
        ("app=web", "spec.nodeName=n1", vec!["a"]),
        ("", "spec.nodeName=", vec!["c"]),
        ("", "spec.nodeName!=", vec!["a", "b"]),
        ("", "metadata.name=b", vec!["b"]),
        ("", "metadata.name=b,spec.nodeName=n1", vec![]),
        ("app!=web", "", vec![]),
    ] {
        let (labels, fields) = (Selector::parse(labels).unwrap(), FieldSelector::parse(fields).unwrap());
        let options = ListOptions { labels, fields: fields.clone(), ..ListOptions::default() };
        assert_eq!(c.list_at(0, Kind::POD, options).unwrap(), expect, "{fields:?}");
    }
    let fields = FieldSelector::equal("spec.color", "red");
    let refused = refusal(c.list_at(0, Kind::POD, ListOptions { fields, ..ListOptions::default() }));
    assert_eq!(refused, (Reason::BadRequest, "field label not supported: spec.color".to_owned()));
}

fn page(c: &mut Cluster, options: ListOptions) -> Result<(Vec<String>, Revision, Option<String>, Option<u64>), Status> {
    let call = Call::List { kind: Kind::CONFIG_MAP, namespace: Rc::from("default"), options };
    let Response::List { items, rv, rest } = c.call(call)? else { panic!() };
    let (continue_from, remaining) = rest.map(|rest| (rest.continue_from, rest.remaining)).unzip();
    Ok((items.iter().map(|o| o.name().to_owned()).collect(), rv, continue_from, remaining.flatten()))
}

fn pages(limit: usize, continue_from: Option<String>) -> ListOptions {
    ListOptions { limit, continue_from, ..ListOptions::default() }
}

#[test]
fn pages_are_of_one_revision() {
    let mut c = cluster(1);
    maps(&mut c, &["a", "b", "c", "d", "e"]);
    let (names, rv, token, remaining) = page(&mut c, pages(2, None)).unwrap();
    assert_eq!((names, remaining), (vec!["a".to_owned(), "b".to_owned()], Some(3)));
    // Changes in between do not show.
    c.delete(&key(Kind::CONFIG_MAP, "d"), Default::default()).unwrap();
    maps(&mut c, &["bb"]);
    let (names, rv2, token, remaining) = page(&mut c, pages(2, token)).unwrap();
    assert_eq!((names, rv2, remaining), (vec!["c".to_owned(), "d".to_owned()], rv, Some(1)));
    let (names, rv3, token, remaining) = page(&mut c, pages(2, token)).unwrap();
    assert_eq!((names, rv3, token, remaining), (vec!["e".to_owned()], rv, None, None));
    assert_eq!(page(&mut c, pages(0, None)).unwrap().0, ["a", "b", "bb", "c", "e"]);
}

#[test]
fn a_page_ends_exactly() {
    let mut c = cluster(1);
    maps(&mut c, &["a", "b", "c", "d"]);
    let (_, _, token, _) = page(&mut c, pages(2, None)).unwrap();
    let (names, _, token, remaining) = page(&mut c, pages(2, token)).unwrap();
    assert_eq!((names, token, remaining), (vec!["c".to_owned(), "d".to_owned()], None, None));
}

#[test]
fn pages_filter_over_many_reads_of_the_store() {
    let mut c = cluster(1);
    let many = 2 * limits::PAGE_SIZE + 10;
    for i in 0..many {
        let mut manifest = config_map(&format!("m{i:05}"));
        manifest["metadata"]["labels"] = serde_json::json!({"last": (i >= many - 3).to_string()});
        c.create(manifest).unwrap();
    }
    let labels = Selector::parse("last=true").unwrap();
    let select = |limit, continue_from| ListOptions { labels: labels.clone(), ..pages(limit, continue_from) };
    let (names, _, token, remaining) = page(&mut c, select(1, None)).unwrap();
    assert_eq!((names.len(), remaining), (1, None), "what is left of a selection is not known");
    let exact = ListOptions { rv: Some(c.store.revision()), exact: true, ..select(2, None) };
    assert_eq!(page(&mut c, exact).unwrap().0.len(), 2);
    let (names, _, token, _) = page(&mut c, select(5, token)).unwrap();
    assert_eq!((names.len(), token), (2, None));
}

#[test]
fn an_old_page_expires_with_its_revision() {
    let mut c = cluster(1);
    maps(&mut c, &["a", "b", "c"]);
    let (_, rv, token, _) = page(&mut c, pages(1, None)).unwrap();
    maps(&mut c, &["d"]);
    let compact = StoreRequest::Compact { at: c.store.revision() };
    c.store.handle(c.now, store::In::Request(StoreClient(9), 1, compact), &mut Vec::new());
    let status = page(&mut c, pages(1, token)).unwrap_err();
    assert_eq!((status.reason.code(), status.reason), (410, Reason::Expired));
    assert!(
        status.message.starts_with("The provided continue parameter is too old to display a consistent list result.")
    );
    let newest = status.to_json()["metadata"]["continue"].as_str().map(str::to_owned);
    let (names, at, rest, _) = page(&mut c, pages(2, newest)).unwrap();
    assert_eq!((names, at), (vec!["b".to_owned(), "c".to_owned()], c.store.revision()));
    assert_eq!(page(&mut c, pages(2, rest)).unwrap().0, ["d"]);
    let exact = ListOptions { rv: Some(rv), exact: true, ..ListOptions::default() };
    let text = "The resourceVersion for the provided list is too old.";
    assert_eq!(refusal(page(&mut c, exact)), (Reason::Expired, text.to_owned()));
    assert_eq!(refusal(page(&mut c, pages(1, Some("nonsense".to_owned())))).0, Reason::BadRequest);
}

#[test]
fn an_exact_list_is_of_its_revision() {
    let mut c = cluster(1);
    let made = c.create(config_map("a")).unwrap();
    let mut changed = made.clone();
    set_data(&mut changed, "2");
    c.update(changed).unwrap();
    maps(&mut c, &["b"]);
    let exact = |rv| ListOptions { rv, exact: true, ..ListOptions::default() };
    let (names, rv, ..) = page(&mut c, exact(Some(made.rv()))).unwrap();
    assert_eq!((names, rv), (vec!["a".to_owned()], made.rv()));
    for rv in [None, Some(Revision(0))] {
        assert_eq!(refusal(page(&mut c, exact(rv))).0, Reason::BadRequest);
    }
    let newest = c.store.revision();
    assert_eq!(refusal(page(&mut c, exact(Some(Revision(newest.0 + 1))))).0, Reason::Timeout);
}
