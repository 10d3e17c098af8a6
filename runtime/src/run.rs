//! `skeg sim run`: one run.

use std::path::Path;
use std::time::Instant;

use skeg_sim::files::{self, Loaded, Source};
use skeg_sim::outcome::Outcome;
use skeg_sim::report;

use crate::cli::{Output, RunArgs};
use crate::disk::{Recording, explain};
use crate::drive::Crash;
use crate::progress::Progress;
use crate::terminal::{emit, print};
use crate::{Exit, drive, machine, trace};

/// Runs the scenario and prints the outcome.
pub fn run(args: &RunArgs) -> Result<Exit, String> {
    let recording = Recording::default();
    let loaded = load(args, &recording)?;
    check_writable(args.report.as_deref())?;
    check_writable(args.trace.as_deref())?;
    let scenario = &loaded.scenario;
    let progress = Progress::of_time(drive::longest(scenario), args.quiet);
    let started = Instant::now();
    let outcome = match &args.trace {
        Some(path) => trace::record(path, args, &recording, scenario, &progress),
        None => Ok(drive::run(scenario, args.seed, &progress)),
    };
    progress.finish();
    let mut outcome = match outcome? {
        Ok(outcome) => outcome,
        Err(crash) => return Ok(crashed(&crash, args)),
    };
    outcome.warnings.clone_from(&loaded.warnings);
    outcome.wall_seconds = started.elapsed().as_secs_f64();
    outcome.peak_rss_bytes = machine::peak_rss_bytes();
    if let Some(path) = &args.report {
        // The story of a failure needs what other runs do not keep, so that the run is played once more.
        let again = Progress::of_time(drive::longest(scenario), args.quiet);
        let fails = exit_of(&outcome) != Exit::Well;
        let story = if fails { drive::run_for_causes(scenario, args.seed, &again).1 } else { Vec::new() };
        again.finish();
        write(path, report::page(&outcome, &story).as_bytes())?;
    }
    print(&outcome, args.output, args.quiet);
    if exit_of(&outcome) != Exit::Well && args.output == Output::Text {
        emit(&format!("\nrun it again: {}\n", args.replay_command(args.seed)));
    }
    Ok(exit_of(&outcome))
}

/// Reports a panic as a bug in Skeg, with the command that reproduces it.
pub fn crashed(crash: &Crash, args: &RunArgs) -> Exit {
    eprintln!("error: {crash}\nThis is a bug of skeg. See it again: {}", args.replay_command(args.seed));
    Exit::Broken
}

/// Reads the files. What Skeg leaves out or cannot run is reported on standard error, or rejected with `--strict`.
pub fn load(args: &RunArgs, source: &dyn Source) -> Result<Loaded, String> {
    let loaded = load_quietly(args, source)?;
    if args.strict && !loaded.warnings.is_empty() {
        let lines: Vec<String> = loaded.warnings.iter().map(|w| format!("error: {w}")).collect();
        let advice = "error: --strict: the input asks for what is not carried out; leave --strict out to run the rest";
        return Err(format!("{}\n{advice}", lines.join("\n")));
    }
    if !args.quiet {
        loaded.notes.iter().for_each(|n| eprintln!("note: {n}"));
        loaded.warnings.iter().for_each(|w| eprintln!("warning: {w}"));
    }
    Ok(loaded)
}

/// Like `load`, but reports only errors.
pub fn load_quietly(args: &RunArgs, source: &dyn Source) -> Result<Loaded, String> {
    files::load(&args.files, source, &args.load_options()).map_err(|problems| problems.to_string())
}

/// An outcome in one line.
pub fn summary(o: &Outcome) -> String {
    let broken = o.invariants.iter().filter(|i| i.broken && i.name != CONVERGED);
    let mut why: Vec<String> = broken.map(|i| broken_line(o, &i.name)).collect();
    why.extend(o.not_converged.iter().map(|n| format!("{}: {}", n.what, n.why)));
    why.extend(o.expectations.iter().filter(|e| !e.met).map(|e| format!("unmet: {} (seen: {})", e.what, e.seen)));
    let verdict = match exit_of(o) {
        Exit::Well => "well",
        Exit::Broken => "an invariant broke",
        Exit::NotConverged if o.converged => "an expectation is not met",
        Exit::NotConverged | Exit::BadInput | Exit::Differs => "not converged",
    };
    let all = why.len() + o.not_converged_total.saturating_sub(o.not_converged.len());
    let more = if all > 3 { format!("; and {} more", all - 3) } else { String::new() };
    let why = if why.is_empty() { String::new() } else { format!(": {}{more}", why[..why.len().min(3)].join("; ")) };
    format!("seed {}, hash {}: {verdict}{why}", o.seed, o.event_hash)
}

fn broken_line(o: &Outcome, name: &str) -> String {
    let details = o.invariants.iter().find(|i| i.name == name).and_then(|i| i.details.first());
    details.map_or(name.to_owned(), |d| format!("{name} at {:.1} s: {}", d.at, d.what))
}

/// The invariant that is the same as [`Outcome::converged`], which has a separate exit code.
pub const CONVERGED: &str = "converged-and-kept";

/// The exit code of an outcome.
pub fn exit_of(o: &Outcome) -> Exit {
    if o.invariants.iter().any(|i| i.broken && i.name != CONVERGED) {
        Exit::Broken
    } else if !o.converged || o.expectations.iter().any(|e| !e.met) {
        Exit::NotConverged
    } else {
        Exit::Well
    }
}

/// Writes a file.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    std::fs::write(path, bytes).map_err(|e| file_error(path, &e))
}

/// Describes an error of the file system.
pub fn file_error(path: &Path, e: &std::io::Error) -> String {
    format!("error: {}: {}", path.display(), explain(e))
}

/// Checks that a file can be written before the run starts, because otherwise it is bad usage.
pub fn check_writable(path: Option<&Path>) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    let existed = path.exists();
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|e| file_error(path, &e))?;
    if !existed {
        // It is created again when there is something to write.
        std::fs::remove_file(path).map_err(|e| file_error(path, &e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Exit, exit_of, summary};
    use skeg_sim::outcome::{ExpectationResult, InvariantResult, NotConverged, Outcome};

    #[test]
    fn the_gravest_decides_the_exit_code() {
        let well = Outcome { converged: true, ..Outcome::default() };
        let unmet = Outcome { expectations: vec![ExpectationResult::default()], ..well.clone() };
        let not = NotConverged { what: "Deployment a/b".to_owned(), why: "1 of 2 ready".to_owned() };
        let slow = Outcome { not_converged: vec![not], ..Outcome::default() };
        let broken = InvariantResult { name: "capacity".to_owned(), broken: true, details: Vec::new() };
        let broken = Outcome { invariants: vec![broken], ..slow.clone() };
        for (outcome, exit) in
            [(&well, Exit::Well), (&unmet, Exit::NotConverged), (&slow, Exit::NotConverged), (&broken, Exit::Broken)]
        {
            assert_eq!(exit_of(outcome), exit);
        }
        assert_eq!(summary(&slow), "seed 0, hash : not converged: Deployment a/b: 1 of 2 ready");
        assert_eq!(Exit::NotConverged.worse(Exit::Broken), Exit::Broken);
        assert_eq!(Exit::Broken.worse(Exit::NotConverged), Exit::Broken);
    }
}
