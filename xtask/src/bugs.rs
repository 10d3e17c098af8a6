//! `cargo xtask bugs`: puts each bug of the catalogue (`bugs/`) into a copy of the tree, and explores until the
//! simulator finds it.
//!
//! A patch begins with what is wrong, in a sentence or two; then come `Source:`, `Class:` and `Invariant:`, a line
//! each, and the difference. Every bug is given a minute before any is given more. Results are kept by patch and tree,
//! so that the task can be ended and started again.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

/// The rounds: which seeds are explored, and for how many seconds at most.
const ROUNDS: [(std::ops::Range<u64>, u64); 2] = [(0..2_000, 60), (0..10_000, 300)];
/// What of the repository is built.
const SOURCES: [&str; 9] =
    ["Cargo.toml", "Cargo.lock", "clippy.toml", "core", "sim", "runtime", "etcd", "allocator", "spdy"];
/// Other members of the workspace, whose manifests cargo wants to read.
const MEMBERS: [&str; 3] = ["benches", "tests", "xtask"];

/// A bug of the catalogue.
struct Bug {
    name: String,
    what: String,
    source: String,
    class: String,
    patch: PathBuf,
    /// Of patch and tree.
    hash: u64,
}

/// Runs the task.
pub fn run(root: &Path, args: &[String]) -> Result<(), String> {
    let check = args.iter().any(|arg| arg == "--check");
    let write = args.iter().any(|arg| arg == "--write");
    let names: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    if let Some(other) = args.iter().find(|arg| arg.starts_with("--") && !["--check", "--write"].contains(&&***arg)) {
        return Err(format!("error: bugs {other}: it takes names, --check and --write"));
    }
    if write && !names.is_empty() {
        return Err("error: bugs --write: the table has every bug; leave the names out".to_owned());
    }
    let home = root.join("target/bugs");
    let tree = home.join("tree");
    copy_sources(root, &tree)?;
    let all = catalogue(root, &tree)?;
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|bug| bug.name != ***name)) {
        return Err(format!("error: there is no bug {unknown:?} in bugs/"));
    }
    for bug in &all {
        git_apply(&tree, &bug.patch, &["--check"]).map_err(|e| format!("error: {} does not apply: {e}", bug.name))?;
    }
    if check {
        println!("{} patches apply", all.len());
        return Ok(());
    }
    let wanted: Vec<&Bug> = all.iter().filter(|bug| names.is_empty() || names.contains(&&bug.name)).collect();
    for (round, (seeds, seconds)) in ROUNDS.into_iter().enumerate() {
        for bug in &wanted {
            let path = home.join(format!("results/{:016x}.json", bug.hash));
            let known = fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
            let done = |v: &Value| !v["seed"].is_null() || v["rounds"].as_u64() > Some(round as u64);
            if known.as_ref().is_some_and(done) {
                continue;
            }
            eprintln!("+ {} (round {})", bug.name, round + 1);
            let mut result = hunt(&home, &tree, bug, &seeds, seconds)?;
            result["rounds"] = json!(round + 1);
            write_file(&path, result.to_string())?;
        }
    }
    let mut missed = 0;
    let mut table = format!("| {} |\n|{}\n", COLUMNS.join(" | "), " --- |".repeat(COLUMNS.len()));
    for bug in &wanted {
        let path = home.join(format!("results/{:016x}.json", bug.hash));
        let text = fs::read_to_string(&path).map_err(|e| format!("error: {}: {e}", path.display()))?;
        let result: Value = serde_json::from_str(&text).map_err(|e| format!("error: {}: {e}", path.display()))?;
        missed += usize::from(result["seed"].is_null());
        table += &row(bug, &result);
    }
    println!("{table}");
    println!("{} of {} found", wanted.len() - missed, wanted.len());
    if write { write_table(root, &table) } else { Ok(()) }
}

const COLUMNS: [&str; 8] =
    ["bug", "what is wrong", "source", "class", "found by", "runs", "seconds", "shrunk to (steps, nodes)"];

fn row(bug: &Bug, result: &Value) -> String {
    let text = |key: &str| result[key].as_str().unwrap_or("").to_owned();
    let found = if result["seed"].is_null() { "**not found**".to_owned() } else { format!("`{}`", text("broken")) };
    let runs = if result["seed"].is_null() {
        result["runs"].to_string()
    } else {
        (result["seed"].as_u64().unwrap_or(0) + 1).to_string()
    };
    format!(
        "| `{}` | {} | {} | {} | {found} | {runs} | {:.0} | {} |\n",
        bug.name,
        bug.what,
        bug.source,
        bug.class,
        result["seconds"].as_f64().unwrap_or(0.0),
        text("shrunk")
    )
}

/// Replaces the table of docs/bugs.md.
fn write_table(root: &Path, table: &str) -> Result<(), String> {
    let path = root.join("docs/bugs.md");
    let text = fs::read_to_string(&path).map_err(|e| format!("error: {}: {e}", path.display()))?;
    let start = text.find(&format!("| {}", COLUMNS[0])).ok_or("error: docs/bugs.md has no table")?;
    let end = text[start..].find("\n\n").map_or(text.len(), |at| start + at + 1);
    write_file(&path, format!("{}{table}{}", &text[..start], &text[end..]))
}

/// The catalogue, by name.
fn catalogue(root: &Path, tree: &Path) -> Result<Vec<Bug>, String> {
    let dir = root.join("bugs");
    let entries = fs::read_dir(&dir).map_err(|e| format!("error: {}: {e}", dir.display()))?;
    let mut patches: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    patches.retain(|path| path.extension().is_some_and(|e| e == "patch"));
    patches.sort();
    let base = hash_of_tree(tree)?;
    patches.into_iter().map(|patch| read_bug(patch, base)).collect()
}

fn read_bug(patch: PathBuf, base: u64) -> Result<Bug, String> {
    let place = patch.display();
    let text = fs::read_to_string(&patch).map_err(|e| format!("error: {place}: {e}"))?;
    let head = text.split("\n--- ").next().unwrap_or_default();
    let field = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.map(str::to_owned).ok_or_else(|| format!("error: {place}: it lacks a line `{name}: …`"))
    };
    let what = head.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    let mut hasher = DefaultHasher::new();
    (base, &text).hash(&mut hasher);
    let name = patch.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let (source, class) = (field("Source")?, field("Class")?);
    Ok(Bug { name, what, source, class, hash: hasher.finish(), patch })
}

/// Builds the tree with the bug in it, explores, and shrinks what was found.
fn hunt(home: &Path, tree: &Path, bug: &Bug, seeds: &std::ops::Range<u64>, seconds: u64) -> Result<Value, String> {
    git_apply(tree, &bug.patch, &[])?;
    let result = build(home, tree).and_then(|skeg| explore(home, &skeg, bug, seeds, seconds));
    git_apply(tree, &bug.patch, &["--reverse"])?;
    result.map_err(|e| format!("error: {}: {e}", bug.name))
}

fn build(home: &Path, tree: &Path) -> Result<PathBuf, String> {
    let target = home.join("build");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet", "--profile", "bugs", "--package", "skeg-runtime", "--target-dir"]);
    command.arg(&target).current_dir(tree);
    let output = command.output().map_err(|e| format!("cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!("it does not compile:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(target.join("bugs/skeg"))
}

fn explore(home: &Path, skeg: &Path, bug: &Bug, seeds: &std::ops::Range<u64>, seconds: u64) -> Result<Value, String> {
    let started = Instant::now();
    let range = format!("{}..{}", seeds.start, seeds.end);
    let mut command = Command::new(skeg);
    command.args(["sim", "explore", "--seeds", &range, "--time", &format!("{seconds}s"), "--fail-fast", "--quiet"]);
    let output = command.args(["--output", "json"]).stderr(Stdio::inherit()).output();
    let output = output.map_err(|e| format!("{}: {e}", skeg.display()))?;
    let told: Value = serde_json::from_slice(&output.stdout).map_err(|e| format!("skeg sim explore: {e}"))?;
    let took = started.elapsed().as_secs_f64();
    let Some(first) = told["failures"].as_array().and_then(|all| all.first()) else {
        return Ok(json!({"seed": null, "runs": told["runs"], "seconds": took}));
    };
    let broken = first["broken"][0].as_str().unwrap_or("converged-and-kept");
    let mut command = Command::new(skeg);
    command.args(["sim", "shrink", "--quiet", "--seed", &first["seed"].to_string(), "--time", "30s", "--out"]);
    command.arg(home.join(format!("{}.yaml", bug.name)));
    let output = command.output().map_err(|e| format!("{}: {e}", skeg.display()))?;
    let summary = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(json!({"seed": first["seed"], "runs": told["runs"], "seconds": took, "broken": broken, "why": first["why"],
        "shrunk": shrunk(&summary)}))
}

/// Steps and nodes of a summary such as `one-leader: 2 of 54 steps and 1 of 50 nodes are left, …`.
fn shrunk(summary: &str) -> String {
    let number = |before: &str| {
        let (head, _) = summary.split_once(before)?;
        let (head, _) = head.rsplit_once(" of ")?;
        head.rsplit(' ').next().map(str::to_owned)
    };
    match (number(" steps and "), number(" nodes are left")) {
        (Some(steps), Some(nodes)) => format!("{steps}, {nodes}"),
        _ => String::new(),
    }
}

/// Applies a patch to the tree, which git must not take for a part of this repository.
fn git_apply(tree: &Path, patch: &Path, options: &[&str]) -> Result<(), String> {
    let mut command = Command::new("git");
    command.arg("apply").args(options).arg(patch).current_dir(tree);
    command.env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap_or(tree));
    let output = command.output().map_err(|e| format!("git apply: {e}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

/// Makes the tree a copy of the repository's sources. Files that are equal are left alone, so that cargo need not build
/// them again.
fn copy_sources(root: &Path, tree: &Path) -> Result<(), String> {
    let mut wanted = Vec::new();
    for name in SOURCES {
        files_below(&root.join(name), &mut wanted)?;
    }
    for member in MEMBERS {
        wanted.push(root.join(member).join("Cargo.toml"));
        for name in ["main.rs", "lib.rs"] {
            wanted.extend(Some(root.join(member).join("src").join(name)).filter(|path| path.is_file()));
        }
    }
    let relative = |path: &Path, base: &Path| path.strip_prefix(base).map(Path::to_owned).unwrap_or_default();
    for path in &wanted {
        let bytes = fs::read(path).map_err(|e| format!("error: {}: {e}", path.display()))?;
        let copy = tree.join(relative(path, root));
        if fs::read(&copy).ok().as_ref() != Some(&bytes) {
            write_file(&copy, &bytes)?;
        }
    }
    let mut there = Vec::new();
    if tree.is_dir() {
        files_below(tree, &mut there)?;
    }
    for path in there.iter().filter(|path| !wanted.contains(&root.join(relative(path, tree)))) {
        fs::remove_file(path).map_err(|e| format!("error: {}: {e}", path.display()))?;
    }
    Ok(())
}

fn files_below(path: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    if path.is_file() {
        found.push(path.to_owned());
        return Ok(());
    }
    let entries = fs::read_dir(path).map_err(|e| format!("error: {}: {e}", path.display()))?;
    let mut below: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    below.sort();
    below.iter().try_for_each(|path| files_below(path, found))
}

fn hash_of_tree(tree: &Path) -> Result<u64, String> {
    let mut files = Vec::new();
    files_below(tree, &mut files)?;
    let mut hasher = DefaultHasher::new();
    for path in files {
        let bytes = fs::read(&path).map_err(|e| format!("error: {}: {e}", path.display()))?;
        (path.strip_prefix(tree).unwrap_or(&path), bytes).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn write_file(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), String> {
    let parent = path.parent().unwrap_or(path);
    let written = fs::create_dir_all(parent).and_then(|()| fs::write(path, bytes));
    written.map_err(|e| format!("error: {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::shrunk;

    #[test]
    fn a_summary_is_read() {
        let check = |summary, want| assert_eq!(shrunk(summary), want, "{summary}");
        check("one-leader: 2 of 54 steps and 1 of 50 nodes are left, after 80 runs in 3.6 s", "2, 1");
        check("error: seed 3: it does not fail", "");
    }
}
