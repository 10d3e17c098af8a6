//! `skeg sim explore`: many small runs, each drawn whole by its seed, until the time is up or the seeds are done.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use skeg_sim::explore;
use skeg_sim::explore::Coverage;
use skeg_sim::files::write;
use skeg_sim::scenario::Scenario;

use crate::campaign::{Campaign, Ran, Results};
use crate::cli::{ExploreArgs, Output};
use crate::disk::{Files, Recording};
use crate::progress::Progress;
use crate::run::{self, exit_of, load, load_quietly};
use crate::terminal::{emit, print};
use crate::{Exit, drive, machine};

/// Runs seeds on several threads, prints each that fails as it ends, and what was covered.
pub fn run(args: &ExploreArgs) -> Result<Exit, String> {
    let recording = Recording::default();
    if !args.files.is_empty() {
        load(&args.run_args(), &recording)?;
    }
    let files = recording.files();
    if let Some(seed) = args.seed {
        return one(args, &files, seed);
    }
    let time = args.campaign.time.or(args.seeds.is_none().then_some(MINUTE));
    let campaign = Campaign {
        args: &args.campaign,
        seeds: args.seeds.clone().unwrap_or(0..u64::MAX),
        until: time.map(|time| Instant::now() + time),
        output: args.output,
        quiet: args.quiet,
        again: &|seed| args.replay_command(seed),
    };
    let results = campaign.run(|| given(args, &files), |given, seed| explored(given.as_ref(), seed))?;
    report(args, &results);
    Ok(results.exit())
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

fn explored(given: Option<&Scenario>, seed: u64) -> Ran<Coverage> {
    let scenario = drawn(given, seed);
    let mut covered = Coverage::of(&scenario);
    let outcome = drive::run_quietly(&scenario, seed);
    if let Ok(outcome) = &outcome {
        covered.ran(outcome);
    }
    Ran::of(seed, &outcome, covered)
}

/// One seed, with the report that `skeg sim run` prints.
fn one(args: &ExploreArgs, files: &Files, seed: u64) -> Result<Exit, String> {
    let scenario = drawn(given(args, files).as_ref(), seed);
    if let Some(path) = &args.out {
        run::write(path, write::scenario(&scenario).as_bytes())?;
    }
    let progress = Progress::of_time(drive::longest(&scenario), args.quiet);
    let started = Instant::now();
    let outcome = drive::run(&scenario, seed, &progress);
    progress.finish();
    Ok(match outcome {
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
    })
}

fn report(args: &ExploreArgs, results: &Results<Coverage>) {
    let (simulated, events) = results.totals();
    let Results { all, wall, jobs } = results;
    let mut covered = Coverage::default();
    all.iter().for_each(|ran| covered.add(&ran.more));
    match args.output {
        Output::Text => {
            let rate = all.len() as f64 / wall.max(1e-3);
            let mut text = format!(
                "{} runs, {} failed; {simulated:.0} simulated seconds and {events} events in {wall:.1} s on {jobs} \
                 threads ({rate:.1} runs a second)\n",
                all.len(),
                results.failing().len(),
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
            let failures = results.failures(&|seed| args.replay_command(seed));
            let hashes: BTreeMap<u64, &str> = all.iter().map(|ran| (ran.seed, ran.hash.as_str())).collect();
            let groups: BTreeMap<_, _> = covered.groups().into_iter().collect();
            let object = json!({"runs": all.len(), "failed": failures.len(), "failures": failures, "hashes": hashes,
                "covered": groups, "never": covered.never(), "simulated_seconds": simulated, "events": events,
                "wall_seconds": wall, "jobs": jobs});
            emit(&format!("{object}\n"));
        }
    }
}
