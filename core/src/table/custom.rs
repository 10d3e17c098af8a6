//! The columns of custom resources, as `additionalPrinterColumns` of their definitions say.
//!
//! Source: upstream's `apiextensions-apiserver/pkg/registry/customresource/tableconvertor`.

use serde_json::{Value, json};

use super::json_path::JsonPath;
use super::{Time, name};

/// Columns of one version of a custom resource.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct CustomColumns {
    columns: Vec<CustomColumn>,
}

#[derive(Clone, PartialEq, Debug)]
struct CustomColumn {
    name: String,
    type_: String,
    format: String,
    description: String,
    priority: i64,
    /// `None` for a path that cannot be read: its cells are empty.
    path: Option<JsonPath>,
}

impl CustomColumns {
    /// Of an element of a definition's `spec.versions`. One without columns of its own shows the age.
    pub fn of_version(version: &Value) -> CustomColumns {
        let given = version["additionalPrinterColumns"].as_array().map_or(&[][..], Vec::as_slice);
        if given.is_empty() {
            return CustomColumns { columns: vec![CustomColumn::age()] };
        }
        CustomColumns { columns: given.iter().map(CustomColumn::parse).collect() }
    }

    /// As `TableColumnDefinition`s, the name's first.
    pub fn to_json(&self) -> Vec<Value> {
        let own = self.columns.iter().map(|c| {
            json!({"name": c.name, "type": c.type_, "format": c.format, "description": c.description,
                "priority": c.priority})
        });
        std::iter::once(super::NAME.to_json()).chain(own).collect()
    }

    /// The cells of an object.
    pub fn cells(&self, object: &Value, now: Time) -> Vec<Value> {
        let own = self.columns.iter().map(|column| column.cell(object, now));
        std::iter::once(json!(name(object))).chain(own).collect()
    }
}

impl CustomColumn {
    fn age() -> CustomColumn {
        CustomColumn {
            name: "Age".to_owned(),
            type_: "date".to_owned(),
            format: String::new(),
            description: super::CREATED.to_owned(),
            priority: 0,
            path: JsonPath::parse(".metadata.creationTimestamp"),
        }
    }

    fn parse(column: &Value) -> CustomColumn {
        let text = |field: &str| column[field].as_str().unwrap_or_default().to_owned();
        CustomColumn {
            name: text("name"),
            type_: text("type"),
            format: text("format"),
            description: text("description"),
            priority: column["priority"].as_i64().unwrap_or(0),
            path: JsonPath::parse(&text("jsonPath")),
        }
    }

    /// The first value of the path, if it is of the column's type.
    fn cell(&self, object: &Value, now: Time) -> Value {
        let Some(value) = self.path.as_ref().and_then(|path| path.find(object).into_iter().next()) else {
            return Value::Null;
        };
        match (self.type_.as_str(), value) {
            ("string", Value::String(text)) => json!(text),
            ("string", Value::Null) => Value::Null,
            ("string", other) => json!(other.to_string()),
            ("integer", Value::Number(n)) => {
                n.as_i64().or(n.as_f64().map(|f| f as i64)).map_or(Value::Null, Value::from)
            }
            ("number", Value::Number(n)) => json!(n),
            ("boolean", Value::Bool(b)) => json!(b),
            ("date", Value::String(time)) => json!(now.since(time)),
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CustomColumns;
    use crate::machine::Wall;
    use crate::table::Time;
    use serde_json::json;

    #[test]
    fn cells_are_what_the_definition_asks_for() {
        let columns = CustomColumns::of_version(&json!({"additionalPrinterColumns": [
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
            {"name": "Wrong", "type": "integer", "jsonPath": ".spec.text", "priority": 1},
            {"name": "All", "type": "string", "jsonPath": ".spec"},
            {"name": "Since", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ]}));
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"size": 3, "text": "t"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let cells = columns.cells(&object, Time(Wall(60_000_000)));
        assert_eq!(json!(cells), json!(["a", 3, "True", null, "{\"size\":3,\"text\":\"t\"}", "60s"]));
        let names: Vec<_> = columns.to_json().iter().map(|c| c["name"].clone()).collect();
        assert_eq!(json!(names), json!(["Name", "Size", "Ready", "Wrong", "All", "Since"]));
    }

    #[test]
    fn without_columns_the_age_is_shown() {
        let columns = CustomColumns::of_version(&json!({}));
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "1970-01-01T00:00:00Z"}});
        assert_eq!(json!(columns.cells(&object, Time(Wall(60_000_000)))), json!(["a", "60s"]));
        assert_eq!(columns.to_json()[1]["name"], "Age");
    }
}
