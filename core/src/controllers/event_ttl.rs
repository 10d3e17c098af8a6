//! Deletes Events one hour after they last occurred. (In Kubernetes, an etcd lease does this; here it is a periodic
//! sweep.)

use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use super::{Controller, Plan, Write};
use crate::client::{Change, Views, Watched};
use crate::limits;
use crate::machine::{Mono, Now, Wall};
use crate::object::{Event, Kind, ObjectKey};

static WATCHED: &[Watched] = &[Watched { kind: Kind::EVENT, indexes: &[] }];

/// Deletes expired Events. It has a single key, for the sweep.
#[derive(Debug)]
pub struct EventTtlController {
    sweep: ObjectKey,
    next_sweep: Mono,
}

impl Default for EventTtlController {
    fn default() -> Self {
        EventTtlController { sweep: ObjectKey::new(Kind::EVENT, "", ""), next_sweep: Mono::ZERO }
    }
}

impl Controller for EventTtlController {
    fn name(&self) -> &'static str {
        "event-ttl-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHED
    }

    fn keys(&self, change: &Change, _views: &Views, keys: &mut Vec<ObjectKey>) {
        // After the first sweep, the key requeues itself.
        if change.new.is_some() && self.next_sweep == Mono::ZERO {
            keys.push(self.sweep.clone());
        }
    }

    fn reconcile(&mut self, views: &Views, _key: &ObjectKey, now: Now) -> Plan {
        let mut plan = Plan::nothing();
        if now.mono < self.next_sweep {
            plan.requeue(self.next_sweep.since(now.mono));
            return plan;
        }
        let old = views.list::<core_v1::Event>("").filter(|e| now.wall.since(last_seen(e)) >= limits::EVENT_TTL);
        plan.writes.extend(old.take(limits::EVENT_SWEEP_BATCH).map(|event| Write::Delete {
            key: event.key(),
            uid: Rc::from(event.uid()),
            rv: Some(event.rv),
            grace_seconds: None,
            propagation: None,
        }));
        let again = if plan.writes.len() == limits::EVENT_SWEEP_BATCH {
            limits::STALE_VIEW_RETRY
        } else {
            limits::EVENT_SWEEP_INTERVAL
        };
        self.next_sweep = now.mono + again;
        plan.requeue(again);
        plan
    }
}

/// When an Event last occurred: the latest of its timestamps.
fn last_seen(event: &Event) -> Wall {
    let spec = &event.spec;
    let times = [event.meta.creation_timestamp.as_ref(), spec.first_timestamp.as_ref(), spec.last_timestamp.as_ref()];
    let series = spec.series.as_ref().and_then(|s| s.last_observed_time.as_ref());
    let micro = [spec.event_time.as_ref(), series];
    let all =
        times.into_iter().flatten().map(Wall::from_time).chain(micro.into_iter().flatten().map(Wall::from_micro_time));
    all.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::EventTtlController;
    use crate::controllers::fake_cluster::{Fake, at, object};
    use crate::object::{Kind, Object, ObjectKey};
    use serde_json::json;

    fn event(name: &str, created: &str, last: Option<&str>) -> Object {
        object(json!({"apiVersion":"v1","kind":"Event","involvedObject":{},"lastTimestamp":last,
            "metadata":{"name":name,"namespace":"d","creationTimestamp":created}}))
    }

    #[test]
    fn an_hour_after_they_last_happened() {
        let events = [
            event("old", "2024-01-01T00:00:00Z", None),
            event("again", "2024-01-01T00:00:00Z", Some("2024-01-01T00:30:00Z")),
            event("new", "2024-01-01T00:59:00Z", None),
        ];
        let mut fake = Fake::new(&[Kind::EVENT], events);
        let mut controller = EventTtlController::default();
        let sweep = ObjectKey::new(Kind::EVENT, "", "");
        for (secs, left) in [(0, 3), (3600, 2), (3700, 2), (5500, 1), (9000, 0)] {
            let plan = fake.step(&mut controller, &sweep, at(secs));
            assert!(plan.requeue_after.is_some(), "it comes back");
            assert_eq!(fake.views.view(Kind::EVENT).len(), left, "at {secs} s");
        }
    }

    #[test]
    fn many_go_in_batches() {
        let many = (0..1200).map(|i| event(&format!("e{i}"), "2024-01-01T00:00:00Z", None));
        let mut fake = Fake::new(&[Kind::EVENT], many);
        let mut controller = EventTtlController::default();
        let sweep = ObjectKey::new(Kind::EVENT, "", "");
        let left = [4000, 4001, 4002].map(|secs| {
            fake.step(&mut controller, &sweep, at(secs));
            fake.views.view(Kind::EVENT).len()
        });
        assert_eq!(left, [700, 200, 0]);
    }
}
