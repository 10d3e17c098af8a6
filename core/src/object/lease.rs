//! A Lease's renew time, held apart from the rest of the Lease.

use std::fmt;

use serde::{Serialize, Serializer};

use super::MicroTime;
use crate::machine::Wall;

/// A Lease's `spec.renewTime` in microseconds; may be absent. It is held beside the object's shared parts, so that a
/// renewal copies and allocates nothing. Renewals are most of the writes in a large idle cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RenewTime(i64);

impl RenewTime {
    const NONE: RenewTime = RenewTime(i64::MIN);

    /// The renew time for a wall-clock time.
    pub fn of(wall: Wall) -> RenewTime {
        RenewTime(wall.0)
    }

    /// As Kubernetes' type; `None` if absent.
    pub fn to_micro_time(self) -> Option<MicroTime> {
        (self != RenewTime::NONE).then(|| Wall(self.0).to_micro_time())
    }
}

impl Default for RenewTime {
    fn default() -> RenewTime {
        RenewTime::NONE
    }
}

impl From<Option<MicroTime>> for RenewTime {
    fn from(time: Option<MicroTime>) -> RenewTime {
        time.map_or(RenewTime::NONE, |t| RenewTime::of(Wall::from_micro_time(&t)))
    }
}

/// For digests. In the API the renew time is part of the Lease's spec.
impl Serialize for RenewTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

impl fmt::Debug for RenewTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_micro_time() {
            Some(time) => time.0.fmt(f),
            None => f.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RenewTime;
    use crate::machine::Wall;
    use crate::object::Object;
    use serde_json::json;

    #[test]
    fn a_renewal_shares_everything_else() {
        let value = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
            "spec": {"holderIdentity": "n", "renewTime": "2026-01-01T00:00:10.500000Z"}});
        let Object::Lease(lease) = Object::from_json(value.clone()).unwrap() else { panic!("a Lease") };
        let mut renewed = lease.clone();
        renewed.renewal = RenewTime::of(Wall::from_micro_time(&lease.renewal.to_micro_time().unwrap()));
        assert_eq!(renewed, lease);
        renewed.renewal = RenewTime::of(Wall(1_000_001));
        assert!(renewed.shares_parts(&lease));
        let (old, new) = (Object::Lease(lease), Object::Lease(renewed));
        assert!(old != new && !old.same_spec(&new));
        assert_eq!(
            (old.to_json(), &new.to_json()["spec"]["renewTime"]),
            (value, &json!("1970-01-01T00:00:01.000001Z"))
        );
        let mut taken = old.clone();
        taken.take_spec(&new);
        assert_eq!(taken, new);
    }
}
