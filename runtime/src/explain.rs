//! `skeg sim explain`: where a pod could run and where not, at the end of a run.

use skeg_core::ObjectKey;
use skeg_core::object::Kind;
use skeg_core::scheduler::advice::{Advice, Verdict};
use skeg_sim::RunOptions;

use crate::cli::{ExplainArgs, Output};
use crate::disk::Recording;
use crate::progress::Progress;
use crate::run::{crashed, load};
use crate::terminal::emit;
use crate::{Exit, drive};

/// Runs, and prints what the scheduler makes of a pod then.
pub fn explain(args: &ExplainArgs) -> Result<Exit, String> {
    if args.run.seeds.is_some() {
        return Err("error: --seeds: one run is explained; give it its seed with --seed".to_owned());
    }
    let loaded = load(&args.run, &Recording::default())?;
    let key = ObjectKey::new(Kind::POD, &args.namespace, &args.name);
    let progress = Progress::of_time(drive::longest(&loaded.scenario), args.run.quiet);
    let options = RunOptions { explain: Some(key.clone()), ..RunOptions::default() };
    let (result, advice) = drive::run_explained(&loaded.scenario, args.run.seed, &options, &progress);
    progress.finish();
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(crash) => return Ok(crashed(&crash, &args.run)),
    };
    let Some(advice) = advice else {
        let pending: Vec<&str> = outcome.pending.iter().map(|p| p.pod.as_str()).collect();
        let hint = if pending.is_empty() { String::new() } else { format!("; pending are {}", pending.join(", ")) };
        return Err(format!("error: pod {}: there is none at the end of the run{hint}", key.path()));
    };
    emit(&match args.run.output {
        Output::Json => json(&key, &advice) + "\n",
        Output::Text => text(&key, &advice),
    });
    Ok(Exit::Well)
}

fn json(key: &ObjectKey, advice: &Advice) -> String {
    let node = |(name, verdict): &(std::rc::Rc<str>, Verdict)| match verdict {
        Verdict::Fits(score) => serde_json::json!({"node": &**name, "score": score}),
        Verdict::Refused { why, remedy } => serde_json::json!({"node": &**name, "why": why, "remedy": remedy}),
    };
    let nodes: Vec<_> = advice.nodes.iter().map(node).collect();
    serde_json::json!({"pod": key.path(), "state": advice.state, "nodes": nodes}).to_string()
}

fn text(key: &ObjectKey, advice: &Advice) -> String {
    let mut out = format!("pod {} {}\n\n", key.path(), advice.state);
    let widest = advice.nodes.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let best = advice.nodes.iter().filter_map(|(_, v)| match v {
        Verdict::Fits(score) => Some(*score),
        Verdict::Refused { .. } => None,
    });
    let best = best.max();
    for (name, verdict) in &advice.nodes {
        let said = match verdict {
            Verdict::Fits(score) if Some(*score) == best => format!("fits, score {score}, the best"),
            Verdict::Fits(score) => format!("fits, score {score}"),
            Verdict::Refused { why, remedy } => format!("{}: {remedy}", why.join(", ")),
        };
        out += &format!("  {name:widest$}  {said}\n");
    }
    if advice.nodes.is_empty() {
        out += "  there are no nodes\n";
    }
    out
}

#[cfg(test)]
mod tests {
    use skeg_core::ObjectKey;
    use skeg_core::object::Kind;
    use skeg_core::scheduler::advice::{Advice, Verdict};

    use super::text;

    #[test]
    fn a_line_a_node() {
        let refused = Verdict::Refused {
            why: vec!["Insufficient cpu".to_owned()],
            remedy: "500m more cpu free: it asks for 1000m, 500m of 4000m is free".to_owned(),
        };
        let nodes = vec![("a".into(), Verdict::Fits(512)), ("node-b".into(), refused), ("c".into(), Verdict::Fits(3))];
        let advice = Advice { state: "waits for a node".to_owned(), nodes };
        let expect = "pod d/p waits for a node\n\n  a       fits, score 512, the best\n  node-b  Insufficient cpu: \
                      500m more cpu free: it asks for 1000m, 500m of 4000m is free\n  c       fits, score 3\n";
        assert_eq!(text(&ObjectKey::new(Kind::POD, "d", "p"), &advice), expect);
    }
}
