//! Draws faults from the seed. The result is a timeline of the same steps that a scenario file can list, so that a
//! failing run can be written down as a scenario and shortened.

use std::collections::BTreeSet;
use std::time::Duration;

use skeg_core::{Kind, Object, Rng};

use super::{FAMILIES, Fault};
use crate::moment::Moment;
use crate::scenario::{Action, FaultLevel, NodeSet, Scenario, Step, UserAction};

/// A class of faults: a group that is drawn at one rate. Each class has its own random stream, so that adding a class
/// does not change the draws of the others.
pub(super) struct Class {
    /// The class's name, which also names its random stream.
    pub name: &'static str,
    /// Minimum and maximum number of draws per ten minutes. With heavy faults, half of the classes are in a run; a
    /// class that is in the run is drawn at least once and up to twice as often as the maximum. With light faults, all
    /// classes are in the run, and each draw is kept with a probability of one in four.
    pub rate: (u64, u64),
    /// Draws one occurrence: pushes one or more faults.
    pub draw: fn(&mut Draw<'_>),
}

/// What a class needs to draw one occurrence, and where the faults go.
pub(super) struct Draw<'a> {
    scenario: &'a Scenario,
    /// The kinds of what users declare.
    pub kinds: &'a BTreeSet<Kind>,
    /// When the fault begins.
    pub at: Duration,
    /// The default duration of the fault, for classes that do not draw their own.
    pub lasts: Option<Duration>,
    /// The random stream of the class.
    pub rng: &'a mut Rng,
    all: &'a mut Vec<Step>,
}

impl Draw<'_> {
    /// Adds a fault to the timeline.
    pub fn push(&mut self, at: Duration, fault: impl Into<Fault>) {
        self.all.push(Step::at(at, fault.into()));
    }

    /// Adds a fault that strikes at a moment after it would begin.
    pub fn push_when(&mut self, moment: Moment, fault: impl Into<Fault>) {
        self.all.push(Step::when(self.at, moment, fault.into()));
    }

    /// A random duration between `lo` and `hi` seconds.
    pub fn seconds(&mut self, lo: u64, hi: u64) -> Duration {
        Duration::from_millis(self.rng.range(lo * 1000, hi * 1000))
    }

    /// A random zone.
    pub fn zone(&mut self) -> NodeSet {
        let z = self.rng.below(self.scenario.cluster.zones.max(1) as u64) as u8;
        NodeSet::Zone(format!("zone-{}", char::from(b'a' + z.min(25))))
    }

    /// One to `most` random nodes, by name.
    pub fn some_nodes(&mut self, most: u64) -> NodeSet {
        let pools = &self.scenario.cluster.pools;
        let names: Vec<String> = pools
            .iter()
            .flat_map(|p| (0..p.count).map(|i| p.names.get(i).cloned().unwrap_or_else(|| format!("{}-{i}", p.name))))
            .collect();
        let count = 1 + self.rng.below(most);
        let drawn: BTreeSet<String> = (0..count).filter_map(|_| self.rng.pick(&names).cloned()).collect();
        NodeSet::Names(drawn.into_iter().collect())
    }

    /// The control plane with a probability of one in `one_in`, otherwise a few nodes.
    pub fn control_or_nodes(&mut self, one_in: u64, most: u64) -> NodeSet {
        if self.rng.chance(1, one_in) { NodeSet::ControlPlane } else { self.some_nodes(most) }
    }

    /// A zone with a probability of one in `one_in`, otherwise a few nodes.
    pub fn zone_or_nodes(&mut self, one_in: u64, most: u64) -> NodeSet {
        if self.rng.chance(1, one_in) { self.zone() } else { self.some_nodes(most) }
    }

    /// A control-plane machine, named by a process on it; the store's machine with a probability of one in five.
    pub fn control_machine(&mut self) -> NodeSet {
        let cluster = &self.scenario.cluster;
        let (role, count) = match self.rng.below(5) {
            0 => return NodeSet::Machine("store".to_owned()),
            1 | 2 => ("api-server", cluster.api_servers),
            _ => ("controller-manager", cluster.control_replicas),
        };
        NodeSet::Machine(format!("{role}-{}", self.rng.below(count.max(1) as u64)))
    }

    /// A random API server's index.
    pub fn api_server(&mut self) -> usize {
        self.rng.below(self.scenario.cluster.api_servers.max(1) as u64) as usize
    }
}

/// How often the classes of a run are drawn.
#[derive(Clone, Copy)]
enum How {
    /// All classes are in the run; each draw is kept with a probability of one in this number.
    Thinned(u64),
    /// Swarm testing (Groce et al., 2012): each class is in the run with a probability of one in this number, and the
    /// others are left out, because one class of faults may hide or heal the effects of another. The classes in the run
    /// are drawn more often.
    Swarm(u64),
    /// All classes of one family are in the run, drawn as often as in a swarm: whatever is judged only while nothing
    /// else disturbs the cluster is judged in such a run.
    Family(usize),
}

/// Draws the faults of a run, by the scenario's fault level.
pub fn draw(scenario: &Scenario, seed: u64) -> Vec<Step> {
    match scenario.faults {
        FaultLevel::None | FaultLevel::Listed => Vec::new(),
        FaultLevel::Light => draw_as(scenario, &declared(scenario), seed, How::Thinned(4)),
        FaultLevel::Heavy => draw_as(scenario, &declared(scenario), seed, How::Swarm(2)),
    }
}

/// The kinds of the objects that a scenario declares.
fn declared(scenario: &Scenario) -> BTreeSet<Kind> {
    let objects = scenario.timeline.iter().flat_map(|step| match &step.action {
        Action::User(UserAction::Apply(objects) | UserAction::Create(objects)) => objects.as_slice(),
        Action::User(_) | Action::Fault(_) => &[],
    });
    objects.map(Object::kind).collect()
}

/// Draws faults of few classes, each often: one time in three of one family, otherwise one class in four. Users declare
/// objects of these kinds.
pub fn draw_some(scenario: &Scenario, kinds: &BTreeSet<Kind>, seed: u64) -> Vec<Step> {
    let mut rng = Rng::stream(seed, "fault family", 0);
    let how = match rng.chance(1, 3) {
        true => How::Family(rng.below(FAMILIES.len() as u64) as usize),
        false => How::Swarm(4),
    };
    draw_as(scenario, kinds, seed, how)
}

/// How many faults of a class there are in a run that is about few classes.
fn often(class: &Class, spans: u64, rng: &mut Rng) -> u64 {
    rng.range(class.rate.0.max(1) * spans, 2 * class.rate.1 * spans + 1)
}

fn draw_as(scenario: &Scenario, kinds: &BTreeSet<Kind>, seed: u64, how: How) -> Vec<Step> {
    let mut all = Vec::new();
    let mut swarm = Rng::stream(seed, "fault classes", 0);
    let classes = FAMILIES.iter().enumerate().flat_map(|(family, all)| all.iter().map(move |c| (family, c)));
    for (family, class) in classes {
        let mut rng = Rng::stream(seed, &format!("fault {}", class.name), 0);
        let spans = (scenario.duration.as_secs() / 600).max(1);
        let count = match how {
            How::Thinned(one_in) => {
                let count = rng.range(class.rate.0 * spans, class.rate.1 * spans + 1);
                (0..count).filter(|_| rng.chance(1, one_in)).count() as u64
            }
            How::Swarm(one_in) if swarm.chance(1, one_in) => often(class, spans, &mut rng),
            How::Family(one) if one == family => often(class, spans, &mut rng),
            How::Swarm(_) | How::Family(_) => 0,
        };
        for _ in 0..count {
            let at = rng.duration(Duration::from_secs(5), scenario.duration);
            let lasts = Duration::from_millis(rng.range(5_000, 120_000));
            (class.draw)(&mut Draw { scenario, kinds, at, lasts: Some(lasts), rng: &mut rng, all: &mut all });
        }
    }
    all.retain(|step| step.at < scenario.duration);
    all.sort_by_key(|step| step.at);
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::{FAMILIES, draw};
    use crate::run::plain;
    use crate::scenario::FaultLevel;

    #[test]
    fn the_seed_draws_and_the_level_thins() {
        let mut scenario = plain(50, 3);
        scenario.duration = Duration::from_secs(600);
        scenario.faults = FaultLevel::Heavy;
        let count = |s: &crate::scenario::Scenario| (0..20).map(|seed| draw(s, seed).len()).sum::<usize>();
        let heavy = count(&scenario);
        let shown = |seed| format!("{:?}", draw(&scenario, seed));
        assert_eq!(shown(3), shown(3));
        scenario.faults = FaultLevel::Light;
        let light = count(&scenario);
        scenario.faults = FaultLevel::None;
        assert_eq!(count(&scenario), 0);
        assert!(light > 0 && light < heavy, "{light} of {heavy}");
    }

    #[test]
    fn every_class_has_a_stream_of_its_own_and_is_drawn() {
        let names: Vec<&str> = FAMILIES.iter().copied().flatten().map(|c| c.name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        let mut scenario = plain(20, 3);
        (scenario.duration, scenario.faults) = (Duration::from_secs(600), FaultLevel::Heavy);
        let drawn: BTreeSet<&str> =
            (0..60).flat_map(|seed| draw(&scenario, seed)).filter_map(|step| step.action.fault()).collect();
        assert_eq!(drawn.len(), super::super::NAMES.len() - super::super::BY_HAND.len(), "{drawn:?}");
    }
}
