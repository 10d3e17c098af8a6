//! Validation of a value against its schema, with the error texts of upstream's `kube-openapi/pkg/validation`.

use jiff::Timestamp;
use serde_json::Value;

use super::{ListType, Rules, Schema, Type};
use crate::object::{ErrorKind, FieldError};

impl Schema {
    /// Reports the errors in a whole object, which was `old` before. What has not changed is not reported (KEP-4008).
    pub fn validate(&self, value: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
        let before = errors.len();
        self.value(value, "", Before::of(value, old), errors);
        let blocks = |e: &FieldError| {
            use ErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
            matches!(e.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid)
        };
        if !self.has_validations() {
            return;
        }
        if errors[before..].iter().any(blocks) {
            let why = "some validation rules were not checked because the object was invalid; correct the existing \
                       errors to complete validation";
            errors.push(FieldError::invalid("<nil>", "null", why));
        } else {
            self.validate_by_rules(value, old, errors);
        }
    }

    fn value(&self, value: &Value, at: &str, before: Before<'_>, errors: &mut Vec<FieldError>) {
        if value.is_null() && self.nullable {
            return;
        }
        if !self.has_type(value) {
            if !before.is_same() {
                errors.push(self.wrong_type(value, at));
            }
            return;
        }
        let first = errors.len();
        self.rules.check(value, at, errors);
        if let Value::Object(map) = value {
            for name in self.rules.required.iter().filter(|name| !map.contains_key(*name)) {
                errors.push(FieldError::required(child(at, name), ""));
            }
        }
        if let Value::Array(items) = value {
            self.duplicates(items, at, errors);
        }
        if errors.len() > first && before.is_same() {
            errors.truncate(first);
        }
        match value {
            Value::Object(map) => self.properties(map, at, before, errors),
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                for (index, item) in items.iter().enumerate() {
                    let before = before.item(self, item);
                    schema.value(item, &format!("{at}[{index}]"), before, errors);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn has_type(&self, value: &Value) -> bool {
        if self.int_or_string {
            return value.is_string() || is_integer(value);
        }
        match self.type_ {
            None => true,
            Some(Type::Object) => value.is_object(),
            Some(Type::Array) => value.is_array(),
            Some(Type::String) => value.is_string(),
            Some(Type::Integer) => is_integer(value),
            Some(Type::Number) => value.is_number(),
            Some(Type::Boolean) => value.is_boolean(),
        }
    }

    fn wrong_type(&self, value: &Value, at: &str) -> FieldError {
        let wanted = if self.int_or_string { "integer,string" } else { self.type_.map_or("", Type::name) };
        let found = type_of(value);
        let detail = format!("{at} in body must be of type {wanted}: {found:?}");
        FieldError { kind: ErrorKind::TypeInvalid, ..FieldError::invalid(at, found, detail) }
    }

    fn properties(
        &self,
        map: &serde_json::Map<String, Value>,
        at: &str,
        before: Before<'_>,
        errors: &mut Vec<FieldError>,
    ) {
        for (name, value) in map {
            if let Some(schema) = self.property(name) {
                schema.value(value, &child(at, name), before.field(self, name, value), errors);
            }
        }
    }

    /// Reports what is twice in a set or a map list.
    fn duplicates(&self, items: &[Value], at: &str, errors: &mut Vec<FieldError>) {
        let identity = |item: &Value| match &self.list {
            ListType::Atomic => None,
            ListType::Set => Some(item.clone()),
            ListType::Map(keys) => {
                let part = |key: &String| item.get(key).map(|value| (key.clone(), value.clone()));
                Some(Value::Object(keys.iter().filter_map(part).collect()))
            }
        };
        let identities: Vec<Value> = items.iter().filter_map(identity).collect();
        for (index, one) in identities.iter().enumerate() {
            if identities[..index].contains(one) {
                errors.push(FieldError::duplicate(format!("{at}[{index}]"), Shown(one)));
            }
        }
    }
}

/// What a value was before its object was changed.
#[derive(Clone, Copy, Default)]
pub(super) struct Before<'a> {
    /// The value and what it was; `None` if it cannot be told what it was.
    pub(super) own: Option<(&'a Value, &'a Value)>,
    /// The same of the innermost value around it of which it can be told.
    around: Option<(&'a Value, &'a Value)>,
}

impl<'a> Before<'a> {
    pub(super) fn of(value: &'a Value, old: Option<&'a Value>) -> Before<'a> {
        Before { own: old.map(|old| (value, old)), around: None }
    }

    /// Whether nothing has changed.
    pub(super) fn is_same(&self) -> bool {
        self.own.or(self.around).is_some_and(|(new, old)| new == old)
    }

    fn inner(&self, value: &'a Value, old: Option<&'a Value>) -> Before<'a> {
        Before { own: old.map(|old| (value, old)), around: self.own.or(self.around) }
    }

    /// Of a field of an object.
    pub(super) fn field(&self, schema: &Schema, name: &str, value: &'a Value) -> Before<'a> {
        let old = self.own.filter(|_| !schema.atomic_map).and_then(|(_, old)| old.get(name));
        self.inner(value, old)
    }

    /// Of an item of a list: that with the same keys, if it is a map list.
    pub(super) fn item(&self, schema: &Schema, item: &'a Value) -> Before<'a> {
        let ListType::Map(keys) = &schema.list else { return self.inner(item, None) };
        let old = self.own.and_then(|(_, old)| old.as_array());
        let is_it = |old: &&Value| keys.iter().all(|key| old.get(key) == item.get(key));
        self.inner(item, old.and_then(|old| old.iter().find(is_it)))
    }
}

impl Rules {
    fn check(&self, value: &Value, at: &str, errors: &mut Vec<FieldError>) {
        if let Some(known) = &self.enumeration
            && !known.contains(value)
        {
            let names: Vec<String> =
                known.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            errors.push(FieldError::not_supported(at, Shown(value), &names));
        }
        match value {
            Value::String(text) => self.text(text, at, errors),
            Value::Number(number) => self.number(value, number.as_f64().unwrap_or(0.0), at, errors),
            Value::Array(items) => self.length(value, items.len() as u64, at, errors),
            Value::Object(map) => self.size(value, map.len() as u64, at, errors),
            Value::Null | Value::Bool(_) => {}
        }
        self.alternatives(value, at, errors);
    }

    fn text(&self, text: &str, at: &str, errors: &mut Vec<FieldError>) {
        let length = text.chars().count() as u64;
        if let Some(max) = self.max_length.filter(|max| length > *max) {
            errors.push(FieldError::too_long(at, max as usize));
        }
        if let Some(min) = self.min_length.filter(|min| length < *min) {
            let detail = format!("{at} in body should be at least {min} chars long");
            errors.push(FieldError::invalid(at, text, detail));
        }
        if let Some(pattern) = &self.pattern
            && pattern.regex.as_ref().is_some_and(|regex| !regex.is_match(text))
        {
            errors.push(FieldError::invalid(at, text, format!("{at} in body should match '{}'", pattern.text)));
        }
        if let Some(format) = self.format.as_deref().filter(|format| !has_format(text, format)) {
            let detail = format!("{at} in body must be of type {format}: {text:?}");
            errors.push(FieldError { kind: ErrorKind::TypeInvalid, ..FieldError::invalid(at, text, detail) });
        }
    }

    fn number(&self, value: &Value, number: f64, at: &str, errors: &mut Vec<FieldError>) {
        let mut wrong = |detail: String| errors.push(FieldError::invalid(at, Shown(value), detail));
        if let Some(max) = self.maximum {
            if self.exclusive_maximum && number >= max {
                wrong(format!("{at} in body should be less than {max}"));
            } else if number > max {
                wrong(format!("{at} in body should be less than or equal to {max}"));
            }
        }
        if let Some(min) = self.minimum {
            if self.exclusive_minimum && number <= min {
                wrong(format!("{at} in body should be greater than {min}"));
            } else if number < min {
                wrong(format!("{at} in body should be greater than or equal to {min}"));
            }
        }
        if let Some(of) = self.multiple_of.filter(|of| *of > 0.0 && (number / of).fract() != 0.0) {
            wrong(format!("{at} in body should be a multiple of {of}"));
        }
    }

    fn length(&self, value: &Value, length: u64, at: &str, errors: &mut Vec<FieldError>) {
        if let Some(max) = self.max_items.filter(|max| length > *max) {
            errors.push(too_many(at, length, max));
        }
        if let Some(min) = self.min_items.filter(|min| length < *min) {
            let detail = format!("{at} in body should have at least {min} items");
            errors.push(FieldError::invalid(at, length, detail));
        }
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        if self.unique_items && items.iter().enumerate().any(|(i, item)| items[..i].contains(item)) {
            errors.push(FieldError::invalid(at, Shown(value), format!("{at} in body shouldn't contain duplicates")));
        }
    }

    fn size(&self, value: &Value, size: u64, at: &str, errors: &mut Vec<FieldError>) {
        if let Some(max) = self.max_properties.filter(|max| size > *max) {
            errors.push(too_many(at, size, max));
        }
        if let Some(min) = self.min_properties.filter(|min| size < *min) {
            let detail = format!("{at} in body should have at least {min} properties");
            errors.push(FieldError::invalid(at, Shown(value), detail));
        }
    }

    /// `allOf`, `anyOf`, `oneOf` and `not`.
    fn alternatives(&self, value: &Value, at: &str, errors: &mut Vec<FieldError>) {
        let wrongs = |schema: &Schema| {
            let mut wrongs = Vec::new();
            schema.value(value, at, Before::default(), &mut wrongs);
            wrongs
        };
        let fits = |schema: &&Schema| wrongs(schema).is_empty();
        let mut wrong = |detail: String| errors.push(FieldError::invalid(at, "", detail));
        let unfit: Vec<FieldError> = self.all_of.iter().flat_map(wrongs).collect();
        if !unfit.is_empty() {
            wrong(format!("{at:?} must validate all the schemas (allOf)"));
        }
        if !self.any_of.is_empty() && !self.any_of.iter().any(|schema| fits(&schema)) {
            wrong(format!("{at:?} must validate at least one schema (anyOf)"));
        }
        if !self.one_of.is_empty() {
            let found = match self.one_of.iter().filter(fits).count() {
                1 => None,
                0 => Some("Found none valid".to_owned()),
                several => Some(format!("Found {several} valid alternatives")),
            };
            if let Some(found) = found {
                wrong(format!("{at:?} must validate one and only one schema (oneOf). {found}"));
            }
        }
        if self.not.as_deref().is_some_and(|schema| fits(&schema)) {
            wrong(format!("{at:?} must not validate the schema (not)"));
        }
        errors.extend(unfit);
    }
}

fn too_many(at: &str, found: u64, max: u64) -> FieldError {
    FieldError {
        kind: ErrorKind::TooMany,
        field: at.to_owned(),
        value: Some(found.to_string()),
        detail: format!("must have at most {max} items"),
    }
}

pub(super) fn child(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Formats a value as error messages show it.
struct Shown<'a>(&'a Value);

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Value::String(text) => write!(f, "{text:?}"),
            other => write!(f, "{other}"),
        }
    }
}

/// Whether a text has a format. An unknown format accepts everything, as upstream does.
pub(crate) fn has_format(text: &str, format: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10,
        "ipv4" => text.parse::<core::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<core::net::Ipv6Addr>().is_ok(),
        "cidr" => text.split_once('/').is_some_and(|(ip, bits)| {
            let most = if ip.contains(':') { 128 } else { 32 };
            ip.parse::<core::net::IpAddr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
        }),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => {
            let dash = |i: usize| matches!(i, 8 | 13 | 18 | 23);
            text.len() == 36
                && text.bytes().enumerate().all(|(i, b)| if dash(i) { b == b'-' } else { b.is_ascii_hexdigit() })
        }
        "byte" => {
            let body = text.trim_end_matches('=');
            let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
            text.len().is_multiple_of(4) && text.len() - body.len() <= 2 && body.bytes().all(good)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::Schema;
    use serde_json::{Value, json};

    fn check(schema: Value, value: Value, want: &[&str]) {
        let schema = Schema::parse(&json!({"type": "object", "properties": {"f": schema}}));
        let mut errors = Vec::new();
        schema.validate(&json!({"f": value}), None, &mut errors);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, want, "{value}");
    }

    #[test]
    fn says_what_is_wrong_as_kubernetes_does() {
        let integer = json!({"type": "integer", "minimum": 1, "maximum": 5});
        check(integer.clone(), json!(3), &[]);
        check(
            integer.clone(),
            json!("x"),
            &["f: Invalid value: \"string\": f in body must be of type integer: \"string\""],
        );
        check(integer.clone(), json!(0), &["f: Invalid value: 0: f in body should be greater than or equal to 1"]);
        check(integer, json!(6), &["f: Invalid value: 6: f in body should be less than or equal to 5"]);
        check(
            json!({"type": "string", "enum": ["red", "green"]}),
            json!("pink"),
            &["f: Unsupported value: \"pink\": supported values: \"red\", \"green\""],
        );
        check(
            json!({"type": "string", "pattern": "^a+$", "maxLength": 3}),
            json!("bbbb"),
            &["f: Too long: may not be more than 3 bytes", "f: Invalid value: \"bbbb\": f in body should match '^a+$'"],
        );
        check(
            json!({"type": "object", "required": ["a"], "properties": {"b": {"type": "boolean"}}}),
            json!({"b": 1}),
            &[
                "f.a: Required value",
                "f.b: Invalid value: \"integer\": f.b in body must be of type boolean: \"integer\"",
            ],
        );
        check(
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                "maxItems": 1, "items": {"type": "object", "properties": {"n": {"type": "string"}}}}),
            json!([{"n": "a"}, {"n": "a"}]),
            &["f: Too many: 2: must have at most 1 items", "f[1]: Duplicate value: {\"n\":\"a\"}"],
        );
        check(json!({"x-kubernetes-int-or-string": true}), json!("5%"), &[]);
        check(json!({"type": "string", "nullable": true}), json!(null), &[]);
        check(
            json!({"type": "string", "format": "date-time"}),
            json!("soon"),
            &["f: Invalid value: \"soon\": f in body must be of type date-time: \"soon\""],
        );
        check(
            json!({"type": "integer", "oneOf": [{"minimum": 1}, {"minimum": 2}]}),
            json!(3),
            &[
                "f: Invalid value: \"\": \"f\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
            ],
        );
    }
}
