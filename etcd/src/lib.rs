//! The store on etcd: a driver that carries the store's messages to etcd and back.
//!
//! [`Etcd::open`] connects, checks that the data is of a format that this version of Skeg reads, and starts a thread
//! that does all the network's work. Its input are [`ByteRequest`](skeg_core::store::remote::ByteRequest)s, each with
//! an id; its output are [`FromRemote`](skeg_core::store::remote::FromRemote) messages, which it passes to a function.
//! The caller translates both with [`Remote`](skeg_core::store::remote::Remote).
//!
//! What never happens: a write that etcd refused is reported as unknown, or one with an unknown outcome (a time-out
//! after it was sent, a lost connection) as refused; a read is answered by a member that lags.
//!
//! Keys, values and the format are described in `docs/etcd.md`. Without the feature `client` this crate is empty.

#![cfg(feature = "client")]

mod error;
mod format;
mod request;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use skeg_core::store::Progress;
use skeg_core::store::remote::{ByteReply, ByteRequest, FromRemote};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use watch::Watching;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take. Its outcome is unknown then.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent connection is checked after this time, and given up after [`KEEP_ALIVE_TIMEOUT`] (as `kube-apiserver`).
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long the answer to that check may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest message that is accepted: a page of a load, or what a watch has missed.
const LARGEST_MESSAGE: usize = 1 << 30;

/// How to reach etcd.
#[derive(Clone, Default)]
pub struct EtcdOptions {
    /// URLs of its members, such as `http://127.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// For `https` URLs.
    pub tls: Option<EtcdTls>,
    /// Name and password, if etcd authenticates its clients by them.
    pub user: Option<(String, String)>,
}

/// What a connection over TLS needs; all of it is PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// The certificates of the authorities that may have signed etcd's certificate.
    pub authorities: Vec<u8>,
    /// Certificate and key of this client, if etcd asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Shows all but passwords and keys.
impl fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|(name, _)| name);
        f.debug_struct("EtcdOptions").field("endpoints", &self.endpoints).field("user", &user).finish_non_exhaustive()
    }
}

/// Where messages go.
type Tell = Arc<dyn Fn(FromRemote) + Send + Sync>;

/// An open connection. Dropping it ends its watches; requests in flight get no reply.
pub struct Etcd {
    /// `None` only while it is dropped.
    requests: Option<UnboundedSender<(u64, ByteRequest)>>,
    thread: Option<JoinHandle<()>>,
}

impl Etcd {
    /// Connects to etcd, and passes what it hears to `tell` from another thread. Fails, with a message for the user, if
    /// no member can be reached, or if etcd holds data that is not Skeg's or is of another format.
    pub fn open(options: EtcdOptions, tell: impl Fn(FromRemote) + Send + Sync + 'static) -> Result<Etcd, String> {
        let (requests, inbox) = unbounded_channel();
        let (opened, has_opened) = mpsc::channel();
        let tell: Tell = Arc::new(tell);
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(e) => return drop(opened.send(Err(format!("error: etcd's client cannot start: {e}")))),
            };
            runtime.block_on(async {
                // `open` is waiting for either message.
                match connect(&options).await {
                    Ok((client, progress)) => {
                        tell(FromRemote::Progress(progress));
                        let _ = opened.send(Ok(()));
                        serve(client, inbox, tell).await;
                    }
                    Err(why) => drop(opened.send(Err(why))),
                }
            });
        };
        let thread = std::thread::Builder::new().name("etcd".to_owned()).spawn(run);
        let thread = thread.map_err(|e| format!("error: etcd's client cannot start: {e}"))?;
        match has_opened.recv() {
            Ok(Ok(())) => Ok(Etcd { requests: Some(requests), thread: Some(thread) }),
            Ok(Err(why)) => Err(why),
            Err(_) => Err("error: etcd's client has crashed, see above; this is a bug of skeg".to_owned()),
        }
    }

    /// Sends a request. Its reply carries the id.
    pub fn ask(&self, id: u64, request: ByteRequest) {
        if let Some(requests) = &self.requests {
            // An error means that the thread has crashed; the time-outs of the caller see to the rest.
            let _ = requests.send((id, request));
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // An error means that the thread has crashed, which it has reported.
            let _ = thread.join();
        }
    }
}

/// Connects to all members, and checks the format of the data.
async fn connect(options: &EtcdOptions) -> Result<(Client, Progress), String> {
    let shown = options.endpoints.join(", ");
    let unreachable = |e: &etcd_client::Error| {
        format!("error: etcd at {shown} cannot be used: {}; start it, or correct --etcd", error::show(e))
    };
    let mut settings = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_keep_alive(KEEP_ALIVE, KEEP_ALIVE_TIMEOUT)
        .with_keep_alive_while_idle(true)
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some(tls) = &options.tls {
        let mut wanted = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.authorities));
        if let Some((certificate, key)) = &tls.identity {
            wanted = wanted.identity(Identity::from_pem(certificate, key));
        }
        settings = settings.with_tls(wanted);
    }
    if let Some((name, password)) = &options.user {
        settings = settings.with_user(name, password);
    }
    let open = Client::connect(&options.endpoints, Some(settings.clone()));
    let client = match tokio::time::timeout(2 * CONNECT_TIMEOUT, open).await {
        Ok(client) => client.map_err(|e| unreachable(&e))?,
        Err(_) => return Err(unreachable(&etcd_client::Error::EndpointError("it does not answer".to_owned()))),
    };
    let checked = tokio::time::timeout(REQUEST_TIMEOUT, format::check(&client)).await;
    match checked {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(why))) => return Err(format!("error: etcd at {shown}: {why}")),
        Ok(Err(e)) => return Err(unreachable(&e)),
        Err(_) => return Err(unreachable(&etcd_client::Error::EndpointError("it does not answer".to_owned()))),
    }
    let mut progress = Progress::Ordered;
    for endpoint in &options.endpoints {
        if progress_of(endpoint, settings.clone()).await != Progress::Ordered {
            progress = Progress::Overtakes;
        }
    }
    Ok((client, progress))
}

/// What the progress notifications of one member guarantee. A member that does not say its version is not trusted.
async fn progress_of(endpoint: &str, settings: ConnectOptions) -> Progress {
    let version = async {
        let mut client = Client::connect([endpoint], Some(settings)).await?;
        client.status().await.map(|status| status.version().to_owned())
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, version).await {
        Ok(Ok(version)) => {
            tracing::info!(endpoint, version, "etcd is reached");
            Progress::of_etcd(&version)
        }
        Ok(Err(e)) => {
            tracing::warn!(endpoint, "a member of etcd does not say its version: {}", error::show(&e));
            Progress::Overtakes
        }
        Err(_) => {
            tracing::warn!(endpoint, "a member of etcd does not say its version in time");
            Progress::Overtakes
        }
    }
}

/// Carries out requests until all senders are gone.
async fn serve(client: Client, mut inbox: UnboundedReceiver<(u64, ByteRequest)>, tell: Tell) {
    let mut watches: BTreeMap<_, Watching> = BTreeMap::new();
    while let Some((id, request)) = inbox.recv().await {
        match request {
            ByteRequest::Watch { watch, span, from } => {
                watches.retain(|_, watching: &mut Watching| !watching.has_ended());
                watches.insert(watch, watch::begin(client.clone(), id, watch, span, from, Arc::clone(&tell)));
            }
            // Dropping it ends the watch.
            ByteRequest::CancelWatch { watch } => {
                watches.remove(&watch);
                tell(FromRemote::Reply(id, ByteReply::WatchCanceled { watch, compacted: None }));
            }
            ByteRequest::Progress => {
                watches.values().for_each(Watching::ask_for_progress);
                tell(FromRemote::Reply(id, ByteReply::ProgressAsked));
            }
            request => {
                let (client, tell) = (client.clone(), Arc::clone(&tell));
                tokio::spawn(async move { tell(FromRemote::Reply(id, request::carry_out(client, request).await)) });
            }
        }
    }
}
