//! Tests of tidiness: line width, file length, documentation, dead files and banned words.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use skeg_tests::{files, root};

const CRATES: [&str; 10] = ["core", "sim", "runtime", "etcd", "benches", "allocator", "cel", "spdy", "tests", "xtask"];
/// The only crate that does not forbid unsafe code.
const UNSAFE: &str = "allocator";
const MAX_WIDTH: usize = 120;
const MAX_LINES: usize = 1000;

/// Sources of the repository: path from the root, and content.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let name = |p: &Path| p.strip_prefix(&root).expect("it is under the root").to_string_lossy().into_owned();
    let read = |p: PathBuf| (name(&p), std::fs::read_to_string(&p).expect("sources are text"));
    CRATES.iter().flat_map(|c| files(&root.join(c), ".rs")).map(read).collect()
}

fn fail_if_any(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// Characters of a line without quoted text: rustfmt does not break strings, and messages copied from Kubernetes are
/// long.
fn width(line: &str) -> usize {
    let mut parts = line.replace("\\\"", "").split('"').map(|p| p.chars().count()).collect::<Vec<_>>();
    let whole: usize = parts.iter().sum::<usize>() + parts.len() - 1;
    if whole <= MAX_WIDTH {
        return whole;
    }
    if parts.len() % 2 == 0 {
        // The longest part is a string that begins or ends on another line.
        parts.sort_unstable();
        parts.pop();
        return parts.iter().sum();
    }
    for quoted in parts.iter_mut().skip(1).step_by(2) {
        *quoted = 0;
    }
    parts.iter().sum()
}

#[test]
fn lines_are_not_wide() {
    let wide = |(name, text): &(String, String)| -> Vec<String> {
        let numbered = text.lines().enumerate();
        numbered
            .filter(|(_, l)| width(l) > MAX_WIDTH && !l.contains("://") && !l.starts_with("//! |"))
            .map(|(i, l)| format!("{name}:{} has {} characters", i + 1, l.chars().count()))
            .collect()
    };
    fail_if_any("lines are at most 120 characters", sources().iter().flat_map(wide).collect());
}

#[test]
fn files_are_not_long() {
    let long = sources().into_iter().filter(|(_, text)| text.lines().count() >= MAX_LINES);
    fail_if_any("files are split before 1000 lines", long.map(|(name, _)| name).collect());
}

#[test]
fn lines_end_cleanly() {
    let bad =
        sources().into_iter().filter(|(_, text)| text.contains('\t') || text.contains('\r') || !text.ends_with('\n'));
    fail_if_any("no tabs or carriage returns, and a newline at the end", bad.map(|(name, _)| name).collect());
}

#[test]
fn every_module_says_what_it_is() {
    let silent = sources().into_iter().filter(|(name, text)| {
        let is_tests = name.ends_with("/tests.rs") || name.ends_with("_tests.rs");
        !is_tests && !text.starts_with("//!")
    });
    fail_if_any("every module opens with a `//!` comment", silent.map(|(name, _)| name).collect());
}

/// Files that `mod` declarations reach from a crate's roots.
fn reach(file: &Path, seen: &mut BTreeSet<PathBuf>) {
    if !seen.insert(file.to_owned()) {
        return;
    }
    let text = std::fs::read_to_string(file).expect("sources are text");
    let stem = file.file_stem().expect("a file has a name").to_string_lossy().into_owned();
    let parent = file.parent().expect("a file has a directory");
    let dir = match stem.as_str() {
        "lib" | "main" | "mod" => parent.to_owned(),
        _ => parent.join(&stem),
    };
    for line in text.lines() {
        let line = line.trim();
        let declared = line
            .strip_suffix(';')
            .and_then(|l| l.rsplit_once("mod "))
            .filter(|(before, _)| before.is_empty() || before.starts_with("pub"));
        let Some((_, name)) = declared else { continue };
        for candidate in [dir.join(format!("{name}.rs")), dir.join(name).join("mod.rs")] {
            if candidate.is_file() {
                reach(&candidate, seen);
            }
        }
    }
}

#[test]
fn no_file_is_dead() {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for name in CRATES {
        let dir = root().join(name);
        for target in ["src/lib.rs", "src/main.rs"].map(|f| dir.join(f)) {
            if target.is_file() {
                reach(&target, &mut seen);
            }
        }
        all.extend(files(&dir.join("src"), ".rs"));
    }
    let dead = all.into_iter().filter(|f| !seen.contains(f));
    fail_if_any("every file is part of its crate", dead.map(|f| f.display().to_string()).collect());
}

#[test]
fn the_core_and_the_simulator_keep_their_contract() {
    // Clippy bans the types where they are named; this test also finds uses in a macro or behind an `allow`.
    let everywhere = ["HashMap", "HashSet", "Instant", "SystemTime", "thread_rng", "allow(clippy::disallowed"];
    // Addresses are values of `core::net`, which has no sockets.
    let core = [
        "std::fs",
        "std::net",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "std::env",
        "std::thread",
        "std::process",
        "static mut",
    ];
    let mut found = Vec::new();
    for (name, text) in sources() {
        let in_core = name.starts_with("core/src/") || name.starts_with("cel/src/");
        if !in_core && !name.starts_with("sim/src/") {
            continue;
        }
        let code = text.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//"));
        for (i, line) in code {
            let core_words = core.iter().filter(|_| in_core);
            let mut words = everywhere.iter().chain(core_words).filter(|w| contains_word(line, w));
            if let Some(word) = words.next() {
                found.push(format!("{name}:{}: {word}", i + 1));
            }
        }
    }
    fail_if_any("no clock, IO, ambient randomness or hash order", found);
}

fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(i, _)| {
        let before = line[..i].chars().next_back();
        let after = line[i + word.len()..].chars().next();
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !part(before) && !part(after)
    })
}

#[test]
fn every_crate_but_one_has_the_lints_of_the_workspace() {
    let manifest = |path: PathBuf| std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(
        manifest(root().join("Cargo.toml")).contains("unsafe_code = \"forbid\""),
        "the workspace forbids unsafe code"
    );
    let has = |name: &str| manifest(root().join(name).join("Cargo.toml")).contains("[lints]\nworkspace = true");
    let others = CRATES.into_iter().filter(|name| has(name) == (*name == UNSAFE)).map(str::to_owned);
    fail_if_any("every crate but one has the lints of the workspace", others.collect());
    let listed = format!("members = [{}]", CRATES.map(|name| format!("{name:?}")).join(", "));
    assert!(manifest(root().join("Cargo.toml")).contains(&listed), "these are the crates of the workspace: {listed}");
}

#[test]
fn nothing_is_left_to_do() {
    let words = ["todo!", "unimplemented!", "FIXME", "XXX", "dbg!"];
    let mut found = Vec::new();
    for (name, text) in sources().into_iter().filter(|(name, _)| name != "tests/tests/tidy.rs") {
        for (i, line) in text.lines().enumerate() {
            if words.iter().any(|w| line.contains(w)) {
                found.push(format!("{name}:{}: {}", i + 1, line.trim()));
            }
        }
    }
    fail_if_any("no unfinished code", found);
}

/// Names in a document that do not exist: paths from the root, and Rust file names without a directory.
fn missing_from(document: &str, names: &BTreeSet<String>) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(document)).unwrap_or_else(|e| panic!("{document}: {e}"));
    let words: BTreeSet<&str> = text.split(|c: char| c.is_whitespace() || "`()[],;|".contains(c)).collect();
    let dirs = CRATES.iter().chain(&["docs", "examples"]);
    let is_path = |w: &str| dirs.clone().any(|d| w.starts_with(&format!("{d}/"))) && !w.contains(['*', '<', '…', '{']);
    let is_file = |w: &str| w.ends_with(".rs") && !w.contains(['/', '*', '<', '…', '{', ':']);
    let is_there = |w: &str| match (is_path(w), is_file(w)) {
        (true, _) => root().join(w).exists(),
        (false, true) => names.contains(w),
        (false, false) => true,
    };
    let words = words.into_iter().map(|w| w.trim_end_matches(['.', ':', '?']));
    words.filter(|w| !is_there(w)).map(|w| format!("{document}: {w}")).collect()
}

#[test]
fn the_documents_name_what_is_there() {
    let name = |path: &String| path.rsplit('/').next().unwrap_or(path).to_owned();
    let names: BTreeSet<String> = sources().iter().map(|(path, _)| name(path)).collect();
    let docs = files(&root().join("docs"), ".md").into_iter();
    let docs = docs.map(|d| d.strip_prefix(root()).expect("it is under the root").to_string_lossy().into_owned());
    let all = ["ARCHITECTURE.md", "CONTRIBUTING.md"].map(str::to_owned).into_iter().chain(docs);
    fail_if_any("what the documents name exists", all.flat_map(|d| missing_from(&d, &names)).collect());
}

#[test]
fn the_map_names_every_module() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("there is a map");
    let modules = |c: &str| {
        let entries = std::fs::read_dir(root().join(c).join("src")).expect("a crate has sources");
        let names = entries.map(|e| e.expect("it can be read").file_name().to_string_lossy().into_owned());
        names.filter(|n| !n.starts_with('.')).collect::<Vec<_>>()
    };
    let mut unnamed = Vec::new();
    for c in ["core", "sim"] {
        for module in modules(c).into_iter().filter(|m| m != "lib.rs") {
            let stem = module.trim_end_matches(".rs");
            if !map.contains(&format!("{c}/src/{stem}")) {
                unnamed.push(format!("{c}/src/{module}"));
            }
        }
    }
    fail_if_any("ARCHITECTURE.md names every module of core and sim", unnamed);
}
