//! Revisions: which ReplicaSet has the Deployment's template, the template's hash, and the annotations that number
//! rollouts.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1 as apps_v1;
use k8s_openapi::api::core::v1 as core_v1;

use super::{
    DESIRED_REPLICAS, MAX_REPLICAS, POD_TEMPLATE_HASH, REVISION, REVISION_HISTORY, Sync, scaling, size, wanted,
};
use crate::api::Subresource;
use crate::client::EventType;
use crate::controllers::Write;
use crate::controllers::hash::{encoded, fnv1a};
use crate::limits;
use crate::object::{
    Deployment, Kind, LabelSelector, Object, ObjectMeta, OwnerReference, ReplicaSet, Templated, controller_of,
};

/// Revision in an object's annotation; zero if there is none.
pub(super) fn revision(meta: &ObjectMeta) -> i64 {
    meta.annotations.as_ref().and_then(|a| a.get(REVISION)?.parse().ok()).unwrap_or(0)
}

/// Whether a ReplicaSet has the Deployment's template, apart from the hash label.
pub(super) fn same_template(d: &Deployment, rs: &ReplicaSet) -> bool {
    if d.spec.pod != rs.spec.pod {
        return false;
    }
    let (Some(a), Some(b)) = (d.spec.template_meta(), rs.spec.template_meta()) else {
        return d.spec.template_meta().is_none() && rs.spec.template_meta().is_none();
    };
    let none = BTreeMap::new();
    let labels = |m: &ObjectMeta| -> Vec<(String, String)> {
        let all = m.labels.as_ref().unwrap_or(&none).iter();
        all.filter(|(k, _)| *k != POD_TEMPLATE_HASH).map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let annotations = |m: &ObjectMeta| m.annotations.clone().unwrap_or_default();
    labels(a) == labels(b) && annotations(a) == annotations(b)
}

/// Index of the ReplicaSet with the Deployment's template; the oldest if there are several, so that all controllers
/// choose the same one.
pub(super) fn find_new(d: &Deployment, all: &[&ReplicaSet]) -> Option<usize> {
    all.iter().position(|rs| same_template(d, rs))
}

/// Hash of a pod template and a collision count, in the form used for the label: FNV-1a over the template's JSON,
/// written in letters that form no words. Equal templates have equal hashes; nothing else about the value is
/// guaranteed.
pub(super) fn template_hash(d: &Deployment) -> String {
    let template = core_v1::PodTemplateSpec {
        metadata: d.spec.template_meta().cloned(),
        spec: Some(core_v1::PodSpec::clone(&d.spec.pod)),
    };
    let text = serde_json::to_vec(&template).expect("a pod template serialises");
    encoded(fnv1a(&text, d.status.collision_count.unwrap_or(0)))
}

/// Annotations that a ReplicaSet copies from its Deployment.
fn inherited(d: &Deployment) -> impl Iterator<Item = (&String, &String)> {
    const OWN: &[&str] = &[
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        "deprecated.deployment.rollback.to",
    ];
    d.meta.annotations.iter().flatten().filter(|(k, _)| !OWN.contains(&k.as_str()))
}

impl Sync<'_> {
    /// Numbers the newest ReplicaSet, and creates it if it does not exist and `create` is true. Returns true if the
    /// plan now writes to it or to the Deployment's metadata; everything else must then wait until the views show those
    /// writes.
    pub(super) fn sync_revision(&mut self, create: bool) -> bool {
        let oldest = self.old().map(|rs| revision(&rs.meta)).max().unwrap_or(0);
        let next = oldest + 1;
        match self.new_rs() {
            Some(new) => self.number(new, next),
            None if create => {
                self.create(next);
                true
            }
            None => false,
        }
    }

    fn number(&mut self, new: &ReplicaSet, next: i64) -> bool {
        let mut copy = new.clone();
        let mut changed = false;
        let current = revision(&new.meta);
        if current < next {
            changed = true;
            let annotations = copy.meta_mut().annotations.get_or_insert_with(Default::default);
            annotations.insert(REVISION.to_owned(), next.to_string());
            if current > 0 {
                let history = annotations.entry(REVISION_HISTORY.to_owned()).or_default();
                *history = if history.is_empty() { current.to_string() } else { format!("{history},{current}") };
            }
        }
        for (k, v) in inherited(self.d) {
            if copy.meta.annotations.as_ref().and_then(|a| a.get(k)) != Some(v) {
                changed = true;
                copy.meta_mut().annotations.get_or_insert_with(Default::default).insert(k.clone(), v.clone());
            }
        }
        if copy.spec.min_ready_seconds.unwrap_or(0) != self.d.spec.min_ready_seconds.unwrap_or(0) {
            changed = true;
            copy.spec_mut().min_ready_seconds = self.d.spec.min_ready_seconds;
        }
        if changed {
            self.plan.writes.push(Write::Update(Object::from(copy), Subresource::None));
            return true;
        }
        self.note_revision(current)
    }

    /// Writes the revision into the Deployment's annotation. Returns true if it had to.
    fn note_revision(&mut self, number: i64) -> bool {
        if number == 0 || revision(&self.d.meta) == number {
            return false;
        }
        let mut copy = self.d.clone();
        let annotations = copy.meta_mut().annotations.get_or_insert_with(Default::default);
        annotations.insert(REVISION.to_owned(), number.to_string());
        self.plan.writes.push(Write::Update(Object::from(copy), Subresource::None));
        true
    }

    fn create(&mut self, number: i64) {
        let d = self.d;
        let hash = template_hash(d);
        let name = format!("{}-{hash}", d.name());
        if let Some(taken) = self.views.named::<apps_v1::ReplicaSet>(d.namespace(), &name) {
            if self.is_predecessors(taken) && self.views.view(Kind::REPLICA_SET).revision() < d.rv {
                // It may have been made an orphan before this Deployment was made, which adopts it then.
                return self.plan.wait_for(Kind::REPLICA_SET, limits::STALE_VIEW_RETRY);
            }
            // Another owner's ReplicaSet has this name: increment the collision count, which changes the hash.
            let mut copy = d.clone();
            let status = copy.status_mut();
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
            self.plan.writes.push(Write::Update(Object::from(copy), Subresource::Status));
            return;
        }
        let total: i32 = self.all.iter().map(|rs| size(rs)).sum();
        let replicas = scaling::new_size(d, total, 0);
        let rs = self.replica_set(name.clone(), &hash, number, replicas);
        self.plan.writes.push(Write::Create(Object::from(rs)));
        if replicas > 0 {
            self.event(
                EventType::Normal,
                "ScalingReplicaSet",
                format!("Scaled up replica set {name} from 0 to {replicas}"),
            );
        }
    }

    /// Whether a ReplicaSet is that of a Deployment of the same name which does not exist any more.
    fn is_predecessors(&self, rs: &ReplicaSet) -> bool {
        let owner = controller_of(&rs.meta);
        owner.is_some_and(|o| o.kind == "Deployment" && o.name == self.d.name() && o.uid != self.d.uid())
    }

    fn replica_set(&self, name: String, hash: &str, number: i64, replicas: i32) -> ReplicaSet {
        let d = self.d;
        let with_hash = |labels: Option<&BTreeMap<String, String>>| {
            let mut labels = labels.cloned().unwrap_or_default();
            labels.insert(POD_TEMPLATE_HASH.to_owned(), hash.to_owned());
            Some(labels)
        };
        let template_meta = d.spec.template_meta().cloned().unwrap_or_default();
        let labels = with_hash(template_meta.labels.as_ref());
        let selector = LabelSelector {
            match_labels: with_hash(d.spec.selector.match_labels.as_ref()),
            match_expressions: d.spec.selector.match_expressions.clone(),
        };
        let mut annotations: BTreeMap<String, String> = inherited(d).map(|(k, v)| (k.clone(), v.clone())).collect();
        annotations.insert(REVISION.to_owned(), number.to_string());
        annotations.insert(DESIRED_REPLICAS.to_owned(), wanted(d).to_string());
        annotations.insert(MAX_REPLICAS.to_owned(), (wanted(d) + scaling::max_surge(d)).to_string());
        let meta = ObjectMeta {
            name: Some(name),
            namespace: d.meta.namespace.clone(),
            labels: labels.clone(),
            annotations: Some(annotations),
            owner_references: Some(vec![OwnerReference {
                api_version: "apps/v1".to_owned(),
                kind: "Deployment".to_owned(),
                name: d.name().to_owned(),
                uid: d.uid().to_owned(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        };
        let fields = apps_v1::ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: d.spec.min_ready_seconds,
            selector,
            template: Some(core_v1::PodTemplateSpec {
                metadata: Some(ObjectMeta { labels, ..template_meta }),
                spec: None,
            }),
        };
        ReplicaSet::new(meta, Templated::with_pod(fields, d.spec.pod.clone()), Default::default())
    }
}
