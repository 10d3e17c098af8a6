//! MutatingAdmissionPolicy: expressions in CEL change what is written, by a configuration that is merged into it or by
//! operations of a JSON patch.
//!
//! Source: kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/mutating`,
//! <https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/>.

use serde_json::Value;

use super::matching::Asked;
use super::policy::{Binding, Policy, Run, evaluate};
use super::webhook::{Operation, review};
use crate::api::{Patch, Status};
use crate::apiserver::write::{Deciding, Decision, Write};
use crate::object::Object;
use crate::object::cel::Mutation;
use crate::{apply, patch};

/// Name of the plug-in.
pub(super) const MUTATING: &str = "MutatingAdmissionPolicy";

/// What a write does, and to which subresource.
type About<'a> = (Operation, &'a str);
/// Makes an object of JSON.
type Accept<'a> = &'a dyn Fn(&Deciding<'_>, Value) -> Result<Object, Status>;

/// A write that a policy is about.
struct Case<'a> {
    write: &'a Write,
    asked: Asked<'a>,
    /// The version in which the policy sees the object.
    version: String,
    old: Option<&'a Object>,
    accept: Accept<'a>,
}

impl Deciding<'_> {
    /// Has the policies change an object that is new or replaces `old`, one after the other. Those that ask for it run
    /// a second time if another has changed the object after them; `again` if somebody else has.
    pub(super) fn apply_mutating_policies(
        &self,
        write: &Write,
        about: About<'_>,
        object: &mut Object,
        old: Option<&Object>,
        accept: Accept<'_>,
        again: bool,
    ) -> Result<(), Decision> {
        let policies = &self.policies.mutating;
        if policies.is_empty() || !self.runs(MUTATING) {
            return Ok(());
        }
        let mut last_change = again.then_some(policies.len());
        if !again {
            for (index, policy) in policies.iter().enumerate() {
                if self.apply_policy(write, policy, about, object, old, accept)? {
                    last_change = Some(index);
                }
            }
        }
        for (index, policy) in policies.iter().enumerate() {
            if policy.runs_again && last_change.is_some_and(|last| last > index) {
                self.apply_policy(write, policy, about, object, old, accept)?;
            }
        }
        Ok(())
    }

    /// Applies one policy under each of its bindings; returns whether it changed the object.
    fn apply_policy(
        &self,
        write: &Write,
        policy: &Policy,
        (operation, subresource): About<'_>,
        object: &mut Object,
        old: Option<&Object>,
        accept: Accept<'_>,
    ) -> Result<bool, Decision> {
        let info = self.info(object.kind());
        let name = object.name().to_owned();
        let asked = Asked { operation, of: &info, subresource, name: &name };
        let Some(version) = policy.matching.version_for(&asked) else { return Ok(false) };
        if !self.selects(write, &policy.matching, Some(object), old) {
            return Ok(false);
        }
        let case = Case { write, asked, version, old, accept };
        let mut changed = false;
        for binding in &policy.bindings {
            if !binding.matching.covers(&case.asked) || !self.selects(write, &binding.matching, Some(object), old) {
                continue;
            }
            match self.mutated(&case, policy, binding, object) {
                Ok(Some(made)) => {
                    changed = true;
                    *object = made;
                }
                Err(why) if policy.must_hold => {
                    let by = format!("policy '{}' with binding '{}' denied request", policy.name, binding.name);
                    return Err(Decision::refuse(Status::forbidden(&info, &name, &format!("{by}: {why}"))));
                }
                Ok(None) | Err(_) => {}
            }
        }
        Ok(changed)
    }

    /// What a policy makes of an object under a binding, with each of its parameters; `None` if that is the same.
    fn mutated(
        &self,
        case: &Case<'_>,
        policy: &Policy,
        binding: &Binding,
        object: &Object,
    ) -> Result<Option<Object>, String> {
        let Case { write, asked, version, old, accept } = case;
        let params = self.params(write, policy, binding, object);
        let params = params.map_err(|why| format!("failed to configure binding: {why}"))?;
        let namespace = self.namespace_of(write, object);
        let mut made = object.clone();
        for params in &params {
            for mutation in &policy.expressions.mutations {
                // Each sees what the one before it has made.
                let request = review::request(write, asked, version, (Some(&made), *old));
                let mut run = Run::new(policy, &request, &namespace, params);
                run.environment.makes_objects = true;
                if !run.begins(&policy.expressions)? {
                    break;
                }
                let value = self.patched(&mut run, mutation, &made, &request["object"], version)?;
                let mut next = accept(self, value).map_err(|status| status.message.into_string())?;
                next.set_rv(made.rv());
                if (next.kind(), next.name(), next.namespace()) != (made.kind(), made.name(), made.namespace()) {
                    return Err("the name, namespace and kind of an object cannot be changed".to_owned());
                }
                made = next;
            }
        }
        Ok((made != *object).then_some(made))
    }

    /// The JSON that a mutation makes of an object, which is shown as `shown`.
    fn patched<'a>(
        &self,
        run: &mut Run<'_, 'a>,
        mutation: &'a Mutation,
        object: &Object,
        shown: &Value,
        version: &str,
    ) -> Result<Value, String> {
        let (Mutation::Configuration(program) | Mutation::Patch(program)) = mutation;
        let Run { environment, variables, budget, .. } = run;
        let value = evaluate(program, program.source(), environment, variables, budget)?;
        let value = value.to_json().map_err(|why| format!("expression '{}': {why}", program.source()))?;
        match mutation {
            Mutation::Configuration(_) => {
                let mut config = value;
                if !config.is_object() {
                    return Err(format!("expression '{}' made no object", program.source()));
                }
                for field in ["apiVersion", "kind"] {
                    config[field] = shown[field].clone();
                }
                let of = self.info(object.kind()).in_version(version);
                apply::merge(shown, &config, self.type_of(object.kind(), &of))
                    .map_err(|why| format!("error applying patch: {why}"))
            }
            Mutation::Patch(_) => {
                let operations = value.as_array().into_iter().flatten().cloned().collect();
                patch::apply_value(object.kind(), shown.clone(), &Patch::Json(Value::Array(operations)))
                    .map_err(|status| format!("JSON Patch: {}", status.message))
            }
        }
    }
}
