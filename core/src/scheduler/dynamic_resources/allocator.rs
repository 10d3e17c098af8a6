//! Finds devices for claims on a node: the first solution in the order of claims, requests, pools and devices.
//!
//! Within a request devices are taken in their order only, and a request that lacks devices ends at once. Kubernetes'
//! allocator tries every order: what it finds first is the same, since no rule looks at the order.
//!
//! Source: `k8s.io/dynamic-resource-allocation/structured/internal/stable`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{DeviceAttribute, DeviceTaint, DeviceToleration};
use serde_json::{Value, json};

use super::ask::{Alternative, Ask, Mode, Request, Selectors};
use super::pools::{Place, PoolAt, PoolDevice, Slice};
use crate::limits;
use crate::object::ObjectKey;
use crate::resource_claim::DeviceId;

/// How many devices a claim may have (`AllocationResultsMaxSize`).
pub(super) const RESULTS_MAX: usize = 32;

/// Why a search ends without a solution.
enum Stop {
    /// With this text.
    Failed(String),
    /// The claim would have too many devices; other alternatives may need fewer.
    TooMany,
}

/// A device that was chosen.
#[derive(Clone)]
struct Picked {
    request: usize,
    alternative: usize,
    device: Rc<PoolDevice>,
    slice: Rc<Slice>,
}

/// A place in the search.
#[derive(Clone, Copy)]
struct At {
    claim: usize,
    request: usize,
    /// Of a request with alternatives, the one that is tried.
    alternative: Option<usize>,
    /// How many devices of the request have been chosen.
    chosen: usize,
    /// The first candidate that may be chosen next.
    next: usize,
}

/// A search on one node.
struct Search<'a> {
    asks: &'a [Ask],
    /// The devices that may be allocated from, in order, with their slices.
    candidates: Vec<(Rc<PoolDevice>, Rc<Slice>)>,
    /// The same with devices of pools that nothing is allocated from unless all are asked for.
    all: BTreeMap<(usize, usize, usize), Vec<(Rc<PoolDevice>, Rc<Slice>)>>,
    is_free: &'a dyn Fn(&DeviceId, &ObjectKey) -> bool,
    picked: Vec<Vec<Picked>>,
    /// For which claims a device is chosen.
    choosing: BTreeMap<DeviceId, BTreeSet<usize>>,
    steps: u32,
}

/// Finds devices for claims on a node: the allocation of each. `Ok(None)` if there are none; an error says what is
/// wrong with claims or pools.
pub(super) fn allocate(
    asks: &[Ask],
    pools: &[PoolAt],
    is_free: &dyn Fn(&DeviceId, &ObjectKey) -> bool,
) -> Result<Option<Vec<Allocation>>, String> {
    let mut search = Search {
        asks,
        candidates: candidates(pools.iter().filter(|at| !at.pool.is_incomplete && !at.pool.is_invalid)),
        all: BTreeMap::new(),
        is_free,
        picked: vec![Vec::new(); asks.len()],
        choosing: BTreeMap::new(),
        steps: 0,
    };
    for claim in 0..asks.len() {
        search.count(claim, pools)?;
    }
    match search.go(At { claim: 0, request: 0, alternative: None, chosen: 0, next: 0 }) {
        Ok(true) => search.result().map(Some),
        Ok(false) | Err(Stop::TooMany) if pools.iter().any(|at| at.pool.is_invalid) => {
            Err("invalid resource pools were encountered".to_owned())
        }
        Ok(false) | Err(Stop::TooMany) => Ok(None),
        Err(Stop::Failed(why)) => Err(why),
    }
}

fn candidates<'a>(pools: impl Iterator<Item = &'a PoolAt>) -> Vec<(Rc<PoolDevice>, Rc<Slice>)> {
    let slices = pools.flat_map(|at| &at.slices);
    slices.flat_map(|slice| slice.devices.iter().map(|device| (Rc::clone(device), Rc::clone(slice)))).collect()
}

impl Search<'_> {
    /// Checks that a claim does not ask for too much, and finds what its requests for all devices are about.
    fn count(&mut self, claim: usize, pools: &[PoolAt]) -> Result<(), String> {
        let ask = &self.asks[claim];
        let mut least = 0;
        for (n, request) in ask.requests.iter().enumerate() {
            let mut fewest = usize::MAX;
            for (i, alternative) in request.alternatives.iter().enumerate() {
                let needs = match alternative.mode {
                    Mode::Exactly(count) => count,
                    Mode::All => {
                        let all = all_devices(ask, &alternative.name, &alternative.selectors, pools)?;
                        let needs = all.len();
                        self.all.insert((claim, n, i), all);
                        needs
                    }
                };
                fewest = fewest.min(needs);
            }
            least += fewest;
        }
        if least > RESULTS_MAX {
            let name = ask.claim.path();
            return Err(format!(
                "claim {name}: number of requested devices {least} exceeds the claim limit of {RESULTS_MAX}"
            ));
        }
        Ok(())
    }

    /// Chooses all that is left from a place on. False if that cannot be done.
    fn go(&mut self, at: At) -> Result<bool, Stop> {
        self.steps += 1;
        if self.steps > limits::DEVICE_SEARCH_STEPS {
            return Err(Stop::Failed("timed out trying to allocate devices".to_owned()));
        }
        let asks = self.asks;
        let Some(ask) = asks.get(at.claim) else { return Ok(true) };
        let Some(request) = ask.requests.get(at.request) else {
            let next = At { claim: at.claim + 1, request: 0, alternative: None, chosen: 0, next: 0 };
            return match self.go(next) {
                Err(Stop::TooMany) => Ok(false),
                other => other,
            };
        };
        let alternative = match at.alternative {
            Some(alternative) => alternative,
            None if request.has_alternatives => return self.go_alternatives(at, request),
            None => 0,
        };
        let of = &request.alternatives[alternative];
        let needs = match of.mode {
            Mode::Exactly(count) => count,
            Mode::All => self.all[&(at.claim, at.request, alternative)].len(),
        };
        if matches!(of.mode, Mode::All) && needs == 0 {
            return Ok(false);
        }
        if at.chosen >= needs {
            return self.go(At { request: at.request + 1, alternative: None, chosen: 0, next: 0, ..at });
        }
        if self.picked[at.claim].len() + needs - at.chosen > RESULTS_MAX {
            return Err(Stop::TooMany);
        }
        let at = At { alternative: Some(alternative), ..at };
        match of.mode {
            Mode::All => self.go_all(at, ask, request),
            Mode::Exactly(_) => self.go_exactly(at, needs, ask, request),
        }
    }

    /// The first alternative with which all the rest can be chosen.
    fn go_alternatives(&mut self, at: At, request: &Request) -> Result<bool, Stop> {
        let mut all_too_many = true;
        for alternative in 0..request.alternatives.len() {
            match self.go(At { alternative: Some(alternative), ..at }) {
                Err(Stop::TooMany) => {}
                Ok(false) => all_too_many = false,
                other => return other,
            }
        }
        if all_too_many { Err(Stop::TooMany) } else { Ok(false) }
    }

    /// The next one of all devices.
    fn go_all(&mut self, at: At, ask: &Ask, request: &Request) -> Result<bool, Stop> {
        let alternative = at.alternative.unwrap_or_default();
        let (device, slice) = self.all[&(at.claim, at.request, alternative)][at.chosen].clone();
        let of = &request.alternatives[alternative];
        if !self.is_usable(at.claim, of.admin, &of.tolerations, &device) {
            return Ok(false);
        }
        if !self.suits(at, ask, request, &device) {
            let (claim, name) = (ask.claim.path(), &of.name);
            return Err(Stop::Failed(format!(
                "claim {claim}, request {name}: cannot add device {} because a claim constraint would not be satisfied",
                device.id
            )));
        }
        self.with(at, &device, slice, |search| search.go(At { chosen: at.chosen + 1, ..at }))
    }

    /// The next one of so many devices.
    fn go_exactly(&mut self, at: At, needs: usize, ask: &Ask, request: &Request) -> Result<bool, Stop> {
        let alternative = at.alternative.unwrap_or_default();
        let of = &request.alternatives[alternative];
        for candidate in at.next..self.candidates.len() {
            if self.candidates.len() - candidate < needs - at.chosen {
                return self.too_few(at, candidate, ask, of);
            }
            let (device, slice) = self.candidates[candidate].clone();
            if !self.is_usable(at.claim, of.admin, &of.tolerations, &device)
                || !of.selectors.select(&device, &ask.claim).map_err(Stop::Failed)?
                || !self.suits(at, ask, request, &device)
            {
                continue;
            }
            let next = At { chosen: at.chosen + 1, next: candidate + 1, ..at };
            if self.with(at, &device, slice, |search| search.go(next))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Not enough candidates are left. An expression that fails on one of them is told all the same.
    fn too_few(&self, at: At, from: usize, ask: &Ask, of: &Alternative) -> Result<bool, Stop> {
        for (device, _) in &self.candidates[from..] {
            if self.is_usable(at.claim, of.admin, &of.tolerations, device) {
                of.selectors.select(device, &ask.claim).map_err(Stop::Failed)?;
            }
        }
        Ok(false)
    }

    /// Goes on with a device chosen, and takes it back if that leads nowhere.
    fn with(
        &mut self,
        at: At,
        device: &Rc<PoolDevice>,
        slice: Rc<Slice>,
        go: impl FnOnce(&mut Self) -> Result<bool, Stop>,
    ) -> Result<bool, Stop> {
        let picked = Picked {
            request: at.request,
            alternative: at.alternative.unwrap_or_default(),
            device: Rc::clone(device),
            slice,
        };
        self.choosing.entry(device.id.clone()).or_default().insert(at.claim);
        self.picked[at.claim].push(picked);
        let done = go(self);
        if !matches!(done, Ok(true)) {
            self.picked[at.claim].pop();
            self.choosing.entry(device.id.clone()).or_default().remove(&at.claim);
        }
        done
    }

    /// Whether a device is free for a claim, and its taints are tolerated.
    fn is_usable(&self, claim: usize, admin: bool, tolerations: &[DeviceToleration], device: &PoolDevice) -> bool {
        let choosing = self.choosing.get(&device.id);
        let is_free = if admin {
            !choosing.is_some_and(|claims| claims.contains(&claim))
        } else {
            choosing.is_none_or(BTreeSet::is_empty) && (self.is_free)(&device.id, &self.asks[claim].claim)
        };
        device.usable && is_free && device.taints.iter().all(|taint| is_tolerated(taint, tolerations))
    }

    /// Whether a device may be beside those that its claim has already (`matchAttributeConstraint`).
    fn suits(&self, at: At, ask: &Ask, request: &Request, device: &PoolDevice) -> bool {
        let name = &request.alternatives[at.alternative.unwrap_or_default()].name;
        let concerns = |requests: &[String], request: &Request, name: &String| {
            requests.is_empty() || requests.contains(&request.name) || requests.contains(name)
        };
        ask.constraints.iter().filter(|(_, requests)| concerns(requests, request, name)).all(|(attribute, requests)| {
            let Some(value) = device.attribute(attribute) else { return false };
            let mut others = self.picked[at.claim].iter().filter(|picked| {
                let of = &ask.requests[picked.request];
                concerns(requests, of, &of.alternatives[picked.alternative].name)
            });
            others.next().is_none_or(|other| other.device.attribute(attribute).is_some_and(|o| are_equal(o, value)))
        })
    }

    fn result(&self) -> Result<Vec<Allocation>, String> {
        self.asks.iter().zip(&self.picked).map(|(ask, picked)| allocation(ask, picked)).collect()
    }
}

/// All devices of a node that selectors select.
fn all_devices(
    ask: &Ask,
    request: &str,
    selectors: &Selectors,
    pools: &[PoolAt],
) -> Result<Vec<(Rc<PoolDevice>, Rc<Slice>)>, String> {
    let state = |at: &PoolAt| match (at.pool.is_incomplete, at.pool.is_invalid) {
        (true, _) => Some("being updated"),
        (false, true) => Some("invalid"),
        (false, false) => None,
    };
    let mut all = Vec::new();
    for at in pools {
        if let Some(state) = state(at) {
            let (claim, pool) = (ask.claim.path(), at.name());
            return Err(format!(
                "claim {claim}, request {request}: asks for all devices, but resource pool {pool} is currently {state}"
            ));
        }
        for (device, slice) in candidates([at].into_iter()) {
            if device.usable && selectors.select(&device, &ask.claim)? {
                all.push((device, slice));
            }
        }
    }
    Ok(all)
}

fn are_equal(a: &DeviceAttribute, b: &DeviceAttribute) -> bool {
    let has_value = a.string.is_some() || a.int.is_some() || a.bool.is_some() || a.version.is_some();
    has_value && (&a.string, a.int, a.bool, &a.version) == (&b.string, b.int, b.bool, &b.version)
}

/// `resourceclaim.ToleratesTaint`. Taints of another effect keep nothing away.
fn is_tolerated(taint: &DeviceTaint, tolerations: &[DeviceToleration]) -> bool {
    let keeps_away = matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let tolerates = |t: &DeviceToleration| {
        let (effect, key) = (text(&t.effect), text(&t.key));
        let value = t.operator.as_deref() == Some("Exists") || text(&t.value) == text(&taint.value);
        (effect.is_empty() || effect == taint.effect) && (key.is_empty() || key == taint.key) && value
    };
    !keeps_away || tolerations.iter().any(tolerates)
}

/// What a claim gets.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Allocation {
    /// `status.allocation`.
    pub(super) value: Value,
    /// The devices that it alone may use.
    pub(super) devices: Vec<DeviceId>,
}

fn allocation(ask: &Ask, picked: &[Picked]) -> Result<Allocation, String> {
    let of = |p: &Picked| &ask.requests[p.request].alternatives[p.alternative];
    let result = |p: &Picked| {
        let (id, of) = (&p.device.id, of(p));
        let mut result = json!({"request": of.name, "driver": id.driver, "pool": id.pool, "device": id.device});
        if of.admin {
            result["adminAccess"] = json!(true);
        }
        if !of.tolerations.is_empty() {
            result["tolerations"] = json!(of.tolerations);
        }
        result
    };
    let mut devices = json!({"results": picked.iter().map(result).collect::<Vec<Value>>()});
    let config = config(ask, picked);
    if !config.is_empty() {
        devices["config"] = config.into();
    }
    let mut value = json!({"devices": devices});
    if let Some(selector) = node_selector(picked)? {
        value["nodeSelector"] = json!(selector);
    }
    let own = picked.iter().filter(|p| !of(p).admin);
    Ok(Allocation { value, devices: own.map(|p| p.device.id.clone()).collect() })
}

/// What drivers are told about the devices: by their classes, each once, and by the claim.
fn config(ask: &Ask, picked: &[Picked]) -> Vec<Value> {
    let mut chosen: BTreeMap<usize, usize> = BTreeMap::new();
    chosen.extend(picked.iter().map(|p| (p.request, p.alternative)));
    let alternative = |request: usize| {
        let alternative = chosen.get(&request).copied().unwrap_or_default();
        &ask.requests[request].alternatives[alternative]
    };
    let mut all: Vec<Value> = Vec::new();
    let mut of_class: BTreeMap<&str, std::ops::Range<usize>> = BTreeMap::new();
    for request in 0..ask.requests.len() {
        let of = alternative(request);
        if let Some(known) = of_class.get(of.class.as_str()) {
            for entry in &mut all[known.clone()] {
                entry["requests"].as_array_mut().expect("it was made as a list").push(json!(of.name));
            }
            continue;
        }
        let first = all.len();
        for entry in &of.class_config {
            let mut entry = entry.clone();
            (entry["source"], entry["requests"]) = (json!("FromClass"), json!([of.name]));
            all.push(entry);
        }
        of_class.insert(&of.class, first..all.len());
    }
    for entry in &ask.config {
        let requests: Vec<&str> =
            entry["requests"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let concerned = requests.is_empty()
            || (0..ask.requests.len()).any(|request| {
                let (name, of) = (ask.requests[request].name.as_str(), alternative(request).name.as_str());
                requests.contains(&name) || requests.contains(&of)
            });
        if concerned {
            let mut entry = entry.clone();
            entry["source"] = json!("FromClaim");
            all.push(entry);
        }
    }
    all
}

/// From which nodes the devices can be used (`createNodeSelector`); `None`: from all.
fn node_selector(picked: &[Picked]) -> Result<Option<NodeSelector>, String> {
    let mut all = NodeSelectorTerm::default();
    for p in picked {
        match &p.slice.place {
            Place::Node(node) => {
                let requirement = NodeSelectorRequirement {
                    key: "metadata.name".to_owned(),
                    operator: "In".to_owned(),
                    values: Some(vec![node.clone()]),
                };
                let term = NodeSelectorTerm { match_fields: Some(vec![requirement]), match_expressions: None };
                return Ok(Some(NodeSelector { node_selector_terms: vec![term] }));
            }
            Place::Nodes(selector, _) => {
                let [term] = selector.node_selector_terms.as_slice() else {
                    let terms = selector.node_selector_terms.len();
                    return Err(format!("unsupported ResourceSlice.NodeSelector with {terms} terms"));
                };
                add(&mut all.match_fields, &term.match_fields);
                add(&mut all.match_expressions, &term.match_expressions);
            }
            Place::Everywhere | Place::Unknown => {}
        }
    }
    let asks = all.match_fields.is_some() || all.match_expressions.is_some();
    Ok(asks.then(|| NodeSelector { node_selector_terms: vec![all] }))
}

fn add(to: &mut Option<Vec<NodeSelectorRequirement>>, from: &Option<Vec<NodeSelectorRequirement>>) {
    for requirement in from.iter().flatten() {
        let known = to.get_or_insert_default();
        if !known.contains(requirement) {
            known.push(requirement.clone());
        }
    }
}
