//! Bad input: each is rejected with exit code 2, nothing on standard output, and an error that says what is wrong and
//! where.

use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `skeg sim run` on a text and checks that it is rejected with this message.
fn check(name: &str, text: &str, want: &[&str]) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("refused");
    std::fs::create_dir_all(&dir).expect("it can be made");
    let file = dir.join(format!("{name}.yaml"));
    std::fs::write(&file, text).expect("it can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_skeg"));
    let file_name = format!("{name}.yaml");
    let output = command.args(["sim", "run", &file_name]).current_dir(&dir).stdin(Stdio::null()).output();
    let output = output.expect("the binary runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{name}: {errors}");
    assert!(output.stdout.is_empty(), "{name}: nothing is half-applied");
    assert!(errors.starts_with(&format!("error: {file_name}")), "{name}: {errors}");
    for words in want {
        assert!(errors.contains(words), "{name}: {errors}\n  lacks {words}");
    }
}

const HEAD: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n";
const SELECTOR: &str = "  selector: {matchLabels: {app: web}}\n";
const TEMPLATE: &str = "  template:\n    metadata: {labels: {app: web}}\n    spec:\n      containers:\n";

/// A Deployment with these lines as its container.
fn container(lines: &str) -> String {
    format!("{HEAD}{SELECTOR}{TEMPLATE}      - name: web\n{lines}")
}

#[test]
fn malformed_text() {
    check("open-bracket", "a: [1, 2\n", &["document 1, line 1: error converting YAML to JSON: yaml: "]);
    check("tab", "a:\n\tb: 1\n", &["document 1", "yaml: "]);
    check("scalar", "hello\n", &["document 1, line 1: expected an object", "found a string"]);
    check("empty", "# nothing\n---\n", &["there is no object in it"]);
    check("nul", "a: \"\\0", &["document 1"]);
    check("no-kind", "apiVersion: v1\nmetadata: {name: a}\n", &["line 1: Object 'kind' is missing"]);
}

#[test]
fn unknown_names() {
    check(
        "kind",
        "apiVersion: v1\nkind: Podd\nmetadata: {name: a}\n",
        &["line 2: kind: no matches for kind \"Podd\" in version \"v1\"; did you mean \"Pod\"?"],
    );
    check(
        "version",
        "apiVersion: apps/v1beta1\nkind: Deployment\nmetadata: {name: a}\n",
        &["write apiVersion: apps/v1"],
    );
    check(
        "field",
        &container("        image: a\n        prots: []\n"),
        &[
            "document 1, line 12: spec.template.spec.containers[0].prots: unknown field",
            "remove it or correct its name",
        ],
    );
    check(
        "scenario-field",
        "apiVersion: skeg.dev/v1alpha1\nkind: Scenario\nmetadata: {name: a}\nspec: {fault: light}\n",
        &["line 4: spec.fault: unknown field \"fault\"; did you mean \"faults\"?"],
    );
}

#[test]
fn what_kubernetes_rejects() {
    let image = "        image: a\n";
    check(
        "type",
        &format!("{HEAD}  replicas: many\n{SELECTOR}{TEMPLATE}      - name: web\n{image}"),
        &["line 5: spec.replicas"],
    );
    check(
        "negative",
        &format!("{HEAD}  replicas: -1\n{SELECTOR}{TEMPLATE}      - name: web\n{image}"),
        &["line 5: spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    );
    check("no-image", &container(""), &["spec.template.spec.containers[0].image: Required value"]);
    check(
        "selector",
        &container(image).replace("labels: {app: web}", "labels: {app: other}"),
        &["spec.template.metadata.labels: Invalid value", "`selector` does not match template `labels`"],
    );
    check(
        "name",
        &container(image).replace("metadata: {name: web}", "metadata: {name: Web_1}"),
        &["line 3: metadata.name: Invalid value: \"Web_1\"", "RFC 1123"],
    );
    check(
        "no-name",
        &container(image).replace("metadata: {name: web}", "metadata: {}"),
        &["metadata.name: Required value"],
    );
    check(
        "quantity",
        &container(&format!("{image}        resources: {{requests: {{cpu: lots}}}}\n")),
        &["line 12: spec.template.spec.containers[0].resources", "quantities must match the regular expression"],
    );
    check(
        "port",
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  ports:\n  - port: 70000\n",
        &["line 6: spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive"],
    );
}

#[test]
fn contradictions() {
    let image = "        image: a\n";
    let one = container(image);
    check(
        "twice",
        &format!("{one}---\n{one}"),
        &["document 2", "Duplicate value: \"web\": Deployment default/web is given at"],
    );
    check(
        "duplicate-key",
        &format!("{one}metadata: {{name: b}}\n"),
        &["line 12: metadata: duplicate field \"metadata\""],
    );
    check(
        "surge",
        &one.replace(
            "spec:\n  selector",
            "spec:\n  strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}\n  selector",
        ),
        &["line 5: spec.strategy.rollingUpdate.maxUnavailable: Invalid value", "may not be 0 when `maxSurge` is 0"],
    );
}

#[test]
fn errors_of_all_documents_are_told_at_once() {
    check(
        "many",
        "kind: A\n---\napiVersion: v1\nkind: B\n---\nx: [\n",
        &[
            "document 1, line 1: Object 'apiVersion'",
            "document 2, line 4: kind: no matches",
            "document 3, line 6: error converting",
        ],
    );
}

#[test]
fn huge_deep_and_bombed() {
    let deep: String = (0..5_000).map(|i| format!("{}a:\n", " ".repeat(i % 3_000))).collect();
    check("deep", &("a: ".to_owned() + &"[".repeat(100_000)), &["nested deeper than 100 levels"]);
    check("deep-block", &deep, &["document 1"]);
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..30 {
        bomb += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", "));
    }
    check("bomb", &bomb, &["aliases", "write the repeated parts out"]);
    let mut long = format!("a: &a \"{}\"\nl:\n", "y".repeat(1 << 20));
    long.extend((0..300).map(|i| format!("- &b{i} {i}\n- *a\n")));
    check("long", &long, &["larger than 64 MiB once its aliases are expanded"]);
    check(
        "huge",
        &"# 0123456789012345678901234567890123456789012345678901234567890\n".repeat(1_100_000),
        &["the file is larger than 64 MiB; split it into several files"],
    );
    check("recursive", "a: &a\n  b: *a\n", &["document 1"]);
}

#[test]
fn files_that_cannot_be_read() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skeg"));
    let output = command.args(["sim", "run", "no-such-file.yaml"]).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("error: no-such-file.yaml: there is no such file; correct the path"), "{errors}");
}
