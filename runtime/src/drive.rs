//! The simulator as the commands use it: one run, watched by a progress bar and perhaps by a trace.

use std::time::Duration;

use skeg_sim::outcome::Outcome;
pub use skeg_sim::run::Crash;
use skeg_sim::scenario::Scenario;
use skeg_sim::{Observer, RunOptions, Silent};

use crate::progress::Progress;

/// Takes the events of a traced run: number, virtual nanoseconds, hash so far, what it was.
pub type OnEvent<'a> = dyn FnMut(u64, u64, u64, &str) + 'a;

/// Shows progress, and passes events on.
struct Watcher<'a> {
    progress: &'a Progress,
    on_event: Option<&'a mut OnEvent<'a>>,
}

impl Observer for Watcher<'_> {
    fn progress(&mut self, p: &skeg_sim::Progress<'_>) {
        let count = |phase: &str| p.pods.get(phase).map_or(0, |n| usize::try_from(*n).unwrap_or(0));
        let ready = usize::try_from(p.ready).unwrap_or(0);
        let phases = ["Running", "Pending", "Succeeded", "Failed", "Unknown"];
        let pods: Vec<(&str, usize)> = phases.into_iter().map(|phase| (phase, count(phase))).collect();
        self.progress.at(p.at, &[&[("ready", ready)], &pods[..]].concat());
    }

    fn event(&mut self, n: u64, at: u64, hash: u64, what: &str) {
        if let Some(on_event) = &mut self.on_event {
            on_event(n, at, hash, what);
        }
    }
}

/// One run. The error is a panic of a machine, which is a bug of ours.
pub fn run(scenario: &Scenario, seed: u64, progress: &Progress) -> Result<Outcome, Crash> {
    let mut watcher = Watcher { progress, on_event: None };
    skeg_sim::run(scenario, seed, &RunOptions::default(), &mut watcher)
}

/// One run whose every event is told.
pub fn run_traced<'a>(
    scenario: &Scenario,
    seed: u64,
    progress: &'a Progress,
    on_event: &'a mut OnEvent<'a>,
) -> Result<Outcome, Crash> {
    let mut watcher = Watcher { progress, on_event: Some(on_event) };
    let options = RunOptions { trace: true };
    skeg_sim::run(scenario, seed, &options, &mut watcher)
}

/// One run that nobody watches.
pub fn run_quietly(scenario: &Scenario, seed: u64) -> Result<Outcome, Crash> {
    skeg_sim::run(scenario, seed, &RunOptions::default(), &mut Silent)
}

/// How long a run may be, for its bar.
pub fn longest(scenario: &Scenario) -> Duration {
    scenario.duration + scenario.settle
}
