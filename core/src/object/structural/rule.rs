//! The rules in CEL that a schema has for its values (`x-kubernetes-validations`).
//!
//! They are compiled when a definition is written, and refused if they are wrong. Their costs are limited when they
//! run; unlike Kubernetes, nothing estimates them before.
//!
//! Source: upstream's `apiextensions-apiserver/pkg/apiserver/schema/cel`,
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules>,
//! and for what has not changed KEP-4008.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;
use skeg_cel::types::{Identity, List, Object, escape};
use skeg_cel::{Environment, Error, Program, Type};

use super::validate::{Before, child};
use super::{Additional, Schema};
use crate::limits;
use crate::object::validation::path::Go;
use crate::object::{ErrorKind, FieldError};

/// The rules of one level of a schema.
#[derive(Clone, Debug, Default)]
pub(super) struct Validations {
    rules: Rc<[Rule]>,
    /// The type of the value, if there are rules.
    type_: Option<Type>,
    /// Whether there are rules further down.
    below: bool,
}

/// A compiled rule.
#[derive(Debug)]
struct Rule {
    program: Program,
    /// What stands for it in errors: its message, or else its text.
    name: String,
    message: String,
    message_expression: Option<Program>,
    reason: Option<ErrorKind>,
    /// The field that is reported, below the value.
    field: String,
    uses_old: bool,
    optional_old: bool,
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn flag(value: &Value, name: &str) -> bool {
    value.get(name) == Some(&Value::Bool(true))
}

fn written(schema: &Value) -> &[Value] {
    schema.get("x-kubernetes-validations").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The type that expressions see; `None` if they see nothing. `whole` is an object with metadata.
fn type_of(schema: &Value, whole: bool, name: &str) -> Option<Type> {
    if flag(schema, "x-kubernetes-int-or-string") {
        return Some(Type::Dyn);
    }
    Some(match text(schema, "type") {
        "object" => object_type(schema, whole, name)?,
        "array" => {
            let items = schema.get("items")?;
            let item = type_of(items, flag(items, "x-kubernetes-embedded-resource"), &format!("{name}.@idx"))?;
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
            let identity = match text(schema, "x-kubernetes-list-type") {
                "set" => Identity::Value,
                "map" => Identity::Fields(keys.filter_map(Value::as_str).map(str::to_owned).collect()),
                _ => Identity::Place,
            };
            Type::List(Rc::new(List { item, identity }))
        }
        "string" => match text(schema, "format") {
            "byte" => Type::Bytes,
            "duration" => Type::Duration,
            "date" | "date-time" => Type::Timestamp,
            _ => Type::String,
        },
        "boolean" => Type::Bool,
        "number" => Type::Double,
        "integer" => Type::Int,
        _ => return None,
    })
}

fn object_type(schema: &Value, whole: bool, name: &str) -> Option<Type> {
    if let Some(additional) = schema.get("additionalProperties").filter(|a| a.is_object()) {
        let embedded = flag(additional, "x-kubernetes-embedded-resource");
        return Some(Type::map(Type::String, type_of(additional, embedded, &format!("{name}.@elem"))?));
    }
    let mut fields = BTreeMap::new();
    let mut add = |field: &str, type_: Type| {
        if let Some(escaped) = escape(field) {
            fields.insert(escaped, (field.to_owned(), type_));
        }
    };
    for (field, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let embedded = flag(property, "x-kubernetes-embedded-resource");
        if let Some(type_) = type_of(property, embedded, &format!("{name}.{field}")) {
            add(field, type_);
        }
    }
    if whole {
        let names = ["name", "generateName"].map(|n| (n.to_owned(), (n.to_owned(), Type::String)));
        let metadata = Object { name: format!("{name}.metadata"), fields: names.into() };
        add("apiVersion", Type::String);
        add("kind", Type::String);
        add("metadata", Type::Object(Rc::new(metadata)));
    }
    Some(Type::Object(Rc::new(Object { name: name.to_owned(), fields })))
}

/// What surrounds the rules of a value of this type. The old value may be an optional one.
fn environment(type_: &Type, optional_old: bool) -> Environment {
    let old = if optional_old { Type::optional(type_.clone()) } else { type_.clone() };
    Environment { variables: [("self", type_.clone()), ("oldSelf", old)].into(), ..crate::object::cel::environment() }
}

/// The parts of a rule that are wrong: the field, the kind of error and the detail.
type Wrong = (&'static str, ErrorKind, String);

impl Rule {
    fn compile(value: &Value, schema: &Value, type_: &Type) -> Result<Rule, Vec<Wrong>> {
        let optional_old = flag(value, "optionalOldSelf");
        let environment = environment(type_, optional_old);
        let rule = text(value, "rule");
        let failed = |field, why| (field, ErrorKind::Invalid, format!("compilation failed: {why}"));
        let program = Program::compile(rule, &environment).map_err(|why| vec![failed("rule", why.to_string())])?;
        let mut wrong = Vec::new();
        if *program.type_() != Type::Bool {
            wrong.push(("rule", ErrorKind::Invalid, "cel expression must evaluate to a bool".to_owned()));
        }
        let message_expression = match text(value, "messageExpression") {
            "" => None,
            expression => match Program::compile(expression, &environment) {
                Ok(program) if *program.type_() != Type::String => {
                    let why = "messageExpression must evaluate to a string".to_owned();
                    wrong.push(("messageExpression", ErrorKind::Invalid, why));
                    None
                }
                Ok(program) => Some(program),
                Err(why) => {
                    let why = format!("messageExpression compilation failed: {why}");
                    wrong.push(("messageExpression", ErrorKind::Invalid, why));
                    None
                }
            },
        };
        let field = field_path(text(value, "fieldPath"), schema).unwrap_or_default();
        let reason = match text(value, "reason") {
            "FieldValueForbidden" => Some(ErrorKind::Forbidden),
            "FieldValueRequired" => Some(ErrorKind::Required),
            "FieldValueDuplicate" => Some(ErrorKind::Duplicate),
            _ => None,
        };
        let message = text(value, "message").trim();
        let name = if message.is_empty() { rule.trim() } else { message };
        let shown = if message.is_empty() { format!("failed rule: {name}") } else { message.to_owned() };
        let uses_old = program.uses("oldSelf");
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let name = name.to_owned();
        Ok(Rule { program, name, message: shown, message_expression, reason, field, uses_old, optional_old })
    }
}

/// The field of a `fieldPath` such as `.spec['a.b']`, as errors write it; `None` if the schema has no such field.
fn field_path(path: &str, schema: &Value) -> Option<String> {
    let (mut rest, mut schema, mut out) = (path.trim(), schema, String::new());
    while !rest.is_empty() {
        let name;
        if let Some(after) = rest.strip_prefix("['") {
            let (quoted, after) = after.split_once("']")?;
            (name, rest) = (quoted, after);
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            (name, rest) = after.split_at(end);
        }
        match schema.get("properties") {
            Some(properties) => {
                schema = properties.get(name)?;
                out += if out.is_empty() { "" } else { "." };
                out += name;
            }
            None => {
                schema = schema.get("additionalProperties")?;
                out += &format!("[{name}]");
            }
        }
    }
    Some(out)
}

/// A rule as Go prints it in an error.
fn shown(rule: &Value) -> Go {
    let text = |name: &str| format!("{:?}", text(rule, name));
    let reason = match rule.get("reason") {
        None => "(*apiextensions.FieldValueErrorReason)(nil)",
        Some(_) => "(*apiextensions.FieldValueErrorReason)(0x0)",
    };
    let optional = if rule.get("optionalOldSelf").is_some() { "(*bool)(0x0)" } else { "(*bool)(nil)" };
    Go(format!(
        "apiextensions.ValidationRule{{Rule:{}, Message:{}, MessageExpression:{}, Reason:{reason}, FieldPath:{}, \
         OptionalOldSelf:{optional}}}",
        text("rule"),
        text("message"),
        text("messageExpression"),
        text("fieldPath"),
    ))
}

/// Reports the rules of a schema that are wrong.
pub(super) fn check(schema: &Value, at: &str, errors: &mut Vec<FieldError>) {
    check_level(schema, at, true, None, errors);
}

/// `lost` is where it ceases to be known what a value was before.
fn check_level(schema: &Value, at: &str, whole: bool, lost: Option<&str>, errors: &mut Vec<FieldError>) {
    let atomic = text(schema, "x-kubernetes-map-type") == "atomic";
    let below = lost.or(atomic.then_some(at));
    let embedded = |schema: &Value| flag(schema, "x-kubernetes-embedded-resource");
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        check_level(property, &format!("{at}.properties[{name}]"), embedded(property), below, errors);
    }
    if let Some(additional) = schema.get("additionalProperties").filter(|a| a.is_object()) {
        check_level(additional, &format!("{at}.additionalProperties"), embedded(additional), below, errors);
    }
    if let Some(items) = schema.get("items") {
        let below = lost.or((text(schema, "x-kubernetes-list-type") != "map").then_some(at));
        check_level(items, &format!("{at}.items"), embedded(items), below, errors);
    }
    for keyword in ["allOf", "anyOf", "oneOf", "not"] {
        let nested = schema.get(keyword).map(|n| n.as_array().map_or(std::slice::from_ref(n), Vec::as_slice));
        if nested.into_iter().flatten().any(has_rules) {
            let why = "is not supported here inside of allOf, anyOf, oneOf and not";
            errors.push(FieldError::forbidden(format!("{at}.{keyword}.x-kubernetes-validations"), why));
        }
    }
    let Some(type_) = type_of(schema, whole, "selfType") else {
        if !written(schema).is_empty() {
            let why = "rules need a schema with a type";
            errors.push(FieldError::forbidden(format!("{at}.x-kubernetes-validations"), why));
        }
        return;
    };
    for (index, rule) in written(schema).iter().enumerate() {
        check_rule(rule, schema, &type_, &format!("{at}.x-kubernetes-validations[{index}]"), lost, errors);
    }
}

/// Whether a schema has rules at any level.
fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.contains_key("x-kubernetes-validations") || map.values().any(has_rules),
        Value::Array(items) => items.iter().any(has_rules),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn check_rule(rule: &Value, schema: &Value, type_: &Type, at: &str, lost: Option<&str>, errors: &mut Vec<FieldError>) {
    let before = errors.len();
    let has_newlines = |text: &str| text.contains(['\n', '\r']);
    let (source, message, path) = (text(rule, "rule"), text(rule, "message"), text(rule, "fieldPath"));
    let expression = text(rule, "messageExpression");
    let mut invalid = |field: &str, value: &str, why: &str| {
        errors.push(FieldError::invalid(format!("{at}.{field}"), value, why));
    };
    if !message.is_empty() && message.trim().is_empty() {
        invalid("message", message, "message must be non-empty if specified");
    } else if has_newlines(message.trim()) {
        invalid("message", message, "message must not contain line breaks");
    }
    if !path.is_empty() && path.trim().is_empty() {
        invalid("fieldPath", path, "fieldPath must be non-empty if specified");
    } else if has_newlines(path) {
        invalid("fieldPath", path, "fieldPath must not contain line breaks");
    } else if field_path(path, schema).is_none() {
        invalid("fieldPath", path, "fieldPath must be a valid path");
    }
    let mut required = |field: &str, why: &str| errors.push(FieldError::required(format!("{at}.{field}"), why));
    if source.trim().is_empty() {
        required("rule", "rule is not specified");
    } else if has_newlines(source.trim()) && message.trim().is_empty() {
        required("message", "message must be specified if rule contains line breaks");
    }
    if !expression.is_empty() && expression.trim().is_empty() {
        required("messageExpression", "messageExpression must be non-empty if specified");
    }
    let reasons = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    let reason = text(rule, "reason");
    if !reason.is_empty() && !reasons.contains(&reason) {
        errors.push(FieldError::not_supported(format!("{at}.reason"), reason, &reasons));
    }
    if errors.len() > before {
        return;
    }
    match Rule::compile(rule, schema, type_) {
        Err(wrong) => errors.extend(wrong.into_iter().map(|(field, kind, why)| FieldError {
            kind,
            ..FieldError::invalid(format!("{at}.{field}"), shown(rule), why)
        })),
        Ok(compiled) if compiled.uses_old => {
            if let Some(lost) = lost {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {lost}");
                errors.push(FieldError::invalid(format!("{at}.rule"), source, why));
            }
        }
        Ok(_) => {
            if let Some(optional) = rule.get("optionalOldSelf") {
                let why = "may not be set if oldSelf is not used in rule";
                errors.push(FieldError::invalid(format!("{at}.optionalOldSelf"), Go(optional.to_string()), why));
            }
        }
    }
}

impl Schema {
    /// Compiles the rules of this level and of those below. [`check`] has refused those that cannot be compiled.
    pub(super) fn compile(&mut self, schema: &Value, whole: bool) {
        let mut below = false;
        let mut go = |inner: &mut Schema, written: Option<&Value>| {
            if let Some(written) = written.filter(|w| has_rules(w)) {
                inner.compile(written, inner.embedded_resource);
                below = true;
            }
        };
        for (name, inner) in &mut self.properties {
            go(inner, schema.get("properties").and_then(|p| p.get(name)));
        }
        if let Some(Additional::Of(inner)) = self.additional.as_deref_mut() {
            go(inner, schema.get("additionalProperties"));
        }
        if let Some(inner) = &mut self.items {
            go(inner, schema.get("items"));
        }
        let rules = written(schema);
        let type_ = if rules.is_empty() { None } else { type_of(schema, whole, "selfType") };
        let compiled = |type_: &Type| rules.iter().filter_map(|rule| Rule::compile(rule, schema, type_).ok()).collect();
        self.validations = Validations { rules: type_.as_ref().map(compiled).unwrap_or_default(), type_, below };
    }

    /// Whether there are rules at this level or below.
    pub(super) fn has_validations(&self) -> bool {
        self.validations.below || !self.validations.rules.is_empty()
    }

    /// Reports what breaks rules.
    pub(super) fn validate_by_rules(&self, value: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
        let environment = crate::object::cel::environment();
        let mut run = Run { budget: limits::CEL_BUDGET, environment: &environment, errors };
        // What stopped it has been reported.
        let _ = run.level(self, value, "", Before::of(value, old));
    }
}

/// Further rules are not run.
struct Stopped;

/// A run of all rules over one object.
struct Run<'r> {
    /// What may still be spent.
    budget: u64,
    environment: &'r Environment,
    errors: &'r mut Vec<FieldError>,
}

/// How errors name the root.
fn shown_path(at: &str) -> &str {
    if at.is_empty() { "<nil>" } else { at }
}

impl Run<'_> {
    fn level(&mut self, schema: &Schema, value: &Value, at: &str, before: Before<'_>) -> Result<(), Stopped> {
        if value.is_null() || !schema.has_validations() {
            return Ok(());
        }
        self.rules(schema, value, at, before)?;
        if !schema.validations.below {
            return Ok(());
        }
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    let before = before.field(schema, name, value);
                    if let Some(inner) = schema.properties.get(name) {
                        self.level(inner, value, &child(at, name), before)?;
                    } else if let Some(inner) = schema.property(name) {
                        self.level(inner, value, &format!("{at}[{name}]"), before)?;
                    }
                }
            }
            Value::Array(items) => {
                let Some(inner) = &schema.items else { return Ok(()) };
                for (index, item) in items.iter().enumerate() {
                    self.level(inner, item, &format!("{at}[{index}]"), before.item(schema, item))?;
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        Ok(())
    }

    fn rules(&mut self, schema: &Schema, value: &Value, at: &str, before: Before<'_>) -> Result<(), Stopped> {
        let Some(type_) = &schema.validations.type_ else { return Ok(()) };
        let old = before.own.map(|(_, old)| old).filter(|old| !old.is_null());
        let own = skeg_cel::Value::of(value, type_);
        let old_value = old.map(|old| skeg_cel::Value::of(old, type_));
        for rule in &*schema.validations.rules {
            let old = match (&old_value, rule.optional_old) {
                (None, false) if rule.uses_old => continue,
                (old, true) => Some(skeg_cel::Value::Optional(old.clone().map(Rc::new))),
                (old, false) => old.clone(),
            };
            let mut variables = BTreeMap::from([("self", own.clone())]);
            variables.extend(old.map(|old| ("oldSelf", old)));
            self.rule(rule, schema, at, before, &variables)?;
        }
        Ok(())
    }

    fn rule(
        &mut self,
        rule: &Rule,
        schema: &Schema,
        at: &str,
        before: Before<'_>,
        variables: &BTreeMap<&'static str, skeg_cel::Value<'_>>,
    ) -> Result<(), Stopped> {
        let type_ = schema.type_.map_or("", super::Type::name);
        let (result, cost) = run(&rule.program, self.environment, variables, |result| match result {
            Ok(skeg_cel::Value::Bool(is)) => Ok(*is),
            Ok(_) => Ok(false),
            Err(why) => Err(why.clone()),
        });
        let invalid = |why: String| FieldError::invalid(shown_path(at), type_, why);
        let Some(left) = self.budget.checked_sub(cost) else {
            let why = "validation failed due to running out of cost budget, no further validation rules will be run";
            self.errors.push(invalid(why.to_owned()));
            return Err(Stopped);
        };
        self.budget = left;
        let why = match result {
            Ok(true) => return Ok(()),
            Ok(false) => return self.broken(rule, type_, at, before, variables),
            Err(why) => why,
        };
        let name = &rule.name;
        self.errors.push(invalid(match &why {
            Error::Failed(text) if text.starts_with("no such overload") => {
                let what = "call arguments did not match a supported operator, function or macro signature";
                format!("'{why}': {what} for rule: {name}")
            }
            Error::Failed(_) => format!("{why} evaluating rule: {name}"),
            Error::Cost => {
                let what = "no further validation rules will be run due to call cost exceeds limit";
                format!("'{why}': {what} for rule: {name}")
            }
        }));
        if why == Error::Cost { Err(Stopped) } else { Ok(()) }
    }

    /// Reports that a rule does not hold, unless it did not hold before either and nothing has changed.
    fn broken(
        &mut self,
        rule: &Rule,
        type_: &str,
        at: &str,
        before: Before<'_>,
        variables: &BTreeMap<&'static str, skeg_cel::Value<'_>>,
    ) -> Result<(), Stopped> {
        if !rule.uses_old && before.is_same() {
            return Ok(());
        }
        let mut message = rule.message.clone();
        if let Some(expression) = &rule.message_expression {
            let (result, cost) = run(expression, self.environment, variables, |result| match result {
                Ok(skeg_cel::Value::String(text)) => Ok(text.trim().to_owned()),
                Ok(_) => Ok(String::new()),
                Err(why) => Err(why.clone()),
            });
            let left = self.budget.checked_sub(cost);
            self.budget = left.unwrap_or(0);
            match result {
                _ if left.is_none() => {
                    let why = "messageExpression evaluation failed due to running out of cost budget, no further \
                               validation rules will be run";
                    self.errors.push(FieldError::invalid(shown_path(at), type_, why));
                    return Err(Stopped);
                }
                Err(Error::Cost) => {
                    let why = "no further validation rules will be run due to call cost exceeds limit for \
                               messageExpression";
                    self.errors.push(FieldError::invalid(shown_path(at), type_, why));
                    return Err(Stopped);
                }
                Ok(text) if !text.is_empty() && text.len() <= limits::CEL_MESSAGE && !text.contains('\n') => {
                    message = text;
                }
                // The message that is written stands in.
                Ok(_) | Err(Error::Failed(_)) => {}
            }
        }
        let field = if rule.field.is_empty() { shown_path(at).to_owned() } else { child(at, &rule.field) };
        self.errors.push(match rule.reason {
            Some(ErrorKind::Forbidden) => FieldError::forbidden(field, message),
            Some(ErrorKind::Required) => FieldError::required(field, message),
            Some(ErrorKind::Duplicate) => FieldError::duplicate(field, type_),
            _ => FieldError::invalid(field, type_, message),
        });
        Ok(())
    }
}

/// Runs an expression; returns what `take` makes of its result, and what it cost.
fn run<T>(
    program: &Program,
    environment: &Environment,
    variables: &BTreeMap<&'static str, skeg_cel::Value<'_>>,
    take: impl FnOnce(&Result<skeg_cel::Value<'_>, Error>) -> T,
) -> (T, u64) {
    let (result, cost) = program.run(environment, variables, limits::CEL_CALL);
    (take(&result), cost)
}
