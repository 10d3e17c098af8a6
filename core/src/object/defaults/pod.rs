//! Defaults of pod specs: those of every template, and those of pods alone.
//!
//! Source: `pkg/apis/core/v1/defaults.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    AzureDiskVolumeSource, ConfigMapVolumeSource, Container, ContainerPort, DownwardAPIProjection,
    DownwardAPIVolumeFile, DownwardAPIVolumeSource, EnvVar, EnvVarSource, EphemeralContainer, EphemeralVolumeSource,
    FileKeySelector, GRPCAction, HTTPGetAction, HostPathVolumeSource, ISCSIVolumeSource, ImageVolumeSource, Lifecycle,
    LifecycleHandler, ObjectFieldSelector, PersistentVolumeClaimTemplate, PodCertificateProjection, PodSpec,
    PodTemplateSpec, Probe, ProjectedVolumeSource, RBDVolumeSource, ResourceRequirements, ScaleIOVolumeSource,
    SecretVolumeSource, ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::rules::{Defaults, Parts, defaults, one_part};

/// What a pod's spec gets beyond that of a template (`SetDefaults_Pod`).
pub(super) struct OfPod<'a>(pub &'a mut PodSpec);

impl OfPod<'_> {
    pub(super) fn fill(self) {
        let spec = self.0;
        Defaults::fill(spec);
        for c in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            if requests_missing(c.resources.as_ref()) {
                fill_requests(&mut c.resources);
            }
        }
        fill_pod_requests(spec);
        spec.enable_service_links.get_or_insert(true);
        if spec.host_network == Some(true) {
            let inits = spec.init_containers.iter_mut().flatten();
            for port in spec.containers.iter_mut().chain(inits).flat_map(|c| c.ports.iter_mut().flatten()) {
                if port.host_port.unwrap_or(0) == 0 {
                    port.host_port = Some(port.container_port);
                }
            }
        }
    }

    pub(super) fn lacks(spec: &PodSpec) -> bool {
        let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        spec.enable_service_links.is_none()
            || containers.clone().any(|c| requests_missing(c.resources.as_ref()))
            || pod_requests_missing(spec)
            || (spec.host_network == Some(true)
                && containers.any(|c| {
                    let mut ports = c.ports.iter().flatten();
                    ports.any(|p| p.host_port.unwrap_or(0) == 0 && p.container_port != 0)
                }))
            || Defaults::lacks(spec)
    }
}

/// A container that limits a resource asks for as much, unless it says otherwise.
fn requests_missing(resources: Option<&ResourceRequirements>) -> bool {
    resources.is_some_and(|r| {
        r.limits.iter().flatten().any(|(name, _)| !r.requests.as_ref().is_some_and(|q| q.contains_key(name)))
    })
}

fn fill_requests(resources: &mut Option<ResourceRequirements>) {
    let Some(r) = resources else { return };
    let requests = r.requests.get_or_insert_default();
    for (name, limit) in r.limits.iter().flatten() {
        if !requests.contains_key(name) {
            requests.insert(name.clone(), limit.clone());
        }
    }
}

/// Pod-level limits become pod-level requests where neither the pod nor any container asks.
fn pod_requests_to_fill(spec: &PodSpec) -> impl Iterator<Item = (&String, &Quantity)> {
    let asked = |name: &String| {
        spec.containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
            .any(|c| c.resources.as_ref().and_then(|r| r.requests.as_ref()).is_some_and(|q| q.contains_key(name)))
    };
    let r = spec.resources.as_ref();
    let requests = r.and_then(|r| r.requests.as_ref());
    r.and_then(|r| r.limits.as_ref()).into_iter().flatten().filter(move |(name, _)| {
        let supported = *name == "cpu" || *name == "memory" || name.starts_with("hugepages-");
        supported && !requests.is_some_and(|q| q.contains_key(*name)) && !asked(name)
    })
}

fn pod_requests_missing(spec: &PodSpec) -> bool {
    spec.resources.is_some() && pod_requests_to_fill(spec).next().is_some()
}

fn fill_pod_requests(spec: &mut PodSpec) {
    let missing: BTreeMap<String, Quantity> =
        pod_requests_to_fill(spec).map(|(name, q)| (name.clone(), q.clone())).collect();
    if let Some(r) = spec.resources.as_mut().filter(|_| !missing.is_empty()) {
        r.requests.get_or_insert_default().extend(missing);
    }
}

/// `Always` for an image of the tag `latest` (or of none), `IfNotPresent` otherwise.
pub(super) fn pull_policy(image: Option<&str>) -> &'static str {
    let image = image.unwrap_or("");
    let (name, digest) = image.split_once('@').map_or((image, None), |(n, d)| (n, Some(d)));
    let last = name.rsplit('/').next().unwrap_or(name);
    let latest = match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => digest.is_none() && !name.is_empty(),
    };
    if latest { "Always" } else { "IfNotPresent" }
}

macro_rules! container_defaults {
    ($t:ty) => {
        defaults!($t, |c| {
            set image_pull_policy = pull_policy(c.image.as_deref()).to_owned();
            set termination_message_path = "/dev/termination-log".to_owned();
            set termination_message_policy = "File".to_owned();
            set resources = ResourceRequirements::default();
            each ports;
            each env;
            each liveness_probe;
            each readiness_probe;
            each startup_probe;
            each lifecycle;
        });
    };
}
container_defaults!(Container);
container_defaults!(EphemeralContainer);

one_part!(
    Probe,
    Lifecycle,
    LifecycleHandler,
    HTTPGetAction,
    GRPCAction,
    EnvVarSource,
    ObjectFieldSelector,
    FileKeySelector,
    SecretVolumeSource,
    ConfigMapVolumeSource,
    ProjectedVolumeSource,
    DownwardAPIVolumeSource,
    HostPathVolumeSource,
    EphemeralVolumeSource,
    PersistentVolumeClaimTemplate,
    ServiceAccountTokenProjection,
    DownwardAPIProjection,
    PodCertificateProjection,
    ISCSIVolumeSource,
    RBDVolumeSource,
    AzureDiskVolumeSource,
    ScaleIOVolumeSource,
    ImageVolumeSource,
    PodSpec,
    PodTemplateSpec,
);

defaults!(ContainerPort, |p| { set protocol = "TCP".to_owned(); });
defaults!(EnvVar, |e| { each value_from; });
defaults!(EnvVarSource, |e| { each field_ref; each file_key_ref; });
defaults!(ObjectFieldSelector, |f| { set api_version = "v1".to_owned(); });
defaults!(FileKeySelector, |f| { set optional = false; });
defaults!(Probe, |p| {
    nonzero timeout_seconds = 1;
    nonzero period_seconds = 10;
    nonzero success_threshold = 1;
    nonzero failure_threshold = 3;
    each http_get;
    each grpc;
});
defaults!(HTTPGetAction, |h| {
    set path = "/".to_owned();
    set scheme = "HTTP".to_owned();
});
defaults!(GRPCAction, |g| { own empty_service, no_service; });
defaults!(Lifecycle, |l| { each post_start; each pre_stop; });
defaults!(LifecycleHandler, |h| { each http_get; });

defaults!(Volume, |v| {
    set empty_dir = Default::default(), if has_no_source(v);
    each secret;
    each config_map;
    each projected;
    each downward_api;
    each host_path;
    each ephemeral;
    each iscsi;
    each rbd;
    each azure_disk;
    each scale_io;
    each image;
});
defaults!(SecretVolumeSource, |s| { set default_mode = 0o644; });
defaults!(ConfigMapVolumeSource, |s| { set default_mode = 0o644; });
defaults!(DownwardAPIVolumeSource, |s| { set default_mode = 0o644; each items; });
defaults!(DownwardAPIVolumeFile, |f| { each field_ref; });
defaults!(ProjectedVolumeSource, |s| { set default_mode = 0o644; each sources; });
defaults!(VolumeProjection, |p| { each service_account_token; each downward_api; each pod_certificate; });
defaults!(ServiceAccountTokenProjection, |t| { set expiration_seconds = 3600; });
defaults!(DownwardAPIProjection, |d| { each items; });
defaults!(PodCertificateProjection, |p| { set max_expiration_seconds = 86_400; });
defaults!(HostPathVolumeSource, |h| { own any_type, no_type; });
defaults!(EphemeralVolumeSource, |e| { each volume_claim_template; });
defaults!(PersistentVolumeClaimTemplate, |t| { each spec; });
defaults!(ISCSIVolumeSource, |s| { set iscsi_interface = "default".to_owned(); });
defaults!(RBDVolumeSource, |s| {
    set pool = "rbd".to_owned();
    set user = "admin".to_owned();
    set keyring = "/etc/ceph/keyring".to_owned();
});
defaults!(AzureDiskVolumeSource, |s| {
    set caching_mode = "ReadWrite".to_owned();
    set kind = "Shared".to_owned();
    set fs_type = "ext4".to_owned();
    set read_only = false;
});
defaults!(ScaleIOVolumeSource, |s| {
    set storage_mode = "ThinProvisioned".to_owned();
    set fs_type = "xfs".to_owned();
});
defaults!(ImageVolumeSource, |i| { set pull_policy = pull_policy(i.reference.as_deref()).to_owned(); });

defaults!(PodSpec, |p| {
    set dns_policy = "ClusterFirst".to_owned();
    set restart_policy = "Always".to_owned();
    set security_context = Default::default();
    set termination_grace_period_seconds = 30;
    set scheduler_name = "default-scheduler".to_owned();
    own one_service_account, service_accounts_differ;
    each containers;
    each init_containers;
    each ephemeral_containers;
    each volumes;
});
defaults!(PodTemplateSpec, |t| { each spec; });

/// `serviceAccount` is the old name of `serviceAccountName`; both are always shown.
fn one_service_account(p: &mut PodSpec) {
    let name = account(p).map(str::to_owned);
    p.service_account.clone_from(&name);
    p.service_account_name = name;
}

fn service_accounts_differ(p: &PodSpec) -> bool {
    let name = account(p);
    p.service_account.as_deref() != name || p.service_account_name.as_deref() != name
}

fn account(p: &PodSpec) -> Option<&str> {
    let given = |name: &'_ Option<String>| name.as_ref().is_some_and(|n| !n.is_empty());
    let name = if given(&p.service_account_name) { &p.service_account_name } else { &p.service_account };
    name.as_deref().filter(|n| !n.is_empty())
}

fn empty_service(g: &mut GRPCAction) {
    g.service.get_or_insert_default();
}

fn no_service(g: &GRPCAction) -> bool {
    g.service.is_none()
}

fn any_type(h: &mut HostPathVolumeSource) {
    h.type_.get_or_insert_default();
}

fn no_type(h: &HostPathVolumeSource) -> bool {
    h.type_.is_none()
}

fn has_no_source(v: &Volume) -> bool {
    super::super::validation::volume_sources(v).next().is_none()
}

#[cfg(test)]
mod tests {
    use super::pull_policy;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, want) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/a/nginx:v1", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
            ("nginx:latest@sha256:00", "Always"),
        ] {
            assert_eq!(pull_policy(Some(image)), want, "{image}");
        }
    }
}
