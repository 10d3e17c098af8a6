//! ResourceQuota, the last admission plug-in: charges what a new or growing object uses to the quotas that count it.
//!
//! The quotas are charged in the transaction that writes the object, so that either both happen or neither, and a
//! request that is refused for another reason is charged nothing. The controller (`resource_quota`) credits what is
//! deleted.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go`.

use super::RESOURCE_QUOTA;
use crate::api::Status;
use crate::apiserver::service_ip::Charge;
use crate::apiserver::write::{Deciding, Decision, Write};
use crate::object::{Kind, Milli, Object, ObjectKey};
use crate::quota::{self, Counts, Quota};
use crate::store::StoreKey;

impl Deciding<'_> {
    /// The charges to the namespace's quotas for an object that is new (`old` is `None`) or replaces `old`. `Err`
    /// refuses the write, since a quota would be exceeded.
    pub(in crate::apiserver) fn charge_quotas(
        &self,
        write: &Write,
        old: Option<&Object>,
        new: &Object,
    ) -> Result<Vec<Charge>, Decision> {
        let kind = new.kind();
        let grows = matches!(kind, Kind::SERVICE | Kind::PERSISTENT_VOLUME_CLAIM);
        if !self.runs(RESOURCE_QUOTA) || kind == Kind::EVENT || !new.info().namespaced || old.is_some() && !grows {
            return Ok(Vec::new());
        }
        let mut charges = Vec::new();
        for (key, _) in self.cache.range(Kind::RESOURCE_QUOTA, new.namespace()) {
            // A quota that was read from the store for this write takes precedence over the cached one.
            if let Some(object) = self.known(write, key) {
                charges.extend(self.charge(object, key, old, new)?);
            }
        }
        Ok(charges)
    }

    fn charge(
        &self,
        object: &Object,
        key: &ObjectKey,
        old: Option<&Object>,
        new: &Object,
    ) -> Result<Option<Charge>, Decision> {
        let Object::Dynamic(dynamic) = object else { return Ok(None) };
        let quota = Quota::read(dynamic);
        let info = new.info();
        let counted: Vec<&String> =
            quota.hard.keys().filter(|name| quota::is_counted(new.kind(), info, name)).collect();
        if counted.is_empty() || !quota.covers(new) {
            return Ok(None);
        }
        let refuse = |why: String| {
            let status = Status::forbidden(info, new.name(), &why);
            Decision::AnswerIf(vec![StoreKey::Object(key.clone())], Err(status))
        };
        if let Object::Pod(pod) = new {
            let enough = quota::says_enough(&pod.spec.shared, counted.iter().map(|name| name.as_str()));
            enough.map_err(|why| refuse(format!("failed quota: {}: {why}", key.name())))?;
        }
        if counted.iter().any(|name| !quota.used.contains_key(*name)) {
            let names = counted.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(",");
            return Err(refuse(format!("status unknown for quota: {}, resources: {names}", key.name())));
        }
        let asked = quota::usage(new, self.now.wall);
        let negative: Vec<&str> =
            asked.iter().filter(|(_, c)| c.amount < Milli::ZERO).map(|(n, _)| n.as_str()).collect();
        if !negative.is_empty() {
            return Err(refuse(format!("quota usage is negative for resource(s): {}", negative.join(","))));
        }
        let before =
            old.filter(|old| quota.covers(old)).map(|old| quota::usage(old, self.now.wall)).unwrap_or_default();
        let more = growth(asked, &before, &quota);
        if more.is_empty() {
            return Ok(None);
        }
        let mut used = quota.used.clone();
        quota::add(&mut used, &more);
        let over = |name: &String| more.contains_key(name) && used[name].amount > quota.hard[name].amount;
        let only = |counts: &Counts| quota::in_words(counts.iter().filter(|(name, _)| over(name)));
        if more.keys().any(over) {
            return Err(refuse(format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                key.name(),
                only(&more),
                only(&quota.used),
                only(&quota.hard)
            )));
        }
        let mut charged = dynamic.clone();
        let mut status = charged.status.as_deref().cloned().unwrap_or_default();
        status["used"] = quota::to_json(&used);
        charged.status = Some(std::rc::Rc::new(status));
        Ok(Some(Charge { key: StoreKey::Object(key.clone()), rv: object.rv(), quota: Object::Dynamic(charged) }))
    }
}

/// What is used beyond `before`, of the resources that a quota limits. Contains increases only.
fn growth(asked: Counts, before: &Counts, quota: &Quota) -> Counts {
    let mut more = asked;
    more.retain(|name, count| {
        count.amount.0 -= before.get(name).map_or(0, |b| b.amount.0);
        count.amount > Milli::ZERO && quota.hard.contains_key(name)
    });
    more
}
