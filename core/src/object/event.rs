//! The content of an Event, with shared copies of what many Events have in common.

use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;
use serde::Serialize;

use super::{Stamp, Text, Time};

/// The content of an Event without its metadata. All Events of one recorder about one object share the involved object
/// and the reporter; recurring texts are shared too. `rest` keeps all other fields of Kubernetes' type, so that nothing
/// of an Event that a client sent is lost.
///
/// `Serialize` is for digests only: clients see [`to_whole`](Self::to_whole).
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
#[allow(missing_docs)]
pub struct EventSpec {
    /// `involvedObject` without its resource version.
    pub about: Rc<core_v1::ObjectReference>,
    /// `involvedObject.resourceVersion`. Zero if it is absent, or if it is no number and therefore left in `about`.
    pub about_revision: u64,
    pub origin: Rc<EventOrigin>,
    pub type_: Text,
    pub reason: Text,
    pub message: Text,
    pub first_timestamp: Stamp,
    pub last_timestamp: Stamp,
    pub count: Option<i32>,
    /// Kubernetes' type with the fields that are not above; those above are unset in it. `None` if there are none.
    pub rest: Option<Box<core_v1::Event>>,
}

/// The component that reports Events.
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
#[allow(missing_docs)]
pub struct EventOrigin {
    pub source: Option<core_v1::EventSource>,
    pub reporting_component: Option<String>,
    pub reporting_instance: Option<String>,
}

/// Moves a text out of a field. A present but empty text stays in the field, since [`Text`] cannot tell it from an
/// absent one.
fn take_text(from: &mut Option<String>) -> Text {
    match from.take_if(|text| !text.is_empty()) {
        Some(text) => Text::from(&*text),
        None => Text::EMPTY,
    }
}

/// Moves a time out of a field. A time with fractions of a second stays in the field.
fn take_stamp(from: &mut Option<Time>) -> Stamp {
    from.take_if(|time| time.0.subsec_nanosecond() == 0).into()
}

impl EventSpec {
    /// Converts from Kubernetes' type. The metadata must have been taken out.
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

    /// Converts to Kubernetes' type, without metadata.
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
