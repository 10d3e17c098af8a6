//! A campaign: the runs of many seeds on several threads. What comes of each seed depends on the seed alone; only the
//! order in which failures are printed depends on the threads.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use serde_json::{Value, json};
use skeg_sim::outcome::Outcome;

use crate::cli::{CampaignArgs, Output};
use crate::drive::Crash;
use crate::progress::Progress;
use crate::run::{exit_of, summary, write};
use crate::{Exit, junit, machine};

/// What is run, and how it is told.
pub struct Campaign<'a> {
    /// What is asked for by arguments.
    pub args: &'a CampaignArgs,
    /// The seeds to run.
    pub seeds: Range<u64>,
    /// When to start no further run; `None` if only the seeds end it.
    pub until: Option<Instant>,
    /// How results are printed.
    pub output: Output,
    /// Whether only the result is printed.
    pub quiet: bool,
    /// The command line that runs one seed again.
    pub again: &'a (dyn Fn(u64) -> String + Sync),
}

/// What is kept of a run. `more` is what one kind of campaign keeps besides.
pub struct Ran<T> {
    pub seed: u64,
    pub exit: Exit,
    /// The invariants that broke; a panic counts as one.
    pub broken: Vec<String>,
    pub hash: String,
    /// The outcome in one line.
    pub line: String,
    pub simulated_seconds: f64,
    pub events: u64,
    pub more: T,
}

impl<T> Ran<T> {
    /// What is kept of an outcome.
    pub fn of(seed: u64, outcome: &Result<Outcome, Crash>, more: T) -> Ran<T> {
        match outcome {
            Ok(o) => Ran {
                seed,
                exit: exit_of(o),
                broken: o.invariants.iter().filter(|i| i.broken).map(|i| i.name.clone()).collect(),
                hash: o.event_hash.clone(),
                line: summary(o),
                simulated_seconds: o.simulated_seconds,
                events: o.events,
                more,
            },
            // A panic is a bug in Skeg and is reported as one; it must not hide the results of the other seeds.
            Err(why) => Ran {
                seed,
                exit: Exit::Broken,
                broken: vec!["a panic".to_owned()],
                hash: String::new(),
                line: format!("seed {seed}: {why}"),
                simulated_seconds: 0.0,
                events: 0,
                more,
            },
        }
    }
}

/// The results of a campaign, by seed.
pub struct Results<T> {
    pub all: Vec<Ran<T>>,
    pub wall: f64,
    pub jobs: usize,
}

impl Campaign<'_> {
    /// Runs the seeds. `start` is called once on each thread, because objects stay on the thread that creates them.
    pub fn run<S, T: Send>(
        &self,
        start: impl Fn() -> S + Sync,
        one: impl Fn(&S, u64) -> Ran<T> + Sync,
    ) -> Result<Results<T>, String> {
        let jobs = self.args.jobs.map_or_else(machine::cpus, |n| n as usize);
        let endless = self.seeds.end == u64::MAX;
        let progress = Progress::of_runs(if endless { 0 } else { self.seeds.end - self.seeds.start }, self.quiet);
        let started = Instant::now();
        let (next, ended) = (AtomicU64::new(self.seeds.start), AtomicBool::new(false));
        let (sender, receiver) = mpsc::channel();
        let mut all = std::thread::scope(|scope| {
            for _ in 0..jobs {
                let (next, ended, sender, start, one) = (&next, &ended, sender.clone(), &start, &one);
                scope.spawn(move || {
                    let state = start();
                    while !ended.load(Ordering::Relaxed) && self.until.is_none_or(|until| Instant::now() < until) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        // A send fails only if the receiver is gone, and then the whole command is ending.
                        if seed >= self.seeds.end || sender.send(one(&state, seed)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            self.collect(receiver, &ended, &progress)
        });
        progress.finish();
        all.sort_by_key(|ran| ran.seed);
        let results = Results { all, wall: started.elapsed().as_secs_f64(), jobs };
        if let Some(path) = &self.args.junit {
            self.write_junit(path, &results)?;
        }
        Ok(results)
    }

    fn collect<T>(&self, receiver: mpsc::Receiver<Ran<T>>, ended: &AtomicBool, progress: &Progress) -> Vec<Ran<T>> {
        let (mut all, mut failed): (Vec<Ran<T>>, u64) = (Vec::new(), 0);
        for ran in receiver {
            if ran.exit != Exit::Well {
                failed += 1;
                ended.fetch_or(self.args.fail_fast, Ordering::Relaxed);
                if self.output == Output::Text {
                    self.tell(&ran, progress);
                }
            }
            all.push(ran);
            progress.done(all.len() as u64, failed);
        }
        all
    }

    /// Prints a failure, in GitHub's workflow also as an annotation.
    fn tell<T>(&self, ran: &Ran<T>, progress: &Progress) {
        let again = (self.again)(ran.seed);
        progress.print(&format!("FAILED {}\n       again: {again}", ran.line));
        if machine::is_github_workflow() {
            // Source: https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
            let escaped = format!("{}; again: {again}", ran.line).replace('%', "%25").replace('\n', "%0A");
            progress.print(&format!("::error title=seed {} failed::{escaped}", ran.seed));
        }
    }

    fn write_junit<T>(&self, path: &Path, results: &Results<T>) -> Result<(), String> {
        let cases = results.all.iter().map(|ran| junit::Case {
            name: format!("seed {}", ran.seed),
            failure: (ran.exit != Exit::Well).then(|| (ran.line.clone(), format!("again: {}", (self.again)(ran.seed)))),
        });
        write(path, junit::suite("skeg sim", results.wall, cases).as_bytes())
    }
}

impl<T> Results<T> {
    /// The runs that failed.
    pub fn failing(&self) -> Vec<&Ran<T>> {
        self.all.iter().filter(|ran| ran.exit != Exit::Well).collect()
    }

    /// The worst exit code.
    pub fn exit(&self) -> Exit {
        self.all.iter().fold(Exit::Well, |worst, ran| worst.worse(ran.exit))
    }

    /// Virtual seconds and events of all runs.
    pub fn totals(&self) -> (f64, u64) {
        (self.all.iter().map(|ran| ran.simulated_seconds).sum(), self.all.iter().map(|ran| ran.events).sum())
    }

    /// The failed runs, for `--output json`.
    pub fn failures(&self, again: &dyn Fn(u64) -> String) -> Vec<Value> {
        let failure = |ran: &&Ran<T>| {
            json!({"seed": ran.seed, "exit_code": ran.exit as u8, "broken": ran.broken, "why": ran.line,
                "again": again(ran.seed)})
        };
        self.failing().iter().map(failure).collect()
    }
}
