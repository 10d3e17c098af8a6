//! A reverse proxy that notes what passes: plain HTTP to kubectl, TLS to the server, as its administrator.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT_ENCODING, HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, client, server};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use crate::client::Cluster;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A request that passed, and what was answered.
#[derive(Clone, Debug)]
pub struct Passed {
    id: u64,
    /// The number of the case that it belongs to.
    pub case: usize,
    /// Its method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
    /// Media type of the answer; empty without one.
    pub media_type: String,
    /// The answer's body, as far as it came.
    pub answer: Vec<u8>,
}

/// What was noted so far.
#[derive(Default, Debug)]
pub struct Notes {
    /// Section and title of each case.
    pub cases: Vec<(String, String)>,
    section: String,
    ids: u64,
    /// What passed.
    pub passed: Vec<Passed>,
}

/// A proxy, until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Its URL.
    pub url: String,
    notes: Arc<Mutex<Notes>>,
    _stop: oneshot::Sender<()>,
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().expect("nobody panics with it")
}

impl Proxy {
    /// Starts one in front of a cluster.
    pub fn start(cluster: &Cluster) -> Proxy {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.set_nonblocking(true).expect("sockets can be");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let notes: Arc<Mutex<Notes>> = Arc::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let beyond = Arc::new((cluster.address.clone(), cluster.admin_tls(), Arc::clone(&notes)));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("it can be made").block_on(async {
                let listener = TcpListener::from_std(listener).expect("it does not block");
                let accept = async {
                    loop {
                        let (stream, _) = listener.accept().await.expect("clients come");
                        tokio::spawn(serve(stream, Arc::clone(&beyond)));
                    }
                };
                // Its sender is dropped with the proxy.
                tokio::select! { () = accept => {}, _ = stopped => {} }
            });
        });
        Proxy { url, notes, _stop: stop }
    }

    /// What follows belongs to this section.
    pub fn section(&self, section: &str) {
        section.clone_into(&mut lock(&self.notes).section);
    }

    /// What follows belongs to a case with this title. What is repeated until it succeeds is one case.
    pub fn case(&self, title: &str) {
        let mut notes = lock(&self.notes);
        let case = (notes.section.clone(), title.to_owned());
        if notes.cases.last() == Some(&case) {
            let last = notes.cases.len() - 1;
            notes.passed.retain(|passed| passed.case != last);
        } else {
            notes.cases.push(case);
        }
    }

    /// All that was noted.
    pub fn take(&self) -> Notes {
        std::mem::take(&mut lock(&self.notes))
    }
}

type Beyond = (String, Arc<ClientConfig>, Arc<Mutex<Notes>>);

async fn serve(stream: TcpStream, beyond: Arc<Beyond>) {
    let service = service_fn(move |request| {
        let beyond = Arc::clone(&beyond);
        async move {
            Ok::<_, Infallible>(pass(request, &beyond).await.unwrap_or_else(|e| {
                let mut answer = Response::new(Full::from(e.to_string()).map_err(Failure::from).boxed());
                *answer.status_mut() = StatusCode::BAD_GATEWAY;
                answer
            }))
        }
    });
    let connection = server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // A client that goes in the middle of a watch is none of our business.
    let _ = connection.with_upgrades().await;
}

/// Passes a request on, and its answer back.
async fn pass(mut request: Request<Incoming>, beyond: &Beyond) -> Result<Response<BoxBody<Bytes, Failure>>, Failure> {
    let (address, tls, notes) = beyond;
    let near = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    // So that what comes back can be read.
    parts.headers.remove(ACCEPT_ENCODING);
    let id = {
        let mut notes = lock(notes);
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let case = notes.cases.len().checked_sub(1).ok_or("no case has begun")?;
        notes.ids += 1;
        let id = notes.ids;
        notes.passed.push(Passed {
            id,
            case,
            method: parts.method.to_string(),
            target: parts.uri.to_string(),
            headers: parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            body: body.to_vec(),
            media_type: String::new(),
            answer: Vec::new(),
        });
        id
    };
    parts.headers.insert(HOST, HeaderValue::from_str(address)?);
    let stream = TcpStream::connect(address).await?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(ServerName::try_from("127.0.0.1")?, stream).await?;
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let mut answer = sender.send_request(Request::from_parts(parts, Full::<Bytes>::from(body))).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let far = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            let (near, far) = (near.await?, far.await?);
            copy_bidirectional(&mut TokioIo::new(near), &mut TokioIo::new(far)).await?;
            Ok::<(), Failure>(())
        });
    }
    let media_type = answer.headers().get("content-type").map(|value| value.to_str().unwrap_or("").to_owned());
    note(notes, id, |passed| passed.media_type = media_type.unwrap_or_default());
    let notes = Arc::clone(notes);
    let noted = move |frame: hyper::body::Frame<Bytes>| {
        if let Some(data) = frame.data_ref() {
            note(&notes, id, |passed| passed.answer.extend_from_slice(data));
        }
        frame
    };
    Ok(answer.map(|body| body.map_frame(noted).map_err(Failure::from).boxed()))
}

/// Notes something about what passed, unless its case has begun anew.
fn note(notes: &Mutex<Notes>, id: u64, what: impl FnOnce(&mut Passed)) {
    if let Some(passed) = lock(notes).passed.iter_mut().rev().find(|passed| passed.id == id) {
        what(passed);
    }
}
