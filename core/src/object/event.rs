//! What an Event says, as it is held: what many Events say alike is shared.

use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;
use serde::Serialize;

use super::{Stamp, Text, Time};

/// What an Event says beside its metadata. The object that it is about and whoever reports it are shared by all Events
/// of one recorder about one object; texts that recur are shared too. Whatever else Kubernetes' type can say is in
/// `rest`, so that what came in goes out.
///
/// `Serialize` is for digests: what clients see is [`to_whole`](Self::to_whole).
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
#[allow(missing_docs)]
pub struct EventSpec {
    /// `involvedObject`, but for its resource version.
    pub about: Rc<core_v1::ObjectReference>,
    /// `involvedObject.resourceVersion`; zero: absent, or in `about` if it is no number.
    pub about_revision: u64,
    pub origin: Rc<EventOrigin>,
    pub type_: Text,
    pub reason: Text,
    pub message: Text,
    pub first_timestamp: Stamp,
    pub last_timestamp: Stamp,
    pub count: Option<i32>,
    /// The fields that are not above; in it, those above are unset.
    pub rest: Option<Box<core_v1::Event>>,
}

/// Who reports Events.
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
#[allow(missing_docs)]
pub struct EventOrigin {
    pub source: Option<core_v1::EventSource>,
    pub reporting_component: Option<String>,
    pub reporting_instance: Option<String>,
}

/// Takes a text out, unless it is there and empty: that stays where it is.
fn take_text(from: &mut Option<String>) -> Text {
    match from.take_if(|text| !text.is_empty()) {
        Some(text) => Text::from(&*text),
        None => Text::EMPTY,
    }
}

/// Takes a time out, unless it is not of whole seconds.
fn take_stamp(from: &mut Option<Time>) -> Stamp {
    from.take_if(|time| time.0.subsec_nanosecond() == 0).into()
}

impl EventSpec {
    /// From Kubernetes' type, whose metadata have been taken out.
    pub fn new(mut whole: core_v1::Event) -> EventSpec {
        let version = &mut whole.involved_object.resource_version;
        let canonical = |text: &mut String| text.parse::<u64>().is_ok_and(|n| n != 0 && n.to_string() == *text);
        let about_revision = version.take_if(canonical).and_then(|text| text.parse().ok()).unwrap_or(0);
        let origin = EventOrigin {
            source: whole.source.take(),
            reporting_component: whole.reporting_component.take(),
            reporting_instance: whole.reporting_instance.take(),
        };
        EventSpec {
            about: Rc::new(std::mem::take(&mut whole.involved_object)),
            about_revision,
            origin: Rc::new(origin),
            type_: take_text(&mut whole.type_),
            reason: take_text(&mut whole.reason),
            message: take_text(&mut whole.message),
            first_timestamp: take_stamp(&mut whole.first_timestamp),
            last_timestamp: take_stamp(&mut whole.last_timestamp),
            count: whole.count.take(),
            rest: (whole != core_v1::Event::default()).then(|| Box::new(whole)),
        }
    }

    /// As Kubernetes' type, without metadata.
    pub fn to_whole(&self) -> core_v1::Event {
        let rest = self.rest.as_deref().cloned().unwrap_or_default();
        let mut involved_object = (*self.about).clone();
        if let Some(version) = self.about_version() {
            involved_object.resource_version = Some(version);
        }
        core_v1::Event {
            involved_object,
            source: self.origin.source.clone(),
            reporting_component: self.origin.reporting_component.clone(),
            reporting_instance: self.origin.reporting_instance.clone(),
            type_: self.type_.to_option().or(rest.type_),
            reason: self.reason.to_option().or(rest.reason),
            message: self.message.to_option().or(rest.message),
            first_timestamp: self.first_timestamp.to_time().or(rest.first_timestamp),
            last_timestamp: self.last_timestamp.to_time().or(rest.last_timestamp),
            count: self.count,
            ..rest
        }
    }

    /// `involvedObject.resourceVersion`.
    pub fn about_version(&self) -> Option<String> {
        if self.about_revision == 0 {
            self.about.resource_version.clone()
        } else {
            Some(self.about_revision.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::object::Object;
    use serde_json::{Value, json};

    #[test]
    fn every_field_comes_back() {
        let check = |value: Value| {
            let mut whole = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "d"},
                "involvedObject": {}});
            json_patch::merge(&mut whole, &value);
            assert_eq!(Object::from_json(whole.clone()).expect("an event").to_json(), whole);
        };
        check(json!({}));
        check(json!({"involvedObject": {"kind": "Pod", "namespace": "d", "name": "p", "uid": "u", "apiVersion": "v1",
            "resourceVersion": "7", "fieldPath": "spec.containers{c}"}}));
        for version in ["0", "007", "x", ""] {
            check(json!({"involvedObject": {"resourceVersion": version}}));
        }
        check(json!({"reason": "", "message": "", "type": "", "reportingComponent": "", "reportingInstance": ""}));
        check(json!({"reason": "R", "message": "m", "type": "Normal", "reportingComponent": "kubelet",
            "reportingInstance": "n", "source": {"component": "kubelet", "host": "n"}, "count": 3,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:05Z"}));
        check(json!({"action": "Binding", "eventTime": "2026-01-01T00:00:00.500000Z", "related": {"kind": "Node"},
            "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}}));
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<super::EventSpec>() <= 112);
    }
}
