//! The DNS zone: every published name, updated incrementally, and answers to queries.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde::Serialize;

use super::records::{RecordData, Records};
use crate::limits;
use crate::object::ObjectKey;

/// The queried record type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum RecordType {
    A,
    Aaaa,
    Cname,
    Ptr,
    Srv,
    Txt,
    Any,
}

impl RecordType {
    fn takes(self, data: &RecordData) -> bool {
        match data {
            RecordData::A(_) => matches!(self, RecordType::A | RecordType::Any),
            RecordData::Aaaa(_) => matches!(self, RecordType::Aaaa | RecordType::Any),
            // A CNAME answers every query for its name.
            RecordData::Cname(_) => true,
            RecordData::Ptr(_) => matches!(self, RecordType::Ptr | RecordType::Any),
            RecordData::Srv { .. } => matches!(self, RecordType::Srv | RecordType::Any),
            RecordData::Txt(_) => matches!(self, RecordType::Txt | RecordType::Any),
        }
    }
}

/// One record of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Absolute, in lower case, without the trailing dot.
    pub name: Rc<str>,
    /// Time to live in seconds.
    pub ttl: u32,
    /// Its data.
    pub data: RecordData,
}

/// The answer to a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// There are records of that type (or a CNAME). `additional` has addresses that the client will need next.
    Records {
        /// The answer section.
        answer: Vec<Record>,
        /// The additional section: addresses of the targets of SRV records.
        additional: Vec<Record>,
    },
    /// The name exists but has no records of that type (`NOERROR`, empty).
    NoData,
    /// The name does not exist (`NXDOMAIN`).
    NxDomain,
    /// The name is not in the cluster domain: another server must be asked.
    NotOurs,
}

/// A change of the zone.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub enum RecordChange {
    /// The complete zone. Always the first change.
    Replace(Vec<(Rc<str>, Vec<RecordData>)>),
    /// This name now has these records.
    Set(Rc<str>, Vec<RecordData>),
    /// This name no longer has records.
    Remove(Rc<str>),
}

/// Every published name.
#[derive(Debug)]
pub struct Zone {
    domain: Rc<str>,
    ttl: u32,
    /// Records by name and publishing service: two headless services may share an address and therefore a PTR name.
    names: BTreeMap<Rc<str>, BTreeMap<ObjectKey, BTreeSet<RecordData>>>,
    by_service: BTreeMap<ObjectKey, BTreeSet<Rc<str>>>,
    namespaces: BTreeSet<Rc<str>>,
}

impl Zone {
    /// Creates an empty zone for a domain such as `cluster.local`.
    pub fn new(domain: &str, ttl: u32) -> Zone {
        Zone {
            domain: Rc::from(domain.trim_matches('.').to_lowercase()),
            ttl,
            names: BTreeMap::new(),
            by_service: BTreeMap::new(),
            namespaces: BTreeSet::new(),
        }
    }

    /// Its domain.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Every name with its records.
    pub fn iter(&self) -> impl Iterator<Item = (&Rc<str>, Vec<RecordData>)> {
        self.names.iter().map(|(name, by)| (name, merged(by)))
    }

    /// Records whether a namespace exists.
    pub fn put_namespace(&mut self, name: &str, exists: bool) {
        if exists {
            self.namespaces.insert(Rc::from(name));
        } else {
            self.namespaces.remove(name);
        }
    }

    /// Replaces the records of one service and pushes the changes.
    pub(super) fn put(&mut self, service: &ObjectKey, records: Records, changes: &mut Vec<RecordChange>) {
        let old = self.by_service.remove(service).unwrap_or_default();
        for name in old.iter().filter(|n| !records.contains_key(*n)) {
            let by = self.names.get_mut(name).expect("a published name is in the zone");
            by.remove(service);
            if by.is_empty() {
                self.names.remove(name);
                changes.push(RecordChange::Remove(Rc::clone(name)));
            } else {
                changes.push(RecordChange::Set(Rc::clone(name), merged(by)));
            }
        }
        if !records.is_empty() {
            self.by_service.insert(service.clone(), records.keys().cloned().collect());
        }
        for (name, data) in records {
            let by = self.names.entry(Rc::clone(&name)).or_default();
            if by.get(service) != Some(&data) {
                by.insert(service.clone(), data);
                changes.push(RecordChange::Set(name, merged(by)));
            }
        }
    }

    /// Answers a query. Case and a trailing dot are ignored.
    pub fn resolve(&self, name: &str, type_: RecordType) -> Answer {
        let name = name.trim_end_matches('.').to_lowercase();
        let mut answer = Vec::new();
        let mut asked: Rc<str> = Rc::from(name);
        for _ in 0..limits::DNS_ALIASES {
            let found = self.lookup(&asked, type_);
            let Answer::Records { answer: mut more, .. } = found else {
                // A CNAME is a valid answer even if its target is outside the zone or does not exist.
                return if answer.is_empty() { found } else { self.with_targets(answer) };
            };
            let alias = match more.as_slice() {
                [Record { data: RecordData::Cname(target), .. }] => Some(Rc::clone(target)),
                _ => None,
            };
            answer.append(&mut more);
            match alias.filter(|_| type_ != RecordType::Cname) {
                Some(target) => asked = target,
                None => break,
            }
        }
        self.with_targets(answer)
    }

    fn with_targets(&self, answer: Vec<Record>) -> Answer {
        let mut additional = Vec::new();
        let targets: BTreeSet<&Rc<str>> = answer
            .iter()
            .filter_map(|r| match &r.data {
                RecordData::Srv { target, .. } => Some(target),
                _ => None,
            })
            .collect();
        for target in targets {
            for type_ in [RecordType::A, RecordType::Aaaa] {
                if let Answer::Records { answer, .. } = self.lookup(target, type_) {
                    additional.extend(answer);
                }
            }
        }
        Answer::Records { answer, additional }
    }

    /// Looks up one name without following aliases.
    fn lookup(&self, name: &Rc<str>, type_: RecordType) -> Answer {
        let records = |data: Vec<RecordData>| {
            if data.is_empty() {
                return Answer::NoData;
            }
            let record = |data| Record { name: Rc::clone(name), ttl: self.ttl, data };
            Answer::Records { answer: data.into_iter().map(record).collect(), additional: Vec::new() }
        };
        let takes = |data: Vec<RecordData>| data.into_iter().filter(|d| type_.takes(d)).collect::<Vec<_>>();
        if let Some(by) = self.names.get(name) {
            return records(takes(merged(by)));
        }
        let Some(below) = self.below(name) else { return Answer::NotOurs };
        let labels: Vec<&str> = below.split('.').filter(|l| !l.is_empty()).collect();
        match labels.as_slice() {
            [] | ["svc" | "pod"] => Answer::NoData,
            ["dns-version"] => records(takes(vec![RecordData::Txt(Rc::from("1.1.0"))])),
            [namespace, "svc" | "pod"] if self.namespaces.contains(*namespace) => Answer::NoData,
            [pod, namespace, "pod"] if self.namespaces.contains(*namespace) => match pod_ip(pod) {
                Some(ip) => records(takes(vec![RecordData::address(ip)])),
                None => Answer::NxDomain,
            },
            _ if self.has_below(name) => Answer::NoData,
            _ => Answer::NxDomain,
        }
    }

    /// The part of the name before the zone's domain; `None` if the name is not in the domain.
    fn below<'a>(&self, name: &'a str) -> Option<&'a str> {
        let rest = name.strip_suffix(&*self.domain)?;
        if rest.is_empty() { Some(rest) } else { rest.strip_suffix('.') }
    }

    /// Whether a published name ends in this one (as for `_tcp.web.d.svc.cluster.local`).
    fn has_below(&self, name: &str) -> bool {
        // Only services have names below them, at most three labels deep, so the scan covers one service's names.
        let Some(below) = self.below(name) else { return false };
        let labels: Vec<&str> = below.rsplit('.').collect();
        let ["svc", namespace, service, ..] = labels.as_slice() else { return false };
        let key = ObjectKey::new(crate::object::Kind::SERVICE, namespace, service);
        let suffix = format!(".{name}");
        self.by_service.get(&key).is_some_and(|names| names.iter().any(|n| n.ends_with(&suffix)))
    }
}

fn merged(by: &BTreeMap<ObjectKey, BTreeSet<RecordData>>) -> Vec<RecordData> {
    let all: BTreeSet<&RecordData> = by.values().flatten().collect();
    all.into_iter().cloned().collect()
}

/// The address that is encoded in a pod's DNS label: `10-0-0-1`, `fd00--1`.
fn pod_ip(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    v4.or_else(|| label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6))
}
