//! A calendar queue of keys in virtual time (Brown, CACM 1988): adding and removing keys of the near future costs the
//! same however many keys there are.
//!
//! Only the current page is sorted. Later pages are unsorted, and keys after the last page wait in a heap. The heap is
//! four-ary with keys of 16 bytes, so that the children that are compared in one step share a cache line, and there are
//! half as many steps as in a binary heap.

use skeg_core::random::mix;

/// Time, then tie-breaker, then owner, packed into one number so that one comparison orders two keys.
pub(crate) type Key = u128;

/// Makes a key whose tie-breaker is random number `drawn` of the seed.
pub(crate) fn key(at: u64, seed: u64, drawn: u64, whose: u32) -> Key {
    u128::from(at) << 64 | u128::from(mix(seed, drawn) as u32) << 32 | u128::from(whose)
}

/// The time of a key.
pub(crate) fn moment(key: Key) -> u64 {
    (key >> 64) as u64
}

/// The owner of a key.
pub(crate) fn whose(key: Key) -> u32 {
    key as u32
}

/// Greater than every key.
pub(crate) const NEVER: Key = Key::MAX;

/// A key with its owner masked out.
pub(crate) fn unowned(key: Key) -> Key {
    key >> 32 << 32
}

const ARITY: usize = 4;

/// A four-ary heap of keys.
#[derive(Debug, Default)]
struct Keys(Vec<Key>);

impl Keys {
    /// The earliest key.
    fn first(&self) -> Option<Key> {
        self.0.first().copied()
    }

    /// Adds a key.
    fn add(&mut self, key: Key) {
        self.0.push(key);
        self.rise(self.0.len() - 1, key);
    }

    /// Removes the earliest key. The hole moves down to the bottom, because the last key usually belongs there, and the
    /// last key rises from it.
    fn take_first(&mut self) {
        let last = self.0.pop().expect("what is taken out is there");
        if self.0.is_empty() {
            return;
        }
        let mut hole = 0;
        while let Some((least, child)) = self.least_child(hole) {
            self.0[hole] = child;
            hole = least;
        }
        self.rise(hole, last);
    }

    /// Moves a key up from the hole at `place` to its position.
    fn rise(&mut self, mut place: usize, key: Key) {
        while place > 0 {
            let parent = (place - 1) / ARITY;
            if self.0[parent] <= key {
                break;
            }
            self.0[place] = self.0[parent];
            place = parent;
        }
        self.0[place] = key;
    }

    fn least_child(&self, place: usize) -> Option<(usize, Key)> {
        let first = place * ARITY + 1;
        if let Some(&[a, b, c, d]) = self.0.get(first..first + ARITY) {
            let (ab, cd) = (if a < b { (0, a) } else { (1, b) }, if c < d { (2, c) } else { (3, d) });
            let (least, key) = if ab.1 < cd.1 { ab } else { cd };
            return Some((first + least, key));
        }
        let last = self.0.get(first..)?;
        last.iter().enumerate().min_by_key(|(_, key)| **key).map(|(i, key)| (first + i, *key))
    }
}

/// Keys on pages of equal length in nanoseconds. Only the current page is sorted.
#[derive(Debug)]
pub(crate) struct CalendarQueue {
    /// Binary logarithm of a page's length in nanoseconds.
    size: u32,
    /// The sorted keys up to the end of the current page, and how many of them have been removed. Added keys are
    /// usually later than the existing ones.
    open: Vec<Key>,
    taken: usize,
    /// Number of the current page.
    number: u64,
    /// No page before this one has keys, except the current page.
    ahead: u64,
    /// The keys of the following pages, each at its page number modulo the number of pages, and a bit set of the pages
    /// that have keys.
    closed: Vec<Vec<Key>>,
    used: Vec<u64>,
    /// Keys after the last page.
    later: Keys,
}

impl CalendarQueue {
    /// Creates a queue of `count` times 64 pages, each `2^size` nanoseconds long.
    pub(crate) fn new(size: u32, count: usize) -> CalendarQueue {
        let closed = vec![Vec::new(); 64 * count];
        let (open, later) = (Vec::new(), Keys::default());
        CalendarQueue { size, open, taken: 0, number: 0, ahead: 0, closed, used: vec![0; count], later }
    }

    /// Adds a key.
    #[inline(always)]
    pub(crate) fn add(&mut self, key: Key) {
        let page = moment(key) >> self.size;
        if page <= self.number {
            let place = self.open[self.taken..].partition_point(|open| *open < key);
            self.open.insert(self.taken + place, key);
            return;
        }
        self.ahead = self.ahead.min(page);
        if page - self.number < self.closed.len() as u64 {
            let place = self.place(page);
            self.closed[place].push(key);
            self.used[place / 64] |= 1 << (place % 64);
        } else {
            self.later.add(key);
        }
    }

    fn place(&self, page: u64) -> usize {
        page as usize & (self.closed.len() - 1)
    }

    /// Returns the earliest key; `None` if there is none. May also return `None` if that key is after `by`: its page is
    /// then not opened, because keys that are added in the meantime belong on earlier pages.
    #[inline(always)]
    pub(crate) fn first(&mut self, by: u64) -> Option<Key> {
        self.first_of(by, |_| true)
    }

    /// Like `first`, but drops keys for which `keeps` is false from each page that it opens.
    #[inline(always)]
    pub(crate) fn first_of(&mut self, by: u64, keeps: impl Fn(Key) -> bool) -> Option<Key> {
        while self.open.is_empty() && self.ahead <= by >> self.size {
            self.turn(by, &keeps);
        }
        self.open.get(self.taken).copied()
    }

    /// Removes the first key if its page is open.
    #[inline(always)]
    pub(crate) fn take_first(&mut self) -> Option<Key> {
        let first = self.open.get(self.taken).copied()?;
        self.taken += 1;
        if self.taken == self.open.len() {
            self.open.clear();
            self.taken = 0;
        }
        Some(first)
    }

    /// Number of the current page.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The keys of the current page and the following `pages`.
    pub(crate) fn ahead(&self, pages: u64) -> impl Iterator<Item = Key> {
        let following = (1..pages).flat_map(|n| &self.closed[self.place(self.number + n)]);
        self.open[self.taken..].iter().chain(following).copied()
    }

    /// Opens the next page with keys, unless it begins after `by`.
    #[inline(never)]
    fn turn(&mut self, by: u64, keeps: impl Fn(Key) -> bool) {
        let later = self.later.first().map_or(u64::MAX, |key| moment(key) >> self.size);
        let number = self.next().map_or(later, |closed| closed.min(later));
        self.ahead = number;
        if number > by >> self.size {
            return;
        }
        self.number = number;
        let place = self.place(number);
        self.used[place / 64] &= !(1 << (place % 64));
        // The two vectors are swapped, so that both keep their capacity.
        std::mem::swap(&mut self.open, &mut self.closed[place]);
        if number == later {
            while let Some(key) = self.later.first().filter(|key| moment(*key) >> self.size == number) {
                self.later.take_first();
                self.open.push(key);
            }
        }
        self.open.retain(|key| keeps(*key));
        if self.open.len() > 1 {
            self.open.sort_unstable();
        }
    }

    /// The number of the next closed page with keys.
    fn next(&self) -> Option<u64> {
        let here = self.place(self.number);
        if let [used] = self.used[..] {
            let ahead = used.rotate_right(here as u32);
            return (ahead != 0).then(|| self.number + u64::from(ahead.trailing_zeros()));
        }
        let (word, before) = (here / 64, (1 << (here % 64)) - 1);
        let found = |word: usize, of: u64| (of != 0).then(|| word * 64 + of.trailing_zeros() as usize);
        let place = found(word, self.used[word] & !before)
            .or_else(|| {
                let mut others = (word + 1..self.used.len()).chain(0..word);
                others.find_map(|word| found(word, self.used[word]))
            })
            .or_else(|| found(word, self.used[word] & before))?;
        Some(self.number + self.place(place.wrapping_sub(here) as u64) as u64)
    }
}
