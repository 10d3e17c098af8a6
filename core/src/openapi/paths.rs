//! The `paths` of a document: the operations of each resource.

use serde_json::{Map, Value, json};

use super::schemas::Schemas;
use super::{Resource, group_version_kind, location, reference};
use crate::schema::builtin;

/// A resource, its group-version, and the names of its schemas.
pub(super) struct Of<'a> {
    pub(super) group: &'a str,
    pub(super) version: &'a str,
    pub(super) resource: &'a Resource<'a>,
    pub(super) schema: &'a str,
    pub(super) list: &'a str,
}

/// Media types of patches. Custom resources have no strategic merge patch.
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
    "application/strategic-merge-patch+json",
];

const BODIES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

impl Of<'_> {
    /// Adds the paths of the collection, the object, its scale, and the subresources that are written as the object is.
    pub(super) fn add(&self, schemas: &mut Schemas<'_>, paths: &mut Map<String, Value>) {
        let meta = |schemas: &mut Schemas<'_>, name: &str| {
            builtin().message("meta.v1", name).and_then(|of| schemas.add(of)).unwrap_or_default()
        };
        let (status, options) = (meta(schemas, "Status"), meta(schemas, "DeleteOptions"));
        let api_version =
            if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) };
        let root = format!("/{}", location(&api_version));
        let info = self.resource.info;
        let plural = &info.plural;
        let collection = match info.namespaced {
            true => format!("{root}/namespaces/{{namespace}}/{plural}"),
            false => format!("{root}/{plural}"),
        };
        let (reads, writes) = (self.reads(), self.writes());
        if !info.verbs.stored() {
            let post = self.operation("post", &writes, Some(self.schema), self.schema);
            paths.insert(collection, self.path(&[], [("post", post)]));
            return;
        }
        paths.insert(
            collection.clone(),
            self.path(
                &[],
                [
                    ("get", self.operation("list", &reads, None, self.list)),
                    ("post", self.operation("post", &writes, Some(self.schema), self.schema)),
                    ("delete", self.operation("deletecollection", &reads, Some(&options), &status)),
                ],
            ),
        );
        if info.namespaced {
            let mut all = json!({"get": self.operation("list", &reads, None, self.list)});
            all["parameters"] = json!([query("pretty", "string")]);
            paths.insert(format!("{root}/{plural}"), all);
        }
        let object = format!("{collection}/{{name}}");
        let mut whole = self.changes(&writes, self.schema);
        whole.push(("delete", self.operation("delete", &writes[..1], Some(&options), &status)));
        paths.insert(object.clone(), self.path(&["name"], whole));
        for sub in ["status", "ephemeralcontainers", "resize"].into_iter().filter(|sub| info.has_subresource(sub)) {
            paths.insert(format!("{object}/{sub}"), self.path(&["name"], self.changes(&writes, self.schema)));
        }
        if info.has_subresource("scale")
            && let Some(scale) = schemas.add_kind("autoscaling/v1", "Scale")
        {
            paths.insert(format!("{object}/scale"), self.path(&["name"], self.changes(&writes, &scale)));
        }
    }

    /// Get, put and patch of one object or subresource; `body` is the name of its schema.
    fn changes(&self, writes: &[Value], body: &str) -> Vec<(&'static str, Value)> {
        let force = [writes, &[query("force", "boolean")]].concat();
        let mut patch = self.operation("patch", &force, None, body);
        let custom = self.resource.schema.is_some();
        let types = PATCHES.iter().filter(|t| !custom || !t.contains("strategic"));
        let content: Map<String, Value> =
            types.map(|t| ((*t).to_owned(), json!({"schema": {"type": "object"}}))).collect();
        patch["requestBody"] = json!({"content": content, "required": true});
        vec![
            ("get", self.operation("get", &[], None, body)),
            ("put", self.operation("put", writes, Some(body), body)),
            ("patch", patch),
        ]
    }

    fn path(&self, names: &[&str], operations: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
        let mut parameters: Vec<Value> = names.iter().map(|name| path_parameter(name)).collect();
        if self.resource.info.namespaced {
            parameters.push(path_parameter("namespace"));
        }
        parameters.push(query("pretty", "string"));
        let mut path: Map<String, Value> = operations.into_iter().map(|(verb, o)| (verb.to_owned(), o)).collect();
        path.insert("parameters".to_owned(), Value::Array(parameters));
        Value::Object(path)
    }

    fn reads(&self) -> Vec<Value> {
        let texts = ["continue", "fieldSelector", "labelSelector", "resourceVersion", "resourceVersionMatch"];
        let mut all: Vec<Value> = texts.iter().map(|name| query(name, "string")).collect();
        all.extend(["limit", "timeoutSeconds"].iter().map(|name| query(name, "integer")));
        all.extend(["allowWatchBookmarks", "sendInitialEvents", "watch"].iter().map(|name| query(name, "boolean")));
        all
    }

    fn writes(&self) -> Vec<Value> {
        ["dryRun", "fieldManager", "fieldValidation"].iter().map(|name| query(name, "string")).collect()
    }

    fn operation(&self, action: &str, parameters: &[Value], body: Option<&str>, answer: &str) -> Value {
        let of = |name: &str| -> Value {
            let content: Map<String, Value> =
                BODIES.iter().map(|t| ((*t).to_owned(), json!({"schema": reference(name)}))).collect();
            Value::Object(content)
        };
        let mut operation = json!({
            "responses": {"200": {"description": "OK", "content": of(answer)}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": group_version_kind(self.group, self.version, &self.resource.info.kind),
        });
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters.to_vec());
        }
        if let Some(body) = body {
            operation["requestBody"] = json!({"content": of(body)});
        }
        operation
    }
}

fn query(name: &str, of: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": of, "uniqueItems": true}})
}

fn path_parameter(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
}
