//! The controller manager: one process that runs all controllers, with one leader election and one connection.
//!
//! What comes in: messages from the server. What goes out: requests. Never lets a controller write without current
//! leadership. Never lets a controller continue with state from an earlier term.

use std::any::Any;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::node_lifecycle::NodeLifecycleController;
use super::{Controller, Mandate, Runner, Turn};
use crate::api::{FromServer, ToServer};
use crate::client::{Change, ElectionTimes, Elector, Informers, View};
use crate::features::FeatureGates;
use crate::limits;
use crate::machine::{Deadline, Machine, Mono, Now};
use crate::object::{Kind, Kinds, ObjectKey, Revision};
use crate::random::{Rng, mix};
use crate::read_ahead::Step;

/// The elector's part of the connection; the informers and the runners use blocks of parts after it.
const ELECTOR_PART: u16 = 1;
/// The informers start after the election's first reply, so that a leader's first lists are not older than its term;
/// but they wait at most this long.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// Configuration of a controller manager.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ManagerConfig {
    /// `--leader-elect` identity; must be unique among the replicas.
    pub identity: Rc<str>,
    /// `--leader-elect`. If false, the manager acts immediately and its writes carry no fence.
    pub leader_elect: bool,
    /// How long leadership lasts.
    pub election: ElectionTimes,
    /// Whether controllers record Events.
    pub record_events: bool,
    /// Whether the controllers share one set of informers, as upstream's do. Otherwise each controller has its own,
    /// which lag independently: this costs more and exposes more bugs, so simulations with faults use it.
    pub share_informers: bool,
    /// `--max-endpoints-per-slice`.
    pub max_endpoints_per_slice: usize,
    /// Addresses for Services of type LoadBalancer; `None` if nobody gives any.
    pub load_balancers: Option<super::LoadBalancerRange>,
    /// The ranges of pods' addresses that nodes are given (`--allocate-node-cidrs`); `None` if nobody gives any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_ranges: Option<super::PodRanges>,
    /// Whether claims are bound, volumes made and both protected. A simulation without any of them runs faster without
    /// these controllers.
    pub volumes: bool,
    /// Whether nodes run real containers. Otherwise what runs as pods in such a cluster is simulated: provisioners of
    /// all StorageClasses, and what attaches CSI volumes.
    #[serde(default)]
    pub real_nodes: bool,
    /// Whether claims for devices are made and freed; the same. In a recording that does not say so, they are not.
    #[serde(default)]
    pub devices: bool,
    /// Whether workloads are scaled by metrics, and where the metrics come from; `Some(None)` where no metrics API is
    /// served.
    #[serde(skip)]
    pub autoscaling: Option<super::Metrics>,
    /// Whether the cluster has users who are not trusted: then the controllers run that keep what such users need.
    pub access_control: bool,
    /// The certificates, PEM, by which pods trust the API server; `None` if nobody publishes them.
    pub root_ca: Option<Rc<str>>,
    /// Who signs the tokens that Secrets are for; `None` if nobody does.
    #[serde(skip)]
    pub tokens: Option<Rc<dyn super::TokenSigner>>,
    /// The kinds of its world.
    #[serde(skip)]
    pub kinds: Kinds,
    /// `--feature-gates`. In a recording that does not say so, all are off.
    #[serde(default)]
    pub features: FeatureGates,
}

impl Default for ManagerConfig {
    fn default() -> ManagerConfig {
        ManagerConfig {
            identity: Rc::from("kube-controller-manager"),
            leader_elect: true,
            election: ElectionTimes::default(),
            record_events: true,
            share_informers: true,
            max_endpoints_per_slice: limits::MAX_ENDPOINTS_PER_SLICE,
            load_balancers: None,
            pod_ranges: None,
            volumes: true,
            real_nodes: false,
            devices: true,
            autoscaling: Some(None),
            access_control: false,
            root_ca: None,
            tokens: None,
            kinds: Kinds::default(),
            features: FeatureGates::default(),
        }
    }
}

/// Informers, and the runners that read their views.
struct Group {
    informers: Informers,
    runners: Vec<usize>,
    /// For each informer, the runners whose controllers watch its kind.
    readers: Vec<Vec<usize>>,
}

/// The recipient of messages for a part of the connection.
#[derive(Clone, Copy, Debug)]
enum Route {
    Nobody,
    Elector,
    /// An informer of a group: index of the group, index of the informer.
    Informer(usize, usize),
    Runner(usize),
}

type MakeControllers = Box<dyn Fn() -> Vec<Box<dyn Controller>>>;

/// Runs all controllers. See the module's documentation.
pub struct ControllerManager {
    make: MakeControllers,
    elector: Option<Elector>,
    groups: Vec<Group>,
    runners: Vec<Runner>,
    /// For each runner, the index of its group.
    group_of: Vec<usize>,
    routes: Vec<Route>,
    /// For each runner, its deadline after its last step; a step of one runner changes no other runner's deadline.
    deadlines: Vec<Option<Deadline>>,
    /// For each runner, whether it waits to see its own writes, as of its last step.
    waiting: Vec<bool>,
    /// Whether any runner does.
    some_wait: bool,
    /// The earliest of all deadlines, cached because most events change no deadline.
    next: Option<Deadline>,
    /// Whether a deadline has changed since it was cached.
    moved: bool,
    started: bool,
    /// Latest time at which the informers start; set by the first step.
    start_by: Option<Mono>,
    /// The leadership term that the runners' state belongs to.
    term: Option<Revision>,
    /// Scratch space for the changes of an informer's view.
    changes: Vec<Change>,
}

impl std::fmt::Debug for ControllerManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControllerManager").field("elector", &self.elector).field("runners", &self.runners).finish()
    }
}

impl ControllerManager {
    /// Creates a manager of all controllers.
    pub fn new(config: ManagerConfig, rng: Rng) -> ControllerManager {
        let all = config.clone();
        ControllerManager::with_controllers(config, Box::new(move || super::all(&all)), rng)
    }

    /// The views of its controllers, for observers. If informers are not shared, a kind may occur once for each
    /// controller.
    pub fn views(&self) -> impl Iterator<Item = &View> {
        self.groups.iter().flat_map(|group| group.informers.views().all())
    }

    /// Creates a manager of these controllers. After leadership was lost, `make` is called again to create controllers
    /// without state.
    pub fn with_controllers(config: ManagerConfig, make: MakeControllers, mut rng: Rng) -> ControllerManager {
        let mut fork = |n: u16| Rng::from_seed(mix(rng.next_u64(), u64::from(n)));
        let elector = config.leader_elect.then(|| {
            let lease = ObjectKey::new(Kind::LEASE, "kube-system", "kube-controller-manager");
            let user = Rc::from("kube-controller-manager");
            let identity = Rc::clone(&config.identity);
            Elector::new(lease, identity, config.election, user, ELECTOR_PART, fork(ELECTOR_PART))
        });
        let controllers = make();
        let group_of: Vec<usize> =
            (0..controllers.len()).map(|index| if config.share_informers { 0 } else { index }).collect();
        let mut routes = vec![Route::Nobody, Route::Elector];
        let mut groups: Vec<Group> = Vec::new();
        let count = group_of.last().map_or(0, |last| last + 1);
        for number in 0..count {
            let members: Vec<usize> = (0..controllers.len()).filter(|index| group_of[*index] == number).collect();
            let watched = members.iter().flat_map(|index| controllers[*index].watches()).copied();
            let user = match members[..] {
                [one] => controllers[one].name(),
                _ => "system:kube-controller-manager",
            };
            let first = routes.len() as u16;
            let informers = Informers::new(watched, &Rc::from(user), first, fork(first));
            routes.extend((0..usize::from(informers.parts())).map(|part| Route::Informer(number, part)));
            let watching = |kind| {
                let watches = |index: &usize| controllers[*index].watches().iter().any(|w| w.kind == kind);
                members.iter().copied().filter(watches).collect()
            };
            let readers = informers.kinds().map(watching).collect();
            groups.push(Group { informers, runners: members, readers });
        }
        let mut runners = Vec::new();
        for (index, controller) in controllers.into_iter().enumerate() {
            let first = routes.len() as u16;
            let runner = Runner::new(controller, config.record_events, first, fork(first));
            routes.extend((0..Runner::PARTS).map(|_| Route::Runner(index)));
            runners.push(runner);
        }
        let deadlines = vec![None; runners.len()];
        let mut manager = ControllerManager {
            make,
            elector,
            groups,
            runners,
            group_of,
            routes,
            waiting: vec![false; deadlines.len()],
            some_wait: false,
            deadlines,
            next: None,
            moved: true,
            started: false,
            start_by: None,
            term: None,
            changes: Vec::new(),
        };
        manager.next = manager.first_deadline();
        manager
    }

    /// Whether its controllers may write at this time.
    pub fn is_leader(&self, now: Now) -> bool {
        self.mandate(now).is_some()
    }

    /// Gives its leadership up for good, because the process is about to end.
    pub fn resign(&mut self, now: Now, out: &mut Vec<ToServer>) {
        if let Some(elector) = &mut self.elector {
            elector.resign(now, out);
        }
        self.settle(now, out);
        self.moved = false;
        self.next = self.first_deadline();
    }

    /// Whether it has resigned, and has nothing to say about that any more.
    pub fn has_resigned(&self) -> bool {
        self.elector.as_ref().is_none_or(Elector::has_resigned)
    }

    /// Reads ahead the memory that changes of these objects, all of one kind, will touch.
    pub fn read_ahead(&self, keys: &[&ObjectKey], step: Step) {
        let Some(kind) = keys.first().map(|key| key.kind) else { return };
        for group in &self.groups {
            let Some(informer) = group.informers.kinds().position(|of| of == kind) else { continue };
            group.informers.views().view(kind).read_ahead(keys, step);
            for index in &group.readers[informer] {
                // The only controller that notes every heartbeat.
                let controller: &dyn Any = self.runners[*index].controller();
                if let Some(lifecycle) = controller.downcast_ref::<NodeLifecycleController>() {
                    lifecycle.read_ahead(keys, step);
                }
            }
        }
    }

    /// The runners, one for each controller; for invariant checkers and for explaining what has not converged.
    pub fn runners(&self) -> &[Runner] {
        &self.runners
    }

    fn mandate(&self, now: Now) -> Option<Mandate> {
        match &self.elector {
            Some(elector) => elector.fence(now).map(|fence| Mandate { fence: Some(fence) }),
            None => Some(Mandate { fence: None }),
        }
    }

    /// Returns the current mandate after bringing every runner's state into its term.
    #[inline(always)]
    fn settle(&mut self, now: Now, out: &mut Vec<ToServer>) -> Option<Mandate> {
        let mandate = self.mandate(now);
        let term = mandate.as_ref().map(|m| m.fence.as_ref().map_or(Revision(0), |f| f.epoch));
        if term == self.term {
            return mandate;
        }
        self.moved = true;
        if self.term.is_some() {
            for ((runner, group), controller) in self.runners.iter_mut().zip(&self.group_of).zip((self.make)()) {
                runner.reset(controller, self.groups[*group].informers.views());
            }
        }
        self.term = term;
        if self.started {
            self.step_all(now, mandate.as_ref(), out);
        }
        mandate
    }

    fn step_all(&mut self, now: Now, mandate: Option<&Mandate>, out: &mut Vec<ToServer>) {
        self.groups.iter_mut().for_each(|group| group.informers.handle_timeout(now, out));
        for ((runner, group), deadline) in self.runners.iter_mut().zip(&self.group_of).zip(&mut self.deadlines) {
            let informers = &mut self.groups[*group].informers;
            runner.handle_timeout(&mut Turn { now, informers, mandate, out });
            *deadline = runner.poll_timeout();
        }
        self.waiting = self.runners.iter().map(Runner::waits).collect();
        self.some_wait = self.waiting.contains(&true);
    }

    /// Completes a step of a runner: caches its deadline, and steps down if the server rejected its fence.
    fn after(&mut self, now: Now, index: usize, out: &mut Vec<ToServer>) {
        let deadline = self.runners[index].poll_timeout();
        let waits = self.runners[index].waits();
        if std::mem::replace(&mut self.waiting[index], waits) != waits {
            self.some_wait = self.waiting.contains(&true);
        }
        self.moved |= deadline != self.deadlines[index];
        self.deadlines[index] = deadline;
        if self.runners[index].take_deposed()
            && let Some(elector) = &mut self.elector
        {
            elector.deposed(now);
            self.settle(now, out);
        }
    }

    fn start_if_due(&mut self, now: Now, out: &mut Vec<ToServer>) {
        if self.started {
            return;
        }
        let start_by = *self.start_by.get_or_insert(now.mono + START_PATIENCE);
        if self.elector.as_ref().is_none_or(Elector::has_tried) || start_by <= now.mono {
            self.started = true;
            let mandate = self.settle(now, out);
            self.step_all(now, mandate.as_ref(), out);
        }
    }

    fn tell(&mut self, now: Now, index: usize, input: &FromServer, out: &mut Vec<ToServer>) {
        let mandate = self.settle(now, out);
        let informers = &mut self.groups[self.group_of[index]].informers;
        self.runners[index].handle(&mut Turn { now, informers, mandate: mandate.as_ref(), out }, input);
        self.after(now, index, out);
    }

    /// Passes a message to an informer, and the resulting changes to the runners that read the view.
    #[inline(always)]
    fn learn(&mut self, now: Now, group: usize, informer: usize, input: &FromServer, out: &mut Vec<ToServer>) {
        let mut changes = std::mem::take(&mut self.changes);
        let of = &mut self.groups[group];
        let kind = of.informers.handle(now, informer, input, out, &mut changes);
        let readers = std::mem::take(&mut of.readers[informer]);
        if self.some_wait {
            let concerned = |index: &usize| self.waiting[*index] || readers.contains(index);
            let concerned: Vec<usize> = of.runners.iter().copied().filter(concerned).collect();
            self.inform(now, group, &concerned, kind, &changes, out);
        } else {
            self.inform(now, group, &readers, kind, &changes, out);
        }
        self.groups[group].readers[informer] = readers;
        changes.clear();
        self.changes = changes;
        if kind == Kind::CUSTOM_RESOURCE_DEFINITION {
            self.follow_definitions(now, group, out);
        }
    }

    /// Starts informers for custom kinds that the controllers of a group now read, and stops those of kinds that are no
    /// longer served.
    #[cold]
    fn follow_definitions(&mut self, now: Now, group: usize, out: &mut Vec<ToServer>) {
        let of = &mut self.groups[group];
        let mut wanted = Vec::new();
        for index in of.runners.iter().copied() {
            let also = self.runners[index].watches_also(of.informers.views());
            wanted.extend(also.into_iter().map(|watched| (watched, index)));
        }
        let known: Vec<Kind> = of.informers.kinds().collect();
        for (watched, index) in &wanted {
            match known.iter().position(|kind| *kind == watched.kind) {
                Some(informer) => {
                    of.informers.resume(now, informer, out);
                    if !of.readers[informer].contains(index) {
                        of.readers[informer].push(*index);
                    }
                }
                None if !of.informers.views().has(watched.kind) => {
                    let part = self.routes.len() as u16;
                    self.routes.push(Route::Informer(group, of.readers.len()));
                    of.informers.add(now, *watched, part, out);
                    of.readers.push(vec![*index]);
                }
                None => {}
            }
        }
        let still = |kind: &Kind| kind.built_in().is_some() || wanted.iter().any(|(watched, _)| watched.kind == *kind);
        for informer in (0..known.len()).filter(|informer| !still(&known[*informer])) {
            let mut changes = Vec::new();
            of.informers.pause(informer, out, &mut changes);
            if !changes.is_empty() {
                let readers = self.groups[group].readers[informer].clone();
                return self.inform(now, group, &readers, known[informer], &changes, out);
            }
        }
        self.moved = true;
    }

    #[inline(always)]
    fn inform(
        &mut self,
        now: Now,
        group: usize,
        runners: &[usize],
        kind: Kind,
        changes: &[Change],
        out: &mut Vec<ToServer>,
    ) {
        let mut mandate = self.settle(now, out);
        for index in runners {
            let informers = &mut self.groups[group].informers;
            let mut turn = Turn { now, informers, mandate: mandate.as_ref(), out };
            if self.runners[*index].news(&mut turn, kind, changes) {
                self.after(now, *index, out);
                mandate = self.settle(now, out);
            }
        }
    }
}

impl ControllerManager {
    /// Routes a message to its recipient.
    fn take(&mut self, now: Now, input: &FromServer, out: &mut Vec<ToServer>) {
        let route = match input {
            FromServer::Reply(id, _) | FromServer::Watch(id, _) => {
                self.routes.get(usize::from(id.part())).copied().unwrap_or(Route::Nobody)
            }
            FromServer::Disconnected => {
                self.moved = true;
                if let Some(elector) = &mut self.elector {
                    elector.handle(now, input, out);
                }
                if self.started {
                    for group in 0..self.groups.len() {
                        let parts = usize::from(self.groups[group].informers.parts());
                        (0..parts).for_each(|part| self.learn(now, group, part, input, out));
                    }
                    (0..self.runners.len()).for_each(|index| self.tell(now, index, input, out));
                }
                return;
            }
        };
        // Watch events change no informer's deadline.
        self.moved |= !matches!(input, FromServer::Watch(..));
        match route {
            Route::Nobody => {}
            Route::Elector => {
                if let Some(elector) = &mut self.elector {
                    elector.handle(now, input, out);
                }
                self.start_if_due(now, out);
                self.settle(now, out);
            }
            Route::Informer(group, part) => self.learn(now, group, part, input, out),
            Route::Runner(index) => self.tell(now, index, input, out),
        }
    }

    /// Does what is due.
    fn act(&mut self, now: Now, out: &mut Vec<ToServer>) {
        if let Some(elector) = &mut self.elector {
            elector.handle_timeout(now, out);
        }
        self.start_if_due(now, out);
        let mut mandate = self.settle(now, out);
        if self.started {
            self.groups.iter_mut().for_each(|group| group.informers.handle_timeout(now, out));
        }
        for index in 0..self.runners.len() {
            if self.deadlines[index].is_some_and(|d| d.at <= now.mono) {
                let informers = &mut self.groups[self.group_of[index]].informers;
                self.runners[index].handle_timeout(&mut Turn { now, informers, mandate: mandate.as_ref(), out });
                self.after(now, index, out);
                mandate = self.settle(now, out);
            }
        }
    }

    /// Recomputes the earliest of all deadlines.
    fn first_deadline(&self) -> Option<Deadline> {
        let elector = self.elector.as_ref().and_then(Elector::poll_timeout);
        let start_by = self.start_by.unwrap_or(Mono::ZERO);
        let start = (!self.started).then_some(Deadline { at: start_by, why: "start informers" });
        let started = self.groups.iter().filter(|_| self.started);
        let informers = started.map(|group| group.informers.poll_timeout()).fold(None, Deadline::earlier);
        let first = Deadline::earlier(Deadline::earlier(elector, start), informers);
        self.deadlines.iter().fold(first, |a, b| Deadline::earlier(a, *b))
    }
}

impl Machine for ControllerManager {
    type In = FromServer;
    type Out = ToServer;

    fn handle(&mut self, now: Now, input: FromServer, out: &mut Vec<ToServer>) {
        self.take(now, &input, out);
        if std::mem::take(&mut self.moved) {
            self.next = self.first_deadline();
        }
    }

    fn handle_timeout(&mut self, now: Now, out: &mut Vec<ToServer>) {
        self.act(now, out);
        self.moved = false;
        self.next = self.first_deadline();
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.next
    }
}
