//! `skeg sim arrivals`: the arrival of a trace's pods under several policies for sharing GPUs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use skeg_core::scheduler::gpu::Policy;
use skeg_sim::arrivals::{Outcome, Study, Trace, play};
use skeg_sim::files::openb::read;
use skeg_sim::report::{arrivals_page, arrivals_text};

use crate::cli::{ArrivalsArgs, Output};
use crate::disk::Disk;
use crate::progress::Progress;
use crate::run::{check_writable, write};
use crate::terminal::emit;
use crate::{Exit, machine};

/// Runs every policy with every seed, and prints what was not allocated.
pub fn run(args: &ArrivalsArgs) -> Result<Exit, String> {
    let trace = read(&args.nodes, &args.pods, &Disk)?;
    check_writable(args.report.as_deref())?;
    let policies = if args.policy.is_empty() { Policy::ALL.to_vec() } else { args.policies() };
    let each = policies.iter().flat_map(|policy| args.seeds.clone().map(move |seed| (*policy, seed)));
    let runs = run_all(&trace, args, &each.collect::<Vec<_>>());
    let study = Study::new(&trace, args.arrivals, runs);
    if let Some(path) = &args.report {
        write(path, arrivals_page(&study).as_bytes())?;
    }
    emit(&match args.output {
        Output::Json => serde_json::to_string(&study).expect("a study is plain data") + "\n",
        Output::Text => arrivals_text(&study),
    });
    Ok(Exit::Well)
}

/// The outcomes, in the order of what is run, on several threads.
fn run_all(trace: &Trace, args: &ArrivalsArgs, all: &[(Policy, u64)]) -> Vec<Outcome> {
    let jobs = args.jobs.map_or_else(machine::cpus, |jobs| jobs as usize).min(all.len());
    let progress = Progress::of_runs(all.len() as u64, args.quiet);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some((i, (policy, seed))) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, all.get(i)?)))
                {
                    let outcome = play(trace, *policy, args.arrivals, *seed);
                    let mut done = done.lock().expect("no run panics while it holds the lock");
                    done.push((i, outcome));
                    progress.done(done.len() as u64, 0);
                }
            });
        }
    });
    progress.finish();
    let mut done = done.into_inner().expect("all threads have ended");
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}
