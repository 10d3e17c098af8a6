//! Validation of volumes, and of persistent volume claims. Source: `pkg/apis/core/validation`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, PersistentVolumeClaimSpec,
    ProjectedVolumeSource, ServiceAccountTokenProjection, Volume,
};

use super::mount::Volumes;
use super::path::{Go, Path};
use super::{Owner, cloud_volume, env, meta, names, one_of, push_all};
use crate::object::{FieldError, Milli};

/// The names of the sources that are set in a volume; a valid volume has exactly one.
pub fn volume_sources(v: &Volume) -> impl Iterator<Item = &'static str> {
    [
        ("awsElasticBlockStore", v.aws_elastic_block_store.is_some()),
        ("azureDisk", v.azure_disk.is_some()),
        ("azureFile", v.azure_file.is_some()),
        ("cephfs", v.cephfs.is_some()),
        ("cinder", v.cinder.is_some()),
        ("configMap", v.config_map.is_some()),
        ("csi", v.csi.is_some()),
        ("downwardAPI", v.downward_api.is_some()),
        ("emptyDir", v.empty_dir.is_some()),
        ("ephemeral", v.ephemeral.is_some()),
        ("fc", v.fc.is_some()),
        ("flexVolume", v.flex_volume.is_some()),
        ("flocker", v.flocker.is_some()),
        ("gcePersistentDisk", v.gce_persistent_disk.is_some()),
        ("gitRepo", v.git_repo.is_some()),
        ("glusterfs", v.glusterfs.is_some()),
        ("hostPath", v.host_path.is_some()),
        ("image", v.image.is_some()),
        ("iscsi", v.iscsi.is_some()),
        ("nfs", v.nfs.is_some()),
        ("persistentVolumeClaim", v.persistent_volume_claim.is_some()),
        ("photonPersistentDisk", v.photon_persistent_disk.is_some()),
        ("portworxVolume", v.portworx_volume.is_some()),
        ("projected", v.projected.is_some()),
        ("quobyte", v.quobyte.is_some()),
        ("rbd", v.rbd.is_some()),
        ("scaleIO", v.scale_io.is_some()),
        ("secret", v.secret.is_some()),
        ("storageos", v.storageos.is_some()),
        ("vsphereVolume", v.vsphere_volume.is_some()),
    ]
    .into_iter()
    .filter(|(_, set)| *set)
    .map(|(name, _)| name)
}

/// `ValidateVolumes`. `pod` is the pod's name; `None` for a template. Returns the valid volumes.
pub(super) fn all<'a>(
    volumes: &'a [Volume],
    pod: Option<&str>,
    owner: Owner,
    at: &Path<'_>,
    errors: &mut Vec<FieldError>,
) -> Volumes<'a> {
    let mut good = Volumes::new();
    for (i, v) in volumes.iter().enumerate() {
        let at = at.index(i);
        let before = errors.len();
        source(v, pod, owner, &at, errors);
        if v.name.is_empty() {
            errors.push(FieldError::required(at.field("name"), ""));
        } else {
            push_all(errors, &at.field("name"), &v.name, names::label(&v.name));
        }
        if good.contains_key(v.name.as_str()) {
            errors.push(FieldError::duplicate(at.field("name"), &v.name));
        }
        if errors.len() == before {
            good.insert(&v.name, v);
        }
        let claim = v.persistent_volume_claim.as_ref().map(|c| c.claim_name.as_str());
        let made = |name: &str| pod.and_then(|pod| name.strip_prefix(pod)?.strip_prefix('-')).map(str::to_owned);
        if let Some(claim) = claim
            && let Some(of) = made(claim)
            && volumes.iter().any(|v| v.ephemeral.is_some() && v.name == of)
        {
            let at = at.field("persistentVolumeClaim");
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            errors.push(FieldError::invalid(at.field("claimName"), claim, detail));
        }
    }
    good
}

/// The sources of one volume: exactly one must be set, and only the first one is validated.
pub(super) struct Sources<'a, 'e> {
    given: bool,
    at: &'a Path<'a>,
    errors: &'e mut Vec<FieldError>,
}

impl Sources<'_, '_> {
    pub(super) fn one<T>(
        &mut self,
        name: &str,
        source: Option<&T>,
        check: impl FnOnce(&T, &Path<'_>, &mut Vec<FieldError>),
    ) {
        let Some(source) = source else { return };
        let at = self.at.field(name);
        if self.given {
            self.errors.push(FieldError::forbidden(at, "may not specify more than 1 volume type"));
        } else {
            self.given = true;
            check(source, &at, self.errors);
        }
    }
}

/// `validateVolumeSource`.
fn source(v: &Volume, pod: Option<&str>, owner: Owner, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut s = Sources { given: false, at, errors };
    s.one("emptyDir", v.empty_dir.as_ref(), |e, at, errors| {
        if e.size_limit.as_ref().is_some_and(|q| Milli::of(q).0 < 0) {
            let detail = "SizeLimit field must be a valid resource quantity";
            errors.push(FieldError::forbidden(at.field("sizeLimit"), detail));
        }
    });
    s.one("hostPath", v.host_path.as_ref(), host_path);
    cloud_volume::first(v, &mut s);
    s.one("secret", v.secret.as_ref(), |s, at, errors| {
        needed(s.secret_name.as_deref().unwrap_or(""), &at.field("secretName"), errors);
        mode(s.default_mode, &at.field("defaultMode"), errors);
        items(s.items.as_deref(), &at.field("items"), errors);
    });
    s.one("nfs", v.nfs.as_ref(), |n, at, errors| {
        needed(&n.server, &at.field("server"), errors);
        needed(&n.path, &at.field("path"), errors);
        if !n.path.starts_with('/') {
            errors.push(FieldError::invalid(at.field("path"), &n.path, "must be an absolute path"));
        }
    });
    cloud_volume::second(v, &mut s);
    s.one("persistentVolumeClaim", v.persistent_volume_claim.as_ref(), |c, at, errors| {
        needed(&c.claim_name, &at.field("claimName"), errors);
    });
    cloud_volume::third(v, &mut s);
    s.one("downwardAPI", v.downward_api.as_ref(), |d, at, errors| {
        mode(d.default_mode, &at.field("defaultMode"), errors);
        for file in d.items.iter().flatten() {
            downward_file(file, at, errors);
        }
    });
    cloud_volume::fourth(v, &mut s);
    s.one("configMap", v.config_map.as_ref(), |c, at, errors| {
        needed(&c.name, &at.field("name"), errors);
        mode(c.default_mode, &at.field("defaultMode"), errors);
        items(c.items.as_deref(), &at.field("items"), errors);
    });
    cloud_volume::fifth(v, &mut s);
    s.one("projected", v.projected.as_ref(), projected);
    cloud_volume::last(v, &mut s);
    s.one("csi", v.csi.as_ref(), |c, at, errors| {
        csi_driver(&c.driver, &at.field("driver"), errors);
        if let Some(secret) = &c.node_publish_secret_ref {
            if secret.name.is_empty() {
                let at = at.field("nodePublishSecretRef");
                errors.push(FieldError::required(at.field("name"), ""));
            } else {
                push_all(errors, &at.field("name"), &secret.name, names::subdomain(&secret.name));
            }
        }
    });
    s.one("ephemeral", v.ephemeral.as_ref(), |e, at, errors| {
        let at = at.field("volumeClaimTemplate");
        match &e.volume_claim_template {
            None => errors.push(FieldError::required(at, "")),
            Some(t) => {
                meta::claim_template(t.metadata.as_ref(), &at.field("metadata"), errors);
                claim(&t.spec, &at.field("spec"), errors);
            }
        }
    });
    if let Some(pod) = pod.filter(|_| v.ephemeral.is_some() && !v.name.is_empty()) {
        let name = format!("{pod}-{}", v.name);
        for wrong in names::subdomain(&name) {
            let detail = format!("PVC name {name:?}: {wrong}");
            s.errors.push(FieldError::invalid(at.field("name"), &v.name, detail));
        }
    }
    s.one("image", v.image.as_ref(), |i, at, errors| {
        if owner == Owner::Pod && i.reference.as_deref().unwrap_or("").is_empty() {
            errors.push(FieldError::required(at.field("reference"), ""));
        }
        match i.pull_policy.as_deref().unwrap_or("") {
            "" => errors.push(FieldError::required(at.field("pullPolicy"), "")),
            policy => one_of(policy, &["Always", "IfNotPresent", "Never"], &at.field("pullPolicy"), errors),
        }
    });
    if !s.given {
        s.errors.push(FieldError::required(at, "must specify a volume type"));
    }
}

fn host_path(h: &HostPathVolumeSource, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    const TYPES: &[&str] =
        &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    if h.path.is_empty() {
        errors.push(FieldError::required(at.field("path"), ""));
        return;
    }
    no_backsteps(&h.path, &at.field("path"), errors);
    if let Some(type_) = &h.type_ {
        one_of(type_, TYPES, &at.field("type"), errors);
    }
}

/// `ValidateCSIDriverName`.
pub(super) fn csi_driver(name: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    needed(name, at, errors);
    if name.len() > 63 {
        errors.push(FieldError::too_long(at, 63));
    }
    push_all(errors, at, name, names::subdomain(&name.to_lowercase()));
}

/// Checks that a text is not empty.
pub(super) fn needed(text: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if text.is_empty() {
        errors.push(FieldError::required(at, ""));
    }
}

fn mode(mode: Option<i32>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(mode) = mode.filter(|m| !(0..=0o777).contains(m)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(at, mode, detail));
    }
}

/// Validates each item by `validateKeyToPath`.
fn items(items: Option<&[KeyToPath]>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (i, item) in items.into_iter().flatten().enumerate() {
        let at = at.index(i);
        needed(&item.key, &at.field("key"), errors);
        needed(&item.path, &at.field("path"), errors);
        local_path(&item.path, &at.field("path"), errors);
        mode(item.mode, &at.field("mode"), errors);
    }
}

/// `validateDownwardAPIVolumeFile`.
fn downward_file(file: &DownwardAPIVolumeFile, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    needed(&file.path, &at.field("path"), errors);
    local_path(&file.path, &at.field("path"), errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(f), other) => {
            env::field(f, env::FILE_FIELDS, &at.field("fieldRef"), errors);
            if other.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(at, "resource", detail));
            }
        }
        (None, Some(r)) => env::resource_field(r, true, &at.field("resourceFieldRef"), errors),
        (None, None) => errors.push(FieldError::required(at, "one of fieldRef and resourceFieldRef is required")),
    }
    mode(file.mode, &at.field("mode"), errors);
}

/// `validateProjectedVolumeSource`. No two sources may write to the same path.
fn projected(p: &ProjectedVolumeSource, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    const TWICE: &str = "conflicting duplicate paths";
    mode(p.default_mode, &at.field("defaultMode"), errors);
    let mut paths = BTreeSet::new();
    for (i, source) in p.sources.iter().flatten().enumerate() {
        let item = at.field("sources");
        let item = item.index(i);
        let maps = [
            ("secret", source.secret.as_ref().map(|s| (&s.name, s.items.as_deref()))),
            ("configMap", source.config_map.as_ref().map(|c| (&c.name, c.items.as_deref()))),
        ];
        for (field, map) in maps {
            let Some((name, list)) = map else { continue };
            let path = item.field(field);
            needed(name, &path.field("name"), errors);
            items(list, &path.field("items"), errors);
            for key in list.into_iter().flatten().filter(|k| !k.path.is_empty()) {
                if !paths.insert(key.path.as_str()) {
                    errors.push(FieldError::invalid(at, name, TWICE));
                }
            }
        }
        for file in source.downward_api.iter().flat_map(|d| d.items.iter().flatten()) {
            downward_file(file, &item.field("downwardAPI"), errors);
            if !file.path.is_empty() && !paths.insert(file.path.as_str()) {
                errors.push(FieldError::invalid(at, &file.path, TWICE));
            }
        }
        if let Some(t) = &source.service_account_token {
            token(t, at, &item.field("serviceAccountToken"), errors);
        }
        if let Some(bundle) = &source.cluster_trust_bundle {
            trust_bundle(bundle, &item.field("clusterTrustBundle"), errors);
            if !paths.insert(bundle.path.as_str()) {
                errors.push(FieldError::invalid(at, &bundle.path, TWICE));
            }
        }
        let given = [
            source.secret.is_some(),
            source.config_map.is_some(),
            source.downward_api.is_some(),
            source.service_account_token.is_some(),
            source.cluster_trust_bundle.is_some(),
            source.pod_certificate.is_some(),
        ];
        if given.iter().filter(|g| **g).count() > 1 {
            errors.push(FieldError::forbidden(item, "may not specify more than 1 volume type per source"));
        }
    }
}

fn token(t: &ServiceAccountTokenProjection, volume: &Path<'_>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let seconds = t.expiration_seconds.unwrap_or(0);
    for (wrong, detail) in [
        (seconds < 600, "may not specify a duration less than 10 minutes"),
        (seconds > 1 << 32, "may not specify a duration larger than 2^32 seconds"),
    ] {
        if wrong {
            errors.push(FieldError::invalid(at.field("expirationSeconds"), seconds, detail));
        }
    }
    needed(&t.path, &volume.field("path"), errors);
    local_path(&t.path, &volume.field("path"), errors);
}

fn trust_bundle(b: &ClusterTrustBundleProjection, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    match (&b.name, &b.signer_name) {
        (Some(_), Some(_)) => {
            let shown = Go(serde_json::to_string(b).unwrap_or_default());
            errors.push(FieldError::invalid(at, shown, "only one of name and signerName may be used"));
        }
        (Some(name), None) => {
            if name.is_empty() {
                errors.push(FieldError::required(at.field("name"), "must be a valid object name"));
            }
            if let Some(selector) = &b.label_selector {
                let detail = "labelSelector must be unset if name is specified";
                errors.push(FieldError::invalid(at.field("labelSelector"), Go::selector(selector), detail));
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.push(FieldError::required(at.field("signerName"), "must be a valid signer name"));
            }
            if let Some(selector) = &b.label_selector {
                meta::selector(selector, &at.field("labelSelector"), errors);
            }
        }
        (None, None) => errors.push(FieldError::required(at, "either name or signerName must be specified")),
    }
    needed(&b.path, &at.field("path"), errors);
    local_path(&b.path, &at.field("path"), errors);
}

/// `ValidateLocalNonReservedPath`: relative, without `..`, and not beginning with two dots.
pub(super) fn local_path(path: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    descending_path(path, at, errors);
    if path.starts_with("..") && !path.starts_with("../") && path != ".." {
        errors.push(FieldError::invalid(at, path, "must not start with '..'"));
    }
}

/// `validateLocalDescendingPath`: relative, and without `..`.
pub(super) fn descending_path(path: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if path.starts_with('/') {
        errors.push(FieldError::invalid(at, path, "must be a relative path"));
    }
    no_backsteps(path, at, errors);
}

fn no_backsteps(path: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if path.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(at, path, "must not contain '..'"));
    }
}

const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// Validates the access modes of a volume or claim. `missing` is the error text if there are none.
pub(in crate::object) fn access_modes(
    modes: Option<&[String]>,
    missing: &str,
    at: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let modes = modes.unwrap_or_default();
    if modes.is_empty() {
        errors.push(FieldError::required(at, missing));
    }
    for mode in modes {
        one_of(mode, MODES, at, errors);
    }
    let alone = |mode: &String| mode == "ReadWriteOncePod";
    if modes.iter().any(alone) && modes.iter().any(|m| !alone(m) && MODES.contains(&m.as_str())) {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(at, detail));
    }
}

/// `ValidatePersistentVolumeClaimSpec`.
pub(in crate::object) fn claim(spec: &PersistentVolumeClaimSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let missing = "at least 1 access mode is required";
    if spec.access_modes.as_ref().is_none_or(Vec::is_empty) {
        errors.push(FieldError::required(at.field("accessModes"), missing));
    }
    if let Some(s) = &spec.selector {
        meta::selector(s, &at.field("selector"), errors);
    }
    if spec.access_modes.as_ref().is_some_and(|m| !m.is_empty()) {
        access_modes(spec.access_modes.as_deref(), missing, &at.field("accessModes"), errors);
    }
    let storage = at.field("resources");
    let storage = storage.key("storage");
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    match requests.and_then(|r| r.get("storage")) {
        None => errors.push(FieldError::required(storage, "")),
        Some(q) if Milli::of(q).0 <= 0 => {
            errors.push(FieldError::invalid(storage, &q.0, "must be greater than zero"));
        }
        Some(_) => {}
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|c| !c.is_empty()) {
        push_all(errors, &at.field("storageClassName"), class, names::subdomain(class));
    }
    if let Some(mode) = &spec.volume_mode {
        one_of(mode, &["Block", "Filesystem"], &at.field("volumeMode"), errors);
    }
    data_sources(spec, at, errors);
    if let Some(class) = spec.volume_attributes_class_name.as_deref().filter(|c| !c.is_empty()) {
        push_all(errors, &at.field("volumeAttributesClassName"), class, names::subdomain(class));
    }
}

fn data_sources(spec: &PersistentVolumeClaimSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let group = |g: &Option<String>| g.clone().unwrap_or_default();
    let old = spec.data_source.as_ref().map(|s| (group(&s.api_group), s.kind.as_str(), s.name.as_str()));
    let new = spec.data_source_ref.as_ref().map(|s| (group(&s.api_group), s.kind.as_str(), s.name.as_str()));
    for (field, source) in [("dataSource", &old), ("dataSourceRef", &new)] {
        let Some((group, kind, name)) = source else { continue };
        let at = at.field(field);
        needed(name, &at.field("name"), errors);
        needed(kind, &at.field("kind"), errors);
        if group.is_empty() && *kind != "PersistentVolumeClaim" {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.push(FieldError::invalid(at, *kind, detail));
        } else if !group.is_empty() {
            push_all(errors, &at.field("apiGroup"), group, names::subdomain(group));
        }
    }
    let namespace = spec.data_source_ref.as_ref().and_then(|s| s.namespace.as_deref()).filter(|n| !n.is_empty());
    if let Some(namespace) = namespace {
        let path = at.field("dataSourceRef");
        push_all(errors, &path.field("namespace"), namespace, names::label(namespace));
        if old.is_some() {
            let detail = "may not be specified when dataSourceRef.namespace is specified";
            errors.push(FieldError::invalid(at, Go("{}".to_owned()), detail));
        }
    } else if old.is_some() && new.is_some() && old != new {
        errors.push(FieldError::invalid(at, Go("{}".to_owned()), "must match dataSourceRef"));
    }
}
