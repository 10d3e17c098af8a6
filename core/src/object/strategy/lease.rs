//! Lease. Source: `pkg/registry/coordination/lease/strategy.go`.

use std::rc::Rc;

use k8s_openapi::api::coordination::v1 as coordination_v1;

use super::Strategy;
use crate::object::{FieldError, Inline, Kind, Lease, Obj, Object, ObjectMeta, RenewTime, Resource, validation};

resource!({
        type Renewal = RenewTime;
        fn take_renewal(spec: &mut coordination_v1::LeaseSpec) -> RenewTime {
            spec.renew_time.take().into()
        }
        fn put_renewal(&mut self, renewal: RenewTime) {
            let spec = self.spec.get_or_insert_default();
            assert!(spec.renew_time.is_none(), "a renewal is written to Obj::renewal, not into the shared spec");
            spec.renew_time = renewal.to_micro_time();
        }
    }
    Lease coordination_v1::Lease, LEASE, Rc coordination_v1::LeaseSpec, Inline (),
    |w| (w.metadata, w.spec.unwrap_or_default(), ()),
    |meta, spec, _status| Self { metadata: meta, spec: Some(spec.clone()) });

impl Strategy for coordination_v1::Lease {
    fn validate(lease: &Lease, errors: &mut Vec<FieldError>) {
        validation::lease(&lease.spec, errors);
    }
}
