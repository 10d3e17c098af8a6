//! HTTP without sockets: each request goes through a pipe within the process to the same code that serves sockets.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use skeg_core::auth::User;

use super::super::server::{self, Respond};

/// Why a request could not be made.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Bytes that wait in a pipe.
const PIPE: usize = 64 << 10;

/// What serves the connection of a service.
type Connect = dyn Fn(tokio::io::DuplexStream) + Send + Sync;

/// The cluster's API as a `tower` service, for `kube::Client::new`. Clones are the same client.
#[derive(Clone)]
pub struct Service {
    connect: Arc<Connect>,
    /// Whether the program that this was made for still runs.
    alive: Arc<AtomicBool>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("alive", &self.alive).finish_non_exhaustive()
    }
}

impl Service {
    /// A client of what responds, which it takes for this user.
    pub(super) fn new(responds: Arc<impl Respond>, user: User) -> Service {
        let user = Arc::new(user);
        let connect = move |stream| {
            let connection = server::talk(stream, Arc::clone(&responds), Arc::clone(&user));
            tokio::spawn(async move {
                // It ends when the client drops its end, in whatever state.
                let _ = connection.await;
            });
        };
        Service { connect: Arc::new(connect), alive: Arc::new(AtomicBool::new(true)) }
    }

    /// What the program still has of it fails from now on.
    pub(super) fn end(&self) {
        self.alive.store(false, Ordering::Release);
    }
}

impl<B> tower_service::Service<Request<B>> for Service
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Error>,
{
    type Response = Response<Incoming>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let this = self.clone();
        request.headers_mut().entry(HOST).or_insert(HeaderValue::from_static("test-cluster"));
        Box::pin(async move {
            if !this.alive.load(Ordering::Acquire) {
                return Err("the program that made this client has been restarted".into());
            }
            let (ours, theirs) = tokio::io::duplex(PIPE);
            (this.connect)(theirs);
            let (mut sender, connection) = http1::handshake(TokioIo::new(ours)).await?;
            let connection = connection.with_upgrades();
            tokio::spawn(async move {
                // An error is told to whoever waits for the response, too.
                let _ = connection.await;
            });
            Ok(sender.send_request(request).await?)
        })
    }
}
