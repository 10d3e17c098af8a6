//! Coverage of explored runs: how often each kind of object, fault, user action and Event reason occurred.

use std::collections::BTreeMap;

use crate::fault;
use crate::moment::Stage;
use crate::outcome::Outcome;
use crate::scenario::{Action, Scenario, UserAction};

/// The counts by group and name, as they are reported.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    workloads: BTreeMap<String, u64>,
    faults: BTreeMap<String, u64>,
    /// What steps waited for.
    moments: BTreeMap<String, u64>,
    users: BTreeMap<String, u64>,
    /// Reasons of Kubernetes Events, from the runs that record Events.
    reasons: BTreeMap<String, u64>,
}

impl Coverage {
    /// Counts the objects and steps of a scenario.
    pub fn of(scenario: &Scenario) -> Coverage {
        let mut covered = Coverage::default();
        for step in &scenario.timeline {
            if let Some(moment) = &step.when {
                *covered.moments.entry(moment.stage.name().to_owned()).or_default() += 1;
            }
            match &step.action {
                Action::Fault(fault) => *covered.faults.entry(fault.name().to_owned()).or_default() += 1,
                Action::User(UserAction::Apply(objects)) => {
                    objects.iter().for_each(|o| *covered.workloads.entry(o.kind().to_string()).or_default() += 1);
                }
                Action::User(action) => {
                    let word = action.describe().split(' ').next().unwrap_or_default().to_owned();
                    *covered.users.entry(word).or_default() += 1;
                }
            }
        }
        covered
    }

    /// Adds the Event reasons of the scenario's run.
    pub fn ran(&mut self, outcome: &Outcome) {
        merge(&mut self.reasons, &outcome.event_reasons);
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Coverage) {
        merge(&mut self.workloads, &other.workloads);
        merge(&mut self.faults, &other.faults);
        merge(&mut self.moments, &other.moments);
        merge(&mut self.users, &other.users);
        merge(&mut self.reasons, &other.reasons);
    }

    /// All counts, by group.
    pub fn groups(&self) -> Vec<(&'static str, &BTreeMap<String, u64>)> {
        vec![
            ("objects", &self.workloads),
            ("faults", &self.faults),
            ("moments", &self.moments),
            ("users", &self.users),
            ("events", &self.reasons),
        ]
    }

    /// The names of faults, moments and workload kinds that could have been drawn and were not.
    pub fn never(&self) -> Vec<String> {
        let faults = fault::NAMES.iter().filter(|name| !fault::BY_HAND.contains(name));
        let missed = faults.filter(|name| !self.faults.contains_key(**name)).map(|name| (*name).to_owned());
        let kinds = super::workload::KINDS.iter().filter(|kind| !self.workloads.contains_key(**kind));
        let moments = Stage::ALL.iter().map(|(name, _)| (*name).to_owned());
        let moments = moments.filter(|name| !self.moments.contains_key(name));
        missed.chain(moments).chain(kinds.map(|kind| (*kind).to_owned())).collect()
    }
}

fn merge(into: &mut BTreeMap<String, u64>, from: &BTreeMap<String, u64>) {
    from.iter().for_each(|(name, n)| *into.entry(name.clone()).or_default() += n);
}
