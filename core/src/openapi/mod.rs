//! OpenAPI v3 documents, one for each group-version, and their index; and the one document of v2. `kubectl` uses them
//! to validate and explain.
//!
//! The caller passes the resources that it serves. The types of built-in kinds come from the [schema
//! table](crate::schema), those of a custom resource from its definition. Descriptions of built-in types are the
//! caller's to bring. Source: <https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-v3>.

mod descriptions;
mod gnostic;
mod paths;
mod schemas;
mod v2;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use crate::object::KindInfo;

pub use descriptions::Descriptions;
pub use gnostic::encode_v2;
pub use v2::document_v2;

/// The version of Kubernetes that the documents name.
const VERSION: &str = "v1.36.0";

/// A resource in one served version.
#[derive(Clone, Debug)]
pub struct Resource<'a> {
    /// Names, scope and subresources.
    pub info: &'a KindInfo,
    /// The `openAPIV3Schema` of a custom resource; `None` for a built-in kind, whose type is in the schema table.
    pub schema: Option<&'a Value>,
}

/// The path of a group-version's API, which is also the path of its document below `/openapi/v3/`: `api/v1`,
/// `apis/apps/v1`.
pub fn location(api_version: &str) -> String {
    if api_version.contains('/') { format!("apis/{api_version}") } else { format!("api/{api_version}") }
}

/// The response to `/openapi/v3`: the URL of each document, with a hash that lets clients cache it. `documents` has the
/// [`location`] and hash of each.
pub fn index<'a>(documents: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
    let paths = documents.into_iter().map(|(at, hash)| {
        let entry = json!({"serverRelativeURL": format!("/openapi/v3/{at}?hash={hash}")});
        (at.to_owned(), entry)
    });
    json!({"paths": Value::Object(paths.collect())})
}

/// The document of a group-version with these resources.
pub fn document(api_version: &str, resources: &[Resource<'_>], descriptions: &Descriptions<'_>) -> Value {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let mut schemas = schemas::Schemas::new(descriptions);
    let mut paths = Map::new();
    for resource in resources {
        let name = match resource.schema {
            Some(schema) => schemas.add_custom(group, version, &resource.info.kind, schema),
            None => schemas.add_kind(api_version, &resource.info.kind),
        };
        if let Some(name) = name {
            let list = schemas.add_list(api_version, &resource.info.kind, &name);
            let of = paths::Of { group, version, resource, schema: &name, list: &list };
            of.add(&mut schemas, &mut paths);
        }
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "components": {"schemas": schemas.into_value()},
    })
}

/// `x-kubernetes-group-version-kind` of one kind.
fn group_version_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}
