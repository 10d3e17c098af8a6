//! `skeg sim shrink`: makes a small scenario file of a failing seed. It fails in the same way.

use std::time::Instant;

use skeg_sim::explore;
use skeg_sim::fault;
use skeg_sim::files::write;
use skeg_sim::outcome::Outcome;
use skeg_sim::scenario::{FaultLevel, Scenario};
use skeg_sim::shrink::shrink;

use crate::Exit;
use crate::cli::{FailedArgs, ShrinkArgs};
use crate::disk::Recording;
use crate::drive::{self, Crash};
use crate::progress::Progress;
use crate::run;
use crate::terminal::emit;

/// Shrinks the run of a seed and writes the result.
pub fn run(args: &ShrinkArgs) -> Result<Exit, String> {
    let mut scenario = scenario(&args.failed)?;
    if !args.failed.files.is_empty() && !args.failed.explored {
        scenario = listed(scenario, args.failed.seed);
    }
    let started = Instant::now();
    let Some(failure) = failure_of(&drive::run_quietly(&scenario, args.failed.seed)) else {
        return Err(format!(
            "error: seed {}: it does not fail, so there is nothing to shrink; give the FILEs and options of the run that \
             failed",
            args.failed.seed
        ));
    };
    let progress = Progress::of_attempts(args.failed.quiet);
    let mut runs = 1;
    let least = shrink(&scenario, &mut |next| {
        if started.elapsed() > args.time {
            return false;
        }
        runs += 1;
        progress.done(runs, 0);
        failure_of(&drive::run_quietly(next, args.failed.seed)).as_ref() == Some(&failure)
    });
    progress.finish();
    let text = write::scenario(&least);
    let nodes = |s: &Scenario| s.cluster.pools.iter().map(|pool| pool.count).sum::<usize>();
    let summary = format!(
        "{}: {} of {} steps and {} of {} nodes are left, after {runs} runs in {:.1} s",
        failure.what,
        least.timeline.len(),
        scenario.timeline.len(),
        nodes(&least),
        nodes(&scenario),
        started.elapsed().as_secs_f64()
    );
    match &args.out {
        Some(path) => {
            run::write(path, text.as_bytes())?;
            emit(&format!("{summary}\nagain: skeg sim run {} --seed {}\n", path.display(), args.failed.seed));
        }
        None => emit(&format!("# {summary}\n# again: skeg sim run FILE --seed {}\n{text}", args.failed.seed)),
    }
    Ok(Exit::Well)
}

/// The scenario of the run that failed.
pub fn scenario(args: &FailedArgs) -> Result<Scenario, String> {
    if args.files.is_empty() {
        return Ok(explore::draw(args.seed));
    }
    let given = run::load(&args.run_args(), &Recording::default())?.scenario;
    Ok(if args.explored { explore::around(&given, args.seed) } else { given })
}

/// The same scenario with its drawn faults as steps, and without its expectations.
fn listed(mut scenario: Scenario, seed: u64) -> Scenario {
    let drawn = fault::draw(&scenario, seed);
    if scenario.faults != FaultLevel::None {
        scenario.faults = FaultLevel::Listed;
    }
    scenario.timeline.extend(drawn);
    scenario.timeline.sort_by_key(|step| step.at);
    scenario.expectations.clear();
    scenario
}

/// A way to fail.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Failure {
    /// The first invariant that was broken, or a panic.
    what: String,
    /// Why what was declared is not reached: many causes break that one invariant.
    why: Vec<String>,
}

/// How a run failed; `None` if it did not.
fn failure_of(outcome: &Result<Outcome, Crash>) -> Option<Failure> {
    match outcome {
        Ok(outcome) => outcome.invariants.iter().find(|i| i.broken).map(|broken| Failure {
            what: broken.name.clone(),
            why: match broken.name == run::CONVERGED {
                true => broken.details.first().map(|first| words(&first.what)).unwrap_or_default(),
                false => Vec::new(),
            },
        }),
        Err(_) => Some(Failure { what: "a panic".to_owned(), why: Vec::new() }),
    }
}

/// The words of a reason without names and numbers, which change as a scenario shrinks.
fn words(reason: &str) -> Vec<String> {
    let is_word = |word: &&str| !word.contains(|c: char| c.is_ascii_digit() || matches!(c, '-' | '/'));
    reason.split_whitespace().filter(is_word).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn what_changes_as_a_scenario_shrinks_is_no_part_of_the_reason() {
        let of = |replicas: u32, pod: &str, why: &str| {
            words(&format!("StatefulSet default/set: {replicas} wanted: {replicas} ready; pod {pod} waits: {why}"))
        };
        assert_eq!(of(3, "set-0-1", "PodInitializing"), of(1, "set-0-0", "PodInitializing"));
        assert_ne!(of(3, "set-0-1", "PodInitializing"), of(3, "set-0-1", "Unschedulable"));
    }
}
