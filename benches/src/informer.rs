//! The cost of a watch event for a reader, depending on how many objects the reader holds.

use std::time::Instant;

use skeg_core::Kind;
use skeg_core::api::{Call, FromServer, ReqId, Response, ToServer, WatchEvent};
use skeg_core::client::{Index, Informer, InformerConfig, View};
use skeg_core::object::{FieldSelector, Object, Pod, Revision, Selector, Text};
use skeg_core::{Now, Rng};

use crate::Figure;
use crate::objects::Template;

/// Events in one repetition.
const EVENTS: usize = 5_000;
/// Repetitions of each size, alternating so that a slow moment of the machine affects both.
const REPETITIONS: usize = 41;
/// How many of the objects change.
const BUSY: usize = 1_000;

/// Cost of a watch event with 100,000 objects divided by the cost with 1,000.
///
/// In both cases the same number of random pods changes, but the number of other pods differs. So the ratio shows how
/// the cost of an event depends on the size of the cluster. If any of the 100,000 pods can change, each is out of the
/// processor's caches when its turn comes; that ratio is printed too, for comparison.
pub fn event_cost_ratio() -> Figure {
    let mut small = Reader::with_pods(1_000);
    let mut large = Reader::with_pods(100_000);
    let mut costs = [const { Vec::new() }; 3];
    for _ in 0..REPETITIONS {
        costs[0].push(small.nanos_per_event(BUSY));
        costs[1].push(large.nanos_per_event(BUSY));
        costs[2].push(large.nanos_per_event(usize::MAX));
    }
    let [few, many, any] = costs.map(median);
    eprintln!("an event costs {few:.0} ns at 1,000 objects, {many:.0} ns at 100,000 of which 1,000 are busy");
    eprintln!("and {any:.0} ns where any of the 100,000 may change: {:.2} times as much", any / few);
    Figure { name: "informer/event-cost-ratio", value: many / few, unit: "ratio" }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// An informer and its view, with an open watch.
struct Reader {
    informer: Informer,
    view: View,
    watch: ReqId,
    pods: Vec<Pod>,
    rv: u64,
    rng: Rng,
}

impl Reader {
    fn with_pods(n: usize) -> Reader {
        let template = Template::new();
        let pods: Vec<Pod> = (0..n).map(|i| template.pod(i, 1)).collect();
        let config = InformerConfig {
            kind: Kind::POD,
            namespace: "".into(),
            labels: Selector::everything(),
            fields: FieldSelector::everything(),
            user: "bench".into(),
        };
        let mut view = View::new(Kind::POD, &[Index::Owner, Index::Node]);
        let mut informer = Informer::new(config, 1, Rng::from_seed(1));
        let (now, mut out, mut changes) = (Now::default(), Vec::new(), Vec::new());
        informer.handle_timeout(now, &mut view, &mut out);
        let list = request(&mut out, |c| matches!(c, Call::List { .. }));
        let mut items: Vec<Object> = pods.iter().cloned().map(Object::from).collect();
        items.sort_by_key(|o| o.meta().name.clone());
        let response = Response::List { items: items.into(), rv: Revision(1), rest: None };
        informer.handle(now, &FromServer::Reply(list, Ok(response)), &mut view, &mut out, &mut changes);
        informer.handle_timeout(now, &mut view, &mut out);
        let watch = request(&mut out, |c| matches!(c, Call::Watch { .. }));
        assert_eq!(view.len(), n, "the list was taken in");
        Reader { informer, view, watch, pods, rv: 1, rng: Rng::from_seed(n as u64) }
    }

    /// Sends changes of random pods among the first `busy`. Creating the changes is not timed; dropping the results is.
    fn nanos_per_event(&mut self, busy: usize) -> f64 {
        let events: Vec<FromServer> = (0..EVENTS).map(|_| self.change(busy)).collect();
        let (now, mut out, mut changes) = (Now::default(), Vec::new(), Vec::new());
        let started = Instant::now();
        let mut changed = 0;
        for event in events {
            self.informer.handle(now, &event, &mut self.view, &mut out, &mut changes);
            changed += changes.len();
            changes.clear();
        }
        let nanos = started.elapsed().as_nanos() as f64;
        assert_eq!((changed, out.len()), (EVENTS, 0), "each event is one change");
        nanos / EVENTS as f64
    }

    fn change(&mut self, busy: usize) -> FromServer {
        self.rv += 1;
        let i = self.rng.below(self.pods.len().min(busy) as u64) as usize;
        let pod = &mut self.pods[i];
        pod.rv = Revision(self.rv);
        let running = pod.status.phase == Text::RUNNING;
        pod.status_mut().phase = if running { Text::PENDING } else { Text::RUNNING };
        FromServer::Watch(self.watch, WatchEvent::Modified(Object::from(pod.clone())))
    }
}

/// The request that was just pushed.
fn request(out: &mut Vec<ToServer>, is: impl Fn(&Call) -> bool) -> ReqId {
    let found = out.drain(..).find_map(|o| match o {
        ToServer::Request(id, request) if is(&request.call) => Some(id),
        ToServer::Request(..) | ToServer::Cancel(_) => None,
    });
    found.expect("the informer asks")
}
