//! Tests that the committed table of types is what `cargo xtask schema` generates from Kubernetes' data. The data is
//! not part of the repository: if `SKEG_SHARED` does not name it, nothing is compared.

// A test is a driver: it reads files and its environment.
#![allow(clippy::disallowed_methods)]

use std::path::Path;

use skeg_core::schema::{Schema, builtin};
use skeg_tests::root;
use xtask::schema::{Keep, TABLE, table};

#[test]
fn the_committed_table_is_what_the_xtask_makes() {
    let Ok(shared) = std::env::var("SKEG_SHARED") else { return };
    let made = table(&root(), Path::new(&shared), Keep::V1_36).unwrap();
    let committed = std::fs::read_to_string(root().join(TABLE)).unwrap();
    let differs = made.lines().zip(committed.lines()).find(|(made, committed)| made != committed);
    assert_eq!(differs, None, "run `cargo xtask schema`");
    assert_eq!(made, committed, "run `cargo xtask schema`");
    assert_eq!(Schema::parse(&made).as_ref(), Ok(builtin()));
}

#[test]
fn the_whole_data_makes_a_table_too() {
    let Ok(shared) = std::env::var("SKEG_SHARED") else { return };
    let all = Schema::parse(&table(&root(), Path::new(&shared), Keep::Everything).unwrap()).unwrap();
    assert!(all.messages().count() > builtin().messages().count());
    // A field that 1.37 has and 1.36 does not.
    let spec = |schema: &Schema| schema.message("core.v1", "PodSpec").unwrap().field("evictionResponders").is_some();
    assert!(spec(&all) && !spec(builtin()));
}
