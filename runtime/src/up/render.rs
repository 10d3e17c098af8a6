//! Converts objects to the shape that a client requested: whole, as rows of a Table, or as metadata only.

use std::sync::Arc;

use serde_json::{Value, json};
use skeg_core::Wall;
use skeg_core::table::{self, Time};

use super::accept::Shape;
use super::served::Resource;

/// How much of the object a row of a Table contains (`includeObject`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

/// How the response is to be converted.
#[derive(Clone, Debug)]
pub struct Look {
    /// The resource.
    pub resource: Arc<Resource>,
    /// The shape.
    pub shape: Shape,
    /// How much of the object a row of a Table contains.
    pub include: IncludeObject,
    /// The server's time, for ages in Tables.
    pub now: Wall,
}

/// Metadata of a list.
#[derive(Clone, Debug, Default)]
pub struct ListMeta {
    /// `resourceVersion`.
    pub rv: u64,
    /// `continue`.
    pub continue_from: Option<String>,
    /// `remainingItemCount`.
    pub remaining: Option<u64>,
}

impl ListMeta {
    fn to_json(&self) -> Value {
        let mut meta = json!({"resourceVersion": self.rv.to_string()});
        if let Some(token) = &self.continue_from {
            meta["continue"] = json!(token);
        }
        if let Some(remaining) = self.remaining {
            meta["remainingItemCount"] = json!(remaining);
        }
        meta
    }
}

/// Only the metadata of an object.
fn metadata_of(object: &Value, version: &str) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": object["metadata"]})
}

impl Look {
    /// Converts one object.
    pub fn object(&self, object: Value) -> Value {
        match self.shape {
            Shape::Whole => object,
            Shape::Metadata(version) => metadata_of(&object, version),
            Shape::Table(version) => {
                let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                self.table(version, vec![object], &meta, true)
            }
        }
    }

    /// Converts the object of a watch event. Only the first event of a watch describes the columns of a Table.
    pub fn event(&self, type_: &str, object: &Value, first: bool) -> Value {
        match (self.shape, type_) {
            (_, "ERROR") | (Shape::Whole, _) => object.clone(),
            (Shape::Metadata(version), _) => metadata_of(object, version),
            (Shape::Table(version), "BOOKMARK") => self.table(version, Vec::new(), &object["metadata"], first),
            (Shape::Table(version), _) => {
                let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                self.table(version, vec![object.clone()], &meta, first)
            }
        }
    }

    /// Converts a list.
    pub fn list(&self, items: Vec<Value>, meta: &ListMeta) -> Value {
        let info = &self.resource.info;
        match self.shape {
            Shape::Whole => {
                let bare = |mut item: Value| {
                    if let Some(map) = item.as_object_mut() {
                        map.remove("apiVersion");
                        map.remove("kind");
                    }
                    item
                };
                let custom = self.resource.custom_list_kind();
                let items: Vec<Value> = if custom.is_some() { items } else { items.into_iter().map(bare).collect() };
                let kind = custom.map_or_else(|| format!("{}List", info.kind), str::to_owned);
                let mut list = json!({"kind": kind, "apiVersion": info.api_version(), "metadata": meta.to_json()});
                list["items"] = Value::Array(items);
                list
            }
            Shape::Metadata(version) => {
                let items: Vec<Value> = items.iter().map(|item| metadata_of(item, version)).collect();
                json!({"kind": "PartialObjectMetadataList", "apiVersion": version, "metadata": meta.to_json(),
                    "items": items})
            }
            Shape::Table(version) => self.table(version, items, &meta.to_json(), true),
        }
    }

    /// The JSON of a list of whole objects whose items are encoded.
    pub fn list_of_text(&self, items: &[u8], meta: &ListMeta) -> Vec<u8> {
        let info = &self.resource.info;
        let empty =
            json!({"kind": format!("{}List", info.kind), "apiVersion": info.api_version(), "metadata": meta.to_json()});
        let mut body = serde_json::to_vec(&empty).expect("values serialise");
        body.reserve_exact(items.len() + 16);
        body.pop();
        body.extend_from_slice(b",\"items\":[");
        body.extend_from_slice(items);
        body.extend_from_slice(b"]}");
        body
    }

    fn table(&self, version: &str, items: Vec<Value>, meta: &Value, with_columns: bool) -> Value {
        let now = Time(self.now);
        let rows: Vec<Value> = items.into_iter().map(|item| self.row(item, version, now)).collect();
        let columns: Vec<Value> = match with_columns {
            true => self.resource.columns(),
            false => Vec::new(),
        };
        json!({"kind": "Table", "apiVersion": version, "metadata": meta, "columnDefinitions": columns, "rows": rows})
    }

    fn row(&self, item: Value, version: &str, now: Time) -> Value {
        let mut row = json!({"cells": self.resource.cells(&item, now)});
        if let Some(condition) = table::completed(self.resource.kind, &item) {
            row["conditions"] = json!([condition]);
        }
        row["object"] = match self.include {
            IncludeObject::None => Value::Null,
            IncludeObject::Metadata => metadata_of(&item, version),
            IncludeObject::Object => item,
        };
        row
    }
}

#[cfg(test)]
mod tests {
    use super::{IncludeObject, ListMeta, Look};
    use crate::up::accept::Shape;
    use crate::up::served::Served;
    use crate::up::served::tests::widgets;
    use serde_json::{Value, json};
    use skeg_core::Wall;
    use std::sync::Arc;

    fn look(shape: Shape) -> Look {
        let served = Served::built_in();
        let resource = Arc::clone(served.by_path("", "v1", "configmaps").unwrap());
        Look { resource, shape, include: IncludeObject::Metadata, now: Wall(60_000_000) }
    }

    fn config_map() -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"},
            "metadata": {"name": "c", "resourceVersion": "7", "creationTimestamp": "1970-01-01T00:00:00Z"}})
    }

    #[test]
    fn a_list_has_the_shape_that_was_asked_for() {
        let meta = ListMeta { rv: 9, continue_from: Some("t".to_owned()), remaining: Some(1) };
        let whole = look(Shape::Whole).list(vec![config_map()], &meta);
        assert_eq!((&whole["kind"], &whole["items"][0]["kind"]), (&json!("ConfigMapList"), &Value::Null));
        assert_eq!(whole["metadata"], json!({"resourceVersion": "9", "continue": "t", "remainingItemCount": 1}));
        let items = serde_json::to_vec(&whole["items"][0]).unwrap();
        let text = look(Shape::Whole).list_of_text(&items, &meta);
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), whole);
        let metadata = look(Shape::Metadata("meta.k8s.io/v1")).list(vec![config_map()], &meta);
        assert_eq!(metadata["kind"], "PartialObjectMetadataList");
        assert_eq!((&metadata["items"][0]["metadata"]["name"], metadata["items"][0].get("data")), (&json!("c"), None));
        let table = look(Shape::Table("meta.k8s.io/v1")).list(vec![config_map()], &meta);
        assert_eq!(table["rows"][0]["cells"], json!(["c", 1, "60s"]));
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(table["columnDefinitions"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn items_of_custom_lists_say_what_they_are() {
        let served = widgets();
        let resource = Arc::clone(served.by_path("example.com", "v1", "widgets").unwrap());
        let look = Look { resource, ..look(Shape::Whole) };
        let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}});
        let meta = ListMeta { rv: 9, continue_from: None, remaining: None };
        let list = look.list(vec![widget.clone()], &meta);
        assert_eq!((&list["kind"], &list["items"][0]), (&json!("ManyWidgets"), &widget));
    }

    #[test]
    fn only_the_first_event_describes_the_columns() {
        let look = look(Shape::Table("meta.k8s.io/v1"));
        let columns =
            |first: bool| look.event("ADDED", &config_map(), first)["columnDefinitions"].as_array().unwrap().len();
        assert_eq!((columns(true), columns(false)), (3, 0));
        let status = json!({"kind": "Status"});
        assert_eq!(look.event("ERROR", &status, false), status);
    }
}
