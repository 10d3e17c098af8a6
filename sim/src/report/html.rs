//! The report as one self-contained HTML page: plots as SVG, tables as text, light and dark.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::plot::{Axis, Curve, Mark, Plot, escape};
use super::sequence::diagram;
use super::{bytes, count, happenings, pending_by_reason, seconds, verdict};
use crate::causes::Cause;
use crate::outcome::Outcome;

/// Phases in stacking order, with their colour classes. `Ready` is part of `Running`.
const PHASES: [(&str, &str); 6] = [
    ("Ready", "c-ready"),
    ("Running, not ready", "c-running"),
    ("Pending", "c-pending"),
    ("Succeeded", "c-succeeded"),
    ("Failed", "c-failed"),
    ("Unknown", "c-unknown"),
];
/// Maximum rows of a table on the page.
const MAX_ROWS: usize = 500;

pub(super) const STYLE: &str = "
:root{color-scheme:light dark;--bg:#fff;--fg:#1c2128;--dim:#5b6570;--line:#d5dae0;--card:#f6f8fa;--good:#1a7f37;
--bad:#c62828;--fault:#c62828;--action:#1565c0;--rollout:#7b3fb5;--ready:#2e9e5b;--running:#8fc9a5;--pending:#e0a526;
--succeeded:#5b8def;--failed:#d64545;--unknown:#8a939c;--l0:#1565c0;--l1:#c4661f;--l2:#2e9e5b;--l3:#7b3fb5}
@media(prefers-color-scheme:dark){:root{--bg:#12161b;--fg:#e4e8ec;--dim:#9aa4ae;--line:#333b44;--card:#1a2027;
--good:#4cc26e;--bad:#ff6b6b;--fault:#ff6b6b;--action:#6aa9ff;--rollout:#c08bf0;--ready:#3fae6b;--running:#2c6b45;
--pending:#d9a73a;--l0:#6aa9ff;--l1:#f0a060;--l2:#5cd08a;--l3:#c08bf0}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1100px;padding:24px 16px 64px;background:var(--bg);color:var(--fg);
font:15px/1.5 system-ui,sans-serif}h1{font-size:1.5em;margin:0}h2{font-size:1.15em;margin:2em 0 .5em}
p{margin:.3em 0}.dim,figcaption{color:var(--dim)}.good{color:var(--good);font-weight:600}.bad{color:var(--bad);
font-weight:600}figure{margin:1.2em 0}figcaption{font-weight:600}svg{width:100%;height:auto;display:block}
svg text{font:12px system-ui,sans-serif;fill:var(--dim)}.grid{stroke:var(--line);stroke-width:1}
.area{stroke:none}.curve{fill:none;stroke-width:2}
.c-ready{fill:var(--ready);background:var(--ready)}.c-running{fill:var(--running);background:var(--running)}
.c-pending{fill:var(--pending);background:var(--pending)}.c-succeeded{fill:var(--succeeded);background:var(--succeeded)}
.c-failed{fill:var(--failed);background:var(--failed)}.c-unknown{fill:var(--unknown);background:var(--unknown)}
.l0{stroke:var(--l0);background:var(--l0)}.l1{stroke:var(--l1);background:var(--l1)}
.l2{stroke:var(--l2);background:var(--l2)}.l3{stroke:var(--l3);background:var(--l3)}
.mark line{stroke-width:1.5;stroke-dasharray:4 3}.mark.fault line{stroke:var(--fault)}.mark.fault{fill:var(--fault)}
.mark.action line{stroke:var(--action)}.mark.action{fill:var(--action)}.mark.rollout line{stroke:var(--rollout)}
.mark.rollout{fill:var(--rollout)}.legend{display:flex;flex-wrap:wrap;gap:4px 16px;color:var(--dim);font-size:13px}
.legend i{display:inline-block;width:12px;height:12px;border-radius:2px;margin-right:6px;vertical-align:-1px}
.legend i.mark{border-radius:50%}.legend i.fault{background:var(--fault)}.legend i.action{background:var(--action)}
.legend i.rollout{background:var(--rollout)}.wrap{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:4px 12px 4px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--dim);font-weight:600}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.sequence text{fill:var(--fg)}.sequence .n{text-anchor:end;fill:var(--dim)}.life{stroke:var(--line)}
.commit line{stroke:var(--action)}.commit polygon{fill:var(--action)}.late line{stroke:var(--fault);
stroke-dasharray:4 3}.late polygon{fill:var(--fault)}.sequence .fault{fill:var(--fault)}.sequence .invariant{
fill:var(--bad);font-weight:600}
code{font:13px ui-monospace,monospace;background:var(--card);padding:1px 4px;border-radius:3px}
";

/// Renders the whole page; `story` is how a failure came about, and may be empty.
pub fn page(o: &Outcome, story: &[Cause]) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>{} (seed {})</title><style>{STYLE}</style></head><body>\n",
        escape(&o.name),
        o.seed
    );
    head(&mut out, o);
    out += &diagram(story);
    plots(&mut out, o);
    tables(&mut out, o);
    out += "</body></html>\n";
    out
}

fn head(out: &mut String, o: &Outcome) {
    let (line, well) = verdict(o);
    let speed = if o.wall_seconds > 0.0 { o.simulated_seconds / o.wall_seconds } else { 0.0 };
    let _ = writeln!(
        out,
        "<h1>{}</h1><p class=\"{}\">{}</p><p class=\"dim\">seed {}, {} nodes; simulated {} in {:.2} s ({} times real \
         time); {} events, hash <code>{}</code>; peak memory {}</p>",
        escape(&o.name),
        if well { "good" } else { "bad" },
        escape(&line),
        o.seed,
        count(o.nodes as u64),
        seconds(o.simulated_seconds),
        o.wall_seconds,
        count(speed as u64),
        count(o.events),
        escape(&o.event_hash),
        bytes(o.peak_rss_bytes)
    );
}

fn plots(out: &mut String, o: &Outcome) {
    if o.series.is_empty() {
        return;
    }
    let times: Vec<f64> = o.series.iter().map(|s| s.at).collect();
    let phase = |name: &str| -> Vec<f64> {
        let get = |s: &crate::outcome::Sample, k: &str| s.pods.get(k).copied().unwrap_or(0) as f64;
        let value = |s| match name {
            "Running, not ready" => (get(s, "Running") - get(s, "Ready")).max(0.0),
            other => get(s, other),
        };
        o.series.iter().map(value).collect()
    };
    let curves = PHASES.iter().map(|(name, class)| Curve {
        name: (*name).to_owned(),
        class: (*class).to_owned(),
        values: phase(name),
    });
    let curves: Vec<Curve> = curves.filter(|c| c.values.iter().any(|v| *v > 0.0)).collect();
    let plot = |title: &str, curves, stacked, percent| Plot {
        title: title.to_owned(),
        axis: Axis::Seconds,
        times: times.clone(),
        curves,
        stacked,
        percent,
        marks: marks(o),
    };
    *out += &plot("Pods by phase", curves, true, false).render();
    let ready = o.series.iter().map(|s| s.nodes_ready as f64).collect();
    let ready = Curve { name: "Nodes ready".to_owned(), class: "l0".to_owned(), values: ready };
    *out += &plot("Nodes ready", vec![ready], false, false).render();
    let resources: BTreeSet<&String> = o.series.iter().flat_map(|s| s.utilisation.keys()).collect();
    let curves: Vec<Curve> = resources
        .iter()
        .enumerate()
        .map(|(i, resource)| Curve {
            name: (*resource).clone(),
            class: format!("l{}", i % 4),
            values: o.series.iter().map(|s| s.utilisation.get(*resource).copied().unwrap_or(0.0)).collect(),
        })
        .collect();
    if !curves.is_empty() {
        *out += &plot("Requested, as a share of allocatable", curves, false, true).render();
    }
}

fn marks(o: &Outcome) -> Vec<Mark> {
    let mut marks: Vec<Mark> = happenings(o)
        .into_iter()
        .map(|(at, what, fault)| Mark { at, class: if fault { "fault" } else { "action" }, title: what.to_owned() })
        .collect();
    for r in &o.rollouts {
        marks.push(Mark { at: r.started, class: "rollout", title: format!("rollout of {} starts", r.workload) });
        if let Some(at) = r.finished {
            marks.push(Mark { at, class: "rollout", title: format!("rollout of {} is complete", r.workload) });
        }
    }
    marks
}

fn tables(out: &mut String, o: &Outcome) {
    let warnings = o.warnings.iter().map(|w| vec![w.clone()]);
    table(out, "Not carried out (this run says nothing about it)", &["What"], warnings.collect());
    let mut not: Vec<_> = o.not_converged.iter().map(|n| vec![n.what.clone(), n.why.clone()]).collect();
    if o.not_converged_total > not.len() {
        not.push(vec![format!("and {} more", o.not_converged_total - not.len()), String::new()]);
    }
    table(out, "Not converged", &["What", "Why"], not);
    let expectations = o.expectations.iter().map(|e| vec![mark(e.met, "met", "unmet"), e.what.clone(), e.seen.clone()]);
    table(out, "Expectations", &["", "Expectation", "Seen"], expectations.collect());
    let workloads = o
        .workloads
        .iter()
        .map(|w| vec![w.kind.clone(), w.namespace.clone(), w.name.clone(), format!("{}/{}", w.ready, w.desired)]);
    table(out, "Workloads", &["Kind", "Namespace", "Name", "#Ready"], workloads.collect());
    let rollouts = o.rollouts.iter().map(|r| {
        let took = r.finished.map_or("not finished".to_owned(), |f| seconds(f - r.started));
        let numbers = [r.desired.to_string(), r.lowest_available.to_string()];
        [r.workload.clone(), seconds(r.started), took].into_iter().chain(numbers).collect()
    });
    let headings = ["Workload", "#Started", "#Took", "#Desired", "#Lowest available"];
    table(out, "Rollouts", &headings, rollouts.collect());
    let pending = pending_by_reason(&o.pending);
    let pending = pending.iter().map(|(why, n, pod)| vec![n.to_string(), (*pod).to_owned(), (*why).to_owned()]);
    let title = match o.pending_total.saturating_sub(o.pending.len()) {
        0 => "Pending pods".to_owned(),
        _ => format!("Pending pods ({}; the reasons of the first {})", o.pending_total, o.pending.len()),
    };
    table(out, &title, &["#Pods", "For example", "Why"], pending.collect());
    let history = happenings(o)
        .into_iter()
        .map(|(at, what, fault)| vec![seconds(at), if fault { "fault" } else { "user" }.to_owned(), what.to_owned()]);
    table(out, "What happened", &["#At", "By", "What"], history.collect());
    let mut events: Vec<_> = o.event_reasons.iter().collect();
    events.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let events = events.into_iter().map(|(reason, n)| vec![reason.clone(), count(*n)]);
    table(out, "Events", &["Reason", "#Count"], events.collect());
    let invariants = o.invariants.iter().map(|i| {
        let details: Vec<String> = i.details.iter().map(|d| format!("at {}: {}", seconds(d.at), d.what)).collect();
        vec![mark(!i.broken, "held", "broken"), i.name.clone(), details.join("; ")]
    });
    table(out, "Invariants", &["", "Invariant", "How it was broken"], invariants.collect());
    let counters = o.counters.iter().map(|(name, n)| vec![name.clone(), count(*n)]);
    table(out, "Counters", &["Counter", "#Count"], counters.collect());
}

fn mark(good: bool, yes: &str, no: &str) -> String {
    if good { yes.to_owned() } else { no.to_uppercase() }
}

/// Renders a table; a heading that starts with `#` marks a column of numbers.
fn table(out: &mut String, title: &str, headings: &[&str], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let _ = write!(out, "<h2>{}</h2><div class=\"wrap\"><table><tr>", escape(title));
    let class = |c: usize| if headings.get(c).is_some_and(|h| h.starts_with('#')) { " class=\"n\"" } else { "" };
    for (c, h) in headings.iter().enumerate() {
        let _ = write!(out, "<th{}>{}</th>", class(c), escape(h.trim_start_matches('#')));
    }
    *out += "</tr>\n";
    for row in rows.iter().take(MAX_ROWS) {
        *out += "<tr>";
        for (c, cell) in row.iter().enumerate() {
            let tone = match cell.as_str() {
                "met" | "held" if c == 0 => " class=\"good\"",
                "UNMET" | "BROKEN" if c == 0 => " class=\"bad\"",
                _ => class(c),
            };
            let _ = write!(out, "<td{tone}>{}</td>", escape(cell));
        }
        *out += "</tr>\n";
    }
    *out += "</table></div>\n";
    if rows.len() > MAX_ROWS {
        let _ = write!(out, "<p class=\"dim\">and {} more</p>", rows.len() - MAX_ROWS);
    }
}
