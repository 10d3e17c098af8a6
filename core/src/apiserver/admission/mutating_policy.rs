//! MutatingAdmissionPolicy: expressions in CEL change what is written, by a configuration that is merged into it or by
//! operations of a JSON patch.
//!
//! Source: kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/mutating`,
//! <https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/>.

use std::collections::BTreeSet;

use serde_json::Value;

use super::matching::Asked;
use super::policy::{Binding, Policy, Run, evaluate};
use super::webhook::{Operation, review};
use crate::api::{Cause, Reason, Status};
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

/// A policy, a binding, and namespace and name of a parameter.
type InvocationKey = [String; 4];

/// What a round of the policies has done.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// An object came out of one of them. All that changes objects then runs once more.
    pub(super) has_applied: bool,
    /// Those that have run and are to run in the second round.
    pub(super) again: BTreeSet<InvocationKey>,
}

/// A policy under one of its bindings, with one of its parameters.
struct Invocation<'p> {
    policy: &'p Policy,
    binding: &'p Binding,
    params: Value,
    /// The version in which the policy sees the object.
    version: String,
}

/// A write that policies are about.
struct Case<'a> {
    write: &'a Write,
    asked: Asked<'a>,
    old: Option<&'a Object>,
    namespace: Value,
    accept: Accept<'a>,
}

/// What policies that must not fail have failed of: the whole message, and the reason of the reply.
struct Failures(Vec<(String, Reason)>);

impl Failures {
    fn add(&mut self, policy: &Policy, binding: &Binding, why: &str, reason: Reason) {
        if policy.must_hold {
            let by = format!("policy '{}' with binding '{}'", policy.name, binding.name);
            self.0.push((format!("{by} denied request: {why}"), reason));
        }
    }
}

impl Invocation<'_> {
    fn key(&self) -> InvocationKey {
        let of_params = |field: &str| self.params["metadata"][field].as_str().unwrap_or_default().to_owned();
        [self.policy.name.clone(), self.binding.name.clone(), of_params("namespace"), of_params("name")]
    }
}

impl Deciding<'_> {
    /// Has the policies change an object that is new or replaces `old`, one after the other. In the second round, those
    /// of `only` run, if their conditions hold still.
    pub(super) fn apply_mutating_policies(
        &self,
        write: &Write,
        (operation, subresource): About<'_>,
        object: &mut Object,
        old: Option<&Object>,
        accept: Accept<'_>,
        only: Option<&BTreeSet<InvocationKey>>,
    ) -> Result<Round, Decision> {
        let mut round = Round::default();
        if self.policies.mutating.is_empty() || !self.runs(MUTATING) {
            return Ok(round);
        }
        let info = self.info(object.kind()).in_version(&object.info().version);
        let name = object.name().to_owned();
        let asked = Asked { operation, of: &info, subresource, name: &name };
        let mut failures = Failures(Vec::new());
        let invocations = self.invocations(write, &asked, object, old, &mut failures);
        let case = Case { write, asked, old, namespace: self.namespace_of(write, object), accept };
        for invocation in &invocations {
            let Invocation { policy, binding, .. } = invocation;
            match case.is_meant(invocation, object) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(why) => {
                    failures.add(policy, binding, &why, Reason::Invalid);
                    continue;
                }
            }
            let key = invocation.key();
            if only.is_some_and(|only| !only.contains(&key)) {
                continue;
            }
            // Each sees what the one before it has made, also if one between them failed.
            for mutation in &policy.expressions.mutations {
                match self.mutated(&case, invocation, mutation, object) {
                    Ok(made) => {
                        round.has_applied = true;
                        *object = made;
                    }
                    Err(why) => failures.add(policy, binding, &why, Reason::Invalid),
                }
            }
            if policy.runs_again {
                round.again.insert(key);
            }
        }
        let Some((message, reason)) = failures.0.first() else { return Ok(round) };
        let mut status = Status::forbidden(&info, &name, "");
        (status.message, status.reason) = (message.as_str().into(), *reason);
        if let Some(details) = &mut status.details {
            let cause = |(message, _)| Cause { reason: String::new(), message, field: String::new() };
            details.causes = failures.0.into_iter().map(cause).collect();
        }
        Err(Decision::refuse(status))
    }

    /// What is to run: it is decided by the object as it comes in.
    fn invocations(
        &self,
        write: &Write,
        asked: &Asked<'_>,
        object: &Object,
        old: Option<&Object>,
        failures: &mut Failures,
    ) -> Vec<Invocation<'_>> {
        let mut invocations = Vec::new();
        for policy in &self.policies.mutating {
            let Some(version) = policy.matching.version_for(asked) else { continue };
            if !self.selects(write, &policy.matching, Some(object), old) {
                continue;
            }
            for binding in &policy.bindings {
                if !binding.matching.covers(asked) || !self.selects(write, &binding.matching, Some(object), old) {
                    continue;
                }
                match self.params(write, policy, binding, object) {
                    Ok(all) => invocations.extend(all.into_iter().map(|params| Invocation {
                        policy,
                        binding,
                        params,
                        version: version.clone(),
                    })),
                    Err(why) => {
                        let why = format!("failed to configure binding: {why}");
                        failures.add(policy, binding, &why, Reason::Forbidden);
                    }
                }
            }
        }
        invocations
    }

    /// What one mutation makes of an object.
    fn mutated(
        &self,
        case: &Case<'_>,
        Invocation { policy, params, version, .. }: &Invocation<'_>,
        mutation: &Mutation,
        object: &Object,
    ) -> Result<Object, String> {
        let request = review::request(case.write, &case.asked, version, (Some(object), case.old));
        let mut run = Run::new(policy, &request, &case.namespace, params);
        run.environment.makes_objects = true;
        run.set_variables(&policy.expressions);
        let value = self.patched(&mut run, mutation, object, &request["object"], version)?;
        let mut made = (case.accept)(self, value).map_err(|status| status.message.into_string())?;
        made.set_rv(object.rv());
        if (made.kind(), made.name(), made.namespace()) != (object.kind(), object.name(), object.namespace()) {
            return Err("the name, namespace and kind of an object cannot be changed".to_owned());
        }
        Ok(made)
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
                let made = patch::apply_if_tests_hold(shown, &Value::Array(operations));
                made.map_err(|status| format!("JSON Patch: {}", status.message))
            }
        }
    }
}

impl Case<'_> {
    /// Whether the conditions of a policy hold for an object.
    fn is_meant(&self, invocation: &Invocation<'_>, object: &Object) -> Result<bool, String> {
        let Invocation { policy, params, version, .. } = invocation;
        if policy.expressions.conditions.is_empty() {
            return Ok(true);
        }
        let request = review::request(self.write, &self.asked, version, (Some(object), self.old));
        Run::new(policy, &request, &self.namespace, params).is_meant(&policy.expressions)
    }
}
