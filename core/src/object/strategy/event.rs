//! Event. Source: `pkg/registry/core/event/strategy.go`.

use std::borrow::Cow;
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use super::{GarbageCollection, Strategy, text};
use crate::object::{Event, EventSpec, FieldError, Inline, Kind, Obj, Object, ObjectMeta, Resource, validation};

resource!(Event core_v1::Event, EVENT, Rc EventSpec, Inline (),
|w| (std::mem::take(&mut w.metadata), EventSpec::new(w), ()),
|meta, spec, _status| Self { metadata: meta, ..spec.to_whole() });

impl Strategy for core_v1::Event {
    const GARBAGE_COLLECTION: GarbageCollection = GarbageCollection::Unsupported;

    fn validate(event: &Event, errors: &mut Vec<FieldError>) {
        validation::involved(event, errors);
    }

    /// The involved object was validated at creation.
    fn validate_update(_new: &Event, _old: &Event, _errors: &mut Vec<FieldError>) {}

    fn field<'a>(event: &'a Event, path: &str) -> Option<Cow<'a, str>> {
        let (about, origin) = (&event.spec.about, &event.spec.origin);
        match path {
            "involvedObject.kind" => text(about.kind.as_deref()),
            "involvedObject.namespace" => text(about.namespace.as_deref()),
            "involvedObject.name" => text(about.name.as_deref()),
            "involvedObject.uid" => text(about.uid.as_deref()),
            "involvedObject.apiVersion" => text(about.api_version.as_deref()),
            "involvedObject.resourceVersion" => event.spec.about_version().map(Cow::Owned),
            "involvedObject.fieldPath" => text(about.field_path.as_deref()),
            "reason" => text(event.spec.reason.get()),
            "type" => text(event.spec.type_.get()),
            "reportingComponent" => text(origin.reporting_component.as_deref()),
            "source" => {
                let source = origin.source.as_ref().and_then(|s| s.component.as_deref());
                text(source.or(origin.reporting_component.as_deref()))
            }
            _ => None,
        }
    }
}
