//! The benchmarks behind the project's published figures, each measured by one command: `skeg-bench NAME`.
//!
//! Each line of output is a JSON object `{"name", "value", "unit"}`. `cargo xtask bench` builds it in release mode and
//! runs each bench in a separate process, because peak memory is measured per process.

// A bench is a driver: it reads the clock.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod api;
mod informer;
mod objects;
mod openb;
mod production;
mod restore;
mod schedule;
mod sim;

use std::process::ExitCode;

use serde_json::json;

#[global_allocator]
static ALLOCATOR: skeg_allocator::Allocator = skeg_allocator::Allocator;

/// One figure.
struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
}

fn main() -> ExitCode {
    skeg_allocator::keep_what_is_freed();
    let name = std::env::args().nth(1).unwrap_or_default();
    let figures = match name.as_str() {
        "informer" => Ok(vec![informer::event_cost_ratio()]),
        "schedule" => Ok(schedule::all()),
        "openb" => openb::all(),
        "thousand" => sim::thousand_pods(),
        "day" => sim::day_of_5000_nodes(),
        "large" => sim::large(),
        "growth" => sim::cost_growth(),
        "restore" => restore::restore_150k(),
        group @ ("server" | "agent") => production::measure(group),
        group @ ("api-boot" | "api-create" | "api-watch" | "api-leases") => api::measure(group),
        half @ ("restore-made" | "restore-loaded") => {
            println!("{}", restore::measure(half == "restore-loaded"));
            return ExitCode::SUCCESS;
        }
        _ => Err(format!(
            "there is no bench {name:?}; there are informer, schedule, openb, thousand, day, large, growth, restore, \
             api-boot, api-create, api-watch, api-leases, server and agent"
        )),
    };
    match figures {
        Ok(figures) => {
            for f in figures {
                println!("{}", json!({"name": f.name, "value": f.value, "unit": f.unit}));
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
