//! The small parts of a status: texts and times.
//!
//! A pod's status is written four or five times in the pod's life, and the store keeps every version for a while. With
//! a `String` for each text, one version took some sixty cache lines and thirty allocations.

use std::fmt;
use std::rc::Rc;

use serde::{Serialize, Serializer};

use super::Time;
use crate::machine::Wall;

/// A text in a status: a well-known word of Kubernetes, held as a number, or any other text, reference-counted. As in
/// Kubernetes' own types (`omitempty`), the empty text means absent.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(Form);

#[derive(Clone, PartialEq, Eq)]
enum Form {
    /// Index in `WORDS`.
    Word(u8),
    /// Never one of `WORDS`, so that equal texts have equal forms.
    Other(Rc<str>),
}

macro_rules! words {
    ($($name:ident $word:literal,)*) => {
        /// The words by index; the first is the empty text.
        const WORDS: &[&str] = &["", $($word),*];

        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Number { EMPTY, $($name),* }

        #[allow(missing_docs)]
        impl Text {
            pub const EMPTY: Text = Text(Form::Word(Number::EMPTY as u8));
            $(pub const $name: Text = Text(Form::Word(Number::$name as u8));)*
        }

        fn number(text: &str) -> Option<u8> {
            match text {
                "" => Some(Number::EMPTY as u8),
                $($word => Some(Number::$name as u8),)*
                _ => None,
            }
        }
    };
}

words! {
    TRUE "True",
    FALSE "False",
    PENDING "Pending",
    RUNNING "Running",
    SUCCEEDED "Succeeded",
    FAILED "Failed",
    BEST_EFFORT "BestEffort",
    BURSTABLE "Burstable",
    GUARANTEED "Guaranteed",
    READY "Ready",
    CONTAINERS_READY "ContainersReady",
    INITIALIZED "Initialized",
    POD_SCHEDULED "PodScheduled",
    POD_READY_TO_START_CONTAINERS "PodReadyToStartContainers",
    DISRUPTION_TARGET "DisruptionTarget",
    CONTAINERS_NOT_READY "ContainersNotReady",
    CONTAINERS_NOT_INITIALIZED "ContainersNotInitialized",
    READINESS_GATES_NOT_READY "ReadinessGatesNotReady",
    POD_COMPLETED "PodCompleted",
    POD_FAILED "PodFailed",
    UNSCHEDULABLE "Unschedulable",
    CONTAINER_CREATING "ContainerCreating",
    POD_INITIALIZING "PodInitializing",
    COMPLETED "Completed",
    ERROR "Error",
    CRASH_LOOP_BACK_OFF "CrashLoopBackOff",
    DEADLINE_EXCEEDED "DeadlineExceeded",
    NODE_NOT_READY "NodeNotReady",
}

impl Text {
    /// The text as a string; empty if absent.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Form::Word(number) => WORDS[usize::from(*number)],
            Form::Other(text) => text,
        }
    }

    /// Whether the text is absent.
    pub fn is_empty(&self) -> bool {
        *self == Text::EMPTY
    }

    /// The reference-counted text; `None` for a well-known word.
    pub(super) fn shared(&self) -> Option<&Rc<str>> {
        match &self.0 {
            Form::Word(_) => None,
            Form::Other(text) => Some(text),
        }
    }

    /// The text; `None` if absent.
    pub fn get(&self) -> Option<&str> {
        (!self.is_empty()).then(|| self.as_str())
    }

    /// As Kubernetes' types have it: `None` if absent.
    pub fn to_option(&self) -> Option<String> {
        self.get().map(str::to_owned)
    }

    /// This text, or the other one if this is absent.
    #[must_use]
    pub fn or(&self, other: impl FnOnce() -> Text) -> Text {
        if self.is_empty() { other() } else { self.clone() }
    }

    /// A `Text` for the given string; shares this one if it is equal.
    #[must_use]
    pub fn reread(&self, text: &str) -> Text {
        if *self == *text { self.clone() } else { Text::from(text) }
    }
}

impl Default for Text {
    fn default() -> Text {
        Text::EMPTY
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(number(text).map_or_else(|| Form::Other(Rc::from(text)), Form::Word))
    }
}

impl From<&Rc<str>> for Text {
    fn from(text: &Rc<str>) -> Text {
        Text(number(text).map_or_else(|| Form::Other(Rc::clone(text)), Form::Word))
    }
}

impl From<Option<String>> for Text {
    fn from(text: Option<String>) -> Text {
        Text::from(text.as_deref().unwrap_or(""))
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// A time in a status, in whole seconds as in Kubernetes' `metav1.Time` on the wire; may be absent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stamp(i64);

impl Stamp {
    /// An absent time.
    pub const NONE: Stamp = Stamp(i64::MIN);

    /// A wall-clock time, truncated to seconds.
    pub fn of(wall: Wall) -> Stamp {
        Stamp(wall.0.div_euclid(1_000_000))
    }

    /// Whether the time is present.
    pub fn is_some(self) -> bool {
        self != Stamp::NONE
    }

    /// As wall-clock time; `None` if absent.
    pub fn wall(self) -> Option<Wall> {
        self.is_some().then(|| Wall(self.0 * 1_000_000))
    }

    /// As Kubernetes' types have it; `None` if absent.
    pub fn to_time(self) -> Option<Time> {
        self.wall().map(Wall::to_time)
    }

    /// This time, or the other one if this is absent.
    #[must_use]
    pub fn or(self, other: Stamp) -> Stamp {
        if self.is_some() { self } else { other }
    }
}

/// For digests: the seconds, or the smallest number if absent.
impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

impl Default for Stamp {
    fn default() -> Stamp {
        Stamp::NONE
    }
}

impl From<Option<Time>> for Stamp {
    fn from(time: Option<Time>) -> Stamp {
        time.map_or(Stamp::NONE, |t| Stamp::of(Wall::from_time(&t)))
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_time() {
            Some(time) => time.0.fmt(f),
            None => f.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Stamp, Text, WORDS, number};
    use crate::machine::Wall;

    #[test]
    fn a_text_has_one_form_only() {
        for (i, word) in WORDS.iter().enumerate() {
            assert_eq!(number(word).map(usize::from), Some(i), "{word} has one number");
            assert_eq!(Text::from(*word).as_str(), *word);
        }
        assert_eq!(Text::from("True"), Text::TRUE);
        assert_eq!(Text::from(&std::rc::Rc::from("Ready")), Text::READY);
        assert_eq!(Text::from("10.0.0.1"), Text::from("10.0.0.1"));
        assert_ne!(Text::from("10.0.0.1"), Text::from("10.0.0.2"));
        assert_eq!((Text::from(None), Text::from("").get()), (Text::EMPTY, None));
        assert_eq!(size_of::<Text>(), 16);
    }

    #[test]
    fn a_stamp_is_of_whole_seconds() {
        let stamp = Stamp::of(Wall(1_999_999));
        assert_eq!((stamp.wall(), Stamp::from(stamp.to_time())), (Some(Wall(1_000_000)), stamp));
        assert_eq!((Stamp::of(Wall(-1)).wall(), Stamp::NONE.wall()), (Some(Wall(-1_000_000)), None));
        assert_eq!(Stamp::NONE.or(stamp), stamp);
    }
}
