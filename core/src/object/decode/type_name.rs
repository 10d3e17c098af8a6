//! Names of types and values as Go's `encoding/json` shows them in its errors.

use serde_json::Value;

/// The JSON type of a value: `string`, `number`, `bool`, `array` or `object`.
pub(super) fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Go's name of a Rust type: `alloc::vec::Vec<…::core::v1::Container>` is `[]v1.Container`.
pub(super) fn go_type(rust: &str) -> String {
    let inner = |prefix: &str| rust.strip_prefix(prefix).and_then(|r| r.strip_suffix('>'));
    if let Some(item) = inner("alloc::vec::Vec<") {
        return format!("[]{}", go_type(item));
    }
    if let Some(item) = inner("core::option::Option<").or_else(|| inner("alloc::boxed::Box<")) {
        return go_type(item);
    }
    if let Some(pair) = inner("alloc::collections::btree::map::BTreeMap<") {
        let value = pair.split_once(", ").map_or(pair, |(_, v)| v);
        return format!("map[string]{}", go_type(value));
    }
    match rust {
        "alloc::string::String" | "&str" => "string".to_owned(),
        "i32" => "int32".to_owned(),
        "i64" => "int64".to_owned(),
        "f64" => "float64".to_owned(),
        "k8s_openapi::byte_string::ByteString" => "[]uint8".to_owned(),
        _ => {
            // k8s-openapi puts each type into a module of its own inside the package's module.
            let mut parts = rust.rsplit("::");
            match (parts.next(), parts.nth(1)) {
                (Some(name), Some(package)) => format!("{package}.{name}"),
                _ => rust.to_owned(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::go_type;
    use k8s_openapi::api::core::v1::{PodSpec, Volume};
    use std::any::type_name;
    use std::collections::BTreeMap;

    #[test]
    fn types_are_named_as_in_go() {
        assert_eq!(go_type(type_name::<i32>()), "int32");
        assert_eq!(go_type(type_name::<PodSpec>()), "v1.PodSpec");
        assert_eq!(go_type(type_name::<Option<Vec<Volume>>>()), "[]v1.Volume");
        assert_eq!(go_type(type_name::<BTreeMap<String, String>>()), "map[string]string");
    }
}
