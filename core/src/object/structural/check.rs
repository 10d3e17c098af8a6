//! Checks that the schema of a CustomResourceDefinition is structural, and uses only what is allowed there.
//!
//! Source: upstream's `apiextensions-apiserver/pkg/apis/apiextensions/validation`.

use regex_lite::Regex;
use serde_json::Value;

use super::rule;
use crate::object::FieldError;

/// Reports the errors in an `openAPIV3Schema` at the path `at`.
pub fn check(schema: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let root = schema.get("type").and_then(Value::as_str).unwrap_or("");
    if root != "object" {
        let at = format!("{at}.type");
        errors.push(match root {
            "" => FieldError::required(at, "must not be empty at the root"),
            other => FieldError::invalid(at, other, "must be object at the root"),
        });
    }
    let before = errors.len();
    node(schema, at, true, errors);
    // Rules of a schema that is wrong would be found wrong for reasons that are none of theirs.
    if errors.len() == before {
        rule::check(schema, at, errors);
    }
}

fn node(schema: &Value, at: &str, root: bool, errors: &mut Vec<FieldError>) {
    let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
    let free = flag("x-kubernetes-int-or-string") || flag("x-kubernetes-preserve-unknown-fields");
    match schema.get("type").and_then(Value::as_str) {
        None | Some("") if !free && !root => {
            errors.push(FieldError::required(format!("{at}.type"), "must not be empty for specified object fields"));
        }
        Some("array") if schema.get("items").is_none() => {
            errors.push(FieldError::required(format!("{at}.items"), "must be specified"));
        }
        Some("object" | "array" | "string" | "integer" | "number" | "boolean" | "") | None => {}
        Some(other) => {
            let known = ["array", "boolean", "integer", "number", "object", "string"];
            errors.push(FieldError::not_supported(format!("{at}.type"), other, &known));
        }
    }
    let pattern = schema.get("pattern").and_then(Value::as_str).unwrap_or("");
    if Regex::new(pattern).is_err() {
        let detail = "must be a valid regular expression, but isn't";
        errors.push(FieldError::invalid(format!("{at}.pattern"), pattern, detail));
    }
    let additional = schema.get("additionalProperties");
    let properties = schema.get("properties").and_then(Value::as_object);
    if properties.is_some_and(|p| !p.is_empty()) && additional.is_some_and(|a| *a != Value::Bool(false)) {
        let detail = "additionalProperties and properties are mutual exclusive";
        errors.push(FieldError::forbidden(format!("{at}.additionalProperties"), detail));
    }
    if flag("uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(format!("{at}.uniqueItems"), detail));
    }
    for (name, property) in properties.into_iter().flatten() {
        node(property, &format!("{at}.properties[{name}]"), false, errors);
    }
    if let Some(items) = schema.get("items") {
        node(items, &format!("{at}.items"), false, errors);
    }
    if let Some(additional) = additional.filter(|a| a.is_object()) {
        node(additional, &format!("{at}.additionalProperties"), false, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use serde_json::json;

    #[test]
    fn a_schema_says_the_type_of_every_field() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"properties": {"a": {"type": "array"}, "b": {"type": "text"}, "c": {"type": "string", "pattern": "("}}}}});
        let mut errors = Vec::new();
        check(&schema, "s", &mut errors);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "s.properties[spec].type: Required value: must not be empty for specified object fields",
                "s.properties[spec].properties[a].items: Required value: must be specified",
                "s.properties[spec].properties[b].type: Unsupported value: \"text\": supported values: \"array\", \
                 \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
                "s.properties[spec].properties[c].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't",
            ]
        );
    }
}
