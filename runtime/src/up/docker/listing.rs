//! What the engine has of a cluster's sandboxes and containers. Their labels say whose they are.

use std::path::Path;
use std::rc::Rc;

use serde_json::{Value, json};
use skeg_core::Wall;
use skeg_core::agent::{ContainerId, ContainerInfo, ContainerState, SandboxId, SandboxInfo};
use skeg_core::object::Time;

use super::engine::{Engine, Failure, query};
use super::ooms::Ooms;
use super::{spec, volumes};

/// Longest message of a terminated container (`MaxContainerTerminationMessageLength`).
const LONGEST_MESSAGE: usize = 4096;
/// Longest message from the end of a log, in bytes and lines.
const LONGEST_LOG: (usize, &str) = (2048, "80");

/// The state of a container.
#[derive(Clone, Debug)]
pub enum State {
    /// Created and not started.
    Created,
    /// Running since then.
    Running(Wall),
    /// Ended.
    Exited {
        /// Exit code.
        code: i32,
        /// `Completed`, `Error`, `OOMKilled`, `StartError`.
        reason: &'static str,
        /// What it said about its end.
        message: String,
        /// When it started.
        started: Wall,
        /// When it ended.
        finished: Wall,
    },
}

/// A container or a sandbox.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its id.
    pub id: String,
    /// Whether it is a sandbox.
    pub is_sandbox: bool,
    /// UID of the pod.
    pub pod_uid: String,
    /// `namespace/name` of the pod.
    pub pod: String,
    /// Name of the container.
    pub name: String,
    /// The container's sandbox.
    pub sandbox: String,
    /// `restartCount`.
    pub attempt: u32,
    /// Id of its image.
    pub image_id: String,
    /// The sandbox's address.
    pub ip: String,
    /// Its state.
    pub state: State,
}

impl State {
    /// In the words of the agent.
    pub fn told(self) -> ContainerState {
        match self {
            State::Created => ContainerState::Created,
            State::Running(started_at) => ContainerState::Running { started_at },
            State::Exited { code, reason, message, started, finished } => ContainerState::Exited {
                exit_code: code,
                reason: Rc::from(reason),
                message: Rc::from(message),
                started_at: started,
                finished_at: finished,
            },
        }
    }
}

impl Found {
    /// Says that what ended it was its memory, if that is known and the engine did not say so. The engine does not
    /// always remember: if it hears of the end of a container first, it counts as killed by somebody.
    pub fn judge_end(&mut self, ooms: &Ooms) {
        if let State::Exited { code, reason, .. } = &mut self.state
            && *code != 0
            && ooms.contains(&self.id)
        {
            *reason = "OOMKilled";
        }
    }

    /// As a sandbox, in the words of the agent.
    pub fn sandbox(self) -> SandboxInfo {
        SandboxInfo {
            id: SandboxId(self.id.into()),
            pod_uid: self.pod_uid.into(),
            pod: self.pod.into(),
            ip: self.ip.into(),
            ready: matches!(self.state, State::Running(_)),
        }
    }

    /// As a container, in the words of the agent.
    pub fn container(self) -> ContainerInfo {
        ContainerInfo {
            id: ContainerId(self.id.into()),
            sandbox: SandboxId(self.sandbox.into()),
            pod_uid: self.pod_uid.into(),
            name: self.name.into(),
            attempt: self.attempt,
            image_id: self.image_id.into(),
            state: self.state.told(),
        }
    }
}

/// The filter for a cluster's containers.
pub fn filter(cluster: &str) -> Value {
    json!({"label": [format!("{}={cluster}", spec::CLUSTER)]})
}

/// Everything that is there of a cluster. `state` is where the files of its pods are.
pub async fn all(engine: &Engine, cluster: &str, state: &Path) -> Result<Vec<Found>, Failure> {
    let path = format!("/containers/json?{}", query(&[("all", "1"), ("filters", &filter(cluster).to_string())]));
    let listed = engine.get(&path).await?;
    let mut all = Vec::new();
    for id in listed.as_array().into_iter().flatten().filter_map(|c| c["Id"].as_str()) {
        match one(engine, id, state).await {
            Ok(found) => all.push(found),
            // It has just been removed.
            Err(e) if e.is_missing() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

fn wall(value: &Value) -> Wall {
    serde_json::from_value::<Time>(value.clone()).map_or(Wall(0), |time| Wall::from_time(&time))
}

/// A container or a sandbox by its id.
pub async fn one(engine: &Engine, id: &str, state: &Path) -> Result<Found, Failure> {
    let seen = engine.get(&format!("/containers/{id}/json")).await?;
    let label = |name: &str| seen["Config"]["Labels"][name].as_str().unwrap_or_default().to_owned();
    let is_sandbox = label(spec::TYPE) == "podsandbox";
    let networks = seen["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
    let mut addresses = networks.filter_map(|(_, network)| network["IPAddress"].as_str()).filter(|ip| !ip.is_empty());
    let ip = addresses.next().unwrap_or_default().to_owned();
    let mut found = Found {
        id: id.to_owned(),
        is_sandbox,
        pod_uid: label(spec::POD_UID),
        pod: format!("{}/{}", label(spec::POD_NAMESPACE), label(spec::POD_NAME)),
        name: label(spec::CONTAINER),
        sandbox: label(spec::SANDBOX),
        attempt: label(spec::ATTEMPT).parse().unwrap_or(0),
        image_id: label(spec::IMAGE_ID),
        ip,
        state: state_of(&seen["State"]),
    };
    if let (State::Exited { code, message, .. }, false) = (&mut found.state, is_sandbox) {
        let file = volumes::termination_file(state, &found.pod_uid, &found.name, found.attempt);
        let written = read_start(&file);
        if !written.is_empty() {
            *message = written;
        } else if *code != 0 && label(spec::MESSAGE_FROM_LOGS) == "true" {
            *message = end_of_log(engine, id).await;
        }
    }
    Ok(found)
}

/// The first bytes of a file, and nothing if there is none.
fn read_start(file: &Path) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    // The container may have made anything of it, but the file's own place is not the container's to choose.
    if let Ok(file) = std::fs::File::open(file) {
        let _ = file.take(LONGEST_MESSAGE as u64).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn end_of_log(engine: &Engine, id: &str) -> String {
    let lines = super::logs::read(engine, id, Some(LONGEST_LOG.1), None).await.unwrap_or_default();
    let text: String = lines.into_iter().map(|line| line.text + "\n").collect();
    let mut start = text.len().saturating_sub(LONGEST_LOG.0);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

/// The state as Docker tells it.
fn state_of(state: &Value) -> State {
    let code = i32::try_from(state["ExitCode"].as_i64().unwrap_or(0)).unwrap_or(255);
    let (started, finished) = (wall(&state["StartedAt"]), wall(&state["FinishedAt"]));
    let error = state["Error"].as_str().unwrap_or_default();
    match state["Status"].as_str().unwrap_or_default() {
        "created" if error.is_empty() => State::Created,
        // It could not be started.
        "created" => {
            let message = error.to_owned();
            State::Exited {
                code: 128,
                reason: "StartError",
                message,
                started: Wall(0),
                finished: started.max(finished),
            }
        }
        "running" | "paused" | "restarting" | "removing" => State::Running(started),
        _ => {
            let reason = match (state["OOMKilled"] == true, code) {
                (true, 0) | (false, 0) => "Completed",
                (true, _) => "OOMKilled",
                (false, _) => "Error",
            };
            State::Exited { code, reason, message: error.to_owned(), started, finished }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{State, state_of};

    #[test]
    fn states_have_kubernetes_reasons() {
        let check = |state: Value, want: Option<(i32, &str)>| {
            let got = match state_of(&state) {
                State::Exited { code, reason, .. } => Some((code, reason)),
                State::Created | State::Running(_) => None,
            };
            assert_eq!(got, want, "{state}");
        };
        check(json!({"Status": "running", "StartedAt": "2026-01-01T00:00:00Z"}), None);
        check(json!({"Status": "created"}), None);
        check(json!({"Status": "created", "ExitCode": 127, "Error": "no such file"}), Some((128, "StartError")));
        check(json!({"Status": "exited", "ExitCode": 0}), Some((0, "Completed")));
        check(json!({"Status": "exited", "ExitCode": 3}), Some((3, "Error")));
        check(json!({"Status": "exited", "ExitCode": 137, "OOMKilled": true}), Some((137, "OOMKilled")));
        check(json!({"Status": "dead", "ExitCode": 137}), Some((137, "Error")));
    }
}
