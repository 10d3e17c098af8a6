//! Tests that Kubernetes' own fixtures and real manifests are unchanged after encoding to the store's bytes and
//! decoding. They are not part of the repository: if `SKEG_SHARED` does not name them, nothing is read.

// A test is a driver: it reads files and its environment.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::path::{Path, PathBuf};

use skeg_core::Object;
use skeg_core::object::{Kinds, Revision, decode};
use skeg_core::store::codec::{decode_key, encode, encode_key};
use skeg_core::store::{Codec, StoreKey, Stored};
use skeg_sim::files::{Problems, yaml};

fn files(of: &str, ending: &str) -> Vec<PathBuf> {
    let shared = std::env::var("SKEG_SHARED").ok();
    shared.map_or_else(Vec::new, |shared| skeg_tests::files(&Path::new(&shared).join("data").join(of), ending))
}

fn check(object: &Object) {
    let mut object = object.clone();
    object.set_rv(Revision(7));
    let key = StoreKey::Object(object.key());
    let bytes = encode(&Stored::Object(object.clone()));
    let mut codec = Codec::new(Kinds::default());
    assert_eq!(decode_key(codec.kinds(), &encode_key(codec.kinds(), &key)), Ok(key.clone()));
    let first = codec.decode(&key, Revision(7), &bytes, None).unwrap_or_else(|e| panic!("{e}"));
    let Stored::Object(read) = &first else { panic!("{key:?} is an object") };
    assert_eq!((read, read.to_json()), (&object, object.to_json()), "{key:?}");
    assert_eq!(encode(&first), bytes, "{key:?}");
    let again = codec.decode(&key, Revision(7), &bytes, Some(&first)).expect("it was read before");
    assert_eq!(again, first, "{key:?}");
}

#[test]
fn manifests_come_back() {
    let mut checked = 0;
    for path in files("manifests", ".yaml") {
        let mut problems = Problems::default();
        let text = fs::read(&path).expect("a file is readable");
        for document in yaml::parse(&path.to_string_lossy(), &text, &mut problems) {
            // One document has a version that no longer exists.
            if let Ok(object) = decode::lenient(document.root.to_value()) {
                check(&object);
                checked += 1;
            }
        }
    }
    assert!(checked > 10 || files("manifests", ".yaml").is_empty());
}

#[test]
fn fixtures_of_the_wire_come_back() {
    let mut checked = 0;
    for path in files("wire", ".json") {
        let text = fs::read(&path).expect("a file is readable");
        let mut value: serde_json::Value = serde_json::from_slice(&text).expect("a fixture is JSON");
        // In the fixtures, the resourceVersion is not a number.
        value.pointer_mut("/metadata/resourceVersion").map(serde_json::Value::take);
        // Some fixtures have kinds that are not stored or not known.
        if let Ok(object) = decode::lenient(value) {
            check(&object);
            checked += 1;
        }
    }
    assert!(checked > 10 || std::env::var_os("SKEG_SHARED").is_none(), "{checked} fixtures");
}
