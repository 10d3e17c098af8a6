//! Leader election over a Lease. Gives the leader a fence for each of its writes.
//!
//! Follows client-go's `leaderelection`: a candidate acquires the lease once the record has not changed for the lease
//! duration, measured *by the candidate's own clock*. A leader renews the lease every retry period and steps down if it
//! could not renew it within the renew deadline.
//!
//! Never gives out a fence for a lease that this process did not acquire, nor after the renew deadline.
//!
//! Every acquisition changes `leaseTransitions` or creates the Lease, and a renewal does neither. This is how the epoch
//! of a [`Fence`] is derived from the object.

use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as WholeLease, LeaseSpec};

use crate::api::{
    Call, Fence, FromServer, Reason, ReqId, ReqIds, Request, Response, Status, Subresource, ToServer, WriteOptions,
};
use crate::limits;
use crate::machine::{Deadline, Mono, Now};
use crate::object::{Lease, Object, ObjectKey, ObjectMeta, RenewTime, Revision};
use crate::random::Rng;

/// Time-out of an election request (client-go: half the renew deadline).
const ELECTION_REQUEST_TIMEOUT: Duration = Duration::from_secs(limits::RENEW_DEADLINE.as_secs() / 2);

/// Purpose of an election request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ask {
    Read,
    Acquire,
    Renew,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    id: ReqId,
    ask: Ask,
    sent: Mono,
}

/// A record that this process wrote or tried to write.
#[derive(Clone, Debug)]
struct Written {
    spec: LeaseSpec,
    renewal: RenewTime,
    sent: Mono,
    /// True for an acquisition, false for a renewal.
    acquiring: bool,
}

/// Leadership that this process has acquired.
#[derive(Clone, Debug)]
struct Held {
    epoch: Revision,
    lease: Lease,
    /// When the last successful write of the record was sent. Other candidates count from a later time, so this is
    /// safe.
    renewed: Mono,
}

/// Another holder's record as last read, and the time since which it has not changed.
#[derive(Clone, Debug)]
struct Observed {
    lease: Lease,
    since: Mono,
}

/// A candidate in one election; client-go's `leaderelection` with [`Fence`]s.
#[derive(Debug)]
pub struct Elector {
    lease: ObjectKey,
    identity: Rc<str>,
    user: Rc<str>,
    ids: ReqIds,
    rng: Rng,
    next_at: Mono,
    in_flight: Option<InFlight>,
    observed: Option<Observed>,
    held: Option<Held>,
    /// The last acquisition or renewal that was sent. Distinguishes this process's records from those of an earlier
    /// process with the same identity.
    written: Option<Written>,
    /// The state of the Lease is unknown; it must be read before the next write.
    must_read: bool,
}

impl Elector {
    /// Creates a candidate named `identity` for the Lease with this key.
    pub fn new(lease: ObjectKey, identity: Rc<str>, user: Rc<str>, part: u16, rng: Rng) -> Elector {
        Elector {
            lease,
            identity,
            user,
            ids: ReqIds::new(part),
            rng,
            next_at: Mono::ZERO,
            in_flight: None,
            observed: None,
            held: None,
            written: None,
            must_read: true,
        }
    }

    /// Returns the fence while this candidate is the leader; `None` if it is not elected or its renewal is overdue.
    pub fn fence(&self, now: Now) -> Option<Fence> {
        let held = self.held.as_ref().filter(|h| now.mono < h.renewed + limits::RENEW_DEADLINE)?;
        Some(Fence { lease: self.lease.clone(), epoch: held.epoch })
    }

    /// Steps down because the server rejected a write's fence, whatever this candidate believes.
    pub fn deposed(&mut self, now: Now) {
        if self.held.take().is_some() {
            self.must_read = true;
            self.next_at = now.mono;
            if let Some(written) = &mut self.written {
                written.acquiring = false;
            }
        }
    }

    /// Handles a message from the server; ignores messages for other parts.
    pub fn handle(&mut self, now: Now, input: &FromServer, out: &mut Vec<ToServer>) {
        self.lapse(now);
        match input {
            FromServer::Reply(id, result) => {
                let Some(flight) = self.in_flight.filter(|f| f.id == *id) else { return };
                self.in_flight = None;
                match flight.ask {
                    Ask::Read => self.take_read(now, result, out),
                    Ask::Acquire => self.take_acquired(now, flight, result),
                    Ask::Renew => self.take_renewed(now, flight, result),
                }
            }
            FromServer::Disconnected => {
                if self.in_flight.take().is_some() {
                    self.must_read = true;
                    self.next_at = now.mono + self.rng.jitter(limits::RETRY_PERIOD / 4, 100);
                }
            }
            FromServer::Watch(..) => {}
        }
    }

    /// Acquires or renews the lease if that is due.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Vec<ToServer>) {
        self.lapse(now);
        if self.in_flight.is_some_and(|f| f.sent + ELECTION_REQUEST_TIMEOUT <= now.mono) {
            self.in_flight = None;
            self.must_read = true;
            self.next_at = now.mono;
        }
        if self.in_flight.is_some() || self.next_at > now.mono {
            return;
        }
        match &self.held {
            Some(held) if !self.must_read => {
                let lease = held.lease.clone();
                self.renew(now, lease, out);
            }
            Some(_) | None => self.read(now, out),
        }
    }

    /// When `handle_timeout` is next needed; this includes the moment at which leadership expires.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let act = match &self.in_flight {
            Some(f) => Deadline { at: f.sent + ELECTION_REQUEST_TIMEOUT, why: "election request timed out" },
            None if self.held.is_some() => Deadline { at: self.next_at, why: "renew lease" },
            None => Deadline { at: self.next_at, why: "acquire leadership" },
        };
        let lose = self.held.as_ref();
        let lose = lose.map(|h| Deadline { at: h.renewed + limits::RENEW_DEADLINE, why: "leadership runs out" });
        Deadline::earlier(Some(act), lose)
    }

    /// Ends leadership that could not be renewed in time. A late reply never restores it: the owner has dropped the
    /// state of that term and must be able to tell the next term by its epoch.
    fn lapse(&mut self, now: Now) {
        if self.held.as_ref().is_some_and(|h| h.renewed + limits::RENEW_DEADLINE <= now.mono) {
            self.held = None;
            self.must_read = true;
        }
    }

    /// Whether this candidate has tried to become the leader and knows the outcome.
    pub fn has_tried(&self) -> bool {
        self.held.is_some() || self.observed.is_some()
    }

    fn send(&mut self, now: Now, ask: Ask, call: Call, out: &mut Vec<ToServer>) {
        assert!(self.in_flight.is_none(), "an election has one request on its way");
        let id = self.ids.next();
        out.push(ToServer::Request(id, Request::new(&self.user, call)));
        self.in_flight = Some(InFlight { id, ask, sent: now.mono });
    }

    fn read(&mut self, now: Now, out: &mut Vec<ToServer>) {
        self.send(now, Ask::Read, Call::Get { key: self.lease.clone(), rv: None }, out);
    }

    fn renew(&mut self, now: Now, mut lease: Lease, out: &mut Vec<ToServer>) {
        lease.renewal = RenewTime::of(now.wall);
        let (spec, renewal) = (LeaseSpec::clone(&lease.spec), lease.renewal);
        self.written = Some(Written { spec, renewal, sent: now.mono, acquiring: false });
        let object = Object::Lease(lease);
        let call = Call::Update { object, subresource: Subresource::None, options: WriteOptions::default() };
        self.send(now, Ask::Renew, call, out);
    }

    /// Acquires a lease that does not exist or is held by another process.
    fn acquire(&mut self, now: Now, current: Option<Lease>, out: &mut Vec<ToServer>) {
        let transitions = current.as_ref().map_or(0, |l| l.spec.lease_transitions.unwrap_or(0).saturating_add(1));
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.to_string()),
            lease_duration_seconds: Some(limits::LEASE_DURATION.as_secs() as i32),
            acquire_time: Some(now.wall.to_micro_time()),
            renew_time: None,
            lease_transitions: Some(transitions),
            preferred_holder: None,
            strategy: None,
        };
        let renewal = RenewTime::of(now.wall);
        self.written = Some(Written { spec: spec.clone(), renewal, sent: now.mono, acquiring: true });
        let options = WriteOptions::default();
        let call = match current {
            Some(mut lease) => {
                *lease.spec_mut() = spec;
                lease.renewal = renewal;
                Call::Update { object: Object::Lease(lease), subresource: Subresource::None, options }
            }
            None => {
                let meta = ObjectMeta {
                    name: Some(self.lease.name().to_owned()),
                    namespace: Some(self.lease.namespace().to_owned()),
                    ..ObjectMeta::default()
                };
                let mut lease = Lease::new(meta, spec, ());
                lease.renewal = renewal;
                Call::Create { object: Object::Lease(lease), options }
            }
        };
        self.send(now, Ask::Acquire, call, out);
    }

    fn retry(&mut self, now: Now) {
        // client-go's `JitterFactor` is 1.2.
        self.next_at = now.mono + self.rng.jitter(limits::RETRY_PERIOD, 120);
    }

    fn take_read(&mut self, now: Now, result: &Result<Response, Status>, out: &mut Vec<ToServer>) {
        match result {
            Ok(Response::Object(object)) => match object.get::<WholeLease>() {
                Some(lease) => {
                    self.must_read = false;
                    self.judge(now, lease.clone(), out);
                }
                None => self.retry(now),
            },
            Err(status) if status.reason == Reason::NotFound => {
                // A deleted Lease ends every leadership.
                self.must_read = false;
                self.held = None;
                self.observed = None;
                self.acquire(now, None, out);
            }
            Ok(Response::List { .. } | Response::Scale(_) | Response::Done { .. }) | Err(_) => self.retry(now),
        }
    }

    /// Decides from a Lease that was just read.
    fn judge(&mut self, now: Now, lease: Lease, out: &mut Vec<ToServer>) {
        let own = self.written.clone().filter(|w| same_tenure(&w.spec, &lease.spec));
        if self.held.as_ref().is_some_and(|h| same_tenure(&h.lease.spec, &lease.spec)) {
            self.renew(now, lease, out);
            return;
        }
        self.held = None;
        match own {
            // An acquisition with an unknown outcome did succeed. The record has not changed since, so its revision is
            // the revision of the acquisition.
            Some(w) if w.acquiring && w.wrote(&lease) && now.mono < w.sent + limits::RENEW_DEADLINE => {
                self.held = Some(Held { epoch: lease.rv, lease, renewed: w.sent });
                self.next_at = w.sent + limits::RETRY_PERIOD;
            }
            // This process acquired the lease, but too long ago to rely on it. No other process leads, so it starts a
            // new term.
            Some(_) => self.acquire(now, Some(lease), out),
            None if self.is_free(now, &lease) => self.acquire(now, Some(lease), out),
            None => self.retry(now),
        }
    }

    /// Whether another holder's record has expired by this process's own clock. Records when the record last changed.
    fn is_free(&mut self, now: Now, lease: &Lease) -> bool {
        let since = match &self.observed {
            Some(seen) if seen.lease.renewal == lease.renewal && seen.lease.spec == lease.spec => seen.since,
            Some(_) | None => now.mono,
        };
        self.observed = Some(Observed { lease: lease.clone(), since });
        if lease.spec.holder_identity.as_deref().unwrap_or("").is_empty() {
            return true;
        }
        let seconds = lease.spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        since + seconds.map_or(limits::LEASE_DURATION, Duration::from_secs) <= now.mono
    }

    fn take_acquired(&mut self, now: Now, flight: InFlight, result: &Result<Response, Status>) {
        match result {
            Ok(Response::Object(Object::Lease(lease))) if now.mono < flight.sent + limits::RENEW_DEADLINE => {
                self.held = Some(Held { epoch: lease.rv, lease: lease.clone(), renewed: flight.sent });
                self.observed = None;
                self.next_at = flight.sent + limits::RETRY_PERIOD;
            }
            Ok(_) | Err(_) => {
                self.must_read = true;
                self.retry(now);
            }
        }
    }

    fn take_renewed(&mut self, now: Now, flight: InFlight, result: &Result<Response, Status>) {
        match (result, &mut self.held) {
            (Ok(Response::Object(Object::Lease(lease))), Some(held)) => {
                held.lease = lease.clone();
                held.renewed = flight.sent;
                self.next_at = flight.sent + limits::RETRY_PERIOD;
            }
            (Ok(_) | Err(_), _) => {
                self.must_read = true;
                let conflict = matches!(result, Err(s) if s.reason == Reason::Conflict);
                self.next_at = if conflict { now.mono } else { now.mono + limits::RETRY_PERIOD / 2 };
            }
        }
    }
}

impl Written {
    /// Whether `lease` contains the record that was written.
    fn wrote(&self, lease: &Lease) -> bool {
        self.renewal == lease.renewal && self.spec == *lease.spec
    }
}

/// Whether two records belong to the same term: same holder and same acquisition time.
fn same_tenure(a: &LeaseSpec, b: &LeaseSpec) -> bool {
    a.holder_identity == b.holder_identity
        && a.acquire_time == b.acquire_time
        && a.lease_transitions == b.lease_transitions
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Elector;
    use crate::api::{Call, FromServer, ReqId, Response, Status, ToServer};
    use crate::limits;
    use crate::machine::{Mono, Now, Wall};
    use crate::object::{Kind, Lease, Object, ObjectKey, Revision};
    use crate::random::Rng;

    fn key() -> ObjectKey {
        ObjectKey::new(Kind::LEASE, "kube-system", "x")
    }

    /// One Lease as an API server stores it.
    #[derive(Default)]
    struct Server {
        lease: Option<Lease>,
        revision: u64,
    }

    impl Server {
        fn put(&mut self, mut lease: Lease) -> Object {
            self.revision += 1;
            lease.rv = Revision(self.revision);
            self.lease = Some(lease.clone());
            Object::Lease(lease)
        }

        fn answer(&mut self, call: Call) -> Result<Response, Status> {
            let stored = self.lease.clone();
            Ok(Response::Object(match (call, stored) {
                (Call::Get { .. }, Some(l)) => Object::Lease(l),
                (Call::Get { .. }, None) => return Err(Status::not_found(Kind::LEASE.row(), "x")),
                (Call::Create { .. }, Some(_)) => return Err(Status::already_exists(Kind::LEASE.row(), "x")),
                (Call::Create { object: Object::Lease(l), .. }, None) => self.put(l),
                (Call::Update { object: Object::Lease(l), .. }, Some(s)) if s.rv == l.rv => self.put(l),
                (Call::Update { .. }, _) => return Err(Status::stale(Kind::LEASE.row(), "x")),
                (other, _) => panic!("{other:?}"),
            }))
        }
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Link {
        Up,
        /// Requests are carried out but replies are lost.
        Deaf,
        Down,
    }

    fn elector(name: &str, seed: u64) -> Elector {
        Elector::new(key(), name.into(), "u".into(), 1, Rng::from_seed(seed))
    }

    fn at(seconds: u64) -> Now {
        Now { mono: Mono(seconds * 1_000_000_000), wall: Wall(seconds as i64 * 1_000_000) }
    }

    fn step(e: &mut Elector, server: &mut Server, link: Link, now: Now) {
        let mut out = Vec::new();
        e.handle_timeout(now, &mut out);
        while let Some(message) = out.pop() {
            let ToServer::Request(id, request) = message else { panic!("an elector has no watch") };
            if link != Link::Down {
                let reply = server.answer(request.call);
                if link == Link::Up {
                    e.handle(now, &FromServer::Reply(id, reply), &mut out);
                }
            }
        }
    }

    /// Advances through each second of `range`; returns the seconds in which each candidate leads.
    fn run(server: &mut Server, es: &mut [(&mut Elector, Link)], range: std::ops::Range<u64>) -> Vec<Vec<bool>> {
        range
            .map(|second| {
                es.iter_mut().for_each(|(e, link)| step(e, server, *link, at(second)));
                let leads: Vec<bool> = es.iter().map(|(e, _)| e.fence(at(second)).is_some()).collect();
                assert!(leads.iter().filter(|l| **l).count() <= 1, "two leaders at {second}");
                leads
            })
            .collect()
    }

    #[test]
    fn one_leads_and_another_takes_over() {
        let (mut server, mut a, mut b) = (Server::default(), elector("a", 1), elector("b", 2));
        let led = run(&mut server, &mut [(&mut a, Link::Up), (&mut b, Link::Up)], 0..60);
        assert!(led.iter().all(|l| l[0] && !l[1]));
        let first = a.fence(at(59)).unwrap();
        assert_eq!(first.epoch, Revision(1));
        let led = run(&mut server, &mut [(&mut a, Link::Down), (&mut b, Link::Up)], 60..100);
        let lost = led.iter().position(|l| !l[0]).unwrap();
        let won = led.iter().position(|l| l[1]).unwrap();
        assert!(lost <= 10 && (14..=22).contains(&won), "{lost} {won}");
        let epoch = b.fence(at(99)).unwrap().epoch;
        assert!(epoch > first.epoch && server.lease.as_ref().unwrap().rv > epoch, "renewals keep the epoch");
        assert_eq!(server.lease.as_ref().unwrap().spec.lease_transitions, Some(1));
        run(&mut server, &mut [(&mut a, Link::Up), (&mut b, Link::Up)], 100..160);
        assert_eq!(b.fence(at(159)).unwrap().epoch, epoch);
    }

    #[test]
    fn a_restarted_process_does_not_inherit() {
        let mut server = Server::default();
        let mut old = elector("a", 1);
        run(&mut server, &mut [(&mut old, Link::Up)], 0..10);
        let epoch = old.fence(at(9)).unwrap().epoch;
        let mut new = elector("a", 2);
        let led = run(&mut server, &mut [(&mut new, Link::Up)], 10..40);
        let won = led.iter().position(|l| l[0]).unwrap();
        assert!(won >= 14, "{won}");
        assert!(new.fence(at(39)).unwrap().epoch > epoch);
        assert_eq!(server.lease.unwrap().spec.lease_transitions, Some(1));
    }

    #[test]
    fn an_acquisition_whose_reply_was_lost_is_found_again() {
        let (mut server, mut a) = (Server::default(), elector("a", 1));
        step(&mut a, &mut server, Link::Up, at(0));
        a = elector("a", 1);
        server.lease = None;
        // The read gets its reply; the create does not.
        let mut out = Vec::new();
        a.handle_timeout(at(0), &mut out);
        let Some(ToServer::Request(id, r)) = out.pop() else { panic!() };
        a.handle(at(0), &FromServer::Reply(id, server.answer(r.call)), &mut out);
        let Some(ToServer::Request(lost, r)) = out.pop() else { panic!() };
        let created = server.answer(r.call).unwrap();
        assert!(a.fence(at(1)).is_none());
        step(&mut a, &mut server, Link::Up, at(5));
        let Response::Object(created) = created else { panic!() };
        assert_eq!(a.fence(at(6)).unwrap().epoch, created.rv());
        // The late reply to the first attempt changes nothing.
        a.handle(at(6), &FromServer::Reply(lost, Err(Status::unavailable("late"))), &mut out);
        assert!(a.fence(at(6)).is_some());
    }

    #[test]
    fn lost_replies_do_not_cost_leadership_when_the_link_heals_in_time() {
        let (mut server, mut a) = (Server::default(), elector("a", 1));
        run(&mut server, &mut [(&mut a, Link::Up)], 0..10);
        let epoch = a.fence(at(9)).unwrap().epoch;
        run(&mut server, &mut [(&mut a, Link::Deaf)], 10..14);
        let led = run(&mut server, &mut [(&mut a, Link::Up)], 14..40);
        assert!(led.iter().all(|l| l[0]));
        assert_eq!(a.fence(at(39)).unwrap().epoch, epoch);
    }

    #[test]
    fn a_fence_ends_by_time_alone() {
        let (mut server, mut a) = (Server::default(), elector("a", 1));
        step(&mut a, &mut server, Link::Up, at(0));
        assert!(a.fence(at(0) + (limits::RENEW_DEADLINE - Duration::from_nanos(1))).is_some());
        assert!(a.fence(at(0) + limits::RENEW_DEADLINE).is_none());
        a.deposed(at(1));
        assert!(a.fence(at(1)).is_none());
        a.handle(at(1), &FromServer::Reply(ReqId(7), Err(Status::unavailable("other"))), &mut Vec::new());
    }
}
