//! Who acted as leader, by the recordings of all servers, and whether it led then.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// A write of a leader that was carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Act {
    /// The key of the Lease that it was made under.
    pub lease: String,
    /// Who made it.
    pub holder: String,
}

/// Acts by the revisions that they were committed at. One revision may be that of one write alone.
pub type Acts = BTreeMap<u64, Act>;

/// Who holds a Lease from a revision on: by its key and the revision.
pub type Terms = BTreeMap<(String, u64), String>;

/// Reads what all processes that were recorded in a directory did as leaders.
pub fn acts(dir: &Path) -> Acts {
    let mut acts = Acts::new();
    for process in std::fs::read_dir(dir).expect("it is there") {
        let process = process.expect("it can be read").path();
        let files = std::fs::read_dir(&process).expect("it is there");
        let mut files: Vec<_> = files.map(|file| file.expect("it can be read").path()).collect();
        files.sort();
        let text: String = files.iter().map(|file| std::fs::read_to_string(file).expect("it is text")).collect();
        of_process(&text, &mut acts);
    }
    acts
}

fn of_process(text: &str, acts: &mut Acts) {
    // The machines that lead, by their numbers, and their requests under a fence.
    let mut leaders: BTreeMap<u64, String> = BTreeMap::new();
    let mut asked: BTreeMap<(u64, u64), (String, u64)> = BTreeMap::new();
    for line in text.lines() {
        // Of a process that was killed, the last line may be cut.
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let machine = &line["machine"];
        let of = &machine["of"];
        let named = [&of["Controllers"]["config"], &of["Scheduler"]].into_iter().find_map(|c| c["identity"].as_str());
        if let (Some(number), Some(identity)) = (machine["number"].as_u64(), named) {
            leaders.insert(number, identity.to_owned());
        }
        let step = &line["step"];
        let Some((number, holder)) = step["machine"].as_u64().and_then(|n| Some((n, leaders.get(&n)?))) else {
            continue;
        };
        if let [id, result] = step["input"]["handle"]["Reply"].as_array().map_or(&[][..], Vec::as_slice)
            && let Some((lease, base)) = id.as_u64().and_then(|id| asked.remove(&(number, id)))
            && let Some(rv) = written(&result["Ok"]).filter(|rv| *rv > base)
        {
            let act = Act { lease, holder: holder.clone() };
            if let Some(other) = acts.insert(rv, act.clone()) {
                assert_eq!(other, act, "two acts at revision {rv}");
            }
        }
        for said in step["out"].as_array().into_iter().flatten() {
            let [id, request] = said["whole"]["Request"].as_array().map_or(&[][..], Vec::as_slice) else { continue };
            // A patch may change nothing, and is then answered with the revision of another's write. An update that
            // changes nothing is answered with its own.
            let is_patch = !request["call"]["Patch"].is_null();
            if let (Some(id), Some(lease)) = (id.as_u64().filter(|_| !is_patch), request["fence"]["lease"].as_str()) {
                let base = revision(&request["call"]["Update"]["object"]).unwrap_or(0);
                asked.insert((number, id), (lease.to_owned(), base));
            }
        }
    }
}

/// The revision of what was written; `None` if nothing was.
fn written(reply: &Value) -> Option<u64> {
    revision(&reply["Object"]).or_else(|| reply["Done"]["rv"].as_u64()).filter(|rv| *rv > 0)
}

fn revision(object: &Value) -> Option<u64> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

/// Checks that each act was made by who held its Lease then, from when on that is known. Returns how many were, and by
/// how many holders.
pub fn check(acts: &Acts, terms: &Terms) -> Result<(usize, usize), String> {
    let mut holders: Vec<&str> = Vec::new();
    for (rv, act) in acts {
        let name = act.lease.clone();
        let Some((_, held)) = terms.range((name.clone(), 0)..=(name, *rv)).next_back() else { continue };
        if *held != act.holder {
            return Err(format!("at revision {rv} {} acted, and {held:?} held {}", act.holder, act.lease));
        }
        holders.push(&act.holder);
    }
    let count = holders.len();
    holders.sort_unstable();
    holders.dedup();
    Ok((count, holders.len()))
}

#[cfg(test)]
mod tests {
    use super::{Act, Acts, Terms, check, of_process};

    #[test]
    fn who_does_not_hold_the_lease_must_not_act() {
        let act = |holder: &str| Act { lease: "l".to_owned(), holder: holder.to_owned() };
        let terms = [(5, "a"), (9, ""), (12, "b"), (30, "a")];
        let terms: Terms = terms.into_iter().map(|(rv, holder)| (("l".to_owned(), rv), holder.to_owned())).collect();
        let acts = |acts: &[(u64, &str)]| acts.iter().map(|(rv, holder)| (*rv, act(holder))).collect::<Acts>();
        assert_eq!(check(&acts(&[(6, "a"), (8, "a"), (13, "b"), (31, "a")]), &terms), Ok((4, 2)));
        assert_eq!(check(&acts(&[(4, "b")]), &terms), Ok((0, 0)), "it is not known who held it");
        for late in [(10, "a"), (13, "a"), (31, "b"), (7, "b")] {
            let why = check(&acts(&[late]), &terms).expect_err("it does not hold it");
            assert!(why.contains("acted"), "{why}");
        }
    }

    #[test]
    fn acts_are_read_from_recordings() {
        let request = |id: u64, fence: &str, call: &str| {
            let request = format!(r#"{{"whole":{{"Request":[{id},{{"fence":{fence},"call":{call}}}]}}}}"#);
            format!(r#"{{"step":{{"machine":3,"input":"timeout","out":[{request}]}}}}"#)
        };
        let reply = |id: u64, rv: u64| {
            let object = format!(r#"{{"Ok":{{"Object":{{"metadata":{{"resourceVersion":"{rv}"}}}}}}}}"#);
            format!(r#"{{"step":{{"machine":3,"input":{{"handle":{{"Reply":[{id},{object}]}}}},"out":[]}}}}"#)
        };
        let (fence, update) =
            (r#"{"lease":"l","epoch":1}"#, r#"{"Update":{"object":{"metadata":{"resourceVersion":"6"}}}}"#);
        let machine = r#"{"machine":{"number":3,"name":"m","stream":[1,"m",0],"of":{"Scheduler":{"identity":"a"}}}}"#;
        let lines = [
            machine.to_owned(),
            request(7, fence, r#"{"Create":{}}"#),
            request(8, "null", r#"{"Create":{}}"#),
            reply(8, 4),
            reply(7, 5),
            request(9, fence, update),
            request(10, fence, update),
            request(11, fence, r#"{"Patch":{}}"#),
            // It changed nothing; the next one did; and of a patch nobody knows.
            reply(9, 6),
            reply(10, 8),
            reply(11, 9),
            r#"{"step":{"machine":3,"input":{"handle":{"Reply":[7,"#.to_owned(),
        ];
        let mut acts = Acts::new();
        of_process(&lines.join("\n"), &mut acts);
        let act = Act { lease: "l".to_owned(), holder: "a".to_owned() };
        assert_eq!(acts, Acts::from([(5, act.clone()), (8, act)]));
    }
}
