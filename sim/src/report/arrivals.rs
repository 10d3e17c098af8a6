//! Reports of a [`Study`]: what of a trace's GPUs is not allocated, by policy.

use std::fmt::Write as _;

use super::count;
use super::html::STYLE;
use super::plot::{Axis, Curve, Plot, escape};
use super::table::Table;
use crate::arrivals::Study;

/// Colours beside those of every page.
const COLOURS: &str = "
:root{--l4:#b0306a}@media(prefers-color-scheme:dark){:root{--l4:#ff7eb0}}.l4{stroke:var(--l4);background:var(--l4)}
";
/// From how many percent on the second plot shows the curves.
const CLOSE: usize = 75;

fn head(s: &Study) -> String {
    let seeds = s.runs.len() / s.policies.len().max(1);
    format!(
        "{} nodes with {} GPUs; the arrival of a trace of {} pods until {}% of the GPUs are asked for; {seeds} {}",
        count(s.nodes as u64),
        count(s.gpus.max(0) as u64),
        count(s.pods as u64),
        s.percent,
        if seeds == 1 { "seed" } else { "seeds" }
    )
}

fn headings(s: &Study) -> Vec<String> {
    let end = format!("{}%", s.percent);
    let mut all = vec!["POLICY".to_owned(), "100%".to_owned(), end.clone(), "LEAST".to_owned(), "MOST".to_owned()];
    if s.percent <= 100 {
        all[1] = end;
        all.remove(2);
    }
    all
}

fn rows(s: &Study) -> Vec<Vec<String>> {
    let row = |p: &crate::arrivals::Summary| {
        let numbers = [p.at_100, p.at_end, p.least, p.most];
        let numbers = numbers.iter().skip(usize::from(s.percent <= 100)).map(|n| format!("{n:.2}"));
        std::iter::once(p.policy.to_owned()).chain(numbers).collect()
    };
    s.policies.iter().map(row).collect()
}

/// Each seed, by policy, at the end.
fn seeds(s: &Study) -> (Vec<String>, Vec<Vec<String>>) {
    let names = s.policies.iter().map(|p| p.policy.to_owned());
    let headings = std::iter::once("SEED".to_owned()).chain(names).collect();
    let first = s.policies.first().map_or("", |p| p.policy);
    let row = |seed: u64| {
        let of = |policy: &str| s.runs.iter().find(|run| run.policy == policy && run.seed == seed);
        let ends =
            s.policies.iter().filter_map(|p| of(p.policy)).map(|run| format!("{:.2}", run.at(s.percent as usize)));
        std::iter::once(seed.to_string()).chain(ends).collect()
    };
    (headings, s.runs.iter().filter(|run| run.policy == first).map(|run| row(run.seed)).collect())
}

/// For a terminal.
pub fn arrivals_text(s: &Study) -> String {
    let table = |headings: &[String], rows: Vec<Vec<String>>| {
        let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
        let mut table = Table::new(&headings);
        rows.into_iter().for_each(|row| table.row(row));
        table.render()
    };
    let (of_seeds, each) = seeds(s);
    format!(
        "{}\n\nGPU share that is not allocated, in percent, by what had arrived; mean, and extremes at the end\n{}\n\
         By seed, at the end\n{}",
        head(s),
        table(&headings(s), rows(s)),
        table(&of_seeds, each)
    )
}

fn curves(s: &Study, from: usize) -> String {
    let curve = |(i, p): (usize, &crate::arrivals::Summary)| Curve {
        name: p.policy.to_owned(),
        class: format!("l{}", i % 5),
        values: p.unallocated.iter().skip(from).map(|percent| percent / 100.0).collect(),
    };
    let plot = Plot {
        title: format!("GPU share that is not allocated, from {from}% of the GPUs arrived"),
        axis: Axis::Percent,
        times: (from..=s.percent as usize).map(|percent| percent as f64).collect(),
        curves: s.policies.iter().enumerate().map(curve).collect(),
        stacked: false,
        percent: true,
        marks: Vec::new(),
    };
    plot.render()
}

fn html_table(out: &mut String, headings: &[String], rows: &[Vec<String>]) {
    let cell = |tag: &str, (i, text): (usize, &String)| {
        let class = if i > 0 { " class=\"n\"" } else { "" };
        format!("<{tag}{class}>{}</{tag}>", escape(text))
    };
    let line = |tag: &str, cells: &[String]| -> String { cells.iter().enumerate().map(|of| cell(tag, of)).collect() };
    let _ = write!(out, "<div class=\"wrap\"><table><tr>{}</tr>", line("th", headings));
    rows.iter().for_each(|row| {
        let _ = write!(out, "<tr>{}</tr>", line("td", row));
    });
    *out += "</table></div>\n";
}

/// A self-contained page with the curves.
pub fn arrivals_page(s: &Study) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>GPU sharing</title><style>{STYLE}{COLOURS}</style></head>\
         <body>\n<h1>GPU sharing</h1><p class=\"dim\">{}</p>\n",
        escape(&head(s))
    );
    if s.percent as usize > CLOSE {
        out += &curves(s, CLOSE);
    }
    out += &curves(s, 0);
    out += "<h2>Not allocated, in percent: mean, and extremes at the end</h2>\n";
    html_table(&mut out, &headings(s), &rows(s));
    let (of_seeds, each) = seeds(s);
    out += "<h2>By seed, at the end</h2>\n";
    html_table(&mut out, &of_seeds, &each);
    out += "</body></html>\n";
    out
}
