//! A Lease's spec: what its renewals leave as it is, shared, and the time of the last renewal beside it.

use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use k8s_openapi::api::coordination::v1::LeaseSpec;

use super::MicroTime;
use crate::read_ahead::touch_shared;

/// A Lease's spec with its `renewTime` kept apart, so that a renewal, which is most of what is written in a large
/// cluster at rest, copies nothing else.
///
/// Dereferences to the shared [`LeaseSpec`], whose own `renew_time` is always `None`: read
/// [`renew_time`](Self::renew_time).
#[derive(Clone, Debug, Default)]
pub struct RenewedLeaseSpec {
    /// Everything but the time of the last renewal.
    shared: Rc<LeaseSpec>,
    /// `spec.renewTime`.
    pub renew_time: Option<MicroTime>,
}

impl RenewedLeaseSpec {
    /// Takes `renewTime` out of a whole spec.
    pub fn new(mut spec: LeaseSpec) -> RenewedLeaseSpec {
        let renew_time = spec.renew_time.take();
        RenewedLeaseSpec { shared: Rc::new(spec), renew_time }
    }

    /// As the whole spec, `renewTime` included. Copies everything.
    pub fn to_whole(&self) -> LeaseSpec {
        LeaseSpec { renew_time: self.renew_time.clone(), ..LeaseSpec::clone(&self.shared) }
    }

    /// Reads what a copy will touch.
    #[inline]
    pub fn read_ahead(&self) {
        touch_shared(&self.shared);
    }

    /// Whether they differ in the time of the last renewal at most.
    #[inline(always)]
    pub fn same_apart_from_renewal(&self, other: &RenewedLeaseSpec) -> bool {
        Rc::ptr_eq(&self.shared, &other.shared) || self.shared == other.shared
    }
}

impl PartialEq for RenewedLeaseSpec {
    fn eq(&self, other: &RenewedLeaseSpec) -> bool {
        self.renew_time == other.renew_time && self.same_apart_from_renewal(other)
    }
}

impl Deref for RenewedLeaseSpec {
    type Target = LeaseSpec;

    fn deref(&self) -> &LeaseSpec {
        &self.shared
    }
}

impl DerefMut for RenewedLeaseSpec {
    fn deref_mut(&mut self) -> &mut LeaseSpec {
        Rc::make_mut(&mut self.shared)
    }
}
