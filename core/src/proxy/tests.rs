use super::slices::SliceIndex;
use super::{
    Entry, Frontend, Host, Out, Placement, Protocol, ProxyConfig, ServiceProxy, ServiceTable, TableChange, lines,
};
use crate::api::{FromServer, Response, ToServer, WatchEvent};
use crate::client::Change;
use crate::controllers::fake_cluster::{Fake, at, object, service, with};
use crate::machine::Machine;
use crate::object::{EndpointSlice, Kind, Object, ObjectKey, Revision};
use crate::random::Rng;
use k8s_openapi::api::{core::v1 as core_v1, discovery::v1 as discovery_v1};
use proptest::prelude::{any, proptest};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;

fn place() -> Placement {
    Placement { node_name: "n1".into(), zone: "a".into() }
}

/// An endpoint `10.0.0.<n>` in state `r` (ready), `t` (terminating but serving) or `x` (neither), with a node and a
/// zone hint.
fn endpoint(n: u8, state: char, node: &str, hint: Option<&str>) -> Value {
    let hints = hint.map(|zone| json!({"forZones":[{"name":zone}]}));
    json!({"addresses":[format!("10.0.0.{n}")],"nodeName":node,"hints":hints,
        "conditions":{"ready":state == 'r',"serving":state != 'x',"terminating":state == 't'}})
}

fn slice(name: &str, service: &str, endpoints: &[Value]) -> Object {
    object(json!({"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4",
        "metadata":{"name":name,"namespace":"d","labels":{"kubernetes.io/service-name":service}},
        "ports":[{"name":"http","port":8080,"protocol":"TCP"}],"endpoints":endpoints}))
}

fn compute(service: &Object, slices: &[Object]) -> Vec<(Frontend, Entry)> {
    let slices: Vec<&EndpointSlice> = slices.iter().filter_map(Object::get::<discovery_v1::EndpointSlice>).collect();
    lines(&place(), &service.key(), service.get::<core_v1::Service>(), &slices)
}

/// `host:port -> last octets of the backends`; `!` if connections are rejected, `-` if they are dropped; `hidden` if
/// the backends do not see the client's address.
fn shape(lines: &[(Frontend, Entry)]) -> Vec<String> {
    let text = |(f, e): &(Frontend, Entry)| {
        let host = match f.host {
            Host::Ip(ip) => ip.to_string(),
            Host::NodeV4 => "node".to_owned(),
            Host::NodeV6 => "node6".to_owned(),
        };
        let octet = |b: &super::Backend| b.ip.to_string().rsplit('.').next().unwrap().to_owned();
        let mut to = e.backends.iter().map(octet).collect::<Vec<_>>().join(",");
        if to.is_empty() {
            to = if e.when_empty == super::WhenEmpty::Reject { "!" } else { "-" }.to_owned();
        }
        format!("{host}:{} -> {to}{}", f.port, if e.masquerade { " hidden" } else { "" })
    };
    lines.iter().map(text).collect()
}

#[test]
fn which_backends_a_service_has() {
    let none: Option<&str> = None;
    let mixed = vec![
        endpoint(1, 'r', "n1", none),
        endpoint(2, 'r', "n2", none),
        endpoint(3, 't', "n1", none),
        endpoint(4, 'x', "n1", none),
    ];
    let leaving = vec![endpoint(1, 't', "n1", none), endpoint(2, 't', "n2", none), endpoint(3, 'x', "n1", none)];
    let elsewhere = vec![endpoint(2, 'r', "n2", none)];
    let hinted = vec![endpoint(1, 'r', "n1", Some("a")), endpoint(2, 'r', "n2", Some("b"))];
    let half = vec![endpoint(1, 'r', "n1", Some("a")), endpoint(2, 'r', "n2", none)];
    let other_zone = vec![endpoint(2, 'r', "n2", Some("b"))];
    let local = json!({"spec":{"internalTrafficPolicy":"Local"}});
    let node_port = json!({"spec":{"type":"NodePort","ports":[{"name":"http","port":80,"nodePort":30080}]}});
    let mut outside_local = node_port.clone();
    outside_local["spec"]["externalTrafficPolicy"] = json!("Local");
    let balanced = json!({"spec":{"type":"LoadBalancer","externalIPs":["9.9.9.9"]},
        "status":{"loadBalancer":{"ingress":[{"ip":"8.8.8.8"},{"ip":"7.7.7.7","ipMode":"Proxy"}]}}});
    let cases: Vec<(&str, Value, Vec<Value>, Vec<&str>)> = vec![
        ("ready ones", json!({}), mixed.clone(), vec!["10.96.0.1:80 -> 1,2"]),
        ("none", json!({}), vec![], vec!["10.96.0.1:80 -> !"]),
        ("only terminating", json!({}), leaving.clone(), vec!["10.96.0.1:80 -> 1,2"]),
        ("local", local.clone(), mixed.clone(), vec!["10.96.0.1:80 -> 1"]),
        ("local, terminating", local.clone(), leaving, vec!["10.96.0.1:80 -> 1"]),
        ("local, elsewhere", local, elsewhere.clone(), vec!["10.96.0.1:80 -> -"]),
        ("node port", node_port, mixed.clone(), vec!["10.96.0.1:80 -> 1,2", "node:30080 -> 1,2 hidden"]),
        ("external local", outside_local.clone(), mixed.clone(), vec!["10.96.0.1:80 -> 1,2", "node:30080 -> 1"]),
        ("external local, elsewhere", outside_local, elsewhere, vec!["10.96.0.1:80 -> 2", "node:30080 -> -"]),
        (
            "load balancer",
            balanced,
            mixed.clone(),
            vec!["10.96.0.1:80 -> 1,2", "9.9.9.9:80 -> 1,2 hidden", "8.8.8.8:80 -> 1,2 hidden"],
        ),
        ("hints", json!({}), hinted, vec!["10.96.0.1:80 -> 1"]),
        ("hints on some", json!({}), half, vec!["10.96.0.1:80 -> 1,2"]),
        ("hints for others", json!({}), other_zone, vec!["10.96.0.1:80 -> 2"]),
        ("headless", json!({"spec":{"clusterIP":"None","clusterIPs":["None"]}}), mixed.clone(), vec![]),
        ("external name", json!({"spec":{"type":"ExternalName"}}), mixed.clone(), vec![]),
        ("another port", json!({"spec":{"ports":[{"name":"x","port":81}]}}), mixed, vec!["10.96.0.1:81 -> !"]),
    ];
    for (what, patch, endpoints, expect) in cases {
        let found = compute(&with(service("s"), patch), &[slice("s-1", "s", &endpoints)]);
        assert_eq!(shape(&found), expect, "{what}");
    }
}

#[test]
fn affinity_ports_and_doubles() {
    let sticky = with(service("s"), json!({"spec":{"sessionAffinity":"ClientIP"}}));
    let two = [slice("s-1", "s", &[endpoint(1, 'x', "n1", None)]), slice("s-2", "s", &[endpoint(1, 'r', "n1", None)])];
    let found = compute(&sticky, &two);
    assert_eq!(found[0].1.affinity.unwrap().as_secs(), 10_800);
    assert_eq!(found[0].1.backends.len(), 1, "in two slices, ready in one");
    assert_eq!(found[0].1.backends[0].port, 8080);
    assert_eq!(found[0].0.protocol, Protocol::Tcp);
}

/// A table that is updated incrementally, and the driver's copy of it.
#[derive(Default)]
struct Kept {
    table: ServiceTable,
    index: SliceIndex,
    copy: BTreeMap<Frontend, Rc<Entry>>,
}

impl Kept {
    fn change(&mut self, fake: &Fake, change: &Change) {
        let mut dirty = vec![];
        if change.key.kind == Kind::SERVICE {
            dirty.push(change.key.clone());
        } else {
            self.index.changed(change, |k| dirty.push(k));
        }
        while let Some(key) = dirty.pop() {
            let slices = self.index.of(&key, &fake.views);
            let new = lines(&place(), &key, fake.views.get::<core_v1::Service>(&key), &slices);
            let mut changes = Vec::new();
            dirty.extend(self.table.put(&key, new, &mut changes));
            for change in changes {
                match change {
                    TableChange::Set(f, e) => {
                        self.copy.insert(f, e);
                    }
                    TableChange::Remove(f) => assert!(self.copy.remove(&f).is_some(), "only what was there is removed"),
                    TableChange::Replace(_) => panic!("the table itself never replaces"),
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn differences_add_up_to_the_table(events in proptest::collection::vec((0u8..3, 0u8..6, any::<u8>()), 1..60)) {
        let kinds = [Kind::SERVICE, Kind::ENDPOINT_SLICE];
        let mut fake = Fake::new(&kinds, []);
        let mut kept = Kept::default();
        for (what, i, detail) in events {
            let s = format!("s{}", i % 3);
            let object = if what == 0 {
                // Several services may claim the same external IP.
                with(service(&s), json!({"spec":{"clusterIPs":[format!("10.96.0.{i}")],"externalIPs":[format!("9.9.9.{}", detail % 3)]}}))
            } else {
                let state = ['r', 't', 'x'][usize::from(detail / 4 % 3)];
                let endpoints: Vec<Value> =
                    (0..detail % 4).map(|n| endpoint(n + i, state, "n1", None)).collect();
                slice(&format!("slice{i}"), &format!("s{}", detail % 3), &endpoints)
            };
            let key = object.key();
            let old = fake.views.view(key.kind).get(&key).cloned();
            if detail % 5 == 0 {
                fake.remove(&key);
            } else {
                fake.put(object);
            }
            let new = fake.views.view(key.kind).get(&key).cloned();
            kept.change(&fake, &Change { key, old, new });
        }
        let mut scratch = Kept::default();
        for kind in kinds.iter().rev() {
            for (key, o) in fake.views.view(*kind).iter() {
                scratch.change(&fake, &Change { key: key.clone(), old: None, new: Some(o.clone()) });
            }
        }
        let table: BTreeMap<Frontend, Rc<Entry>> = kept.table.iter().map(|(f, e)| (*f, Rc::clone(e))).collect();
        assert_eq!(table, kept.copy);
        assert_eq!(table, scratch.copy);
    }
}

/// Returns the table changes in `out`, and replies to its requests with these objects as inputs.
fn answer(out: &mut Vec<Out>, objects: &[Object]) -> (Vec<FromServer>, Vec<TableChange>) {
    let (mut replies, mut tables) = (Vec::new(), Vec::new());
    for o in out.drain(..) {
        match o {
            Out::Table(change) => tables.push(change),
            Out::Api(ToServer::Request(id, request)) => {
                if let crate::api::Call::List { kind, .. } = request.call {
                    let items = objects.iter().filter(|o| o.kind() == kind).cloned().collect();
                    let response = Response::List { items: Rc::new(items), rv: Revision(10), rest: None };
                    replies.push(FromServer::Reply(id, Ok(response)));
                } else {
                    let event = if objects.is_empty() {
                        WatchEvent::Bookmark { rv: Revision(11), initial_events_end: true }
                    } else {
                        let mut changed = slice("s-1", "s", &[endpoint(2, 'r', "n1", None)]);
                        changed.set_rv(Revision(11));
                        WatchEvent::Modified(changed)
                    };
                    if matches!(request.call, crate::api::Call::Watch { kind: Kind::ENDPOINT_SLICE, .. }) {
                        replies.push(FromServer::Watch(id, event));
                    }
                }
            }
            Out::Api(ToServer::Cancel(_)) => {}
        }
    }
    (replies, tables)
}

#[test]
fn the_machine_replaces_once_and_then_tells_differences() {
    let mut svc = service("s");
    let mut first = slice("s-1", "s", &[endpoint(1, 'r', "n1", None)]);
    svc.set_rv(Revision(5));
    first.set_rv(Revision(6));
    let objects = [svc, first];
    let mut proxy = ServiceProxy::new(ProxyConfig { node_name: "n1".into(), zone: "".into() }, Rng::from_seed(1));
    let mut out = Vec::new();
    let (mut tables, mut secs) = (Vec::new(), 0);
    let mut inputs = Vec::new();
    for _ in 0..20 {
        let now = at(secs);
        for input in std::mem::take(&mut inputs) {
            proxy.handle(now, input, &mut out);
        }
        proxy.handle_timeout(now, &mut out);
        let (replies, told) = answer(&mut out, &objects);
        inputs = replies;
        tables.extend(told);
        secs += 1;
    }
    let frontend = Frontend { host: Host::Ip("10.96.0.1".parse().unwrap()), port: 80, protocol: Protocol::Tcp };
    let last = |e: &Rc<Entry>| e.backends.iter().map(|b| b.ip.to_string()).collect::<Vec<_>>();
    match tables.as_slice() {
        [TableChange::Replace(all), TableChange::Set(f, entry)] => {
            assert_eq!((all.len(), last(&all[0].1)), (1, vec!["10.0.0.1".to_owned()]));
            assert_eq!((*f, last(entry)), (frontend, vec!["10.0.0.2".to_owned()]));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(last(proxy.table().get(&frontend).unwrap()), ["10.0.0.2"]);
    let key = ObjectKey::new(Kind::SERVICE, "d", "s");
    assert!(proxy.views().get::<core_v1::Service>(&key).is_some());
}
