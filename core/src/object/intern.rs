//! Interning: one shared copy of content that many objects have, wherever it was decoded.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Addresses, ContainerState, ContainerStatus, NameMap, Object, PodStatus, SharedPodSpec, Text};
use crate::limits;

/// Interned pod specs and texts. Objects that are decoded through one interner (from a store, a file or the wire) share
/// equal content: 150,000 pods of fifty templates have fifty specs.
///
/// What nobody else holds any more is dropped from time to time.
#[derive(Debug, Default)]
pub struct Interner {
    /// Specs by fingerprint.
    specs: BTreeMap<u64, Vec<SharedPodSpec>>,
    held: usize,
    /// When this many are held, those that nobody else holds are dropped.
    room: usize,
    texts: NameMap<Rc<str>>,
    texts_held: usize,
}

impl Interner {
    /// The interned spec that equals this one. If there is none, this one is interned.
    pub fn spec(&mut self, spec: &SharedPodSpec) -> SharedPodSpec {
        let print = spec.fingerprint();
        if let Some(known) = self.specs.get(&print).and_then(|specs| specs.iter().find(|known| *known == spec)) {
            return known.clone();
        }
        if self.held >= self.room.max(limits::INTERNED_SPECS) {
            self.sweep();
        }
        self.specs.entry(print).or_default().push(spec.clone());
        self.held += 1;
        spec.clone()
    }

    /// The interned copy of a text.
    pub fn text(&mut self, text: &Rc<str>) -> Rc<str> {
        if let Some(known) = self.texts.get(text) {
            return Rc::clone(known);
        }
        if self.texts_held == limits::INTERNED_TEXTS {
            (self.texts, self.texts_held) = (NameMap::default(), 0);
        }
        self.texts_held += 1;
        self.texts.insert(Rc::clone(text), Rc::clone(text));
        Rc::clone(text)
    }

    /// Replaces an object's pod spec, and the parts of a pod's status that many pods share, by interned copies. Nobody
    /// else may hold the object yet.
    pub fn intern(&mut self, object: &mut Object) {
        if let Some(spec) = object.pod_spec().map(|spec| self.spec(spec)) {
            object.set_pod_spec(spec);
        }
        if let Object::Pod(pod) = object {
            if let Some(node) = pod.spec.node.as_ref().map(|node| self.text(node)) {
                pod.spec_mut().node = Some(node);
            }
            if *pod.status != PodStatus::default() {
                self.status(pod.status_mut());
            }
        }
    }

    /// Interns what pods of one template or one node have in common. A pod's own IP address and its container IDs are
    /// unique, and are not interned.
    fn status(&mut self, status: &mut PodStatus) {
        self.texts([&mut status.reason, &mut status.message, &mut status.nominated_node_name, &mut status.host_ip]);
        if let Addresses::These(all) = &mut status.host_ips {
            self.texts(all);
        }
        for condition in &mut status.conditions {
            self.texts([&mut condition.type_, &mut condition.reason, &mut condition.message]);
        }
        for container in status.init_container_statuses.iter_mut().chain(&mut status.container_statuses) {
            let ContainerStatus { name, image, image_id, state, last_state, .. } = container;
            self.texts([name, image, image_id]);
            for state in [state, last_state] {
                if let ContainerState::Waiting { reason, message } = state {
                    self.texts([reason, message]);
                }
            }
        }
    }

    fn texts<'a>(&mut self, texts: impl IntoIterator<Item = &'a mut Text>) {
        for text in texts {
            if let Some(shared) = text.shared() {
                *text = Text::from(&self.text(shared));
            }
        }
    }

    /// Drops the specs that nobody else holds.
    fn sweep(&mut self) {
        self.specs.retain(|_, specs| {
            specs.retain(|spec| !spec.is_held_once());
            !specs.is_empty()
        });
        self.held = self.specs.values().map(Vec::len).sum();
        self.room = 2 * self.held;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Interner;
    use crate::limits;
    use crate::object::{Object, Pod};

    fn pod(name: &str, image: &str, node: &str) -> Object {
        let status = json!({"phase": "Running", "hostIP": node, "podIP": name, "conditions": [{"type": "Own/Condition",
            "status": "True"}], "containerStatuses": [{"name": "main", "image": image, "imageID": "sha256:1",
            "containerID": name, "ready": true, "restartCount": 0, "state": {"running": {}}}]});
        Object::from_json(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"containers": [{"name": "main", "image": image}], "nodeName": node}, "status": status}))
        .unwrap()
    }

    fn as_pod(object: &Object) -> &Pod {
        object.get::<k8s_openapi::api::core::v1::Pod>().unwrap()
    }

    #[test]
    fn what_many_say_is_held_once_and_says_the_same() {
        let mut interner = Interner::default();
        let mut read = |name: &str, image: &str, node: &str| {
            let (mut object, whole) = (pod(name, image, node), pod(name, image, node).to_json());
            interner.intern(&mut object);
            assert_eq!(object.to_json(), whole);
            object
        };
        let (a, b, c) = (read("a", "i", "n"), read("b", "i", "n"), read("c", "j", "m"));
        let (a, b, c) = (as_pod(&a), as_pod(&b), as_pod(&c));
        assert!(a.spec.shared.is_held_as(&b.spec.shared) && !a.spec.shared.is_held_as(&c.spec.shared));
        assert!(std::rc::Rc::ptr_eq(a.spec.node.as_ref().unwrap(), b.spec.node.as_ref().unwrap()));
        let places = |pod: &Pod| {
            let container = &pod.status.container_statuses[0];
            let texts = [&container.name, &container.image_id, &container.image, &pod.status.host_ip];
            texts.map(|text| text.shared().map(|t| t.as_ptr() as usize))
        };
        assert_eq!(places(a), places(b));
        assert_eq!(places(a)[..2], places(c)[..2]);
        assert!(places(a)[2..].iter().zip(&places(c)[2..]).all(|(x, y)| x != y));
    }

    #[test]
    fn what_nobody_else_holds_is_let_go() {
        let mut interner = Interner::default();
        let mut kept = pod("kept", "kept", "n");
        interner.intern(&mut kept);
        for i in 0..3 * limits::INTERNED_SPECS {
            interner.intern(&mut pod("p", &i.to_string(), &i.to_string()));
        }
        assert!(interner.held <= limits::INTERNED_SPECS + 1 && interner.texts_held <= limits::INTERNED_TEXTS);
        let mut again = pod("again", "kept", "n");
        interner.intern(&mut again);
        assert!(as_pod(&again).spec.shared.is_held_as(&as_pod(&kept).spec.shared));
    }
}
