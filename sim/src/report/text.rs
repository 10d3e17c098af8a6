//! The report for a terminal.

use super::table::Table;
use super::{bytes, count, happenings, pending_by_reason, plural, seconds, verdict};
use crate::outcome::Outcome;

/// Maximum rows of the longer tables; further rows are only counted.
const MAX_ROWS: usize = 40;

struct Writer {
    out: String,
    colour: bool,
}

impl Writer {
    fn heading(&mut self, title: &str) {
        self.out.push('\n');
        self.out += &self.paint("1", title);
        self.out.push('\n');
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn good(&self, text: &str) -> String {
        self.paint("32", text)
    }

    fn bad(&self, text: &str) -> String {
        self.paint("1;31", text)
    }

    fn line(&mut self, text: &str) {
        self.out += text;
        self.out.push('\n');
    }

    fn table(&mut self, title: &str, table: &Table, rows: usize, shown: usize) {
        self.heading(title);
        self.out += &table.render();
        if rows > shown {
            self.line(&format!("  and {} more", rows - shown));
        }
    }
}

/// Renders the whole report; with ANSI colours if `colour` is true.
pub fn text(o: &Outcome, colour: bool) -> String {
    let mut w = Writer { out: String::new(), colour };
    head(&mut w, o);
    warnings(&mut w, o);
    workloads(&mut w, o);
    rollouts(&mut w, o);
    pending(&mut w, o);
    utilisation(&mut w, o);
    history(&mut w, o);
    events(&mut w, o);
    expectations(&mut w, o);
    invariants(&mut w, o);
    not_converged(&mut w, o);
    result(&mut w, o);
    w.out
}

fn head(w: &mut Writer, o: &Outcome) {
    let name = w.paint("1", &o.name);
    w.line(&format!("{name}: seed {}, {} {}", o.seed, count(o.nodes as u64), plural(o.nodes, "node", "nodes")));
    let speed = if o.wall_seconds > 0.0 { o.simulated_seconds / o.wall_seconds } else { 0.0 };
    w.line(&format!(
        "simulated {} in {:.2} s ({} times real time), {} events, hash {}, peak memory {}",
        seconds(o.simulated_seconds),
        o.wall_seconds,
        count(speed as u64),
        count(o.events),
        o.event_hash,
        bytes(o.peak_rss_bytes)
    ));
    let phases: Vec<String> = o.pods.iter().map(|(phase, n)| format!("{} {phase}", count(*n as u64))).collect();
    w.line(&format!("pods: {}", if phases.is_empty() { "none".to_owned() } else { phases.join(", ") }));
}

fn warnings(w: &mut Writer, o: &Outcome) {
    if o.warnings.is_empty() {
        return;
    }
    w.heading("NOT CARRIED OUT (this run says nothing about it)");
    for warning in o.warnings.iter().take(MAX_ROWS) {
        w.line(&format!("  {warning}"));
    }
    if o.warnings.len() > MAX_ROWS {
        w.line(&format!("  and {} more", o.warnings.len() - MAX_ROWS));
    }
}

fn workloads(w: &mut Writer, o: &Outcome) {
    if o.workloads.is_empty() {
        return;
    }
    let mut rows: Vec<_> = o.workloads.iter().collect();
    // Workloads with missing replicas first, because a reader looks for those in a long table.
    rows.sort_by_key(|x| x.ready >= x.desired);
    let mut table = Table::new(&["KIND", "NAMESPACE", "NAME", "READY"]);
    for x in rows.iter().take(MAX_ROWS) {
        let ready = format!("{}/{}", x.ready, x.desired);
        table.row(vec![x.kind.clone(), x.namespace.clone(), x.name.clone(), ready]);
    }
    w.table("WORKLOADS", &table, rows.len(), MAX_ROWS.min(rows.len()));
}

fn rollouts(w: &mut Writer, o: &Outcome) {
    if o.rollouts.is_empty() {
        return;
    }
    let mut table = Table::new(&["WORKLOAD", "STARTED", "TOOK", "DESIRED", "LOWEST AVAILABLE"]);
    for r in o.rollouts.iter().take(MAX_ROWS) {
        let took = r.finished.map_or("not finished".to_owned(), |f| seconds(f - r.started));
        let numbers = [r.desired.to_string(), r.lowest_available.to_string()];
        table.row([r.workload.clone(), seconds(r.started), took].into_iter().chain(numbers).collect());
    }
    w.table("ROLLOUTS", &table, o.rollouts.len(), MAX_ROWS.min(o.rollouts.len()));
}

fn pending(w: &mut Writer, o: &Outcome) {
    if o.pending.is_empty() {
        return;
    }
    let reasons = pending_by_reason(&o.pending);
    let mut table = Table::new(&["PODS", "FOR EXAMPLE", "WHY"]);
    for (why, n, pod) in reasons.iter().take(MAX_ROWS) {
        table.row(vec![n.to_string(), (*pod).to_owned(), (*why).to_owned()]);
    }
    let title = match o.pending_total.saturating_sub(o.pending.len()) {
        0 => format!("PENDING PODS ({})", o.pending.len()),
        _ => format!("PENDING PODS ({}; the reasons of the first {})", count(o.pending_total as u64), o.pending.len()),
    };
    w.table(&title, &table, reasons.len(), MAX_ROWS.min(reasons.len()));
}

fn utilisation(w: &mut Writer, o: &Outcome) {
    if o.utilisation.is_empty() {
        return;
    }
    let mut table = Table::new(&["RESOURCE", "REQUESTED"]);
    for (resource, share) in &o.utilisation {
        table.row(vec![resource.clone(), format!("{:.1}%", share * 100.0)]);
    }
    w.table("UTILISATION (share of allocatable)", &table, 0, 0);
}

fn history(w: &mut Writer, o: &Outcome) {
    let all = happenings(o);
    if all.is_empty() {
        return;
    }
    let mut table = Table::new(&["AT", "BY", "WHAT"]);
    // A long history of drawn faults is truncated: the beginning shows what it is like, and the counts cover the rest.
    for (at, what, fault) in all.iter().take(MAX_ROWS) {
        let by = if *fault { "fault" } else { "user" };
        table.row(vec![seconds(*at), by.to_owned(), (*what).to_owned()]);
    }
    let title = format!("WHAT HAPPENED ({} by users, {} faults)", o.actions.len(), o.faults.len());
    w.table(&title, &table, all.len(), MAX_ROWS.min(all.len()));
}

fn events(w: &mut Writer, o: &Outcome) {
    if o.event_reasons.is_empty() {
        return;
    }
    let mut rows: Vec<_> = o.event_reasons.iter().collect();
    rows.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let mut table = Table::new(&["REASON", "COUNT"]);
    for (reason, n) in rows.iter().take(MAX_ROWS) {
        table.row(vec![(*reason).clone(), count(**n)]);
    }
    w.table("EVENTS", &table, rows.len(), MAX_ROWS.min(rows.len()));
}

fn expectations(w: &mut Writer, o: &Outcome) {
    if o.expectations.is_empty() {
        return;
    }
    w.heading("EXPECTATIONS");
    for e in &o.expectations {
        let mark = if e.met { w.good("met  ") } else { w.bad("UNMET") };
        let seen = if e.seen.is_empty() { String::new() } else { format!(" (seen: {})", e.seen) };
        w.line(&format!("  {mark}  {}{seen}", e.what));
    }
}

fn invariants(w: &mut Writer, o: &Outcome) {
    if o.invariants.is_empty() {
        return;
    }
    w.heading("INVARIANTS");
    for i in &o.invariants {
        let mark = if i.broken { w.bad("BROKEN") } else { w.good("held  ") };
        w.line(&format!("  {mark}  {}", i.name));
        for d in i.details.iter().take(MAX_ROWS) {
            w.line(&format!("          at {}: {}", seconds(d.at), d.what));
        }
    }
}

fn not_converged(w: &mut Writer, o: &Outcome) {
    if o.converged {
        return;
    }
    w.heading("NOT CONVERGED");
    for n in o.not_converged.iter().take(MAX_ROWS) {
        w.line(&format!("  {}: {}", n.what, n.why));
    }
    let told = o.not_converged.len().min(MAX_ROWS);
    if o.not_converged_total > told {
        w.line(&format!("  and {} more", count((o.not_converged_total - told) as u64)));
    }
}

fn result(w: &mut Writer, o: &Outcome) {
    let (line, well) = verdict(o);
    let line = if well { w.good(&line) } else { w.bad(&line) };
    w.heading("RESULT");
    w.line(&format!("  {line}"));
}
