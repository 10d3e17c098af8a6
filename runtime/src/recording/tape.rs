//! What the machines' thread does for a recording: it turns inputs and outputs into lines, and sends them on.
//!
//! Call order, for each input of a machine: [`Track::handle`], [`Track::timeout`] or [`Track::resign`] before the
//! machine is called, [`Track::decided`] after it; or [`Track::step`], which does all of it. If the machine panics in
//! between, its last input is written.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use serde::Serialize;
use serde_json::Value;
use skeg_core::agent::AgentConfig;
use skeg_core::controllers::TokenSigner;
use skeg_core::object::KindInfo;
use skeg_core::{Deadline, Kinds, Now, Rng};

use super::format::{Line, Machine, Of, Said, WHOLE, digest, mask};
use super::secrets::Secrets;
use super::writer::Recorder;
use crate::measured::Measured;

/// How many characters of an output that is written as a digest are written for readers.
const SHOWN: usize = 200;

/// The recording of the machines of one thread; without a recorder it does nothing. A clone is a handle to the same.
#[derive(Clone, Default)]
pub struct Tape(Option<Rc<RefCell<Inner>>>);

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tape").field(&self.0.is_some()).finish()
    }
}

struct Inner {
    recorder: Recorder,
    secrets: Secrets,
    kinds: Kinds,
    /// The custom kinds as they were written last.
    written: Vec<Rc<KindInfo>>,
    machines: u32,
    steps: u64,
    /// A step whose machine is deciding.
    open: Option<Open>,
}

struct Open {
    /// The line up to what has been decided.
    line: String,
    signed: Vec<String>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            self.recorder.send(open.line + "}}");
        }
    }
}

/// What is recorded of one machine.
#[derive(Clone, Debug, Default)]
pub struct Track {
    tape: Tape,
    number: u32,
    /// Whether what it says may hold what came from Secrets anywhere in its text.
    tells_secrets: bool,
}

impl Tape {
    /// Records machines of this registry of kinds; without a recorder, nothing.
    pub fn new(recorder: Option<Recorder>, kinds: Kinds) -> Tape {
        let inner = |recorder: Recorder| Inner {
            secrets: Secrets::new(recorder.key()),
            recorder,
            kinds,
            written: Vec::new(),
            machines: 0,
            steps: 0,
            open: None,
        };
        Tape(recorder.map(|recorder| Rc::new(RefCell::new(inner(recorder)))))
    }

    /// A machine begins. `make` says what it is; `stream` is that of its [`Rng`].
    pub fn machine(&self, name: &str, stream: (u64, &str, u64), make: impl FnOnce() -> Of) -> Track {
        let Some(inner) = &self.0 else { return Track::default() };
        let mut inner = inner.borrow_mut();
        let (number, of) = (inner.machines, make());
        inner.machines += 1;
        // What simulated containers get is not worked out.
        let tells_secrets = matches!(&of, Of::Agent(config) if config.resolve);
        let stream = (stream.0, stream.1.to_owned(), stream.2);
        inner.line(&Line::Machine(Box::new(Machine { number, name: name.to_owned(), stream, of })));
        drop(inner);
        Track { tape: self.clone(), number, tells_secrets }
    }

    /// The agent of a node, with its random numbers.
    pub fn agent(&self, config: &AgentConfig, (seed, stream, life): (u64, &str, u64)) -> (Track, Rng) {
        let name = format!("agent {}", config.node_name);
        let track = self.machine(&name, (seed, stream, life), || Of::Agent(config.clone()));
        (track, Rng::stream(seed, stream, life))
    }

    /// A signer whose tokens are recorded.
    pub fn signer(&self, signer: Rc<dyn TokenSigner>) -> Rc<dyn TokenSigner> {
        match &self.0 {
            Some(_) => Rc::new(Signer { signer, tape: self.clone() }),
            None => signer,
        }
    }
}

#[derive(Debug)]
struct Signer {
    signer: Rc<dyn TokenSigner>,
    tape: Tape,
}

impl TokenSigner for Signer {
    fn sign(&self, claims: &Value) -> String {
        let token = self.signer.sign(claims);
        if let Some(inner) = &self.tape.0 {
            let inner = &mut *inner.borrow_mut();
            if let Some(open) = &mut inner.open {
                open.signed.push(inner.secrets.of_text(&token));
            }
        }
        token
    }
}

impl Track {
    /// Its machine is about to handle this.
    pub fn handle(&self, now: Now, input: &impl Serialize) {
        self.begin(now, |inner| {
            let mut text = json(input);
            if self.concerns(inner, &text) {
                let mut value: Value = serde_json::from_str(&text).expect("it was just written");
                inner.secrets.hide(&mut value, self.tells_secrets);
                text = value.to_string();
            }
            format!("{{\"handle\":{text}}}")
        });
    }

    /// Its machine's time has come.
    pub fn timeout(&self, now: Now) {
        self.begin(now, |_| "\"timeout\"".to_owned());
    }

    /// Its machine is about to give up what it leads.
    pub fn resign(&self, now: Now) {
        self.begin(now, |_| "\"resign\"".to_owned());
    }

    /// Its machine is told what pods use, of which it hears when it asks; it wants to be woken as before.
    pub fn measured(&self, now: Now, measured: &Measured, next: Option<Deadline>) {
        self.begin(now, |_| format!("{{\"measured\":{}}}", json(measured)));
        self.decided::<()>(&[], next);
    }

    /// Its machine has decided this, and wants to be woken then.
    pub fn decided<O: Serialize>(&self, out: &[O], next: Option<Deadline>) {
        let Some(inner) = self.tape.0.as_ref() else { return };
        let inner = &mut *inner.borrow_mut();
        let Some(Open { mut line, signed }) = inner.open.take() else { return };
        let mut hidden = Vec::new();
        line += ",\"out\":[";
        for (n, out) in out.iter().enumerate() {
            if n > 0 {
                line.push(',');
            }
            line += &self.said(inner, json(out), n, &mut hidden);
        }
        line.push(']');
        if let Some(next) = next {
            line += &format!(",\"next\":{}", next.at.0);
        }
        if !signed.is_empty() {
            line += &format!(",\"signed\":{}", json(&signed));
        }
        if !hidden.is_empty() {
            line += &format!(",\"hidden\":{}", json(&hidden));
        }
        inner.recorder.send(line + "}}");
    }

    /// Gives its machine an input, or `None` if its time has come, and records both. Returns what it decided.
    pub fn step<M>(&self, machine: &mut M, now: Now, input: Option<M::In>) -> Vec<M::Out>
    where
        M: skeg_core::Machine<In: Serialize, Out: Serialize>,
    {
        let mut out = Vec::new();
        match input {
            Some(input) => {
                self.handle(now, &input);
                machine.handle(now, input, &mut out);
            }
            None => {
                self.timeout(now);
                machine.handle_timeout(now, &mut out);
            }
        }
        self.decided(&out, machine.poll_timeout());
        out
    }

    /// Whether a message has to be looked through for what is secret.
    fn concerns(&self, inner: &Inner, text: &str) -> bool {
        Secrets::concern(text) || self.tells_secrets && inner.secrets.are_known()
    }

    fn begin(&self, now: Now, input: impl FnOnce(&mut Inner) -> String) {
        let Some(inner) = self.tape.0.as_ref() else { return };
        let inner = &mut *inner.borrow_mut();
        if !inner.recorder.is_live() {
            return;
        }
        inner.note_kinds();
        inner.steps += 1;
        let (n, machine, mono, wall) = (inner.steps, self.number, now.mono.0, now.wall.0);
        let input = input(inner);
        let line =
            format!("{{\"step\":{{\"n\":{n},\"machine\":{machine},\"mono\":{mono},\"wall\":{wall},\"input\":{input}");
        inner.open = Some(Open { line, signed: Vec::new() });
    }

    /// An output as it is written.
    fn said(&self, inner: &mut Inner, text: String, n: usize, hidden: &mut Vec<(usize, String)>) -> String {
        let concerns = self.concerns(inner, &text);
        if !concerns && text.len() <= WHOLE {
            return format!("{{\"whole\":{text}}}");
        }
        let mut value: Value = serde_json::from_str(&text).expect("it was just written");
        let places = if concerns { inner.secrets.hide(&mut value, self.tells_secrets) } else { Vec::new() };
        let said = if text.len() <= WHOLE {
            json(&Said::Whole(value))
        } else {
            let clean = value.to_string();
            let begin = clean.chars().take(SHOWN).collect();
            let digest_of_all = digest(&value);
            mask(&mut value, places.iter().map(String::as_str));
            let rest = if places.is_empty() { String::new() } else { digest(&value) };
            json(&Said::Digest { digest: digest_of_all, rest, begin })
        };
        hidden.extend(places.into_iter().map(|place| (n, place)));
        said
    }
}

impl Inner {
    fn line(&self, line: &Line) {
        self.recorder.send(json(line));
    }

    /// Writes the custom kinds if they have changed.
    fn note_kinds(&mut self) {
        if self.kinds.take_changes(&mut self.written) {
            let all = self.written.iter().map(|info| (**info).clone()).collect();
            self.line(&Line::Kinds(all));
        }
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("messages are plain data")
}
