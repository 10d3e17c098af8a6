//! The defaults of a schema. They are also those of objects that were stored before the schema had them: who reads such
//! an object sees it with its defaults.
//!
//! Source: apiextensions-apiserver `pkg/apiserver/schema/defaulting`.

use std::collections::BTreeMap;

use serde_json::Value;

/// The defaults of a value and of what is in it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Defaults {
    /// What it is if it is missing.
    default: Option<Value>,
    nullable: bool,
    /// Those of its properties that have any.
    properties: BTreeMap<String, Option<Defaults>>,
    /// Those of all other properties.
    values: Option<Box<Defaults>>,
    items: Option<Box<Defaults>>,
}

impl Defaults {
    /// Reads the defaults of a schema; `None` if it has none.
    pub fn read(schema: &Value) -> Option<Defaults> {
        let below = |name: &str| schema.get(name).and_then(Defaults::read).map(Box::new);
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let values = below("additionalProperties");
        // A property without defaults is remembered only where it would otherwise count among the others.
        let properties = properties.map(|(name, of)| (name.clone(), Defaults::read(of)));
        let defaults = Defaults {
            default: schema.get("default").cloned(),
            nullable: schema.get("nullable") == Some(&Value::Bool(true)),
            properties: properties.filter(|(_, of)| of.is_some() || values.is_some()).collect(),
            values,
            items: below("items"),
        };
        let Defaults { default, properties, values, items, .. } = &defaults;
        let has_any = default.is_some() || !properties.is_empty() || values.is_some() || items.is_some();
        has_any.then_some(defaults)
    }

    /// Sets missing properties to their defaults. `null` counts as missing unless the property is nullable.
    pub fn fill(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, of) in &self.properties {
                    let Some(Defaults { default: Some(default), nullable, .. }) = of else { continue };
                    if map.get(name).is_none_or(|v| v.is_null() && !nullable) {
                        map.insert(name.clone(), default.clone());
                    }
                }
                for (name, value) in map.iter_mut() {
                    let of = self.properties.get(name).map_or(self.values.as_deref(), Option::as_ref);
                    if let Some(of) = of {
                        of.fill(value);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(of) = &self.items {
                    items.iter_mut().for_each(|item| of.fill(item));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
