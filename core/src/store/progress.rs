//! What a store's notices of progress are worth to whoever waits for a revision.

/// How a watcher of everything learns that it has reached a revision that changed nothing of what it watches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Progress {
    /// It need not: every revision changes something there. So with a store of our own.
    #[default]
    Needless,
    /// It asks for a notice, which comes after all events before it.
    Ordered,
    /// Notices may overtake events: it writes a key and waits for that event.
    Overtakes,
}

impl Progress {
    /// Of an etcd server of this version, as its status tells it. A revision there counts the keys of others too.
    /// Before 3.4.31 and 3.5.13 a notice may overtake events (etcd issue 15220; Kubernetes' `FeatureSupportChecker`
    /// asks the same); a version that cannot be read is not trusted.
    pub fn of_etcd(version: &str) -> Progress {
        let release = version.split(['-', '+']).next().unwrap_or_default();
        let mut numbers = release.split('.').map(str::parse::<u32>);
        let (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) = (numbers.next(), numbers.next(), numbers.next())
        else {
            return Progress::Overtakes;
        };
        let ordered = match (major, minor) {
            (3, 4) => patch >= 31,
            (3, 5) => patch >= 13,
            other => other >= (3, 6),
        };
        if ordered { Progress::Ordered } else { Progress::Overtakes }
    }
}

#[cfg(test)]
mod tests {
    use super::Progress;

    #[test]
    fn old_versions_are_not_trusted() {
        for (version, ordered) in [
            ("3.4.23", false),
            ("3.4.30", false),
            ("3.4.31", true),
            ("3.4.40+debian", true),
            ("3.5.0", false),
            ("3.5.12", false),
            ("3.5.13", true),
            ("3.6.0-rc.1", true),
            ("3.3.99", false),
            ("4.0.0", true),
            ("", false),
            ("3.6", false),
            ("three", false),
        ] {
            assert_eq!(Progress::of_etcd(version) == Progress::Ordered, ordered, "{version}");
        }
    }
}
