//! Arrivals of small traces.

use std::collections::BTreeMap;

use skeg_core::Rng;
use skeg_core::scheduler::gpu::{Ask, Policy, Target};

use super::{Study, Trace, TraceNode, TracePod, play};
use crate::files::Source;
use crate::files::openb::read;

/// Files in memory.
struct Texts(BTreeMap<&'static str, String>);

impl Source for Texts {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        self.0.get(path).map(|text| text.clone().into_bytes()).ok_or_else(|| "no such file".to_owned())
    }

    fn directory(&self, _: &str) -> Option<Vec<String>> {
        None
    }
}

fn trace_of(nodes: &str, pods: &str) -> Result<Trace, String> {
    read("n.csv", "p.csv", &Texts([("n.csv", nodes.to_owned()), ("p.csv", pods.to_owned())].into()))
}

const NODES: &str = "sn,cpu_milli,memory_mib,gpu,model
a,8000,16000,2,T4
b,4000,8000,1,A10
c,4000,8000,0,
";

const PODS: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos
p0,1000,1000,1,500,,LS
p1,1000,1000,1,500,,LS
p2,2000,1000,2,1000,T4|V100,BE
p3,500,100,0,0,,BE
p4,1000,1000,1,1000.0,,BE
";

fn small() -> Trace {
    trace_of(NODES, PODS).unwrap()
}

#[test]
fn tables_are_read() {
    let trace = small();
    let node = TraceNode { name: "b".to_owned(), cpu: 4000, memory: 8000, gpus: 1, model: "A10".to_owned() };
    assert_eq!((trace.nodes.len(), &trace.nodes[1], trace.gpus()), (3, &node, 3));
    let models = vec!["T4".to_owned(), "V100".to_owned()];
    assert_eq!(trace.pods[2], TracePod { cpu: 2000, memory: 1000, gpu: 2000, models });
    assert_eq!(trace.pods.iter().map(|p| p.gpu).collect::<Vec<_>>(), [500, 500, 2000, 0, 1000]);
    for (nodes, pods, expect) in [
        ("", PODS, "error: n.csv, line 1: there is no column sn; needed are sn, cpu_milli, memory_mib, gpu"),
        (
            "sn,cpu_milli,memory_mib,gpu\na,x,1,-1\n\nb,1,1,1,1\n,1,1,1",
            PODS,
            "error: n.csv, line 2: cpu_milli: must be a whole number from 0 to 1000000000, not \"x\"\n\
             error: n.csv, line 4: has 5 cells, and there are 4 columns\n\
             error: n.csv, line 5: sn: must name the node",
        ),
        ("sn,cpu_milli,memory_mib,gpu\na,1,1,0", PODS, "error: n.csv: no node has a GPU"),
        ("sn,cpu_milli,memory_mib,gpu\na,1,1,1\na,1,1,1", PODS, "error: n.csv: there are two nodes \"a\""),
        (
            NODES,
            "name,cpu_milli,memory_mib,num_gpu,gpu_milli\np,1,1,2,500\np,1,1,1,1001",
            "error: p.csv, line 2: gpu_milli: must be 1000 of each of several GPUs, not 500\n\
             error: p.csv, line 3: gpu_milli: must be a whole number from 0 to 1000, not \"1001\"",
        ),
    ] {
        assert_eq!(trace_of(nodes, pods).unwrap_err(), expect);
    }
    let many = format!("sn,cpu_milli,memory_mib,gpu\n{}", "a\n".repeat(99));
    let told = trace_of(&many, PODS).unwrap_err();
    assert_eq!((told.lines().count(), told.lines().last()), (21, Some("error: and 79 more like these")));
    assert_eq!(
        read("x.csv", "p.csv", &Texts(BTreeMap::new())).unwrap_err().lines().next(),
        Some("error: x.csv: no such file")
    );
}

#[test]
fn the_workload_is_the_most_usual_kinds() {
    let target = |cpu, gpu, models: &[&str], pods| Target {
        cpu,
        gpu,
        models: models.iter().map(|m| (*m).to_owned()).collect(),
        pods,
    };
    let mut trace = small();
    let rare = target(500, Ask::Nothing, &[], 1);
    let usual = target(1000, Ask::Share(500), &[], 2);
    assert_eq!(trace.workload()[0], usual);
    assert!(trace.workload().contains(&rare));
    // Nineteen of twenty are enough.
    trace.pods = vec![trace.pods[0].clone(); 20];
    trace.pods[7] = small().pods[3].clone();
    assert_eq!(trace.workload(), [target(1000, Ask::Share(500), &[], 19)]);
}

#[test]
fn arrivals_ask_for_what_is_said() {
    let trace = small();
    for percent in [10, 100, 130, 131, 134, 500] {
        let of = |seed| trace.arrivals(percent, &mut Rng::from_seed(seed));
        let asked = |order: &[usize]| order.iter().map(|i| trace.pods[*i].gpu).sum::<i64>();
        for seed in 0..20 {
            let order = of(seed);
            let most = 30 * i64::from(percent);
            assert!(asked(&order) <= most && asked(&order) + 2000 > most, "{percent}% {order:?}");
            assert_eq!(order, of(seed), "the same seed, the same arrivals");
            if percent >= 134 {
                let first: std::collections::BTreeSet<&usize> = order[..trace.pods.len()].iter().collect();
                assert_eq!(first.len(), trace.pods.len(), "all pods of the trace come first");
            }
        }
        assert!((0..20).any(|seed| of(seed) != of(0)), "{percent}%");
    }
}

#[test]
fn every_policy_places_what_fits() {
    let trace = small();
    for policy in Policy::ALL {
        for seed in 0..10 {
            let outcome = play(&trace, policy, 130, seed);
            assert_eq!(outcome, play(&trace, policy, 130, seed), "{policy:?} {seed}");
            assert!((2..=outcome.arrived).contains(&outcome.bound), "{policy:?} {outcome:?}");
            assert_eq!(outcome.unallocated.len(), 131);
            assert!(outcome.unallocated.windows(2).all(|pair| pair[0] >= pair[1] && pair[1] >= 0.0), "{outcome:?}");
        }
    }
}

#[test]
fn fragmentation_is_avoided() {
    let row = |i: usize| format!("n{i},64000,64000,4,T4\n");
    let nodes: String = (0..8).map(row).collect();
    let pods = "p,1000,100,1,600,\nq,1000,100,1,400,\nr,1000,100,2,1000,\ns,1000,100,4,1000,\n".repeat(5);
    let trace = trace_of(
        &format!("sn,cpu_milli,memory_mib,gpu,model\n{nodes}"),
        &format!("name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n{pods}"),
    );
    let trace = trace.unwrap();
    let runs =
        [Policy::Random, Policy::Fgd].iter().flat_map(|policy| (0..8).map(|seed| play(&trace, *policy, 120, seed)));
    let study = Study::new(&trace, 120, runs.collect());
    let [random, fgd] = &study.policies[..] else { panic!("{:?}", study.policies) };
    assert!(fgd.at_end + 5.0 < random.at_end, "{} and {}", fgd.at_end, random.at_end);
    assert!(fgd.least <= fgd.at_end && fgd.at_end <= fgd.most && fgd.at_end <= fgd.at_100);
}
