//! Validation of network and cloud volumes, by type. Source: `pkg/apis/core/validation`.
//!
//! They are in five groups, in upstream's order: only the first source that is set in a volume is validated.

use k8s_openapi::api::core::v1::{
    AzureDiskVolumeSource, FCVolumeSource, FlexVolumeSource, FlockerVolumeSource, ISCSIVolumeSource,
    QuobyteVolumeSource, StorageOSVolumeSource, Volume,
};

use super::path::{Go, Path};
use super::volume::{Sources, descending_path, needed};
use super::{names, one_of, push_all};
use crate::object::FieldError;

pub(super) fn first(v: &Volume, s: &mut Sources<'_, '_>) {
    s.one("gitRepo", v.git_repo.as_ref(), |g, at, errors| {
        needed(&g.repository, &at.field("repository"), errors);
        descending_path(g.directory.as_deref().unwrap_or(""), &at.field("directory"), errors);
    });
    s.one("gcePersistentDisk", v.gce_persistent_disk.as_ref(), |d, at, errors| {
        needed(&d.pd_name, &at.field("pdName"), errors);
        partition(d.partition, at, errors);
    });
    s.one("awsElasticBlockStore", v.aws_elastic_block_store.as_ref(), |d, at, errors| {
        needed(&d.volume_id, &at.field("volumeID"), errors);
        partition(d.partition, at, errors);
    });
}

fn partition(partition: Option<i32>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(n) = partition.filter(|n| !(0..=255).contains(n)) {
        errors.push(FieldError::invalid(at.field("partition"), n, "must be between 1 and 255, inclusive"));
    }
}

pub(super) fn second(v: &Volume, s: &mut Sources<'_, '_>) {
    s.one("iscsi", v.iscsi.as_ref(), iscsi);
    s.one("glusterfs", v.glusterfs.as_ref(), |g, at, errors| {
        needed(&g.endpoints, &at.field("endpoints"), errors);
        needed(&g.path, &at.field("path"), errors);
    });
    s.one("flocker", v.flocker.as_ref(), flocker);
}

/// The error in an iSCSI name: it must be of one of three types and have that type's format. `None` if it is valid.
fn wrong_of_iscsi_name(name: &str) -> Option<&'static str> {
    let alnum = |text: &str, n: usize| text.len() == n && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let good = if let Some(rest) = name.strip_prefix("iqn") {
        is_iqn(rest)
    } else if let Some(rest) = name.strip_prefix("eui") {
        rest.len() == 17 && alnum(&rest[1..], 16)
    } else if let Some(rest) = name.strip_prefix("naa") {
        rest.len() == 33 && alnum(&rest[1..], 32)
    } else {
        return Some("must be valid format starting with iqn, eui, or naa");
    };
    (!good).then_some("must be valid format")
}

/// `\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`
fn is_iqn(rest: &str) -> bool {
    let Some(rest) = rest.strip_prefix('.') else { return false };
    let Some((date, rest)) = rest.split_once('.') else { return false };
    let digits = |text: &str, n: usize| text.len() == n && text.bytes().all(|b| b.is_ascii_digit());
    let dated = date.split_once('-').is_some_and(|(year, month)| digits(year, 4) && digits(month, 2));
    let Some((authority, target)) = rest.split_once(':') else { return false };
    let named = !authority.is_empty() && authority.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    let barred = |c: char| c.is_whitespace() || ",;*&$|".contains(c);
    dated && named && !target.is_empty() && !target.chars().any(barred)
}

fn iscsi(i: &ISCSIVolumeSource, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    needed(&i.target_portal, &at.field("targetPortal"), errors);
    if i.iqn.is_empty() {
        errors.push(FieldError::required(at.field("iqn"), ""));
    } else if let Some(wrong) = wrong_of_iscsi_name(&i.iqn) {
        errors.push(FieldError::invalid(at.field("iqn"), &i.iqn, wrong));
    }
    if !(0..=255).contains(&i.lun) {
        errors.push(FieldError::invalid(at.field("lun"), i.lun, "must be between 0 and 255, inclusive"));
    }
    if (i.chap_auth_discovery == Some(true) || i.chap_auth_session == Some(true)) && i.secret_ref.is_none() {
        errors.push(FieldError::required(at.field("secretRef"), ""));
    }
    if let Some(name) = &i.initiator_name
        && let Some(wrong) = wrong_of_iscsi_name(name)
    {
        errors.push(FieldError::invalid(at.field("initiatorname"), name, wrong));
    }
}

fn flocker(f: &FlockerVolumeSource, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (name, uuid) = (f.dataset_name.as_deref().unwrap_or(""), f.dataset_uuid.as_deref().unwrap_or(""));
    if name.is_empty() && uuid.is_empty() {
        errors.push(FieldError::required(at, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        let detail = "datasetName and datasetUUID can not be specified simultaneously";
        errors.push(FieldError::invalid(at, "resource", detail));
    }
    if name.contains('/') {
        errors.push(FieldError::invalid(at.field("datasetName"), name, "must not contain '/'"));
    }
}

pub(super) fn third(v: &Volume, s: &mut Sources<'_, '_>) {
    s.one("rbd", v.rbd.as_ref(), |r, at, errors| {
        monitors(&r.monitors, at, errors);
        needed(&r.image, &at.field("image"), errors);
    });
    s.one("cinder", v.cinder.as_ref(), |c, at, errors| {
        needed(&c.volume_id, &at.field("volumeID"), errors);
        if c.secret_ref.as_ref().is_some_and(|s| s.name.is_empty()) {
            errors.push(FieldError::required(at.field("secretRef").field("name"), ""));
        }
    });
    s.one("cephfs", v.cephfs.as_ref(), |c, at, errors| monitors(&c.monitors, at, errors));
    s.one("quobyte", v.quobyte.as_ref(), quobyte);
}

fn monitors(list: &[String], at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if list.is_empty() {
        errors.push(FieldError::required(at.field("monitors"), ""));
    }
}

fn quobyte(q: &QuobyteVolumeSource, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    if q.registry.is_empty() {
        errors.push(FieldError::required(at.field("registry"), PAIRS));
    } else if q.tenant.as_deref().unwrap_or("").len() >= 65 {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(FieldError::required(at.field("tenant"), detail));
    } else {
        for _ in q.registry.split(',').filter(|pair| !pair.contains(':')) {
            errors.push(FieldError::invalid(at.field("registry"), &q.registry, PAIRS));
        }
    }
    needed(&q.volume, &at.field("volume"), errors);
}

pub(super) fn fourth(v: &Volume, s: &mut Sources<'_, '_>) {
    s.one("fc", v.fc.as_ref(), fibre_channel);
    s.one("flexVolume", v.flex_volume.as_ref(), flex);
}

fn fibre_channel(f: &FCVolumeSource, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let targets = f.target_wwns.as_deref().unwrap_or_default();
    let ids = f.wwids.as_deref().unwrap_or_default();
    if targets.is_empty() && ids.is_empty() {
        let detail = "must specify either targetWWNs or wwids, but not both";
        errors.push(FieldError::required(at.field("targetWWNs"), detail));
    }
    if !targets.is_empty() && !ids.is_empty() {
        let detail = "targetWWNs and wwids can not be specified simultaneously";
        errors.push(FieldError::invalid(at.field("targetWWNs"), Go::strings(targets), detail));
    }
    match f.lun {
        _ if targets.is_empty() => {}
        None => errors.push(FieldError::required(at.field("lun"), "lun is required if targetWWNs is specified")),
        Some(n) if !(0..=255).contains(&n) => {
            errors.push(FieldError::invalid(at.field("lun"), n, "must be between 0 and 255, inclusive"));
        }
        Some(_) => {}
    }
}

fn flex(f: &FlexVolumeSource, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    needed(&f.driver, &at.field("driver"), errors);
    for key in f.options.iter().flatten().map(|(k, _)| k) {
        let domain = format!(".{}", key.split('/').next().unwrap_or("").to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(FieldError::invalid(at.field("options").key(key), key, detail));
        }
    }
}

pub(super) fn fifth(v: &Volume, s: &mut Sources<'_, '_>) {
    s.one("azureFile", v.azure_file.as_ref(), |a, at, errors| {
        needed(&a.secret_name, &at.field("secretName"), errors);
        needed(&a.share_name, &at.field("shareName"), errors);
    });
    s.one("vsphereVolume", v.vsphere_volume.as_ref(), |d, at, errors| {
        needed(&d.volume_path, &at.field("volumePath"), errors);
    });
    s.one("photonPersistentDisk", v.photon_persistent_disk.as_ref(), |d, at, errors| {
        needed(&d.pd_id, &at.field("pdID"), errors);
    });
    s.one("portworxVolume", v.portworx_volume.as_ref(), |d, at, errors| {
        needed(&d.volume_id, &at.field("volumeID"), errors);
    });
    s.one("azureDisk", v.azure_disk.as_ref(), azure_disk);
    s.one("storageos", v.storageos.as_ref(), storage_os);
}

fn azure_disk(d: &AzureDiskVolumeSource, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    needed(&d.disk_name, &at.field("diskName"), errors);
    needed(&d.disk_uri, &at.field("diskURI"), errors);
    if let Some(mode) = &d.caching_mode {
        one_of(mode, &["None", "ReadOnly", "ReadWrite"], &at.field("cachingMode"), errors);
    }
    let Some(kind) = &d.kind else { return };
    one_of(kind, &["Dedicated", "Managed", "Shared"], &at.field("kind"), errors);
    let (prefix, form) = if kind == "Managed" { ("/subscriptions/", MANAGED) } else { ("https://", BLOB) };
    if !d.disk_uri.starts_with(prefix) {
        errors.push(FieldError::not_supported(at.field("diskURI"), &d.disk_uri, &[form]));
    }
}

fn storage_os(o: &StorageOSVolumeSource, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    match o.volume_name.as_deref().unwrap_or("") {
        "" => errors.push(FieldError::required(at.field("volumeName"), "")),
        name => push_all(errors, &at.field("volumeName"), name, names::label(name)),
    }
    if let Some(namespace) = o.volume_namespace.as_deref().filter(|n| !n.is_empty()) {
        push_all(errors, &at.field("volumeNamespace"), namespace, names::label(namespace));
    }
    if o.secret_ref.as_ref().is_some_and(|s| s.name.is_empty()) {
        errors.push(FieldError::required(at.field("secretRef").field("name"), ""));
    }
}

pub(super) fn last(v: &Volume, s: &mut Sources<'_, '_>) {
    s.one("scaleIO", v.scale_io.as_ref(), |o, at, errors| {
        needed(&o.gateway, &at.field("gateway"), errors);
        needed(&o.system, &at.field("system"), errors);
        needed(o.volume_name.as_deref().unwrap_or(""), &at.field("volumeName"), errors);
    });
}
