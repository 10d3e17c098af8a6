//! Reads the two tables of the openb trace: nodes (`sn,cpu_milli,memory_mib,gpu,model`) and pods
//! (`name,cpu_milli,memory_mib,num_gpu,gpu_milli[,gpu_spec,…]`). Other columns are passed over.
//!
//! Source of the columns: the description of the trace "Alibaba Cluster Trace Program, cluster-trace-gpu-v2023".

use std::collections::{BTreeMap, BTreeSet};

use skeg_core::limits::GPU_DEVICES;
use skeg_core::scheduler::gpu::WHOLE;

use super::Source;
use crate::arrivals::{Trace, TraceNode, TracePod};

/// The greatest amount of CPU (thousandths) or memory (MiB) of a row.
const MOST: i64 = 1_000_000_000;
/// Most problems that are told.
const MAX_PROBLEMS: usize = 20;

/// Reads a trace from these two files. The error has a line for each problem.
pub fn read(nodes: &str, pods: &str, source: &dyn Source) -> Result<Trace, String> {
    let mut problems = Vec::new();
    let trace = Trace {
        nodes: rows(nodes, source, &["sn", "cpu_milli", "memory_mib", "gpu"], node, &mut problems),
        pods: rows(pods, source, &["name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"], pod, &mut problems),
    };
    if problems.is_empty() && trace.gpus() == 0 {
        problems.push(format!("error: {nodes}: no node has a GPU"));
    }
    let mut names = BTreeSet::new();
    let twice = trace.nodes.iter().filter(|n| !names.insert(&n.name));
    problems.extend(twice.map(|n| format!("error: {nodes}: there are two nodes {:?}", n.name)));
    if problems.is_empty() {
        return Ok(trace);
    }
    let more = problems.len().saturating_sub(MAX_PROBLEMS);
    problems.truncate(MAX_PROBLEMS);
    if more > 0 {
        problems.push(format!("error: and {more} more like these"));
    }
    Err(problems.join("\n"))
}

/// The cells of a row, by the heading of their column.
struct Row<'a>(BTreeMap<&'a str, &'a str>);

impl Row<'_> {
    fn text(&self, column: &str) -> &str {
        self.0.get(column).copied().unwrap_or_default()
    }

    /// A whole number; some tables have it as `1.0`.
    fn number(&self, column: &str, most: i64) -> Result<i64, String> {
        let text = self.text(column);
        let digits = text.strip_suffix(".0").unwrap_or(text);
        let number = digits.parse().ok().filter(|n| (0..=most).contains(n));
        number.ok_or_else(|| format!("{column}: must be a whole number from 0 to {most}, not {text:?}"))
    }
}

fn node(row: &Row<'_>) -> Result<TraceNode, String> {
    let name = row.text("sn");
    if name.is_empty() {
        return Err("sn: must name the node".to_owned());
    }
    Ok(TraceNode {
        name: name.to_owned(),
        cpu: row.number("cpu_milli", MOST)?,
        memory: row.number("memory_mib", MOST)?,
        gpus: row.number("gpu", GPU_DEVICES as i64)?,
        model: row.text("model").to_owned(),
    })
}

fn pod(row: &Row<'_>) -> Result<TracePod, String> {
    let (gpus, milli) = (row.number("num_gpu", GPU_DEVICES as i64)?, row.number("gpu_milli", WHOLE)?);
    if gpus > 1 && milli != WHOLE {
        return Err(format!("gpu_milli: must be {WHOLE} of each of several GPUs, not {milli}"));
    }
    Ok(TracePod {
        cpu: row.number("cpu_milli", MOST)?,
        memory: row.number("memory_mib", MOST)?,
        gpu: gpus * milli,
        models: row.text("gpu_spec").split('|').filter(|model| !model.is_empty()).map(str::to_owned).collect(),
    })
}

fn rows<T>(
    file: &str,
    source: &dyn Source,
    needed: &[&str],
    of: fn(&Row<'_>) -> Result<T, String>,
    problems: &mut Vec<String>,
) -> Vec<T> {
    let mut problem = |line: usize, why: String| problems.push(format!("error: {file}, line {line}: {why}"));
    let text = match source.read(file).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(_)) => {
            problem(1, "must be text in UTF-8".to_owned());
            return Vec::new();
        }
        Err(why) => {
            problems.push(format!("error: {file}: {why}"));
            return Vec::new();
        }
    };
    let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim_end())).filter(|(_, l)| !l.is_empty());
    let headings: Vec<&str> = lines.next().map(|(_, line)| line.split(',').collect()).unwrap_or_default();
    if let Some(missing) = needed.iter().find(|column| !headings.contains(column)) {
        problem(1, format!("there is no column {missing}; needed are {}", needed.join(", ")));
        return Vec::new();
    }
    let mut all = Vec::new();
    for (number, line) in lines {
        let cells: Vec<&str> = line.split(',').collect();
        if cells.len() != headings.len() {
            problem(number, format!("has {} cells, and there are {} columns", cells.len(), headings.len()));
            continue;
        }
        match of(&Row(headings.iter().copied().zip(cells).collect())) {
            Ok(row) => all.push(row),
            Err(why) => problem(number, why),
        }
    }
    all
}
