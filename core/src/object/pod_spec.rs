//! A pod spec that many share: the pods of a template, and the template.

use std::cell::OnceCell;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use k8s_openapi::api::core::v1::PodSpec;

use super::{Part, digest};
use crate::random::name_key;

/// A pod spec behind a counter, with a fingerprint of what it says. Whoever keeps something for each spec finds it by
/// the fingerprint and compares the spec: two specs that say the same are the same, wherever they were made or read.
#[derive(Clone, Default)]
pub struct SharedPodSpec(Rc<Printed>);

#[derive(Clone, Default)]
struct Printed {
    /// Made when it is first asked for, once for all who share the spec.
    fingerprint: OnceCell<u64>,
    spec: PodSpec,
}

impl SharedPodSpec {
    /// Equal for equal specs, and mostly not for others. For look-ups, never for an order.
    pub fn fingerprint(&self) -> u64 {
        *self.0.fingerprint.get_or_init(|| digest::whole(&self.0.spec, name_key()))
    }

    /// For writing (copied if shared).
    pub fn make_mut(&mut self) -> &mut PodSpec {
        let own = Rc::make_mut(&mut self.0);
        own.fingerprint.take();
        &mut own.spec
    }

    /// Whether it is held in the same place as another: then they are equal.
    pub fn is_held_as(&self, other: &SharedPodSpec) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Whether nobody else holds it.
    pub(super) fn is_held_once(&self) -> bool {
        Rc::strong_count(&self.0) == 1
    }
}

impl From<PodSpec> for SharedPodSpec {
    fn from(spec: PodSpec) -> SharedPodSpec {
        SharedPodSpec(Rc::new(Printed { fingerprint: OnceCell::new(), spec }))
    }
}

impl Part for SharedPodSpec {
    type Of = PodSpec;

    fn new(spec: PodSpec) -> SharedPodSpec {
        SharedPodSpec::from(spec)
    }

    fn shares(&self, other: &SharedPodSpec) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    fn same(&self, other: &SharedPodSpec) -> bool {
        self == other
    }

    fn make_mut(&mut self) -> &mut PodSpec {
        SharedPodSpec::make_mut(self)
    }
}

impl Deref for SharedPodSpec {
    type Target = PodSpec;

    fn deref(&self) -> &PodSpec {
        &self.0.spec
    }
}

impl PartialEq for SharedPodSpec {
    fn eq(&self, other: &SharedPodSpec) -> bool {
        if self.is_held_as(other) {
            return true;
        }
        // Fingerprints are compared where they are known, and not made for it.
        let differ = matches!((self.0.fingerprint.get(), other.0.fingerprint.get()), (Some(a), Some(b)) if a != b);
        !differ && self.0.spec == other.0.spec
    }
}

impl fmt::Debug for SharedPodSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.spec.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::SharedPodSpec;
    use serde_json::json;

    fn spec(image: &str) -> SharedPodSpec {
        let spec = json!({"containers": [{"name": "c", "image": image}], "nodeSelector": {"a": "b"}});
        SharedPodSpec::from(serde_json::from_value::<k8s_openapi::api::core::v1::PodSpec>(spec).unwrap())
    }

    #[test]
    fn equal_specs_have_one_fingerprint_and_a_change_another() {
        let (a, mut b) = (spec("i"), spec("i"));
        assert_eq!((a.fingerprint(), &a), (b.fingerprint(), &b));
        assert!(!a.is_held_as(&b) && a.is_held_as(&a.clone()));
        let before = b.fingerprint();
        b.make_mut().containers[0].image = Some("j".to_owned());
        assert_ne!((b.fingerprint(), &b), (before, &a));
        assert_eq!(b.fingerprint(), spec("j").fingerprint());
        let mut c = a.clone();
        c.make_mut().host_network = Some(true);
        assert!(a == spec("i") && c != a);
    }
}
