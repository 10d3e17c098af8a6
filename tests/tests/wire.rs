//! Upstream's fixtures of the protobuf encoding: every body decodes to the JSON beside it, and encodes back to the same
//! bytes.
//!
//! The fixtures are of Kubernetes 1.37, and of versions that are no longer served. So they are decoded with a table of
//! everything in the data, and those of kinds that the committed table of 1.36 has also with that one. `SKEG_SHARED`
//! names the data; without it nothing is tested.

// A test is a driver: it reads files and its environment.
#![allow(clippy::disallowed_methods)]

use std::path::Path;

use serde_json::Value;
use skeg_core::protobuf;
use skeg_core::schema::{Schema, Type, builtin_kind};
use skeg_tests::{files, root};
use xtask::schema::{Keep, table};

/// The part of a value whose fields the type has.
fn known(value: &Value, of: Type<'_>) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter_map(|(k, v)| Some((k.clone(), known(v, of.field(k)?))));
            Value::Object(kept.collect())
        }
        Value::Array(items) => items.iter().map(|item| of.items().map_or(Value::Null, |of| known(item, of))).collect(),
        other => other.clone(),
    }
}

#[test]
fn fixtures_decode_to_their_twins_and_encode_back() {
    let Ok(shared) = std::env::var("SKEG_SHARED") else { return };
    let shared = Path::new(&shared);
    let all = Schema::parse(&table(&root(), shared, Keep::Everything).unwrap()).unwrap();
    let (mut fixtures, mut of_1_36) = (0, 0);
    for path in files(&shared.join("data/wire"), ".pb") {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let body = std::fs::read(&path).unwrap();
        let text = std::fs::read_to_string(path.with_extension("json")).unwrap();
        let mut twin: Value = serde_json::from_str(&text).unwrap();
        let (group_version, kind) = name.rsplit_once('.').unwrap();
        let (group, version) = group_version.rsplit_once('.').unwrap();
        let api_version = if group == "core" { version.to_owned() } else { format!("{group}/{version}") };
        // The group of some kinds is not that of their package, and some kinds belong to every group.
        let of = all.kind(&api_version, kind).or_else(|| {
            let package = all.messages().find(|(p, _)| *p.group == *group && *p.version == *version);
            let named = package.and_then(|(p, _)| all.message(&p.short, kind));
            named.or_else(|| all.message("meta.v1", kind)).or_else(|| all.message("core.v1", kind))
        });
        let of = of.unwrap_or_else(|| panic!("{name}: no such message"));
        fixtures += 1;

        if builtin_kind(&api_version, kind).is_some() && twin.get("kind").is_some() {
            let known = known(&twin, builtin_kind(&api_version, kind).unwrap());
            let decoded = protobuf::decode(&body, None).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(decoded, known, "{name}, by the committed table");
            let back = protobuf::encode(&decoded).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(protobuf::decode(&back, None).as_ref(), Ok(&decoded), "{name}, by the committed table");
            of_1_36 += 1;
        }
        let fields = twin.as_object_mut().unwrap();
        if of.message().unwrap().field("kind").is_none() {
            fields.remove("apiVersion");
            fields.remove("kind");
        }
        let (_, _, raw) = protobuf::open_envelope(&body).unwrap_or_else(|e| panic!("{name}: {e}"));
        let decoded = protobuf::decode_message(raw, of).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(decoded, twin, "{name}");
        let back = protobuf::encode_message(&decoded, of).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(back, raw, "{name}: other bytes");
    }
    assert!(fixtures >= 76 && of_1_36 >= 30, "{fixtures} fixtures, {of_1_36} of 1.36");
}
