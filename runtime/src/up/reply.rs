//! HTTP responses: bodies, headers and compression.

use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame};
use hyper::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, LOCATION,
    RETRY_AFTER, VARY, WARNING,
};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use skeg_core::api::Status;
use skeg_core::protobuf;
use tokio::time::Sleep;

use super::accept::Encoding;
use super::ask::{Event, Inbound, ToCluster, WatchEncoding};
use super::conversion::Source;
use super::flow::Class;
use super::flow::gate::Watcher;
use super::openapi::Document;
use super::render::Look;

/// The body of a response.
pub type Content = UnsyncBoxBody<Bytes, Infallible>;

/// Smaller bodies are not compressed (apiserver `defaultGzipThresholdBytes`).
const GZIP_FROM: usize = 128 << 10;
/// Events of a watch are sent in chunks of about this many bytes, if enough of them are waiting.
const CHUNK: usize = 64 << 10;

fn build(code: u16, content_type: &str, body: Vec<u8>) -> Response<Content> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).expect("codes are Kubernetes' own");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).expect("media types are plain"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Responds with text of this content type.
pub fn plain(content_type: &str, text: String) -> Response<Content> {
    build(200, content_type, text.into_bytes())
}

/// Responds with plain text.
pub fn text(code: u16, text: String) -> Response<Content> {
    build(code, "text/plain; charset=utf-8", text.into_bytes())
}

/// Responds with a body that goes on.
pub fn stream(
    content_type: &'static str,
    body: impl Body<Data = Bytes, Error = Infallible> + Send + 'static,
) -> Response<Content> {
    let mut response = Response::new(body.boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Responds with JSON of this content type.
pub fn typed(content_type: &str, value: &Value) -> Response<Content> {
    build(200, content_type, serde_json::to_vec(value).expect("values serialise"))
}

/// Responds with a value in the encoding that was negotiated.
pub fn value(code: u16, value: &Value, encoding: Encoding, gzip: bool) -> Response<Content> {
    let json = || ("application/json", serde_json::to_vec(value).expect("values serialise"));
    let (content_type, body) = match encoding {
        Encoding::Json => json(),
        Encoding::Protobuf => protobuf::encode(value).map_or_else(|_| json(), |body| (protobuf::MEDIA_TYPE, body)),
        Encoding::Yaml => ("application/yaml", serde_saphyr::to_string(value).expect("values serialise").into_bytes()),
    };
    encoded(code, content_type, body, gzip)
}

/// Responds with JSON that is encoded already.
pub fn json(code: u16, body: Vec<u8>, gzip: bool) -> Response<Content> {
    encoded(code, "application/json", body, gzip)
}

fn encoded(code: u16, content_type: &str, body: Vec<u8>, gzip: bool) -> Response<Content> {
    if !gzip || body.len() < GZIP_FROM {
        return build(code, content_type, body);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&body).expect("memory takes all");
    let mut response = build(code, content_type, encoder.finish().expect("memory takes all"));
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response
}

/// Responds with an OpenAPI document, with its hash as ETag; 304 if the client has it. `immutable`: the URL contains
/// the hash, so the document under it never changes.
pub fn document(document: &Document, headers: &HeaderMap, gzip: bool, immutable: bool) -> Response<Content> {
    let etag = format!("\"{}\"", document.hash);
    let known = headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let mut response = match known.is_some_and(|known| known.split(',').any(|tag| tag.trim() == etag)) {
        true => build(304, document.media_type, Vec::new()),
        false if gzip => {
            let mut response = build(200, document.media_type, document.gzip.clone());
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
        }
        false => build(200, document.media_type, document.plain()),
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::from_str(&etag).expect("a hash is plain"));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if immutable {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    response
}

/// Redirects with 301.
pub fn moved(to: &str) -> Response<Content> {
    let mut response = build(301, "text/plain; charset=utf-8", Vec::new());
    response.headers_mut().insert(LOCATION, HeaderValue::from_str(to).expect("paths of documents are plain"));
    response
}

/// Responds with an error.
pub fn status(status: &Status, encoding: Encoding) -> Response<Content> {
    let mut response = value(status.reason.code(), &status.to_json(), encoding, false);
    if let Some(seconds) = status.details.as_ref().and_then(|d| d.retry_after_seconds) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A `Status` of success.
pub fn success(details: Option<Value>) -> Value {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    if let Some(details) = details {
        status["details"] = details;
    }
    status
}

/// Adds `Warning` headers.
pub fn warn(response: &mut Response<Content>, warnings: &[String]) {
    for warning in warnings {
        let quoted: String = warning.chars().filter(|c| !c.is_control()).collect();
        let quoted = quoted.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(header) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, header);
        }
    }
}

/// Says in headers what a request belongs to.
pub fn tell_class(response: &mut Response<Content>, class: &Class) {
    for (name, uid) in
        [("x-kubernetes-pf-flowschema-uid", &class.schema_uid), ("x-kubernetes-pf-prioritylevel-uid", &class.level_uid)]
    {
        if let Ok(value) = HeaderValue::from_str(uid) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
}

/// Responds with the events of a watch, as they happen. `watcher` counts it meanwhile.
pub fn watch(
    events: Source,
    (look, encoding): (Look, WatchEncoding),
    cluster: ToCluster,
    timeout: Duration,
    watcher: Option<Watcher>,
) -> Response<Content> {
    let deadline = Box::pin(tokio::time::sleep(timeout));
    let protobuf = encoding.is_protobuf();
    let body = WatchBody { events, look, protobuf, cluster, deadline, first: true, ended: false, _watcher: watcher };
    stream(if protobuf { "application/vnd.kubernetes.protobuf;stream=watch" } else { "application/json" }, body)
}

/// Encodes one event of a watch: a line of JSON, or a protobuf frame after its length in four bytes.
pub fn encode_event(type_: &str, object: &Value, protobuf: bool) -> Vec<u8> {
    if protobuf {
        // An object that cannot be encoded is replaced by an ERROR event.
        let (type_, body) = match protobuf::encode(object) {
            Ok(body) => (type_, body),
            Err(why) => {
                let status = Status::internal(format!("unable to encode the object: {why}")).to_json();
                ("ERROR", protobuf::encode(&status).expect("a Status has a message"))
            }
        };
        let event = protobuf::watch_event(type_, &body);
        let length = u32::try_from(event.len()).expect("an object is smaller than 4 GiB");
        return [&length.to_be_bytes()[..], &event].concat();
    }
    let mut line = serde_json::to_vec(&json!({"type": type_, "object": object})).expect("values serialise");
    line.push(b'\n');
    line
}

struct WatchBody {
    events: Source,
    look: Look,
    protobuf: bool,
    cluster: ToCluster,
    deadline: Pin<Box<Sleep>>,
    /// Whether no object has been sent yet.
    first: bool,
    ended: bool,
    _watcher: Option<Watcher>,
}

impl WatchBody {
    fn write(&mut self, event: &Event, chunk: &mut Vec<u8>) {
        match event {
            Event::Line(line) => chunk.extend_from_slice(line),
            Event::Value(type_, object) => {
                let shown = self.look.event(type_, object, self.first);
                self.first = false;
                chunk.extend(encode_event(type_, &shown, self.protobuf));
            }
        }
    }
}

impl Body for WatchBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let mut chunk = Vec::new();
        while !this.ended && chunk.len() < CHUNK {
            match this.events.poll(cx) {
                Poll::Ready(Some(event)) => this.write(&event, &mut chunk),
                Poll::Ready(None) => this.ended = true,
                Poll::Pending => break,
            }
        }
        if !chunk.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from(chunk)))));
        }
        if this.ended || this.deadline.as_mut().poll(cx).is_ready() {
            this.ended = true;
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

impl Drop for WatchBody {
    fn drop(&mut self) {
        // An error means that the cluster has stopped, and the watch with it.
        let _ = self.cluster.send(Inbound::Cancel(self.events.id()));
    }
}
