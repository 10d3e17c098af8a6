//! What Docker is asked to create for a pod's sandbox and for its containers.
//!
//! Source: kubernetes `pkg/kubelet/kuberuntime/{kuberuntime_container,security_context,helpers}.go`,
//! `pkg/kubelet/qos/policy.go`; dockershim (removed in 1.24), whose labels and names of containers these are.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Map, Value, json};
use skeg_core::agent::{Mount, Resolved};
use skeg_core::object::{Milli, qos_class};

use super::pause;
use crate::disk::explain;
use crate::up::dns::DOMAIN;

/// Whose container it is: only this cluster's are touched.
pub const CLUSTER: &str = "dev.skeg.cluster";
/// What the image is identified by.
pub const IMAGE_ID: &str = "dev.skeg.image-id";
/// Whether the end of the log stands for a missing message ([`core_v1::Container::termination_message_policy`]).
pub const MESSAGE_FROM_LOGS: &str = "dev.skeg.message-from-logs";
/// UID of the pod.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Name of the pod.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Namespace of the pod.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Name of the container within the pod.
pub const CONTAINER: &str = "io.kubernetes.container.name";
/// `podsandbox` or `container`.
pub const TYPE: &str = "io.kubernetes.docker.type";
/// Id of the sandbox.
pub const SANDBOX: &str = "io.kubernetes.sandbox.id";
/// `restartCount`.
pub const ATTEMPT: &str = "annotation.io.kubernetes.container.restartCount";

/// Most name servers that a resolver asks, and most search domains (`MaxDNSNameservers`, `MaxDNSSearchPaths`).
const MAX_DNS_SERVERS: usize = 3;
const MAX_DNS_SEARCHES: usize = 32;
/// Period of CPU quotas in microseconds.
const PERIOD: i64 = 100_000;

/// What containers depend on of where they run.
#[derive(Clone, Debug)]
pub struct Host {
    /// Whose containers they are.
    pub cluster: String,
    /// Memory of the host in bytes.
    pub memory: i64,
    /// The lowest `oom_score_adj` that may be given (containerd's `restrict_oom_score_adj`).
    pub least_oom_score: i64,
    /// The network of pods; the engine's default where not given.
    pub network: Option<String>,
    /// The cluster's DNS, if names are served.
    pub dns: Option<ClusterDns>,
    /// Where the node's seccomp profiles are.
    pub seccomp: PathBuf,
}

/// The cluster's DNS, as pods use it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterDns {
    /// Address of the server.
    pub server: String,
    /// Domain of the cluster.
    pub domain: String,
}

impl ClusterDns {
    /// A server at this address.
    pub fn at(server: Ipv4Addr) -> ClusterDns {
        ClusterDns { server: server.to_string(), domain: DOMAIN.to_owned() }
    }
}

/// A pod's sandbox that is to be run.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// UID of the pod.
    pub pod_uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its spec.
    pub spec: core_v1::PodSpec,
}

/// A container that is to be created.
#[derive(Clone, Debug)]
pub struct Container {
    /// Id of the sandbox.
    pub sandbox: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// The pod's spec.
    pub pod: core_v1::PodSpec,
    /// Name in the pod's spec.
    pub name: String,
    /// `restartCount`.
    pub attempt: u32,
    /// `namespace/name` of the pod.
    pub path: String,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// The command, expanded.
    pub command: Vec<String>,
    /// Its arguments, expanded.
    pub args: Vec<String>,
    /// Where volumes are mounted.
    pub mounts: Vec<Mount>,
    /// Its part of the pod's spec, if it is an ephemeral container.
    pub ephemeral: Option<core_v1::Container>,
    /// Id of the container whose processes it sees.
    pub target: Option<String>,
}

/// A directory or file of this host that a container sees.
#[derive(Clone, Debug)]
pub struct Bind {
    /// Path on this host.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Whether it may only be read.
    pub read_only: bool,
    /// `mountPropagation` of the volume's mount.
    pub propagation: Option<String>,
}

/// Why a container cannot be created: the reason of its waiting state and the message.
pub type Why = (&'static str, String);

impl Container {
    /// Takes what the agent has worked out.
    pub fn resolve(mut self, resolved: &Resolved) -> Container {
        self.path = resolved.pod.to_string();
        self.env = resolved.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.command.clone_from(&resolved.command);
        self.args.clone_from(&resolved.args);
        self.mounts.clone_from(&resolved.mounts);
        self
    }

    /// Its part of the pod's spec.
    pub fn spec(&self) -> Option<&core_v1::Container> {
        let inits = self.pod.init_containers.iter().flatten();
        let lasting = || self.pod.containers.iter().chain(inits).find(|c| c.name == self.name);
        self.ephemeral.as_ref().or_else(lasting)
    }
}

/// The name of a container in Docker.
pub fn name_of(container: &str, pod: &str, namespace: &str, uid: &str, attempt: u32) -> String {
    format!("k8s_{container}_{pod}_{namespace}_{uid}_{attempt}")
}

fn labels(
    cluster: &str,
    type_: &str,
    container: &str,
    (uid, namespace, name): (&str, &str, &str),
) -> Map<String, Value> {
    let pairs = [
        (CLUSTER, cluster),
        (TYPE, type_),
        (CONTAINER, container),
        (POD_UID, uid),
        (POD_NAMESPACE, namespace),
        (POD_NAME, name),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
}

fn log_config() -> Value {
    // As the kubelet's containerLogMaxSize and containerLogMaxFiles.
    json!({"Type": "json-file", "Config": {"max-size": "10m", "max-file": "5"}})
}

/// The host name of a pod (`GeneratePodHostNameAndDomain`), at most 63 characters.
fn hostname(sandbox: &Sandbox) -> String {
    let name = sandbox.spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(&sandbox.name);
    let name = &name[..name.len().min(63)];
    let short = name.trim_end_matches(['-', '.']);
    match sandbox.spec.subdomain.as_deref().filter(|domain| !domain.is_empty()) {
        Some(domain) if sandbox.spec.set_hostname_as_fqdn == Some(true) => {
            format!("{short}.{domain}.{}.svc.cluster.local", sandbox.namespace)
        }
        _ => short.to_owned(),
    }
}

/// The sandbox: a container that holds the namespaces of its pod. `resolver` is the host's `/etc/resolv.conf`.
pub fn sandbox(of: &Sandbox, on: &Host, resolver: &str) -> Value {
    let spec = &of.spec;
    let on_host = |flag: Option<bool>| flag == Some(true);
    let mut host = json!({
        "IpcMode": if on_host(spec.host_ipc) { "host" } else { "shareable" },
        "LogConfig": log_config(), "RestartPolicy": {"Name": "no"},
        "OomScoreAdj": on.least_oom_score.max(-998), "CpuShares": 2,
        "ReadonlyRootfs": true, "SecurityOpt": ["no-new-privileges"],
    });
    let mut config = json!({
        "Image": pause::IMAGE,
        "Labels": labels(&on.cluster, "podsandbox", "POD", (&of.pod_uid, &of.namespace, &of.name)),
    });
    if on_host(spec.host_pid) {
        host["PidMode"] = json!("host");
    }
    if on_host(spec.host_network) {
        host["NetworkMode"] = json!("host");
    } else {
        if let Some(network) = &on.network {
            host["NetworkMode"] = json!(network);
        }
        config["Hostname"] = json!(hostname(of));
        let (exposed, bound) = host_ports(spec);
        config["ExposedPorts"] = exposed;
        host["PortBindings"] = bound;
        let security = spec.security_context.as_ref();
        let sysctls = security.and_then(|s| s.sysctls.as_ref()).into_iter().flatten();
        host["Sysctls"] = sysctls.map(|s| (s.name.clone(), json!(s.value))).collect::<Map<_, _>>().into();
        let aliases = spec.host_aliases.iter().flatten();
        let hosts = aliases.flat_map(|a| a.hostnames.iter().flatten().map(move |name| format!("{name}:{}", a.ip)));
        host["ExtraHosts"] = hosts.collect::<Vec<String>>().into();
    }
    dns(of, on, resolver, &mut host);
    config["HostConfig"] = host;
    config
}

fn host_ports(spec: &core_v1::PodSpec) -> (Value, Value) {
    let (mut exposed, mut bound) = (Map::new(), Map::new());
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    for port in containers.flat_map(|c| c.ports.iter().flatten()) {
        let Some(host_port) = port.host_port.filter(|p| *p > 0) else { continue };
        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
        let key = format!("{}/{protocol}", port.container_port);
        let at = json!({"HostIp": port.host_ip.as_deref().unwrap_or(""), "HostPort": host_port.to_string()});
        exposed.insert(key.clone(), json!({}));
        bound.entry(key).or_insert_with(|| json!([])).as_array_mut().expect("it was made so").push(at);
    }
    (exposed.into(), bound.into())
}

/// Name servers, search domains and options (kubernetes `pkg/kubelet/network/dns/dns.go`), unless those that the engine
/// gives every container are right as they are: the host's.
fn dns(of: &Sandbox, on: &Host, resolver: &str, host: &mut Value) {
    let spec = &of.spec;
    let config = spec.dns_config.as_ref();
    let by_cluster = match spec.dns_policy.as_deref() {
        Some("ClusterFirst") | None => spec.host_network != Some(true),
        Some(policy) => policy == "ClusterFirstWithHostNet",
    };
    let cluster = on.dns.as_ref().filter(|_| by_cluster);
    let none = spec.dns_policy.as_deref() == Some("None");
    if config.is_none() && !none && cluster.is_none() {
        return;
    }
    let mut made = Resolver::default();
    if !none {
        made.read(resolver);
    }
    if let Some(ClusterDns { server, domain }) = cluster {
        made.servers = vec![server.clone()];
        let own = [format!("{}.svc.{domain}", of.namespace), format!("svc.{domain}"), domain.clone()];
        made.searches = own.into_iter().chain(made.searches).collect();
        made.options = vec!["ndots:5".to_owned()];
    }
    if let Some(config) = config {
        made.servers.extend(config.nameservers.iter().flatten().cloned());
        made.searches.extend(config.searches.iter().flatten().cloned());
        config.options.iter().flatten().for_each(|option| made.set(option));
    }
    without_doubles(&mut made.servers);
    without_doubles(&mut made.searches);
    made.servers.truncate(MAX_DNS_SERVERS);
    made.searches.truncate(MAX_DNS_SEARCHES);
    // A dot stands for no domain at all: without one, the engine would take the host's.
    if made.searches.is_empty() {
        made.searches.push(".".to_owned());
    }
    host["Dns"] = json!(made.servers);
    host["DnsSearch"] = json!(made.searches);
    host["DnsOptions"] = json!(made.options);
}

/// What a resolv.conf says.
#[derive(Default)]
struct Resolver {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    fn read(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => self.servers.extend(words.next().map(str::to_owned)),
                Some("search") => self.searches = words.map(str::to_owned).collect(),
                Some("options") => self.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
    }

    /// Sets an option; one of the same name is replaced (`mergeDNSOptions`).
    fn set(&mut self, option: &core_v1::PodDNSConfigOption) {
        let name = option.name.as_deref().unwrap_or_default();
        let text = match option.value.as_deref().filter(|value| !value.is_empty()) {
            Some(value) => format!("{name}:{value}"),
            None => name.to_owned(),
        };
        let same = |other: &&mut String| other.split(':').next() == Some(name);
        match self.options.iter_mut().find(same) {
            Some(old) => *old = text,
            None => self.options.push(text),
        }
    }
}

/// Keeps the first of those that are equal.
fn without_doubles(names: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
}

/// A container. `image` is what the engine says about its image.
pub fn container(of: &Container, image: &Value, binds: &[Bind], on: &Host) -> Result<Value, Why> {
    let Some(spec) = of.spec() else {
        return Err(("CreateContainerError", format!("the pod has no container {}", of.name)));
    };
    let (namespace, pod) = of.path.split_once('/').unwrap_or_default();
    let mut labels = labels(&on.cluster, "container", &of.name, (&of.pod_uid, namespace, pod));
    let mut label = |name: &str, value: String| drop(labels.insert(name.to_owned(), json!(value)));
    label(SANDBOX, of.sandbox.clone());
    label(ATTEMPT, of.attempt.to_string());
    label(IMAGE_ID, super::images::id_of(image));
    let from_logs = spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    label(MESSAGE_FROM_LOGS, from_logs.to_string());

    let joined = format!("container:{}", of.sandbox);
    let mount = |bind: &Bind| {
        let propagation = match bind.propagation.as_deref() {
            Some("HostToContainer") => "rslave",
            Some("Bidirectional") => "rshared",
            _ => "rprivate",
        };
        json!({"Type": "bind", "Source": bind.source, "Target": bind.target, "ReadOnly": bind.read_only,
            "BindOptions": {"Propagation": propagation}})
    };
    let mut host = json!({
        "NetworkMode": joined, "IpcMode": if of.pod.host_ipc == Some(true) { "host" } else { &joined },
        "LogConfig": log_config(), "RestartPolicy": {"Name": "no"},
        "Mounts": binds.iter().map(mount).collect::<Vec<_>>(),
        "OomScoreAdj": oom_score(&of.pod, spec, on.memory).max(on.least_oom_score),
    });
    if of.pod.host_pid == Some(true) {
        host["PidMode"] = json!("host");
    } else if of.pod.share_process_namespace == Some(true) {
        host["PidMode"] = json!(joined);
    } else if let Some(target) = &of.target {
        host["PidMode"] = json!(format!("container:{target}"));
    }
    limits(spec, &mut host);
    let user = secure(of, spec, (image, &on.seccomp), &mut host)?;
    let mut config = json!({
        "Image": spec.image, "Env": of.env, "Labels": labels, "User": user,
        "OpenStdin": spec.stdin == Some(true), "StdinOnce": spec.stdin_once == Some(true),
        "Tty": spec.tty == Some(true),
        // The image's own check of its health means nothing to Kubernetes.
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host,
    });
    // As in Kubernetes, a command takes the place of both of the image's.
    if !of.command.is_empty() {
        config["Entrypoint"] = json!(of.command);
    }
    if !of.args.is_empty() || !of.command.is_empty() {
        config["Cmd"] = json!(of.args);
    }
    if let Some(dir) = spec.working_dir.as_deref().filter(|dir| !dir.is_empty()) {
        config["WorkingDir"] = json!(dir);
    }
    if let Some(signal) = spec.lifecycle.as_ref().and_then(|l| l.stop_signal.as_deref()) {
        config["StopSignal"] = json!(signal);
    }
    Ok(config)
}

fn limits(spec: &core_v1::Container, host: &mut Value) {
    let resources = spec.resources.as_ref();
    let limit = |name: &str| resources.and_then(|r| r.limits.as_ref()?.get(name)).map(Milli::of);
    let request = |name: &str| resources.and_then(|r| r.requests.as_ref()?.get(name)).map(Milli::of);
    let (cpu, memory) = (limit("cpu"), limit("memory"));
    if let Some(cpu) = cpu.map(Milli::milli).filter(|cpu| *cpu > 0) {
        host["CpuPeriod"] = json!(PERIOD);
        host["CpuQuota"] = json!((cpu * PERIOD / 1000).max(1000));
    }
    let shares = request("cpu").or(cpu).map_or(2, |cpu| (cpu.milli() * 1024 / 1000).clamp(2, 262_144));
    host["CpuShares"] = json!(shares);
    if let Some(memory) = memory.map(Milli::value).filter(|memory| *memory > 0) {
        host["Memory"] = json!(memory);
        // No swap beside it.
        host["MemorySwap"] = json!(memory);
    }
}

/// What a running container is given in place of what it had.
pub fn update(resources: &core_v1::ResourceRequirements) -> Value {
    let mut host = json!({});
    limits(&core_v1::Container { resources: Some(resources.clone()), ..Default::default() }, &mut host);
    host
}

/// How soon the kernel kills it when the node's memory is short (`GetContainerOOMScoreAdjust`).
fn oom_score(pod: &core_v1::PodSpec, spec: &core_v1::Container, memory: i64) -> i64 {
    match qos_class(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
            let asked = requests.and_then(|r| r.get("memory")).map_or(0, |q: &Quantity| Milli::of(q).value());
            (1000 - 1000 * asked / memory.max(1)).clamp(3, 999)
        }
    }
}

/// Sets what the security contexts ask for; returns the user.
fn secure(
    of: &Container,
    spec: &core_v1::Container,
    (image, profiles): (&Value, &Path),
    host: &mut Value,
) -> Result<String, Why> {
    let own = spec.security_context.as_ref();
    let pods = of.pod.security_context.as_ref();
    let user = own.and_then(|s| s.run_as_user).or_else(|| pods.and_then(|s| s.run_as_user));
    let group = own.and_then(|s| s.run_as_group).or_else(|| pods.and_then(|s| s.run_as_group));
    let non_root = own.and_then(|s| s.run_as_non_root).or_else(|| pods.and_then(|s| s.run_as_non_root));
    if non_root == Some(true) {
        check_non_root(of, user, image)?;
    }
    let privileged = own.and_then(|s| s.privileged) == Some(true);
    host["Privileged"] = json!(privileged);
    host["ReadonlyRootfs"] = json!(own.and_then(|s| s.read_only_root_filesystem) == Some(true));
    let list = |names: Option<&Vec<String>>| names.cloned().unwrap_or_default();
    let capabilities = own.and_then(|s| s.capabilities.as_ref());
    host["CapAdd"] = json!(list(capabilities.and_then(|c| c.add.as_ref())));
    host["CapDrop"] = json!(list(capabilities.and_then(|c| c.drop.as_ref())));
    let mut groups: Vec<String> =
        pods.and_then(|s| s.supplemental_groups.as_ref()).into_iter().flatten().map(i64::to_string).collect();
    groups.extend(pods.and_then(|s| s.fs_group).map(|group| group.to_string()));
    host["GroupAdd"] = json!(groups);
    if own.and_then(|s| s.proc_mount.as_deref()) == Some("Unmasked") {
        (host["MaskedPaths"], host["ReadonlyPaths"]) = (json!([]), json!([]));
    }
    host["SecurityOpt"] = json!(options(own, pods, profiles)?);
    Ok(match (user, group) {
        (Some(user), Some(group)) => format!("{user}:{group}"),
        (Some(user), None) => user.to_string(),
        (None, Some(group)) => format!("{}:{group}", user_of_image(image).0.unwrap_or("0")),
        (None, None) => String::new(),
    })
}

/// `no-new-privileges`, seccomp, AppArmor and SELinux.
fn options(
    own: Option<&core_v1::SecurityContext>,
    pods: Option<&core_v1::PodSecurityContext>,
    profiles: &Path,
) -> Result<Vec<String>, Why> {
    let mut options = Vec::new();
    if own.and_then(|s| s.allow_privilege_escalation) == Some(false) {
        options.push("no-new-privileges".to_owned());
    }
    let seccomp = own.and_then(|s| s.seccomp_profile.as_ref());
    let seccomp = seccomp.or_else(|| pods.and_then(|s| s.seccomp_profile.as_ref()));
    match seccomp.map(|profile| (profile.type_.as_str(), profile.localhost_profile.as_deref())) {
        Some(("RuntimeDefault", _)) => {}
        Some(("Localhost", name)) => options.push(format!("seccomp={}", profile(profiles, name.unwrap_or_default())?)),
        // What Kubernetes does where none is named.
        _ => options.push("seccomp=unconfined".to_owned()),
    }
    let apparmor = own.and_then(|s| s.app_armor_profile.as_ref());
    let apparmor = apparmor.or_else(|| pods.and_then(|s| s.app_armor_profile.as_ref()));
    match apparmor.map(|profile| (profile.type_.as_str(), profile.localhost_profile.as_deref())) {
        Some(("Unconfined", _)) => options.push("apparmor=unconfined".to_owned()),
        Some(("Localhost", Some(name))) => options.push(format!("apparmor={name}")),
        _ => {}
    }
    let selinux = own.and_then(|s| s.se_linux_options.as_ref());
    if let Some(selinux) = selinux.or_else(|| pods.and_then(|s| s.se_linux_options.as_ref())) {
        let all =
            [("user", &selinux.user), ("role", &selinux.role), ("type", &selinux.type_), ("level", &selinux.level)];
        options.extend(all.into_iter().filter_map(|(name, value)| Some(format!("label={name}:{}", value.as_ref()?))));
    }
    Ok(options)
}

/// A seccomp profile of the node: the engine takes the profile itself.
fn profile(profiles: &Path, name: &str) -> Result<String, Why> {
    let wrong = |why: String| ("CreateContainerConfigError", why);
    if name.is_empty() {
        return Err(wrong("localhostProfile must be set if seccompProfile type is Localhost.".to_owned()));
    }
    // The API refuses such names as well.
    let mut steps = Path::new(name).components();
    if !steps.all(|step| matches!(step, Component::Normal(_) | Component::CurDir)) {
        return Err(wrong(format!("seccomp localhostProfile {name:?} must be a path below the node's profiles")));
    }
    let path = profiles.join(name);
    let failed = |why: String| wrong(format!("cannot load seccomp profile {:?}: {why}", path.display().to_string()));
    let text = std::fs::read_to_string(&path).map_err(|e| failed(explain(&e)))?;
    let read: Value = serde_json::from_str(&text).map_err(|e| failed(e.to_string()))?;
    Ok(read.to_string())
}

/// The user of an image, and whether it is a number.
fn user_of_image(image: &Value) -> (Option<&str>, Option<i64>) {
    let user = image["Config"]["User"].as_str().unwrap_or_default();
    let user = user.split_once(':').map_or(user, |(user, _)| user);
    (Some(user).filter(|user| !user.is_empty()), user.parse().ok())
}

/// `verifyRunAsNonRoot`.
fn check_non_root(of: &Container, user: Option<i64>, image: &Value) -> Result<(), Why> {
    let pod = of.path.split_once('/').map_or(String::new(), |(namespace, name)| {
        format!("pod: \"{name}_{namespace}({})\", container: {}", of.pod_uid, of.name)
    });
    let why = match (user, user_of_image(image)) {
        (Some(0), _) => format!("container's runAsUser breaks non-root policy ({pod})"),
        (Some(_), _) => return Ok(()),
        (None, (None, _) | (_, Some(0))) => format!("container has runAsNonRoot and image will run as root ({pod})"),
        (None, (Some(_), Some(_))) => return Ok(()),
        (None, (Some(name), None)) => format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root ({pod})"
        ),
    };
    Err(("CreateContainerConfigError", why))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{ClusterDns, Container, Host, Ipv4Addr, Sandbox, container, sandbox};

    fn host() -> Host {
        Host {
            cluster: "test".to_owned(),
            memory: 8 << 30,
            least_oom_score: -1000,
            network: None,
            dns: None,
            seccomp: std::env::temp_dir(),
        }
    }

    fn made(pod: Value, image: Value) -> Result<Value, super::Why> {
        let pod = serde_json::from_value(pod).unwrap();
        let of = Container {
            sandbox: "s".to_owned(),
            pod_uid: "u".to_owned(),
            pod,
            name: "c".to_owned(),
            attempt: 2,
            path: "n/p".to_owned(),
            env: vec!["A=b".to_owned()],
            command: Vec::new(),
            args: vec!["x".to_owned()],
            mounts: Vec::new(),
            ephemeral: None,
            target: None,
        };
        container(&of, &image, &[], &host())
    }

    #[test]
    fn containers_are_asked_for_as_the_kubelet_does() {
        let check = |c: Value, pod: Value, path: &str, want: Value| {
            let mut spec = json!({"containers": [{"name": "c", "image": "i:1"}]});
            for (into, from) in [(&mut spec["containers"][0], c.clone()), (&mut Value::Null, Value::Null)] {
                into.as_object_mut().into_iter().for_each(|o| o.extend(from.as_object().cloned().unwrap_or_default()));
            }
            spec.as_object_mut().unwrap().extend(pod.as_object().cloned().unwrap_or_default());
            let got = made(spec, json!({"Id": "sha256:1"})).unwrap();
            assert_eq!(got.pointer(path).unwrap_or(&Value::Null), &want, "{c} {pod} {path}");
        };
        let none = || json!({});
        check(none(), none(), "/Cmd", json!(["x"]));
        check(none(), none(), "/Entrypoint", Value::Null);
        check(none(), none(), "/HostConfig/NetworkMode", json!("container:s"));
        check(none(), none(), "/HostConfig/OomScoreAdj", json!(1000));
        check(none(), none(), "/HostConfig/SecurityOpt", json!(["seccomp=unconfined"]));
        check(none(), none(), "/Labels/annotation.io.kubernetes.container.restartCount", json!("2"));
        let limited = json!({"resources": {"limits": {"cpu": "250m", "memory": "64Mi"}}});
        check(limited.clone(), none(), "/HostConfig/CpuQuota", json!(25_000));
        check(limited.clone(), none(), "/HostConfig/CpuShares", json!(256));
        check(limited, none(), "/HostConfig/MemorySwap", json!(64 << 20));
        let burstable = json!({"resources": {"requests": {"memory": "1Gi"}}});
        check(burstable, none(), "/HostConfig/OomScoreAdj", json!(875));
        let user = json!({"securityContext": {"runAsUser": 7}});
        check(user.clone(), none(), "/User", json!("7"));
        check(none(), json!({"securityContext": {"runAsUser": 5, "runAsGroup": 6}}), "/User", json!("5:6"));
        check(user, json!({"securityContext": {"runAsUser": 5, "runAsGroup": 6}}), "/User", json!("7:6"));
        check(none(), json!({"securityContext": {"fsGroup": 9}}), "/HostConfig/GroupAdd", json!(["9"]));
        check(none(), json!({"shareProcessNamespace": true}), "/HostConfig/PidMode", json!("container:s"));
        let tight = json!({"securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "seccompProfile": {"type": "RuntimeDefault"}, "capabilities": {"drop": ["ALL"]}}});
        check(tight.clone(), none(), "/HostConfig/SecurityOpt", json!(["no-new-privileges"]));
        check(tight.clone(), none(), "/HostConfig/CapDrop", json!(["ALL"]));
        check(tight, none(), "/HostConfig/ReadonlyRootfs", json!(true));
    }

    #[test]
    fn an_update_says_what_a_new_container_would_be_given() {
        let resources = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m", "memory": "1Mi"}});
        let update = super::update(&serde_json::from_value(resources).unwrap());
        let want = json!({"CpuPeriod": 100_000, "CpuQuota": 20_000, "CpuShares": 102, "Memory": 1 << 20,
            "MemorySwap": 1 << 20});
        assert_eq!(update, want);
    }

    #[test]
    fn a_seccomp_profile_is_one_of_the_nodes() {
        let file = format!("skeg-seccomp-{}.json", std::process::id());
        std::fs::write(std::env::temp_dir().join(&file), "{ \"defaultAction\": \"SCMP_ACT_ALLOW\" }").unwrap();
        let check = |name: &str, want: Result<&str, &str>| {
            let profile = json!({"type": "Localhost", "localhostProfile": name});
            let pod = json!({"containers": [{"name": "c"}], "securityContext": {"seccompProfile": profile}});
            let got = made(pod, json!({"Id": "sha256:1"})).map(|made| made["HostConfig"]["SecurityOpt"][0].clone());
            match want {
                Ok(want) => assert_eq!(got, Ok(json!(want)), "{name}"),
                Err(why) => assert!(got.as_ref().is_err_and(|(_, got)| got.contains(why)), "{name}: {got:?}"),
            }
        };
        check(&file, Ok("seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"));
        check("none.json", Err("none.json\": there is no such file"));
        check("", Err("localhostProfile must be set"));
        check("a/../../etc/passwd", Err("must be a path below"));
        check("/etc/passwd", Err("must be a path below"));
        std::fs::remove_file(std::env::temp_dir().join(&file)).unwrap();
    }

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let check = |context: Value, user: &str, want: Option<&str>| {
            let pod = json!({"containers": [{"name": "c"}], "securityContext": context});
            let got = made(pod, json!({"Config": {"User": user}}));
            assert_eq!(got.as_ref().err().map(|(_, why)| why.as_str()), want, "{user:?}");
        };
        let pod = "(pod: \"p_n(u)\", container: c)";
        let non_root = || json!({"runAsNonRoot": true});
        check(non_root(), "1000:1", None);
        check(non_root(), "", Some(&format!("container has runAsNonRoot and image will run as root {pod}")));
        check(non_root(), "0", Some(&format!("container has runAsNonRoot and image will run as root {pod}")));
        let name = "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root";
        check(non_root(), "app", Some(&format!("{name} {pod}")));
        let zero = json!({"runAsNonRoot": true, "runAsUser": 0});
        check(zero, "7", Some(&format!("container's runAsUser breaks non-root policy {pod}")));
        check(json!({"runAsNonRoot": true, "runAsUser": 7}), "app", None);
    }

    #[test]
    fn sandboxes_have_names_ports_and_name_servers() {
        let check = |pod: Value, path: &str, want: Value| {
            let mut spec = json!({"containers": []});
            spec.as_object_mut().unwrap().extend(pod.as_object().cloned().unwrap());
            let (uid, namespace, name) = ("u".to_owned(), "n".to_owned(), "web-0".to_owned());
            let of = Sandbox { pod_uid: uid, namespace, name, spec: serde_json::from_value(spec).unwrap() };
            let made = sandbox(&of, &host(), "nameserver 1.1.1.1\nsearch a b\noptions ndots:2\n");
            assert_eq!(made.pointer(path).unwrap_or(&Value::Null), &want, "{pod} {path}");
        };
        check(json!({}), "/Hostname", json!("web-0"));
        check(json!({}), "/HostConfig/Dns", Value::Null);
        check(json!({"subdomain": "s", "setHostnameAsFQDN": true}), "/Hostname", json!("web-0.s.n.svc.cluster.local"));
        check(json!({"hostNetwork": true}), "/HostConfig/NetworkMode", json!("host"));
        check(json!({"dnsConfig": {"nameservers": ["8.8.8.8"]}}), "/HostConfig/Dns", json!(["1.1.1.1", "8.8.8.8"]));
        check(
            json!({"dnsConfig": {"options": [{"name": "edns0"}]}}),
            "/HostConfig/DnsOptions",
            json!(["ndots:2", "edns0"]),
        );
        check(
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"]}}),
            "/HostConfig/DnsSearch",
            json!(["."]),
        );
        let port = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}]}]});
        check(port, "/HostConfig/PortBindings", json!({"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}));
    }

    #[test]
    fn pods_get_the_name_servers_of_their_policy() {
        let cluster = Host { dns: Some(ClusterDns::at(Ipv4Addr::new(10, 96, 0, 10))), ..host() };
        let check = |pod: Value, want: Option<(&[&str], &[&str], &[&str])>| {
            let mut spec = json!({"containers": []});
            spec.as_object_mut().unwrap().extend(pod.as_object().cloned().unwrap());
            let (uid, namespace, name) = ("u".to_owned(), "n".to_owned(), "web-0".to_owned());
            let of = Sandbox { pod_uid: uid, namespace, name, spec: serde_json::from_value(spec).unwrap() };
            let made = sandbox(&of, &cluster, "nameserver 1.1.1.1\nsearch a n.svc.cluster.local\noptions ndots:2\n");
            let of = |field: &str| made["HostConfig"].get(field).cloned().unwrap_or_default();
            let got = [of("Dns"), of("DnsSearch"), of("DnsOptions")];
            let want = want.map_or([Value::Null, Value::Null, Value::Null], |(a, b, c)| [json!(a), json!(b), json!(c)]);
            assert_eq!(got, want, "{pod}");
        };
        let own = ["n.svc.cluster.local", "svc.cluster.local", "cluster.local", "a"];
        let first = Some((&["10.96.0.10"][..], &own[..], &["ndots:5"][..]));
        check(json!({}), first);
        check(json!({"dnsPolicy": "ClusterFirst"}), first);
        check(json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}), None);
        check(json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}), first);
        check(json!({"dnsPolicy": "Default"}), None);
        let more = json!({"nameservers": ["9.9.9.9", "10.96.0.10"], "searches": ["b", "a"],
            "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}]});
        let searches = ["n.svc.cluster.local", "svc.cluster.local", "cluster.local", "a", "b"];
        check(json!({"dnsConfig": more}), Some((&["10.96.0.10", "9.9.9.9"], &searches, &["ndots:1", "edns0"])));
        check(
            json!({"dnsPolicy": "None", "dnsConfig": more}),
            Some((&["9.9.9.9", "10.96.0.10"], &["b", "a"], &["ndots:1", "edns0"])),
        );
        let four = json!({"nameservers": ["1.0.0.1", "1.0.0.2", "1.0.0.3", "1.0.0.4"]});
        check(json!({"dnsPolicy": "None", "dnsConfig": four}), Some((&["1.0.0.1", "1.0.0.2", "1.0.0.3"], &["."], &[])));
    }
}
