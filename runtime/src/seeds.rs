//! `skeg sim run --seeds A..B`: the same input with many seeds on several threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use serde_json::json;
use skeg_sim::outcome::Outcome;

use crate::cli::{Output, RunArgs};
use crate::disk::Recording;
use crate::drive::Crash;
use crate::progress::Progress;
use crate::run::{exit_of, load, load_quietly, summary};
use crate::terminal::emit;
use crate::{Exit, drive, machine};

/// The part of a run's outcome that is kept.
struct SeedResult {
    seed: u64,
    exit: Exit,
    hash: String,
    line: String,
    simulated_seconds: f64,
    events: u64,
}

/// Runs every seed, prints each failed one as it ends, and then a summary. The order of lines depends on the threads;
/// the results do not.
pub fn run(args: &RunArgs) -> Result<Exit, String> {
    let recording = Recording::default();
    let warnings = load(args, &recording)?.warnings;
    let files = recording.files();
    let seeds = args.seeds.clone().expect("called with --seeds");
    let jobs = args.jobs.map_or_else(machine::cpus, |n| n as usize);
    let progress = Progress::of_runs(seeds.end - seeds.start, args.quiet);
    let started = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let (sender, receiver) = mpsc::channel();
    let mut results = std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (next, sender, files, end) = (&next, sender.clone(), &files, seeds.end);
            scope.spawn(move || {
                // Objects stay on the thread that created them, so each thread builds the scenario itself.
                let loaded = load_quietly(args, files).expect("files that were well are well again");
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // A send fails only if the receiver is gone, and then the whole command is ending.
                    if seed >= end || sender.send((seed, drive::run_quietly(&loaded.scenario, seed))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        collect(receiver, args, &progress)
    });
    progress.finish();
    results.sort_by_key(|r| r.seed);
    Ok(report(args, &warnings, &results, started.elapsed().as_secs_f64(), jobs))
}

fn collect(
    receiver: mpsc::Receiver<(u64, Result<Outcome, Crash>)>,
    args: &RunArgs,
    progress: &Progress,
) -> Vec<SeedResult> {
    let (mut results, mut failed): (Vec<SeedResult>, u64) = (Vec::new(), 0);
    for (seed, outcome) in receiver {
        let result = match outcome {
            Ok(o) => SeedResult {
                seed,
                exit: exit_of(&o),
                hash: o.event_hash.clone(),
                line: summary(&o),
                simulated_seconds: o.simulated_seconds,
                events: o.events,
            },
            // A panic is a bug in Skeg and is reported as one; it must not hide the results of the other seeds.
            Err(why) => SeedResult {
                seed,
                exit: Exit::Broken,
                hash: String::new(),
                line: format!("seed {seed}: {why}"),
                simulated_seconds: 0.0,
                events: 0,
            },
        };
        if result.exit != Exit::Well {
            failed += 1;
            if args.output == Output::Text {
                progress.print(&format!("FAILED {}\n       again: {}", result.line, args.replay_command(seed)));
            }
        }
        results.push(result);
        progress.done(results.len() as u64, failed);
    }
    results
}

fn report(args: &RunArgs, warnings: &[String], results: &[SeedResult], wall: f64, jobs: usize) -> Exit {
    let failing: Vec<&SeedResult> = results.iter().filter(|r| r.exit != Exit::Well).collect();
    let simulated: f64 = results.iter().map(|r| r.simulated_seconds).sum();
    let events: u64 = results.iter().map(|r| r.events).sum();
    match args.output {
        Output::Text => emit(&format!(
            "{} runs, {} failed; {:.0} simulated seconds and {events} events in {wall:.1} s on {jobs} threads\n",
            results.len(),
            failing.len(),
            simulated
        )),
        Output::Json => {
            let list: Vec<_> = failing
                .iter()
                .map(|r| json!({"seed": r.seed, "exit_code": r.exit as u8, "why": r.line, "again": args.replay_command(r.seed)}))
                .collect();
            let hashes: Vec<_> = results.iter().map(|r| json!({"seed": r.seed, "event_hash": r.hash})).collect();
            let object = json!({"runs": results.len(), "failed": failing.len(), "failures": list, "hashes": hashes,
                    "simulated_seconds": simulated, "events": events, "wall_seconds": wall, "jobs": jobs, "warnings": warnings,
                    "peak_rss_bytes": machine::peak_rss_bytes()});
            emit(&format!("{object}\n"));
        }
    }
    failing.iter().fold(Exit::Well, |worst, r| worst.worse(r.exit))
}
