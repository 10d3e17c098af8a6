//! Properties of this machine: memory, CPUs, and whether the output is a terminal.

use std::io::IsTerminal;

/// Peak resident memory of this process in bytes; zero if the system does not report it.
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().strip_suffix(" kB")).and_then(|n| n.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// How many CPUs this process may use.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Whether standard output may be coloured: it is a terminal and `NO_COLOR` is not set (<https://no-color.org>).
pub fn colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    std::io::stdout().is_terminal() && !refused
}

/// Whether progress can be shown: standard error is a terminal.
pub fn shows_progress() -> bool {
    std::io::stderr().is_terminal()
}

/// Whether this runs in a workflow of GitHub, which shows annotations.
pub fn is_github_workflow() -> bool {
    std::env::var_os("GITHUB_ACTIONS").is_some_and(|v| v == "true")
}
