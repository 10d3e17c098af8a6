//! The story of a failure as a sequence diagram: a lifeline for the store and for each writer, an arrow for each
//! commit, and a dashed one for what a writer heard of too late.

use std::fmt::Write as _;

use super::plot::escape;
use crate::causes::{Cause, Missed};

/// Height of a row in SVG units.
const ROW: f64 = 24.0;
/// Where the lifeline of the store is, and the distance between lifelines.
const STORE: f64 = 96.0;
const APART: f64 = 72.0;
/// Characters of what was done that have room.
const WIDE: usize = 96;

/// Renders the diagram; nothing for an empty story.
pub fn diagram(story: &[Cause]) -> String {
    if story.is_empty() {
        return String::new();
    }
    let mut writers: Vec<&str> = Vec::new();
    for cause in story.iter().filter(|cause| cause.revision.is_some()) {
        if !writers.contains(&cause.by.as_str()) {
            writers.push(&cause.by);
        }
    }
    let x = |by: &str| {
        let place = writers.iter().position(|writer| *writer == by).expect("each writer has a lifeline");
        STORE + APART * (place + 1) as f64
    };
    // The names of lifelines go up aslant.
    let longest = writers.iter().map(|writer| writer.chars().count()).max().unwrap_or(0).max(9);
    let top = 32.0 + 3.3 * longest as f64;
    let y = |row: usize| top + ROW * (row as f64 + 0.5);
    let right = STORE + APART * writers.len() as f64;
    let (width, bottom) = (right + 24.0 + 7.4 * WIDE as f64, top + ROW * story.len() as f64);
    let mut out = format!(
        "<figure><figcaption>How it came about</figcaption><div class=\"wrap\"><svg class=\"sequence\" viewBox=\"0 0 \
         {width:.0} {:.0}\" style=\"min-width:{width:.0}px\" role=\"img\">",
        bottom + 8.0
    );
    for (name, at) in [("the store", STORE)].into_iter().chain(writers.iter().map(|writer| (*writer, x(writer)))) {
        let _ = write!(
            out,
            "<line class=\"life\" x1=\"{at}\" y1=\"{top}\" x2=\"{at}\" y2=\"{bottom}\"/><text transform=\"translate({at} \
             {}) rotate(-28)\">{}</text>",
            top - 8.0,
            escape(name)
        );
    }
    for (row, cause) in story.iter().enumerate() {
        let at = y(row);
        let _ = write!(out, "<text class=\"n\" x=\"76\" y=\"{:.1}\">{:.3} s</text>", at + 4.0, cause.at);
        let class = match cause.by.as_str() {
            "fault" | "invariant" => cause.by.as_str(),
            _ => "",
        };
        if cause.revision.is_some() {
            arrow(&mut out, "commit", (x(&cause.by), at), (STORE, at));
        }
        let short: String = cause.what.chars().take(WIDE).collect();
        let _ = write!(
            out,
            "<g><title>{}</title><text class=\"what {class}\" x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
            escape(&[vec![cause.what.clone()], cause.remarks.clone()].concat().join("; ")),
            right + 16.0,
            at + 4.0,
            escape(&short)
        );
        for Missed { revision, heard } in &cause.missed {
            let Some(from) = story.iter().position(|other| other.revision == Some(*revision)) else { continue };
            // Between the last row before it was heard and the next one.
            let to = story.iter().filter(|other| other.at <= *heard).count();
            arrow(&mut out, "late", (STORE, y(from)), (x(&cause.by), top + ROW * to as f64));
        }
    }
    out + "</svg></div><figcaption class=\"dim\">dashed: a commit on its way to a writer that had decided without \
           it</figcaption></figure>\n"
}

/// A line with a head at its end.
fn arrow(out: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let length = ((x2 - x1).powi(2) + (y2 - y1).powi(2)).sqrt().max(1.0);
    let (dx, dy) = ((x2 - x1) / length * 7.0, (y2 - y1) / length * 7.0);
    let head = [(x2, y2), (x2 - dx - dy / 2.0, y2 - dy + dx / 2.0), (x2 - dx + dy / 2.0, y2 - dy - dx / 2.0)];
    let head: Vec<String> = head.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = write!(
        out,
        "<g class=\"{class}\"><line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/><polygon \
         points=\"{}\"/></g>",
        head.join(" ")
    );
}

#[cfg(test)]
mod tests {
    use super::diagram;
    use crate::causes::{Cause, Missed};

    #[test]
    fn commits_go_to_the_store_and_what_was_late_to_its_writer() {
        let cause = |at: f64, by: &str, revision, missed| Cause {
            at,
            by: by.to_owned(),
            what: format!("r{revision:?} <put>"),
            revision,
            missed,
            remarks: Vec::new(),
        };
        let story = [
            cause(1.0, "kubernetes-admin (user)", Some(11), vec![]),
            cause(2.0, "fault", None, vec![]),
            cause(
                3.0,
                "replicaset-controller (controller-manager 0)",
                Some(12),
                vec![Missed { revision: 11, heard: 9.0 }],
            ),
            cause(10.0, "invariant", None, vec![]),
        ];
        let svg = diagram(&story);
        assert_eq!((svg.matches("class=\"life\"").count(), svg.matches("class=\"commit\"").count()), (3, 2));
        assert_eq!(svg.matches("class=\"late\"").count(), 1);
        assert!(svg.contains("what fault") && svg.contains("what invariant") && !svg.contains("<put>"));
        for tag in ["svg", "g", "title", "text", "figure", "div"] {
            let opened = svg.matches(&format!("<{tag}>")).count() + svg.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, svg.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        assert!(diagram(&[]).is_empty());
    }
}
