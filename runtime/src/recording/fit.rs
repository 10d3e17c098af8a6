//! `skeg sim fit DIR`: how images behaved in a run that was recorded, as profiles that the simulator reads.
//!
//! What comes in: what agents asked of their containers' runtime, what that told them, and when. What goes out: for
//! each image the times that it took. A range is such that its middle is the median of what was seen, and it begins
//! where all but a tenth did: the few that took far longer than all others are left out.
//!
//! A container is followed only if the whole of its creation was recorded. An output that was written as a digest says
//! nothing, so a container of a very long spec is left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Map, Value};
use skeg_core::Mono;
use skeg_core::agent::{
    ContainerId, ContainerState, ContainerStats, In, OpId, Out, ProbeAction, RuntimeCommand, RuntimeEvent,
};
use skeg_sim::files::write;
use skeg_sim::hook;
use skeg_sim::runtime::SANDBOX;
use skeg_sim::scenario::ImageProfile;

use super::format::{Input, Line, Of, Said, Step};
use super::reading;
use crate::progress::Progress;
use crate::run::file_error;
use crate::terminal::emit;
use crate::{Exit, cli};

/// How many failed probes of a container, and no other, say that it is never ready.
const NEVER_READY: u32 = 3;

/// What was seen of an image.
#[derive(Clone, PartialEq, Debug, Default)]
struct Seen {
    pulls: Vec<Duration>,
    failed_pulls: u32,
    starts: Vec<Duration>,
    /// From running until a probe succeeded first.
    ready: Vec<Duration>,
    failed_probes: u32,
    stops: Vec<Duration>,
    hooks: Vec<Duration>,
    /// Ends that nobody had asked for: after what time, and the exit code.
    exits: Vec<(Duration, i32)>,
    cpu_milli: Vec<u64>,
    memory_bytes: Vec<u64>,
}

/// A command that has not been completed.
enum Asked {
    Pull(Rc<str>),
    Mount(Rc<str>),
    Sandbox(Rc<str>),
    Create(Rc<str>),
    Start(ContainerId),
    Stop(ContainerId, Duration),
    Probe(ContainerId),
    Hook(ContainerId),
}

/// A container, from its creation on.
struct Container {
    image: Rc<str>,
    created_in: Duration,
    /// When it ran.
    started: Option<Mono>,
    is_ready: bool,
    last_failure: Option<Mono>,
    is_told_to_stop: bool,
}

/// One agent's part of a recording.
#[derive(Default)]
struct Node {
    asked: BTreeMap<OpId, (Mono, Asked)>,
    containers: BTreeMap<ContainerId, Container>,
    /// How long the volumes of pods took whose sandboxes do not run yet.
    mounts: BTreeMap<Rc<str>, Duration>,
}

/// What was seen of all images, by their names.
#[derive(Default)]
struct Fit {
    images: BTreeMap<Rc<str>, Seen>,
    nodes: BTreeMap<u32, Node>,
}

/// Fits profiles to the recordings in a directory, and writes them to a file or prints them.
pub fn run(args: &cli::FitArgs) -> Result<Exit, String> {
    let images = images(&args.dir)?;
    if images.is_empty() {
        let what = "no agent has started a container in it; record `skeg up`, `skeg server --nodes` or `skeg agent`";
        return Err(format!("error: {}: {what}", args.dir.display()));
    }
    let text = text(&images);
    match &args.out {
        Some(path) => std::fs::write(path, text).map_err(|e| file_error(path, &e))?,
        None => emit(&text),
    }
    Ok(Exit::Well)
}

fn images(dir: &Path) -> Result<BTreeMap<Rc<str>, Seen>, String> {
    let recordings = reading::recordings(dir)?;
    let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |about| about.len());
    let progress = Progress::of_bytes(recordings.iter().flatten().map(size).sum());
    let mut images = BTreeMap::new();
    for files in &recordings {
        // Each recording numbers its own machines.
        let mut fit = Fit { images, nodes: BTreeMap::new() };
        let ended = reading::read(files, &progress, |line| fit.take(line))?;
        let name = files[0].parent().unwrap_or(Path::new("")).display().to_string();
        reading::note(&name, ended).iter().for_each(|note| eprintln!("note: {note}"));
        images = fit.images;
    }
    progress.finish();
    Ok(images)
}

/// The profiles as a file, with what each rests on.
fn text(images: &BTreeMap<Rc<str>, Seen>) -> String {
    let mut text = "# How images behaved in a run that was recorded; made by `skeg sim fit`.\n".to_owned();
    for (name, seen) in images {
        let one: Map<String, Value> = [(name.to_string(), write::image(&seen.profile()))].into_iter().collect();
        text += &format!(
            "# {} pulls, {} starts, {} became ready, {} stops, {} ended by themselves\n",
            seen.pulls.len(),
            seen.starts.len(),
            seen.ready.len(),
            seen.stops.len(),
            seen.exits.len()
        );
        text += &serde_saphyr::to_string(&one).expect("plain values are YAML");
    }
    text
}

/// The value that half of all do not exceed.
fn median<T: Copy + Ord>(all: &[T]) -> Option<T> {
    quantile(all, 50)
}

fn quantile<T: Copy + Ord>(all: &[T], percent: usize) -> Option<T> {
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied()
}

fn millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// A range of what was seen; see the module's documentation.
fn range(all: &[Duration]) -> Option<(Duration, Duration)> {
    let (from, middle) = (quantile(all, 10)?, median(all)?);
    Some((millis(from), millis(2 * middle - from)))
}

impl Seen {
    fn profile(&self) -> ImageProfile {
        let usual = ImageProfile::default();
        // What was never pulled was there.
        let there = (self.failed_pulls == 0 && self.pulls.is_empty()).then_some((Duration::ZERO, Duration::ZERO));
        let asked = usize::try_from(self.failed_pulls).unwrap_or(usize::MAX);
        let crashes = self.exits.iter().filter(|(_, code)| *code != 0).count();
        let ends =
            !self.exits.is_empty() && 2 * self.exits.len() >= self.starts.len() && 2 * crashes <= self.exits.len();
        let after: Vec<Duration> = self.exits.iter().filter(|(_, code)| *code == 0).map(|(after, _)| *after).collect();
        ImageProfile {
            pull: range(&self.pulls).or(there),
            pull_fails: self.pulls.is_empty() && asked > 0,
            start: range(&self.starts).unwrap_or(usual.start),
            ready: range(&self.ready).unwrap_or(usual.ready),
            never_ready: self.ready.is_empty() && self.failed_probes >= NEVER_READY,
            stop: median(&self.stops).map_or(usual.stop, millis),
            hook: median(&self.hooks).map_or(usual.hook, millis),
            exit: median(&after).filter(|_| ends).map(|after| (millis(after), 0)),
            crash_one_in: if crashes > 0 { (self.starts.len() as u64).div_ceil(crashes as u64) } else { 0 },
            cpu_milli: median(&self.cpu_milli).unwrap_or(usual.cpu_milli),
            memory_bytes: median(&self.memory_bytes).unwrap_or(usual.memory_bytes),
            ..usual
        }
    }
}

impl Fit {
    fn take(&mut self, line: Line) -> Result<(), String> {
        match line {
            Line::Machine(machine) if matches!(machine.of, Of::Agent(_)) => {
                self.nodes.insert(machine.number, Node::default());
                Ok(())
            }
            Line::Step(step) => self.step(*step),
            Line::Machine(_) | Line::Header(_) | Line::Kinds(_) | Line::End(_) => Ok(()),
        }
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        let Step { n, machine, mono, input, out, .. } = step;
        let Some(node) = self.nodes.get_mut(&machine) else { return Ok(()) };
        let bad = |e: serde_json::Error| format!("step {n}: {e}");
        if let Input::Handle(value) = input
            && let In::Runtime(event) = serde_json::from_value(value).map_err(bad)?
        {
            node.hear(mono, event, &mut self.images);
        }
        for said in out.into_iter().flatten() {
            let Said::Whole(value) = said else { continue };
            if let Out::Runtime(command) = serde_json::from_value(value).map_err(bad)? {
                node.ask(mono, command);
            }
        }
        Ok(())
    }
}

impl Node {
    fn ask(&mut self, now: Mono, command: RuntimeCommand) {
        let (op, asked) = match command {
            RuntimeCommand::PullImage { op, image, .. } => (op, Asked::Pull(image)),
            RuntimeCommand::MountVolumes { op, volumes } => (op, Asked::Mount(Rc::clone(&volumes.pod_uid))),
            RuntimeCommand::RunSandbox { op, pod_uid, .. } => (op, Asked::Sandbox(pod_uid)),
            RuntimeCommand::CreateContainer { op, spec } => {
                let image = spec.container().and_then(|container| container.image.as_deref()).unwrap_or_default();
                (op, Asked::Create(Rc::from(image)))
            }
            RuntimeCommand::StartContainer { op, container } => (op, Asked::Start(container)),
            RuntimeCommand::StopContainer { op, container, grace_seconds } => {
                if let Some(known) = self.containers.get_mut(&container) {
                    known.is_told_to_stop = true;
                }
                (op, Asked::Stop(container, Duration::from_secs(u64::from(grace_seconds))))
            }
            RuntimeCommand::Probe { op, container, action: ProbeAction::Probe(_), .. } => (op, Asked::Probe(container)),
            // One that says how long it takes says nothing of its image.
            RuntimeCommand::Probe { op, container, action: ProbeAction::Hook(hook), .. } => {
                match hook::told_by(&hook) {
                    None => (op, Asked::Hook(container)),
                    Some(_) => return,
                }
            }
            RuntimeCommand::List { .. }
            | RuntimeCommand::UnmountVolumes { .. }
            | RuntimeCommand::EmptyDirectory { .. }
            | RuntimeCommand::RemoveDirectory { .. }
            | RuntimeCommand::StopSandbox { .. }
            | RuntimeCommand::RemoveSandbox { .. }
            | RuntimeCommand::RemoveContainer { .. }
            | RuntimeCommand::ListImages { .. }
            | RuntimeCommand::RemoveImage { .. }
            | RuntimeCommand::Measure { .. }
            | RuntimeCommand::UpdateContainer { .. }
            | RuntimeCommand::Stats { .. } => return,
        };
        self.asked.insert(op, (now, asked));
    }

    fn hear(&mut self, now: Mono, event: RuntimeEvent, images: &mut BTreeMap<Rc<str>, Seen>) {
        match event {
            RuntimeEvent::Pulled { op, result } => {
                let Some((since, Asked::Pull(image))) = self.asked.remove(&op) else { return };
                let seen = images.entry(image).or_default();
                match result {
                    Ok(_) => seen.pulls.push(now - since),
                    Err(_) => seen.failed_pulls += 1,
                }
            }
            RuntimeEvent::Mounted { op, result: Ok(()) } => {
                let Some((since, Asked::Mount(pod))) = self.asked.remove(&op) else { return };
                self.mounts.insert(pod, now - since);
            }
            RuntimeEvent::SandboxRunning { op, result: Ok(_) } => {
                let Some((since, Asked::Sandbox(pod))) = self.asked.remove(&op) else { return };
                // The simulator's volumes take no time of their own.
                let mounted = self.mounts.remove(&pod).unwrap_or_default();
                images.entry(Rc::from(SANDBOX)).or_default().starts.push(now - since + mounted);
            }
            RuntimeEvent::Created { op, result: Ok(created) } => {
                let Some((since, Asked::Create(image))) = self.asked.remove(&op) else { return };
                let created_in = now - since;
                let container = Container {
                    image,
                    created_in,
                    started: None,
                    is_ready: false,
                    last_failure: None,
                    is_told_to_stop: false,
                };
                self.containers.insert(created.id, container);
            }
            RuntimeEvent::Started { op, result: Ok(()) } => {
                let Some((since, Asked::Start(id))) = self.asked.remove(&op) else { return };
                let Some(container) = self.containers.get_mut(&id) else { return };
                container.started = Some(now);
                let took = container.created_in + (now - since);
                images.entry(Rc::clone(&container.image)).or_default().starts.push(took);
            }
            RuntimeEvent::Probed { op, result } => self.probed(now, op, result.is_ok(), images),
            RuntimeEvent::Stopped { op, result: Ok(()) } => {
                let Some((since, Asked::Stop(id, grace))) = self.asked.remove(&op) else { return };
                let Some(container) = self.containers.get(&id) else { return };
                let took = now - since;
                // One that had to be killed takes longer than it was given.
                let took = if took >= grace && !grace.is_zero() { 2 * grace } else { took };
                images.entry(Rc::clone(&container.image)).or_default().stops.push(took);
            }
            RuntimeEvent::Exited { container, state } => {
                let Some(known) = self.containers.remove(&container).filter(|known| !known.is_told_to_stop) else {
                    return;
                };
                if let (Some(started), ContainerState::Exited { exit_code, .. }) = (known.started, state) {
                    images.entry(known.image).or_default().exits.push((now - started, exit_code));
                }
            }
            RuntimeEvent::StatsRead { stats, .. } => stats.iter().for_each(|stats| self.measured(stats, images)),
            RuntimeEvent::Mounted { op, result: Err(_) }
            | RuntimeEvent::SandboxRunning { op, result: Err(_) }
            | RuntimeEvent::Created { op, result: Err(_) }
            | RuntimeEvent::Started { op, result: Err(_) }
            | RuntimeEvent::Stopped { op, result: Err(_) } => _ = self.asked.remove(&op),
            RuntimeEvent::Listed { .. }
            | RuntimeEvent::SandboxStopped { .. }
            | RuntimeEvent::SandboxRemoved { .. }
            | RuntimeEvent::Unmounted { .. }
            | RuntimeEvent::DirectoryDone { .. }
            | RuntimeEvent::Removed { .. }
            | RuntimeEvent::ImagesListed { .. }
            | RuntimeEvent::ImageRemoved { .. }
            | RuntimeEvent::Measured { .. }
            | RuntimeEvent::Updated { .. }
            | RuntimeEvent::SandboxGone { .. }
            | RuntimeEvent::Reachable(_) => {}
        }
    }

    fn probed(&mut self, now: Mono, op: OpId, is_well: bool, images: &mut BTreeMap<Rc<str>, Seen>) {
        match self.asked.remove(&op) {
            Some((since, Asked::Hook(id))) if is_well => {
                let Some(container) = self.containers.get(&id) else { return };
                images.entry(Rc::clone(&container.image)).or_default().hooks.push(now - since);
            }
            Some((since, Asked::Probe(id))) => {
                let Some(container) = self.containers.get_mut(&id).filter(|container| !container.is_ready) else {
                    return;
                };
                let seen = images.entry(Rc::clone(&container.image)).or_default();
                if !is_well {
                    container.last_failure = Some(since);
                    seen.failed_probes += 1;
                } else if let Some(started) = container.started {
                    container.is_ready = true;
                    // It came to be ready between two probes; before the first, if that one was well.
                    let ready = container.last_failure.map_or(Duration::ZERO, |failed| {
                        let (failed, well) = (failed.since(started), since.since(started));
                        failed + (well - failed) / 2
                    });
                    seen.ready.push(ready);
                }
            }
            Some(_) | None => {}
        }
    }

    fn measured(&self, stats: &ContainerStats, images: &mut BTreeMap<Rc<str>, Seen>) {
        let Some(container) = self.containers.get(&stats.id) else { return };
        let seen = images.entry(Rc::clone(&container.image)).or_default();
        seen.cpu_milli.push(stats.cpu_milli);
        seen.memory_bytes.push(stats.memory_bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::rc::Rc;
    use std::time::Duration;

    use serde_json::json;
    use skeg_core::agent::{ContainerState, CreatedContainer, RuntimeCommand, RuntimeEvent};
    use skeg_core::{Mono, Wall};
    use skeg_sim::scenario::ImageProfile;

    use super::{Node, Seen, range, text};

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A node, and what it has told of its images.
    #[derive(Default)]
    struct Told {
        node: Node,
        images: BTreeMap<Rc<str>, Seen>,
    }

    impl Told {
        fn ask(&mut self, at: u64, command: serde_json::Value) {
            let command: RuntimeCommand = serde_json::from_value(command).unwrap();
            self.node.ask(Mono(at * 1_000_000), command);
        }

        fn hear(&mut self, at: u64, event: serde_json::Value) {
            let event: RuntimeEvent = serde_json::from_value(event).unwrap();
            self.node.hear(Mono(at * 1_000_000), event, &mut self.images);
        }

        fn create(&mut self, at: u64, image: &str) {
            let pod = json!({"containers": [{"name": "c", "image": image}]});
            let spec = json!({"sandbox": "s", "pod_uid": "u", "pod": pod, "name": "c", "attempt": 0, "ephemeral": null,
                "target": null, "resolved": null});
            self.ask(at, json!({"CreateContainer": {"op": 1, "spec": spec}}));
            let created = CreatedContainer { id: skeg_core::agent::ContainerId(Rc::from("x")), image_id: Rc::from("") };
            self.hear(at + 30, json!({"Created": {"op": 1, "result": {"Ok": created}}}));
            self.ask(at + 30, json!({"StartContainer": {"op": 2, "container": "x"}}));
            self.hear(at + 130, json!({"Started": {"op": 2, "result": {"Ok": null}}}));
        }

        fn probe(&mut self, at: u64, is_well: bool) {
            let probe = json!({"Probe": {"op": 3, "container": "x", "action": {"Probe": {}}, "timeout_seconds": 1,
                "address": null}});
            self.ask(at, probe);
            let failed = json!({"Err": {"reason": "Unhealthy", "message": ""}});
            let result = if is_well { json!({"Ok": null}) } else { failed };
            self.hear(at + 5, json!({"Probed": {"op": 3, "result": result}}));
        }

        fn exit(&mut self, at: u64, code: i32) {
            let reason = Rc::from("Completed");
            let (message, zero) = (Rc::from(""), Wall(0));
            let state =
                ContainerState::Exited { exit_code: code, reason, message, started_at: zero, finished_at: zero };
            self.hear(at, json!({"Exited": {"container": "x", "state": state}}));
        }
    }

    #[test]
    fn a_server_is_followed_from_its_pull_to_its_end() {
        let mut told = Told::default();
        told.ask(0, json!({"PullImage": {"op": 0, "image": "web:1"}}));
        told.hear(900, json!({"Pulled": {"op": 0, "result": {"Ok": {"image": "web:1", "bytes": 5}}}}));
        told.create(1000, "web:1");
        // It fails at 1.5 s and is well at 2.5 s: it came to be ready at 2 s, 870 ms after it ran.
        told.probe(1500, false);
        told.probe(2500, true);
        told.probe(3500, false);
        let stats = json!({"StatsRead": {"op": 9, "stats": [{"id": "x", "cpu_milli": 7, "memory_bytes": 99}]}});
        told.hear(4000, stats);
        told.ask(5000, json!({"StopContainer": {"op": 4, "container": "x", "grace_seconds": 30}}));
        told.hear(5400, json!({"Stopped": {"op": 4, "result": {"Ok": null}}}));
        told.exit(5400, 0);
        let profile = told.images["web:1"].profile();
        let expect = ImageProfile {
            pull: Some((millis(900), millis(900))),
            start: (millis(130), millis(130)),
            ready: (millis(870), millis(870)),
            stop: millis(400),
            cpu_milli: 7,
            memory_bytes: 99,
            ..ImageProfile::default()
        };
        assert_eq!(profile, expect);
    }

    #[test]
    fn what_ends_by_itself_and_what_fails_is_told_apart() {
        let mut told = Told::default();
        told.create(0, "task:1");
        told.exit(2130, 0);
        for n in 0..4 {
            told.create(n * 10_000, "flaky:1");
            // One in four fails; the others are told to stop.
            if n > 0 {
                told.ask(n * 10_000 + 500, json!({"StopContainer": {"op": 4, "container": "x", "grace_seconds": 1}}));
                told.hear(n * 10_000 + 1600, json!({"Stopped": {"op": 4, "result": {"Ok": null}}}));
            }
            told.exit(n * 10_000 + 1600, 1);
        }
        told.create(0, "never:1");
        (0..5).for_each(|n| told.probe(1000 * n, false));
        told.ask(0, json!({"PullImage": {"op": 0, "image": "absent:1"}}));
        let failed = json!({"Err": {"reason": "ErrImagePull", "message": ""}});
        told.hear(900, json!({"Pulled": {"op": 0, "result": failed}}));
        let profile = |image: &str| told.images[image].profile();
        assert_eq!(profile("task:1").exit, Some((Duration::from_secs(2), 0)));
        assert_eq!((profile("flaky:1").exit, profile("flaky:1").crash_one_in), (None, 4));
        // It was killed after its second of grace.
        assert_eq!(profile("flaky:1").stop, Duration::from_secs(2));
        assert!(profile("never:1").never_ready && !profile("flaky:1").never_ready);
        assert!(profile("absent:1").pull_fails && !profile("never:1").pull_fails);
        assert_eq!(profile("never:1").pull, Some((Duration::ZERO, Duration::ZERO)), "it was there");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut told = Told::default();
        told.create(0, "registry.example.com/web:1");
        told.exit(2130, 0);
        told.create(5000, "other");
        let written = text(&told.images);
        let read = skeg_sim::files::images("fit", written.as_bytes()).expect("a scenario's images");
        assert_eq!(read.len(), 2, "{written}");
        for (name, seen) in &told.images {
            assert_eq!(read[&**name], seen.profile(), "{written}");
        }
    }

    #[test]
    fn the_middle_of_a_range_is_the_median() {
        let all: Vec<Duration> = [100, 110, 120, 130, 140, 150, 160, 170, 180, 9_000].map(millis).to_vec();
        assert_eq!(range(&all), Some((millis(100), millis(180))));
        assert_eq!(range(&all[..1]), Some((millis(100), millis(100))));
        assert_eq!(range(&[]), None);
    }
}
