//! Clients in other languages with a cluster. The scripts are beside this file: `clients/client.py` runs where
//! `PYTHON` names an interpreter that has PyPI's `kubernetes`, `clients/client.mjs` where `NODE_MODULES` names the
//! directory that has `@kubernetes/client-node`. Elsewhere a test says that it is skipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::client::{Cluster, required};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/up/clients").join(name)
}

/// Runs a script with a cluster; it must succeed.
fn check(name: &str, variable: &str, command: impl Fn(&Path) -> Command) {
    let Some(found) = required(variable) else { return };
    let cluster = Cluster::start(name, &["--nodes", "3"]);
    let output = command(Path::new(&found)).arg(script(name)).arg(&cluster.kubeconfig).output().expect("it runs");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{name}: {}: {text}", output.status);
    eprintln!("{text}");
}

#[test]
fn the_python_client_works() {
    check("client.py", "PYTHON", |python| Command::new(python));
}

#[test]
fn the_node_client_works() {
    check("client.mjs", "NODE_MODULES", |_| Command::new("node"));
}
