//! Priority: resolves `priorityClassName`, or the default class, to an integer.
//!
//! Source: kubernetes `plugin/pkg/admission/priority/admission.go`.

use serde_json::Value;

use crate::api::Status;
use crate::apiserver::write::{Deciding, Decision, Write};
use crate::object::{Kind, Object, ObjectKey};
use crate::store::StoreKey;
use crate::volume;

/// Priorities above this are reserved for the system.
const HIGHEST_USER_PRIORITY: i32 = 1_000_000_000;

impl Deciding<'_> {
    /// Gives a pod its priority.
    pub(super) fn priority(&mut self, write: &Write, object: &mut Object) -> Result<(), Decision> {
        let Object::Pod(pod) = object else { return Ok(()) };
        let asked = pod.spec.shared.priority_class_name.clone().unwrap_or_default();
        let forbid = |why: &str| Status::forbidden(Kind::POD.row(), pod.name(), why);
        let class = if asked.is_empty() {
            self.default_class()
        } else {
            let key = ObjectKey::new(Kind::PRIORITY_CLASS, "", &asked);
            let found = self.object(write, &key);
            if found.is_none() {
                let why = format!("no PriorityClass with name {asked} was found");
                return Err(Decision::refuse_if(&key, forbid(&why)));
            }
            found
        };
        let value = class.as_ref().and_then(|c| volume::value(c, "/value")).and_then(Value::as_i64).unwrap_or(0);
        let value = i32::try_from(value).unwrap_or(HIGHEST_USER_PRIORITY);
        let policy = class.as_ref().and_then(|c| volume::value(c, "/preemptionPolicy")).and_then(Value::as_str);
        let policy = policy.unwrap_or("PreemptLowerPriority").to_owned();
        let spec = &pod.spec.shared;
        let keys = class.iter().map(|c| StoreKey::Object(c.key())).collect::<Vec<_>>();
        if let Some(given) = spec.priority.filter(|p| *p != value) {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission \
                 controller computed {value} from the given PriorityClass name"
            );
            return Err(Decision::AnswerIf(keys, Err(forbid(&why))));
        }
        if let Some(given) = spec.preemption_policy.as_ref().filter(|p| **p != policy) {
            let why = format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name"
            );
            return Err(Decision::AnswerIf(keys, Err(forbid(&why))));
        }
        let spec = pod.spec_mut().shared.make_mut();
        spec.priority_class_name = class.map(|c| c.name().to_owned());
        spec.priority = Some(value);
        spec.preemption_policy = Some(policy);
        Ok(())
    }

    /// The default PriorityClass; if there are several, the one with the lowest value.
    fn default_class(&self) -> Option<Object> {
        let default = |o: &&Object| volume::value(o, "/globalDefault").and_then(Value::as_bool) == Some(true);
        let value = |o: &&Object| volume::value(o, "/value").and_then(Value::as_i64).unwrap_or(0);
        self.cache.objects(Kind::PRIORITY_CLASS).map(|(_, o)| o).filter(default).min_by_key(value).cloned()
    }
}
