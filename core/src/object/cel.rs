//! Expressions in CEL: what surrounds them, and those of admission, compiled: webhooks' conditions and policies.
//!
//! Source: kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/{cel,policy}`.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;
use skeg_cel::types::Object;
use skeg_cel::{Environment, Program, Type};

use super::{FieldError, Nano, structural, validation};

/// The functions of expressions, without variables.
pub fn environment() -> Environment {
    Environment {
        variables: BTreeMap::new(),
        makes_objects: false,
        quantity: |text| Nano::parse(text).map(|quantity| quantity.0).map_err(|why| why.to_string()),
        format: |name, text| {
            let wrongs = match name {
                "dns1123Label" => validation::names::label(text),
                "dns1123Subdomain" => validation::names::subdomain(text),
                "dns1035Label" => validation::names::label_1035(text),
                "qualifiedName" => validation::names::qualified(text),
                "labelValue" => validation::names::label_value(text),
                "datetime" => known(text, "date-time"),
                other => known(text, other),
            };
            wrongs.into_iter().next().map_or(Ok(()), Err)
        },
    }
}

fn known(text: &str, format: &str) -> Vec<String> {
    let has = structural::has_format(text, format);
    if has { Vec::new() } else { vec![format!("{text:?} is not a {format}")] }
}

/// An expression that refuses what it is false of.
#[derive(Debug)]
pub struct Validation {
    /// Its text.
    pub expression: String,
    /// It, compiled.
    pub program: Program,
    /// `message`.
    pub message: String,
    /// `messageExpression`.
    pub message_expression: Option<Program>,
    /// `reason`.
    pub reason: String,
}

/// The expressions of an admission policy, by their names.
#[derive(Debug, Default)]
pub struct Policy {
    /// `matchConditions`.
    pub conditions: Vec<(String, Program)>,
    /// `variables`.
    pub variables: Vec<(String, Program)>,
    /// `validations`.
    pub validations: Vec<Validation>,
    /// `mutations`.
    pub mutations: Vec<Mutation>,
}

/// What a policy makes of an object.
#[derive(Debug)]
pub enum Mutation {
    /// `ApplyConfiguration`: what is merged into it.
    Configuration(Program),
    /// `JSONPatch`: operations.
    Patch(Program),
}

/// The type of `request`, an admission request.
fn request() -> Type {
    fn object<const N: usize>(name: &str, fields: [(&str, Type); N]) -> Type {
        let fields = fields.map(|(field, type_)| (field.to_owned(), (field.to_owned(), type_)));
        Type::Object(Rc::new(Object { name: format!("kubernetes.{name}"), fields: fields.into() }))
    }
    let text = || Type::String;
    let kind = || object("GroupVersionKind", [("group", text()), ("version", text()), ("kind", text())]);
    let resource = || object("GroupVersionResource", [("group", text()), ("version", text()), ("resource", text())]);
    let user = object(
        "UserInfo",
        [
            ("username", text()),
            ("uid", text()),
            ("groups", Type::list(text())),
            ("extra", Type::map(text(), Type::list(text()))),
        ],
    );
    object(
        "AdmissionRequest",
        [
            ("kind", kind()),
            ("resource", resource()),
            ("subResource", text()),
            ("requestKind", kind()),
            ("requestResource", resource()),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

/// The value of `request`, from an admission request's JSON.
pub fn request_value(json: &Value) -> skeg_cel::Value<'_> {
    skeg_cel::Value::of(json, &request())
}

/// What surrounds conditions of admission: those of webhooks see the objects and the request only.
fn admission() -> Environment {
    let variables = [("object", Type::Dyn), ("oldObject", Type::Dyn), ("request", request())];
    Environment { variables: variables.into(), ..environment() }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Compiles an expression that has a value of one of these types; any, if there are none.
fn compile(
    expression: &str,
    types: &[Type],
    environment: &Environment,
    at: &str,
    errors: &mut Vec<FieldError>,
) -> Option<Program> {
    if expression.trim().is_empty() {
        errors.push(FieldError::required(at, "expression is not specified"));
        return None;
    }
    match Program::compile(expression, environment) {
        Ok(program) if types.is_empty() || types.contains(program.type_()) => Some(program),
        Ok(_) => {
            let names: Vec<String> = types.iter().map(ToString::to_string).collect();
            let why = match names.as_slice() {
                [one] => format!("must evaluate to {one}"),
                several => format!("must evaluate to one of [{}]", several.join(" ")),
            };
            errors.push(FieldError::invalid(at, expression, why));
            None
        }
        Err(why) => {
            errors.push(FieldError::invalid(at, expression, format!("compilation failed: {why}")));
            None
        }
    }
}

/// Compiles the `matchConditions` of a webhook or a policy at a path.
fn compile_conditions(
    of: &Value,
    at: &str,
    environment: &Environment,
    errors: &mut Vec<FieldError>,
) -> Vec<(String, Program)> {
    let mut conditions: Vec<(String, Program)> = Vec::new();
    for (index, condition) in list(of, "matchConditions").iter().enumerate() {
        let at = format!("{at}matchConditions[{index}]");
        let name = text(condition, "name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        } else if conditions.iter().any(|(known, _)| known == name) {
            errors.push(FieldError::duplicate(format!("{at}.name"), name));
        }
        let expression = text(condition, "expression");
        let program = compile(expression, &[Type::Bool], environment, &format!("{at}.expression"), errors);
        conditions.extend(program.map(|program| (name.to_owned(), program)));
    }
    conditions
}

/// Compiles the `matchConditions` of a webhook; `at` ends with a dot.
pub fn conditions(webhook: &Value, at: &str, errors: &mut Vec<FieldError>) -> Vec<(String, Program)> {
    compile_conditions(webhook, at, &admission(), errors)
}

/// Compiles what both kinds of policies have: conditions and variables. Returns what surrounds their other expressions.
fn begun(spec: &Value, errors: &mut Vec<FieldError>) -> (Policy, Environment) {
    let mut environment = admission();
    environment.variables.insert("namespaceObject", Type::Dyn);
    if spec.get("paramKind").is_some_and(|kind| !kind.is_null()) {
        environment.variables.insert("params", Type::Dyn);
    }
    let mut fields = BTreeMap::new();
    let mut set_fields = |environment: &mut Environment, field: Option<(String, Type)>| {
        fields.extend(field.map(|(name, type_)| (name.clone(), (name, type_))));
        let variables = Object { name: "kubernetes.variables".to_owned(), fields: fields.clone() };
        environment.variables.insert("variables", Type::Object(Rc::new(variables)));
    };
    set_fields(&mut environment, None);
    let conditions = compile_conditions(spec, "spec.", &environment, errors);
    let mut policy = Policy { conditions, ..Policy::default() };
    for (index, variable) in list(spec, "variables").iter().enumerate() {
        let at = format!("spec.variables[{index}]");
        let name = text(variable, "name");
        if skeg_cel::types::escape(name).as_deref() != Some(name) || name.contains('.') {
            errors.push(FieldError::invalid(format!("{at}.name"), name, "name is not a valid CEL identifier"));
        } else if policy.variables.iter().any(|(known, _)| known == name) {
            errors.push(FieldError::duplicate(format!("{at}.name"), name));
        }
        let expression = text(variable, "expression");
        if let Some(program) = compile(expression, &[], &environment, &format!("{at}.expression"), errors) {
            set_fields(&mut environment, Some((name.to_owned(), program.type_().clone())));
            policy.variables.push((name.to_owned(), program));
        }
    }
    (policy, environment)
}

/// Compiles the spec of a MutatingAdmissionPolicy.
pub fn mutating_policy(spec: &Value, errors: &mut Vec<FieldError>) -> Policy {
    let (mut policy, mut environment) = begun(spec, errors);
    environment.makes_objects = true;
    for (index, mutation) in list(spec, "mutations").iter().enumerate() {
        let at = format!("spec.mutations[{index}]");
        let mut made = |field: &str, wanted: Type| {
            let Some(of) = mutation.get(field) else {
                errors.push(FieldError::required(format!("{at}.{field}"), ""));
                return None;
            };
            let (at, expression) = (format!("{at}.{field}.expression"), text(of, "expression"));
            let program = compile(expression, &[], &environment, &at, errors)?;
            // What is only known once it is evaluated is judged then.
            let fits = match (&wanted, program.type_()) {
                (_, Type::Dyn) => true,
                (Type::List(wanted), Type::List(is)) => is.item == Type::Dyn || is.item == wanted.item,
                (wanted, is) => is == wanted,
            };
            if !fits {
                errors.push(FieldError::invalid(at, expression, format!("must evaluate to {wanted}")));
            }
            fits.then_some(program)
        };
        let mutation = match text(mutation, "patchType") {
            "ApplyConfiguration" => made("applyConfiguration", skeg_cel::made("Object")).map(Mutation::Configuration),
            "JSONPatch" => made("jsonPatch", Type::list(skeg_cel::made("JSONPatch"))).map(Mutation::Patch),
            other => {
                let (at, known) = (format!("{at}.patchType"), ["ApplyConfiguration", "JSONPatch"]);
                errors.push(match other {
                    "" => FieldError::required(at, ""),
                    other => FieldError::not_supported(at, other, &known),
                });
                None
            }
        };
        policy.mutations.extend(mutation);
    }
    policy
}

/// Compiles the spec of a ValidatingAdmissionPolicy.
pub fn policy(spec: &Value, errors: &mut Vec<FieldError>) -> Policy {
    let (mut policy, environment) = begun(spec, errors);
    for (index, validation) in list(spec, "validations").iter().enumerate() {
        let at = format!("spec.validations[{index}]");
        let expression = text(validation, "expression");
        let program = compile(expression, &[Type::Bool], &environment, &format!("{at}.expression"), errors);
        let message_expression = match text(validation, "messageExpression") {
            "" => None,
            said => compile(said, &[Type::String], &environment, &format!("{at}.messageExpression"), errors),
        };
        let reason = text(validation, "reason");
        let known = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
        if !reason.is_empty() && !known.contains(&reason) {
            errors.push(FieldError::not_supported(format!("{at}.reason"), reason, &known));
        }
        policy.validations.extend(program.map(|program| Validation {
            expression: expression.trim().to_owned(),
            program,
            message: text(validation, "message").trim().to_owned(),
            message_expression,
            reason: reason.to_owned(),
        }));
    }
    for (index, annotation) in list(spec, "auditAnnotations").iter().enumerate() {
        let at = format!("spec.auditAnnotations[{index}].valueExpression");
        compile(text(annotation, "valueExpression"), &[Type::String, Type::Null], &environment, &at, errors);
    }
    policy
}
