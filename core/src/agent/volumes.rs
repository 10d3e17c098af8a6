//! The volumes of a pod, with their content worked out: what a driver of real containers makes directories from.
//!
//! They are mounted before the pod's sandbox is run, made anew when what they are made from has changed, and unmounted
//! when the pod has ended. Runtimes that only simulate are not asked ([`super::AgentConfig::resolve`]).
//!
//! Source: kubernetes `pkg/volume/{configmap,secret,downwardapi,projected}`, `pkg/kubelet/volumemanager`,
//! `pkg/kubelet/token/token_manager.go` (when tokens are renewed).

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;

use super::environment::{Sources, expand, resource_field};
use super::pod::{Ctx, PodState, What, container_spec};
use super::references::{claim_needed, volume_needs};
use super::runtime::{
    ContainerId, ContainerSpec, FileContent, Mount, PodVolume, PodVolumes, Resolved, RuntimeCommand, RuntimeError,
    SandboxId, VolumeContent, VolumeFile,
};
use crate::client::EventType;
use crate::machine::Mono;
use crate::object::{Kind, Milli, Object, ObjectKey};
use crate::volume;

/// How often volumes are compared with what they are made from (kubelet `SyncFrequency`).
const REFRESH: Duration = Duration::from_secs(60);
/// Permissions of files where none are given.
const DEFAULT_MODE: i32 = 0o644;
/// Lifetime of a token where none is given, in seconds.
const TOKEN_SECONDS: i64 = 3600;
/// The longest time after which a token is renewed (`maxTTL`).
const LONGEST_TOKEN: Duration = Duration::from_secs(24 * 3600);

/// How far a pod's volumes have got.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Mounting {
    /// They have not been mounted by this agent; an earlier one may have.
    #[default]
    Unknown,
    /// They are there.
    Mounted,
    /// They are gone for good.
    Gone,
}

/// A pod's volumes, as this agent has mounted them.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    pub(super) life: Mounting,
    /// What was mounted last.
    last: Option<Rc<PodVolumes>>,
    /// When to look at what they are made from again.
    pub(super) look_at: Option<Mono>,
    /// When the first of their tokens must be renewed.
    renew_at: Option<Mono>,
}

impl PodState {
    /// Whether the volumes are there; if not, sees to it. The objects that they are made from have been read.
    pub(super) fn has_volumes(&mut self, ctx: &mut Ctx<'_>) -> bool {
        if !ctx.shared.config.resolve || self.pod.spec.volumes.as_ref().is_none_or(Vec::is_empty) {
            return true;
        }
        if self.volumes.life != Mounting::Mounted && self.mount_retry.is_none() && !self.has_op(&What::Mount) {
            let volumes = self.resolve_volumes(ctx);
            self.mount(volumes, ctx);
        }
        self.volumes.life == Mounting::Mounted
    }

    fn mount(&mut self, volumes: Rc<PodVolumes>, ctx: &mut Ctx<'_>) {
        let now = ctx.now.mono;
        let tokens = volumes.volumes.iter().filter_map(PodVolume::token_seconds);
        // Renewed at 80% of their life.
        let renew = |seconds: i64| Duration::from_secs(u64::try_from(seconds * 4 / 5).unwrap_or(0)).min(LONGEST_TOKEN);
        self.volumes.renew_at = tokens.min().map(|seconds| now + renew(seconds));
        self.volumes.look_at = Some(now + ctx.shared.rng.jitter(REFRESH, 10));
        self.volumes.last = Some(Rc::clone(&volumes));
        self.command(ctx, What::Mount, Duration::ZERO, |op| RuntimeCommand::MountVolumes { op, volumes });
    }

    /// Mounts the volumes of a running pod again if what they are made from has changed, or a token is old.
    pub(super) fn refresh_volumes(&mut self, ctx: &mut Ctx<'_>) {
        let changes = |v: &core_v1::Volume| {
            v.config_map.is_some() || v.secret.is_some() || v.downward_api.is_some() || v.projected.is_some()
        };
        let spec = &self.pod.spec.shared;
        if !ctx.shared.config.resolve || !spec.volumes.iter().flatten().any(changes) || self.has_op(&What::Mount) {
            return;
        }
        let now = ctx.now.mono;
        if self.volumes.look_at.is_some_and(|at| at > now) || self.mount_retry.is_some() {
            return;
        }
        let needs = || spec.volumes.iter().flatten().flat_map(|v| volume_needs(v, self.pod.namespace()));
        let mut known = true;
        for need in needs() {
            known &= ctx.shared.references.ask(&need.key, self.slot, ctx.now, ctx.out);
        }
        known &= self.knows_claims(ctx);
        if !known {
            return;
        }
        // What is gone since is left as it was mounted.
        if needs().any(|need| need.wrong(&ctx.shared.references).is_some()) {
            self.volumes.look_at = Some(now + ctx.shared.rng.jitter(REFRESH, 10));
            return;
        }
        let volumes = self.resolve_volumes(ctx);
        let old = self.volumes.renew_at.is_some_and(|at| at <= now);
        if old || self.volumes.last.as_ref() != Some(&volumes) {
            self.mount(volumes, ctx);
        } else {
            self.volumes.look_at = Some(now + ctx.shared.rng.jitter(REFRESH, 10));
        }
    }

    /// Whether the volumes of the pod's claims have been read; if not, asks for them.
    fn knows_claims(&self, ctx: &mut Ctx<'_>) -> bool {
        let mut known = true;
        for volume in self.pod.spec.shared.volumes.iter().flatten() {
            let Some(claim) = claim_needed(self.pod.name(), self.pod.namespace(), volume) else { continue };
            known &= ctx.shared.references.ask(&claim.key, self.slot, ctx.now, ctx.out)
                && ctx.shared.references.attachable(&claim.key, self.slot, ctx.now, ctx.out).is_some();
        }
        known
    }

    /// Handles the end of a mount.
    pub(super) fn mounted(&mut self, result: Result<(), RuntimeError>, ctx: &mut Ctx<'_>) {
        match result {
            Ok(()) => {
                self.volumes.life = Mounting::Mounted;
                self.mount_failures = 0;
            }
            Err(e) => {
                self.volumes.last = None;
                self.event(ctx, EventType::Warning, "FailedMount", || e.message.to_string());
                self.back_off_mount(ctx);
            }
        }
    }

    /// Unmounts the volumes of a pod that has ended; returns whether they are gone. Pods without volumes are not left
    /// out: of a pod that only the runtime knows, nobody knows the spec.
    pub(super) fn unmount(&mut self, ctx: &mut Ctx<'_>) -> bool {
        if !ctx.shared.config.resolve || self.volumes.life == Mounting::Gone {
            return true;
        }
        if self.has_op(&What::Unmount) || self.has_op(&What::Mount) || self.mount_retry.is_some() {
            return false;
        }
        let pod_uid = Rc::clone(&self.uid);
        self.command(ctx, What::Unmount, Duration::ZERO, |op| RuntimeCommand::UnmountVolumes { op, pod_uid });
        false
    }

    /// Handles the end of an unmount.
    pub(super) fn unmounted(&mut self, result: Result<(), RuntimeError>, ctx: &mut Ctx<'_>) {
        match result {
            Ok(()) => self.volumes.life = Mounting::Gone,
            Err(e) => {
                self.event(ctx, EventType::Warning, "FailedUnMount", || e.message.to_string());
                self.back_off_mount(ctx);
            }
        }
    }

    /// The address of the pod for its own use; empty if it has none yet.
    fn own_address(&self) -> &str {
        self.sandbox.ip.as_deref().unwrap_or("")
    }

    fn resolve_volumes(&self, ctx: &Ctx<'_>) -> Rc<PodVolumes> {
        let sources = Sources {
            pod: &self.pod,
            ip: self.own_address(),
            config: &ctx.shared.config,
            references: &ctx.shared.references,
            services: Default::default(),
        };
        let spec = &self.pod.spec;
        let volumes =
            spec.volumes.iter().flatten().map(|v| PodVolume { name: v.name.clone(), content: content(v, &sources) });
        Rc::new(PodVolumes {
            pod_uid: Rc::clone(&self.uid),
            namespace: self.pod.namespace().into(),
            pod: self.pod.name().into(),
            service_account: spec.service_account_name.as_deref().unwrap_or("default").into(),
            fs_group: spec.security_context.as_ref().and_then(|s| s.fs_group),
            volumes: volumes.collect(),
        })
    }

    /// What a container is created from.
    pub(super) fn container_to_create(
        &self,
        i: usize,
        sandbox: SandboxId,
        target: Option<ContainerId>,
        ctx: &Ctx<'_>,
    ) -> ContainerSpec {
        let c = &self.containers[i];
        let spec = container_spec(&self.pod, c).filter(|_| ctx.shared.config.resolve);
        ContainerSpec {
            sandbox,
            pod_uid: Rc::clone(&self.uid),
            pod: self.given_spec(ctx),
            name: Rc::clone(&c.name),
            attempt: c.runs,
            ephemeral: c.ephemeral.as_ref().map(|e| Rc::clone(&e.spec)),
            target,
            resolved: spec.map(|spec| Box::new(self.resolved(spec, ctx))),
        }
    }

    /// What the variables of the pod's containers are made from.
    fn sources<'a>(&'a self, ctx: &'a Ctx<'_>) -> Sources<'a> {
        let links = self.pod.spec.enable_service_links != Some(false);
        let services = ctx.shared.services.as_ref().map(|s| s.variables(self.pod.namespace(), links));
        Sources {
            pod: &self.pod,
            ip: self.own_address(),
            config: &ctx.shared.config,
            references: &ctx.shared.references,
            services: services.unwrap_or_default(),
        }
    }

    /// Why a container cannot have its volumes where it wants them (`makeMounts`): a path inside of a volume that is
    /// made of variables may turn out to lead elsewhere. `None` if it can.
    pub(super) fn wrong_mount(&self, i: usize, ctx: &Ctx<'_>) -> Option<String> {
        let c = container_spec(&self.pod, &self.containers[i])?;
        let exprs = c.volume_mounts.iter().flatten().filter_map(|mount| mount.sub_path_expr.as_deref());
        let mut exprs = exprs.filter(|expr| !expr.is_empty()).peekable();
        exprs.peek()?;
        let variables = self.sources(ctx).variables(c);
        exprs.find_map(|expr| {
            let mut missing = BTreeSet::new();
            let path = expand(expr, |name| {
                let value = variables.get(name);
                if value.is_none_or(str::is_empty) {
                    missing.insert(name.to_owned());
                }
                value
            });
            if !missing.is_empty() {
                return Some(format!("missing value for {}", missing.into_iter().collect::<Vec<_>>().join(", ")));
            }
            let leaves = path.split('/').any(|step| step == "..");
            match path.starts_with('/') {
                true => Some(format!("error SubPath `{path}` must not be an absolute path")),
                false => leaves.then(|| format!("unable to provision SubPath `{path}`: must not contain '..'")),
            }
        })
    }

    fn resolved(&self, c: &core_v1::Container, ctx: &Ctx<'_>) -> Resolved {
        let env = self.sources(ctx).variables(c).all;
        let find = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let all = |texts: &Option<Vec<String>>| texts.iter().flatten().map(|text| expand(text, find)).collect();
        let only_reads = |name: &str| {
            let mut claims = self.pod.spec.volumes.iter().flatten().filter(|v| v.name == name);
            claims.any(|v| v.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only == Some(true)))
        };
        let mounts = c.volume_mounts.iter().flatten().map(|m| Mount {
            volume: m.name.clone(),
            path: m.mount_path.clone(),
            sub_path: match (&m.sub_path_expr, &m.sub_path) {
                (Some(expr), _) if !expr.is_empty() => expand(expr, find),
                (_, path) => path.clone().unwrap_or_default(),
            },
            read_only: m.read_only == Some(true) || only_reads(&m.name),
            propagation: m.mount_propagation.clone(),
        });
        Resolved {
            pod: format!("{}/{}", self.pod.namespace(), self.pod.name()).into(),
            command: all(&c.command),
            args: all(&c.args),
            mounts: mounts.collect(),
            env,
        }
    }
}

/// What a volume has inside.
fn content(v: &core_v1::Volume, sources: &Sources<'_>) -> VolumeContent {
    if let Some(empty) = &v.empty_dir {
        let size_limit = empty.size_limit.as_ref().map(|q| Milli::of(q).value()).filter(|size| *size > 0);
        return VolumeContent::EmptyDir { medium: empty.medium.clone().unwrap_or_default(), size_limit };
    }
    if let Some(host) = &v.host_path {
        return VolumeContent::HostPath { path: host.path.clone(), type_: host.type_.clone().unwrap_or_default() };
    }
    let files = |secret: bool, files: Vec<VolumeFile>| VolumeContent::Files { secret, files };
    if let Some(map) = &v.config_map {
        let mode = map.default_mode.unwrap_or(DEFAULT_MODE);
        return files(false, from_object(Kind::CONFIG_MAP, &map.name, &map.items, mode, sources));
    }
    if let Some(secret) = &v.secret {
        let mode = secret.default_mode.unwrap_or(DEFAULT_MODE);
        let name = secret.secret_name.as_deref().unwrap_or("");
        return files(true, from_object(Kind::SECRET, name, &secret.items, mode, sources));
    }
    if let Some(downward) = &v.downward_api {
        let mode = downward.default_mode.unwrap_or(DEFAULT_MODE);
        return files(false, downward_files(&downward.items, mode, sources));
    }
    if let Some(projected) = &v.projected {
        let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
        let mut all = Vec::new();
        for source in projected.sources.iter().flatten() {
            let found = if let Some(s) = &source.secret {
                from_object(Kind::SECRET, &s.name, &s.items, mode, sources)
            } else if let Some(c) = &source.config_map {
                from_object(Kind::CONFIG_MAP, &c.name, &c.items, mode, sources)
            } else if let Some(d) = &source.downward_api {
                downward_files(&d.items, mode, sources)
            } else if let Some(t) = &source.service_account_token {
                let audience = t.audience.clone().unwrap_or_default();
                let seconds = t.expiration_seconds.unwrap_or(TOKEN_SECONDS);
                vec![VolumeFile { path: t.path.clone(), mode, content: FileContent::Token { audience, seconds } }]
            } else {
                return VolumeContent::Unknown("projected: a source".to_owned());
            };
            // A later source wins.
            all.retain(|old: &VolumeFile| found.iter().all(|new| new.path != old.path));
            all.extend(found);
        }
        return files(true, all);
    }
    if let Some(claim) = claim_needed(sources.pod.name(), sources.pod.namespace(), v) {
        return of_claim(&claim.key, sources);
    }
    let spec = serde_json::to_value(v).unwrap_or_default();
    let type_ = spec.as_object().and_then(|fields| fields.keys().find(|k| *k != "name").cloned());
    match type_ {
        // A volume without any source is an empty directory.
        None => VolumeContent::EmptyDir { medium: String::new(), size_limit: None },
        Some(type_) => VolumeContent::Unknown(type_),
    }
}

/// What the volume that a claim is bound to has inside (`pkg/volume/{hostpath,local}`).
fn of_claim(claim: &ObjectKey, sources: &Sources<'_>) -> VolumeContent {
    let volume = sources.references.seen(claim).map(|claim| volume::text(claim, "/spec/volumeName"));
    let volume = volume.and_then(|name| sources.references.seen(&ObjectKey::new(Kind::PERSISTENT_VOLUME, "", name)));
    let Some(volume) = volume else { return VolumeContent::Unknown("persistentVolumeClaim: not read yet".to_owned()) };
    if volume::text(volume, "/spec/volumeMode") == "Block" {
        return VolumeContent::Unknown("persistentVolumeClaim: block devices".to_owned());
    }
    let text = |path: &str| volume::text(volume, path).to_owned();
    let (host, local) = (text("/spec/hostPath/path"), text("/spec/local/path"));
    let made = volume::is_directory_of_node(volume);
    match (host.is_empty(), local.is_empty()) {
        (false, _) => {
            VolumeContent::Persistent { path: host, type_: text("/spec/hostPath/type"), made, takes_group: made }
        }
        (true, false) => {
            VolumeContent::Persistent { path: local, type_: "Directory".to_owned(), made: false, takes_group: true }
        }
        (true, true) => VolumeContent::Unknown(format!("persistentVolumeClaim: {}", source_of(volume))),
    }
}

/// The type of a PersistentVolume: the field of its spec that is none of those that all have.
fn source_of(volume: &Object) -> String {
    const OF_ALL: [&str; 10] = [
        "accessModes",
        "capacity",
        "claimRef",
        "hostPath",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let spec = volume::value(volume, "/spec").and_then(|spec| spec.as_object());
    let source = spec.and_then(|spec| spec.keys().find(|key| !OF_ALL.contains(&key.as_str())));
    source.cloned().unwrap_or_default()
}

fn from_object(
    kind: Kind,
    name: &str,
    items: &Option<Vec<core_v1::KeyToPath>>,
    mode: i32,
    sources: &Sources<'_>,
) -> Vec<VolumeFile> {
    let entries = sources.references.entries(&ObjectKey::new(kind, sources.pod.namespace(), name));
    let file = |path: &str, mode: i32, bytes: Vec<u8>| VolumeFile {
        path: path.to_owned(),
        mode,
        content: FileContent::Bytes(bytes),
    };
    match items.as_deref() {
        None | Some([]) => entries.into_iter().map(|(key, bytes)| file(&key, mode, bytes)).collect(),
        Some(items) => {
            let find = |item: &core_v1::KeyToPath| {
                let (_, bytes) = entries.iter().find(|(key, _)| *key == item.key)?;
                Some(file(&item.path, item.mode.unwrap_or(mode), bytes.clone()))
            };
            items.iter().filter_map(find).collect()
        }
    }
}

fn downward_files(
    items: &Option<Vec<core_v1::DownwardAPIVolumeFile>>,
    mode: i32,
    sources: &Sources<'_>,
) -> Vec<VolumeFile> {
    let value = |item: &core_v1::DownwardAPIVolumeFile| {
        if let Some(field) = &item.field_ref {
            return sources.field(&field.field_path);
        }
        let resource = item.resource_field_ref.as_ref()?;
        resource_field(resource, sources.named(resource.container_name.as_deref()?)?, sources.config)
    };
    let file = |item: &core_v1::DownwardAPIVolumeFile| VolumeFile {
        path: item.path.clone(),
        mode: item.mode.unwrap_or(mode),
        content: FileContent::Bytes(value(item).unwrap_or_default().into_bytes()),
    };
    items.iter().flatten().map(file).collect()
}
