//! `skeg sim why`: how the failure of a run came about.

use serde_json::json;
use skeg_sim::causes::Cause;
use skeg_sim::report;

use crate::cli::{Output, WhyArgs};
use crate::progress::Progress;
use crate::run::{check_writable, write};
use crate::terminal::emit;
use crate::{Exit, drive, shrink};

/// Runs a seed again, and tells the story of its failure.
pub fn run(args: &WhyArgs) -> Result<Exit, String> {
    let failed = &args.failed;
    check_writable(args.report.as_deref())?;
    let scenario = shrink::scenario(failed)?;
    let progress = Progress::of_time(drive::longest(&scenario), failed.quiet);
    let (result, story) = drive::run_for_causes(&scenario, failed.seed, &progress);
    progress.finish();
    let outcome =
        result.map_err(|crash| format!("error: {crash}: a panic has no story; its message and place say all"))?;
    if story.is_empty() {
        return Err(format!(
            "error: seed {}: it does not fail, so there is nothing to tell; give the FILEs and options of the run that \
             failed",
            failed.seed
        ));
    }
    if let Some(path) = &args.report {
        write(path, report::page(&outcome, &story).as_bytes())?;
    }
    emit(&match args.output {
        Output::Json => json!({"seed": failed.seed, "hash": outcome.event_hash, "story": story}).to_string() + "\n",
        Output::Text => text(&story),
    });
    Ok(Exit::Well)
}

/// A paragraph a step: when, who, what, and below it what is remarkable.
fn text(story: &[Cause]) -> String {
    let widest = story.iter().map(|cause| cause.by.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Cause { at, by, what, remarks, .. } in story {
        let pad = " ".repeat(widest - by.chars().count());
        text += &format!("{at:>10.3} s  {by}{pad}  {what}\n");
        for remark in remarks {
            text += &format!("{:>12}  {}  → {remark}\n", "", " ".repeat(widest));
        }
    }
    text
}
