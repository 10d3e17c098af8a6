//! The identity of a StatefulSet's members: names, labels, and the pod for an ordinal.

use serde_json::json;

use k8s_openapi::api::core::v1 as core_v1;

use super::{Revisions, Sync, history};
use crate::api::{Patch, Subresource};
use crate::client::Views;
use crate::controllers::Write;
use crate::controllers::claim::controller_ref;
use crate::controllers::history::POD_REVISION_LABEL;
use crate::object::{BoundPodSpec, Kind, ObjectKey, ObjectMeta, Pod, PodStatus};

const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// A pod of a StatefulSet, with its ordinal.
#[derive(Clone, Copy)]
pub(super) struct Member<'a> {
    pub ordinal: i32,
    pub pod: &'a Pod,
}

/// The ordinal in a pod's name: 3 for `web-3` of `web`. `None` if it is not a member's name.
pub(super) fn ordinal_of(set: &str, name: &str) -> Option<i32> {
    let digits = name.strip_prefix(set)?.strip_prefix('-')?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|n: &i32| plain && n.to_string() == digits)
}

/// The name of the claim for a claim template and an ordinal.
pub(super) fn claim_name(template: &core_v1::PersistentVolumeClaim, set: &str, ordinal: i32) -> String {
    format!("{}-{set}-{ordinal}", template.metadata.name.as_deref().unwrap_or(""))
}

/// The existing sets that a claim with this name may belong to, because both names may contain dashes: `data-web-3` may
/// be the claim `data` of `web`, and `a-b-web-3` a claim of `web` or of `b-web`.
pub(super) fn sets_of_claim<'a>(claim: &'a ObjectKey, views: &'a Views) -> impl Iterator<Item = ObjectKey> + 'a {
    let view = views.view(Kind::STATEFUL_SET);
    let base = claim.name().rsplit_once('-').map_or("", |(base, _)| base);
    let tails = base.match_indices('-').map(|(at, _)| &base[at + 1..]);
    tails.filter_map(|tail| view.key(claim.namespace(), tail).cloned())
}

/// Restores the identity labels of a pod; `None` if they are correct.
pub(super) fn mend(pod: &Pod, ordinal: i32) -> Option<Write> {
    let label = |key: &str| pod.meta.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str);
    let index = ordinal.to_string();
    if label(POD_NAME_LABEL) == Some(pod.name()) && label(POD_INDEX_LABEL) == Some(&index) {
        return None;
    }
    Some(Write::Patch {
        key: pod.key(),
        uid: pod.uid().into(),
        rv: Some(pod.rv),
        patch: Patch::Merge(json!({"metadata": {"labels": {POD_NAME_LABEL: pod.name(), POD_INDEX_LABEL: index}}})),
        subresource: Subresource::None,
    })
}

impl<'a> Sync<'a> {
    /// Whether a new pod with this ordinal uses the current revision and not the update revision.
    fn keeps_current(&self, ordinal: i32) -> bool {
        let rolling = self.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let partition = rolling.and_then(|r| r.partition).unwrap_or(0);
        ordinal < self.start().saturating_add(partition)
    }

    /// The pod for an ordinal; `None` if the data of its revision does not contain a template.
    pub(super) fn new_pod(&self, ordinal: i32, revisions: &Revisions<'_>) -> Option<Pod> {
        let revision = if self.keeps_current(ordinal) { revisions.current } else { revisions.update };
        let template = history::template(revision)?;
        let (set, name) = (self.object.name(), format!("{}-{ordinal}", self.object.name()));
        let of_template = template.metadata.unwrap_or_default();
        let mut labels = of_template.labels.unwrap_or_default();
        labels.insert(POD_REVISION_LABEL.to_owned(), revision.name().to_owned());
        labels.insert(POD_NAME_LABEL.to_owned(), name.clone());
        labels.insert(POD_INDEX_LABEL.to_owned(), ordinal.to_string());
        let mut spec = template.spec.unwrap_or_default();
        spec.hostname = Some(name.clone());
        spec.subdomain = self.spec.service_name.clone().filter(|s| !s.is_empty());
        self.put_volumes(&mut spec, set, ordinal);
        let meta = ObjectMeta {
            name: Some(name),
            namespace: self.object.meta().namespace.clone(),
            labels: Some(labels),
            annotations: of_template.annotations,
            finalizers: of_template.finalizers,
            owner_references: Some(vec![controller_ref(self.object)]),
            ..ObjectMeta::default()
        };
        Some(Pod::new(meta, BoundPodSpec::new(spec), PodStatus::default()))
    }

    /// Adds the claims as volumes; they replace volumes with the same names.
    fn put_volumes(&self, spec: &mut core_v1::PodSpec, set: &str, ordinal: i32) {
        let templates = self.claim_templates();
        let is_claim = |name: &str| templates.iter().any(|t| t.metadata.name.as_deref() == Some(name));
        let volume = |t: &core_v1::PersistentVolumeClaim| core_v1::Volume {
            name: t.metadata.name.clone().unwrap_or_default(),
            persistent_volume_claim: Some(core_v1::PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(t, set, ordinal),
                read_only: None,
            }),
            ..core_v1::Volume::default()
        };
        let mut volumes: Vec<core_v1::Volume> = templates.iter().map(volume).collect();
        volumes.extend(spec.volumes.take().into_iter().flatten().filter(|v| !is_claim(&v.name)));
        spec.volumes = (!volumes.is_empty()).then_some(volumes);
    }

    pub(super) fn claim_templates(&self) -> &'a [core_v1::PersistentVolumeClaim] {
        self.spec.volume_claim_templates.as_deref().unwrap_or(&[])
    }
}
