//! `skeg sim run --seeds A..B`: the same input with many seeds on several threads.

use std::time::Instant;

use serde_json::json;

use crate::campaign::{Campaign, Ran, Results};
use crate::cli::{Output, RunArgs};
use crate::disk::Recording;
use crate::run::{load, load_quietly};
use crate::terminal::emit;
use crate::{Exit, drive, machine};

/// Runs every seed, prints each failed one as it ends, and then a summary.
pub fn run(args: &RunArgs) -> Result<Exit, String> {
    let recording = Recording::default();
    let warnings = load(args, &recording)?.warnings;
    let files = recording.files();
    let campaign = Campaign {
        args: &args.campaign,
        seeds: args.seeds.clone().expect("called with --seeds"),
        until: args.campaign.time.map(|time| Instant::now() + time),
        output: args.output,
        quiet: args.quiet,
        again: &|seed| args.replay_command(seed),
    };
    let start = || load_quietly(args, &files).expect("files that were well are well again");
    let results = campaign.run(start, |loaded, seed| Ran::of(seed, &drive::run_quietly(&loaded.scenario, seed), ()))?;
    report(args, &warnings, &results);
    Ok(results.exit())
}

fn report(args: &RunArgs, warnings: &[String], results: &Results<()>) {
    let (simulated, events) = results.totals();
    let Results { all, wall, jobs } = results;
    match args.output {
        Output::Text => emit(&format!(
            "{} runs, {} failed; {simulated:.0} simulated seconds and {events} events in {wall:.1} s on {jobs} threads\n",
            all.len(),
            results.failing().len(),
        )),
        Output::Json => {
            let hashes: Vec<_> = all.iter().map(|r| json!({"seed": r.seed, "event_hash": r.hash})).collect();
            let failures = results.failures(&|seed| args.replay_command(seed));
            let object = json!({"runs": all.len(), "failed": failures.len(), "failures": failures, "hashes": hashes,
                    "simulated_seconds": simulated, "events": events, "wall_seconds": wall, "jobs": jobs,
                    "warnings": warnings, "peak_rss_bytes": machine::peak_rss_bytes()});
            emit(&format!("{object}\n"));
        }
    }
}
