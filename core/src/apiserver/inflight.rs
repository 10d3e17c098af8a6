//! Requests in flight to the store, by id. Ids are consecutive and replies arrive roughly in order, so a sliding window
//! holds them.

use std::collections::VecDeque;

use super::Job;
use crate::machine::Mono;

/// A request that the store has not answered.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) sent: Mono,
    pub(super) job: Job,
}

/// All requests that the store has not answered.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The id of the first request in the window, which is always unanswered.
    first: u64,
    flights: VecDeque<Option<InFlight>>,
}

impl Window {
    /// Adds the request with the next id.
    #[inline(always)]
    pub(super) fn push(&mut self, id: u64, flight: InFlight) {
        if self.flights.is_empty() {
            self.first = id;
        }
        assert_eq!(id, self.first + self.flights.len() as u64, "ids ascend one by one");
        self.flights.push_back(Some(flight));
    }

    /// The request with this id, if it is in the window.
    pub(super) fn get(&self, id: u64) -> Option<&Job> {
        let at = usize::try_from(id.checked_sub(self.first)?).ok()?;
        self.flights.get(at)?.as_ref().map(|flight| &flight.job)
    }

    /// Removes and returns the request with this id, if it is in the window.
    #[inline(always)]
    pub(super) fn take(&mut self, id: u64) -> Option<InFlight> {
        let at = usize::try_from(id.checked_sub(self.first)?).ok()?;
        let flight = self.flights.get_mut(at)?.take();
        while self.flights.front().is_some_and(Option::is_none) {
            self.flights.pop_front();
            self.first += 1;
        }
        flight
    }

    /// Removes and returns the oldest request if it was sent at or before this time.
    pub(super) fn take_sent_by(&mut self, time: Mono) -> Option<InFlight> {
        let oldest = self.flights.front()?.as_ref().expect("an answered request is never the first");
        if oldest.sent <= time { self.take(self.first) } else { None }
    }
}

impl IntoIterator for Window {
    type Item = InFlight;
    type IntoIter = std::iter::Flatten<std::collections::vec_deque::IntoIter<Option<InFlight>>>;

    /// All requests, oldest first.
    fn into_iter(self) -> Self::IntoIter {
        self.flights.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::{InFlight, Window};
    use crate::apiserver::Job;
    use crate::machine::Mono;

    #[test]
    fn answers_may_come_in_any_order_and_twice() {
        let mut window = Window::default();
        let sent = |window: &mut Window, id| window.push(id, InFlight { sent: Mono(id * 10), job: Job::Forget });
        (7..12).for_each(|id| sent(&mut window, id));
        for (id, known) in [(9, true), (9, false), (7, true), (6, false), (7, false), (12, false), (8, true)] {
            assert_eq!(window.take(id).is_some(), known, "{id}");
        }
        assert_eq!((window.first, window.flights.len()), (10, 2));
        assert!(window.take_sent_by(Mono(99)).is_none());
        assert_eq!(window.take_sent_by(Mono(100)).map(|f| f.sent), Some(Mono(100)));
        sent(&mut window, 12);
        assert_eq!(window.into_iter().map(|f| f.sent.0).collect::<Vec<_>>(), [110, 120]);
        let mut window = Window::default();
        sent(&mut window, 3);
        assert!(window.take(3).is_some() && window.take(3).is_none() && window.take_sent_by(Mono(1000)).is_none());
        sent(&mut window, 4);
        assert!(window.take(4).is_some());
    }
}
