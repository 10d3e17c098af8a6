//! `skeg sim replay DIR`: makes the machines of a recording again, gives them their inputs, and compares what they
//! decide.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use skeg_core::agent::NodeAgent;
use skeg_core::apiserver::{self, ApiServer};
use skeg_core::controllers::{ControllerManager, ManagerConfig, TokenSigner};
use skeg_core::dns::ClusterDns;
use skeg_core::proxy::ServiceProxy;
use skeg_core::scheduler::SchedulerProcess;
use skeg_core::{Kinds, Machine as _, Mono, Now, Rng};
use skeg_sim::metrics::SimulatedMetrics;
use skeg_sim::report::shortened;

use super::format::{Input, Line, Machine, Of, Said, Step, WHOLE, digest, mask};
use super::reading;
use crate::Exit;
use crate::cli::Output;
use crate::measured::MeasuredMetrics;
use crate::progress::Progress;
use crate::terminal::emit;

/// How many inputs of a machine are shown before the first that it decides otherwise.
const CONTEXT: usize = 3;
/// How much of a value is shown.
const SHOWN: usize = 400;

/// Tokens that were signed in the recorded run, for the step that is replayed.
#[derive(Clone, Debug, Default)]
struct Signed(Rc<RefCell<VecDeque<String>>>);

impl TokenSigner for Signed {
    fn sign(&self, _claims: &Value) -> String {
        self.0.borrow_mut().pop_front().unwrap_or_default()
    }
}

enum Running {
    ApiServer(Box<ApiServer>),
    Controllers(Box<ControllerManager>, Rc<MeasuredMetrics>),
    Scheduler(Box<SchedulerProcess>),
    Agent(Box<NodeAgent>),
    Proxy(Box<ServiceProxy>),
    Names(Box<ClusterDns>),
}

/// What came of one machine.
#[derive(Serialize, Clone, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// The directory of the recording.
    pub recording: String,
    /// Its name.
    pub machine: String,
    /// How many inputs it was given.
    pub inputs: u64,
    /// How many outputs it had.
    pub decisions: u64,
    /// After how many inputs it decided otherwise than it was recorded.
    pub diverged: u64,
    /// After how many inputs it differed in nothing but what follows from the value of a Secret.
    pub excused: u64,
}

/// A decision that is not as it was recorded.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct Divergence {
    /// The machine.
    pub machine: String,
    /// The number of the step.
    pub step: u64,
    /// Its time, in seconds.
    pub at: f64,
    /// The inputs before it, and its own last.
    pub inputs: Vec<String>,
    /// What was recorded.
    pub recorded: String,
    /// What is decided now.
    pub now: String,
}

/// A place where a decision depends on the value of a Secret.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Excuse {
    /// The machine.
    pub machine: String,
    /// The number of the step.
    pub step: u64,
    /// Where in its outputs.
    pub places: Vec<String>,
}

/// What came of a replay.
#[derive(Serialize, Default, Debug)]
pub struct Replayed {
    /// The machines.
    pub machines: Vec<Tally>,
    /// The first decision that is not as it was recorded.
    pub first: Option<Divergence>,
    /// What was compared by digest because it follows from the value of a Secret, and differed.
    pub excused: Vec<Excuse>,
    /// What is remarkable about the files.
    pub notes: Vec<String>,
}

struct Player {
    machine: Running,
    tally: Tally,
    before: VecDeque<String>,
}

/// One recording that is being replayed.
struct Replay<'a> {
    kinds: Kinds,
    signed: Signed,
    players: BTreeMap<u32, Player>,
    result: &'a mut Replayed,
}

/// Replays the recordings in a directory and prints what came of it.
pub fn run(dir: &Path, output: Output) -> Result<Exit, String> {
    let result = all(dir)?;
    emit(&match output {
        Output::Json => serde_json::to_string(&result).expect("it is plain data") + "\n",
        Output::Text => text(&result),
    });
    Ok(if result.diverged() > 0 { Exit::Broken } else { Exit::Well })
}

/// Replays the recordings in a directory.
pub fn all(dir: &Path) -> Result<Replayed, String> {
    let recordings = reading::recordings(dir)?;
    let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |about| about.len());
    let progress = Progress::of_bytes(recordings.iter().flatten().map(size).sum());
    let mut result = Replayed::default();
    for files in &recordings {
        replay(files, &mut result, &progress)?;
    }
    progress.finish();
    Ok(result)
}

impl Replayed {
    /// How many decisions diverged.
    pub fn diverged(&self) -> u64 {
        self.machines.iter().map(|machine| machine.diverged).sum()
    }
}

fn replay(files: &[PathBuf], result: &mut Replayed, progress: &Progress) -> Result<(), String> {
    let recording = files[0].parent().unwrap_or(Path::new("")).display().to_string();
    let (kinds, signed, players) = (Kinds::default(), Signed::default(), BTreeMap::new());
    let mut replay = Replay { kinds, signed, players, result };
    let ended = reading::read(files, progress, |line| match line {
        Line::Machine(machine) => {
            replay.begin(*machine, &recording);
            Ok(())
        }
        Line::Kinds(all) => {
            all.into_iter().for_each(|info| {
                replay.kinds.register(info);
            });
            Ok(())
        }
        Line::Step(step) => replay.step(*step),
        Line::Header(_) | Line::End(_) => Ok(()),
    })?;
    let tallies: Vec<Tally> = replay.players.into_values().map(|player| player.tally).collect();
    result.machines.extend(tallies);
    result.notes.extend(reading::note(&recording, ended));
    Ok(())
}

impl Replay<'_> {
    fn begin(&mut self, machine: Machine, recording: &str) {
        let Machine { number, name, stream: (seed, stream, life), of } = machine;
        let (rng, kinds) = (Rng::stream(seed, &stream, life), self.kinds.clone());
        let machine = match of {
            Of::ApiServer(config) => {
                Running::ApiServer(Box::new(ApiServer::new(apiserver::Config { kinds, ..config }, rng)))
            }
            Of::Controllers { config, images, measured, signs } => {
                let told = Rc::new(MeasuredMetrics::default());
                let simulated = images.map(|images| Rc::new(SimulatedMetrics::of_images(images)) as Rc<_>);
                let metrics = if measured { Some(Rc::clone(&told) as Rc<_>) } else { simulated };
                let tokens = signs.then(|| Rc::new(self.signed.clone()) as Rc<dyn TokenSigner>);
                let config = ManagerConfig { autoscaling: Some(metrics), tokens, kinds, ..config };
                Running::Controllers(Box::new(ControllerManager::new(config, rng)), told)
            }
            Of::Scheduler(config) => Running::Scheduler(Box::new(SchedulerProcess::new(config, rng))),
            Of::Agent(config) => Running::Agent(Box::new(NodeAgent::new(config, rng))),
            Of::Proxy(config) => Running::Proxy(Box::new(ServiceProxy::new(config, rng))),
            Of::Names(config) => Running::Names(Box::new(ClusterDns::new(config, rng))),
        };
        let tally = Tally { recording: recording.to_owned(), machine: name, ..Tally::default() };
        self.players.insert(number, Player { machine, tally, before: VecDeque::new() });
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        let Step { n, machine, mono, wall, input, out, next, signed, hidden } = step;
        // The process ended while it was deciding, so there is nothing to compare.
        let Some(recorded) = out else { return Ok(()) };
        let Some(player) = self.players.get_mut(&machine) else {
            return Err(format!("step {n} is of machine {machine}, which has not begun"));
        };
        *self.signed.0.borrow_mut() = signed.into();
        remember(&mut player.before, &input);
        let now = Now { mono, wall };
        let (decided, woken) = player.machine.decide(now, input).map_err(|why| format!("step {n}: {why}"))?;
        player.tally.inputs += 1;
        player.tally.decisions += decided.len() as u64;
        let parting = part(&recorded, &decided, (next, woken), &hidden);
        match parting {
            Parting::None => {}
            Parting::Excused(places) => {
                player.tally.excused += 1;
                let machine = player.tally.machine.clone();
                self.result.excused.push(Excuse { machine, step: n, places });
            }
            Parting::At(recorded, decided) => {
                player.tally.diverged += 1;
                let machine = player.tally.machine.clone();
                let inputs = player.before.iter().cloned().collect();
                let divergence = || {
                    let at = mono.as_secs_f64();
                    Divergence { machine, step: n, at, inputs, recorded, now: decided }
                };
                self.result.first.get_or_insert_with(divergence);
            }
        }
        Ok(())
    }
}

fn remember(before: &mut VecDeque<String>, input: &Input) {
    before.push_back(match input {
        Input::Handle(value) => shortened(&value.to_string(), SHOWN),
        Input::Timeout => "its time has come".to_owned(),
        Input::Resign => "it is to give up what it leads".to_owned(),
        Input::Measured(measured) => format!("what {} pods use", measured.pods.len()),
    });
    if before.len() > CONTEXT + 1 {
        before.pop_front();
    }
}

impl Running {
    /// Gives the machine an input. Returns its outputs, and when it wants to be woken.
    fn decide(&mut self, now: Now, input: Input) -> Result<(Vec<Value>, Option<Mono>), String> {
        match self {
            Running::ApiServer(m) => drive(&mut **m, now, input, None),
            Running::Controllers(m, metrics) => match input {
                Input::Measured(measured) => {
                    metrics.tell(measured);
                    Ok((Vec::new(), m.poll_timeout().map(|deadline| deadline.at)))
                }
                input => drive(&mut **m, now, input, Some(ControllerManager::resign)),
            },
            Running::Scheduler(m) => drive(&mut **m, now, input, Some(SchedulerProcess::resign)),
            Running::Agent(m) => drive(&mut **m, now, input, None),
            Running::Proxy(m) => drive(&mut **m, now, input, None),
            Running::Names(m) => drive(&mut **m, now, input, None),
        }
    }
}

/// How a machine is told to give up what it leads.
type Resign<M> = fn(&mut M, Now, &mut Vec<<M as skeg_core::Machine>::Out>);

fn drive<M>(
    machine: &mut M,
    now: Now,
    input: Input,
    resign: Option<Resign<M>>,
) -> Result<(Vec<Value>, Option<Mono>), String>
where
    M: skeg_core::Machine<In: DeserializeOwned, Out: Serialize>,
{
    let mut out = Vec::new();
    match (input, resign) {
        (Input::Handle(value), _) => {
            let input = serde_json::from_value(value).map_err(|e| format!("its input cannot be read: {e}"))?;
            machine.handle(now, input, &mut out);
        }
        (Input::Timeout, _) => machine.handle_timeout(now, &mut out),
        (Input::Resign, Some(resign)) => resign(machine, now, &mut out),
        (Input::Resign, None) => return Err("this machine leads nothing that it could give up".to_owned()),
        (Input::Measured(_), _) => return Err("this machine asks nobody what pods use".to_owned()),
    }
    let out = out.iter().map(|out| serde_json::to_value(out).expect("messages are plain data")).collect();
    Ok((out, machine.poll_timeout().map(|deadline| deadline.at)))
}

/// Whether a decision is as it was recorded.
enum Parting {
    None,
    /// But for these places, which follow from the value of a Secret.
    Excused(Vec<String>),
    /// It was recorded, and it is.
    At(String, String),
}

fn part(
    recorded: &[Said],
    decided: &[Value],
    (next, woken): (Option<Mono>, Option<Mono>),
    hidden: &[(usize, String)],
) -> Parting {
    let mut places = Vec::new();
    for n in 0..recorded.len().max(decided.len()) {
        let (Some(said), Some(value)) = (recorded.get(n), decided.get(n)) else {
            let nothing = || "nothing more".to_owned();
            let said = recorded.get(n).map_or_else(nothing, show);
            return Parting::At(said, decided.get(n).map_or_else(nothing, |v| shortened(&v.to_string(), SHOWN)));
        };
        if said.is(value) {
            continue;
        }
        let own: Vec<&str> = hidden.iter().filter(|(of, _)| *of == n).map(|(_, place)| place.as_str()).collect();
        if own.is_empty() || !said.is_but_for(value, &own) {
            let (said, value) = apart(said, value);
            return Parting::At(said, value);
        }
        places.extend(own.iter().map(|place| format!("output {n}: {place}")));
    }
    match (next == woken, places.is_empty()) {
        (false, _) => {
            let wake =
                |at: Option<Mono>| at.map_or("not to be woken".to_owned(), |at| format!("to be woken at {at:?}"));
            Parting::At(wake(next), wake(woken))
        }
        (true, true) => Parting::None,
        (true, false) => Parting::Excused(places),
    }
}

impl Said {
    fn is(&self, value: &Value) -> bool {
        match self {
            Said::Whole(whole) => whole == value,
            Said::Digest { digest: of, .. } => *of == digest(value),
        }
    }

    /// Whether it is the value, whatever is at these places.
    fn is_but_for(&self, value: &Value, places: &[&str]) -> bool {
        let mut value = value.clone();
        mask(&mut value, places.iter().copied());
        match self {
            Said::Whole(whole) => {
                let mut whole = whole.clone();
                mask(&mut whole, places.iter().copied());
                whole == value
            }
            Said::Digest { rest, .. } => *rest == digest(&value),
        }
    }
}

fn show(said: &Said) -> String {
    match said {
        Said::Whole(value) => shortened(&value.to_string(), SHOWN),
        Said::Digest { begin, .. } => format!("{begin}… (more than {WHOLE} bytes, by digest)"),
    }
}

/// Two outputs that differ, from shortly before where they do.
fn apart(said: &Said, value: &Value) -> (String, String) {
    let Said::Whole(whole) = said else { return (show(said), shortened(&value.to_string(), SHOWN)) };
    let (a, b) = (whole.to_string(), value.to_string());
    let same =
        a.char_indices().zip(b.chars()).find(|((_, a), b)| a != b).map_or(a.len().min(b.len()), |((at, _), _)| at);
    let from = a[..same].char_indices().rev().nth(SHOWN / 4).map_or(0, |(at, _)| at);
    let tail = |text: &str| match from {
        0 => shortened(text, SHOWN),
        _ => format!("{} … {}", text.chars().take(SHOWN / 8).collect::<String>(), shortened(&text[from..], SHOWN)),
    };
    (tail(&a), tail(&b))
}

/// The result for readers.
fn text(result: &Replayed) -> String {
    let head = ["machine", "inputs", "decisions", "diverged", "excused"].map(str::to_owned);
    let numbers = |t: &Tally| [t.inputs, t.decisions, t.diverged, t.excused].map(|n| n.to_string());
    let several = result.machines.iter().any(|t| t.recording != result.machines[0].recording);
    let name = |t: &Tally| match (several, Path::new(&t.recording).file_name()) {
        (true, Some(of)) => format!("{}: {}", of.to_string_lossy(), t.machine),
        (_, _) => t.machine.clone(),
    };
    let row = |t: &Tally| {
        let [inputs, decisions, diverged, excused] = numbers(t);
        [name(t), inputs, decisions, diverged, excused]
    };
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(result.machines.iter().map(row)).collect();
    let widths: [usize; 5] = std::array::from_fn(|c| rows.iter().map(|row| row[c].chars().count()).max().unwrap_or(0));
    let mut out = String::new();
    for [name, numbers @ ..] in &rows {
        out += &format!("{name:<width$}", width = widths[0]);
        numbers.iter().zip(&widths[1..]).for_each(|(n, width)| out += &format!("  {n:>width$}"));
        out.push('\n');
    }
    out += &result.first.as_ref().map(first).unwrap_or_default();
    for Excuse { machine, step, places } in &result.excused {
        out += &format!("excused, follows from a Secret's value: {machine}, step {step}: {}\n", places.join(", "));
    }
    result.notes.iter().for_each(|note| out += &format!("note: {note}\n"));
    let sum = |of: fn(&Tally) -> u64| result.machines.iter().map(of).sum::<u64>();
    let (inputs, decisions, diverged) = (sum(|t| t.inputs), sum(|t| t.decisions), sum(|t| t.diverged));
    out + &format!("{inputs} inputs, {decisions} decisions, {diverged} diverging\n")
}

fn first(first: &Divergence) -> String {
    let Divergence { machine, step, at, inputs, recorded, now } = first;
    let mut out = format!("the first that diverges: {machine}, step {step} at {at:.6} s\n");
    for (n, input) in inputs.iter().enumerate() {
        let which = if n + 1 == inputs.len() { "input" } else { "before" };
        out += &format!("  {which}: {input}\n");
    }
    out + &format!("  recorded: {recorded}\n  now: {now}\n")
}
