//! The container runtime of a node that runs real containers, by Docker's engine on this host.
//!
//! The agent's commands come in on the machines' thread ([`Docker::command`]); each is carried out by a task of its
//! own, and its completion goes back through the machines' inbox ([`Happened`]). Nothing is remembered here: labels on
//! the containers say whose they are, so what runs is found again by whoever comes next, and neither started twice nor
//! lost.
//!
//! Source: the container runtime interface as dockershim served it (kubernetes `pkg/kubelet/dockershim`, removed in
//! 1.24); for what is newer, containerd's behaviour.

mod engine;
mod http;
mod images;
mod keyring;
mod listing;
mod logs;
mod measure;
mod network;
mod ooms;
mod pause;
mod persistent;
mod probes;
mod services;
mod spec;
mod upkeep;
mod visits;
mod volumes;
mod watch;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use skeg_core::agent::{
    AgentConfig, ContainerId, ContainerSpec, CreatedContainer, EvictionPolicy, FileContent, ImageDisk, ImageInfo,
    ImagePolicy, OpId, PodVolumes, ProbeAction, RuntimeCommand, RuntimeError, RuntimeEvent, SandboxId, VolumeContent,
};
use tokio::runtime::Handle;
use tokio::sync::RwLock;
use tokio::time::timeout;

use super::ask::{Inbound, ToCluster};
use super::proxy::Proxy;
use super::streams::visit::Visit;
use engine::{Engine, Failure, query};
use keyring::Keyring;
pub use network::Network;
use ooms::Ooms;
use probes::Action;
use services::Services;
pub use services::{Bridge, dns_address};
pub use upkeep::UpkeepArgs;
use visits::Visits;
use volumes::{Content, Volume};

/// Something that the runtime tells the agent. It crosses threads, so the event itself is made where it is handled.
pub struct Happened(Box<dyn FnOnce() -> RuntimeEvent + Send>);

impl Happened {
    /// The event.
    pub fn event(self) -> RuntimeEvent {
        (self.0)()
    }
}

impl fmt::Debug for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Happened")
    }
}

/// Options of a Docker node.
#[derive(Clone, Debug)]
pub struct Options {
    /// The engine's socket.
    pub socket: PathBuf,
    /// Where the files of pods are kept.
    pub state: PathBuf,
    /// Which cluster the containers belong to.
    pub cluster: String,
    /// Name of the node; the engine's host's where not given.
    pub node: Option<String>,
    /// Address of the node.
    pub host_ip: IpAddr,
    /// Whether the containers end with the cluster.
    pub ephemeral: bool,
    /// The network of cluster IPs.
    pub services: (Ipv4Addr, u8),
    /// The network of pods; Docker's default bridge where not given.
    pub network: Option<Network>,
    /// When images are removed.
    pub images: ImagePolicy,
    /// When pods are evicted.
    pub eviction: EvictionPolicy,
}

/// An engine that has been found, and what it says about its host.
#[derive(Debug)]
pub struct Found {
    options: Options,
    engine: Engine,
    info: Value,
    /// What serves Services; `None` if something is missing, which was said.
    services: Option<Services>,
}

/// What every task needs.
pub struct Driver {
    /// Name of the node.
    node: String,
    engine: Engine,
    state: PathBuf,
    /// Where the engine keeps images.
    images: String,
    host: spec::Host,
    ooms: Ooms,
    inbox: ToCluster,
    /// The bridge of pods that may reach themselves by a Service.
    bridge: Option<String>,
    /// Held to read by whoever makes something in the engine; to write by whoever removes all of it at the end.
    making: RwLock<()>,
}

/// How long something may take to be made that is waited for at the end.
const MAKING: Duration = Duration::from_secs(20);

/// The runtime of the node.
pub struct Docker {
    driver: Arc<Driver>,
    threads: Handle,
    visits: Visits,
    ephemeral: bool,
}

/// Makes the token of a pod's service account for an audience, which lives so many seconds.
pub type Mint<'a> = dyn Fn(&PodVolumes, &str, i64) -> Result<String, String> + 'a;

/// Looks for the engine, and checks that this process may do what a node must.
pub async fn find(options: Options) -> Result<Found, String> {
    if !rustix::process::geteuid().is_root() {
        return Err(
            "error: --docker: volumes are mounted and files are given to other users, which only root may do; run \
                    it with sudo, and with --kubeconfig FILE"
                .to_owned(),
        );
    }
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        return Err("error: --docker: only Linux on x86-64 is there yet".to_owned());
    }
    let engine = Engine::connect(&options.socket).await?;
    let info = engine.get("/info").await.map_err(|e| format!("error: {}: {e}", options.socket.display()))?;
    if info["OSType"] != "linux" {
        return Err(format!("error: {}: the engine runs no Linux containers", options.socket.display()));
    }
    std::fs::create_dir_all(&options.state).map_err(|e| format!("error: {}: {e}", options.state.display()))?;
    if let Some(network) = &options.network {
        network.ensure(&engine).await?;
    }
    let network = options.network.as_ref().map_or("bridge", |network| &network.name);
    let services = match services::find(&engine, &options.cluster, options.services, network).await {
        Ok(services) => Some(services),
        Err(why) => {
            tracing::warn!("Services and their names are not served to containers: {why}");
            None
        }
    };
    Ok(Found { options, engine, info, services })
}

/// What the engine at this socket says of itself.
pub async fn about(socket: &Path) -> Result<Value, String> {
    let engine = Engine::connect(socket).await?;
    engine.get("/info").await.map_err(|e| format!("error: {}: {e}", socket.display()))
}

impl Found {
    /// The name of the node.
    pub fn name(&self) -> String {
        let host = || self.info["Name"].as_str().unwrap_or_default().to_lowercase();
        self.options.node.clone().unwrap_or_else(host)
    }

    /// Address of the node.
    pub fn host_ip(&self) -> IpAddr {
        self.options.host_ip
    }

    /// The node that the engine is.
    pub fn agent_config(&self) -> AgentConfig {
        let text = |name: &str| self.info[name].as_str().unwrap_or_default();
        let arch = match text("Architecture") {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let (memory, disk) = (self.info["MemTotal"].as_u64().unwrap_or(0), disk_of(&self.options.state));
        let capacity = [
            ("cpu", self.info["NCPU"].as_u64().unwrap_or(1).to_string()),
            ("memory", format!("{}Ki", memory >> 10)),
            ("pods", "110".to_owned()),
            ("ephemeral-storage", format!("{}Ki", disk >> 10)),
        ];
        let reserved = [("memory", memory), ("ephemeral-storage", disk)]
            .into_iter()
            .filter_map(|(name, capacity)| Some((name.to_owned(), self.options.eviction.reserved(name, capacity)?)));
        AgentConfig {
            node_name: Rc::from(self.name()),
            capacity: capacity.map(|(name, amount)| (name.to_owned(), amount)).into(),
            host_ip: Rc::from(self.options.host_ip.to_string()),
            arch: Rc::from(arch),
            os_image: Rc::from(text("OperatingSystem")),
            kernel_version: Rc::from(text("KernelVersion")),
            runtime_version: Rc::from(format!("docker://{}", text("ServerVersion"))),
            resolve: true,
            cluster_dns: self.services.is_some(),
            images: Some(self.options.images),
            eviction: Some(self.options.eviction.clone()),
            reserved: reserved.collect(),
            ..AgentConfig::default()
        }
    }

    /// The bridge of pods, if Services are served.
    pub fn bridge(&self) -> Option<Bridge> {
        self.services.as_ref().map(|services| services.bridge.clone())
    }

    /// The host's address on the bridge, if Services are served.
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.services.as_ref().map(|services| services.bridge.gateway)
    }

    /// The cluster IP of the cluster DNS, and where its server is.
    pub fn dns(&self) -> Option<(Ipv4Addr, SocketAddr)> {
        self.services.as_ref().map(|services| (services.dns, services.names.address()))
    }

    /// Starts what listens to the engine and, if Services can be served, what carries out changes of their table.
    pub fn start(self, threads: Handle, inbox: ToCluster) -> Result<(Docker, Option<Proxy>), String> {
        let node = self.name();
        let Found { options, engine, info, services } = self;
        let driver = Arc::new(Driver {
            node,
            engine,
            images: info["DockerRootDir"].as_str().unwrap_or_default().to_owned(),
            host: spec::Host {
                cluster: options.cluster,
                memory: info["MemTotal"].as_i64().unwrap_or(0),
                least_oom_score: least_oom_score(),
                network: options.network.map(|network| network.name),
                dns: services.as_ref().map(|services| spec::ClusterDns::at(services.dns)),
                seccomp: options.state.join("seccomp"),
            },
            state: options.state,
            ooms: Ooms::new(),
            inbox,
            bridge: services.as_ref().map(|services| services.bridge.device.clone()),
            making: RwLock::new(()),
        });
        let mut proxy = None;
        if let Some(Services { nftables, names, dns, .. }) = services {
            proxy = Some(nftables.start()?);
            names.start(&threads, dns, driver.inbox.clone());
        }
        let (events, health) = (Arc::clone(&driver), Arc::clone(&driver));
        threads.spawn(async move { watch::events(&events).await });
        threads.spawn(async move { watch::health(&health).await });
        let visits = Visits::new(Arc::clone(&driver));
        Ok((Docker { visits, driver, threads, ephemeral: options.ephemeral }, proxy))
    }
}

/// The lowest `oom_score_adj` that may be given here: without the right to lower it (`CAP_SYS_RESOURCE`), this
/// process's.
fn least_oom_score() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let rights = rights.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    if rights & 1 << 24 != 0 { -1000 } else { own.trim().parse().unwrap_or(0) }
}

/// Bytes of the disk that a directory is on.
fn disk_of(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |fs| fs.f_blocks.saturating_mul(fs.f_frsize))
}

type Why = (&'static str, String);

fn error((reason, message): Why) -> RuntimeError {
    RuntimeError { reason: Rc::from(reason), message: Rc::from(message) }
}

/// Reason and message where the agent has a reason of its own.
fn plain(e: Failure) -> Why {
    ("", e.to_string())
}

impl Driver {
    /// Tells the agent something.
    fn happened(&self, event: impl FnOnce() -> RuntimeEvent + Send + 'static) {
        // An error means that the cluster has ended.
        let _ = self.inbox.send(Inbound::Runtime(Happened(Box::new(event))));
    }
}

impl Docker {
    /// Carries out a command of the agent. Must be called on the machines' thread.
    pub fn command(&self, command: RuntimeCommand, mint: &Mint<'_>) {
        let driver = Arc::clone(&self.driver);
        match command {
            RuntimeCommand::List { op } => self.spawn(async move {
                let listed = driver.list().await;
                driver.happened(move || {
                    let (found, images) = listed;
                    let (sandboxes, containers) = found.into_iter().partition::<Vec<_>, _>(|found| found.is_sandbox);
                    let image = |i: images::Image| ImageInfo { image: i.name.into(), bytes: i.bytes };
                    RuntimeEvent::Listed {
                        op,
                        sandboxes: sandboxes.into_iter().map(listing::Found::sandbox).collect(),
                        containers: containers.into_iter().map(listing::Found::container).collect(),
                        images: images.into_iter().map(image).collect(),
                    }
                });
            }),
            RuntimeCommand::PullImage { op, image, secrets } => {
                let (image, keyring) = (image.to_string(), Keyring::of(&secrets));
                self.spawn(async move {
                    let pulled = images::pull(&driver.engine, &image, keyring).await;
                    driver.happened(move || {
                        let info = |i: images::Image| ImageInfo { image: i.name.into(), bytes: i.bytes };
                        RuntimeEvent::Pulled { op, result: pulled.map(info).map_err(error) }
                    });
                });
            }
            RuntimeCommand::ListImages { op } => self.spawn(async move {
                let listed = driver.image_disk().await;
                driver.happened(move || {
                    let told = |((capacity, available), images): ((u64, u64), Vec<images::Stored>)| ImageDisk {
                        capacity,
                        available,
                        images: images.into_iter().map(images::Stored::told).collect(),
                    };
                    RuntimeEvent::ImagesListed { op, result: listed.map(told).map_err(error) }
                });
            }),
            RuntimeCommand::Measure { op, pods } => {
                let pods = pods.iter().map(|uid| uid.to_string()).collect();
                self.spawn(async move {
                    let measured = measure::measure(&driver, pods).await;
                    if let Err(why) = &measured {
                        tracing::warn!("what the node uses is not known: {why}");
                    }
                    driver.happened(move || {
                        let result = measured.map(measure::Measured::told).map_err(|why| error(("", why)));
                        RuntimeEvent::Measured { op, result }
                    });
                });
            }
            RuntimeCommand::RemoveImage { op, id } => {
                let id = id.to_string();
                self.spawn(async move {
                    let result = images::remove(&driver.engine, &id).await.map_err(plain);
                    driver.happened(move || RuntimeEvent::ImageRemoved { op, result: result.map_err(error) });
                });
            }
            RuntimeCommand::RunSandbox { op, pod_uid, pod, spec, .. } => {
                let (namespace, name) = pod.split_once('/').unwrap_or_default();
                let of = spec::Sandbox {
                    pod_uid: pod_uid.to_string(),
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    spec: (*spec).clone(),
                };
                self.spawn(async move {
                    let _making = driver.making.read().await;
                    let run = driver.run_sandbox(&of).await.map_err(plain);
                    driver.happened(move || RuntimeEvent::SandboxRunning {
                        op,
                        result: run.map(listing::Found::sandbox).map_err(error),
                    });
                });
            }
            RuntimeCommand::StopSandbox { op, sandbox: SandboxId(id) } => {
                let id = id.to_string();
                self.spawn(async move {
                    let result = driver.stop_sandbox(&id).await.map_err(plain);
                    driver.happened(move || RuntimeEvent::SandboxStopped { op, result: result.map_err(error) });
                });
            }
            RuntimeCommand::RemoveSandbox { op, sandbox: SandboxId(id) } => {
                let id = id.to_string();
                self.spawn(async move {
                    let result = driver.remove_sandbox(&id).await.map_err(plain);
                    driver.happened(move || RuntimeEvent::SandboxRemoved { op, result: result.map_err(error) });
                });
            }
            RuntimeCommand::MountVolumes { op, volumes } => {
                let (uid, group) = (volumes.pod_uid.to_string(), volumes.fs_group);
                let contents = contents(&volumes, mint);
                self.spawn(async move {
                    let state = driver.state.clone();
                    let mounted = blocking(move || volumes::mount(&state, &uid, group, &contents)).await;
                    let result = mounted.map_err(|why| ("", why));
                    driver.happened(move || RuntimeEvent::Mounted { op, result: result.map_err(error) });
                });
            }
            RuntimeCommand::UnmountVolumes { op, pod_uid } => {
                let uid = pod_uid.to_string();
                self.spawn(async move {
                    let state = driver.state.clone();
                    let unmounted = blocking(move || volumes::unmount(&state, &uid)).await;
                    let result = unmounted.map_err(|why| ("", why));
                    driver.happened(move || RuntimeEvent::Unmounted { op, result: result.map_err(error) });
                });
            }
            RuntimeCommand::EmptyDirectory { op, path } => self.directory(op, &path, persistent::empty),
            RuntimeCommand::RemoveDirectory { op, path } => self.directory(op, &path, persistent::remove),
            RuntimeCommand::CreateContainer { op, spec } => {
                let of = container_of(&spec);
                self.spawn(async move {
                    let _making = driver.making.read().await;
                    let created = driver.create(of).await;
                    driver.happened(move || {
                        let told = |(id, image): (String, String)| CreatedContainer {
                            id: ContainerId(id.into()),
                            image_id: image.into(),
                        };
                        RuntimeEvent::Created { op, result: created.map(told).map_err(error) }
                    });
                });
            }
            RuntimeCommand::StartContainer { op, container: ContainerId(id) } => {
                let id = id.to_string();
                self.spawn(async move {
                    let _making = driver.making.read().await;
                    let result = driver.start(&id).await;
                    driver.happened(move || RuntimeEvent::Started { op, result: result.map_err(error) });
                });
            }
            RuntimeCommand::StopContainer { op, container: ContainerId(id), grace_seconds } => {
                let path = format!("/containers/{id}/stop?t={grace_seconds}");
                self.spawn(async move {
                    let grace = Duration::from_secs(u64::from(grace_seconds));
                    let result = gone_is_fine(driver.engine.post_slowly(&path, grace).await).map_err(plain);
                    driver.happened(move || RuntimeEvent::Stopped { op, result: result.map_err(error) });
                });
            }
            RuntimeCommand::UpdateContainer { op, container: ContainerId(id), resources } => {
                let (path, body) = (format!("/containers/{id}/update"), spec::update(&resources));
                self.spawn(async move {
                    let result = driver.engine.post(&path, Some(&body)).await.map(drop).map_err(plain);
                    driver.happened(move || RuntimeEvent::Updated { op, result: result.map_err(error) });
                });
            }
            RuntimeCommand::RemoveContainer { op, container: ContainerId(id) } => {
                let path = format!("/containers/{id}?force=1&v=1");
                self.spawn(async move {
                    let result = driver.engine.remove(&path).await.map_err(plain);
                    driver.happened(move || RuntimeEvent::Removed { op, result: result.map_err(error) });
                });
            }
            RuntimeCommand::Probe { op, container: ContainerId(id), action, timeout_seconds, address } => {
                let action = match action {
                    ProbeAction::Probe(probe) => Action::Probe((*probe).clone()),
                    ProbeAction::Hook(hook) => Action::Hook((*hook).clone()),
                };
                let (id, address) = (id.to_string(), address.map(|address| address.to_string()));
                let timeout = Duration::from_secs(u64::from(timeout_seconds.max(1)));
                self.spawn(async move {
                    let result = probes::run(&driver.engine, &id, action, timeout, address).await;
                    let result = result.map_err(probes::Why::told);
                    driver.happened(move || RuntimeEvent::Probed { op, result: result.map_err(error) });
                });
            }
            // The agent does not ask yet; `kubectl top` reads what containers use by a visit.
            RuntimeCommand::Stats { op } => {
                driver.happened(move || RuntimeEvent::StatsRead { op, stats: Vec::new() });
            }
        }
    }

    /// Does something with the directory of a volume.
    fn directory(&self, op: OpId, path: &str, what: fn(&Path) -> Result<(), String>) {
        let (driver, path) = (Arc::clone(&self.driver), PathBuf::from(path));
        self.spawn(async move {
            let result = blocking(move || what(&path)).await.map_err(|why| ("", why));
            driver.happened(move || RuntimeEvent::DirectoryDone { op, result: result.map_err(error) });
        });
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.threads.spawn(task);
    }

    /// Whether a visit is to this node. What all containers use is asked of it alone.
    pub fn is_host_of(&self, visit: &Visit) -> bool {
        match visit {
            Visit::Log { node, .. } => *node == self.driver.node,
            Visit::Exec { place, .. } | Visit::Attach { place, .. } | Visit::Dial { place, .. } => {
                place.node == self.driver.node
            }
            Visit::Input { visit, .. } | Visit::Resize { visit, .. } | Visit::Leave { visit } => {
                *visit >= visits::FIRST
            }
            Visit::Usage { .. } => true,
        }
    }

    /// Lets a client look into a container.
    pub fn visit(&mut self, visit: Visit) {
        self.visits.handle(visit, &self.threads);
    }

    /// Handles the end of the cluster: what it does not keep is removed. Must be called off the threads of the runtime.
    pub fn end(&self) {
        if !self.ephemeral {
            return;
        }
        let driver = Arc::clone(&self.driver);
        let removed = self.threads.block_on(async move {
            // What is being made is waited for, so that it is among what is removed.
            let _all = timeout(MAKING, driver.making.write()).await;
            watch::remove_all(&driver).await
        });
        if let Err(e) = removed {
            tracing::warn!("containers of the cluster are left behind: {e}");
        }
    }
}

/// Runs what waits for the disk on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(e.to_string()))
}

fn gone_is_fine(result: Result<Value, Failure>) -> Result<(), Failure> {
    match result {
        Err(e) if e.is_missing() => Ok(()),
        result => result.map(drop),
    }
}

/// The volumes of a pod as plain values, with their tokens made.
fn contents(volumes: &PodVolumes, mint: &Mint<'_>) -> Vec<Volume> {
    let content = |content: &VolumeContent| match content {
        VolumeContent::EmptyDir { medium, size_limit } => match medium.as_str() {
            "" | "Memory" => Content::Empty { memory: medium == "Memory", size_limit: *size_limit },
            other => Content::Wrong(format!("the medium {other:?} is not there yet on a Docker node")),
        },
        VolumeContent::HostPath { path, type_ } => Content::Host { path: path.clone(), type_: type_.clone() },
        VolumeContent::Persistent { path, type_, made, takes_group } => {
            Content::Persistent { path: path.clone(), type_: type_.clone(), made: *made, takes_group: *takes_group }
        }
        VolumeContent::Unknown(type_) => {
            Content::Wrong(format!("volumes of type {type_} are not there yet on a Docker node"))
        }
        VolumeContent::Files { secret, files } => {
            let bytes = |content: &FileContent| match content {
                FileContent::Bytes(bytes) => Ok(bytes.clone()),
                FileContent::Token { audience, seconds } => mint(volumes, audience, *seconds).map(String::into_bytes),
            };
            let made = files.iter().map(|f| Ok((f.path.clone(), f.mode, bytes(&f.content)?)));
            match made.collect::<Result<Vec<_>, String>>() {
                Ok(files) => Content::Files { secret: *secret, files },
                Err(why) => Content::Wrong(format!("failed to fetch token: {why}")),
            }
        }
    };
    volumes.volumes.iter().map(|v| Volume { name: v.name.clone(), content: content(&v.content) }).collect()
}

fn container_of(spec: &ContainerSpec) -> spec::Container {
    let of = spec::Container {
        sandbox: spec.sandbox.0.to_string(),
        pod_uid: spec.pod_uid.to_string(),
        pod: (*spec.pod).clone(),
        name: spec.name.to_string(),
        attempt: spec.attempt,
        path: String::new(),
        env: Vec::new(),
        command: Vec::new(),
        args: Vec::new(),
        mounts: Vec::new(),
        ephemeral: spec.ephemeral.as_deref().cloned(),
        target: spec.target.as_ref().map(|ContainerId(id)| id.to_string()),
    };
    let resolved = spec.resolved.as_ref().expect("the agent of a Docker node resolves");
    of.resolve(resolved)
}

impl Driver {
    /// Every container and sandbox of the cluster.
    async fn all(&self) -> Result<Vec<listing::Found>, Failure> {
        let mut all = listing::all(&self.engine, &self.host.cluster, &self.state).await?;
        self.ooms.retain(|id| all.iter().any(|found| found.id == id));
        all.iter_mut().for_each(|found| found.judge_end(&self.ooms));
        Ok(all)
    }

    /// The disk of images, with the images.
    async fn image_disk(&self) -> Result<((u64, u64), Vec<images::Stored>), Why> {
        let disk = images::disk(&self.images).map_err(|why| ("", why))?;
        Ok((disk, images::stored(&self.engine).await.map_err(plain)?))
    }

    /// A container or a sandbox.
    async fn one(&self, id: &str) -> Result<listing::Found, Failure> {
        let mut found = listing::one(&self.engine, id, &self.state).await?;
        found.judge_end(&self.ooms);
        Ok(found)
    }

    /// What there is. The agent cannot act before it knows, so this waits for the engine as long as it takes.
    async fn list(&self) -> (Vec<listing::Found>, Vec<images::Image>) {
        loop {
            let listed = async {
                let found = self.all().await?;
                Ok::<_, Failure>((found, images::list(&self.engine).await?))
            };
            match listed.await {
                Ok(listed) => return listed,
                Err(e) => tracing::debug!("the list is read again: {e}"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Creates a container by its name. One of this name is left of an attempt that nobody knows of: it is removed.
    async fn create_named(&self, name: &str, config: &Value) -> Result<String, Failure> {
        let path = format!("/containers/create?{}", query(&[("name", name)]));
        let made = match self.engine.post(&path, Some(config)).await {
            Err(Failure::Refused(409, _)) => {
                self.engine.remove(&format!("/containers/{name}?force=1&v=1")).await?;
                self.engine.post(&path, Some(config)).await
            }
            made => made,
        };
        Ok(made?["Id"].as_str().unwrap_or_default().to_owned())
    }

    async fn run_sandbox(&self, of: &spec::Sandbox) -> Result<listing::Found, Failure> {
        let resolver = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let config = spec::sandbox(of, &self.host, &resolver);
        let name = spec::name_of("POD", &of.name, &of.namespace, &of.pod_uid, 0);
        let id = match self.create_named(&name, &config).await {
            // The image of the pause program is missing.
            Err(e) if e.is_missing() => {
                pause::provide(&self.engine).await?;
                self.create_named(&name, &config).await?
            }
            made => made?,
        };
        let run = async {
            self.engine.post(&format!("/containers/{id}/start"), None).await?;
            if let Some(bridge) = self.bridge.as_ref().filter(|_| of.spec.host_network != Some(true)) {
                self.allow_hairpin(&id, bridge).await;
            }
            self.one(&id).await
        };
        match run.await {
            Ok(found) => Ok(found),
            Err(e) => {
                // What could not be started is no use; if it cannot be removed either, its name leads to it next time.
                let _ = self.engine.remove(&format!("/containers/{id}?force=1&v=1")).await;
                Err(e)
            }
        }
    }

    /// Lets a pod reach itself by a Service. The pod runs without that as well.
    async fn allow_hairpin(&self, id: &str, bridge: &str) {
        let pid = match self.engine.get(&format!("/containers/{id}/json")).await {
            Ok(told) => told["State"]["Pid"].as_u64().unwrap_or_default(),
            Err(e) => return tracing::warn!("{e}"),
        };
        if let Err(e) = services::allow_hairpin(pid, bridge) {
            tracing::warn!("the pod of container {id} cannot reach itself by a Service: {e}");
        }
    }

    /// The containers of a sandbox.
    async fn members(&self, sandbox: &str) -> Result<Vec<String>, Failure> {
        let filters = serde_json::json!({"label": [format!("{}={sandbox}", spec::SANDBOX)]}).to_string();
        let listed =
            self.engine.get(&format!("/containers/json?{}", query(&[("all", "1"), ("filters", &filters)]))).await?;
        let ids = listed.as_array().into_iter().flatten().filter_map(|c| c["Id"].as_str().map(str::to_owned));
        Ok(ids.collect())
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), Failure> {
        for container in self.members(id).await? {
            gone_is_fine(self.engine.post(&format!("/containers/{container}/stop?t=0"), None).await)?;
        }
        gone_is_fine(self.engine.post(&format!("/containers/{id}/stop?t=0"), None).await)
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), Failure> {
        for container in self.members(id).await? {
            self.engine.remove(&format!("/containers/{container}?force=1&v=1")).await?;
        }
        self.engine.remove(&format!("/containers/{id}?force=1&v=1")).await
    }

    /// Creates a container; returns its id and its image's.
    async fn create(&self, of: spec::Container) -> Result<(String, String), Why> {
        let failed = |e: Failure| ("CreateContainerError", e.to_string());
        let image = of.spec().and_then(|c| c.image.clone()).unwrap_or_default();
        let image = self.engine.get(&format!("/images/{image}/json")).await.map_err(failed)?;
        let hosts: Vec<(String, Option<String>)> = of
            .pod
            .volumes
            .iter()
            .flatten()
            .map(|v| (v.name.clone(), v.host_path.as_ref().map(|host| host.path.clone())))
            .collect();
        let (state, wanted) = (self.state.clone(), of.clone());
        let binds = blocking(move || volumes::binds(&state, &wanted, &hosts)).await;
        let binds = binds.map_err(|why| ("CreateContainerConfigError", why))?;
        let config = spec::container(&of, &image, &binds, &self.host)?;
        let (namespace, pod) = of.path.split_once('/').unwrap_or_default();
        let name = spec::name_of(&of.name, pod, namespace, &of.pod_uid, of.attempt);
        let id = self.create_named(&name, &config).await.map_err(failed)?;
        Ok((id, images::id_of(&image)))
    }

    /// Starts a container. One that cannot be started has ended by that, which is told first.
    async fn start(&self, id: &str) -> Result<(), Why> {
        let Err(e) = self.engine.post(&format!("/containers/{id}/start"), None).await else { return Ok(()) };
        if let Ok(found) = self.one(id).await
            && let listing::State::Exited { .. } = found.state
        {
            self.happened(move || RuntimeEvent::Exited {
                container: ContainerId(found.id.as_str().into()),
                state: found.state.told(),
            });
        }
        Err(plain(e))
    }
}

/// Where the files of a cluster's pods are, and which cluster it is: by its data directory, or by the address at which
/// a cluster without one listens. What an earlier cluster there has left behind is then this one's to remove.
pub fn identity(data_dir: Option<&Path>, address: std::net::SocketAddr) -> (PathBuf, String) {
    match data_dir {
        Some(dir) => {
            let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
            (dir.join("docker"), dir.display().to_string())
        }
        None => {
            let name = format!("skeg-{address}").replace([':', '[', ']'], "_");
            (Path::new("/var/lib").join(&name), format!("in-memory at {address}"))
        }
    }
}

/// What a Docker node does not do yet, to be said when it starts.
pub const NOT_YET: [&str; 2] = [
    "volumes other than emptyDir, hostPath, configMap, secret, downwardAPI, projected, and claims of hostPath and local",
    "resize of pods as a whole; eviction by soft thresholds and by the memory that all pods may have",
];
