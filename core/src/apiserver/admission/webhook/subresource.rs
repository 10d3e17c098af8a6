//! Writes to subresources whose objects are not those of their resource: Binding, Eviction, Scale; and connections to
//! subresources.

use std::rc::Rc;

use serde_json::{Value, json};

use super::Operation;
use crate::api::{Call, Response, Status};
use crate::apiserver::write::{Deciding, Decision, Write};
use crate::object::{Dynamic, KindInfo, KindRef, Object, ObjectKey, Revision};

impl Deciding<'_> {
    /// Has policies and webhooks judge a connection.
    pub(in crate::apiserver) fn connect(&mut self, write: &Write) -> Decision {
        let Call::Connect { key, subresource, options } = &write.request.call else { unreachable!("no connection") };
        let mut sent = (**options).clone();
        sent["metadata"] = json!({"name": key.name(), "namespace": key.namespace()});
        match self.consult_about_subresource(write, key, (Operation::Connect, subresource), (sent, None)) {
            Ok(_) => Decision::Answer(Ok(Response::Done { rv: Revision(0) })),
            Err(decision) => decision,
        }
    }

    /// Has policies and webhooks judge what was sent to a subresource of an object; returns what they make of it.
    pub(in crate::apiserver) fn consult_about_subresource(
        &mut self,
        write: &Write,
        key: &ObjectKey,
        about: (Operation, &str),
        (sent, old): (Value, Option<Value>),
    ) -> Result<Value, Decision> {
        let of = self.info(key.kind);
        let Some(sub) = of.subresource(about.1).filter(|_| self.consults_about(key.kind)) else { return Ok(sent) };
        let (group, version, kind) = (sub.group.to_string(), sub.version.to_string(), sub.kind.to_string());
        let info = KindInfo { group: group.into(), version: version.into(), kind: kind.into(), ..(*of).clone() };
        let info = KindRef::Custom(Rc::new(info));
        let make = |value: Value| {
            let made = Dynamic::from_json(key.kind, info.clone(), value).map(Object::Dynamic);
            made.map_err(Status::bad_request)
        };
        let mut object = make(sent).map_err(Decision::refuse)?;
        let old = old.map(&make).transpose().map_err(Decision::refuse)?;
        self.consult_mutating(write, about, &mut object, old.as_ref(), &|_: &Deciding<'_>, value| make(value))?;
        self.consult_validating(write, about, Some(&object), old.as_ref())?;
        Ok(object.to_json())
    }
}
