use super::records::{RecordData, records, reverse_name};
use super::zone::{Answer, RecordChange, RecordType, Zone};
use super::{ClusterDns, DnsConfig, Out};
use crate::api::{Call, FromServer, Response, ToServer};
use crate::client::Change;
use crate::controllers::fake_cluster::{Fake, at, object, service, with};
use crate::machine::Machine;
use crate::object::{EndpointSlice, Kind, Object, Revision};
use crate::proxy::slices::SliceIndex;
use crate::random::Rng;
use k8s_openapi::api::{core::v1 as core_v1, discovery::v1 as discovery_v1};
use proptest::prelude::{any, proptest};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;

const D: &str = "cluster.local";

fn headless(name: &str) -> Object {
    with(service(name), json!({"spec":{"clusterIP":"None","clusterIPs":["None"]}}))
}

fn slice(name: &str, service: &str, endpoints: Value) -> Object {
    object(json!({"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4",
        "metadata":{"name":name,"namespace":"d","labels":{"kubernetes.io/service-name":service}},
        "ports":[{"name":"http","port":8080,"protocol":"TCP"}],"endpoints":endpoints}))
}

fn zone_of(objects: &[(Object, Vec<Object>)]) -> Zone {
    let mut zone = Zone::new("Cluster.Local.", 30);
    zone.put_namespace("d", true);
    for (service, slices) in objects {
        let slices: Vec<&EndpointSlice> =
            slices.iter().filter_map(Object::get::<discovery_v1::EndpointSlice>).collect();
        let found = records(D, service.get::<core_v1::Service>(), &slices);
        zone.put(&service.key(), found, &mut Vec::new());
    }
    zone
}

fn text(data: &RecordData) -> String {
    match data {
        RecordData::A(ip) => ip.to_string(),
        RecordData::Aaaa(ip) => ip.to_string(),
        RecordData::Cname(n) | RecordData::Ptr(n) | RecordData::Txt(n) => n.to_string(),
        RecordData::Srv { priority, weight, port, target } => format!("{priority} {weight} {port} {target}"),
    }
}

/// The answer's records joined by commas, with the additional records after a bar; or the type of negative answer.
fn ask(zone: &Zone, name: &str, type_: RecordType) -> String {
    let join = |list: &[super::Record]| list.iter().map(|r| text(&r.data)).collect::<Vec<_>>().join(",");
    match zone.resolve(name, type_) {
        Answer::Records { answer, additional } if additional.is_empty() => join(&answer),
        Answer::Records { answer, additional } => format!("{}|{}", join(&answer), join(&additional)),
        other => format!("{other:?}"),
    }
}

#[test]
fn answers() {
    let dual = with(service("web"), json!({"spec":{"clusterIPs":["10.96.0.1","fd00::1"]}}));
    let ready = json!({"ready":true});
    let db = slice(
        "db-1",
        "db",
        json!([
        {"addresses":["10.0.0.1"],"hostname":"db-0","conditions":ready},
        {"addresses":["10.0.0.2"],"conditions":{}},
        {"addresses":["10.0.0.3"],"conditions":{"ready":false,"serving":true}}]),
    );
    let outer = with(
        service("outer"),
        json!({"spec":{"type":"ExternalName","clusterIP":null,"clusterIPs":null,"externalName":"Example.COM."}}),
    );
    let alias = with(
        service("alias"),
        json!({"spec":{"type":"ExternalName","clusterIP":null,"clusterIPs":null,"externalName":"web.d.svc.cluster.local"}}),
    );
    let ring = with(
        service("ring"),
        json!({"spec":{"type":"ExternalName","clusterIP":null,"clusterIPs":null,"externalName":"ring.d.svc.cluster.local"}}),
    );
    let zone = zone_of(&[
        (dual, vec![]),
        (headless("db"), vec![db]),
        (outer, vec![]),
        (alias, vec![]),
        (ring, vec![]),
        (headless("none"), vec![]),
    ]);
    use RecordType::{A, Aaaa, Cname, Ptr, Srv, Txt};
    for (name, type_, expect) in [
        ("web.d.svc.cluster.local", A, "10.96.0.1"),
        ("WEB.d.SVC.cluster.local.", A, "10.96.0.1"),
        ("web.d.svc.cluster.local", Aaaa, "fd00::1"),
        ("web.d.svc.cluster.local", Txt, "NoData"),
        ("_http._tcp.web.d.svc.cluster.local", Srv, "0 100 80 web.d.svc.cluster.local|10.96.0.1,fd00::1"),
        ("_tcp.web.d.svc.cluster.local", Srv, "NoData"),
        ("_udp.web.d.svc.cluster.local", Srv, "NxDomain"),
        ("1.0.96.10.in-addr.arpa", Ptr, "web.d.svc.cluster.local"),
        ("9.0.96.10.in-addr.arpa", Ptr, "NotOurs"),
        ("db.d.svc.cluster.local", A, "10.0.0.1,10.0.0.2"),
        ("db-0.db.d.svc.cluster.local", A, "10.0.0.1"),
        ("10-0-0-2.db.d.svc.cluster.local", A, "10.0.0.2"),
        ("10-0-0-3.db.d.svc.cluster.local", A, "NxDomain"),
        (
            "_http._tcp.db.d.svc.cluster.local",
            Srv,
            "0 100 8080 10-0-0-2.db.d.svc.cluster.local,0 100 8080 db-0.db.d.svc.cluster.local|10.0.0.2,10.0.0.1",
        ),
        ("1.0.0.10.in-addr.arpa", Ptr, "db-0.db.d.svc.cluster.local"),
        ("none.d.svc.cluster.local", A, "NxDomain"),
        ("outer.d.svc.cluster.local", A, "example.com"),
        ("outer.d.svc.cluster.local", Cname, "example.com"),
        ("alias.d.svc.cluster.local", A, "web.d.svc.cluster.local,10.96.0.1"),
        ("10-1-2-3.d.pod.cluster.local", A, "10.1.2.3"),
        ("fd00--1.d.pod.cluster.local", Aaaa, "fd00::1"),
        ("10-1-2-3.d.pod.cluster.local", Aaaa, "NoData"),
        ("10-1-2-3.nowhere.pod.cluster.local", A, "NxDomain"),
        ("name.d.pod.cluster.local", A, "NxDomain"),
        ("dns-version.cluster.local", Txt, "1.1.0"),
        ("d.svc.cluster.local", A, "NoData"),
        ("nowhere.svc.cluster.local", A, "NxDomain"),
        ("gone.d.svc.cluster.local", A, "NxDomain"),
        ("example.com", A, "NotOurs"),
        ("notcluster.local", A, "NotOurs"),
    ] {
        assert_eq!(ask(&zone, name, type_), expect, "{name} {type_:?}");
    }
    assert!(matches!(zone.resolve("ring.d.svc.cluster.local", A), Answer::Records { .. }), "a circle ends");
    assert_eq!(
        &*reverse_name("fd00::1".parse().unwrap()),
        "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa"
    );
}

#[test]
fn time_to_live() {
    let zone = zone_of(&[(service("web"), vec![])]);
    let Answer::Records { answer, .. } = zone.resolve("web.d.svc.cluster.local", RecordType::A) else {
        panic!("it is there")
    };
    assert_eq!(answer[0].ttl, 30);
}

/// A zone that is updated incrementally, and the driver's copy of it.
struct Kept {
    zone: Zone,
    index: SliceIndex,
    copy: BTreeMap<Rc<str>, Vec<RecordData>>,
}

impl Kept {
    fn new() -> Kept {
        Kept { zone: Zone::new(D, 30), index: SliceIndex::default(), copy: BTreeMap::new() }
    }

    fn change(&mut self, fake: &Fake, change: &Change) {
        let mut dirty = vec![];
        if change.key.kind == Kind::SERVICE {
            dirty.push(change.key.clone());
        } else {
            self.index.changed(change, |k| dirty.push(k));
        }
        for key in dirty {
            let slices = self.index.of(&key, &fake.views);
            let found = records(D, fake.views.get::<core_v1::Service>(&key), &slices);
            let mut changes = Vec::new();
            self.zone.put(&key, found, &mut changes);
            for change in changes {
                match change {
                    RecordChange::Set(name, data) => {
                        self.copy.insert(name, data);
                    }
                    RecordChange::Remove(name) => assert!(self.copy.remove(&name).is_some()),
                    RecordChange::Replace(_) => panic!("the zone itself never replaces"),
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn differences_add_up_to_the_zone(events in proptest::collection::vec((0u8..3, 0u8..6, any::<u8>()), 1..60)) {
        let kinds = [Kind::SERVICE, Kind::ENDPOINT_SLICE];
        let mut fake = Fake::new(&kinds, []);
        let mut kept = Kept::new();
        for (what, i, detail) in events {
            let s = format!("s{}", i % 3);
            let object = match (what, detail % 3) {
                (0, 0) => service(&s),
                (0, 1) => with(service(&s), json!({"spec":{"type":"ExternalName","externalName":"x.y"}})),
                (0, _) => headless(&s),
                _ => {
                    let list: Vec<Value> = (0..detail % 4)
                        .map(|n| json!({"addresses":[format!("10.0.0.{}", n + i)],"conditions":{"ready":n < 3}}))
                        .collect();
                    slice(&format!("slice{i}"), &format!("s{}", detail % 3), json!(list))
                }
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
        let mut scratch = Kept::new();
        for kind in kinds.iter().rev() {
            for (key, o) in fake.views.view(*kind).iter() {
                scratch.change(&fake, &Change { key: key.clone(), old: None, new: Some(o.clone()) });
            }
        }
        let zone: BTreeMap<Rc<str>, Vec<RecordData>> = kept.zone.iter().map(|(n, d)| (Rc::clone(n), d)).collect();
        assert_eq!(zone, kept.copy);
        assert_eq!(zone, scratch.copy);
    }
}

#[test]
fn the_machine_answers_once_it_knows_the_cluster() {
    let mut objects = [service("web"), object(json!({"apiVersion":"v1","kind":"Namespace","metadata":{"name":"d"}}))];
    objects.iter_mut().for_each(|o| o.set_rv(Revision(5)));
    let mut dns = ClusterDns::new(DnsConfig::default(), Rng::from_seed(1));
    let (mut out, mut replaced) = (Vec::new(), Vec::new());
    assert!(dns.resolve("web.d.svc.cluster.local", RecordType::A).is_none());
    for secs in 0..20 {
        dns.handle_timeout(at(secs), &mut out);
        for o in std::mem::take(&mut out) {
            match o {
                Out::Records(change) => replaced.push(change),
                Out::Api(ToServer::Request(id, request)) => {
                    if let Call::List { kind, .. } = request.call {
                        let items = Rc::new(objects.iter().filter(|o| o.kind() == kind).cloned().collect());
                        let list = Response::List { items, rv: Revision(10), rest: None };
                        dns.handle(at(secs), FromServer::Reply(id, Ok(list)), &mut out);
                    }
                }
                Out::Api(ToServer::Cancel(_)) => {}
            }
        }
    }
    assert!(matches!(replaced.as_slice(), [RecordChange::Replace(all)] if all.len() == 3), "{replaced:?}");
    for (name, expect) in
        [("web.d.svc.cluster.local", true), ("10-0-0-1.d.pod.cluster.local", true), ("x.d.svc.cluster.local", false)]
    {
        assert_eq!(matches!(dns.resolve(name, RecordType::A), Some(Answer::Records { .. })), expect, "{name}");
    }
}
