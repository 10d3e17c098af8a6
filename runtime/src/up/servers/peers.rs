//! The live servers of a cluster: each keeps a Lease of its own in `kube-system`, and the endpoints of the Service
//! `kubernetes` are the addresses of the servers whose Leases live.
//!
//! It is kube-apiserver's identity Lease and its lease endpoint reconciler in one. What comes in: the time, and replies
//! of the API server. What goes out: requests, one after the other. Every server does the same; a write that another
//! one was faster with is refused by its revision, and the next pass finds nothing left to do.
//!
//! Whether a Lease lives is judged by the reader's own clock, from when it last saw the record change. Only for a Lease
//! that it has never seen before does it go by the time in it.
//!
//! Source: kubernetes `pkg/controlplane/reconcilers/lease.go`, `pkg/controlplane/apiserver/server.go`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use skeg_core::api::{
    Call, DeleteOptions, FromServer, ListOptions, Patch, Precondition, Reason, ReqIds, Request, Response, Status,
    Subresource, ToServer, WriteOptions,
};
use skeg_core::object::Selector;
use skeg_core::{Kind, Mono, Now, Object, ObjectKey, Revision, Wall};

/// How often a server renews its Lease, and looks at those of the others.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// How long a server counts as alive whose Lease does not change (`DefaultEndpointReconcilerTTL`).
const TTL: Duration = Duration::from_secs(15);
/// The label of the servers' Leases, and its value (`IdentityLeaseComponentLabelKey`).
const LABEL: (&str, &str) = ("apiserver.kubernetes.io/identity", "kube-apiserver");
/// The annotation of a Lease that says where its server is reached.
const SERVES_AT: &str = "skeg.dev/serves-at";
/// The namespace and the name of the Service, its Endpoints and its first EndpointSlice.
const SERVICE: (&str, &str) = ("default", "kubernetes");

/// What is asked for.
#[derive(Clone, Debug)]
enum Step {
    /// Renew the own Lease.
    Renew,
    /// Make the own Lease.
    Create,
    /// Delete the own Lease.
    Leave,
    /// Read all Leases of servers.
    Look,
    /// Delete the Lease of a server that is gone.
    Remove(ObjectKey, Revision),
    /// Read the Endpoints.
    ReadEndpoints,
    /// Read the EndpointSlices.
    ReadSlices,
    /// Write one of them.
    Write(Box<Call>),
}

/// A server among its peers. See the module's documentation.
#[derive(Debug)]
pub struct Peers {
    lease: ObjectKey,
    holder: String,
    host: String,
    at: SocketAddr,
    leaving: bool,
    todo: VecDeque<Step>,
    asked: Option<Step>,
    ids: ReqIds,
    /// The renewal of each Lease as last read, and since when it has not changed.
    seen: BTreeMap<ObjectKey, (Option<Wall>, Mono)>,
    /// Where the live servers are reached, as of the last look.
    live: BTreeSet<SocketAddr>,
    /// What was refused, for the log.
    refused: Vec<String>,
}

/// A name for the server at an address of a host, as kube-apiserver makes one of the host's name.
fn lease_name(host: &str, at: SocketAddr) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let hash = digest(&SHA256, format!("{host}/{at}").as_bytes());
    let number = hash.as_ref()[..16].iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
    // Base 32 of 128 bits: 25 digits of five, and one of the three that are left.
    let digits = (0..26).map(|n| ((if n < 25 { number >> (123 - 5 * n) } else { number << 2 }) & 31) as usize);
    format!("apiserver-{}", digits.map(|digit| char::from(ALPHABET[digit])).collect::<String>())
}

impl Peers {
    /// `host` is the host's name, `at` where others reach this server, and `holder` a name that no other process has.
    pub fn new(host: &str, at: SocketAddr, holder: &str) -> Peers {
        Peers {
            lease: ObjectKey::new(Kind::LEASE, "kube-system", &lease_name(host, at)),
            holder: holder.to_owned(),
            host: host.to_owned(),
            at,
            leaving: false,
            todo: VecDeque::new(),
            asked: None,
            ids: ReqIds::new(1),
            seen: BTreeMap::new(),
            live: BTreeSet::new(),
            refused: Vec::new(),
        }
    }

    /// Starts a pass if the last one has ended. Returns the next request, if any.
    pub fn look_again(&mut self, now: Now) -> Option<ToServer> {
        if self.todo.is_empty() && self.asked.is_none() && !self.leaving {
            self.todo.extend([Step::Renew, Step::Look]);
        }
        self.next_request(now)
    }

    /// Takes this server out of the endpoints, because it is about to end.
    pub fn leave(&mut self, now: Now) -> Option<ToServer> {
        self.leaving = true;
        self.todo = [Step::Leave, Step::Look].into();
        self.next_request(now)
    }

    /// Whether it is out, or could not be taken out.
    pub fn has_left(&self) -> bool {
        self.leaving && self.todo.is_empty() && self.asked.is_none()
    }

    /// Takes the error messages since the last call.
    pub fn take_refused(&mut self) -> Vec<String> {
        std::mem::take(&mut self.refused)
    }

    /// Handles a reply of the API server. Returns the next request, if any.
    pub fn answered(&mut self, now: Now, message: FromServer) -> Option<ToServer> {
        let FromServer::Reply(_, result) = message else { return None };
        let asked = self.asked.take().expect("nothing is answered that was not asked");
        match (asked, result) {
            (Step::Renew, Err(status)) if status.reason == Reason::NotFound => {
                if !self.leaving {
                    self.todo.push_front(Step::Create);
                }
            }
            (Step::Look, Ok(Response::List { items, .. })) => self.look_at(now, &items),
            (Step::ReadEndpoints, Ok(Response::Object(found))) => self.correct_endpoints(Some(&found)),
            (Step::ReadEndpoints, Err(status)) if status.reason == Reason::NotFound => self.correct_endpoints(None),
            (Step::ReadSlices, Ok(Response::List { items, .. })) => self.correct_slices(&items),
            (step, Err(status)) => self.note(&step, &status),
            (_, Ok(_)) => {}
        }
        self.next_request(now)
    }

    /// Notes what was refused, unless it only says that another server was faster.
    fn note(&mut self, step: &Step, status: &Status) {
        let faster = matches!(status.reason, Reason::Conflict | Reason::AlreadyExists | Reason::NotFound);
        if !faster || matches!(step, Step::Renew | Step::Create) {
            self.refused.push(status.message.to_string());
        }
    }

    fn next_request(&mut self, now: Now) -> Option<ToServer> {
        if self.asked.is_some() {
            return None;
        }
        let step = self.todo.pop_front()?;
        let call = self.call(now, &step);
        self.asked = Some(step);
        Some(ToServer::Request(self.ids.next(), Request::new(&Rc::from("system:apiserver"), call)))
    }

    fn call(&self, now: Now, step: &Step) -> Call {
        let delete = |key: &ObjectKey, rv: Option<Revision>| Call::Delete {
            key: key.clone(),
            options: DeleteOptions { precondition: Precondition { uid: None, rv }, ..DeleteOptions::default() },
        };
        let list = |kind: Kind, namespace: &str, (label, value): (&str, &str)| {
            let labels = Selector::parse(&format!("{label}={value}")).expect("a label and its value");
            Call::List {
                kind,
                namespace: Rc::from(namespace),
                options: ListOptions { labels, ..ListOptions::default() },
            }
        };
        match step {
            Step::Renew => Call::Patch {
                key: self.lease.clone(),
                patch: Patch::Merge(self.record(now)),
                subresource: Subresource::None,
                precondition: Precondition::default(),
                options: WriteOptions::default(),
            },
            Step::Create => {
                let mut lease = self.record(now);
                lease["apiVersion"] = json!("coordination.k8s.io/v1");
                lease["kind"] = json!("Lease");
                lease["metadata"]["name"] = json!(self.lease.name());
                lease["metadata"]["namespace"] = json!(self.lease.namespace());
                Call::Create { object: made(lease), options: WriteOptions::default() }
            }
            Step::Leave => delete(&self.lease, None),
            Step::Look => list(Kind::LEASE, self.lease.namespace(), LABEL),
            Step::Remove(key, rv) => delete(key, Some(*rv)),
            Step::ReadEndpoints => Call::Get { key: ObjectKey::new(Kind::ENDPOINTS, SERVICE.0, SERVICE.1), rv: None },
            Step::ReadSlices => list(Kind::ENDPOINT_SLICE, SERVICE.0, ("kubernetes.io/service-name", SERVICE.1)),
            Step::Write(call) => (**call).clone(),
        }
    }

    /// What the own Lease is to hold.
    fn record(&self, now: Now) -> Value {
        json!({
            "metadata": {"labels": {LABEL.0: LABEL.1, "kubernetes.io/hostname": self.host},
                "annotations": {SERVES_AT: self.at.to_string()}},
            "spec": {"holderIdentity": self.holder, "leaseDurationSeconds": TTL.as_secs(),
                "renewTime": now.wall.to_micro_time()},
        })
    }

    /// Judges the Leases: who lives, and whose Lease is to be deleted.
    fn look_at(&mut self, now: Now, leases: &[Object]) {
        let mut seen = BTreeMap::new();
        self.live.clear();
        for lease in leases {
            let (key, value) = (lease.key(), lease.to_json());
            let Some(at) = value["metadata"]["annotations"][SERVES_AT].as_str().and_then(|at| at.parse().ok()) else {
                continue;
            };
            let renewed: Option<MicroTime> = serde_json::from_value(value["spec"]["renewTime"].clone()).ok();
            let renewed = renewed.map(|time| Wall::from_micro_time(&time));
            let age = match self.seen.get(&key) {
                Some((before, since)) if *before == renewed => now.mono.since(*since),
                Some(_) => Duration::ZERO,
                None => renewed.map_or(TTL, |renewed| now.wall.since(renewed)),
            };
            let since = Mono(now.mono.0.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)));
            if key == self.lease {
                if !self.leaving {
                    self.live.insert(at);
                }
            } else if age < TTL {
                self.live.insert(at);
            } else {
                self.todo.push_back(Step::Remove(key.clone(), lease.rv()));
            }
            seen.insert(key, (renewed, since));
        }
        self.seen = seen;
        self.todo.extend([Step::ReadEndpoints, Step::ReadSlices]);
    }

    /// Writes the Endpoints if they are not those of the live servers.
    fn correct_endpoints(&mut self, found: Option<&Object>) {
        let mut ports: BTreeMap<u16, Vec<Value>> = BTreeMap::new();
        for at in &self.live {
            ports.entry(at.port()).or_default().push(json!({"ip": at.ip()}));
        }
        let subsets: Vec<Value> = ports
            .into_iter()
            .map(|(port, addresses)| json!({"addresses": addresses, "ports": [port_of(port)]}))
            .collect();
        let wanted = made(json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": SERVICE.1, "namespace": SERVICE.0,
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": subsets,
        }));
        self.correct(found, wanted, &["subsets"]);
    }

    /// Writes, makes and deletes EndpointSlices until they are those of the live servers: one for each port, since all
    /// endpoints of a slice share theirs.
    fn correct_slices(&mut self, found: &[Object]) {
        let mut groups: BTreeMap<(bool, u16), Vec<Value>> = BTreeMap::new();
        for at in &self.live {
            let endpoint = json!({"addresses": [at.ip()], "conditions": {"ready": true}});
            groups.entry((at.is_ipv6(), at.port())).or_default().push(endpoint);
        }
        let mut wanted = BTreeMap::new();
        for ((is_ipv6, port), endpoints) in groups {
            let name = if wanted.is_empty() { SERVICE.1.to_owned() } else { format!("{}-{port}", SERVICE.1) };
            let slice = made(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": name, "namespace": SERVICE.0,
                    "labels": {"kubernetes.io/service-name": SERVICE.1}},
                "addressType": if is_ipv6 { "IPv6" } else { "IPv4" },
                "endpoints": endpoints, "ports": [port_of(port)],
            }));
            wanted.insert(slice.key(), slice);
        }
        for there in found {
            match wanted.remove(&there.key()) {
                Some(slice) if slice.to_json()["addressType"] == there.to_json()["addressType"] => {
                    self.correct(Some(there), slice, &["endpoints", "ports"]);
                }
                // Its type cannot be changed: the next pass makes it anew.
                Some(_) | None => self.todo.push_back(Step::Remove(there.key(), there.rv())),
            }
        }
        for slice in wanted.into_values() {
            self.correct(None, slice, &[]);
        }
    }

    fn correct(&mut self, found: Option<&Object>, mut wanted: Object, fields: &[&str]) {
        let options = WriteOptions::default();
        let call = match found {
            None => Call::Create { object: wanted, options },
            Some(found) => {
                let (is, should) = (found.to_json(), wanted.to_json());
                if fields.iter().all(|field| is[*field] == should[*field]) {
                    return;
                }
                wanted.set_rv(found.rv());
                Call::Update { object: wanted, subresource: Subresource::None, options }
            }
        };
        self.todo.push_back(Step::Write(Box::new(call)));
    }
}

fn port_of(port: u16) -> Value {
    json!({"name": "https", "protocol": "TCP", "port": port})
}

/// What this module writes, as an object with the defaults that it would be given.
fn made(value: Value) -> Object {
    Object::from_json(value).expect("what is made here is well-formed")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;
    use skeg_core::api::{Call, FromServer, Patch, Response, Status, ToServer};
    use skeg_core::{Mono, Now, Object, ObjectKey, Revision, Wall};

    use super::{INTERVAL, Peers, lease_name};

    /// As much of an API server as the servers need.
    #[derive(Default)]
    struct Api {
        objects: BTreeMap<ObjectKey, Object>,
        revision: u64,
        writes: u32,
    }

    impl Api {
        fn put(&mut self, mut object: Object) -> Result<Response, Status> {
            self.revision += 1;
            self.writes += 1;
            object.set_rv(Revision(self.revision));
            self.objects.insert(object.key(), object.clone());
            Ok(Response::Object(object))
        }

        fn answer(&mut self, call: Call) -> Result<Response, Status> {
            let missing = |key: &ObjectKey| Status::not_found(key.kind.row(), key.name());
            match call {
                Call::Get { key, .. } => self.objects.get(&key).cloned().map(Response::Object).ok_or(missing(&key)),
                Call::List { kind, options, .. } => {
                    let of = |object: &&Object| {
                        object.kind() == kind && options.labels.matches(object.meta().labels.as_ref())
                    };
                    let items = std::rc::Rc::new(self.objects.values().filter(of).cloned().collect());
                    Ok(Response::List { items, rv: Revision(self.revision), rest: None })
                }
                Call::Create { object, .. } if self.objects.contains_key(&object.key()) => {
                    Err(Status::already_exists(object.kind().row(), object.name()))
                }
                Call::Create { object, .. } => self.put(object),
                Call::Update { object, .. } => match self.objects.get(&object.key()) {
                    Some(there) if there.rv() == object.rv() => self.put(object),
                    _ => Err(Status::stale(object.kind().row(), object.name())),
                },
                Call::Patch { key, patch: Patch::Merge(patch), .. } => {
                    let mut value = self.objects.get(&key).ok_or_else(|| missing(&key))?.to_json();
                    value["spec"] = patch["spec"].clone();
                    self.put(Object::from_json(value).unwrap())
                }
                Call::Delete { key, .. } => {
                    self.objects.remove(&key).map(Response::Object).ok_or_else(|| missing(&key))
                }
                other => panic!("{other:?}"),
            }
        }

        /// What the Endpoints say, and the EndpointSlices.
        fn endpoints(&self) -> (Vec<String>, Vec<String>) {
            let (mut endpoints, mut slices) = (Vec::new(), Vec::new());
            let each = |list: &Value| list.as_array().cloned().unwrap_or_default();
            for value in self.objects.values().map(Object::to_json) {
                for subset in each(&value["subsets"]) {
                    let ips = each(&subset["addresses"]);
                    endpoints.extend(ips.iter().map(|a| format!("{}:{}", a["ip"], subset["ports"][0]["port"])));
                }
                for endpoint in each(&value["endpoints"]) {
                    let name = value["metadata"]["name"].as_str().unwrap_or_default();
                    slices.push(format!("{name} {}:{}", endpoint["addresses"][0], value["ports"][0]["port"]));
                }
            }
            let plain = |list: Vec<String>| list.into_iter().map(|text| text.replace('"', "")).collect();
            (plain(endpoints), plain(slices))
        }
    }

    fn at(seconds: u64) -> Now {
        Now { mono: Mono(seconds * 1_000_000_000), wall: Wall(1_000_000_000_000 + seconds as i64 * 1_000_000) }
    }

    fn carry_out(peers: &mut Peers, api: &mut Api, now: Now, mut next: Option<ToServer>) {
        while let Some(ToServer::Request(id, request)) = next {
            next = peers.answered(now, FromServer::Reply(id, api.answer(request.call)));
        }
        assert_eq!(peers.take_refused(), Vec::<String>::new());
    }

    fn pass(peers: &mut Peers, api: &mut Api, now: Now) {
        let next = peers.look_again(now);
        carry_out(peers, api, now, next);
    }

    fn peers(at: &str) -> Peers {
        Peers::new("host", at.parse().unwrap(), &format!("holder of {at}"))
    }

    #[test]
    fn the_endpoints_are_those_of_the_servers_that_live() {
        let mut api = Api::default();
        let (mut a, mut b) = (peers("10.0.0.1:6443"), peers("10.0.0.2:6443"));
        pass(&mut a, &mut api, at(0));
        assert_eq!(api.endpoints(), (vec!["10.0.0.1:6443".into()], vec!["kubernetes 10.0.0.1:6443".into()]));
        pass(&mut b, &mut api, at(1));
        pass(&mut a, &mut api, at(5));
        let both = ["10.0.0.1:6443", "10.0.0.2:6443"].map(str::to_owned);
        assert_eq!(api.endpoints().0, both);
        assert_eq!(api.endpoints().1, both.each_ref().map(|at| format!("kubernetes {at}")));
        // Only the own Lease is written where nothing changes.
        let before = api.writes;
        pass(&mut a, &mut api, at(10));
        assert_eq!(api.writes, before + 1);
        // `b` is killed: fifteen seconds after its last renewal it is out, and its Lease is gone.
        for second in (15..40).step_by(INTERVAL.as_secs() as usize) {
            pass(&mut a, &mut api, at(second));
            assert_eq!(api.endpoints().0.len(), if second < 20 { 2 } else { 1 }, "at {second}");
        }
        assert_eq!(api.objects.len(), 3, "a Lease, Endpoints, a slice");
        // It comes back.
        pass(&mut a, &mut api, at(48));
        let mut b = peers("10.0.0.2:6443");
        pass(&mut b, &mut api, at(50));
        assert_eq!(api.endpoints().0, both);
        // It leaves in order.
        let next = b.leave(at(52));
        carry_out(&mut b, &mut api, at(52), next);
        assert!(b.has_left() && b.look_again(at(60)).is_none());
        assert_eq!(api.endpoints().0, both[..1]);
    }

    #[test]
    fn each_port_has_a_slice_of_its_own() {
        let mut api = Api::default();
        let (mut a, mut b) = (peers("10.0.0.1:6443"), peers("10.0.0.1:7443"));
        pass(&mut a, &mut api, at(0));
        pass(&mut b, &mut api, at(0));
        assert_eq!(api.endpoints().0, ["10.0.0.1:6443", "10.0.0.1:7443"]);
        assert_eq!(api.endpoints().1, ["kubernetes 10.0.0.1:6443", "kubernetes-7443 10.0.0.1:7443"]);
        let next = a.leave(at(1));
        carry_out(&mut a, &mut api, at(1), next);
        assert_eq!(api.endpoints().1, ["kubernetes 10.0.0.1:7443"]);
    }

    #[test]
    fn a_clock_that_is_behind_kills_nobody() {
        let mut api = Api::default();
        let (mut a, mut b) = (peers("10.0.0.1:6443"), peers("10.0.0.2:6443"));
        let late = |seconds: u64| Now { wall: Wall(at(seconds).wall.0 - 3_600_000_000), ..at(seconds) };
        pass(&mut a, &mut api, at(0));
        // `b`'s Lease looks an hour old; it is seen to change then.
        for second in [1, 6, 11, 16, 21] {
            pass(&mut b, &mut api, late(second));
            pass(&mut a, &mut api, at(second));
        }
        assert_eq!(api.endpoints().0.len(), 2);
    }

    #[test]
    fn a_lease_has_a_name_as_kubernetes_makes_it() {
        let name = lease_name("host", "10.0.0.1:6443".parse().unwrap());
        let (prefix, hash) = name.split_once('-').unwrap();
        assert_eq!((prefix, hash.len()), ("apiserver", 26));
        assert!(hash.bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b)), "{name}");
        assert_ne!(name, lease_name("host", "10.0.0.1:7443".parse().unwrap()));
    }
}
