//! The resource quota controller: keeps `status.used` of each ResourceQuota up to date.
//!
//! What comes in: quotas, and the objects that they count. What goes out: statuses.
//!
//! Never writes a `used` that is below the actual usage, however far a view lags: what admission has charged counts
//! until a view shows that the object is gone.
//!
//! Admission charges a quota in the transaction that creates the object. So a view that has reached the revision of the
//! last charge shows every object that was charged; only from such a view may `used` be lowered.
//!
//! Source: upstream's `pkg/controller/resourcequota`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::{Controller, Plan, Write};
use crate::api::Subresource;
use crate::client::{Change, Views, Watched};
use crate::machine::Now;
use crate::object::{Dynamic, Kind, Object, ObjectKey, Revision};
use crate::quota::{self, Counts, Quota};

/// How long to wait before checking again whether a view has reached the last charge.
const PATIENCE: Duration = Duration::from_secs(1);

/// The controller.
#[derive(Debug, Default)]
pub struct ResourceQuotaController {
    /// For each quota, the revision of this controller's last write and the revision of the last charge before it.
    own: BTreeMap<ObjectKey, (Revision, Revision)>,
}

macro_rules! watched {
    ($($kind:ident)*) => { &[$(Watched { kind: Kind::$kind, indexes: &[] }),*] };
}

/// The kinds that are watched: quotas, and all built-in namespaced kinds except those that change all the time (Events,
/// Leases, endpoints).
const WATCHES: &[Watched] = watched! {
    RESOURCE_QUOTA POD SERVICE PERSISTENT_VOLUME_CLAIM CONFIG_MAP SECRET REPLICATION_CONTROLLER REPLICA_SET DEPLOYMENT
    STATEFUL_SET DAEMON_SET JOB CRON_JOB HORIZONTAL_POD_AUTOSCALER INGRESS NETWORK_POLICY SERVICE_ACCOUNT
    POD_DISRUPTION_BUDGET
};

impl Controller for ResourceQuotaController {
    fn name(&self) -> &'static str {
        "resourcequota-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHES
    }

    fn keys(&self, change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
        if change.key.kind == Kind::RESOURCE_QUOTA {
            keys.push(change.key.clone());
        }
        let quotas = views.view(Kind::RESOURCE_QUOTA);
        if !quotas.is_empty() && may_matter(change) {
            let others = quotas.namespace(change.key.namespace()).map(Object::key).filter(|key| *key != change.key);
            keys.extend(others);
        }
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let Some(object @ Object::Dynamic(dynamic)) = views.view(Kind::RESOURCE_QUOTA).get(key) else {
            self.own.remove(key);
            return plan;
        };
        let quota = Quota::read(dynamic);
        let charged =
            self.own.get(key).filter(|(rv, _)| *rv == object.rv()).map_or(object.rv(), |(_, charged)| *charged);
        let mut used = Counts::new();
        for watched in WATCHES {
            let view = views.view(watched.kind);
            let counted =
                quota.declared.keys().filter(|name| quota::is_counted(watched.kind, watched.kind.row(), name));
            let mut sums: Counts = counted.map(|name| (name.clone(), quota::Count::default())).collect();
            if sums.is_empty() {
                continue;
            }
            for one in view.namespace(key.namespace()).filter(|o| quota.covers(o)) {
                let mut of_it = quota::usage(one, now.wall);
                of_it.retain(|name, _| sums.contains_key(name));
                quota::add(&mut sums, &of_it);
                if let Object::Pod(pod) = one
                    && let Some(at) = quota::overdue_at(pod).filter(|at| *at >= now.wall)
                {
                    plan.requeue(at.since(now.wall) + Duration::from_millis(1));
                }
            }
            for (name, sum) in sums {
                let known = quota.used.get(&name).filter(|known| known.amount > sum.amount);
                let may_credit = view.revision() >= charged;
                let sum = match known {
                    Some(known) if !may_credit => {
                        plan.wait_for(watched.kind, PATIENCE);
                        *known
                    }
                    _ => sum,
                };
                used.insert(name, sum);
            }
        }
        if used != quota.used || quota.hard != quota.declared || !has_status(dynamic) {
            let mut changed = dynamic.clone();
            let status = json!({"hard": quota::to_json(&quota.declared), "used": quota::to_json(&used)});
            changed.status = Some(std::rc::Rc::new(status));
            plan.writes.push(Write::Update(Object::Dynamic(changed), Subresource::Status));
            self.own.insert(key.clone(), (Revision(0), charged));
        }
        plan
    }

    fn succeeded(
        &mut self,
        _views: &Views,
        key: &ObjectKey,
        _write: &Write,
        object: Option<&Object>,
    ) -> Option<super::EventNote> {
        // A status write by this controller is not a charge, so the revision of the last charge stays.
        if let (Some(own), Some(object)) = (self.own.get_mut(key), object) {
            own.0 = object.rv();
        }
        None
    }
}

fn has_status(quota: &Dynamic) -> bool {
    quota.status.as_deref().is_some_and(|s| s.get("used").is_some())
}

/// Whether a change may affect the usage. Most changes of pods only report their status and do not.
fn may_matter(change: &Change) -> bool {
    let (Some(Object::Pod(old)), Some(Object::Pod(new))) = (&change.old, &change.new) else { return true };
    old.status.summary().phase != new.status.summary().phase
        || old.meta.deletion_timestamp != new.meta.deletion_timestamp
        || old.spec != new.spec
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::ResourceQuotaController;
    use crate::client::Views;
    use crate::controllers::workload_world::NOW;
    use crate::controllers::{Controller, Write};
    use crate::object::{Kind, Object, ObjectKey, Revision};

    fn object(kind: &str, name: &str, rv: u64, mut body: Value) -> Object {
        let base = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "d", "uid": name}});
        json_patch::merge(&mut body, &base);
        let mut object = Object::from_json(body).unwrap();
        object.set_rv(Revision(rv));
        object
    }

    fn pod(name: &str, cpu: &str, status: Value) -> Object {
        let resources = json!({"requests": {"cpu": cpu}});
        object(
            "Pod",
            name,
            5,
            json!({"spec": {"containers": [{"name": "c", "resources": resources}]}, "status": status}),
        )
    }

    /// Reconciles a quota while the view of pods is at revision `seen`. Returns the written `used`; `None` if nothing
    /// is written.
    fn used(objects: Vec<Object>, quota: Value, seen: u64) -> Option<Value> {
        let mut controller = ResourceQuotaController::default();
        let kinds: Vec<Kind> = controller.watches().iter().map(|w| w.kind).collect();
        let quota = object("ResourceQuota", "q", 10, quota);
        let mut views = Views::of(&kinds, objects.into_iter().chain([quota]));
        views.view_mut(Kind::POD).set_revision(Revision(seen));
        let plan = controller.reconcile(&views, &ObjectKey::new(Kind::RESOURCE_QUOTA, "d", "q"), NOW);
        match plan.writes.as_slice() {
            [] => None,
            [Write::Update(o, _)] => Some(o.to_json()["status"]["used"].clone()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_sum_of_what_lives() {
        let hard = json!({"cpu": "10", "pods": "5", "configmaps": "3", "count/deployments.apps": "1"});
        let pods = || {
            vec![
                pod("a", "1500m", json!({"phase": "Running"})),
                pod("b", "1", json!({})),
                pod("c", "9", json!({"phase": "Succeeded"})),
                object("ConfigMap", "m", 4, json!({})),
            ]
        };
        let sums = json!({"cpu": "2500m", "pods": "2", "configmaps": "1", "count/deployments.apps": "0"});
        assert_eq!(used(pods(), json!({"spec": {"hard": hard}}), 10), Some(sums.clone()));
        let known = json!({"spec": {"hard": hard}, "status": {"hard": hard, "used": sums}});
        assert_eq!(used(pods(), known, 10), None);
        let changed = json!({"spec": {"hard": {"pods": "1"}}, "status": {"hard": hard, "used": sums}});
        assert_eq!(used(pods(), changed, 10), Some(json!({"pods": "2"})));
        assert_eq!(used(vec![], json!({"spec": {"hard": {}}}), 10), Some(json!({})));
    }

    #[test]
    fn nothing_is_credited_before_the_view_has_seen_the_last_charge() {
        let hard = json!({"pods": "5"});
        let quota = |n: &str| json!({"spec": {"hard": hard}, "status": {"hard": hard, "used": {"pods": n}}});
        let one = || vec![pod("a", "1", json!({}))];
        assert_eq!(used(one(), quota("2"), 9), None, "the pod that was charged at 10 is not seen yet");
        assert_eq!(used(one(), quota("2"), 10), Some(json!({"pods": "1"})));
        assert_eq!(used(one(), quota("0"), 9), Some(json!({"pods": "1"})));
    }
}
