//! What goes to standard output.

use std::io::{ErrorKind, Write};

use skeg_sim::outcome::Outcome;
use skeg_sim::report;

use crate::cli::Output;
use crate::disk::explain;
use crate::machine;
use crate::run::summary;

/// Prints an outcome.
pub fn print(outcome: &Outcome, output: Output, quiet: bool) {
    emit(&match output {
        Output::Json => serde_json::to_string(outcome).expect("an outcome is plain data") + "\n",
        Output::Text if quiet => summary(outcome) + "\n",
        Output::Text => report::text(outcome, machine::colour()),
    });
}

/// Writes to standard output. A closed pipe (`| head`) is not an error: the reader has what it needs, and the exit code
/// says the rest.
pub fn emit(text: &str) {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => eprintln!("error: standard output: {}", explain(&e)),
        Ok(()) | Err(_) => {}
    }
}
