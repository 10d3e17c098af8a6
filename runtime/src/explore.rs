//! `skeg sim explore`: many small runs, each drawn whole by its seed, until the time is up or the seeds are done.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::json;
use skeg_sim::explore;
use skeg_sim::explore::Coverage;
use skeg_sim::scenario::Scenario;

use crate::cli::{ExploreArgs, Output};
use crate::disk::{Files, Recording};
use crate::progress::Progress;
use crate::run::{exit_of, load, load_quietly, summary};
use crate::terminal::{emit, print};
use crate::{Exit, drive, machine};

/// What is kept of a run.
struct Explored {
    seed: u64,
    exit: Exit,
    hash: String,
    line: String,
    events: u64,
    simulated_seconds: f64,
    covered: Coverage,
}

/// Runs seeds on several threads, prints each that fails as it ends, and what was covered.
pub fn run(args: &ExploreArgs) -> Result<Exit, String> {
    let recording = Recording::default();
    if !args.files.is_empty() {
        load(&args.run_args(), &recording)?;
    }
    let files = recording.files();
    if let Some(seed) = args.seed {
        return Ok(one(args, &files, seed));
    }
    let jobs = args.jobs.map_or_else(machine::cpus, |n| n as usize);
    let seeds = args.seeds.clone().unwrap_or(0..u64::MAX);
    let until = Instant::now() + args.time.unwrap_or(if args.seeds.is_some() { Duration::MAX / 4 } else { MINUTE });
    let progress = Progress::of_runs(args.seeds.as_ref().map_or(0, |s| s.end - s.start), args.quiet);
    let (started, next) = (Instant::now(), AtomicU64::new(seeds.start));
    let (sender, receiver) = mpsc::channel();
    let mut all = std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (next, sender, files, end) = (&next, sender.clone(), &files, seeds.end);
            scope.spawn(move || {
                // Objects stay on the thread that makes them.
                let given = given(args, files);
                while Instant::now() < until {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // A send fails only when the receiver is gone, which ends the whole command.
                    if seed >= end || sender.send(explored(given.as_ref(), seed)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut all: Vec<Explored> = Vec::new();
        for one in receiver {
            if one.exit != Exit::Well && args.output == Output::Text {
                progress.print(&format!("FAILED {}\n       again: {}", one.line, args.replay_command(one.seed)));
            }
            all.push(one);
            progress.done(all.len() as u64, all.iter().filter(|e| e.exit != Exit::Well).count() as u64);
        }
        all
    });
    progress.finish();
    all.sort_by_key(|e| e.seed);
    Ok(report(args, &all, started.elapsed().as_secs_f64(), jobs))
}

/// How long it explores where nothing is said.
const MINUTE: Duration = Duration::from_secs(60);

/// The workload of the files, if there are any.
fn given(args: &ExploreArgs, files: &Files) -> Option<Scenario> {
    let loaded = || load_quietly(&args.run_args(), files).expect("files that were well are well again");
    (!args.files.is_empty()).then(|| loaded().scenario)
}

fn drawn(given: Option<&Scenario>, seed: u64) -> Scenario {
    given.map_or_else(|| explore::draw(seed), |given| explore::around(given, seed))
}

fn explored(given: Option<&Scenario>, seed: u64) -> Explored {
    let scenario = drawn(given, seed);
    let mut covered = Coverage::of(&scenario);
    match drive::run_quietly(&scenario, seed) {
        Ok(o) => {
            covered.ran(&o);
            let (exit, line) = (exit_of(&o), summary(&o));
            let (events, simulated_seconds) = (o.events, o.simulated_seconds);
            Explored { seed, exit, hash: o.event_hash, line, events, simulated_seconds, covered }
        }
        // A panic is a bug of ours, told as one; it must not hide what the other seeds say.
        Err(why) => Explored {
            seed,
            exit: Exit::Broken,
            hash: String::new(),
            line: format!("seed {seed}: {why}"),
            events: 0,
            simulated_seconds: 0.0,
            covered,
        },
    }
}

/// One seed, with the report that `skeg sim run` prints.
fn one(args: &ExploreArgs, files: &Files, seed: u64) -> Exit {
    let scenario = drawn(given(args, files).as_ref(), seed);
    let progress = Progress::of_time(drive::longest(&scenario), args.quiet);
    let started = Instant::now();
    let outcome = drive::run(&scenario, seed, &progress);
    progress.finish();
    match outcome {
        Ok(mut outcome) => {
            outcome.wall_seconds = started.elapsed().as_secs_f64();
            outcome.peak_rss_bytes = machine::peak_rss_bytes();
            print(&outcome, args.output, args.quiet);
            exit_of(&outcome)
        }
        Err(crash) => {
            eprintln!("error: {crash}\nThis is a bug of skeg. See it again: {}", args.replay_command(seed));
            Exit::Broken
        }
    }
}

fn report(args: &ExploreArgs, all: &[Explored], wall: f64, jobs: usize) -> Exit {
    let failing: Vec<&Explored> = all.iter().filter(|e| e.exit != Exit::Well).collect();
    let simulated: f64 = all.iter().map(|e| e.simulated_seconds).sum();
    let events: u64 = all.iter().map(|e| e.events).sum();
    let mut covered = Coverage::default();
    all.iter().for_each(|e| covered.add(&e.covered));
    match args.output {
        Output::Text => {
            let rate = all.len() as f64 / wall.max(1e-3);
            let mut text = format!(
                "{} runs, {} failed; {simulated:.0} simulated seconds and {events} events in {wall:.1} s on {jobs} \
                 threads ({rate:.1} runs a second)\n",
                all.len(),
                failing.len(),
            );
            for (what, counts) in covered.groups() {
                let list: Vec<String> = counts.iter().map(|(name, n)| format!("{name} {n}")).collect();
                text += &format!("  {what}: {}\n", if list.is_empty() { "none".to_owned() } else { list.join(", ") });
            }
            let never = covered.never();
            if !never.is_empty() && args.files.is_empty() {
                text += &format!("  never seen: {}\n", never.join(", "));
            }
            emit(&text);
        }
        Output::Json => {
            let failures: Vec<_> = failing
                .iter()
                .map(|e| json!({"seed": e.seed, "why": e.line, "again": args.replay_command(e.seed)}))
                .collect();
            let hashes: BTreeMap<u64, &str> = all.iter().map(|e| (e.seed, e.hash.as_str())).collect();
            let groups: BTreeMap<_, _> = covered.groups().into_iter().collect();
            let object = json!({"runs": all.len(), "failed": failing.len(), "failures": failures, "hashes": hashes,
                "covered": groups, "never": covered.never(), "simulated_seconds": simulated, "events": events,
                "wall_seconds": wall, "jobs": jobs});
            emit(&format!("{object}\n"));
        }
    }
    failing.iter().fold(Exit::Well, |worst, e| worst.worse(e.exit))
}
