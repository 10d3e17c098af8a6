//! `skeg rolling-update`: replaces a ReplicationController by another one, pod by pod, as `kubectl rolling-update` did
//! until 1.17. The machine is [`skeg_core::controllers::rolling_update`]; this reads what it is to do, and carries its
//! requests to the servers of a kubeconfig.
//!
//! It may be ended and started again at any moment: what has been done is in annotations of the two controllers.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use skeg_core::api::{Call, FromServer, ListOptions, Reason, Request, Response, Status, ToServer};
use skeg_core::controllers::rolling_update::{
    CleanupPolicy, DEFAULT_KEY, NEXT_CONTROLLER, RENAME_FROM, RollingUpdate, RollingUpdateConfig, SOURCE_ID,
    UpdateState, with_image,
};
use skeg_core::object::{ReplicationController, decode};
use skeg_core::{Kind, Machine, Object, ObjectKey, Rng};

use super::agents::{Client, Credentials, link};
use super::clock::Clock;
use super::{kubeconfig, service};
use crate::Exit;
use crate::cli::duration;
use crate::disk::explain;

/// The end of the text of `skeg rolling-update --help`.
pub const ROLLING_UPDATE_HELP: &str = "\
Examples:
  skeg rolling-update frontend --image registry.example.com/frontend:v2 --update-period 10s
      the pods of the ReplicationController frontend get another image, one after the other; its name stays
  skeg rolling-update frontend-v1 frontend-v2 --image registry.example.com/frontend:v2
      the same, and the controller is called frontend-v2 from then on
  skeg rolling-update frontend-v1 -f frontend-v2.yaml
      by the ReplicationController in a file
  skeg rolling-update frontend-v1 frontend-v2 --rollback
      an update that is under way is undone

It goes on where another one, for the same update, was ended.

Exit codes:
  0  it is done
  2  bad input or bad usage, or it was refused
  4  there was no progress for as long as --timeout";

/// Arguments of `rolling-update`.
#[derive(Args, Debug)]
pub struct RollingUpdateArgs {
    /// The ReplicationController that is replaced.
    #[arg(value_name = "OLD_CONTROLLER_NAME")]
    old: String,
    /// The name of the new one. With --image and without it, the new one gets the name of the old one at the end.
    #[arg(value_name = "NEW_CONTROLLER_NAME", conflicts_with = "filename")]
    new: Option<String>,
    /// The image of the new pods; all else is as it was.
    #[arg(long, value_name = "IMAGE", conflicts_with = "filename")]
    #[arg(required_unless_present_any = ["filename", "rollback"])]
    image: Option<String>,
    /// The container that gets the image, where pods have several.
    #[arg(long, value_name = "NAME", requires = "image")]
    container: Option<String>,
    /// A file with the new ReplicationController, in YAML or JSON; `-` is the standard input.
    #[arg(long, short, value_name = "FILE")]
    filename: Option<PathBuf>,
    /// Time between two steps.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
    update_period: Duration,
    /// Time between two looks at the controllers.
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    poll_interval: Duration,
    /// How long there may be no progress before it is given up.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    timeout: Duration,
    /// The label that tells the pods of the two controllers apart.
    #[arg(long, value_name = "LABEL", default_value = DEFAULT_KEY)]
    deployment_label_key: String,
    /// Undo an update that is under way.
    #[arg(long)]
    rollback: bool,
    /// The namespace; that of the kubeconfig's current context where not given.
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,
    /// How the servers are reached; your own ($KUBECONFIG or ~/.kube/config) where not given.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// `skeg rolling-update`: runs until the update is done.
pub fn rolling_update(args: &RollingUpdateArgs) -> Result<Exit, String> {
    let path = args.kubeconfig.clone().map_or_else(kubeconfig::users_own, Ok)?;
    let credentials = Credentials::read(&path)?;
    let namespace = args.namespace.clone().unwrap_or_else(|| credentials.namespace());
    let client = Client::new(credentials, "kubectl").map_err(|why| format!("error: {}: {why}", path.display()))?;
    let file = args.filename.as_deref().map(controller).transpose()?;
    let rng = Rng::from_seed(service::random_number()?);
    service::http_threads()?.block_on(async {
        let servers = Servers { client, clock: Clock::new(1), user: Rc::from("kubectl-rolling-update") };
        let config = args.config(&namespace, file, &servers).await.map_err(|why| format!("error: {why}"))?;
        let name = match config.cleanup {
            CleanupPolicy::Rename => Rc::clone(&config.old),
            CleanupPolicy::Delete | CleanupPolicy::Preserve if config.rollback => Rc::clone(&config.old),
            CleanupPolicy::Delete | CleanupPolicy::Preserve => Rc::from(config.new.name()),
        };
        match servers.drive(RollingUpdate::new(config, 1, rng)).await {
            UpdateState::Failed(why) => {
                eprintln!("error: {why}");
                Ok(if why.starts_with("timed out") { Exit::NotConverged } else { Exit::BadInput })
            }
            UpdateState::Done | UpdateState::Running if *name == args.old => {
                println!("replicationcontroller/{name} rolling updated");
                Ok(Exit::Well)
            }
            UpdateState::Done | UpdateState::Running => {
                println!("replicationcontroller/{} rolling updated to \"{name}\"", args.old);
                Ok(Exit::Well)
            }
        }
    })
}

/// Reads a ReplicationController from a file.
fn controller(path: &Path) -> Result<ReplicationController, String> {
    let error = |why: &str| format!("error: {}: {why}", path.display());
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|e| error(&explain(&e)))?;
    let value: Value = serde_saphyr::from_str(&text).map_err(|e| {
        let text = e.to_string();
        error(text.lines().next().unwrap_or_default())
    })?;
    match decode::strict(value) {
        Ok(Object::ReplicationController(rc)) if !rc.name().is_empty() => Ok(rc),
        Ok(Object::ReplicationController(_)) => Err(error("metadata.name: Required value: name is required")),
        Ok(other) => Err(error(&format!("it has a {}, and a ReplicationController is needed", other.kind()))),
        Err(problems) => Err(error(&problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))),
    }
}

fn note<'a>(rc: &'a ReplicationController, annotation: &str) -> Option<&'a str> {
    rc.meta.annotations.as_ref()?.get(annotation).map(String::as_str)
}

fn with_name(rc: &ReplicationController, name: &str) -> ReplicationController {
    let mut rc = rc.clone();
    rc.meta_mut().name = Some(name.to_owned());
    rc
}

impl RollingUpdateArgs {
    /// Reads what is there, and decides what is to be done.
    async fn config(
        &self,
        namespace: &str,
        file: Option<ReplicationController>,
        servers: &Servers,
    ) -> Result<RollingUpdateConfig, String> {
        let old = servers.read(namespace, &self.old).await?;
        // An update that has begun notes the new name; one that is about to rename, the name that goes.
        let noted = |rc: &ReplicationController| note(rc, RENAME_FROM).or(note(rc, NEXT_CONTROLLER)).map(str::to_owned);
        let name = self.new.clone().or_else(|| old.as_ref().and_then(noted));
        let next = match (&file, &name, &old) {
            (Some(_), ..) => None,
            (None, Some(name), _) => servers.read(namespace, name).await?,
            // The old one is gone, and the new one has not its name yet.
            (None, None, None) => servers.find_source(namespace, &self.old).await?,
            (None, None, Some(_)) => None,
        };
        let new = match file {
            Some(file) => file,
            None => self.successor(old.as_ref(), name.as_deref(), next)?,
        };
        if new.name() == self.old {
            return Err(format!("{} cannot have the same name as the existing ReplicationController", self.old));
        }
        let mut config = RollingUpdateConfig::new(namespace, &self.old, new);
        config.key = Rc::from(&*self.deployment_label_key);
        (config.update_period, config.interval) = (self.update_period, self.poll_interval);
        (config.timeout, config.rollback) = (self.timeout, self.rollback);
        if self.new.is_none() && self.filename.is_none() {
            config.cleanup = CleanupPolicy::Rename;
        }
        Ok(config)
    }

    /// The controller that comes after the old one, where no file has it. `next` is what is there under its name.
    fn successor(
        &self,
        old: Option<&ReplicationController>,
        name: Option<&str>,
        next: Option<ReplicationController>,
    ) -> Result<ReplicationController, String> {
        let Some(old) = old else {
            return next.ok_or_else(|| format!("replicationcontrollers {:?} not found", self.old));
        };
        if let Some(name) = name.filter(|_| self.rollback || note(old, RENAME_FROM).is_some()) {
            // Where the new one is gone already, only what is noted in the old one is left to be undone.
            let has_begun = note(old, NEXT_CONTROLLER).or(note(old, SOURCE_ID)).or(note(old, RENAME_FROM)).is_some();
            let known = next.or_else(|| has_begun.then(|| with_name(old, name)));
            return known.ok_or_else(|| format!("Could not find {name} to rollback."));
        }
        if self.rollback {
            return Err(format!("{} is not being updated, so there is nothing to roll back", self.old));
        }
        let image = self.image.as_deref().unwrap_or_default();
        let of = |rc: &ReplicationController| {
            let mut containers = rc.spec.pod.containers.iter();
            let found = containers.find(|c| self.container.as_deref().is_none_or(|wanted| c.name == wanted));
            found.and_then(|container| container.image.clone()).unwrap_or_default()
        };
        match next {
            Some(next) if of(&next) != image => {
                let under_way = of(&next);
                Err(format!(
                    "Found existing in-progress update to image ({under_way}).\nEither continue in-progress update \
                     with --image={under_way} or rollback with --rollback"
                ))
            }
            Some(next) => {
                println!("Found existing update in progress ({}), resuming.", next.name());
                Ok(next)
            }
            None if of(old) == image => {
                Err("Specified --image must be distinct from existing container image".to_owned())
            }
            None => with_image(old, name, self.container.as_deref(), image, &self.deployment_label_key),
        }
    }
}

/// The servers, as one machine's.
struct Servers {
    client: Client,
    clock: Clock,
    user: Rc<str>,
}

impl Servers {
    async fn ask(&self, request: &Request) -> Result<Response, Status> {
        let (ask, expect) = link::ask(request);
        self.client.send(&ask).await.reply(expect)
    }

    async fn read(&self, namespace: &str, name: &str) -> Result<Option<ReplicationController>, String> {
        let call = Call::Get { key: ObjectKey::new(Kind::REPLICATION_CONTROLLER, namespace, name), rv: None };
        match self.ask(&Request::new(&self.user, call)).await {
            Ok(Response::Object(Object::ReplicationController(rc))) => Ok(Some(rc)),
            Ok(other) => Err(format!("the server answers with something else: {other:?}")),
            Err(status) if status.reason == Reason::NotFound => Ok(None),
            Err(status) => Err(status.message.into()),
        }
    }

    /// The controller that was to replace one of this name.
    async fn find_source(&self, namespace: &str, old: &str) -> Result<Option<ReplicationController>, String> {
        let (kind, namespace) = (Kind::REPLICATION_CONTROLLER, Rc::from(namespace));
        let call = Call::List { kind, namespace, options: ListOptions::default() };
        let Response::List { items, .. } =
            self.ask(&Request::new(&self.user, call)).await.map_err(|s| String::from(s.message))?
        else {
            return Err("the server answers a list with something else".to_owned());
        };
        let all = items.iter().filter_map(|object| match object {
            Object::ReplicationController(rc) => Some(rc),
            _ => None,
        });
        let replaces = |rc: &&ReplicationController| {
            note(rc, SOURCE_ID).and_then(|source| source.split_once(':')).is_some_and(|(name, _)| name == old)
        };
        Ok(all.into_iter().find(replaces).cloned())
    }

    /// Drives an update to its end.
    async fn drive(&self, mut update: RollingUpdate) -> UpdateState {
        let mut out = Vec::new();
        loop {
            update.handle_timeout(self.clock.now(), &mut out);
            while let Some(message) = out.pop() {
                let ToServer::Request(id, request) = message else { continue };
                update.take_messages().iter().for_each(|message| println!("{message}"));
                let reply = self.ask(&request).await;
                update.handle(self.clock.now(), FromServer::Reply(id, reply), &mut out);
            }
            update.take_messages().iter().for_each(|message| println!("{message}"));
            let Some(deadline) = update.poll_timeout() else { return update.state().clone() };
            let rest = deadline.at.0.saturating_sub(self.clock.now().mono.0);
            tokio::time::sleep(Duration::from_nanos(rest)).await;
        }
    }
}
