//! What happens in the engine without being asked for: containers that end, and the engine itself, which may be
//! restarted or hang.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Method;
use hyper::body::Bytes;
use serde_json::{Value, json};
use skeg_core::agent::{ContainerId, RuntimeEvent, SandboxId};

use super::Driver;
use super::engine::{Failure, Lines, query};
use super::listing::{self, Found, State};

/// Delay before the stream of events is opened again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the engine is asked whether it answers, and how long it may take.
const ASK: Duration = Duration::from_secs(10);
/// How often in a row it must not answer to count as down (kubelet `maxWaitForContainerRuntime`: 30 s).
const MISSES: u32 = 3;
/// How long what is removed may take to be gone, and after which time it is looked for again.
const LEAVE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(100);
/// How much later than the end of a container the engine may tell that its memory was what ended it.
const OOM_LAG: Duration = Duration::from_millis(300);
/// Exit code of a process that was killed.
const KILLED: &str = "137";

/// Tells the agent of everything that ends, for ever. Whenever the stream of events has been opened, the list is read
/// as well: what ended before is told then.
pub async fn events(driver: &Arc<Driver>) {
    let mut filters = listing::filter(&driver.host.cluster);
    (filters["type"], filters["event"]) = (json!(["container"]), json!(["die", "oom"]));
    let path = format!("/events?{}", query(&[("filters", &filters.to_string())]));
    loop {
        match driver.engine.stream(Method::GET, &path, "application/json", Bytes::new()).await {
            Ok(body) => {
                sweep(driver).await;
                let mut lines = Lines::of(body);
                while let Some(line) = lines.next().await {
                    let event: Value = serde_json::from_slice(&line).unwrap_or_default();
                    let Some(id) = event["Actor"]["ID"].as_str().map(str::to_owned) else { continue };
                    if event["Action"] == "oom" {
                        driver.ooms.note(id);
                        continue;
                    }
                    let killed = event["Actor"]["Attributes"]["exitCode"] == KILLED;
                    let driver = Arc::clone(driver);
                    // Beside the stream, which goes on.
                    tokio::spawn(async move {
                        if killed {
                            tokio::time::sleep(OOM_LAG).await;
                        }
                        ended(&driver, &id).await;
                    });
                }
                tracing::warn!("Docker's stream of events has ended; it is opened again");
            }
            Err(e) => tracing::debug!("{e}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn sweep(driver: &Driver) {
    match driver.all().await {
        Ok(all) => all.into_iter().for_each(|found| tell(driver, found)),
        Err(e) => tracing::warn!("{e}"),
    }
}

async fn ended(driver: &Driver, id: &str) {
    match driver.one(id).await {
        Ok(found) => tell(driver, found),
        Err(e) if e.is_missing() => {}
        // The list will be read when the stream is opened again.
        Err(e) => tracing::warn!("{e}"),
    }
}

/// Tells the agent that this has ended, if it has.
fn tell(driver: &Driver, found: Found) {
    match (&found.state, found.is_sandbox) {
        (State::Exited { .. }, false) => driver.happened(move || {
            let container = ContainerId(found.id.as_str().into());
            RuntimeEvent::Exited { container, state: found.state.told() }
        }),
        (State::Exited { .. }, true) => {
            driver.happened(move || RuntimeEvent::SandboxGone { sandbox: SandboxId(found.id.as_str().into()) });
        }
        (State::Created | State::Running(_), _) => {}
    }
}

/// Tells the agent when the engine does not answer any more, and when it does again.
pub async fn health(driver: &Driver) {
    let mut misses = 0;
    loop {
        tokio::time::sleep(ASK).await;
        let answer = tokio::time::timeout(ASK, driver.engine.get("/_ping")).await;
        let why = match answer {
            Ok(Ok(_)) => {
                if misses >= MISSES {
                    tracing::info!("Docker answers again");
                    driver.happened(|| RuntimeEvent::Reachable(true));
                }
                misses = 0;
                continue;
            }
            Ok(Err(e)) => e,
            Err(_) => Failure::Unreachable("context deadline exceeded".to_owned()),
        };
        misses += 1;
        if misses == MISSES {
            tracing::warn!("the node is not ready: {why}");
            driver.happened(|| RuntimeEvent::Reachable(false));
        }
    }
}

/// Removes what a cluster that keeps nothing has left behind, and waits until it is gone: somebody else's removal of it
/// may be under way.
pub async fn remove_all(driver: &Driver) -> Result<(), Failure> {
    let mut pods: BTreeSet<String> = BTreeSet::new();
    let begun = Instant::now();
    loop {
        let all = driver.all().await?;
        if all.is_empty() {
            break;
        }
        if begun.elapsed() > LEAVE {
            return Err(Failure::Refused(409, format!("{} containers are still there after {LEAVE:?}", all.len())));
        }
        // Sandboxes last: the others share their namespaces.
        let (sandboxes, containers): (Vec<Found>, Vec<Found>) = all.into_iter().partition(|found| found.is_sandbox);
        for found in containers.into_iter().chain(sandboxes) {
            driver.engine.remove(&format!("/containers/{}?force=1&v=1", found.id)).await?;
            pods.insert(found.pod_uid);
        }
        tokio::time::sleep(AGAIN).await;
    }
    for uid in pods {
        if let Err(why) = super::volumes::unmount(&driver.state, &uid) {
            tracing::warn!("files of pod {uid} are left behind: {why}");
        }
    }
    // They stay if anything is left in them, which was said.
    let _ = std::fs::remove_dir(driver.state.join("pods")).and_then(|()| std::fs::remove_dir(&driver.state));
    Ok(())
}
