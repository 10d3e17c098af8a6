//! ValidatingAdmissionPolicy: expressions in CEL refuse writes, or warn of them. What it shares with the policies that
//! change objects is here too.
//!
//! Not here: the `authorizer`, which no expression can name, audit annotations, which are compiled and kept by nobody,
//! and the type checks of `status.typeChecking`.
//!
//! Source: kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/policy`,
//! <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/>.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;
use skeg_cel::{Error, Key, Program};

use super::matching::{Asked, Matching, selector};
use super::webhook::{Operation, review};
use crate::api::{Cause, Reason, Status};
use crate::apiserver::cache::Cache;
use crate::apiserver::write::{Deciding, Decision, Write};
use crate::limits;
use crate::object::{Kind, Object, ObjectKey, Revision, cel};

/// Name of the plug-in.
pub(super) const VALIDATING: &str = "ValidatingAdmissionPolicy";
/// The kinds that are read here: policies and their bindings.
const KINDS: [[Kind; 2]; 2] = [
    [Kind::VALIDATING_ADMISSION_POLICY, Kind::VALIDATING_ADMISSION_POLICY_BINDING],
    [Kind::MUTATING_ADMISSION_POLICY, Kind::MUTATING_ADMISSION_POLICY_BINDING],
];

/// A policy that is bound.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) matching: Matching,
    /// `failurePolicy: Fail`.
    pub(super) must_hold: bool,
    /// `reinvocationPolicy: IfNeeded`.
    pub(super) runs_again: bool,
    /// API version and kind of its parameters.
    params: Option<(String, String)>,
    pub(super) expressions: cel::Policy,
    pub(super) bindings: Vec<Binding>,
}

#[derive(Debug)]
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) matching: Matching,
    /// `paramRef`.
    params: Value,
    denies: bool,
    warns: bool,
}

/// The policies of a server's cache.
#[derive(Debug, Default)]
pub(in crate::apiserver) struct Policies {
    validating: Vec<Policy>,
    pub(super) mutating: Vec<Policy>,
    /// Revisions of the last change of each kind.
    at: [[Revision; 2]; 2],
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

/// What the objects of a kind say: their names and specs.
fn specs(cache: &Cache, kind: Kind) -> impl Iterator<Item = (String, &Value)> {
    cache.objects(kind).filter_map(|(_, object)| match object {
        Object::Dynamic(d) => Some((object.name().to_owned(), d.body.get("spec")?)),
        _ => None,
    })
}

impl Policies {
    /// Reads the policies again if one has changed.
    pub(in crate::apiserver) fn refresh(&mut self, cache: &Cache) {
        let at = KINDS.map(|kinds| kinds.map(|kind| cache.last_event(kind)));
        if at == self.at {
            return;
        }
        let [validating, mutating] = KINDS;
        // Validation has refused what cannot be compiled.
        self.validating = read(cache, validating, |spec| cel::policy(spec, &mut Vec::new()));
        self.mutating = read(cache, mutating, |spec| cel::mutating_policy(spec, &mut Vec::new()));
        self.at = at;
    }

    /// Whether none is bound.
    pub(in crate::apiserver) fn is_empty(&self) -> bool {
        self.validating.is_empty() && self.mutating.is_empty()
    }
}

/// The policies of a kind that are bound.
fn read(cache: &Cache, [policies, bindings]: [Kind; 2], compile: impl Fn(&Value) -> cel::Policy) -> Vec<Policy> {
    let mut bound: BTreeMap<String, Vec<Binding>> = BTreeMap::new();
    for (name, spec) in specs(cache, bindings) {
        let actions = super::matching::words(&spec["validationActions"]);
        let has = |action: &str| actions.iter().any(|a| a == action);
        let matching = Matching::read(&spec["matchResources"], "resourceRules");
        let (params, denies, warns) = (spec["paramRef"].clone(), has("Deny"), has("Warn"));
        let binding = Binding { name, matching, params, denies, warns };
        bound.entry(text(spec, "policyName")).or_default().push(binding);
    }
    let read = specs(cache, policies).filter_map(|(name, spec)| {
        let bindings = bound.remove(&name)?;
        let kind = &spec["paramKind"];
        Some(Policy {
            bindings,
            matching: Matching::read(&spec["matchConstraints"], "resourceRules"),
            must_hold: spec["failurePolicy"] != "Ignore",
            runs_again: spec["reinvocationPolicy"] == "IfNeeded",
            params: (!kind.is_null()).then(|| (text(kind, "apiVersion"), text(kind, "kind"))),
            expressions: compile(spec),
            name,
        })
    });
    read.collect()
}

/// Why a write is refused: a message and the reason of the reply.
type Refusal = (String, String);

/// An evaluation of one policy for one set of parameters.
pub(super) struct Run<'p, 'a> {
    pub(super) environment: skeg_cel::Environment,
    pub(super) variables: BTreeMap<&'static str, skeg_cel::Value<'a>>,
    pub(super) policy: &'p Policy,
    pub(super) budget: u64,
}

/// What an expression says of a condition.
pub(super) fn evaluate<'a>(
    program: &'a Program,
    expression: &str,
    environment: &skeg_cel::Environment,
    variables: &BTreeMap<&'static str, skeg_cel::Value<'a>>,
    budget: &mut u64,
) -> Result<skeg_cel::Value<'a>, String> {
    let (result, cost) = program.run(environment, variables, limits::CEL_CALL.min(*budget));
    *budget -= cost.min(*budget);
    result.map_err(|why| match why {
        Error::Cost => {
            "validation failed due to running out of cost budget, no further validation rules will be run".to_owned()
        }
        Error::Failed(_) => format!("expression '{expression}' resulted in error: {why}"),
    })
}

/// Whether all conditions hold. An error counts only if no condition fails to hold.
pub(super) fn conditions_hold<'a>(
    conditions: &'a [(String, Program)],
    environment: &skeg_cel::Environment,
    variables: &BTreeMap<&'static str, skeg_cel::Value<'a>>,
    budget: &mut u64,
) -> Result<bool, String> {
    let mut failed = None;
    for (_, program) in conditions {
        match evaluate(program, program.source(), environment, variables, budget) {
            Ok(skeg_cel::Value::Bool(false)) => return Ok(false),
            Ok(_) => {}
            Err(why) => drop(failed.get_or_insert(why)),
        }
    }
    failed.map_or(Ok(true), Err)
}

impl<'p, 'a> Run<'p, 'a> {
    /// A run of a policy about a request.
    pub(super) fn new(policy: &'p Policy, request: &'a Value, namespace: &'a Value, params: &'a Value) -> Run<'p, 'a> {
        let dynamic = |json| skeg_cel::Value::of(json, &skeg_cel::Type::Dyn);
        let variables = BTreeMap::from([
            ("object", dynamic(&request["object"])),
            ("oldObject", dynamic(&request["oldObject"])),
            ("request", cel::request_value(request)),
            ("namespaceObject", dynamic(namespace)),
            ("params", dynamic(params)),
        ]);
        Run { environment: cel::environment(), variables, policy, budget: limits::CEL_BUDGET }
    }

    /// Whether the conditions hold.
    pub(super) fn is_meant(&mut self, expressions: &'a cel::Policy) -> Result<bool, String> {
        let Run { environment, variables, budget, .. } = self;
        conditions_hold(&expressions.conditions, environment, variables, budget)
    }

    /// Evaluates the variables, each of which sees those before it.
    pub(super) fn set_variables(&mut self, expressions: &'a cel::Policy) {
        let mut known = BTreeMap::new();
        for (name, program) in &expressions.variables {
            self.variables.insert("variables", skeg_cel::Value::Map(Rc::new(known.clone())));
            let source = program.source();
            let value = evaluate(program, source, &self.environment, &self.variables, &mut self.budget);
            let value = value.unwrap_or_else(|why| {
                skeg_cel::Value::Failed(format!("composited variable {name:?} fails to evaluate: {why}").into())
            });
            known.insert(Key::String(name.clone()), value);
        }
        self.variables.insert("variables", skeg_cel::Value::Map(Rc::new(known)));
    }

    /// What is refused, in the order of the validations.
    fn refusals(mut self, expressions: &'a cel::Policy) -> Vec<Refusal> {
        match self.is_meant(expressions) {
            Ok(true) => self.set_variables(expressions),
            Ok(false) => return Vec::new(),
            Err(why) if self.policy.must_hold => return vec![(why, String::new())],
            Err(_) => return Vec::new(),
        }
        let mut refusals = Vec::new();
        for validation in &expressions.validations {
            let Run { environment, variables, budget, policy } = &mut self;
            match evaluate(&validation.program, &validation.expression, environment, variables, budget) {
                Ok(skeg_cel::Value::Bool(true)) => {}
                Ok(_) => {
                    let said = validation.message_expression.as_ref().and_then(|expression| {
                        match evaluate(expression, "", environment, variables, budget) {
                            Ok(skeg_cel::Value::String(text)) => Some(text.trim().to_owned()),
                            // The message that is written stands in.
                            Ok(_) | Err(_) => None,
                        }
                    });
                    let usable =
                        |text: &String| !text.is_empty() && text.len() <= limits::CEL_MESSAGE && !text.contains('\n');
                    let message = said.filter(usable).unwrap_or_else(|| match validation.message.as_str() {
                        "" => format!("failed expression: {}", validation.expression),
                        message => message.to_owned(),
                    });
                    refusals.push((message, validation.reason.clone()));
                }
                Err(why) if policy.must_hold => refusals.push((why, String::new())),
                Err(_) => {}
            }
        }
        refusals
    }
}

impl Deciding<'_> {
    /// Has the policies judge a write: `Err` if one denies it.
    pub(super) fn apply_policies(
        &self,
        write: &Write,
        (operation, subresource): (Operation, &str),
        new: Option<&Object>,
        old: Option<&Object>,
        warnings: &mut Vec<String>,
    ) -> Result<(), Decision> {
        if self.policies.validating.is_empty() || !self.runs(VALIDATING) {
            return Ok(());
        }
        let about = new.or(old).expect("a write is about an object");
        let info = self.info(about.kind()).in_version(&about.info().version);
        let asked = Asked { operation, of: &info, subresource, name: about.name() };
        let mut denied: Option<(String, String)> = None;
        for policy in &self.policies.validating {
            let Some(version) = policy.matching.version_for(&asked) else { continue };
            if !self.selects(write, &policy.matching, new, old) {
                continue;
            }
            let request = review::request(write, &asked, &version, (new, old));
            for binding in &policy.bindings {
                if !binding.matching.covers(&asked) || !self.selects(write, &binding.matching, new, old) {
                    continue;
                }
                for (message, reason) in self.refusals(write, policy, binding, about, &request) {
                    let by = format!("ValidatingAdmissionPolicy '{}' with binding '{}'", policy.name, binding.name);
                    if binding.warns {
                        warnings.push(format!("Validation failed for {by}: {message}"));
                    }
                    if binding.denies && denied.is_none() {
                        denied = Some((format!("{by} denied request: {message}"), reason));
                    }
                }
            }
        }
        let Some((message, reason)) = denied else { return Ok(()) };
        let mut status = Status::forbidden(&info, about.name(), &message);
        status.reason = match reason.as_str() {
            "Forbidden" => Reason::Forbidden,
            "Unauthorized" => Reason::Unauthorized,
            "RequestEntityTooLarge" => Reason::RequestEntityTooLarge,
            _ => Reason::Invalid,
        };
        if let Some(details) = &mut status.details {
            details.causes.push(Cause { reason: String::new(), message, field: String::new() });
        }
        Err(Decision::refuse(status))
    }

    /// What a policy refuses under a binding, with each of its parameters.
    fn refusals(
        &self,
        write: &Write,
        policy: &Policy,
        binding: &Binding,
        about: &Object,
        request: &Value,
    ) -> Vec<Refusal> {
        let params = match self.params(write, policy, binding, about) {
            Ok(params) => params,
            Err(why) if policy.must_hold => {
                return vec![(format!("failed to configure binding: {why}"), String::new())];
            }
            Err(_) => return Vec::new(),
        };
        let namespace = self.namespace_of(write, about);
        let run = |params| Run::new(policy, request, &namespace, params).refusals(&policy.expressions);
        params.iter().flat_map(run).collect()
    }

    /// The namespace of an object, as JSON; `null` if it is in none.
    pub(super) fn namespace_of(&self, write: &Write, about: &Object) -> Value {
        match about.namespace() {
            "" => Value::Null,
            name => {
                let key = ObjectKey::new(Kind::NAMESPACE, "", name);
                self.known(write, &key).map_or(Value::Null, Object::to_json)
            }
        }
    }

    /// The parameters of a binding; a single `null` if there are none to be had.
    pub(super) fn params(
        &self,
        write: &Write,
        policy: &Policy,
        binding: &Binding,
        about: &Object,
    ) -> Result<Vec<Value>, String> {
        let (Some((version, kind)), false) = (&policy.params, binding.params.is_null()) else {
            return Ok(vec![Value::Null]);
        };
        let Some(kind) = self.config.kinds.by_api_version(version, kind) else {
            return Err(format!("failed to find resource referenced by paramKind: '{version}, Kind={kind}'"));
        };
        let namespace = match (self.info(kind).namespaced, binding.params["namespace"].as_str().unwrap_or_default()) {
            (false, "") => "",
            (false, _) => {
                return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
            }
            (true, "") if about.namespace().is_empty() => {
                let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
                return Err(why.to_owned());
            }
            (true, "") => about.namespace(),
            (true, named) => named,
        };
        let found: Vec<Value> = match binding.params["name"].as_str().filter(|name| !name.is_empty()) {
            Some(name) => {
                let key = ObjectKey::new(kind, namespace, name);
                self.known(write, &key).map(Object::to_json).into_iter().collect()
            }
            None => {
                let selector = selector(&binding.params["selector"]);
                let all = self.cache.objects(kind).map(|(_, object)| object);
                let here = all.filter(|o| namespace.is_empty() || o.namespace() == namespace);
                here.filter(|o| selector.matches(o.meta().labels.as_ref())).map(Object::to_json).collect()
            }
        };
        if found.is_empty() && binding.params["parameterNotFoundAction"] == "Deny" {
            return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
        }
        Ok(found)
    }
}
