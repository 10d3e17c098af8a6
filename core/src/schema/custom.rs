//! The types of a custom resource, from the `openAPIV3Schema` of its definition.
//!
//! The schema must be structural; a part without a `type` accepts any JSON. Validations (`pattern`, `maximum`, CEL, …)
//! are ignored here.

use serde_json::{Map, Value};

use super::text::Nodes;
use super::{Field, ListType, Merge, Message, Node, Scalar, Schema, builtin};
use crate::limits::SCHEMA_DEPTH;

impl Schema {
    /// Makes the types of a custom resource; [`Schema::root`] is the type of the whole object. An error names the path
    /// in the schema.
    pub fn custom(schema: &Value) -> Result<Schema, String> {
        let mut maker = Maker { nodes: Nodes::new(), messages: Vec::new(), depth: 0 };
        let mut root = maker.message(schema, "openAPIV3Schema", true)?;
        root.is_kind = true;
        let root = maker.add(root);
        let Maker { nodes, messages, .. } = maker;
        Ok(Schema { nodes: nodes.into_vec(), messages, root, ..Schema::default() })
    }
}

struct Maker {
    nodes: Nodes,
    messages: Vec<Message>,
    depth: usize,
}

impl Maker {
    fn add(&mut self, message: Message) -> u32 {
        self.messages.push(message);
        self.nodes.intern(Node::Message((self.messages.len() - 1) as u32))
    }

    fn node(&mut self, schema: &Value, at: &str) -> Result<u32, String> {
        self.depth += 1;
        if self.depth > SCHEMA_DEPTH {
            return Err(format!("{at}: nested more than {SCHEMA_DEPTH} levels deep"));
        }
        let node = self.node_within(schema, at)?;
        self.depth -= 1;
        Ok(node)
    }

    fn node_within(&mut self, schema: &Value, at: &str) -> Result<u32, String> {
        let is = |key: &str| schema[key] == true;
        if is("x-kubernetes-int-or-string") {
            return Ok(self.nodes.scalar(Scalar::IntOrString));
        }
        let scalar = match schema["type"].as_str() {
            Some("string") => Scalar::String,
            Some("boolean") => Scalar::Bool,
            Some("integer") => Scalar::Int64,
            Some("number") => Scalar::Double,
            Some("array") => return self.list(schema, at),
            Some("object") => return self.object(schema, at),
            Some(other) => return Err(format!("{at}.type: {other:?} is not a type")),
            None => Scalar::Any,
        };
        Ok(self.nodes.scalar(scalar))
    }

    fn list(&mut self, schema: &Value, at: &str) -> Result<u32, String> {
        let list = match schema["x-kubernetes-list-type"].as_str() {
            None => ListType::Unsaid,
            Some("atomic") => ListType::Atomic,
            Some("set") => ListType::Set,
            Some("map") => {
                let keys = schema["x-kubernetes-list-map-keys"].as_array().map_or(&[][..], Vec::as_slice);
                ListType::Map(keys.iter().filter_map(Value::as_str).map(Box::from).collect())
            }
            Some(other) => return Err(format!("{at}.x-kubernetes-list-type: {other:?} is not a list type")),
        };
        let of = self.node(&schema["items"], &format!("{at}.items"))?;
        Ok(self.nodes.intern(Node::List { of, list }))
    }

    fn object(&mut self, schema: &Value, at: &str) -> Result<u32, String> {
        let values = &schema["additionalProperties"];
        let open_ended = schema["x-kubernetes-preserve-unknown-fields"] == true;
        let embedded = schema["x-kubernetes-embedded-resource"] == true;
        let has_fields = schema["properties"].as_object().is_some_and(|p| !p.is_empty());
        if !has_fields && !embedded && (open_ended || !values.is_null() && *values != false) {
            let path = format!("{at}.additionalProperties");
            let of = if values.is_object() { self.node(values, &path)? } else { self.nodes.scalar(Scalar::Any) };
            let atomic = schema["x-kubernetes-map-type"] == "atomic";
            return Ok(self.nodes.intern(Node::Map { of, atomic }));
        }
        let message = self.message(schema, at, embedded)?;
        Ok(self.add(message))
    }

    fn message(&mut self, schema: &Value, at: &str, is_object: bool) -> Result<Message, String> {
        let none = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&none);
        let required = |name: &str| schema["required"].as_array().is_some_and(|r| r.iter().any(|r| r == name));
        let mut fields: Vec<Field> = Vec::with_capacity(properties.len() + 1);
        for (name, property) in properties {
            if is_object && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            let of = self.node(property, &format!("{at}.properties[{name}]"))?;
            let default = property.get("default").cloned();
            fields.push(Field { required: required(name), default, ..Field::plain(name, of) });
        }
        if is_object {
            let of = self.metadata();
            fields.push(Field::plain("metadata", of));
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Message {
            name: "".into(),
            package: 0,
            is_kind: is_object,
            atomic: schema["x-kubernetes-map-type"] == "atomic",
            is_list: false,
            open_ended: schema["x-kubernetes-preserve-unknown-fields"] == true,
            fields,
            wire: Vec::new(),
        })
    }

    /// The type of `metadata`, which is the same for every kind.
    fn metadata(&mut self) -> u32 {
        let meta = builtin().message("meta.v1", "ObjectMeta").expect("the table has metadata");
        self.nodes.intern(Node::Builtin(meta.node))
    }
}

impl Field {
    fn plain(name: &str, of: u32) -> Field {
        Field { name: name.into(), of, required: false, pointer: false, merge: Merge::default(), default: None }
    }
}
