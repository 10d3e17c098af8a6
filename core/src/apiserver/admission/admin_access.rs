//! Claims ask for admin access to devices, which others may have, in namespaces only that are labelled for it.
//!
//! In Kubernetes this is no plug-in but a rule of the kinds themselves (`resourceutils.AuthorizedForAdmin`).

use serde_json::Value;

use crate::apiserver::write::{Deciding, Decision, Write};
use crate::object::{FieldError, Kind, Object, ObjectKey};
use crate::resource_claim::ADMIN_ACCESS;
use crate::store::StoreKey;
use crate::volume;

impl Deciding<'_> {
    /// Refuses a new claim or template that asks for admin access where that is not given.
    pub(super) fn admin_access(&mut self, write: &Write, object: &Object) -> Result<(), Decision> {
        let path = match object.kind() {
            Kind::RESOURCE_CLAIM => "spec.devices.requests",
            Kind::RESOURCE_CLAIM_TEMPLATE => "spec.spec.devices.requests",
            _ => return Ok(()),
        };
        let requests = volume::value(object, &format!("/{}", path.replace('.', "/"))).and_then(Value::as_array);
        let asks = |(_, request): &(usize, &Value)| request["exactly"]["adminAccess"] == true;
        let asking: Vec<usize> = requests.into_iter().flatten().enumerate().filter(asks).map(|(i, _)| i).collect();
        if asking.is_empty() {
            return Ok(());
        }
        let key = ObjectKey::new(Kind::NAMESPACE, "", object.namespace());
        let labels = self.known(write, &key).and_then(|namespace| namespace.labels().cloned()).unwrap_or_default();
        if labels.get(ADMIN_ACCESS).is_some_and(|value| value == "true") {
            return Ok(());
        }
        let why =
            format!("admin access to devices requires the `{ADMIN_ACCESS}: true` label on the containing namespace");
        let error = |i: usize| FieldError::forbidden(format!("{path}[{i}].exactly.adminAccess"), why.as_str());
        let errors: Vec<FieldError> = asking.into_iter().map(error).collect();
        let refusal = super::refuse(object, &errors).expect_err("there are errors");
        Err(Decision::AnswerIf(vec![StoreKey::Object(key)], Err(refusal)))
    }
}
