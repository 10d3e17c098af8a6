//! The document of OpenAPI v2, which has every group and version. kubectl reads it where v3 does not tell it of a type,
//! as of a kind that is not served, and older clients for all.
//!
//! It is made from the documents of v3. As in Kubernetes it has no defaults, and of custom resources nothing that v2
//! cannot say: a type that may be null, or has unknown fields, is left open. Source: kube-openapi `pkg/builder`,
//! apiextensions-apiserver `pkg/controller/openapi/v2/conversion.go`.

use serde_json::{Map, Value, json};

use super::{Descriptions, Resource, VERSION, document};

const SCHEMAS: &str = "#/components/schemas/";
const KIND: &str = "x-kubernetes-group-version-kind";

/// The document of these groups and versions.
pub fn document_v2<'a>(
    versions: impl IntoIterator<Item = (String, Vec<Resource<'a>>)>,
    descriptions: &Descriptions<'_>,
) -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for (api_version, resources) in versions {
        let mut described = document(&api_version, &resources, descriptions);
        for (name, of) in take(&mut described["components"]["schemas"]) {
            // A type that several documents have is a kind in that of its own version only.
            if of.get(KIND).is_some() || !definitions.contains_key(&name) {
                definitions.insert(name, schema(of));
            }
        }
        paths.extend(take(&mut described["paths"]).into_iter().map(|(at, of)| (at, path(of))));
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header",
            "description": "Bearer Token authentication"}},
        "security": [{"BearerToken": []}],
    })
}

fn take(value: &mut Value) -> Map<String, Value> {
    match value.take() {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// A schema of v3 as v2 says it.
fn schema(of: Value) -> Value {
    let Value::Object(fields) = of else { return of };
    if fields.get("nullable") == Some(&Value::Bool(true)) {
        return Value::Object(fields.into_iter().filter(|(name, _)| name == "description").collect());
    }
    if let Some(Value::Array(types)) = fields.get("oneOf")
        && types.iter().any(|of| of["type"] == "string")
    {
        // IntOrString and Quantity.
        let plain = fields.into_iter().filter(|(name, _)| name != "oneOf");
        return Value::Object(plain.chain([("type".to_owned(), json!("string"))]).collect());
    }
    let is_kind = fields.contains_key(KIND);
    let mut plain = Map::new();
    for (name, value) in fields {
        let value = match name.as_str() {
            "$ref" => reference(&value),
            "allOf" => {
                if let Some(of) = value.as_array().and_then(|all| all.first()).and_then(|first| first.get("$ref")) {
                    plain.insert("$ref".to_owned(), reference(of));
                }
                continue;
            }
            "oneOf" | "anyOf" | "not" | "default" | "nullable" => continue,
            "properties" => match value {
                Value::Object(all) => Value::Object(all.into_iter().map(|(name, of)| (name, schema(of))).collect()),
                other => other,
            },
            "items" | "additionalProperties" => schema(value),
            _ => value,
        };
        plain.insert(name, value);
    }
    if plain.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
        if is_kind {
            // kubectl takes what has any properties to have no others.
            plain.retain(|name, _| matches!(name.as_str(), "type" | KIND));
        } else if let Some(Value::Object(properties)) = plain.get_mut("properties") {
            properties.clear();
        }
    }
    if plain.get("type") == Some(&json!("array")) && !plain.contains_key("items") {
        // Clients refuse an array without the type of its items.
        plain.remove("type");
    }
    Value::Object(plain)
}

fn reference(to: &Value) -> Value {
    json!(format!("#/definitions/{}", to.as_str().unwrap_or_default().trim_start_matches(SCHEMAS)))
}

/// The operations of a path.
fn path(of: Value) -> Value {
    let Value::Object(fields) = of else { return of };
    let plain = fields.into_iter().map(|(name, value)| {
        let value = if name == "parameters" { parameters(value).into() } else { operation(value) };
        (name, value)
    });
    Value::Object(plain.collect())
}

fn parameters(of: Value) -> Vec<Value> {
    let Value::Array(all) = of else { return Vec::new() };
    let plain = all.into_iter().map(|mut parameter| {
        let schema = take(&mut parameter["schema"]);
        if let Value::Object(fields) = &mut parameter {
            fields.remove("schema");
            fields.extend(schema);
        }
        parameter
    });
    plain.collect()
}

fn operation(mut of: Value) -> Value {
    let mut all = parameters(of["parameters"].take());
    let mut body = take(&mut of["requestBody"]);
    let mut content = body.remove("content").map(|mut content| take(&mut content)).unwrap_or_default();
    let media_types = |content: &Map<String, Value>| content.keys().cloned().collect::<Vec<String>>();
    let consumes = media_types(&content);
    if let Some(mut first) = consumes.first().and_then(|first| content.remove(first)) {
        let required = body.get("required").is_some_and(|required| required == true);
        let schema = schema(first["schema"].take());
        all.push(json!({"name": "body", "in": "body", "required": required, "schema": schema}));
    }
    let mut content = take(&mut of["responses"]["200"]["content"]);
    let produces = media_types(&content);
    let answer = produces.first().and_then(|first| content.remove(first));
    let answer = schema(answer.map_or(Value::Null, |mut answer| answer["schema"].take()));
    let mut plain = json!({
        "produces": produces,
        "responses": {"200": {"description": "OK", "schema": answer}},
    });
    if !consumes.is_empty() {
        plain["consumes"] = json!(consumes);
    }
    if !all.is_empty() {
        plain["parameters"] = Value::Array(all);
    }
    for extension in ["x-kubernetes-action", KIND] {
        plain[extension] = of[extension].take();
    }
    plain
}
