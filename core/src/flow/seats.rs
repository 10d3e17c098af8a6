//! How the server's seats are divided among priority levels: nominally by their shares, and then by what they need, as
//! far as one lends and another may borrow.
//!
//! Source: KEP-1040, "Dispatching" and "Seat Borrowing".

use std::time::Duration;

use crate::machine::Mono;

/// What borrowing keeps of the demand that it has seen, for each period that passes (apiserver
/// `seatDemandSmoothingCoefficient`: half of it is gone after five minutes).
const SMOOTHING: f64 = 0.977;

/// The seats of a level as its configuration has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Bounds {
    /// What its shares give it.
    pub(super) nominal: u32,
    /// What it keeps whatever others need.
    pub(super) least: u32,
    /// What it can have when others need nothing.
    pub(super) most: u32,
}

impl Bounds {
    /// `shares` of `all` shares of the server's `seats`; `lendable` and `borrowing` are percentages of the nominal
    /// seats. A level without a limit to what it borrows may have all.
    pub(super) fn new(seats: u32, shares: u32, all: u32, lendable: u32, borrowing: Option<u32>) -> Bounds {
        let nominal = match all {
            0 => 0,
            _ => (u64::from(seats) * u64::from(shares)).div_ceil(u64::from(all)) as u32,
        };
        let percent = |of: u32| (f64::from(nominal) * f64::from(of) / 100.0).round() as u32;
        let most = borrowing.map_or(u32::MAX, |borrowing| nominal.saturating_add(percent(borrowing)));
        Bounds { nominal, least: nominal - percent(lendable).min(nominal), most }
    }
}

/// How many seats requests of a level have or wait for, over time.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    now: u32,
    since: Mono,
    begun: Mono,
    /// Seats and their squares, times seconds.
    sum: f64,
    squares: f64,
    highest: u32,
    smoothed: f64,
}

impl Demand {
    pub(super) fn new(now: Mono) -> Demand {
        Demand { now: 0, since: now, begun: now, sum: 0.0, squares: 0.0, highest: 0, smoothed: 0.0 }
    }

    pub(super) fn set(&mut self, now: Mono, seats: u32) {
        self.pass(now);
        self.now = seats;
        self.highest = self.highest.max(seats);
    }

    fn pass(&mut self, now: Mono) {
        let (seconds, seats) = (now.since(self.since).as_secs_f64(), f64::from(self.now));
        self.sum += seats * seconds;
        self.squares += seats * seats * seconds;
        self.since = now;
    }

    /// Ends a period: the most that was needed in it, and what is to be reckoned with.
    fn end_period(&mut self, now: Mono) -> (u32, f64) {
        self.pass(now);
        let seconds = now.since(self.begun).as_secs_f64();
        let (average, squares) = match seconds > 0.0 {
            true => (self.sum / seconds, self.squares / seconds),
            false => (f64::from(self.now), f64::from(self.now).powi(2)),
        };
        let envelope = average + (squares - average * average).max(0.0).sqrt();
        self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
        let highest = self.highest;
        (self.begun, self.sum, self.squares, self.highest) = (now, 0.0, 0.0, self.now);
        (highest, self.smoothed)
    }
}

/// One level's part in the division.
#[derive(Clone, Copy, Debug)]
struct Claim {
    least: f64,
    most: f64,
    target: f64,
}

/// How long a period of borrowing is (apiserver `borrowingAdjustmentPeriod`).
pub(super) const PERIOD: Duration = Duration::from_secs(10);

/// Divides `seats` anew by what levels needed in the last period; `levels` are those that are limited. Returns the
/// seats of each.
pub(super) fn divide<'a>(seats: u32, now: Mono, levels: impl Iterator<Item = (Bounds, &'a mut Demand)>) -> Vec<u32> {
    let mut claims = Vec::new();
    let mut shares = Vec::new();
    for (bounds, demand) in levels {
        let (highest, smoothed) = demand.end_period(now);
        let least = f64::from(bounds.least.max(bounds.nominal.min(highest)));
        claims.push(Claim { least, most: f64::from(bounds.most.min(seats)).max(least), target: smoothed.max(least) });
        shares.push(f64::from(bounds.least.max(1)));
    }
    let needed: f64 = claims.iter().map(|claim| claim.least).sum();
    if needed > f64::from(seats) {
        // Rounding, or an administrator's numbers, ask for more than there is.
        let all: f64 = shares.iter().sum();
        return shares.iter().map(|share| (f64::from(seats) * share / all).round() as u32).collect();
    }
    let fair = fair_fraction(f64::from(seats), &claims);
    claims.iter().map(|claim| claim.has(fair).round() as u32).collect()
}

impl Claim {
    /// Its seats where each level gets this fraction of its target.
    fn has(&self, fraction: f64) -> f64 {
        (fraction * self.target).clamp(self.least, self.most)
    }
}

/// The fraction of their targets that levels get, so that all seats are given away, or each level has its most.
fn fair_fraction(seats: f64, claims: &[Claim]) -> f64 {
    let given = |fraction: f64| claims.iter().map(|claim| claim.has(fraction)).sum::<f64>();
    // The sum grows with the fraction, and bends where a level leaves its least or comes to its most.
    let mut bends: Vec<f64> = claims
        .iter()
        .filter(|claim| claim.target > 0.0)
        .flat_map(|claim| [claim.least / claim.target, claim.most / claim.target])
        .collect();
    bends.sort_by(f64::total_cmp);
    let (mut low, mut high) = (0.0, bends.last().copied().unwrap_or(0.0));
    if given(high) <= seats {
        return high;
    }
    for bend in bends {
        if given(bend) <= seats {
            low = bend;
        } else {
            high = bend;
            break;
        }
    }
    let (before, after) = (given(low), given(high));
    low + (high - low) * (seats - before) / (after - before)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Bounds, Demand, divide};
    use crate::machine::Mono;

    #[test]
    fn shares_become_seats() {
        let of = |shares, lendable, borrowing| {
            let Bounds { nominal, least, most } = Bounds::new(600, shares, 245, lendable, borrowing);
            (nominal, least, most)
        };
        // The levels of every cluster.
        assert_eq!(of(30, 33, None), (74, 50, u32::MAX));
        assert_eq!(of(40, 25, None), (98, 73, u32::MAX));
        assert_eq!(of(100, 90, None), (245, 24, u32::MAX));
        assert_eq!(of(5, 0, None), (13, 13, u32::MAX));
        assert_eq!(of(20, 50, Some(100)), (49, 24, 98));
        assert_eq!(of(0, 0, Some(0)), (0, 0, 0));
        assert_eq!(Bounds::new(600, 0, 0, 0, None).nominal, 0);
    }

    /// Seats of levels that have needed so many for a whole period.
    fn divided(seats: u32, levels: &[(Bounds, u32)]) -> Vec<u32> {
        let start = Mono::ZERO;
        let mut all: Vec<(Bounds, Demand)> = levels.iter().map(|(b, _)| (*b, Demand::new(start))).collect();
        for ((_, demand), (_, needed)) in all.iter_mut().zip(levels) {
            demand.set(start, *needed);
        }
        divide(seats, start + Duration::from_secs(10), all.iter_mut().map(|(b, d)| (*b, d)))
    }

    #[test]
    fn what_one_does_not_need_another_may_borrow() {
        let bounds = |nominal, least, most| Bounds { nominal, least, most };
        let check = |levels: &[(Bounds, u32)], expect: &[u32]| assert_eq!(divided(100, levels), expect, "{levels:?}");
        // Nobody needs more than its own.
        check(&[(bounds(50, 25, 100), 50), (bounds(50, 25, 100), 50)], &[50, 50]);
        // One needs much, the other nothing: it keeps its least.
        check(&[(bounds(50, 25, 100), 200), (bounds(50, 25, 100), 0)], &[75, 25]);
        // What another needs of its own is not lent.
        check(&[(bounds(50, 25, 100), 200), (bounds(50, 25, 100), 40)], &[60, 40]);
        // Both need more than there is.
        check(&[(bounds(50, 25, 100), 300), (bounds(50, 25, 100), 100)], &[50, 50]);
        // What may be borrowed is limited: the other has what is left over.
        check(&[(bounds(50, 25, 60), 200), (bounds(50, 25, 60), 0)], &[60, 40]);
        check(&[(bounds(20, 10, 30), 200), (bounds(20, 10, 30), 0)], &[30, 30]);
        // The least of all is more than there is.
        check(&[(bounds(80, 80, 100), 100), (bounds(80, 80, 100), 0)], &[50, 50]);
        assert_eq!(divided(100, &[]), Vec::<u32>::new());
    }

    #[test]
    fn a_peak_is_remembered_for_a_while() {
        let mut demand = Demand::new(Mono::ZERO);
        let at = |seconds: u64| Mono::ZERO + Duration::from_secs(seconds);
        demand.set(at(0), 100);
        demand.set(at(10), 0);
        assert_eq!(demand.end_period(at(10)), (100, 100.0));
        let (highest, smoothed) = demand.end_period(at(20));
        assert_eq!((highest, smoothed.round()), (0, 98.0));
        // Half of a period at 100 seats: 50 on average, 50 about it.
        demand.set(at(25), 100);
        let mut fresh = Demand::new(at(20));
        fresh.set(at(25), 100);
        assert_eq!(fresh.end_period(at(30)), (100, 100.0));
    }
}
