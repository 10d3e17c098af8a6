//! Validation of volumes, and of persistent volume claims. Source: `pkg/apis/core/validation`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, PersistentVolumeClaimSpec, ProjectedVolumeSource, Volume,
};

use super::path::{Go, Path};
use super::{meta, names, one_of, push_all};
use crate::object::{FieldError, Milli};

/// The fields of a volume's sources that are set; one, in a good volume.
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

/// `ValidateVolumes`.
pub(super) fn all(volumes: &[Volume], at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut names = BTreeSet::new();
    for (i, v) in volumes.iter().enumerate() {
        let at = at.index(i);
        if v.name.is_empty() {
            errors.push(FieldError::required(at.field("name"), ""));
        } else {
            push_all(errors, &at.field("name"), &v.name, names::label(&v.name));
            if !names.insert(v.name.as_str()) {
                errors.push(FieldError::duplicate(at.field("name"), &v.name));
            }
        }
        volume(v, &at, errors);
    }
}

fn volume(v: &Volume, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut sources = volume_sources(v);
    if sources.next().is_none() {
        errors.push(FieldError::required(at, "must specify a volume type"));
    }
    for more in sources {
        errors.push(FieldError::forbidden(at.field(more), "may not specify more than 1 volume type"));
    }
    if let Some(h) = &v.host_path {
        let at = at.field("hostPath");
        if h.path.is_empty() {
            errors.push(FieldError::required(at.field("path"), ""));
        }
        no_backsteps(&h.path, &at.field("path"), errors);
        if let Some(type_) = h.type_.as_deref().filter(|t| !t.is_empty()) {
            const TYPES: &[&str] =
                &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
            one_of(type_, TYPES, &at.field("type"), errors);
        }
    }
    if let Some(s) = &v.secret {
        let at = at.field("secret");
        needed(s.secret_name.as_deref().unwrap_or(""), &at.field("secretName"), errors);
        mode(s.default_mode, &at.field("defaultMode"), errors);
        items(s.items.as_deref(), &at.field("items"), errors);
    }
    if let Some(c) = &v.config_map {
        let at = at.field("configMap");
        needed(&c.name, &at.field("name"), errors);
        mode(c.default_mode, &at.field("defaultMode"), errors);
        items(c.items.as_deref(), &at.field("items"), errors);
    }
    if let Some(d) = &v.downward_api {
        let at = at.field("downwardAPI");
        mode(d.default_mode, &at.field("defaultMode"), errors);
        downward_items(d.items.as_deref(), &at, errors);
    }
    if let Some(p) = &v.projected {
        projected(p, &at.field("projected"), errors);
    }
    if let Some(c) = &v.persistent_volume_claim {
        needed(&c.claim_name, &at.field("persistentVolumeClaim").field("claimName"), errors);
    }
    if let Some(n) = &v.nfs {
        let at = at.field("nfs");
        needed(&n.server, &at.field("server"), errors);
        needed(&n.path, &at.field("path"), errors);
        if !n.path.is_empty() && !n.path.starts_with('/') {
            errors.push(FieldError::invalid(at.field("path"), &n.path, "must be an absolute path"));
        }
    }
    if let Some(c) = &v.csi {
        needed(&c.driver, &at.field("csi").field("driver"), errors);
    }
    let limit = v.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref());
    if limit.is_some_and(|q| Milli::of(q).0 < 0) {
        let detail = "SizeLimit field must be a valid resource quantity";
        errors.push(FieldError::forbidden(at.field("emptyDir").field("sizeLimit"), detail));
    }
    if let Some(e) = &v.ephemeral {
        let at = at.field("ephemeral");
        let at = at.field("volumeClaimTemplate");
        match &e.volume_claim_template {
            None => errors.push(FieldError::required(at, "")),
            Some(t) => claim(&t.spec, &at.field("spec"), errors),
        }
    }
}

fn needed(text: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) {
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

fn items(items: Option<&[KeyToPath]>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (i, item) in items.into_iter().flatten().enumerate() {
        let at = at.index(i);
        needed(&item.key, &at.field("key"), errors);
        needed(&item.path, &at.field("path"), errors);
        local_path(&item.path, &at.field("path"), errors);
        mode(item.mode, &at.field("mode"), errors);
    }
}

fn downward_items(items: Option<&[DownwardAPIVolumeFile]>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for file in items.into_iter().flatten() {
        needed(&file.path, &at.field("path"), errors);
        local_path(&file.path, &at.field("path"), errors);
        match (&file.field_ref, &file.resource_field_ref) {
            (None, None) => {
                errors.push(FieldError::required(
                    at.field("fieldRef"),
                    "one of fieldRef and resourceFieldRef is required",
                ));
            }
            (Some(_), Some(_)) => errors.push(FieldError::invalid(
                at,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            )),
            _ => {}
        }
        mode(file.mode, &at.field("mode"), errors);
    }
}

fn projected(p: &ProjectedVolumeSource, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    mode(p.default_mode, &at.field("defaultMode"), errors);
    for (i, source) in p.sources.iter().flatten().enumerate() {
        let at = at.field("sources");
        let at = at.index(i);
        if let Some(s) = &source.secret {
            needed(&s.name, &at.field("secret").field("name"), errors);
            items(s.items.as_deref(), &at.field("secret").field("items"), errors);
        }
        if let Some(c) = &source.config_map {
            needed(&c.name, &at.field("configMap").field("name"), errors);
            items(c.items.as_deref(), &at.field("configMap").field("items"), errors);
        }
        if let Some(d) = &source.downward_api {
            downward_items(d.items.as_deref(), &at.field("downwardAPI"), errors);
        }
        if let Some(t) = &source.service_account_token {
            let at = at.field("serviceAccountToken");
            needed(&t.path, &at.field("path"), errors);
            if let Some(seconds) = t.expiration_seconds.filter(|s| *s < 600) {
                let detail = "may not specify a duration less than 10 minutes";
                errors.push(FieldError::invalid(at.field("expirationSeconds"), seconds, detail));
            }
        }
    }
}

/// A path within a volume: relative, and not upwards.
pub(super) fn local_path(path: &str, at: &Path<'_>, errors: &mut Vec<FieldError>) {
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

/// Access modes of a volume or a claim.
pub(super) fn access_modes(modes: Option<&[String]>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let modes = modes.unwrap_or_default();
    if modes.is_empty() {
        errors.push(FieldError::required(at, "at least 1 access mode is required"));
    }
    for mode in modes {
        one_of(mode, MODES, at, errors);
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(at, detail));
    }
}

/// `ValidatePersistentVolumeClaimSpec`.
pub(super) fn claim(spec: &PersistentVolumeClaimSpec, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    access_modes(spec.access_modes.as_deref(), &at.field("accessModes"), errors);
    if let Some(s) = &spec.selector {
        meta::selector(s, &at.field("selector"), errors);
    }
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    match requests.and_then(|r| r.get("storage")) {
        None => errors.push(FieldError::required(at.field("resources").key("storage"), "")),
        Some(q) if Milli::of(q).0 <= 0 => errors.push(FieldError::invalid(
            at.field("resources").key("storage"),
            Go(format!("{:?}", q.0)),
            "must be greater than zero",
        )),
        Some(_) => {}
    }
    if let Some(mode) = &spec.volume_mode {
        one_of(mode, &["Block", "Filesystem"], &at.field("volumeMode"), errors);
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|c| !c.is_empty()) {
        push_all(errors, &at.field("storageClassName"), class, names::subdomain(class));
    }
}
