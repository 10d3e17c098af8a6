//! Why a run failed: who wrote the objects that a failure is about, what each writer had not heard of when it decided,
//! and which faults were in force.
//!
//! A controller decides from its views, which lag. So most failures are one of two stories: a decision that was right
//! by a view and wrong by the store, or a message that came late or never. Both show in what is kept here: every commit
//! with its writer, every request with the time when it was sent, and when each process heard of each revision.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use skeg_core::api::{FromServer, ReqId, Request, Response, WatchEvent};
use skeg_core::object::{Kind, Object, ObjectKey};
use skeg_core::store::StoreEvent;

use crate::ids::ProcessId;
use crate::outcome::Happening;

/// Commits that are shown of each object that a failure names.
const OF_EACH: usize = 5;
/// What a writer had not heard of, at most, for each of its writes.
const UNHEARD: usize = 3;
/// Faults that are shown.
const FAULTS: usize = 6;
/// Length of the description of a commit.
const WIDE: usize = 160;
/// A request that takes longer is remarked on, in seconds.
const SLOW: f64 = 1.0;

/// One step of the story.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Cause {
    /// Virtual seconds.
    pub at: f64,
    /// Who did it: a user at the API and the process that asked for it, `fault`, or `invariant`.
    pub by: String,
    /// What was done.
    pub what: String,
    /// The revision of the store that it made; `None` of what is no commit.
    pub revision: Option<u64>,
    /// What the writer had not heard of when it decided.
    pub missed: Vec<Missed>,
    /// The same in words, and how long its request took.
    pub remarks: Vec<String>,
}

/// A commit that a writer had not heard of.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Missed {
    /// Its revision.
    pub revision: u64,
    /// When the writer heard of it, in virtual seconds.
    pub heard: f64,
}

struct Commit {
    at: u64,
    revision: u64,
    key: ObjectKey,
    what: String,
    /// The UIDs of the object and of its owners.
    family: Vec<String>,
}

/// A request, as it was sent.
struct Asked {
    process: ProcessId,
    at: u64,
    user: String,
    /// The kind of a list.
    lists: Option<Kind>,
    writes: bool,
}

/// What is kept of a run to explain its failure.
#[derive(Default)]
pub(crate) struct Causes {
    commits: Vec<Commit>,
    asked: BTreeMap<(u64, ReqId), Asked>,
    /// The request that each revision comes of.
    writers: BTreeMap<u64, (u64, ReqId)>,
    /// When each process heard of each revision of a kind.
    heard: BTreeMap<(ProcessId, Kind), BTreeMap<u64, u64>>,
    /// Lists: when a process was told all of a kind up to a revision.
    listed: BTreeMap<(ProcessId, Kind), Vec<(u64, u64)>>,
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn family(object: &Object) -> Vec<String> {
    let value = object.to_json();
    let owners = value["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let uids = owners.filter_map(|owner| owner["uid"].as_str()).chain([object.uid()]);
    uids.filter(|uid| !uid.is_empty()).map(str::to_owned).collect()
}

impl Causes {
    /// A process sends a request over a connection.
    pub(crate) fn asked(&mut self, at: u64, process: ProcessId, conn: u64, id: ReqId, request: &Request) {
        use skeg_core::api::Call;
        let lists = match &request.call {
            Call::List { kind, .. } => Some(*kind),
            _ => None,
        };
        let writes = request.call.writes();
        let user = request.user.to_string();
        self.asked.insert((conn, id), Asked { process, at, user, lists, writes });
    }

    /// An API server answers: what it wrote is the request's.
    pub(crate) fn answered(&mut self, conn: u64, message: &FromServer) {
        let FromServer::Reply(id, Ok(response)) = message else { return };
        let revision = match response {
            Response::Object(object) => object.rv(),
            Response::Done { rv } => *rv,
            Response::Scale(scale) => scale.rv,
            Response::List { .. } => return,
        };
        if self.asked.get(&(conn, *id)).is_some_and(|asked| asked.writes) {
            self.writers.entry(revision.0).or_insert((conn, *id));
        }
    }

    /// A process hears something.
    pub(crate) fn heard(&mut self, at: u64, process: ProcessId, conn: u64, message: &FromServer) {
        match message {
            FromServer::Watch(_, event) => {
                let (WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object)) = event
                else {
                    return;
                };
                self.heard.entry((process, object.kind())).or_default().entry(object.rv().0).or_insert(at);
            }
            FromServer::Reply(id, Ok(Response::List { rv, .. })) => {
                let kind = self.asked.get(&(conn, *id)).and_then(|asked| asked.lists);
                if let Some(kind) = kind {
                    self.listed.entry((process, kind)).or_default().push((rv.0, at));
                }
            }
            FromServer::Reply(..) | FromServer::Disconnected => {}
        }
    }

    /// The store commits something; `what` describes it.
    pub(crate) fn committed(&mut self, at: u64, change: &StoreEvent, what: &str) {
        let object = |value: Option<&skeg_core::store::Stored>| value.and_then(|value| value.object()).cloned();
        let new = object(change.value.as_deref().map(|kv| &kv.value));
        let Some(object) = new.or_else(|| object(change.previous.as_deref().map(|kv| &kv.value))) else { return };
        let (key, family) = (object.key(), family(&object));
        self.commits.push(Commit { at, revision: change.revision.0, key, what: shortened(what), family });
    }

    /// When a process heard of a commit.
    fn heard_at(&self, process: ProcessId, commit: &Commit) -> Option<u64> {
        let kind = (process, commit.key.kind);
        // What is told is told in order: who hears of a later revision has no earlier one on its way.
        let told = self.heard.get(&kind).and_then(|heard| heard.range(commit.revision..).next()).map(|(_, at)| *at);
        let lists = self.listed.get(&kind).into_iter().flatten();
        let listed = lists.filter(|(revision, _)| *revision >= commit.revision).map(|(_, at)| *at).min();
        told.into_iter().chain(listed).min()
    }

    fn writer(&self, commit: &Commit) -> Option<&Asked> {
        self.asked.get(self.writers.get(&commit.revision)?)
    }

    /// The commits that a text is about: of objects that it names, by their names or by a revision, and if there are
    /// none, of objects whose names have one of its words in them, such as the Lease `kube-scheduler`.
    fn named(&self, about: &str) -> BTreeSet<&ObjectKey> {
        let words: BTreeSet<&str> = about
            .split(|c: char| c.is_whitespace() || ",;()".contains(c))
            .map(|word| word.trim_matches(|c: char| !c.is_ascii_alphanumeric()))
            .filter(|word| word.len() > 2)
            .collect();
        let is_named = |key: &ObjectKey| {
            words.contains(&*key.to_string()) || words.contains(key.path()) || words.contains(key.name())
        };
        let keys = || self.commits.iter().map(|commit| &commit.key);
        // A commit is named by its revision, such as r192.
        let revisions: BTreeSet<u64> = words.iter().filter_map(|word| word.strip_prefix('r')?.parse().ok()).collect();
        let of_revision = self.commits.iter().filter(|c| revisions.contains(&c.revision)).map(|commit| &commit.key);
        let named = keys().filter(|key| is_named(key) && key.kind != Kind::EVENT).chain(of_revision);
        let named: BTreeSet<&ObjectKey> = named.collect();
        if !named.is_empty() {
            return named;
        }
        let resembles = |key: &&ObjectKey| words.iter().any(|word| word.len() > 4 && key.name().contains(word));
        keys().filter(|key| key.kind == Kind::LEASE).filter(resembles).collect()
    }

    /// The story of a failure at a moment, in order; `name` is who judges, `about` its words.
    pub(crate) fn story(
        &self,
        at: f64,
        (name, about): (&str, &str),
        faults: &[Happening],
        who: &Names<'_>,
    ) -> Vec<Cause> {
        let named = self.named(about);
        let before = |commit: &&Commit| seconds(commit.at) <= at + 1e-3;
        let mut shown: BTreeSet<usize> = BTreeSet::new();
        for key in &named {
            let of_key = self.commits.iter().enumerate().filter(|(_, c)| c.key == **key && before(c));
            let all: Vec<usize> = of_key.map(|(place, _)| place).collect();
            shown.extend(all.first());
            shown.extend(&all[all.len().saturating_sub(OF_EACH)..]);
        }
        let kin: BTreeSet<&String> = shown.iter().flat_map(|place| &self.commits[*place].family).collect();
        // What the writers of these had not heard of belongs to the story as well.
        let more: Vec<usize> = shown.iter().flat_map(|place| self.unheard(*place, &kin)).collect();
        shown.extend(more);
        let mut story: Vec<Cause> = shown.iter().map(|place| self.told(*place, &kin, who)).collect();
        let since = story.first().map_or(at, |first| first.at) - 60.0;
        let in_force: Vec<&Happening> = faults.iter().filter(|f| f.at >= since && f.at <= at).collect();
        let fault = |fault: &&Happening| Cause {
            at: fault.at,
            by: "fault".to_owned(),
            what: fault.what.clone(),
            ..Cause::default()
        };
        story.extend(in_force[in_force.len().saturating_sub(FAULTS)..].iter().map(fault));
        story.push(Cause { at, by: "invariant".to_owned(), what: format!("{name}: {about}"), ..Cause::default() });
        story.sort_by(|a, b| a.at.total_cmp(&b.at));
        story
    }

    /// What the writer of a commit had not heard of when it asked, of the same family; the last ones.
    fn unheard(&self, place: usize, kin: &BTreeSet<&String>) -> Vec<usize> {
        let Some(asked) = self.writer(&self.commits[place]) else { return Vec::new() };
        let all = self.commits[..place].iter().enumerate().rev();
        let of_kin = all.filter(|(_, other)| other.at <= asked.at && other.family.iter().any(|uid| kin.contains(uid)));
        // What it never hears is not for it: an agent hears of its own pods.
        let late = of_kin.filter(|(_, other)| self.heard_at(asked.process, other).is_some_and(|at| at > asked.at));
        late.take(UNHEARD).map(|(place, _)| place).collect()
    }

    fn told(&self, place: usize, kin: &BTreeSet<&String>, who: &Names<'_>) -> Cause {
        let commit = &self.commits[place];
        let (at, what, revision) = (seconds(commit.at), commit.what.clone(), Some(commit.revision));
        let Some(asked) = self.writer(commit) else {
            return Cause { at, by: "unknown".to_owned(), what, revision, ..Cause::default() };
        };
        let (mut remarks, mut missed) = (Vec::new(), Vec::new());
        let took = seconds(commit.at - asked.at.min(commit.at));
        if took > SLOW {
            remarks.push(format!("it had asked for this at {:.3} s, {took:.1} s before", seconds(asked.at)));
        }
        for unheard in self.unheard(place, kin) {
            let other = &self.commits[unheard];
            let heard = self.heard_at(asked.process, other).expect("it hears of it later");
            missed.push(Missed { revision: other.revision, heard: seconds(heard) });
            remarks.push(format!(
                "it had not heard of r{} of {}, {:.3} s old by then; it heard at {:.3} s",
                other.revision,
                other.key,
                seconds(asked.at - other.at),
                seconds(heard),
            ));
        }
        Cause { at, by: format!("{} ({})", asked.user, who(asked.process)), what, revision, missed, remarks }
    }
}

/// What a process is called.
pub(crate) type Names<'a> = dyn Fn(ProcessId) -> String + 'a;

fn shortened(what: &str) -> String {
    match what.char_indices().nth(WIDE) {
        None => what.to_owned(),
        Some((end, _)) => format!("{}…", &what[..end]),
    }
}
