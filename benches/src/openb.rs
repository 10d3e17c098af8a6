//! How long the scheduler machine takes for the openb trace under each policy for sharing GPUs: all its pods arrive,
//! and then more, until they ask for 130% of the GPUs. The trace is not part of the repository: `SKEG_SHARED` names it.

use std::path::Path;
use std::time::Instant;

use skeg_core::scheduler::gpu::Policy;
use skeg_sim::arrivals::play;
use skeg_sim::files::Source;
use skeg_sim::files::openb::read;

use crate::Figure;

struct Disk;

impl Source for Disk {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        std::fs::read(path).map_err(|e| e.to_string())
    }

    fn directory(&self, _: &str) -> Option<Vec<String>> {
        None
    }
}

/// A figure of each policy; none without the trace.
pub fn all() -> Result<Vec<Figure>, String> {
    let Ok(shared) = std::env::var("SKEG_SHARED") else {
        eprintln!("skipped: SKEG_SHARED does not name the openb trace");
        return Ok(Vec::new());
    };
    let at = |name: &str| Path::new(&shared).join("data/openb").join(name).display().to_string();
    let trace = read(&at("openb_node_list_gpu_node.csv"), &at("openb_pod_list_default.csv"), &Disk)?;
    let figure = |policy: Policy| {
        let started = Instant::now();
        let outcome = play(&trace, policy, 130, 0);
        assert!(outcome.bound > 0, "pods find nodes");
        let name = match policy {
            Policy::Random => "schedule/openb-random",
            Policy::DotProd => "schedule/openb-dotprod",
            Policy::BestFit => "schedule/openb-bestfit",
            Policy::Packing => "schedule/openb-packing",
            Policy::Fgd => "schedule/openb-fgd",
        };
        Figure { name, value: started.elapsed().as_secs_f64(), unit: "s" }
    };
    Ok(Policy::ALL.into_iter().map(figure).collect())
}
