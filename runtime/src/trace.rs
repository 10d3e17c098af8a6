//! Recorded runs: a trace contains everything that determines a run (files, options, seed) and all its events, so that
//! the run can be repeated anywhere and compared event by event.
//!
//! The format is text: a JSON object on the first line, then one line per event: its number, virtual nanoseconds, the
//! hash so far, and its description, including commits.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use skeg_sim::files::{self, LoadOptions, duration};
use skeg_sim::look::{Look, Show};
use skeg_sim::outcome::Outcome;
use skeg_sim::scenario::{FaultLevel, Scenario};

use crate::cli::{DiffArgs, Output, ReplayArgs, RunArgs};
use crate::disk::{Files, Recording};
use crate::drive::Crash;
use crate::progress::Progress;
use crate::run::{exit_of, file_error};
use crate::terminal::{emit, print};
use crate::{Exit, drive, machine};

/// Version of the format.
const FORMAT: u32 = 2;
/// Maximum length of the first line, which contains the files of a run.
const MAX_HEADER: u64 = 1 << 30;
/// How many events are shown before the first different one.
const CONTEXT: usize = 3;

/// Everything that determines a run.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Header {
    skeg_trace: u32,
    version: String,
    seed: u64,
    paths: Vec<String>,
    nodes: Option<usize>,
    zones: Option<usize>,
    duration: Option<String>,
    settle: Option<String>,
    faults: Option<String>,
    keep_bindings: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scheduler_config: Option<String>,
    #[serde(flatten)]
    files: Files,
}

fn level_name(level: FaultLevel) -> &'static str {
    match level {
        FaultLevel::None => "none",
        FaultLevel::Listed => "listed",
        FaultLevel::Light => "light",
        FaultLevel::Heavy => "heavy",
    }
}

impl Header {
    fn of(args: &RunArgs, recording: &Recording) -> Header {
        let options = args.load_options();
        Header {
            skeg_trace: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seed: args.seed,
            paths: args.files.clone(),
            nodes: options.nodes,
            zones: options.zones,
            duration: options.duration.map(duration::format),
            settle: options.settle.map(duration::format),
            faults: options.faults.map(|f| level_name(f).to_owned()),
            keep_bindings: options.keep_bindings,
            scheduler_config: options.scheduler_config,
            files: recording.files(),
        }
    }

    fn options(&self) -> LoadOptions {
        LoadOptions {
            nodes: self.nodes,
            zones: self.zones,
            duration: self.duration.as_deref().and_then(duration::parse),
            settle: self.settle.as_deref().and_then(duration::parse),
            faults: self.faults.as_deref().and_then(files::scenario::fault_level),
            keep_bindings: self.keep_bindings,
            scheduler_config: self.scheduler_config.clone(),
        }
    }
}

/// Runs the scenario and records it.
pub fn record(
    path: &Path,
    args: &RunArgs,
    recording: &Recording,
    scenario: &Scenario,
    progress: &Progress,
) -> Result<Result<Outcome, Crash>, String> {
    let file = File::create(path).map_err(|e| file_error(path, &e))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let header = serde_json::to_string(&Header::of(args, recording)).expect("a header is plain data");
    let mut failed = writeln!(out, "{header}").err();
    let mut write = |n: u64, at: u64, hash: u64, what: &str| {
        if failed.is_none() {
            failed = writeln!(out, "{}", event_line(n, at, hash, what)).err();
        }
    };
    let outcome = drive::run_traced(scenario, args.seed, progress, &mut write);
    if let Some(e) = failed.or_else(|| out.flush().err()) {
        return Err(file_error(path, &e));
    }
    Ok(outcome)
}

fn event_line(n: u64, at: u64, hash: u64, what: &str) -> String {
    // An event is one line, whatever its text contains.
    format!("{n} {at} {hash:016x} {}", what.replace(['\n', '\r'], " "))
}

/// A trace that is being read.
struct Trace {
    name: String,
    lines: BufReader<File>,
    header: Header,
}

impl Trace {
    fn open(path: &Path) -> Result<Trace, String> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| file_error(path, &e))?;
        let mut lines = BufReader::with_capacity(1 << 20, file);
        let mut first = Vec::new();
        let read = lines.by_ref().take(MAX_HEADER).read_until(b'\n', &mut first);
        read.map_err(|e| file_error(path, &e))?;
        let no_trace = |why: &str| format!("error: {name}: it is not a trace that `skeg sim run --trace` wrote: {why}");
        let header: Header = serde_json::from_slice(&first).map_err(|e| no_trace(&e.to_string()))?;
        if header.skeg_trace != FORMAT {
            let (theirs, ours) = (header.skeg_trace, FORMAT);
            return Err(no_trace(&format!("its format is {theirs}, this version reads {ours}")));
        }
        Ok(Trace { name, lines, header })
    }

    /// The next event; `None` at the end.
    fn next(&mut self) -> Result<Option<String>, String> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).map_err(|e| format!("error: {}: {e}", self.name))?;
        Ok((read > 0).then(|| line.trim_end_matches('\n').to_owned()))
    }
}

/// Where two sequences of events diverge.
struct Parting {
    before: VecDeque<String>,
    first: Option<String>,
    second: Option<String>,
}

/// `skeg sim replay`: repeats a recorded run and compares it.
pub fn replay(args: &ReplayArgs) -> Result<Exit, String> {
    if args.trace.is_dir() {
        let name = args.trace.display();
        return Err(format!(
            "error: {name}: it is the recording of a real run; --until and --show look into a trace that `skeg sim run \
             --trace` wrote"
        ));
    }
    let mut trace = Trace::open(&args.trace)?;
    let header = &trace.header;
    let loaded = files::load(&header.paths, &header.files, &header.options()).map_err(|p| p.to_string())?;
    if header.version != env!("CARGO_PKG_VERSION") {
        eprintln!("note: recorded by version {}, this is {}", header.version, env!("CARGO_PKG_VERSION"));
    }
    let (seed, scenario) = (header.seed, loaded.scenario);
    if let Some(until) = args.until {
        return look(args, &scenario, seed, until);
    }
    let progress = Progress::of_time(drive::longest(&scenario), false);
    let started = Instant::now();
    let (mut parting, mut trouble, mut before) = (None, None, VecDeque::new());
    let mut compare = |n: u64, at: u64, hash: u64, what: &str| {
        if parting.is_some() || trouble.is_some() {
            return;
        }
        let now = event_line(n, at, hash, what);
        match trace.next() {
            Ok(recorded) if recorded.as_ref() == Some(&now) => keep(&mut before, now),
            Ok(first) => parting = Some(Parting { before: before.clone(), first, second: Some(now) }),
            Err(why) => trouble = Some(why),
        }
    };
    let outcome = drive::run_traced(&scenario, seed, &progress, &mut compare);
    progress.finish();
    if let Some(why) = trouble {
        return Err(why);
    }
    if parting.is_none()
        && let Some(first) = trace.next()?
    {
        parting = Some(Parting { before, first: Some(first), second: None });
    }
    let mut outcome = match outcome {
        Ok(outcome) => outcome,
        // The recorded run may have crashed; then this is the same crash.
        Err(crash) => {
            eprintln!("error: {crash}");
            return Ok(Exit::Broken);
        }
    };
    outcome.warnings = loaded.warnings;
    outcome.wall_seconds = started.elapsed().as_secs_f64();
    outcome.peak_rss_bytes = machine::peak_rss_bytes();
    print(&outcome, args.output, false);
    match parting {
        Some(parting) => {
            eprintln!("error: {}: the run went another way than it was recorded", args.trace.display());
            eprint!("{}", show(&parting, "recorded", "now"));
            Ok(Exit::Broken)
        }
        None => {
            eprintln!("replayed {} events to the same hash {}", outcome.events, outcome.event_hash);
            Ok(exit_of(&outcome))
        }
    }
}

/// Runs a recorded run again up to a moment, and shows what its machines have then.
fn look(args: &ReplayArgs, scenario: &Scenario, seed: u64, until: Duration) -> Result<Exit, String> {
    let progress = Progress::of_time(until, false);
    let shows: Result<Vec<Show>, String> = args.show.iter().map(|show| show.parse()).collect();
    let looks = drive::look(scenario, seed, until, &shows?, &progress);
    progress.finish();
    let looks = looks.map_err(|crash| format!("error: {crash}"))?;
    if let Some(first) = looks.first().filter(|look| look.at < until.as_secs_f64()) {
        let name = args.trace.display();
        return Err(format!("error: {name}: the run ends at {:.3} s; give an earlier --until", first.at));
    }
    emit(&match args.output {
        Output::Text => looks.iter().map(Look::text).collect::<Vec<_>>().join("\n"),
        Output::Json => serde_json::Value::from(looks.iter().map(Look::json).collect::<Vec<_>>()).to_string() + "\n",
    });
    Ok(Exit::Well)
}

fn keep(before: &mut VecDeque<String>, event: String) {
    before.push_back(event);
    if before.len() > CONTEXT {
        before.pop_front();
    }
}

/// `skeg sim diff`: the first event where two traces differ.
pub fn diff(args: &DiffArgs) -> Result<Exit, String> {
    let (mut a, mut b) = (Trace::open(&args.a)?, Trace::open(&args.b)?);
    for line in header_differences(&a.header, &b.header) {
        emit(&format!("{line}\n"));
    }
    let (mut before, mut same) = (VecDeque::new(), 0u64);
    loop {
        match (a.next()?, b.next()?) {
            (None, None) => {
                emit(&format!("the runs are the same: {same} events\n"));
                return Ok(Exit::Well);
            }
            (Some(x), Some(y)) if without_hash(&x) == without_hash(&y) => {
                same += 1;
                keep(&mut before, x);
            }
            (first, second) => {
                let parting = Parting { before, first, second };
                emit(&format!("the runs part after {same} equal events:\n{}", show(&parting, "A", "B")));
                return Ok(Exit::Differs);
            }
        }
    }
}

/// An event without the hash, which depends on all earlier events and on the seed.
fn without_hash(line: &str) -> (&str, &str) {
    let mut parts = line.splitn(4, ' ');
    let (_, at, _) = (parts.next(), parts.next().unwrap_or(""), parts.next());
    (at, parts.next().unwrap_or(""))
}

fn header_differences(a: &Header, b: &Header) -> Vec<String> {
    let as_map = |h: &Header| match serde_json::to_value(h) {
        Ok(serde_json::Value::Object(map)) => map,
        other => panic!("a header is an object: {other:?}"),
    };
    let (a, b) = (as_map(a), as_map(b));
    let differs = a.iter().filter(|(key, value)| b.get(*key) != Some(*value));
    let tell = |(key, value): (&String, &serde_json::Value)| match key.as_str() {
        "files" | "directories" => "the input files differ".to_owned(),
        _ => format!("{key} differs: {value} and {}", b[key]),
    };
    differs.map(tell).collect()
}

fn show(parting: &Parting, first: &str, second: &str) -> String {
    let mut out = String::new();
    for line in &parting.before {
        out += &format!("  both: {}\n", readable(line));
    }
    for (name, line) in [(first, &parting.first), (second, &parting.second)] {
        let text = line.as_deref().map_or("the end of the run".to_owned(), readable);
        out += &format!("  {name}: {text}\n");
    }
    out
}

/// An event with its time in seconds.
fn readable(line: &str) -> String {
    let mut parts = line.splitn(4, ' ');
    let (n, at, hash, what) = (parts.next(), parts.next(), parts.next(), parts.next());
    match (n, at.and_then(|a| a.parse::<u64>().ok()), hash, what) {
        (Some(n), Some(at), Some(hash), Some(what)) => {
            format!("event {n} at {:.6} s, {what} (hash {hash})", at as f64 / 1e9)
        }
        _ => line.to_owned(),
    }
}
