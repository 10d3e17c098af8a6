//! The command `skeg`, and with the feature `up` a whole cluster for the tests of those who write operators
//! (`TestCluster`).
//!
//! What comes in: arguments and files. What goes out: a report, one JSON object or a page, and an exit code: 0 success,
//! 2 bad input or usage, 3 an invariant was broken, 4 the declared state was not reached or kept. The simulator makes
//! all decisions; this crate handles files, threads, the real clock and the terminal.

// This crate is the driver: it uses threads, the clock and the environment, which the core and the simulator must not.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod arrivals;
mod campaign;
mod cli;
mod disk;
mod drive;
mod explain;
mod explore;
mod junit;
mod machine;
mod measured;
mod progress;
mod recording;
mod run;
mod seeds;
mod shrink;
mod terminal;
mod trace;
#[cfg(feature = "up")]
mod up;
mod why;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, Sim};

#[cfg(feature = "up")]
pub use up::testing;

/// How a command ended; the number is the exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Exit {
    /// Success.
    Well = 0,
    /// Two recorded runs differ.
    Differs = 1,
    /// Bad input or bad usage.
    BadInput = 2,
    /// An invariant was broken.
    Broken = 3,
    /// The declared state was not reached and kept, or an expectation was not met.
    NotConverged = 4,
}

impl Exit {
    /// The more serious of two: bad input before a broken invariant before a state that was not reached.
    pub fn worse(self, other: Exit) -> Exit {
        let gravity = |e| match e {
            Exit::Well | Exit::Differs => 0,
            Exit::NotConverged => 1,
            Exit::Broken => 2,
            Exit::BadInput => 3,
        };
        if gravity(other) > gravity(self) { other } else { self }
    }
}

/// The command line.
pub fn main() -> ExitCode {
    #[cfg(feature = "up")]
    if let Some(exit) = up::envtest::by_name(std::env::args_os().collect()) {
        return end(exit);
    }
    let command = Cli::parse().command;
    if matches!(command, Command::Sim(_)) {
        // A simulation runs and exits, so it keeps freed memory; a long-running server returns memory that it does not
        // need.
        skeg_allocator::keep_what_is_freed();
    }
    let exit = match command {
        Command::Sim(Sim::Run(args)) if args.seeds.is_some() => seeds::run(&args),
        Command::Sim(Sim::Run(args)) => run::run(&args),
        Command::Sim(Sim::Explain(args)) => explain::explain(&args),
        Command::Sim(Sim::Explore(args)) => explore::run(&args),
        Command::Sim(Sim::Arrivals(args)) => arrivals::run(&args),
        Command::Sim(Sim::Shrink(args)) => shrink::run(&args),
        Command::Sim(Sim::Why(args)) => why::run(&args),
        Command::Sim(Sim::Replay(args)) if args.trace.is_dir() && args.until.is_none() => {
            recording::replay::run(&args.trace, args.output)
        }
        Command::Sim(Sim::Replay(args)) => trace::replay(&args),
        Command::Sim(Sim::Fit(args)) => recording::fit::run(&args),
        Command::Sim(Sim::Diff(args)) => trace::diff(&args),
        #[cfg(feature = "up")]
        Command::Up(args) => up::up(&args),
        #[cfg(feature = "up")]
        Command::Server(args) => up::server(&args),
        #[cfg(feature = "up")]
        Command::Agent(args) => up::agent(&args),
        #[cfg(feature = "up")]
        Command::RollingUpdate(args) => up::rolling_update(&args),
        #[cfg(feature = "up")]
        Command::Down(args) => up::down(&args),
        #[cfg(feature = "up")]
        Command::Status(args) => up::status(&args),
        #[cfg(feature = "up")]
        Command::Doctor(args) => up::doctor(&args),
        #[cfg(feature = "up")]
        Command::EnvtestAssets(args) => up::envtest::assets(&args),
        Command::Version => {
            println!("skeg {}", env!("CARGO_PKG_VERSION"));
            Ok(Exit::Well)
        }
    };
    end(exit)
}

fn end(exit: Result<Exit, String>) -> ExitCode {
    match exit {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(Exit::BadInput as u8)
        }
    }
}
