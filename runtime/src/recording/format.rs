//! The format of recordings: a directory for each process, with files of lines, each line one JSON object of one field.
//! Every file begins with a header; the lines of all files in the order of their names are one sequence.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use skeg_core::agent::AgentConfig;
use skeg_core::apiserver;
use skeg_core::controllers::ManagerConfig;
use skeg_core::dns::DnsConfig;
use skeg_core::object::KindInfo;
use skeg_core::proxy::ProxyConfig;
use skeg_core::random::mix_bytes;
use skeg_core::scheduler::SchedulerConfig;
use skeg_core::{Mono, Wall};
use skeg_sim::scenario::ImageProfile;

use crate::measured::Measured;

/// Version of the format.
pub const FORMAT: u32 = 1;
/// What names of files end with.
pub const EXTENSION: &str = "jsonl";
/// An output whose text is longer than this is written as a digest.
pub const WHOLE: usize = 16 << 10;

/// The first line of a file.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Header {
    /// [`FORMAT`].
    pub skeg_recording: u32,
    /// The version of Skeg that wrote it.
    pub version: String,
    /// What the process was: `up`, `server` or `agent`.
    pub process: String,
    /// The number of the file, counted from one.
    pub part: u32,
}

/// A line.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The beginning of a file.
    Header(Header),
    /// A machine begins.
    Machine(Box<Machine>),
    /// The custom kinds that are known from here on, in the order of their numbers.
    Kinds(Vec<KindInfo>),
    /// A machine was given an input.
    Step(Box<Step>),
    /// Nothing follows, for this reason. A process that was killed leaves no such line.
    End(Ended),
}

/// Why a recording ends.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The process ended.
    Stopped,
    /// The files have reached their limit.
    Limit,
    /// The disk did not keep up.
    Slow,
}

/// What a machine is made from.
#[derive(Serialize, Deserialize, Debug)]
pub struct Machine {
    /// The number by which its steps name it.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Its stream of random numbers: the seed, the name and the incarnation.
    pub stream: (u64, String, u64),
    /// What it is, with its configuration.
    pub of: Of,
}

/// The machines that are recorded.
#[derive(Serialize, Deserialize, Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Of {
    /// An API server.
    ApiServer(apiserver::Config),
    /// The controllers.
    Controllers {
        /// Their configuration.
        config: ManagerConfig,
        /// The images by which simulated pods are measured; `None` where no metrics are served.
        images: Option<BTreeMap<String, ImageProfile>>,
        /// Whether pods are measured: what they use is an input.
        #[serde(default)]
        measured: bool,
        /// Whether they sign tokens for Secrets.
        signs: bool,
    },
    /// The scheduler.
    Scheduler(SchedulerConfig),
    /// The agent of a node.
    Agent(AgentConfig),
    /// The service proxy of a node.
    Proxy(ProxyConfig),
    /// The cluster's names.
    Names(DnsConfig),
}

/// One input of a machine, and what it made of it.
#[derive(Serialize, Deserialize, Debug)]
pub struct Step {
    /// The number of the step within the recording.
    pub n: u64,
    /// The machine.
    pub machine: u32,
    /// The time.
    pub mono: Mono,
    /// The time of day.
    pub wall: Wall,
    /// The input.
    pub input: Input,
    /// The outputs, in their order. `None` if the process ended while the machine was deciding.
    #[serde(default)]
    pub out: Option<Vec<Said>>,
    /// When the machine wanted to be woken after it.
    #[serde(default)]
    pub next: Option<Mono>,
    /// Tokens that were signed while it decided: their placeholders.
    #[serde(default)]
    pub signed: Vec<String>,
    /// Where values of Secrets were replaced in outputs: the number of the output and a JSON pointer.
    #[serde(default)]
    pub hidden: Vec<(usize, String)>,
}

/// What a machine is given.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// An input of its own type.
    Handle(Value),
    /// Its time has come.
    Timeout,
    /// It is to give up what it leads.
    Resign,
    /// What pods use; controllers only hear of it when they ask.
    Measured(Measured),
}

/// An output.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// As a whole.
    Whole(Value),
    /// What is long, by its digest.
    Digest {
        /// Of the whole.
        digest: String,
        /// Of the whole without what is hidden; empty if nothing is.
        #[serde(default)]
        rest: String,
        /// How it begins.
        begin: String,
    },
}

/// A digest of a value: the same for equal values, however they are written.
pub fn digest(value: &Value) -> String {
    let text = value.to_string();
    let [a, b] = [1, 2].map(|start| mix_bytes(start, text.as_bytes()));
    format!("{a:016x}{b:016x}")
}

/// Takes out of a value what stands at these places.
pub fn mask<'a>(value: &mut Value, places: impl IntoIterator<Item = &'a str>) {
    for place in places {
        if let Some(at) = value.pointer_mut(place) {
            *at = Value::Null;
        }
    }
}
