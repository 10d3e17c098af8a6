//! Structural schemas: the schema that a CustomResourceDefinition has for its objects, and what it is used for:
//! pruning, defaulting and validation.
//!
//! Source: upstream's `apiextensions-apiserver/pkg/apiserver/schema`;
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/>.
//! What its rules in CEL (`x-kubernetes-validations`) say is in [`rule`].

mod check;
mod defaults;
mod rule;
#[cfg(test)]
mod rule_tests;
mod validate;

use std::collections::BTreeMap;

use regex_lite::Regex;
use serde_json::{Map, Value};

pub use check::check;
pub use defaults::Defaults;
use rule::Validations;
pub(crate) use validate::has_format;

/// The schema of a value. The empty schema allows any value.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// `type`; `None` if absent.
    type_: Option<Type>,
    nullable: bool,
    int_or_string: bool,
    preserve_unknown: bool,
    embedded_resource: bool,
    properties: BTreeMap<String, Schema>,
    additional: Option<Box<Additional>>,
    items: Option<Box<Schema>>,
    list: ListType,
    /// `x-kubernetes-map-type: atomic`.
    atomic_map: bool,
    rules: Rules,
    validations: Validations,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

/// `additionalProperties`.
#[derive(Clone, Debug)]
enum Additional {
    Any(bool),
    Of(Schema),
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum ListType {
    #[default]
    Atomic,
    Set,
    /// A map list, with its `x-kubernetes-list-map-keys`.
    Map(Vec<String>),
}

/// The keywords that only validation uses.
#[derive(Clone, Debug, Default)]
struct Rules {
    required: Vec<String>,
    enumeration: Option<Vec<Value>>,
    format: Option<String>,
    pattern: Option<Pattern>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    exclusive_minimum: bool,
    exclusive_maximum: bool,
    multiple_of: Option<f64>,
    min_length: Option<u64>,
    max_length: Option<u64>,
    min_items: Option<u64>,
    max_items: Option<u64>,
    min_properties: Option<u64>,
    max_properties: Option<u64>,
    unique_items: bool,
    all_of: Vec<Schema>,
    any_of: Vec<Schema>,
    one_of: Vec<Schema>,
    not: Option<Box<Schema>>,
}

#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    /// `None` if the text is not a valid regular expression, which [`check`] refuses in a definition.
    regex: Option<Regex>,
}

impl Type {
    fn parse(text: &str) -> Option<Type> {
        Some(match text {
            "object" => Type::Object,
            "array" => Type::Array,
            "string" => Type::String,
            "integer" => Type::Integer,
            "number" => Type::Number,
            "boolean" => Type::Boolean,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
        }
    }
}

impl Schema {
    /// Parses an `openAPIV3Schema`. [`check`] has reported its errors before it was stored, so they are ignored here.
    pub fn parse(value: &Value) -> Schema {
        let mut schema = Schema::plain(value);
        schema.compile(value, true);
        schema
    }

    /// The schema without its rules in CEL: enough to prune by.
    pub fn for_pruning(value: &Value) -> Schema {
        Schema::plain(value)
    }

    /// The schema without its rules in CEL.
    fn plain(value: &Value) -> Schema {
        let flag = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or(false);
        let keys = value.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
        let list = match value.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(keys.filter_map(Value::as_str).map(str::to_owned).collect()),
            _ => ListType::Atomic,
        };
        let properties = value.get("properties").and_then(Value::as_object).into_iter().flatten();
        let additional = value.get("additionalProperties").map(|a| match a {
            Value::Bool(any) => Additional::Any(*any),
            other => Additional::Of(Schema::plain(other)),
        });
        Schema {
            type_: value.get("type").and_then(Value::as_str).and_then(Type::parse),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag("x-kubernetes-embedded-resource"),
            properties: properties.map(|(name, of)| (name.clone(), Schema::plain(of))).collect(),
            additional: additional.map(Box::new),
            items: value.get("items").map(|items| Box::new(Schema::plain(items))),
            list,
            atomic_map: value.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic"),
            rules: Rules::parse(value),
            validations: Validations::default(),
        }
    }

    /// The schema of a property; `None` if the schema says nothing about it.
    fn property(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or(match self.additional.as_deref() {
            Some(Additional::Of(schema)) => Some(schema),
            Some(Additional::Any(_)) | None => None,
        })
    }

    /// Whether pruning keeps properties that the schema does not specify.
    fn keeps_unknown(&self) -> bool {
        self.preserve_unknown || matches!(self.additional.as_deref(), Some(Additional::Any(true)))
    }

    /// Removes properties that the schema does not specify. If `root` is true, the value is a whole object, whose
    /// `apiVersion`, `kind` and `metadata` are kept unpruned.
    pub fn prune(&self, value: &mut Value, root: bool) {
        match value {
            Value::Object(map) => {
                let whole = root || self.embedded_resource;
                let own = |name: &str| whole && matches!(name, "apiVersion" | "kind" | "metadata");
                map.retain(|name, value| match self.property(name) {
                    _ if own(name) => true,
                    Some(schema) => {
                        schema.prune(value, false);
                        true
                    }
                    None => self.keeps_unknown(),
                });
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    items.iter_mut().for_each(|item| schema.prune(item, false));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

impl Rules {
    fn parse(value: &Value) -> Rules {
        let flag = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or(false);
        let count = |name: &str| value.get(name).and_then(Value::as_u64);
        let number = |name: &str| value.get(name).and_then(Value::as_f64);
        let text = |name: &str| value.get(name).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
        let list = |name: &str| value.get(name).and_then(Value::as_array).into_iter().flatten();
        let schemas = |name: &str| list(name).map(Schema::plain).collect();
        Rules {
            required: list("required").filter_map(Value::as_str).map(str::to_owned).collect(),
            enumeration: value.get("enum").and_then(Value::as_array).filter(|e| !e.is_empty()).cloned(),
            format: text("format"),
            pattern: text("pattern").map(|text| Pattern { regex: Regex::new(&text).ok(), text }),
            minimum: number("minimum"),
            maximum: number("maximum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            unique_items: flag("uniqueItems"),
            all_of: schemas("allOf"),
            any_of: schemas("anyOf"),
            one_of: schemas("oneOf"),
            not: value.get("not").map(|not| Box::new(Schema::plain(not))),
        }
    }
}

/// The value at a simple JSON path such as `.spec.replicas`, as scale paths and selectable fields use them.
pub fn at_path<'a>(body: &'a Map<String, Value>, status: Option<&'a Value>, path: &str) -> Option<&'a Value> {
    let mut steps = path.trim_start_matches('.').split('.');
    let first = match steps.next()? {
        "status" => status?,
        name => body.get(name)?,
    };
    steps.try_fold(first, |value, step| value.get(step))
}

#[cfg(test)]
mod tests {
    use super::{Defaults, Schema};
    use serde_json::{Value, json};

    fn described() -> Value {
        json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {}, "properties": {
                "size": {"type": "integer", "default": 1},
                "note": {"type": "string", "nullable": true, "default": "n"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"in": {"type": "object", "properties": {"a": {"type": "string"}}}}},
                "labels": {"type": "object", "additionalProperties": {"type": "object",
                    "properties": {"x": {"type": "string", "default": "y"}}}},
                "list": {"type": "array", "items": {"type": "object", "properties": {
                    "name": {"type": "string"}, "port": {"type": "integer", "default": 80}}}},
                "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {}}}}}})
    }

    fn check(mut value: Value, want: Value) {
        Schema::parse(&described()).prune(&mut value, true);
        Defaults::read(&described()).expect("it has some").fill(&mut value);
        assert_eq!(value, want);
    }

    #[test]
    fn what_is_unknown_goes_and_what_is_missing_comes() {
        check(json!({}), json!({"spec": {"size": 1, "note": "n"}}));
        check(
            json!({"apiVersion": "v1", "metadata": {"any": 1}, "nope": 1, "spec": {"size": null, "note": null, "no": 2}}),
            json!({"apiVersion": "v1", "metadata": {"any": 1}, "spec": {"size": 1, "note": null}}),
        );
        check(
            json!({"spec": {"size": 2, "note": "m", "free": {"b": 1, "in": {"a": "x", "c": 1}},
                "labels": {"k": {"z": 1}}, "list": [{"name": "n", "q": 1}, {"port": 1}],
                "embedded": {"apiVersion": "v1", "kind": "K", "metadata": {}, "data": 1}}}),
            json!({"spec": {"size": 2, "note": "m", "free": {"b": 1, "in": {"a": "x"}},
                "labels": {"k": {"x": "y"}}, "list": [{"name": "n", "port": 80}, {"port": 1}],
                "embedded": {"apiVersion": "v1", "kind": "K", "metadata": {}}}}),
        );
    }
}
