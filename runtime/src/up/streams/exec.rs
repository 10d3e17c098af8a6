//! `pods/exec` and `pods/attach`.

use hyper::Response;
use serde_json::Value;
use skeg_core::api::{Reason, Status};
use skeg_sim::container::process::Output;
use tokio::sync::oneshot;

use super::command::{self, Asked, From, Outcome, Streams};
use super::upgrade::{Switching, Upgrade};
use super::visit::{Visit, Visited};
use super::{environment, pod};
use crate::up::ask::{Inbound, ToCluster};
use crate::up::params::Params;
use crate::up::reply::Content;

/// The streams that a request asks for.
fn asked(params: &Params) -> Result<Asked, Status> {
    let flag = |name: &str| params.flag(name);
    let asked = Asked { stdin: flag("stdin"), stdout: flag("stdout"), stderr: flag("stderr"), tty: flag("tty") };
    if !(asked.stdin || asked.stdout || asked.stderr) {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(asked)
}

/// 500 if the container is not running.
fn check_running(pod: &Value, container: &str) -> Result<(), Status> {
    let message = match pod::status(pod, container) {
        Some(status) if !status["state"]["running"].is_null() => return Ok(()),
        Some(status) if !status["state"]["terminated"].is_null() => "container is in CONTAINER_EXITED state".to_owned(),
        _ => format!("container not found ({container:?})"),
    };
    Err(Status { reason: Reason::InternalError, message: message.into(), details: None })
}

/// Runs a command in a container of this pod.
pub fn exec(
    pod: &Value,
    params: &Params,
    upgrade: Upgrade<'_>,
    cluster: &ToCluster,
) -> Result<Response<Content>, Status> {
    let asked = asked(params)?;
    let argv: Vec<String> = params.all("command").map(str::to_owned).collect();
    if argv.is_empty() {
        return Err(Status::bad_request("you must specify at least one command for the container"));
    }
    let container = pod::container(pod, params)?;
    check_running(pod, &container)?;
    let spec = pod::spec(pod, &container).cloned().unwrap_or_default();
    let env = environment::of(pod, &spec)?;
    let directory = spec["workingDir"].as_str().unwrap_or_default().to_owned();
    let place = pod::place(pod, container)?;
    let (response, switching) = upgrade.agree(&command::WEB_SOCKET, &command::SPDY)?.split();
    let cluster = cluster.clone();
    tokio::spawn(async move {
        let begin = |reply| Visit::Exec { place, argv, env, directory, tty: asked.tty, reply };
        serve(switching, asked, begin, cluster).await;
    });
    Ok(response)
}

/// Attaches to the process of a container of this pod.
pub fn attach(
    pod: &Value,
    params: &Params,
    upgrade: Upgrade<'_>,
    cluster: &ToCluster,
) -> Result<Response<Content>, Status> {
    let asked = asked(params)?;
    let container = pod::container(pod, params)?;
    check_running(pod, &container)?;
    let place = pod::place(pod, container)?;
    let (response, switching) = upgrade.agree(&command::WEB_SOCKET, &command::SPDY)?.split();
    let cluster = cluster.clone();
    tokio::spawn(async move {
        serve(switching, asked, |reply| Visit::Attach { place, stdin: asked.stdin, reply }, cluster).await;
    });
    Ok(response)
}

/// Carries bytes between a client and a process until either ends.
async fn serve(
    switching: Switching,
    asked: Asked,
    begin: impl FnOnce(oneshot::Sender<Result<Visited, String>>) -> Visit,
    cluster: ToCluster,
) {
    let Some(mut streams) = Streams::open(switching, asked).await else { return };
    let (reply, visited) = oneshot::channel();
    // Without the machines' thread there is nobody to talk to.
    if cluster.send(Inbound::Visit(begin(reply))).is_err() {
        return;
    }
    let visited = match visited.await {
        Ok(Ok(visited)) => visited,
        Ok(Err(why)) => return streams.finish(Outcome::Failed(why)).await,
        Err(_) => return,
    };
    let visit = visited.id;
    if !asked.stdin {
        // What is not sent has ended. Errors mean that the cluster ends, and so does the visit.
        let _ = cluster.send(Inbound::Visit(Visit::Input { visit, bytes: None }));
    }
    match carry(&mut streams, visited, &cluster).await {
        Some(code) => streams.finish(Outcome::Code(code)).await,
        None => drop(cluster.send(Inbound::Visit(Visit::Leave { visit }))),
    }
}

/// The exit code; `None` if the client has gone first.
async fn carry(streams: &mut Streams, mut visited: Visited, cluster: &ToCluster) -> Option<i32> {
    loop {
        streams.flush().await.ok()?;
        tokio::select! {
            biased;
            heard = visited.heard.recv() => match heard? {
                Output::Stdout(bytes) => streams.wrote(&bytes, false).await.ok()?,
                Output::Stderr(bytes) => streams.wrote(&bytes, true).await.ok()?,
                Output::Exit(code) => return Some(code),
                Output::Sleep(_) | Output::Kill(_) => {}
            },
            from = streams.next() => {
                let bytes = match from? {
                    From::Stdin(bytes) => Some(bytes),
                    From::End => None,
                    From::Size(width, height) => {
                        let resize = Visit::Resize { visit: visited.id, width, height };
                        cluster.send(Inbound::Visit(resize)).ok()?;
                        continue;
                    }
                    From::Other => continue,
                };
                cluster.send(Inbound::Visit(Visit::Input { visit: visited.id, bytes })).ok()?;
            }
        }
    }
}
