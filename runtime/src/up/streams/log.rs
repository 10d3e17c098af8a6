//! `pods/log`: options, the errors of API server and kubelet, and the lines.
//!
//! Source: kubernetes `pkg/apis/core/validation` (`ValidatePodLogOptions`), `pkg/kubelet/kubelet_pods.go`
//! (`validateContainerLogStatus`), `pkg/kubelet/kuberuntime/logs`.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::Response;
use hyper::body::{Body, Bytes, Frame};
use serde_json::Value;
use skeg_core::Wall;
use skeg_core::api::{Reason, Status};
use skeg_core::object::Time;
use skeg_sim::container::log::Line;
use tokio::sync::{mpsc, oneshot};

use super::pod;
use super::visit::{LogRead, Visit};
use crate::up::ask::{Inbound, ToCluster};
use crate::up::handler::gone;
use crate::up::params::Params;
use crate::up::reply::{self, Content};

/// The options of a request.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether to go on until the container ends.
    pub follow: bool,
    previous: bool,
    timestamps: bool,
    /// From when on lines are wanted.
    pub since: Option<Wall>,
    /// How many lines at most, from the end.
    pub tail: Option<usize>,
    limit: Option<usize>,
}

/// Responds with the log of a container.
pub async fn read(pod: &Value, params: &Params, now: Wall, cluster: &ToCluster) -> Result<Response<Content>, Status> {
    let options = Options::parse(params, pod::name(pod), now)?;
    let container = pod::container(pod, params)?;
    // A pod without a node has no log, which is no error.
    let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) else {
        return Ok(reply::text(200, String::new()));
    };
    let run = options.run(pod, &container)?;
    let id = run.split_once("://").map_or(run, |(_, id)| id).to_owned();
    let (reply, read) = oneshot::channel();
    let Options { follow, tail, since, .. } = options;
    let visit = Visit::Log { node: node.to_owned(), id, follow, tail, since, reply };
    cluster.send(Inbound::Visit(visit)).map_err(|_| gone())?;
    Ok(match read.await.map_err(|_| gone())? {
        Some(read) => reply::stream("text/plain", options.body(read)),
        None => reply::text(200, format!("unable to retrieve container logs for {run}")),
    })
}

impl Options {
    /// Reads the options of a request for the log of this pod.
    pub fn parse(params: &Params, pod: &str, now: Wall) -> Result<Options, Status> {
        let mut wrong: Vec<String> = Vec::new();
        let mut number = |name: &str, least: i64, why: &str| -> Result<Option<i64>, Status> {
            let Some(text) = params.said(name) else { return Ok(None) };
            let syntax = || Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
            let number: i64 = text.parse().map_err(|_| syntax())?;
            if number < least {
                wrong.push(format!("{name}: Invalid value: {number}: {why}"));
            }
            Ok(Some(number))
        };
        let tail = number("tailLines", 0, "must be greater than or equal to 0")?;
        let limit = number("limitBytes", 1, "must be greater than 0")?;
        let seconds = number("sinceSeconds", 1, "must be greater than 0")?;
        let time = params.said("sinceTime").map(|text| {
            let time = serde_json::from_value::<Time>(Value::String(text.to_owned()));
            time.map(|time| Wall::from_time(&time))
                .map_err(|_| Status::bad_request(format!("parsing time {text:?}: cannot parse it")))
        });
        if time.is_some() && seconds.is_some() {
            wrong.push("<nil>: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified".to_owned());
        }
        if !wrong.is_empty() {
            let all = if wrong.len() == 1 { wrong.remove(0) } else { format!("[{}]", wrong.join(", ")) };
            let message = format!("PodLogOptions {pod:?} is invalid: {all}").into();
            return Err(Status { reason: Reason::Invalid, message, details: None });
        }
        let ago = |seconds: i64| Wall(now.0.saturating_sub(seconds.saturating_mul(1_000_000)));
        let size = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(Options {
            follow: params.flag("follow"),
            previous: params.flag("previous"),
            timestamps: params.flag("timestamps"),
            since: time.transpose()?.or(seconds.map(ago)),
            tail: tail.map(size),
            limit: limit.map(size),
        })
    }

    /// The id of the run whose log is meant, as `docker://3`; the kubelet's error if there is none.
    pub fn run<'a>(&self, pod: &'a Value, container: &str) -> Result<&'a str, Status> {
        let pod_name = pod::name(pod);
        let about = |what: &str| Status::bad_request(format!("container {container:?} in pod {pod_name:?} is {what}"));
        let status = pod::status(pod, container).ok_or_else(|| about("not available"))?;
        let (state, last) = (&status["state"], &status["lastState"]["terminated"]);
        let id = |value: &'a Value| value["containerID"].as_str().filter(|id| !id.is_empty());
        Ok(if self.previous {
            let missing = format!("previous terminated container {container:?} in pod {pod_name:?} not found");
            id(last).ok_or_else(|| Status::bad_request(missing))?
        } else if !state["running"].is_null() {
            id(status).ok_or_else(|| about("not available"))?
        } else if !state["terminated"].is_null() {
            id(&state["terminated"]).or_else(|| id(last)).ok_or_else(|| about("terminated"))?
        } else if !last.is_null() {
            id(last).ok_or_else(|| about("terminated"))?
        } else {
            let waiting = match state["waiting"]["reason"].as_str() {
                Some("ErrImagePull") => "waiting to start: image can't be pulled".to_owned(),
                Some("ImagePullBackOff") => "waiting to start: trying and failing to pull image".to_owned(),
                Some(reason) => format!("waiting to start: {reason}"),
                None => "waiting to start - no logs yet".to_owned(),
            };
            return Err(about(&waiting));
        })
    }

    /// The body of the response.
    pub fn body(self, read: LogRead) -> LogBody {
        let since = self.since;
        let recent = read.lines.into_iter().filter(|line| since.is_none_or(|since| line.at >= since));
        let lines: Vec<Line> = recent.collect();
        let skipped = self.tail.map_or(0, |tail| lines.len().saturating_sub(tail));
        let mut body =
            LogBody { left: self.limit, timestamps: self.timestamps, ready: Vec::new(), follows: read.follows };
        lines[skipped..].iter().for_each(|line| body.take(line));
        body
    }
}

/// The lines of a log, and those that follow.
pub struct LogBody {
    /// Bytes that may still be sent.
    left: Option<usize>,
    timestamps: bool,
    ready: Vec<u8>,
    follows: Option<mpsc::Receiver<Line>>,
}

impl LogBody {
    fn take(&mut self, line: &Line) {
        let mut text = if self.timestamps { format!("{:.9} ", line.at.to_micro_time().0) } else { String::new() };
        text += &line.text;
        text.push('\n');
        let most = self.left.unwrap_or(text.len()).min(text.len());
        self.ready.extend_from_slice(&text.as_bytes()[..most]);
        self.left = self.left.map(|left| left - most);
    }
}

impl Body for LogBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let mut pending = false;
        while this.left != Some(0)
            && let Some(follows) = &mut this.follows
        {
            match follows.poll_recv(cx) {
                Poll::Ready(Some(line)) => this.take(&line),
                Poll::Ready(None) => this.follows = None,
                Poll::Pending => {
                    pending = true;
                    break;
                }
            }
        }
        if !this.ready.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from(std::mem::take(&mut this.ready))))));
        }
        if pending { Poll::Pending } else { Poll::Ready(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::{LogRead, Options};
    use crate::up::params::Params;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};
    use skeg_core::Wall;
    use skeg_sim::container::log::Line;
    use tokio::sync::mpsc;

    const SECOND: i64 = 1_000_000;

    fn options(query: &str) -> Options {
        Options::parse(&Params::parse(Some(query)), "p", Wall(100 * SECOND)).unwrap()
    }

    #[test]
    fn options_are_checked_in_kubernetes_words() {
        let check = |query: &str, code: u16, want: &str| {
            let status = Options::parse(&Params::parse(Some(query)), "p", Wall(0)).unwrap_err();
            assert_eq!((status.reason.code(), &*status.message), (code, want), "{query}");
        };
        let invalid = "PodLogOptions \"p\" is invalid: ";
        check(
            "tailLines=-1",
            422,
            &format!("{invalid}tailLines: Invalid value: -1: must be greater than or equal to 0"),
        );
        check("limitBytes=0", 422, &format!("{invalid}limitBytes: Invalid value: 0: must be greater than 0"));
        check(
            "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            422,
            &format!("{invalid}<nil>: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"),
        );
        check("tailLines=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax");
        check("sinceTime=yesterday", 400, "parsing time \"yesterday\": cannot parse it");
    }

    #[test]
    fn lines_are_chosen() {
        let line = |n: i64| Line { at: Wall(n * 10 * SECOND + 5), stderr: false, text: format!("line {n}") };
        let check = |query: &str, want: &str| {
            let read = LogRead { lines: (1..=9).map(line).collect(), follows: None };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let body = runtime.block_on(options(query).body(read).collect()).unwrap().to_bytes();
            assert_eq!(String::from_utf8(body.to_vec()).unwrap(), want, "{query}");
        };
        check("tailLines=2", "line 8\nline 9\n");
        check("tailLines=0", "");
        check("sinceSeconds=20", "line 8\nline 9\n");
        check("sinceTime=1970-01-01T00:01:30Z", "line 9\n");
        check("tailLines=1&timestamps=true", "1970-01-01T00:01:30.000005000Z line 9\n");
        check("limitBytes=10", "line 1\nlin");
        check("tailLines=1&limitBytes=100", "line 9\n");
    }

    #[test]
    fn a_log_is_followed_until_its_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let line = |text: &str| Line { at: Wall(0), stderr: false, text: text.to_owned() };
        for (query, want) in [("", "a\nb\nc\n"), ("limitBytes=3", "a\nb")] {
            let (sender, receiver) = mpsc::channel(10);
            let body = options(query).body(LogRead { lines: vec![line("a")], follows: Some(receiver) });
            sender.try_send(line("b")).unwrap();
            sender.try_send(line("c")).unwrap();
            drop(sender);
            let got = runtime.block_on(body.collect()).unwrap().to_bytes();
            assert_eq!(got, want.as_bytes(), "{query}");
        }
    }

    #[test]
    fn the_run_is_found_or_the_kubelets_error() {
        let check = |query: &str, status: Value, want: Result<&str, &str>| {
            let pod = json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [status]}});
            let got = options(query).run(&pod, "c").map_err(|status| status.message.to_string());
            assert_eq!(got.as_ref().map(|id| *id).map_err(String::as_str), want, "{query} {pod}");
        };
        let status = |state: Value, last: Value| json!({"name": "c", "containerID": "containerd://3", "state": state, "lastState": last});
        let ended = |id: &str| json!({"terminated": {"containerID": format!("containerd://{id}")}});
        let none = || json!({});
        check("", status(json!({"running": {}}), none()), Ok("containerd://3"));
        check("", status(ended("2"), none()), Ok("containerd://2"));
        check("", status(json!({"waiting": {"reason": "CrashLoopBackOff"}}), ended("1")), Ok("containerd://1"));
        check("previous=true", status(json!({"running": {}}), ended("1")), Ok("containerd://1"));
        check(
            "previous=true",
            status(json!({"running": {}}), none()),
            Err("previous terminated container \"c\" in pod \"p\" not found"),
        );
        let waits = |reason: &str| status(json!({"waiting": {"reason": reason}}), none());
        let about = |what: &str| format!("container \"c\" in pod \"p\" is {what}");
        check("", waits("ContainerCreating"), Err(&about("waiting to start: ContainerCreating")));
        check("", waits("ErrImagePull"), Err(&about("waiting to start: image can't be pulled")));
        check("", waits("ImagePullBackOff"), Err(&about("waiting to start: trying and failing to pull image")));
        check("", json!({"name": "d"}), Err(&about("not available")));
    }
}
