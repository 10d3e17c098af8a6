//! Each policy's scores and devices, as tables.

use super::fragmentation::LOGIT;
use super::{Ask, Devices, GpuShare, Gpus, Policy, Room, Sharing, Target};

/// Pods of the workload: CPU, GPU, model (or none), how many.
type Kind = (i64, i64, &'static str, i64);

/// The score of a node with so much free, for a pod that asks for CPU and GPU, and the devices that it gets if the draw
/// is `drawn`; the nodes are T4.
fn check(policy: Policy, kinds: &[Kind], free: (i64, &[i64]), asks: (i64, i64), drawn: u32, expect: (i64, &str)) {
    let target = |(cpu, gpu, model, pods): &Kind| Target {
        cpu: *cpu,
        gpu: Ask::of(*gpu),
        models: if model.is_empty() { vec![] } else { vec![(*model).to_owned()] },
        pods: *pods,
    };
    let workload = kinds.iter().map(target).collect();
    let sharing = Sharing::new(&GpuShare { policy, largest: (4000, 2000), workload });
    let (room, ask) = (Room { cpu: free.0, gpus: free.1, model: Some("T4") }, Ask::of(asks.1));
    let devices = sharing.devices(ask, asks.0, room, |_| drawn).to_string();
    assert_eq!((sharing.score(ask, asks.0, room), devices.as_str()), expect, "{policy:?} {kinds:?} {free:?} {asks:?}");
}

#[test]
fn random() {
    let check =
        |free: &[i64], gpu, drawn, devices| check(Policy::Random, &[], (9, free), (1, gpu), drawn, (0, devices));
    check(&[200, 500, 100, 1000], 200, 0, "0");
    check(&[200, 500, 100, 1000], 200, 2, "3");
    check(&[1000, 500, 1000, 1000], 2000, 0, "0-2");
    check(&[1000], 0, 0, "");
}

#[test]
fn best_fit() {
    let check = |cpu, free: &[i64], asks, expect| check(Policy::BestFit, &[], (cpu, free), asks, 0, expect);
    // (2000 / 4000 + 1100 / 2000) / 2 is left.
    check(3000, &[1000, 500], (1000, 400), (47, "1"));
    check(1000, &[1000, 500, 500], (1000, 400), (60, "1"));
    check(4000, &[1000, 1000], (0, 0), (0, ""));
    check(4000, &[1000, 1000], (4000, 2000), (100, "0-1"));
    // More than the largest node has.
    check(9000, &[1000; 8], (0, 1000), (0, "0"));
    // The CPU is not what keeps it away.
    check(-1, &[1000], (1000, 1000), (100, "0"));
}

#[test]
fn dot_product() {
    let check = |cpu, free: &[i64], asks, expect| check(Policy::DotProd, &[], (cpu, free), asks, 0, expect);
    // (1/4 · 3/4 + 1/5 · 3/4) / 2
    check(3000, &[1000, 500], (1000, 400), (83, "1"));
    check(4000, &[1000, 1000], (4000, 2000), (0, "0-1"));
    check(1000, &[1000, 500], (1000, 400), (89, "1"));
    check(i64::MAX, &[1000], (i64::MAX, 1000), (0, "0"));
}

#[test]
fn packing() {
    let check = |free: &[i64], gpu, expect| check(Policy::Packing, &[], (9, free), (1, gpu), 0, expect);
    check(&[1000, 1000], 200, (31, "0"));
    check(&[1000; 40], 200, (0, "0"));
    check(&[1000, 300, 1000, 200], 200, (98, "3"));
    check(&[1000, 300, 1000, 199], 200, (97, "1"));
    check(&[1000, 300, 1000, 200], 400, (49, "0"));
    check(&[1000, 300, 1000, 200], 2000, (48, "0-2"));
    check(&[0, 1000], 1000, (49, "1"));
    check(&[0, 1000], 0, (0, ""));
}

#[test]
fn fragmentation_gradient_descent() {
    let check = |kinds: &[Kind], cpu, free: &[i64], asks, expect| {
        check(Policy::Fgd, kinds, (cpu, free), asks, 0, expect);
    };
    let both = [(0, 500, "", 1), (0, 1000, "", 1)];
    // What is left of the first device is lost for half of the pods: 100 / (1 + exp(1/4)).
    check(&both, 9, &[1000, 1000], (0, 500), (43, "0"));
    // It is not any more, and elsewhere it would be twice as bad.
    check(&both, 9, &[1000, 500], (0, 500), (56, "1"));
    // What is left is too little for either.
    check(&both, 9, &[500, 500], (0, 1), (43, "0"));
    check(&both, 9, &[400, 500], (0, 400), (59, "0"));
    check(&both, 9, &[1000, 500, 1000], (0, 2000), (50, "0-2"));
    // Without its CPU nobody can use the node.
    let with_cpu = [(1000, 500, "", 3), (1000, 2000, "", 1)];
    check(&with_cpu, 1500, &[1000, 1000], (500, 0), (50, ""));
    check(&with_cpu, 1500, &[1000, 1000], (501, 0), (11, ""));
    // What two devices could do is lost with one of them: 1000 for a quarter of the pods.
    check(&with_cpu, 1500, &[1000, 1000], (0, 1000), (43, "0"));
    // Those that want another model, or no GPU, lose nothing more.
    check(&[(0, 500, "A10", 1)], 9, &[1000], (0, 500), (62, "0"));
    check(&[(0, 500, "T4", 1)], 9, &[1000], (0, 500), (50, "0"));
    check(&[(0, 0, "", 1)], 9, &[1000], (0, 500), (62, "0"));
    check(&both, 9, &[], (5, 0), (50, ""));
    check(&[], 9, &[1000], (0, 500), (0, "0"));
    // Nothing fits.
    check(&both, 9, &[400], (0, 500), (0, ""));
}

/// The score is that of the logistic function, without floating point.
#[test]
fn steps_are_those_of_the_logistic_function() {
    for (k, step) in (51..).zip(LOGIT) {
        let exact = (f64::from(k) / f64::from(100 - k)).ln() * 1e9;
        assert!((exact - step as f64).abs() <= 0.5, "{k}: {exact} and {step}");
    }
}

#[test]
fn what_pods_ask_for() {
    for (milli, expect) in [
        (-5, Ask::Nothing),
        (0, Ask::Nothing),
        (1, Ask::Share(1)),
        (999, Ask::Share(999)),
        (1000, Ask::Whole(1)),
        (1001, Ask::Odd),
        (4000, Ask::Whole(4)),
        (i64::MAX, Ask::Odd),
    ] {
        assert_eq!(Ask::of(milli), expect, "{milli}");
    }
}

#[test]
fn devices_are_named_by_their_indices() {
    for (text, expect) in [
        ("0", "0"),
        ("3-1", "1-3"),
        ("2-2", "2"),
        ("63", "63"),
        ("64", ""),
        ("1-64", ""),
        ("", ""),
        ("1-", ""),
        ("-1", ""),
        ("1,2", ""),
    ] {
        assert_eq!(Devices::parse(text).to_string(), expect, "{text}");
    }
}

#[test]
fn what_pods_use_is_counted_by_device() {
    let mut gpus = Gpus::default();
    let devices = Devices::parse;
    gpus.count(devices("1"), 600, 1);
    assert_eq!(gpus.free(), &[] as &[i64], "the node has none yet");
    gpus.resize(2999);
    assert_eq!(gpus.free(), [1000, 400]);
    gpus.count(devices("0-1"), 2000, 1);
    assert_eq!(gpus.free(), [0, 0], "no less than nothing");
    gpus.count(devices("5"), 100, 1);
    gpus.resize(6000);
    assert_eq!(gpus.free(), [0, 0, 1000, 1000, 1000, 900]);
    gpus.count(devices("0-1"), 2000, -1);
    gpus.count(devices("1"), 600, -1);
    gpus.count(Devices::NONE, 600, 1);
    assert_eq!(gpus.free(), [1000, 1000, 1000, 1000, 1000, 900]);
    gpus.resize(1 << 40);
    assert_eq!(gpus.free().len(), 64);
    gpus.resize(0);
    assert_eq!(gpus.free(), &[] as &[i64]);
}
