//! What a store's progress notifications guarantee to a client that waits for a revision.

use serde::{Deserialize, Serialize};

/// How a client that watches every key learns that it has reached a revision which changed none of the keys it watches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Progress {
    /// Not needed: every revision changes one of its keys. This is so for Skeg's own stores.
    #[default]
    Needless,
    /// It requests a notification, which arrives after all earlier events.
    Ordered,
    /// Notifications may overtake events: it writes a key and waits for the event of that key.
    Overtakes,
}

impl Progress {
    /// The guarantee of an etcd server with this version, as reported by its status. Revisions of etcd also count the
    /// keys of other users. Before 3.4.31 and 3.5.13, a notification may overtake events (etcd issue 15220; Kubernetes'
    /// `FeatureSupportChecker` makes the same check). An unparsable version is not trusted.
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
