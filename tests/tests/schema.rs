//! Tests that the committed table of types and their descriptions are what `cargo xtask schema` generates. Kubernetes'
//! data is not part of the repository: if `SKEG_SHARED` does not name it, nothing is compared.

// A test is a driver: it reads files and its environment.
#![allow(clippy::disallowed_methods)]

use std::path::Path;

use skeg_core::schema::{Schema, builtin};
use skeg_tests::root;
use xtask::schema::{DESCRIPTIONS, Keep, TABLE, decompressed, descriptions, table};

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
fn the_committed_descriptions_are_what_the_xtask_makes() {
    let (made, committed) = (descriptions(&root()).unwrap(), decompressed(&root().join(DESCRIPTIONS)).unwrap());
    let differs = made.lines().zip(committed.lines()).find(|(made, committed)| made != committed);
    assert_eq!((differs, made.lines().count()), (None, committed.lines().count()), "run `cargo xtask schema`");
    assert!(made.contains("\nio.k8s.api.core.v1.PodSpec PodSpec is a description of a pod.\n"));
    // Of every field but those of lists, which k8s-openapi has as one generic type.
    let pod = made.split("\nio.k8s.api.core.v1.Pod ").nth(1).unwrap();
    let fields = pod.lines().skip(1).map_while(|line| line.strip_prefix(' ')?.split(' ').next());
    assert_eq!(fields.collect::<Vec<_>>(), ["apiVersion", "kind", "metadata", "spec", "status"]);
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
