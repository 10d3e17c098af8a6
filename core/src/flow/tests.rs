use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, proptest};
use proptest::{collection, prop_oneof};

use super::{Comer, Decision, Dispatcher, LevelConfig, Limits, Present, Queuing, Refusal, Ticket, Width};
use crate::machine::Mono;

fn level(name: &str, shares: u32, queuing: Option<Queuing>) -> LevelConfig {
    LevelConfig { name: name.to_owned(), is_exempt: false, shares, lendable: 0, borrowing: Some(0), queuing }
}

fn queuing(queues: usize, hand_size: usize, length_limit: usize) -> Option<Queuing> {
    Some(Queuing { queues, hand_size, length_limit })
}

fn at(millis: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(millis)
}

fn comer<'a>(level: &'a str, who: &'a str, seats: u32) -> Comer<'a> {
    Comer { schema: "schema", level, distinguisher: who, width: Width::of(seats) }
}

/// A server of so many seats with these levels.
fn dispatcher(seats: u32, levels: Vec<LevelConfig>) -> Dispatcher {
    let mut dispatcher = Dispatcher::new(seats, Mono::ZERO);
    assert!(dispatcher.configure(Mono::ZERO, levels).is_empty());
    dispatcher
}

fn started((decision, others): (Decision, Vec<Ticket>)) -> Ticket {
    assert!(others.is_empty());
    let Decision::Start(ticket) = decision else { panic!("{decision:?}") };
    ticket
}

fn waiting((decision, others): (Decision, Vec<Ticket>)) -> Ticket {
    assert!(others.is_empty());
    let Decision::Wait(ticket) = decision else { panic!("{decision:?}") };
    ticket
}

#[test]
fn a_level_without_queues_turns_away_what_has_no_seat() {
    let mut d = dispatcher(2, vec![level("a", 1, None)]);
    let first = started(d.arrive(at(0), comer("a", "u", 1)));
    started(d.arrive(at(0), comer("a", "u", 1)));
    assert_eq!(d.arrive(at(0), comer("a", "u", 1)).0, Decision::Refuse(Refusal::ConcurrencyLimit));
    assert!(d.end(at(1), first).is_empty());
    started(d.arrive(at(1), comer("a", "u", 1)));
    assert_eq!(d.limits().next(), Some(("a", Limits { nominal: 2, current: Some(2) })));
    assert_eq!(d.present()[&("a", "schema")], Present { seats: 2, executing: 2, waiting: 0 });
    let (level, schema, totals) = d.totals().next().unwrap();
    assert_eq!((level, schema, totals.dispatched), ("a", "schema", 3));
    assert_eq!(totals.refused.iter().collect::<Vec<_>>(), [(&Refusal::ConcurrencyLimit, &1)]);
}

#[test]
fn a_flow_that_floods_lets_another_through() {
    let mut d = dispatcher(1, vec![level("a", 1, queuing(64, 1, 50))]);
    let mut running = started(d.arrive(at(0), comer("a", "many", 1)));
    for _ in 0..10 {
        waiting(d.arrive(at(0), comer("a", "many", 1)));
    }
    let few = waiting(d.arrive(at(5), comer("a", "few", 1)));
    let mut order = Vec::new();
    for step in 1..=11 {
        let next = d.end(at(5 + 10 * step), running);
        assert_eq!(next.len(), 1, "a seat is never idle while somebody waits");
        running = next[0];
        order.push(running);
    }
    let place = order.iter().position(|ticket| *ticket == few).unwrap();
    assert!(place <= 1, "it is served as soon as it is its turn, after {place} others");
    assert!(d.end(at(500), running).is_empty());
}

#[test]
fn a_queue_that_is_full_takes_no_more_while_all_seats_are_taken() {
    let mut d = dispatcher(1, vec![level("a", 1, queuing(1, 1, 2))]);
    let first = started(d.arrive(at(0), comer("a", "u", 1)));
    let (second, third) = (waiting(d.arrive(at(0), comer("a", "u", 1))), waiting(d.arrive(at(0), comer("a", "u", 1))));
    assert_eq!(d.arrive(at(0), comer("a", "u", 1)).0, Decision::Refuse(Refusal::QueueFull));
    assert!(d.give_up(at(1), third, Refusal::TimeOut).is_empty());
    waiting(d.arrive(at(1), comer("a", "u", 1)));
    assert_eq!(d.end(at(2), first), [second]);
    // What has started meanwhile, and whose client has gone, has ended.
    assert_eq!(d.give_up(at(3), second, Refusal::Cancelled).len(), 1);
    let refused: Vec<_> = d.totals().next().unwrap().2.refused.iter().map(|(why, n)| (why.name(), *n)).collect();
    assert_eq!(refused, [("queue-full", 1), ("time-out", 1)]);
}

#[test]
fn what_wants_more_seats_than_there_are_waits_until_it_is_alone() {
    let mut d = dispatcher(3, vec![level("a", 1, queuing(8, 1, 50))]);
    let (one, two) = (started(d.arrive(at(0), comer("a", "u", 1))), started(d.arrive(at(0), comer("a", "v", 2))));
    let wide = waiting(d.arrive(at(1), comer("a", "w", 10)));
    assert!(d.end(at(2), one).is_empty());
    assert_eq!(d.end(at(3), two), [wide]);
    let next = waiting(d.arrive(at(4), comer("a", "u", 1)));
    assert_eq!(d.end(at(5), wide), [next]);
}

#[test]
fn what_is_exempt_or_of_no_level_never_waits() {
    let exempt = LevelConfig { is_exempt: true, ..level("exempt", 0, None) };
    let mut d = dispatcher(1, vec![exempt, level("a", 1, None)]);
    for _ in 0..100 {
        started(d.arrive(at(0), comer("exempt", "u", 1)));
    }
    let early = started(d.arrive(at(0), comer("new", "u", 1)));
    assert!(d.configure(at(1), vec![level("new", 1, None)]).is_empty());
    assert!(d.end(at(2), early).is_empty());
    started(d.arrive(at(3), comer("new", "u", 1)));
}

#[test]
fn a_level_that_is_removed_stays_until_its_requests_are_answered() {
    let mut d = dispatcher(2, vec![level("a", 1, queuing(1, 1, 5)), level("b", 1, None)]);
    let (first, second) = (started(d.arrive(at(0), comer("a", "u", 1))), waiting(d.arrive(at(0), comer("a", "u", 1))));
    // The other has all seats only once this one has gone.
    assert!(d.configure(at(1), vec![level("b", 1, None)]).is_empty());
    assert_eq!(d.limits().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(d.end(at(2), first), [second]);
    d.end(at(3), second);
    assert_eq!(d.limits().map(|(name, _)| name).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn seats_are_lent_where_nobody_needs_them() {
    let lends = |name: &str| LevelConfig { lendable: 50, borrowing: None, ..level(name, 1, queuing(8, 2, 50)) };
    let mut d = dispatcher(8, vec![lends("a"), lends("b")]);
    let held: Vec<Ticket> = (0..4).map(|_| started(d.arrive(at(0), comer("a", "u", 1)))).collect();
    for _ in 0..4 {
        waiting(d.arrive(at(0), comer("a", "u", 1)));
    }
    let limits = |d: &Dispatcher| d.limits().map(|(_, now)| now.current.unwrap()).collect::<Vec<_>>();
    assert_eq!(limits(&d), [4, 4]);
    // Two more start when a period is over, since the other level has not needed its seats; then as seats get free.
    assert_eq!(d.end(at(10_000), held[0]).len(), 3);
    assert_eq!(limits(&d), [6, 2]);
}

#[test]
fn a_write_keeps_its_seats_until_its_watchers_are_told() {
    let mut d = dispatcher(100, vec![level("a", 1, queuing(1, 1, 50))]);
    let write = |watchers| Comer { width: Width::of_write(watchers), ..comer("a", "u", 1) };
    let narrow = started(d.arrive(at(0), write(9)));
    assert!(d.end(at(1), narrow).is_empty());
    assert_eq!((d.lingers(narrow), d.present()[&("a", "schema")]), (None, Present::default()));
    let wide: Vec<Ticket> = (0..10).map(|_| started(d.arrive(at(1), write(1000)))).collect();
    let next = waiting(d.arrive(at(1), comer("a", "u", 1)));
    // It has been answered, but holds all of its seats.
    assert!(d.end(at(2), wide[0]).is_empty());
    assert_eq!(d.lingers(wide[0]), Some(Duration::from_millis(50)));
    assert_eq!(d.present()[&("a", "schema")], Present { seats: 100, executing: 9, waiting: 1 });
    assert!(d.end(at(3), wide[0]).is_empty(), "it ends once");
    assert_eq!(d.release(at(52), wide[0]), [next]);
    assert_eq!(d.present()[&("a", "schema")], Present { seats: 91, executing: 10, waiting: 0 });
    assert!(d.release(at(53), wide[0]).is_empty());
}

/// A level's part of the server, and its hands, bound what one write keeps; it keeps that for longer instead.
#[test]
fn a_small_level_makes_writes_narrow_and_long() {
    let kept = |seats: u32, hand: usize| {
        let mut d = dispatcher(seats, vec![level("a", 1, queuing(8, hand, 50))]);
        let wide = started(d.arrive(at(0), Comer { width: Width::of_write(100), ..comer("a", "u", 1) }));
        d.end(at(1), wide);
        (d.present()[&("a", "schema")].seats, d.lingers(wide).unwrap().as_millis())
    };
    assert_eq!(kept(100, 1), (10, 5));
    assert_eq!(kept(20, 1), (3, 16), "15% of 20");
    assert_eq!(kept(20, 8), (2, 25), "20 divided by a hand of 8");
    assert_eq!(kept(4, 8), (1, 50));
}

#[test]
fn what_is_exempt_keeps_nothing() {
    let mut d = dispatcher(10, vec![LevelConfig { is_exempt: true, ..level("a", 1, None) }]);
    let wide = started(d.arrive(at(0), Comer { width: Width::of_write(1000), ..comer("a", "u", 1) }));
    assert!(d.end(at(1), wide).is_empty());
    assert_eq!((d.lingers(wide), d.present()[&("a", "schema")]), (None, Present::default()));
}

#[derive(Clone, Debug)]
enum Step {
    Arrive { level: usize, who: u8, seats: u32, watchers: usize },
    Release(usize),
    End(usize),
    GiveUp(usize),
    Configure { shares: [u32; 3], queues: usize },
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4usize, 0..5u8, 1..12u32, prop_oneof![Just(0), 0..200usize])
            .prop_map(|(level, who, seats, watchers)| Step::Arrive { level, who, seats, watchers }),
        2 => any::<usize>().prop_map(Step::Release),
        4 => any::<usize>().prop_map(Step::End),
        1 => any::<usize>().prop_map(Step::GiveUp),
        1 => ([0..20u32, 1..20u32, 1..20u32], 1..10usize)
            .prop_map(|(shares, queues)| Step::Configure { shares, queues }),
        2 => (1..9000u64).prop_map(Step::Pass),
    ]
}

const NAMES: [&str; 4] = ["exempt", "one", "two", "none"];

fn levels(shares: [u32; 3], queues: usize) -> Vec<LevelConfig> {
    let one =
        LevelConfig { lendable: 30, borrowing: None, ..level("one", shares[1], queuing(queues, queues.min(3), 3)) };
    let two = LevelConfig { lendable: 90, ..level("two", shares[2], None) };
    vec![LevelConfig { is_exempt: true, ..level("exempt", shares[0], None) }, one, two]
}

proptest! {
    #[test]
    fn every_request_starts_once_or_is_turned_away_and_seats_are_kept(
        steps in collection::vec(step(), 1..200), seats in 1..20u32,
    ) {
        let mut d = dispatcher(seats, levels([0, 10, 10], 4));
        let (mut now, mut running, mut waits) = (Mono::ZERO, Vec::new(), BTreeSet::new());
        let mut lingering = Vec::new();
        let begin = |others: Vec<Ticket>, running: &mut Vec<Ticket>, waits: &mut BTreeSet<Ticket>| {
            for ticket in others {
                assert!(waits.remove(&ticket), "only what waits starts, once");
                running.push(ticket);
            }
        };
        for step in steps {
            match step {
                Step::Arrive { level, who, seats, watchers } => {
                    let who = who.to_string();
                    let width = if watchers > 0 { Width::of_write(watchers) } else { Width::of(seats) };
                    let (decision, others) = d.arrive(now, Comer { width, ..comer(NAMES[level], &who, 1) });
                    begin(others, &mut running, &mut waits);
                    match decision {
                        Decision::Start(ticket) => running.push(ticket),
                        Decision::Wait(ticket) => prop_assert!(waits.insert(ticket)),
                        Decision::Refuse(_) => prop_assert!(level == 1 || level == 2),
                    }
                }
                Step::End(n) if !running.is_empty() => {
                    let ticket = running.swap_remove(n % running.len());
                    begin(d.end(now, ticket), &mut running, &mut waits);
                    lingering.extend(d.lingers(ticket).map(|_| ticket));
                }
                Step::Release(n) if !lingering.is_empty() => {
                    let ticket = lingering.swap_remove(n % lingering.len());
                    begin(d.release(now, ticket), &mut running, &mut waits);
                }
                Step::GiveUp(n) if !waits.is_empty() => {
                    let ticket = *waits.iter().nth(n % waits.len()).unwrap();
                    // It starts at the last moment where a period ends: then it has ended.
                    let others = d.give_up(now, ticket, Refusal::Cancelled);
                    begin(others.into_iter().filter(|other| *other != ticket).collect(), &mut running, &mut waits);
                    waits.remove(&ticket);
                }
                Step::Configure { shares, queues } => {
                    begin(d.configure(now, levels(shares, queues)), &mut running, &mut waits);
                }
                Step::Pass(millis) => now = now + Duration::from_millis(millis),
                Step::End(_) | Step::Release(_) | Step::GiveUp(_) => {}
            }
        }
        let waiting: usize = d.present().values().map(|now| now.waiting).sum();
        prop_assert_eq!(waiting, waits.len());
        // All that runs ends, and so all that waits is answered.
        for ticket in lingering {
            begin(d.release(now, ticket), &mut running, &mut waits);
        }
        while let Some(ticket) = running.pop() {
            now = now + Duration::from_millis(1);
            begin(d.end(now, ticket), &mut running, &mut waits);
            begin(d.release(now, ticket), &mut running, &mut waits);
        }
        prop_assert!(waits.is_empty(), "{:?} wait for ever", waits);
        prop_assert!(d.present().values().all(|now| *now == Present::default()));
    }
}
