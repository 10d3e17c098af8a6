//! What kubectl asks all day, recorded once, and answered as it was then: so the answers that each of its versions
//! needs are checked where there is no kubectl.
//!
//! The files are in `runtime/tests/golden/kubectl` ([`session`] says what is in them). `UPDATE_GOLDEN=1` makes the
//! answers anew. `SKEG_RECORD_KUBECTL=1` records the requests, too, from the binaries that `KUBECTL` names, which
//! must be all versions that are to be in the files.

mod normal;
mod proxy;
mod record;
mod replay;
mod session;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use self::proxy::Proxy as Recorder;
pub use self::session::Session;
use self::session::{Answer, Shown};
use crate::client::Cluster;
use crate::kubectl::record_days;

/// Runs of which what they have alike is recorded.
const RUNS: usize = 2;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/kubectl")
}

fn files() -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(directory()).expect("it is there");
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("it can be listed").path();
        let name = path.file_name().expect("files have names").to_string_lossy().into_owned();
        (name, std::fs::read_to_string(&path).expect("it can be read"))
    };
    entries.map(file).collect()
}

/// A cluster whose clock is fast, so that controllers, agents and containers keep nobody waiting.
fn cluster(test: &str) -> Cluster {
    let cluster = Cluster::start(test, &["--nodes", "3", "--speed", "20"]);
    cluster.wait_for("three nodes are ready", || {
        let nodes = cluster.get("/api/v1/nodes").json();
        let is_ready = |node: &serde_json::Value| {
            let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
            conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        nodes["items"].as_array().is_some_and(|nodes| nodes.len() == 3 && nodes.iter().all(is_ready))
    });
    cluster
}

/// The same requests with what several clusters answer alike.
fn answered(version: &str, session: &Session) -> Session {
    let run = |run: usize| replay::answer(&cluster(&format!("golden-{version}-{run}")), session);
    (1..RUNS).map(run).fold(run(0), |mut all, other| {
        for (one, other) in all.iter_mut().zip(other) {
            one.exchanges.truncate(other.exchanges.len());
            for (one, other) in one.exchanges.iter_mut().zip(other.exchanges) {
                one.answer = common(&one.answer, &other.answer, &one.target);
            }
        }
        all
    })
}

fn common(one: &Answer, other: &Answer, target: &str) -> Answer {
    assert_eq!((one.code, &one.head), (other.code, &other.head), "two runs answer differently: {target}");
    let body = match (&one.body, &other.body) {
        (Shown::Json(one), Shown::Json(other)) => Shown::Json(normal::common(one, other)),
        (one, other) if one == other => one.clone(),
        _ => Shown::Nothing,
    };
    Answer { body, ..one.clone() }
}

#[test]
fn recorded_requests_are_answered_as_ever() {
    let records = std::env::var_os("SKEG_RECORD_KUBECTL").is_some();
    if records || std::env::var_os("UPDATE_GOLDEN").is_some() {
        let asked = if records { record_days() } else { session::read(&files()) };
        let sessions = each(&asked, answered);
        let written = session::write(&sessions);
        std::fs::create_dir_all(directory()).expect("it can be made");
        files().keys().for_each(|name| std::fs::remove_file(directory().join(name)).expect("it was just there"));
        for (name, text) in written {
            std::fs::write(directory().join(name), text).expect("it can be written");
        }
        for (version, session) in session::read(&files()) {
            for (number, (read, written)) in session.iter().zip(&sessions[&version]).enumerate() {
                assert_eq!(read, written, "case {} of {version} reads as it was written", number + 1);
            }
        }
        return;
    }
    let sessions = session::read(&files());
    assert!(sessions.len() >= 4, "requests of four versions are recorded");
    let failures = each(&sessions, |version, session| {
        let failures = replay::compare(&cluster(&format!("golden-{version}")), session);
        failures.into_iter().map(|failure| format!("kubectl {version}, case {failure}")).collect::<Vec<_>>()
    });
    let failures: Vec<String> = failures.into_values().flatten().collect();
    assert!(failures.is_empty(), "UPDATE_GOLDEN=1 takes over what is right:\n{}", failures.join("\n"));
}

/// Does something with each version, side by side.
fn each<T: Send>(
    sessions: &BTreeMap<String, Session>,
    act: impl Fn(&str, &Session) -> T + Sync,
) -> BTreeMap<String, T> {
    std::thread::scope(|scope| {
        let act = &act;
        let begun: Vec<_> = sessions
            .iter()
            .map(|(version, session)| (version.clone(), scope.spawn(move || act(version, session))))
            .collect();
        let join = |(version, thread): (String, std::thread::ScopedJoinHandle<'_, T>)| {
            (version, thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        };
        begun.into_iter().map(join).collect()
    })
}

/// A cluster behind a proxy, whose notes `record` takes.
pub fn recording(cluster: &Cluster, spend: impl FnOnce(&Recorder)) -> Session {
    let proxy = Recorder::start(cluster);
    spend(&proxy);
    record::session(proxy.take())
}
