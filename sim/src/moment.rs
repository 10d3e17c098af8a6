//! Moments that a step of the timeline can wait for beside its time: just before the n-th request of a kind is sent,
//! just after the n-th such write was committed and before anybody is told, or just after the n-th such event of a
//! watch was heard.
//!
//! Most bugs of controllers need a fault between two certain messages. By the clock, a fault rarely strikes there; by
//! such a moment it always does (Sun et al., "Automatic Reliability Testing for Cluster Management Controllers",
//! OSDI 2022).

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Value, json};
use skeg_core::Kind;
use skeg_core::controllers::{self, ManagerConfig};

use crate::files::fields::{Field, nearest};

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// A process has decided on a write, and is about to send it.
    Send,
    /// The store has committed a write, and the reply is on its way.
    Commit,
    /// A process has heard of a change by a watch.
    Hear,
}

impl Stage {
    /// All of them, with their names in scenarios.
    pub(crate) const ALL: [(&'static str, Stage); 3] =
        [("send", Stage::Send), ("commit", Stage::Commit), ("hear", Stage::Hear)];

    /// Its name in scenarios.
    pub(crate) fn name(self) -> &'static str {
        Stage::ALL.iter().find(|(_, stage)| *stage == self).expect("each has a name").0
    }
}

/// The n-th time that something happens, counted from the time of the step on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moment {
    /// What happens.
    pub stage: Stage,
    /// To objects of this kind; `None`: of any.
    pub kind: Option<Kind>,
    /// Who writes: a user at the API, such as `replicaset-controller`; or who hears: a process, such as
    /// `controller-manager-0`. `None`: anybody.
    pub by: Option<String>,
    /// Which occurrence; 1 is the first.
    pub nth: u64,
}

impl Moment {
    /// Whether this is one of the happenings that are counted.
    pub(crate) fn counts(&self, stage: Stage, kind: Kind, who: &str) -> bool {
        let by = |by: &String| by == who || who.strip_prefix("system:").is_some_and(|short| by == short);
        self.stage == stage && self.kind.is_none_or(|wanted| wanted == kind) && self.by.as_ref().is_none_or(by)
    }

    /// Reads the field `when` of a step.
    pub(crate) fn read(field: &Field<'_>) -> Option<Moment> {
        let f = field.fields()?;
        let given = Stage::ALL.map(|(name, stage)| f.get(name).map(|what| (stage, what)));
        let mut given = given.into_iter().flatten();
        let Some((stage, what)) = given.next() else {
            field.fail("Required value: say what the step waits for: send, commit or hear".to_owned());
            return None;
        };
        if given.next().is_some() {
            field.fail("Forbidden: give only one of send, commit and hear".to_owned());
            return None;
        }
        let text = what.text()?;
        let kind = if text == "any" { None } else { Kind::by_alias(text) };
        if kind.is_none() && text != "any" {
            what.fail(format!("Invalid value: {text:?}: the server doesn't have a resource type {text:?}"));
            return None;
        }
        let by = f.get("by").map(|by| by.name().map(str::to_owned));
        let nth = f.get("nth").map_or(Some(1), |nth| nth.integer(1, i64::MAX));
        f.finish();
        let by = match by {
            Some(by) => Some(by?),
            None => None,
        };
        Some(Moment { stage, kind, by, nth: nth? as u64 })
    }

    /// What is wrong with who is waited for; `processes` are those of the cluster, as a scenario names them.
    pub(crate) fn problem(&self, processes: &BTreeSet<String>) -> Option<String> {
        let by = self.by.as_ref()?;
        let known: BTreeSet<String> = match self.stage {
            Stage::Hear => processes.clone(),
            Stage::Send | Stage::Commit => writers(processes),
        };
        if known.contains(by) || known.contains(&format!("system:{by}")) {
            return None;
        }
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        let near = nearest(by, &names).map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        let does = if self.stage == Stage::Hear { "hears" } else { "writes" };
        Some(format!("Not found: {by:?}: nobody of this name {does} anything{near}"))
    }

    /// The field from which [`read`](Moment::read) reads the same moment.
    pub(crate) fn write(&self) -> Value {
        let kind = self.kind.map_or_else(|| "any".to_owned(), |kind| kind.row().plural.to_string());
        let mut value = json!({ self.stage.name(): kind, "nth": self.nth });
        if let Some(by) = &self.by {
            value["by"] = json!(by);
        }
        value
    }
}

/// Who writes at the API: controllers, the scheduler, the agents of nodes, and the users of the timeline.
fn writers(processes: &BTreeSet<String>) -> BTreeSet<String> {
    let config = ManagerConfig { volumes: true, devices: true, autoscaling: Some(None), ..ManagerConfig::default() };
    let controllers = controllers::all(&config).into_iter().map(|controller| controller.name().to_owned());
    let agents = processes.iter().filter_map(|name| name.strip_prefix("agent-"));
    let others = ["system:kube-scheduler", "kube-controller-manager", "kubernetes-admin"].map(str::to_owned);
    controllers.chain(agents.map(|node| format!("system:node:{node}"))).chain(others).collect()
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.map_or_else(|| "anything".to_owned(), |kind| kind.row().plural.to_string());
        let (nth, by) = (self.nth, self.by.as_deref().unwrap_or("anybody"));
        match self.stage {
            Stage::Send => write!(f, "before {by} sends write {nth} of {kind}"),
            Stage::Commit => write!(f, "after commit {nth} of {kind} by {by}"),
            Stage::Hear => write!(f, "after {by} has heard {nth} times of {kind}"),
        }
    }
}
