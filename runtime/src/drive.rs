//! The interface between the commands and the simulator: one run, observed by a progress bar and optionally by a trace.

use std::time::Duration;

use skeg_core::scheduler::advice::Advice;
use skeg_sim::causes::Cause;
use skeg_sim::look::{Look, Show};
use skeg_sim::outcome::Outcome;
pub use skeg_sim::run::Crash;
use skeg_sim::scenario::Scenario;
use skeg_sim::{Observer, RunOptions, Silent};

use crate::progress::Progress;

/// Receives the events of a traced run: number, virtual nanoseconds, hash so far, description.
pub type OnEvent<'a> = dyn FnMut(u64, u64, u64, &str) + 'a;

/// Shows progress, and passes events on.
struct Watcher<'a> {
    progress: &'a Progress,
    advice: Option<Advice>,
    story: Vec<Cause>,
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

    fn explained(&mut self, advice: Advice) {
        self.advice = Some(advice);
    }

    fn caused(&mut self, story: Vec<Cause>) {
        self.story = story;
    }

    fn event(&mut self, n: u64, at: u64, hash: u64, what: &str) {
        if let Some(on_event) = &mut self.on_event {
            on_event(n, at, hash, what);
        }
    }
}

/// Runs a scenario. An error is the panic of a machine, which is a bug in Skeg.
pub fn run(scenario: &Scenario, seed: u64, progress: &Progress) -> Result<Outcome, Crash> {
    let mut watcher = Watcher { progress, advice: None, story: Vec::new(), on_event: None };
    skeg_sim::run(scenario, seed, &RunOptions::default(), &mut watcher)
}

/// Runs a scenario, and says what the scheduler makes of a pod at its end.
pub fn run_explained(
    scenario: &Scenario,
    seed: u64,
    options: &RunOptions,
    progress: &Progress,
) -> (Result<Outcome, Crash>, Option<Advice>) {
    let mut watcher = Watcher { progress, advice: None, story: Vec::new(), on_event: None };
    let outcome = skeg_sim::run(scenario, seed, options, &mut watcher);
    (outcome, watcher.advice)
}

/// Runs a scenario, and says how its failure came about, if it fails.
pub fn run_for_causes(scenario: &Scenario, seed: u64, progress: &Progress) -> (Result<Outcome, Crash>, Vec<Cause>) {
    let mut watcher = Watcher { progress, advice: None, story: Vec::new(), on_event: None };
    let options = RunOptions { why: true, ..RunOptions::default() };
    let outcome = skeg_sim::run(scenario, seed, &options, &mut watcher);
    (outcome, watcher.story)
}

/// Runs a scenario and reports every event.
pub fn run_traced<'a>(
    scenario: &Scenario,
    seed: u64,
    progress: &'a Progress,
    on_event: &'a mut OnEvent<'a>,
) -> Result<Outcome, Crash> {
    let mut watcher = Watcher { progress, advice: None, story: Vec::new(), on_event: Some(on_event) };
    let options = RunOptions { trace: true, ..RunOptions::default() };
    skeg_sim::run(scenario, seed, &options, &mut watcher)
}

/// Runs a scenario up to a moment, and looks into its machines.
pub fn look(
    scenario: &Scenario,
    seed: u64,
    at: Duration,
    shows: &[Show],
    progress: &Progress,
) -> Result<Vec<Look>, Crash> {
    let mut watcher = Watcher { progress, advice: None, story: Vec::new(), on_event: None };
    skeg_sim::run::look(scenario, seed, at, shows, &mut watcher)
}

/// Runs a scenario without progress bar or trace.
pub fn run_quietly(scenario: &Scenario, seed: u64) -> Result<Outcome, Crash> {
    skeg_sim::run(scenario, seed, &RunOptions::default(), &mut Silent)
}

/// The longest virtual time that a run may take, for its progress bar.
pub fn longest(scenario: &Scenario) -> Duration {
    scenario.duration + scenario.settle
}
