//! Carries out routes on this host by `ip`, and by `iptables` what keeps Docker's own rules off packets between pods.
//!
//! Docker drops what is forwarded to a port that it did not publish, so what comes for this node's pods is let in
//! (`DOCKER-USER`); and it gives what leaves the bridge the host's address, so what goes to other pods is taken out of
//! that. What somebody else has removed is mended within half a minute. It stays when the agent ends, as its containers
//! do.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::routes::{Range, Table};
use crate::up::proxy::run;

/// How often it is looked whether all is there.
const CHECK: Duration = Duration::from_secs(30);
/// The mark of our routes, which no routing daemon of iproute2's list has.
const PROTOCOL: &str = "115";
/// The chain of what goes to other pods as it is.
const CHAIN: &str = "SKEG-POD-TRAFFIC";

/// Carries out the routes that come, until no more can. `own` is the range of this node's pods, and `bridge` their
/// device.
pub fn carry_out(own: Range, bridge: &str, inbox: &Receiver<Table>) {
    let (mut table, mut said) = (None, String::new());
    loop {
        match inbox.recv_timeout(CHECK) {
            Ok(next) => table = Some(next),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(table) = &table else { continue };
        let failed = [route(table), let_in(own, bridge), keep_sources(own, table)];
        let failed: Vec<String> = failed.into_iter().filter_map(Result::err).collect();
        let why = failed.join("; ");
        if why != said && !why.is_empty() {
            tracing::warn!("pods of other nodes are not reached: {why}");
        }
        said = why;
    }
}

fn text((address, length): Range) -> String {
    format!("{address}/{length}")
}

/// Our routes among those that `ip route show` prints.
fn shown(printed: &str) -> BTreeMap<String, String> {
    let route = |line: &str| {
        let mut words = line.split_whitespace();
        let to = words.next()?.to_owned();
        let by = words.skip_while(|word| *word != "via").nth(1)?;
        Some((to, by.to_owned()))
    };
    printed.lines().filter_map(route).collect()
}

/// What is to be done that these routes are the wanted ones: arguments of `ip route`.
fn steps(there: &BTreeMap<String, String>, table: &Table) -> Vec<Vec<String>> {
    let wanted: BTreeMap<String, Ipv4Addr> = table.iter().map(|(range, by)| (text(*range), *by)).collect();
    let words = |line: String| line.split(' ').map(str::to_owned).collect();
    let gone =
        there.keys().filter(|to| !wanted.contains_key(*to)).map(|to| words(format!("del {to} proto {PROTOCOL}")));
    let new = wanted.iter().filter(|(to, by)| there.get(*to) != Some(&by.to_string()));
    gone.chain(new.map(|(to, by)| words(format!("replace {to} via {by} proto {PROTOCOL}")))).collect()
}

fn route(table: &Table) -> Result<(), String> {
    let there = shown(&run("ip", &["-4", "route", "show", "proto", PROTOCOL], "")?);
    let mut failed = Ok(());
    for step in steps(&there, table) {
        let args: Vec<&str> = ["-4", "route"].into_iter().chain(step.iter().map(String::as_str)).collect();
        // A node that is on another network keeps no other from being reached.
        failed = run("ip", &args, "").map(drop).map_err(|why| format!("{}: {why}", step.join(" "))).and(failed);
    }
    failed
}

/// Puts a rule at the beginning of a chain, unless it is in it.
fn first(table: &str, chain: &str, rule: &[&str]) -> Result<(), String> {
    let args = |how: &'static str| [&["-w", "-t", table, how, chain][..], rule].concat();
    if run("iptables", &args("-C"), "").is_ok() {
        return Ok(());
    }
    run("iptables", &args("-I"), "").map(drop)
}

fn let_in(own: Range, bridge: &str) -> Result<(), String> {
    first("filter", "DOCKER-USER", &["-d", &text(own), "-o", bridge, "-j", "ACCEPT"])
}

/// The chain of what keeps its source, for `iptables-restore`.
fn chain(table: &Table) -> String {
    let rules: String = table.keys().map(|range| format!("-A {CHAIN} -d {} -j ACCEPT\n", text(*range))).collect();
    format!("*nat\n:{CHAIN} - [0:0]\n{rules}COMMIT\n")
}

fn keep_sources(own: Range, table: &Table) -> Result<(), String> {
    run("iptables-restore", &["-w", "--noflush"], &chain(table))?;
    first("nat", "POSTROUTING", &["-s", &text(own), "-j", CHAIN])
}

#[cfg(test)]
mod tests {
    use super::{chain, shown, steps};
    use crate::up::agents::routes::Table;

    #[test]
    fn only_what_differs_is_changed() {
        let there = shown(
            "10.244.1.0/24 via 10.0.0.2 dev eth0 \n10.244.2.0/24 via 10.0.0.9 dev eth0 \n10.244.4.0/24 via 10.0.0.5 dev eth0 \n",
        );
        let table: Table = [([10, 244, 1, 0], 2), ([10, 244, 2, 0], 3), ([10, 244, 3, 0], 4)]
            .into_iter()
            .map(|(range, by)| ((range.into(), 24), [10, 0, 0, by].into()))
            .collect();
        let steps: Vec<String> = steps(&there, &table).iter().map(|step| step.join(" ")).collect();
        let expect = [
            "del 10.244.4.0/24 proto 115",
            "replace 10.244.2.0/24 via 10.0.0.3 proto 115",
            "replace 10.244.3.0/24 via 10.0.0.4 proto 115",
        ];
        assert_eq!(steps, expect);
        let rules = "-A SKEG-POD-TRAFFIC -d 10.244.1.0/24 -j ACCEPT\n-A SKEG-POD-TRAFFIC -d 10.244.2.0/24 -j ACCEPT\n\
                     -A SKEG-POD-TRAFFIC -d 10.244.3.0/24 -j ACCEPT\n";
        assert_eq!(chain(&table), format!("*nat\n:SKEG-POD-TRAFFIC - [0:0]\n{rules}COMMIT\n"));
    }
}
