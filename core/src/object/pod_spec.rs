//! A pod spec that is shared by a template and its pods.

use std::cell::OnceCell;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use k8s_openapi::api::core::v1::PodSpec;

use super::{Part, digest};
use crate::random::name_key;

/// A reference-counted pod spec with a fingerprint of its content. Whoever keeps data per spec looks it up by the
/// fingerprint and then compares the spec itself. Identity is by content: equal specs count as one, wherever they were
/// made or decoded.
#[derive(Clone, Default)]
pub struct SharedPodSpec(Rc<Printed>);

#[derive(Clone, Default)]
struct Printed {
    /// Computed on first use, once for all holders of the spec.
    fingerprint: OnceCell<u64>,
    spec: PodSpec,
}

impl SharedPodSpec {
    /// A hash of the content: equal for equal specs, and almost always different for others. For look-ups only: never
    /// order by it.
    pub fn fingerprint(&self) -> u64 {
        *self.0.fingerprint.get_or_init(|| digest::whole(&self.0.spec, name_key()))
    }

    /// The spec for writing (copied first if shared).
    pub fn make_mut(&mut self) -> &mut PodSpec {
        let own = Rc::make_mut(&mut self.0);
        own.fingerprint.take();
        &mut own.spec
    }

    /// Whether both share the same memory, and so are certainly equal.
    pub fn is_held_as(&self, other: &SharedPodSpec) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Whether this is the only reference.
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
        // Compare the fingerprints only if both are known already; never compute one just for this.
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
