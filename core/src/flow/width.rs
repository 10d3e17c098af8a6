//! How wide a request is: the seats that it takes, and, of a write, those that it keeps for what it tells to watchers.
//!
//! Source: KEP-1040, "Width of the request"; kubernetes
//! `staging/src/k8s.io/apiserver/pkg/util/flowcontrol/request/{list,mutating}_work_estimator.go`.

use std::time::Duration;

/// Objects of a list for each seat that it takes (apiserver `objectsPerSeat`).
const OBJECTS_PER_SEAT: usize = 100;
/// The most seats that one request takes (apiserver `maximumSeatsLimit`).
const MOST_SEATS: u32 = 10;
/// Watchers for each seat that a write keeps; so many at least for any (apiserver `watchesPerSeat`).
const WATCHERS_PER_SEAT: usize = 10;
/// How long a seat is kept for its watchers (apiserver `eventAdditionalDuration`).
const TELLING: Duration = Duration::from_millis(5);

/// How wide a request is. It takes the more of both numbers of seats until it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Width {
    /// Seats for the answer, at least one.
    pub answering: u32,
    /// Seats for what the request tells to watchers.
    pub telling: u32,
    /// How long that takes after the answer.
    pub after: Duration,
}

impl Width {
    /// A request that tells nobody anything.
    pub fn of(seats: u32) -> Width {
        Width { answering: seats.max(1), telling: 0, after: Duration::ZERO }
    }

    /// A list of so many objects, of which at most `limit` are returned.
    pub fn of_list(objects: usize, limit: Option<usize>) -> Width {
        let objects = limit.map_or(objects, |limit| objects.min(limit));
        let seats = u32::try_from(objects.div_ceil(OBJECTS_PER_SEAT)).unwrap_or(MOST_SEATS);
        Width::of(seats.clamp(1, MOST_SEATS))
    }

    /// A write that so many watchers may hear of.
    pub fn of_write(watchers: usize) -> Width {
        if watchers < WATCHERS_PER_SEAT {
            return Width::of(1);
        }
        let telling = u32::try_from(watchers.div_ceil(WATCHERS_PER_SEAT)).unwrap_or(u32::MAX);
        Width { answering: 1, telling, after: TELLING }.narrowed(MOST_SEATS)
    }

    /// The same work for watchers with fewer seats, if it takes more: it lasts longer instead.
    pub fn narrowed(self, most: u32) -> Width {
        let most = most.max(1);
        if self.telling <= most {
            return self;
        }
        let nanos = self.after.as_nanos() * u128::from(self.telling) / u128::from(most);
        Width { telling: most, after: Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)), ..self }
    }

    /// Seats that it takes until it is answered.
    pub(super) fn seats(self) -> u32 {
        self.answering.max(self.telling)
    }

    /// Seat-nanoseconds, where answering takes so long.
    pub(super) fn work(self, answering: Duration) -> i128 {
        let nanos = |seats: u32, time: Duration| i128::from(seats) * time.as_nanos() as i128;
        nanos(self.answering, answering) + nanos(self.telling, self.after)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Width;

    #[test]
    fn lists_take_seats_by_what_they_read() {
        for (objects, limit, expect) in [
            (0, None, 1),
            (100, None, 1),
            (101, None, 2),
            (150_000, None, 10),
            (150_000, Some(500), 5),
            (3, Some(500), 1),
        ] {
            assert_eq!(Width::of_list(objects, limit), Width::of(expect), "{objects} {limit:?}");
        }
    }

    #[test]
    fn writes_keep_seats_by_how_many_hear_of_them() {
        for (watchers, telling, micros) in [
            (0, 0, 0),
            (9, 0, 0),
            (10, 1, 5000),
            (11, 2, 5000),
            (100, 10, 5000),
            (101, 10, 5500),
            (10_000, 10, 500_000),
        ] {
            let expect = Width { answering: 1, telling, after: Duration::from_micros(micros) };
            assert_eq!(Width::of_write(watchers), expect, "{watchers}");
        }
        let narrow = Width::of_write(100).narrowed(4);
        assert_eq!(narrow, Width { answering: 1, telling: 4, after: Duration::from_micros(12_500) });
        assert_eq!(narrow.work(Duration::ZERO), Width::of_write(100).work(Duration::ZERO));
        assert_eq!(Width::of(7).narrowed(0), Width::of(7));
    }
}
