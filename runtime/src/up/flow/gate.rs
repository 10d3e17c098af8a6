//! Where requests wait for their turn.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use hyper::Method;
use skeg_core::Kind;
use skeg_core::flow::{Comer, Decision, Dispatcher, LONGEST_WAIT, Refusal, Ticket, Width};
use skeg_core::machine::Mono;
use skeg_core::object::FieldSelector;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::super::params::Params;
use super::super::route::Objects;
use super::{Flow, Flows};

/// Maximum number of requests at once, apart from those that are exempt: the defaults of `--max-requests-inflight` and
/// `--max-mutating-requests-inflight` together.
const SEATS: u32 = 600;

/// Lets requests in.
#[derive(Debug)]
pub struct Gate {
    begun: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    dispatcher: Dispatcher,
    /// What the dispatcher was configured by.
    flows: Arc<Flows>,
    /// Who is told when its turn comes.
    waiting: BTreeMap<Ticket, oneshot::Sender<()>>,
    /// How many objects the last whole list of each kind had.
    sizes: BTreeMap<Kind, usize>,
    /// How many watches there are of each kind, in a namespace or in all, of one object or of all.
    watches: BTreeMap<Watched, usize>,
    reads: usize,
    writes: usize,
}

/// What a watch is about: a kind, a namespace and a name, either of which may be empty.
type Watched = (Kind, String, String);

/// A watch that counts, until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    gate: Arc<Gate>,
    watched: Watched,
}

/// A request that was let in, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    /// `None` for what came before there was a FlowSchema.
    ticket: Option<Ticket>,
    writes: bool,
}

/// A request that waits. When it is dropped, its client has gone or it has waited too long.
struct Wait<'a> {
    gate: &'a Gate,
    ticket: Ticket,
    turn: oneshot::Receiver<()>,
    /// `None` once it has its turn.
    gives_up: Option<Refusal>,
}

impl State {
    fn wake(&mut self, started: Vec<Ticket>) {
        for ticket in started {
            // Whoever has gone in this moment gives up, and has started by then.
            let _ = self.waiting.remove(&ticket).is_some_and(|turn| turn.send(()).is_ok());
        }
    }
}

impl Gate {
    /// It has no level yet.
    pub fn new() -> Gate {
        let state = State {
            dispatcher: Dispatcher::new(SEATS, Mono::ZERO),
            flows: Arc::default(),
            waiting: BTreeMap::new(),
            sizes: BTreeMap::new(),
            watches: BTreeMap::new(),
            reads: 0,
            writes: 0,
        };
        Gate { begun: Instant::now(), state: Mutex::new(state) }
    }

    /// The state, and the time: it never goes back while the state is held.
    fn lock(&self) -> (MutexGuard<'_, State>, Mono) {
        let state = self.state.lock().expect("nobody panics while requests are sorted");
        (state, Mono::ZERO + self.begun.elapsed())
    }

    /// Lets a request of this width in, perhaps after a while. `flows` are those in force.
    pub async fn enter(
        self: &Arc<Gate>,
        flows: &Arc<Flows>,
        flow: Option<&Flow>,
        (width, writes): (Width, bool),
    ) -> Result<Permit, Refusal> {
        let ticket = match flow {
            Some(flow) => Some(self.wait(flows, flow, width).await?),
            None => None,
        };
        let (mut state, _) = self.lock();
        *(if writes { &mut state.writes } else { &mut state.reads }) += 1;
        Ok(Permit { gate: Arc::clone(self), ticket, writes })
    }

    async fn wait(&self, flows: &Arc<Flows>, flow: &Flow, width: Width) -> Result<Ticket, Refusal> {
        let mut wait = {
            let (mut state, now) = self.lock();
            if !Arc::ptr_eq(&state.flows, flows) {
                let started = state.dispatcher.configure(now, flows.levels.clone());
                state.flows = Arc::clone(flows);
                state.wake(started);
            }
            let Flow { class, distinguisher } = flow;
            let comer = Comer { schema: &class.schema, level: &class.level, distinguisher, width };
            let (decision, others) = state.dispatcher.arrive(now, comer);
            state.wake(others);
            match decision {
                Decision::Start(ticket) => return Ok(ticket),
                Decision::Refuse(why) => return Err(why),
                Decision::Wait(ticket) => {
                    let (told, turn) = oneshot::channel();
                    state.waiting.insert(ticket, told);
                    Wait { gate: self, ticket, turn, gives_up: Some(Refusal::Cancelled) }
                }
            }
        };
        match timeout(LONGEST_WAIT, &mut wait.turn).await {
            Ok(turn) => {
                turn.expect("who waits is told");
                wait.gives_up = None;
                Ok(wait.ticket)
            }
            Err(_) => {
                wait.gives_up = Some(Refusal::TimeOut);
                Err(Refusal::TimeOut)
            }
        }
    }

    /// How wide a request is: lists take seats, as the last one of their kind was long, and watches that begin with
    /// one; writes keep some, as many watch what they write.
    pub fn width(&self, method: &Method, objects: &Objects, params: &Params) -> Width {
        let watches = objects.watch || params.flag("watch");
        let lists = if watches { params.flag("sendInitialEvents") } else { true };
        match *method {
            Method::GET if objects.name.is_none() && lists => {
                let limit = params.said("limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
                let size = self.lock().0.sizes.get(&objects.resource.kind).copied().unwrap_or(0);
                Width::of_list(size, limit)
            }
            Method::GET | Method::HEAD => Width::of(1),
            // A token is made without a word to watchers of its account.
            _ if objects.subresource.as_deref() == Some("token") => Width::of(1),
            _ => Width::of_write(self.watchers(objects)),
        }
    }

    /// How many watches may hear of a write.
    fn watchers(&self, objects: &Objects) -> usize {
        let (state, _) = self.lock();
        let name = objects.name.clone().unwrap_or_default();
        let mut about = vec![(String::new(), String::new()), (objects.namespace.clone(), String::new())];
        about.push((objects.namespace.clone(), name));
        // A write may have no namespace, or no name.
        about.dedup();
        let of = |(namespace, name)| state.watches.get(&(objects.resource.kind, namespace, name)).copied().unwrap_or(0);
        about.into_iter().map(of).sum()
    }

    /// Counts a watch. Those of one node's pods do not count: of all of them, one hears of a pod.
    pub fn watch(self: &Arc<Gate>, objects: &Objects, fields: &FieldSelector) -> Option<Watcher> {
        let kind = objects.resource.kind;
        if kind == Kind::POD && fields.required("spec.nodeName").is_some_and(|node| !node.is_empty()) {
            return None;
        }
        let name = fields.required("metadata.name").unwrap_or_default().to_owned();
        let watched = (kind, objects.namespace.clone(), name);
        *self.lock().0.watches.entry(watched.clone()).or_default() += 1;
        Some(Watcher { gate: Arc::clone(self), watched })
    }

    /// A request has been answered.
    fn end(self: &Arc<Gate>, ticket: Ticket) {
        let lingers = {
            let (mut state, now) = self.lock();
            let started = state.dispatcher.end(now, ticket);
            state.wake(started);
            state.dispatcher.lingers(ticket)
        };
        let Some(after) = lingers else { return };
        let gate = Arc::clone(self);
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                tokio::time::sleep(after).await;
                gate.release(ticket);
            })),
            // The server has ended.
            Err(_) => gate.release(ticket),
        }
    }

    fn release(&self, ticket: Ticket) {
        let (mut state, now) = self.lock();
        let started = state.dispatcher.release(now, ticket);
        state.wake(started);
    }

    /// A list of a kind had so many objects.
    pub fn note_size(&self, kind: Kind, objects: usize) {
        self.lock().0.sizes.insert(kind, objects);
    }

    /// Reads and writes that are being answered.
    pub fn present(&self) -> (usize, usize) {
        let (state, _) = self.lock();
        (state.reads, state.writes)
    }

    /// Shows what is counted.
    pub fn show<T>(&self, show: impl FnOnce(&Dispatcher) -> T) -> T {
        show(&self.lock().0.dispatcher)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        {
            let (mut state, _) = self.gate.lock();
            *(if self.writes { &mut state.writes } else { &mut state.reads }) -= 1;
        }
        if let Some(ticket) = self.ticket {
            self.gate.end(ticket);
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let (mut state, _) = self.gate.lock();
        let count = state.watches.get_mut(&self.watched).expect("it was counted");
        *count -= 1;
        if *count == 0 {
            state.watches.remove(&self.watched);
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Some(why) = self.gives_up else { return };
        let (mut state, now) = self.gate.lock();
        state.waiting.remove(&self.ticket);
        let started = state.dispatcher.give_up(now, self.ticket, why);
        state.wake(started);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use hyper::Method;
    use skeg_core::Kind;
    use skeg_core::flow::{LONGEST_WAIT, LevelConfig, Queuing, Refusal, Width};
    use skeg_core::object::FieldSelector;

    use super::Gate;
    use crate::up::flow::{Class, Flow, Flows};
    use crate::up::params::Params;
    use crate::up::route::Objects;
    use crate::up::served::Served;

    fn flow(who: &str) -> Flow {
        let class = Class { schema: "s".into(), level: "l".into(), schema_uid: "1".into(), level_uid: "2".into() };
        Flow { class: Arc::new(class), distinguisher: who.to_owned() }
    }

    /// One level with two seats of the whole; two requests may wait in its one queue.
    fn flows() -> Arc<Flows> {
        let queuing = Queuing { queues: 1, hand_size: 1, length_limit: 2 };
        let level = |name: &str, shares: u32, queuing: Option<Queuing>| LevelConfig {
            name: name.to_owned(),
            is_exempt: false,
            shares,
            lendable: 0,
            borrowing: Some(0),
            queuing,
        };
        Arc::new(Flows { schemas: Vec::new(), levels: vec![level("l", 1, Some(queuing)), level("rest", 299, None)] })
    }

    #[tokio::test(start_paused = true)]
    async fn requests_wait_for_their_turn_and_not_for_ever() {
        let (gate, flows) = (Arc::new(Gate::new()), flows());
        let enter = |who: &str| {
            let (gate, flows, flow) = (Arc::clone(&gate), Arc::clone(&flows), flow(who));
            tokio::spawn(async move { gate.enter(&flows, Some(&flow), (Width::of(1), true)).await })
        };
        let (first, second) = (enter("a").await.unwrap().unwrap(), enter("a").await.unwrap().unwrap());
        assert_eq!(gate.present(), (0, 2));
        let third = enter("a");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!third.is_finished());
        let fourth = enter("b");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(enter("c").await.unwrap().unwrap_err(), Refusal::QueueFull);
        drop(first);
        let third = third.await.unwrap().unwrap();
        tokio::time::sleep(LONGEST_WAIT).await;
        assert_eq!(fourth.await.unwrap().unwrap_err(), Refusal::TimeOut);
        // Whose client goes no longer waits.
        let fifth = enter("a");
        tokio::time::sleep(Duration::from_secs(1)).await;
        fifth.abort();
        assert!(fifth.await.is_err());
        drop((second, third));
        assert_eq!(gate.present(), (0, 0));
        let idle = |d: &skeg_core::flow::Dispatcher| d.present().values().all(|now| *now == Default::default());
        assert!(gate.show(idle));
        let refused = gate.show(|d| d.totals().next().unwrap().2.refused.values().sum::<u64>());
        assert_eq!(refused, 3);
    }

    fn config_maps(namespace: &str, name: Option<&str>) -> Objects {
        Objects {
            resource: Arc::clone(Served::built_in().by_path("", "v1", "configmaps").unwrap()),
            namespace: namespace.to_owned(),
            name: name.map(str::to_owned),
            subresource: None,
            watch: false,
        }
    }

    #[test]
    fn lists_take_seats_and_writes_to_their_collection_do_not() {
        let gate = Gate::new();
        gate.note_size(Kind::CONFIG_MAP, 350);
        for (method, name, query, expect) in [
            (Method::GET, None, "", 4),
            (Method::GET, None, "limit=150", 2),
            (Method::GET, Some("m"), "", 1),
            (Method::GET, None, "watch=1", 1),
            (Method::GET, None, "watch=1&sendInitialEvents=true", 4),
            (Method::POST, None, "", 1),
            (Method::DELETE, None, "", 1),
        ] {
            let width = gate.width(&method, &config_maps("n", name), &Params::parse(Some(query)));
            assert_eq!(width, Width::of(expect), "{method} {name:?} {query}");
        }
    }

    #[test]
    fn writes_are_as_wide_as_many_may_hear_of_them() {
        let gate = Arc::new(Gate::new());
        let watch = |namespace: &str, fields: &str| {
            let fields = FieldSelector::parse(fields).unwrap();
            (0..10).map(|_| gate.watch(&config_maps(namespace, None), &fields)).collect::<Vec<_>>()
        };
        let all = [watch("", ""), watch("n", ""), watch("n", "metadata.name=m"), watch("o", ""), watch("n", "data=x")];
        let telling = |method: Method, objects: &Objects| gate.width(&method, objects, &Params::parse(None)).telling;
        assert_eq!(telling(Method::PUT, &config_maps("n", Some("m"))), 4);
        assert_eq!(telling(Method::PATCH, &config_maps("n", Some("other"))), 3);
        assert_eq!(telling(Method::POST, &config_maps("n", None)), 3);
        assert_eq!(telling(Method::DELETE, &config_maps("p", Some("m"))), 1);
        assert_eq!(telling(Method::GET, &config_maps("n", Some("m"))), 0);
        let token = Objects { subresource: Some("token".to_owned()), ..config_maps("n", Some("m")) };
        assert_eq!(telling(Method::POST, &token), 0);
        let pods = Objects {
            resource: Arc::clone(Served::built_in().by_path("", "v1", "pods").unwrap()),
            ..config_maps("", None)
        };
        let of_node = FieldSelector::parse("spec.nodeName=node-1").unwrap();
        assert!(gate.watch(&pods, &of_node).is_none(), "one node hears of a pod");
        assert!(gate.watch(&pods, &FieldSelector::parse("spec.nodeName=").unwrap()).is_some());
        drop(all);
        assert_eq!(telling(Method::PUT, &config_maps("n", Some("m"))), 0);
        assert!(gate.lock().0.watches.is_empty());
    }

    /// One level with two seats of the whole: two writes with many watchers keep them after their answers.
    #[tokio::test(start_paused = true)]
    async fn seats_are_kept_for_watchers_after_the_answer() {
        let (gate, flows, flow) = (Arc::new(Gate::new()), flows(), flow("a"));
        for _ in 0..2 {
            let permit = gate.enter(&flows, Some(&flow), (Width::of_write(1000), true)).await;
            drop(permit.unwrap());
        }
        assert_eq!(gate.present(), (0, 0));
        let seats = || gate.show(|d| d.present().values().map(|now| now.seats).sum::<u32>());
        assert_eq!(seats(), 2);
        let begun = tokio::time::Instant::now();
        drop(gate.enter(&flows, Some(&flow), (Width::of(1), false)).await.unwrap());
        // 100 seats for 5 ms are narrowed to one.
        assert_eq!(begun.elapsed().as_millis(), 500);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(seats(), 0);
    }

    #[tokio::test]
    async fn what_comes_before_there_are_flow_schemas_is_let_in() {
        let gate = Arc::new(Gate::new());
        let permit = gate.enter(&Arc::default(), None, (Width::of(1), false)).await.unwrap();
        assert_eq!(gate.present(), (1, 0));
        drop(permit);
        assert_eq!(gate.present(), (0, 0));
    }
}
