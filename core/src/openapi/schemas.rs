//! The schemas of a document: the types of its kinds, and all types that they refer to.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Descriptions, group_version_kind, reference};
use crate::schema::{Field, ListType, Message, Scalar, Shape, Type, builtin, builtin_kind};

/// Schemas by name.
pub(super) struct Schemas<'a> {
    all: BTreeMap<String, Value>,
    descriptions: &'a Descriptions<'a>,
}

/// The kind from which descriptions of the fields are taken that every kind has.
const ANY_KIND: &str = "io.k8s.api.core.v1.Pod";

impl<'a> Schemas<'a> {
    /// No schemas yet. Those that are added get these descriptions.
    pub(super) fn new(descriptions: &'a Descriptions<'a>) -> Schemas<'a> {
        Schemas { all: BTreeMap::new(), descriptions }
    }

    pub(super) fn into_value(self) -> Value {
        Value::Object(self.all.into_iter().collect())
    }

    /// Adds a built-in kind and all types that it refers to. Returns its name, or `None` if it is not in the table.
    pub(super) fn add_kind(&mut self, api_version: &str, kind: &str) -> Option<String> {
        let of = builtin_kind(api_version, kind)?;
        let name = self.add(of)?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if let Some(schema) = self.all.get_mut(&name) {
            schema["x-kubernetes-group-version-kind"] = json!([group_version_kind(group, version, kind)]);
        }
        Some(name)
    }

    /// Adds a custom resource. Returns its name.
    pub(super) fn add_custom(&mut self, group: &str, version: &str, kind: &str, schema: &Value) -> Option<String> {
        let reversed: Vec<&str> = group.split('.').rev().collect();
        let name = format!("{}.{version}.{kind}", reversed.join("."));
        let meta = self.add(builtin().message("meta.v1", "ObjectMeta")?)?;
        let mut schema = schema.clone();
        if !schema.is_object() {
            schema = json!({"type": "object"});
        }
        if !schema["properties"].is_object() {
            schema["properties"] = json!({});
        }
        // `apiVersion`, `kind` and `metadata` have the same types in every kind, whatever the definition says.
        for (field, of) in [
            ("apiVersion", json!({"type": "string"})),
            ("kind", json!({"type": "string"})),
            ("metadata", reference(&meta)),
        ] {
            schema["properties"][field] = self.described(of, self.descriptions.of_field(ANY_KIND, field));
        }
        schema["x-kubernetes-group-version-kind"] = json!([group_version_kind(group, version, kind)]);
        self.all.insert(name.clone(), schema);
        Some(name)
    }

    /// Adds the list type of a kind. Returns its name.
    pub(super) fn add_list(&mut self, api_version: &str, kind: &str, item: &str) -> String {
        let list = format!("{kind}List");
        if let Some(name) = self.add_kind(api_version, &list) {
            return name;
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let name = format!("{item}List");
        let meta = builtin().message("meta.v1", "ListMeta").and_then(|of| self.add(of));
        let [api_version_of_any, kind_of_any] =
            ["apiVersion", "kind"].map(|field| self.descriptions.of_field(ANY_KIND, field));
        let schema = json!({
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": self.described(json!({"type": "string"}), api_version_of_any),
                "kind": self.described(json!({"type": "string"}), kind_of_any),
                "metadata": meta.map_or(json!({"type": "object"}), |meta| reference(&meta)),
                "items": {"type": "array", "items": reference(item)},
            },
            "x-kubernetes-group-version-kind": [group_version_kind(group, version, &list)],
        });
        self.all.insert(name.clone(), schema);
        name
    }

    /// Adds a message and all types that it refers to. Returns its name, or `None` if it is not a built-in message.
    pub(super) fn add(&mut self, of: Type<'_>) -> Option<String> {
        let (message, package) = (of.message()?, of.package()?);
        let name = format!("{}.{}", package.open, message.name);
        if !self.all.contains_key(&name) {
            // A placeholder, because the type may refer to itself.
            self.all.insert(name.clone(), Value::Null);
            let schema = self.message(of, message, &name);
            self.all.insert(name.clone(), schema);
        }
        Some(name)
    }

    fn message(&mut self, of: Type<'_>, message: &Message, name: &str) -> Value {
        let mut properties = Map::new();
        if message.is_kind {
            for field in ["apiVersion", "kind"] {
                let schema = self.described(json!({"type": "string"}), self.descriptions.of_field(name, field));
                properties.insert(field.to_owned(), schema);
            }
        }
        for field in &message.fields {
            let schema = self.field(field, of.type_of(field), self.descriptions.of_field(name, &field.name));
            properties.insert(field.name.to_string(), schema);
        }
        let mut schema = self.described(json!({"type": "object"}), self.descriptions.of_type(name));
        if !properties.is_empty() {
            schema["properties"] = Value::Object(properties);
        }
        let required: Vec<&str> = message.fields.iter().filter(|f| f.required).map(|f| &*f.name).collect();
        // In Kubernetes' documents the metadata of a kind is never required.
        let required: Vec<&str> = required.into_iter().filter(|name| !message.is_kind || *name != "metadata").collect();
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if message.atomic {
            schema["x-kubernetes-map-type"] = json!("atomic");
        }
        schema
    }

    fn field(&mut self, field: &Field, of: Type<'_>, description: Option<Value>) -> Value {
        let mut schema = self.value(of);
        let mut extensions = Map::new();
        match of.shape() {
            Shape::List(_, ListType::Atomic) => {
                extensions.insert("x-kubernetes-list-type".to_owned(), json!("atomic"));
            }
            Shape::List(_, ListType::Set) => {
                extensions.insert("x-kubernetes-list-type".to_owned(), json!("set"));
            }
            Shape::List(_, ListType::Map(keys)) => {
                extensions.insert("x-kubernetes-list-type".to_owned(), json!("map"));
                let keys: Vec<&str> = keys.iter().map(|k| &**k).collect();
                extensions.insert("x-kubernetes-list-map-keys".to_owned(), json!(keys));
            }
            Shape::Map(_) if of.is_atomic() => {
                extensions.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
            }
            Shape::List(_, ListType::Unsaid) | Shape::Map(_) | Shape::Message(_) | Shape::Scalar(_) => {}
        }
        let merge = &field.merge;
        let strategies = [("merge", merge.by.is_some()), ("replace", merge.replace), ("retainKeys", merge.retain_keys)];
        let strategies: Vec<&str> = strategies.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
        if !strategies.is_empty() {
            extensions.insert("x-kubernetes-patch-strategy".to_owned(), json!(strategies.join(",")));
        }
        if let Some(key) = merge.by.as_deref().filter(|key| !key.is_empty()) {
            extensions.insert("x-kubernetes-patch-merge-key".to_owned(), json!(key));
        }
        if let Some(default) = of_default(field, of) {
            extensions.insert("default".to_owned(), default);
        }
        if let Some(description) = description {
            extensions.insert("description".to_owned(), description);
        }
        if extensions.is_empty() {
            return schema;
        }
        if schema.get("$ref").is_some() {
            // OpenAPI 3.0 ignores the siblings of a `$ref`.
            schema = json!({"allOf": [schema]});
        }
        if let Value::Object(fields) = &mut schema {
            fields.extend(extensions);
        }
        schema
    }

    fn value(&mut self, of: Type<'_>) -> Value {
        match of.shape() {
            Shape::Scalar(scalar) => self.scalar(scalar),
            Shape::List(items, _) => json!({"type": "array", "items": self.value(items)}),
            Shape::Map(values) => json!({"type": "object", "additionalProperties": self.value(values)}),
            Shape::Message(message) if message.is_list => {
                let items = of.items().map_or(json!({}), |items| self.value(items));
                json!({"type": "array", "items": items})
            }
            Shape::Message(_) => self.add(of).map_or(json!({"type": "object"}), |name| reference(&name)),
        }
    }

    fn scalar(&mut self, scalar: Scalar) -> Value {
        const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
        match scalar {
            Scalar::String => json!({"type": "string"}),
            Scalar::Bool => json!({"type": "boolean"}),
            Scalar::Int32 => json!({"type": "integer", "format": "int32"}),
            Scalar::Int64 => json!({"type": "integer", "format": "int64"}),
            Scalar::Double => json!({"type": "number", "format": "double"}),
            Scalar::Bytes => json!({"type": "string", "format": "byte"}),
            Scalar::Duration => json!({"type": "string"}),
            Scalar::Time => self.named(format!("{META}.Time"), json!({"type": "string", "format": "date-time"})),
            Scalar::MicroTime => {
                self.named(format!("{META}.MicroTime"), json!({"type": "string", "format": "date-time"}))
            }
            Scalar::Quantity => {
                let schema = json!({"oneOf": [{"type": "string"}, {"type": "number"}]});
                self.named("io.k8s.apimachinery.pkg.api.resource.Quantity".to_owned(), schema)
            }
            Scalar::IntOrString => {
                let schema = json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"});
                self.named("io.k8s.apimachinery.pkg.util.intstr.IntOrString".to_owned(), schema)
            }
            Scalar::Any | Scalar::SchemaOrBool | Scalar::SchemaOrArray | Scalar::SchemaOrStrings => {
                // kubectl explain refuses an empty schema.
                json!({"description": "Any JSON value."})
            }
        }
    }

    fn named(&mut self, name: String, schema: Value) -> Value {
        let reference = reference(&name);
        let described = self.described(schema, self.descriptions.of_type(&name));
        self.all.entry(name).or_insert(described);
        reference
    }

    fn described(&self, mut schema: Value, description: Option<Value>) -> Value {
        if schema.get("$ref").is_some() && description.is_some() {
            schema = json!({"allOf": [schema]});
        }
        if let (Value::Object(fields), Some(description)) = (&mut schema, description) {
            fields.insert("description".to_owned(), description);
        }
        schema
    }
}

/// The default of a field: the declared one, or the zero value of a required field.
fn of_default(field: &Field, of: Type<'_>) -> Option<Value> {
    if field.default.is_some() || !field.required {
        return field.default.clone();
    }
    match of.shape() {
        Shape::Scalar(Scalar::String) => Some(json!("")),
        Shape::Scalar(Scalar::Int32 | Scalar::Int64) => Some(json!(0)),
        Shape::Scalar(Scalar::Bool) => Some(json!(false)),
        Shape::Message(message) if !message.is_list => Some(json!({})),
        Shape::Scalar(_) | Shape::Message(_) | Shape::Map(_) | Shape::List(..) => None,
    }
}
