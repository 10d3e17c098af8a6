//! The Services and controllers of pods, by which pods without constraints are spread (`helper.DefaultSelector`).

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::object::{Kind, Labels, Meta, Selector};

/// A controller, as a number. The controller may not exist.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OwnerId(u32);

type OwnerKey = (Kind, Rc<str>, Rc<str>);

/// The selectors of Services and controllers.
#[derive(Debug, Default)]
pub struct Owners {
    /// The selectors of Services that have one, by namespace and name.
    services: BTreeMap<Rc<str>, BTreeMap<Rc<str>, Labels>>,
    ids: BTreeMap<OwnerKey, OwnerId>,
    selectors: BTreeMap<OwnerKey, Selector>,
    keys: Vec<OwnerKey>,
    epoch: u64,
}

impl Owners {
    /// Counts changes of selectors.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Updates a Service's selector. `None` if it has none or was deleted.
    pub fn service_changed(&mut self, namespace: &str, name: &str, selector: Option<&Labels>) {
        let known = self.services.get(namespace).and_then(|s| s.get(name));
        if known == selector {
            return;
        }
        self.epoch += 1;
        match selector {
            Some(selector) => {
                let here = self.services.entry(Rc::from(namespace)).or_default();
                here.insert(Rc::from(name), selector.clone());
            }
            None => {
                let here = self.services.get_mut(namespace).expect("a known service has its namespace");
                here.remove(name);
                if here.is_empty() {
                    self.services.remove(namespace);
                }
            }
        }
    }

    /// Updates a controller's selector. `None` if it was deleted.
    pub fn controller_changed(&mut self, kind: Kind, namespace: &str, name: &str, selector: Option<Selector>) {
        let key = (kind, Rc::from(namespace), Rc::from(name));
        if self.selectors.get(&key) == selector.as_ref() {
            return;
        }
        self.epoch += 1;
        match selector {
            Some(selector) => self.selectors.insert(key, selector),
            None => self.selectors.remove(&key),
        };
    }

    /// The controller in a pod's metadata, if it is of a kind whose pods are spread by default.
    pub fn of(&mut self, meta: &Meta) -> Option<OwnerId> {
        let owner = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
        let kind = match (owner.api_version.as_str(), owner.kind.as_str()) {
            ("v1", "ReplicationController") => Kind::REPLICATION_CONTROLLER,
            ("apps/v1", "ReplicaSet") => Kind::REPLICA_SET,
            ("apps/v1", "StatefulSet") => Kind::STATEFUL_SET,
            _ => return None,
        };
        let key = (kind, Rc::from(meta.namespace.as_deref().unwrap_or("")), Rc::from(owner.name.as_str()));
        if let Some(id) = self.ids.get(&key) {
            return Some(*id);
        }
        let id = OwnerId(self.keys.len() as u32);
        self.keys.push(key.clone());
        self.ids.insert(key, id);
        Some(id)
    }

    /// The selector of a pod's Services and controller combined. It selects nothing if there is neither.
    pub fn selector(&self, namespace: &str, labels: &Labels, owner: Option<OwnerId>) -> Option<Selector> {
        let mut merged = Labels::new();
        for service in self.services.get(namespace).into_iter().flat_map(BTreeMap::values) {
            if service.iter().all(|(key, value)| labels.get(key) == Some(value)) {
                merged.extend(service.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
        }
        let mut selector = Selector::from_map(&merged);
        let controller = owner.and_then(|o| self.selectors.get(&self.keys[o.0 as usize]));
        selector.requirements.extend(controller.into_iter().flat_map(|s| s.requirements.iter().cloned()));
        (!selector.requirements.is_empty()).then_some(selector)
    }
}
