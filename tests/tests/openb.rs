//! The openb trace under policies for sharing GPUs, against the means that were published. The trace is not part of the
//! repository: if `SKEG_SHARED` does not name it, nothing is run.

// A test that reads what the environment names.
#![allow(clippy::disallowed_methods)]

use std::path::Path;

use skeg_core::scheduler::gpu::Policy;
use skeg_sim::arrivals::{Trace, play};
use skeg_sim::files::openb::read;
use skeg_tests::Disk;

fn trace(pods: &str) -> Option<Trace> {
    let Ok(shared) = std::env::var("SKEG_SHARED") else {
        eprintln!("skipped: SKEG_SHARED does not name the openb trace");
        return None;
    };
    let at = |name: &str| Path::new(&shared).join("data/openb").join(name).display().to_string();
    Some(read(&at("openb_node_list_gpu_node.csv"), &at(pods), &Disk).unwrap())
}

/// One seed lies close to the mean over ten, most of all under the policies that leave little to chance.
#[test]
fn default_trace_is_as_published() {
    let Some(trace) = trace("openb_pod_list_default.csv") else { return };
    assert_eq!((trace.nodes.len(), trace.gpus(), trace.pods.len()), (1213, 6212, 8152));
    for (policy, published) in [(Policy::BestFit, 6.92), (Policy::Fgd, 4.61)] {
        let got = play(&trace, policy, 130, 0).at(130);
        assert!((got - published).abs() < 0.5, "{policy:?}: {got} is not allocated, and {published} is published");
    }
}
