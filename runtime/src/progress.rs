//! Progress on a terminal: virtual time, speed-up, pods by phase.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use skeg_sim::files::duration;

use crate::machine;

/// A progress bar over virtual time. Draws nothing if standard error is not a terminal.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    /// A bar for a run of this virtual time.
    pub fn of_time(total: Duration, quiet: bool) -> Progress {
        Progress::new(total.as_secs(), quiet, "{bar:30} {msg}")
    }

    /// A bar for this many runs.
    pub fn of_runs(runs: u64, quiet: bool) -> Progress {
        Progress::new(runs, quiet, "{bar:30} {pos}/{len} seeds, {msg} failed, {eta} to go")
    }

    /// The progress of runs whose number is not known in advance.
    pub fn of_attempts(quiet: bool) -> Progress {
        Progress::new(0, quiet, "{spinner} {pos} runs, {elapsed}")
    }

    /// A bar for this many bytes of files.
    pub fn of_bytes(bytes: u64) -> Progress {
        Progress::new(bytes, false, "{bar:30} {bytes} of {total_bytes}, {eta} to go")
    }

    /// Shows that this much more has been read.
    pub fn read(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn new(length: u64, quiet: bool, template: &str) -> Progress {
        let shown = machine::shows_progress() && !quiet;
        let target = if shown { ProgressDrawTarget::stderr_with_hz(8) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        let style = ProgressStyle::with_template(template).expect("the template is a constant that indicatif reads");
        bar.set_style(style);
        Progress { bar, started: Instant::now() }
    }

    /// Shows how far a run is.
    pub fn at(&self, virtual_time: Duration, pods: &[(&str, usize)]) {
        if self.bar.is_hidden() {
            return;
        }
        let wall = self.started.elapsed().as_secs_f64().max(1e-3);
        let speed = virtual_time.as_secs_f64() / wall;
        let pods: Vec<String> = pods.iter().filter(|(_, n)| *n > 0).map(|(phase, n)| format!("{n} {phase}")).collect();
        self.bar.set_position(virtual_time.as_secs());
        self.bar.set_message(format!("{} ({speed:.0}x)  {}", duration::format(virtual_time), pods.join(", ")));
    }

    /// Shows how many runs are done and how many of them failed.
    pub fn done(&self, runs: u64, failed: u64) {
        self.bar.set_position(runs);
        self.bar.set_message(failed.to_string());
    }

    /// Prints a line above the bar on standard output.
    pub fn print(&self, line: &str) {
        self.bar.suspend(|| crate::terminal::emit(&format!("{line}\n")));
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
