//! ServiceAccount: every pod runs as a service account, and gets a token of it in a projected volume.
//!
//! The volume's name is drawn once for all pods of a template, so that they share their spec. A server mounts tokens
//! only where clients can present them ([`Config::mount_tokens`](crate::apiserver::Config)).
//!
//! Source: kubernetes `plugin/pkg/admission/serviceaccount/admission.go`.

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector,
    ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};

use super::is_mirror;
use crate::api::Status;
use crate::apiserver::write::{Deciding, Decision, Write};
use crate::auth::token::PROJECTED;
use crate::controllers::root_ca;
use crate::object::{Kind, Object, ObjectKey, Pod, ServiceAccount};

/// Where containers find the token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What the names of volumes with tokens begin with.
const VOLUME: &str = "kube-api-access-";

impl Deciding<'_> {
    /// Gives a pod its account, which must exist.
    pub(super) fn service_account(&mut self, write: &Write, object: &mut Object) -> Result<(), Decision> {
        let Object::Pod(pod) = object else { return Ok(()) };
        if is_mirror(pod) {
            return Ok(());
        }
        let spec = &pod.spec.shared;
        let named = [&spec.service_account_name, &spec.service_account];
        let name = named.iter().find_map(|n| n.as_deref().filter(|n| !n.is_empty())).unwrap_or("default").to_owned();
        let key = ObjectKey::new(Kind::SERVICE_ACCOUNT, pod.namespace(), &name);
        let Some(Object::ServiceAccount(account)) = self.object(write, &key) else {
            let why = format!(
                "error looking up service account {}/{name}: serviceaccount {name:?} not found",
                pod.namespace()
            );
            return Err(Decision::refuse_if(&key, Status::forbidden(Kind::POD.row(), pod.name(), &why)));
        };
        let spec = pod.spec_mut().shared.make_mut();
        spec.service_account_name = Some(name.clone());
        spec.service_account = Some(name);
        if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
            spec.image_pull_secrets = account.spec.image_pull_secrets.clone().filter(|s| !s.is_empty());
        }
        if self.config.mount_tokens && wants_token(pod, &account) {
            self.mount_token(pod);
        }
        Ok(())
    }

    /// Adds the volume with the token, mounted in every container that mounts nothing in its place.
    fn mount_token(&mut self, pod: &mut Pod) {
        let unmounted = |c: &Container| c.volume_mounts.iter().flatten().all(|mount| mount.mount_path != MOUNT_PATH);
        let spec = &pod.spec.shared;
        let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        if !containers.any(unmounted) {
            return;
        }
        // A copy of another pod has one already.
        let is_token = |v: &&Volume| v.projected.is_some() && v.name.starts_with(VOLUME);
        let found = spec.volumes.iter().flatten().find(is_token).map(|v| v.name.clone());
        let (name, is_new) = match found {
            Some(name) => (name, false),
            None => (format!("{VOLUME}{}", self.rng.name_suffix(5)), true),
        };
        let spec = pod.spec_mut().shared.make_mut();
        let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
        for container in containers.filter(|c| unmounted(c)) {
            container.volume_mounts.get_or_insert_default().push(VolumeMount {
                name: name.clone(),
                read_only: Some(true),
                mount_path: MOUNT_PATH.to_owned(),
                ..VolumeMount::default()
            });
        }
        if is_new {
            spec.volumes.get_or_insert_default().push(token_volume(name));
        }
    }
}

fn wants_token(pod: &Pod, account: &ServiceAccount) -> bool {
    let own = pod.spec.shared.automount_service_account_token;
    own.or(account.spec.automount_service_account_token).unwrap_or(true)
}

/// A volume with a token, the certificates by which to trust the API server, and the pod's namespace.
fn token_volume(name: String) -> Volume {
    let token = ServiceAccountTokenProjection {
        path: "token".to_owned(),
        expiration_seconds: Some(PROJECTED),
        ..ServiceAccountTokenProjection::default()
    };
    let certificates = ConfigMapProjection {
        name: root_ca::NAME.to_owned(),
        items: Some(vec![KeyToPath { key: root_ca::KEY.to_owned(), path: root_ca::KEY.to_owned(), mode: None }]),
        ..ConfigMapProjection::default()
    };
    let field = ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: "metadata.namespace".to_owned() };
    let namespace = DownwardAPIProjection {
        items: Some(vec![DownwardAPIVolumeFile {
            path: "namespace".to_owned(),
            field_ref: Some(field),
            ..DownwardAPIVolumeFile::default()
        }]),
    };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(certificates), ..VolumeProjection::default() },
        VolumeProjection { downward_api: Some(namespace), ..VolumeProjection::default() },
    ];
    let projected = ProjectedVolumeSource { default_mode: Some(0o644), sources: Some(sources) };
    Volume { name, projected: Some(projected), ..Volume::default() }
}
