//! Tasks of this repository: `cargo xtask test`, `cargo xtask lint`, `cargo xtask bench`, `cargo xtask swarm`, `cargo
//! xtask soak`, `cargo xtask schema`, `cargo xtask bugs`.
//!
//! But for the last two it only starts other commands and passes on their exit status, so that a task is the same here
//! and in CI.

// A task runner is a driver: it reads its environment and starts processes.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

const USAGE: &str = "\
Tasks:
  cargo xtask test                                    formatting, lints, every test
  cargo xtask lint                                    formatting and lints
  cargo xtask bench [NAME…] [--output json|text]      release figures; without a name all but server/… and
                                                      agent/…, which need etcd, and root with Docker
  cargo xtask swarm [A..B] [--jobs N]                 heavy faults over many seeds (0..100 without a range)
  cargo xtask soak [--minutes N]                      at length what CI runs shortened: heavy faults and drawn runs, and
                                                      real clusters whose parts are killed and cut off for N minutes
                                                      (60); needs etcd, and root with Docker
  cargo xtask bugs [NAME…] [--check] [--write]        explores until each bug of bugs/ is found; --check only applies
                                                      the patches, --write updates docs/bugs.md
  cargo xtask schema                                  core's table of types, from the data that SKEG_SHARED names
";

/// Benches in the order in which they run, each with the figures that it prints.
const BENCHES: [(&str, &[&str]); 14] = [
    ("informer", &["informer/event-cost-ratio"]),
    (
        "schedule",
        &[
            "schedule/basic-5000",
            "schedule/deployment-5000",
            "schedule/topology-spreading",
            "schedule/pod-anti-affinity",
            "schedule/pod-affinity",
            "schedule/preferred-affinity",
            "schedule/node-affinity",
            "schedule/mixed",
            "schedule/unschedulable",
            "schedule/preemption",
            "schedule/all-different",
        ],
    ),
    (
        "openb",
        &[
            "schedule/openb-random",
            "schedule/openb-dotprod",
            "schedule/openb-bestfit",
            "schedule/openb-packing",
            "schedule/openb-fgd",
        ],
    ),
    ("thousand", &["sim/1000-pods-1000-nodes"]),
    ("day", &["sim/day-5000-nodes"]),
    ("large", &["sim/150k-pods", "sim/150k-pods-wall"]),
    ("growth", &["sim/cost-growth"]),
    ("restore", &["sim/restore-150k", "sim/restore-150k-bytes", "sim/restore-150k-wall"]),
    ("api-boot", &["api/boot-ms", "api/idle-rss"]),
    ("api-create", &["api/create-memory", "api/list-10k-ms", "api/create-durable"]),
    ("api-watch", &["api/watch-1000"]),
    ("api-leases", &["api/lease-p99-during-list", "api/lists-during-leases"]),
    ("server", &["server/create-etcd", "server/rss-5000-nodes"]),
    ("agent", &["agent/pod-start-overhead-ms", "agent/rss-50-pods"]),
];

/// Benches that are run only by their names: they need etcd, and root with Docker's engine.
const NAMED: [&str; 2] = ["server/", "agent/"];

/// The repository's root.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// `skeg up` is off by default but always checked.
const UP: &str = "skeg-runtime/up";
/// The same with `--etcd`, whose client cannot be built without protoc.
const ETCD: &str = "skeg-runtime/etcd";
/// Set where CI must not leave out what concerns etcd.
const REQUIRE_ETCD: &str = "SKEG_REQUIRE_ETCD";

/// The scenario of the swarm.
const SWARM: &str = "examples/heavy-50.yaml";

/// How many seeds a soak takes: of the swarm, and of drawn runs.
const SOAK_SWARM: &str = "0..2000";
const SOAK_EXPLORE: &str = "0..5000";
/// The tests that a soak runs at length, by parts of their names; the variable says for how many minutes.
const SOAKED: [&str; 2] = ["partitions::", "fit::"];
const SOAK_MINUTES: &str = "SKEG_SOAK_MINUTES";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let (task, rest) = args.split_first().map_or(("", &[][..]), |(t, r)| (t.as_str(), r));
    let result = match task {
        "test" => lint().and_then(|()| test()),
        "lint" => lint(),
        "bench" => bench(rest),
        "swarm" => swarm(rest),
        "soak" => soak(rest),
        "bugs" => xtask::bugs::run(Path::new(ROOT), rest),
        "schema" => xtask::schema::run(Path::new(ROOT)),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(ROOT);
    command
}

fn run(mut command: Command) -> Result<(), String> {
    let line = describe(&command);
    eprintln!("+ {line}");
    let status = command.status().map_err(|e| format!("error: {line}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("error: {line}: {status}")) }
}

fn describe(command: &Command) -> String {
    let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
    format!("cargo {}", args.join(" "))
}

/// The features that are checked: with etcd where protoc is installed.
fn features() -> Result<&'static str, String> {
    let answers = |program: &OsStr| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    if answers(&env::var_os("PROTOC").unwrap_or_else(|| "protoc".into())) {
        return Ok(ETCD);
    }
    let missing = "protoc is not installed (apt-get install protobuf-compiler)";
    if env::var_os(REQUIRE_ETCD).is_some() {
        return Err(format!("error: {missing}, and {REQUIRE_ETCD} is set"));
    }
    eprintln!("SKIPPED, the store on etcd is neither built nor tested: {missing}");
    Ok(UP)
}

fn lint() -> Result<(), String> {
    run(cargo(&["fmt", "--all", "--check"]))?;
    let features = features()?;
    run(cargo(&["clippy", "--workspace", "--all-targets", "--features", features, "--quiet", "--", "-D", "warnings"]))
}

fn test() -> Result<(), String> {
    run(cargo(&["test", "--workspace", "--features", features()?]))
}

fn bench(args: &[String]) -> Result<(), String> {
    let (names, json) = bench_args(args)?;
    run(cargo(&["build", "--release", "--quiet", "--package", "skeg-benches"]))?;
    let needs = |group: &str| names.iter().any(|name| name.starts_with(group));
    // One build for both: what is measured without etcd is the same with it.
    if NAMED.into_iter().any(needs) {
        run(cargo(&["build", "--release", "--quiet", "--package", "skeg-runtime", "--features", ETCD]))?;
    } else if needs("api/") {
        run(cargo(&["build", "--release", "--quiet", "--package", "skeg-runtime", "--features", UP]))?;
    }
    let mut lines = Vec::new();
    for (bench, figures) in BENCHES {
        if !figures.iter().any(|f| names.iter().any(|n| n == f)) {
            continue;
        }
        // Each in a separate process, because peak memory is measured per process.
        let mut command = cargo(&["run", "--release", "--quiet", "--package", "skeg-benches", "--", bench]);
        eprintln!("+ {}", describe(&command));
        let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("error: {bench}: {e}"))?;
        if !output.status.success() {
            return Err(format!("error: bench {bench}: {}", output.status));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        lines.extend(text.lines().filter(|l| names.iter().any(|n| l.contains(&format!("\"{n}\"")))).map(str::to_owned));
    }
    if json {
        println!("[{}]", lines.join(","));
    } else {
        lines.iter().for_each(|l| println!("{l}"));
    }
    Ok(())
}

fn bench_args(args: &[String]) -> Result<(Vec<String>, bool), String> {
    let all = || BENCHES.iter().flat_map(|(_, figures)| figures.iter().map(|f| (*f).to_owned()));
    let (mut names, mut json, mut args) = (Vec::new(), false, args.iter());
    while let Some(arg) = args.next() {
        match arg.strip_prefix("--output").map(|rest| rest.trim_start_matches('=')) {
            Some(value) => {
                let value = if value.is_empty() { args.next().map_or("", String::as_str) } else { value };
                json = match value {
                    "json" => true,
                    "text" => false,
                    other => return Err(format!("error: --output {other:?}: it is json or text\n\n{USAGE}")),
                };
            }
            None if all().any(|name| name == *arg) => names.push(arg.clone()),
            None => {
                let known: Vec<String> = all().collect();
                return Err(format!("error: there is no bench {arg:?}; there are {}", known.join(", ")));
            }
        }
    }
    if names.is_empty() {
        names = all().filter(|name| !NAMED.iter().any(|group| name.starts_with(group))).collect();
    }
    Ok((names, json))
}

fn swarm(args: &[String]) -> Result<(), String> {
    let (mut range, mut rest) = ("0..100".to_owned(), Vec::new());
    for arg in args {
        if arg.contains("..") {
            range = arg.clone();
        } else {
            rest.push(arg.as_str());
        }
    }
    let mut command = cargo(&["run", "--release", "--quiet", "--package", "skeg-runtime", "--"]);
    command.args(["sim", "run", SWARM, "--seeds", &range]).args(rest);
    run(command)
}

/// What CI runs shortened, at length: one part after the other, each to its end, so that all failures are told.
fn soak(args: &[String]) -> Result<(), String> {
    let minutes = match args {
        [] => 60,
        [flag, minutes] if flag == "--minutes" => {
            minutes.parse::<u32>().map_err(|e| format!("error: --minutes {minutes}: {e}"))?
        }
        _ => return Err(USAGE.to_owned()),
    };
    let features = features()?;
    let mut explore = cargo(&["run", "--release", "--quiet", "--package", "skeg-runtime", "--"]);
    explore.args(["sim", "explore", "--seeds", SOAK_EXPLORE, "--quiet"]);
    let mut real = cargo(&["test", "--workspace", "--features", features, "--test", "up", "--"]);
    real.args(SOAKED).args(["--nocapture", "--test-threads", "1"]);
    real.env(SOAK_MINUTES, minutes.to_string()).env("SKEG_REQUIRE_DOCKER", "1").env(REQUIRE_ETCD, "1");
    let parts = [swarm(&[SOAK_SWARM.to_owned(), "--quiet".to_owned()]), run(explore), run(real)];
    let failed: Vec<String> = parts.into_iter().filter_map(Result::err).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}
