//! Defaults of pod specs: those that hold for templates too, and those for pods only.
//!
//! Source: `pkg/apis/core/v1/defaults.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    AzureDiskVolumeSource, ConfigMapVolumeSource, Container, ContainerPort, DownwardAPIProjection,
    DownwardAPIVolumeFile, DownwardAPIVolumeSource, EnvVar, EnvVarSource, EphemeralContainer, EphemeralVolumeSource,
    FileKeySelector, GRPCAction, HTTPGetAction, HostPathVolumeSource, ISCSIVolumeSource, ImageVolumeSource, Lifecycle,
    LifecycleHandler, ObjectFieldSelector, PersistentVolumeClaimTemplate, PodCertificateProjection, PodSpec,
    PodTemplateSpec, Probe, ProjectedVolumeSource, RBDVolumeSource, ResourceRequirements, ScaleIOVolumeSource,
    SecretVolumeSource, ServiceAccountTokenProjection, Volume, VolumeProjection, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::rules::{Defaults, Parts, defaults, one_part};
use crate::object::decode::{in_family_of, rounded_up};
use crate::object::{Milli, container_limits, container_requests, is_pod_level};

/// The defaults that a pod's spec gets beyond those of a template (`SetDefaults_Pod`).
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
        fill_pod(spec);
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
            || pod_lacks(spec)
            || (spec.host_network == Some(true)
                && containers.any(|c| {
                    let mut ports = c.ports.iter().flatten();
                    ports.any(|p| p.host_port.unwrap_or(0) == 0 && p.container_port != 0)
                }))
            || Defaults::lacks(spec)
    }
}

/// Whether a resource has a limit but no request: the request then defaults to the limit.
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

/// The missing limits and requests of a pod that has pod-level resources. Limits: the containers' sums for huge pages.
/// Requests: the containers' sums, or else the pod's limits (`defaultHugePagePodLimits`, `defaultPodRequests`).
fn missing_of_pod(spec: &PodSpec) -> [BTreeMap<String, Quantity>; 2] {
    let none = BTreeMap::new();
    let Some(r) = &spec.resources else { return [none.clone(), none] };
    let (limits, requests) = (r.limits.as_ref().unwrap_or(&none), r.requests.as_ref().unwrap_or(&none));
    if limits.is_empty() && requests.is_empty() {
        return [none.clone(), none];
    }
    let more_limits: BTreeMap<String, Quantity> = container_limits(spec)
        .into_iter()
        .filter(|(name, _)| name.starts_with("hugepages-"))
        .filter(|(name, _)| !limits.contains_key(name) && !requests.contains_key(name))
        .map(|(name, amount)| (name.clone(), in_words_of(spec, &name, amount)))
        .collect();
    let mut more_requests = BTreeMap::new();
    if !limits.is_empty() || !more_limits.is_empty() {
        let overcommits = |name: &str| matches!(name, "cpu" | "memory");
        for (name, amount) in container_requests(spec).into_iter().filter(|(name, _)| overcommits(name)) {
            more_requests.insert(name.clone(), in_words_of(spec, &name, amount));
        }
        for (name, limit) in limits.iter().chain(&more_limits).filter(|(name, _)| is_pod_level(name)) {
            more_requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
        more_requests.retain(|name, _| !requests.contains_key(name));
    }
    [more_limits, more_requests]
}

/// Formats a sum over containers with the same suffix family as the first container that names the resource.
fn in_words_of(spec: &PodSpec, name: &str, amount: Milli) -> Quantity {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut lists = containers.filter_map(|c| c.resources.as_ref()).flat_map(|r| [&r.requests, &r.limits]);
    let like = lists.find_map(|list| list.as_ref()?.get(name)).map_or("", |q| &q.0);
    Quantity(in_family_of(like, amount))
}

fn pod_lacks(spec: &PodSpec) -> bool {
    spec.resources.is_some() && missing_of_pod(spec).iter().any(|m| !m.is_empty())
}

fn fill_pod(spec: &mut PodSpec) {
    let [limits, requests] = missing_of_pod(spec);
    if let Some(r) = &mut spec.resources {
        for (list, more) in [(&mut r.limits, limits), (&mut r.requests, requests)] {
            if !more.is_empty() {
                list.get_or_insert_default().extend(more);
            }
        }
    }
}

/// Rounds up amounts that are finer than thousandths (`SetDefaults_ResourceList`).
fn round_list(list: &mut Option<BTreeMap<String, Quantity>>) {
    for q in list.iter_mut().flat_map(BTreeMap::values_mut) {
        if let Some(rounded) = rounded_up(&q.0) {
            q.0 = rounded;
        }
    }
}

fn is_rough(list: &Option<BTreeMap<String, Quantity>>) -> bool {
    list.iter().flatten().any(|(_, q)| rounded_up(&q.0).is_some())
}

fn round(r: &mut ResourceRequirements) {
    round_list(&mut r.limits);
    round_list(&mut r.requests);
}

fn rough(r: &ResourceRequirements) -> bool {
    is_rough(&r.limits) || is_rough(&r.requests)
}

fn round_claim(r: &mut VolumeResourceRequirements) {
    round_list(&mut r.limits);
    round_list(&mut r.requests);
}

fn rough_claim(r: &VolumeResourceRequirements) -> bool {
    is_rough(&r.limits) || is_rough(&r.requests)
}

fn round_overhead(p: &mut PodSpec) {
    round_list(&mut p.overhead);
}

fn rough_overhead(p: &PodSpec) -> bool {
    is_rough(&p.overhead)
}

defaults!(ResourceRequirements, |r| { own round, rough; });
defaults!(VolumeResourceRequirements, |r| { own round_claim, rough_claim; });

/// `Always` for an image with the tag `latest` or without a tag, otherwise `IfNotPresent`.
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
            each resources;
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
    ResourceRequirements,
    VolumeResourceRequirements,
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
    own round_overhead, rough_overhead;
    each resources;
    each containers;
    each init_containers;
    each ephemeral_containers;
    each volumes;
});
// A template always has a pod spec, though it may be empty, as in Go.
defaults!(PodTemplateSpec, |t| { set spec = PodSpec::default(); each spec; });

/// Makes `serviceAccount`, the deprecated name of `serviceAccountName`, equal to it. The API always shows both.
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
