//! Pods of one template are admitted once: what the plug-ins made of their spec is remembered.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::limits;
use crate::object::{BoundPodSpec, ObjectKey, PodStatus, Revision, SharedPodSpec, Summarized};

/// The result of preparing a pod spec.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The spec as received.
    pub(super) incoming: SharedPodSpec,
    pub(super) namespace: Rc<str>,
    /// The spec after defaulting, admission and validation.
    pub(super) spec: Rc<BoundPodSpec>,
    pub(super) status: Summarized<PodStatus>,
    /// LimitRanger's annotation.
    pub(super) limited: Option<String>,
    pub(super) account: ObjectKey,
    pub(super) account_rv: Revision,
    /// Revision of the last change of a PriorityClass, of a RuntimeClass and of a LimitRange when the spec was
    /// prepared.
    pub(super) decided_by: [Revision; 3],
}

/// Cache of prepared pod specs: pods of one template are prepared once and share the result, whichever client created
/// them.
#[derive(Debug, Default)]
pub(in crate::apiserver) struct Memo {
    /// By fingerprint of the received spec. Used for look-ups only, never iterated.
    by_print: BTreeMap<u64, Vec<Prepared>>,
    /// Oldest first.
    order: VecDeque<(SharedPodSpec, Rc<str>)>,
}

impl Memo {
    pub(in crate::apiserver) fn clear(&mut self) {
        *self = Memo::default();
    }

    pub(super) fn find(&self, spec: &SharedPodSpec, namespace: &str) -> Option<&Prepared> {
        self.by_print.get(&spec.fingerprint())?.iter().find(|p| p.is_of(spec, namespace))
    }

    pub(super) fn add(&mut self, prepared: Prepared) {
        let (spec, namespace) = (prepared.incoming.clone(), Rc::clone(&prepared.namespace));
        let here = self.by_print.entry(spec.fingerprint()).or_default();
        match here.iter_mut().find(|p| p.is_of(&spec, &namespace)) {
            Some(old) => *old = prepared,
            None => {
                here.push(prepared);
                self.order.push_back((spec, namespace));
            }
        }
        if self.order.len() > limits::PREPARED_SPECS {
            let (spec, namespace) = self.order.pop_front().expect("a memo over its bound is not empty");
            let print = spec.fingerprint();
            let here = self.by_print.get_mut(&print).expect("the order names entries");
            here.retain(|p| !p.is_of(&spec, &namespace));
            if here.is_empty() {
                self.by_print.remove(&print);
            }
        }
    }
}

impl Prepared {
    fn is_of(&self, spec: &SharedPodSpec, namespace: &str) -> bool {
        *self.namespace == *namespace && self.incoming == *spec
    }
}
