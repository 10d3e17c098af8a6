//! Sets of completion indexes, as a Job's status and success policy write them: `0,2-4,7`.

use std::fmt;

/// A set of indexes, as sorted inclusive intervals that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Parses a list. Indexes from `end` on and parts that are not numbers are dropped.
    pub(super) fn parse(text: &str, end: i32) -> Indexes {
        let mut all = Indexes::default();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                let last = last.min(end.saturating_sub(1));
                if first >= 0 && first <= last {
                    all.insert_range(first, last);
                }
            }
        }
        all
    }

    pub(super) fn contains(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    pub(super) fn insert(&mut self, index: i32) {
        self.insert_range(index, index);
    }

    fn insert_range(&mut self, mut first: i32, mut last: i32) {
        let start = self.0.partition_point(|(_, l)| l.saturating_add(1) < first);
        let mut end = start;
        while let Some((f, l)) = self.0.get(end).filter(|(f, _)| *f <= last.saturating_add(1)) {
            (first, last) = (first.min(*f), last.max(*l));
            end += 1;
        }
        self.0.splice(start..end, [(first, last)]);
    }

    /// The number of indexes.
    pub(super) fn total(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of indexes that are in both sets.
    pub(super) fn common(&self, other: &Indexes) -> i32 {
        let overlap = |(a, b): &(i32, i32)| other.0.iter().map(|(c, d)| (b.min(d) - a.max(c) + 1).max(0)).sum::<i32>();
        self.0.iter().map(overlap).sum()
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "," })?;
            match last - first {
                0 => write!(f, "{first}")?,
                // Two adjacent indexes are written as a list, as upstream does.
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Indexes;
    use std::collections::BTreeSet;

    #[test]
    fn lists_are_read_and_written() {
        for (text, end, expect, total) in [
            ("", 9, "", 0),
            ("0,2-4,7", 9, "0,2-4,7", 5),
            ("0-1", 9, "0,1", 2),
            ("1,2,3", 9, "1-3", 3),
            ("5-20", 9, "5-8", 4),
            ("12", 9, "", 0),
            ("x,3", 9, "3", 1),
        ] {
            let read = Indexes::parse(text, end);
            assert_eq!((read.to_string().as_str(), read.total()), (expect, total), "{text}");
        }
    }

    #[test]
    fn agrees_with_a_plain_set() {
        let mut rng = crate::random::Rng::from_seed(3);
        for _ in 0..200 {
            let (mut fast, mut plain) = (Indexes::default(), BTreeSet::new());
            for _ in 0..30 {
                let index = rng.below(40) as i32;
                fast.insert(index);
                plain.insert(index);
                assert!((0..40).all(|i| fast.contains(i) == plain.contains(&i)));
                assert_eq!(fast.total() as usize, plain.len());
                assert_eq!(Indexes::parse(&fast.to_string(), 100), fast);
            }
        }
    }
}
