//! Reports of an [`Outcome`](crate::outcome::Outcome): text for the terminal, and a page with plots.
//!
//! Pure functions of the outcome: the same outcome gives the same bytes.

mod arrivals;
mod html;
mod plot;
mod sequence;
mod table;
mod text;

#[cfg(test)]
mod tests;

pub use arrivals::{arrivals_page, arrivals_text};
pub use html::page;
pub use plot::escape;
pub use table::Table;
pub use text::text;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::files::duration;
use crate::outcome::{Outcome, PendingPod};

/// Virtual seconds in human-readable form.
fn seconds(s: f64) -> String {
    duration::format(Duration::from_secs_f64(s.max(0.0)))
}

/// A number with thousands separators: `1,234,567`.
fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A number of bytes in a suitable unit.
fn bytes(n: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if n >> shift > 0 {
            return format!("{:.1} {unit}", n as f64 / (1u64 << shift) as f64);
        }
    }
    format!("{n} B")
}

/// The verdict in one line, and whether it is positive.
fn verdict(o: &Outcome) -> (String, bool) {
    let broken = o.invariants.iter().filter(|i| i.broken).count();
    let unmet = o.expectations.iter().filter(|e| !e.met).count();
    let converged = match (o.converged, o.not_converged_total) {
        (true, _) => "converged".to_owned(),
        (false, 0) => "not converged".to_owned(),
        (false, n) => format!("not converged ({n} {})", plural(n, "reason", "reasons")),
    };
    let invariants = match broken {
        0 => "no invariant broken".to_owned(),
        n => format!("{n} {} broken", plural(n, "invariant", "invariants")),
    };
    let mut line = format!("{converged}; {invariants}");
    if !o.expectations.is_empty() {
        let all = o.expectations.len();
        line += &format!("; {} of {all} {} met", all - unmet, plural(all, "expectation", "expectations"));
    }
    (line, o.converged && broken == 0 && unmet == 0)
}

fn plural<'a>(n: usize, one: &'a str, many: &'a str) -> &'a str {
    if n == 1 { one } else { many }
}

/// Pending pods by reason, most frequent first: reason, number, an example.
fn pending_by_reason(pods: &[PendingPod]) -> Vec<(&str, usize, &str)> {
    let mut by: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for p in pods {
        by.entry(&p.why).or_insert((0, &p.pod)).0 += 1;
    }
    let mut rows: Vec<_> = by.into_iter().map(|(why, (n, pod))| (why, n, pod)).collect();
    rows.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    rows
}

/// Actions and faults together in order of time; the flag is true for a fault.
fn happenings(o: &Outcome) -> Vec<(f64, &str, bool)> {
    let actions = o.actions.iter().map(|h| (h.at, h.what.as_str(), false));
    let faults = o.faults.iter().map(|h| (h.at, h.what.as_str(), true));
    let in_vain = o.in_vain.iter().map(|h| (h.at, h.what.as_str(), true));
    let mut all: Vec<_> = actions.chain(faults).chain(in_vain).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all
}

/// A text of at most so many characters, and how many bytes are left out.
pub fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… and {} bytes more", &text[..end], text.len() - end),
    }
}
