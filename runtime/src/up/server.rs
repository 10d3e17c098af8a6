//! Sockets: TLS, HTTP/1.1, HTTP/2 and graceful shutdown.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ResolvesServerCert, WantsServerCert, WebPkiClientVerifier};
use rustls::{ConfigBuilder, RootCertStore, ServerConfig};
use skeg_core::auth::User;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use super::identity;
use super::reply::Content;

/// Time-out for the TLS handshake, and for receiving the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Maximum number of open connections.
const CONNECTIONS: usize = 20_000;
/// Maximum number of concurrent requests on an HTTP/2 connection (apiserver `--http2-max-streams-per-connection`).
const STREAMS: u32 = 250;

/// What answers requests.
pub trait Respond: Send + Sync + 'static {
    /// Answers one. `user` is who the client's certificate says, or anonymous.
    fn respond(&self, user: Arc<User>, request: Request<Incoming>) -> impl Future<Output = Response<Content>> + Send;
}

/// The TLS configuration. A client certificate is optional, and impossible if `client_ca` is `None`. All arguments are
/// PEM; `certificates` is the server's certificate, which its intermediate certificates may follow.
pub fn tls(client_ca: Option<&str>, certificates: &str, key: &str) -> Result<ServerConfig, String> {
    let chain = CertificateDer::pem_slice_iter(certificates.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|e| tls_error("the server's certificate", &e))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| tls_error("the server's key", &e))?;
    let config = builder(client_ca)?.with_single_cert(chain, key);
    Ok(with_protocols(config.map_err(|e| tls_error("the server's certificate and key", &e))?))
}

/// The same for a server whose certificate changes.
pub fn tls_shown(client_ca: &str, shown: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, String> {
    Ok(with_protocols(builder(Some(client_ca))?.with_cert_resolver(shown)))
}

fn with_protocols(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

fn tls_error(what: &str, e: &dyn std::fmt::Display) -> String {
    format!("error: TLS could not be set up: {what}: {e}")
}

fn builder(client_ca: Option<&str>) -> Result<ConfigBuilder<ServerConfig, WantsServerCert>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| tls_error("versions", &e))?;
    let Some(authorities) = client_ca else { return Ok(builder.with_no_client_auth()) };
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        let authority = authority.map_err(|e| tls_error("the clients' authority", &e))?;
        roots.add(authority).map_err(|e| tls_error("the clients' authority", &e))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = verifier.allow_unauthenticated().build();
    Ok(builder.with_client_cert_verifier(verifier.map_err(|e| tls_error("the clients' authority", &e))?))
}

/// Serves at these sockets, of which there is one at least, until `stop` completes, and then waits for open requests,
/// at most for `farewell`.
pub async fn serve(
    listeners: Vec<TcpListener>,
    tls: ServerConfig,
    handler: Arc<impl Respond>,
    stop: impl Future<Output = ()>,
    farewell: Duration,
) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let open = GracefulShutdown::new();
    let begin = |stream, permit| {
        let (acceptor, handler, watcher) = (acceptor.clone(), Arc::clone(&handler), open.watcher());
        tokio::spawn(async move {
            let _permit: OwnedSemaphorePermit = permit;
            if let Err(e) = connection(stream, acceptor, handler, watcher).await {
                tracing::debug!("a connection ended: {e}");
            }
        });
    };
    accept(&listeners, &connections, stop, begin).await;
    drop(listeners);
    if tokio::time::timeout(farewell, open.shutdown()).await.is_err() {
        tracing::debug!("requests that were still open are cut off");
    }
}

/// Accepts connections until `stop` completes, each once there is room for it.
async fn accept(
    listeners: &[TcpListener],
    connections: &Arc<Semaphore>,
    stop: impl Future<Output = ()>,
    begin: impl Fn(TcpStream, OwnedSemaphorePermit),
) {
    let mut stop = std::pin::pin!(stop);
    loop {
        let next = async {
            let permit = Arc::clone(connections).acquire_owned().await.expect("the semaphore stays open");
            let (accepted, ..) = select_all(listeners.iter().map(|listener| Box::pin(listener.accept()))).await;
            (accepted, permit)
        };
        let accepted = tokio::select! {
            biased;
            () = &mut stop => return,
            accepted = next => accepted,
        };
        match accepted {
            (Ok((stream, _)), permit) => begin(stream, permit),
            (Err(e), _) => {
                // Too many open files, or the client has disconnected: retried after a moment.
                tracing::warn!("a connection could not be accepted: {e}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    handler: Arc<impl Respond>,
    farewell: hyper_util::server::graceful::Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let user = Arc::new(match certificate {
        Some(certificate) => identity::of_certificate(certificate).ok_or("the client's certificate names nobody")?,
        None => User::anonymous(),
    });
    farewell.watch(talk(stream, handler, user)).await
}

/// Serves HTTP to one client; `user` is who that is.
pub fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    handler: Arc<impl Respond>,
    user: Arc<User>,
) -> impl GracefulConnection<Error = Box<dyn std::error::Error + Send + Sync>> {
    let service = service_fn(move |request| {
        let (handler, user) = (Arc::clone(&handler), Arc::clone(&user));
        async move { Ok::<_, Infallible>(handler.respond(user, request).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS);
    builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::{Semaphore, oneshot};
    use tokio::time::timeout;

    use super::accept;

    #[tokio::test]
    async fn the_end_comes_while_all_connections_are_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, begun) = (Arc::new(Semaphore::new(1)), Arc::new(AtomicUsize::new(0)));
        let ((end, stop), count) = (oneshot::channel::<()>(), Arc::clone(&begun));
        let served = tokio::spawn(async move {
            let stop = async { drop(stop.await) };
            let begin = |_, permit| {
                count.fetch_add(1, Ordering::Relaxed);
                // This connection does not end.
                std::mem::forget::<tokio::sync::OwnedSemaphorePermit>(permit);
            };
            accept(&[listener], &connections, stop, begin).await;
        });
        let _clients = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        while begun.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        end.send(()).unwrap();
        timeout(Duration::from_secs(10), served).await.expect("it ends").unwrap();
        assert_eq!(begun.load(Ordering::Relaxed), 1);
    }
}
