//! What a Docker node is told about keeping room on itself.

use std::time::Duration;

use clap::Args;
use skeg_core::agent::{EvictionPolicy, ImagePolicy};

use crate::cli::duration;

/// Arguments of a Docker node, named as the kubelet's.
#[derive(Args, Clone, Debug)]
pub struct UpkeepArgs {
    /// From which use of their disk on, in percent, images are removed that no container is of; 100 for never.
    #[arg(long, value_name = "PERCENT", default_value_t = 85, value_parser = clap::value_parser!(u8).range(0..=100),
        requires = "docker")]
    image_gc_high_threshold: u8,
    /// Down to which use.
    #[arg(long, value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=100),
        requires = "docker")]
    image_gc_low_threshold: u8,
    /// How long an image is kept that nothing uses.
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = duration, requires = "docker")]
    minimum_image_ttl_duration: Duration,
    /// How often the disk of images is looked at. (The kubelet looks every five minutes, always.)
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration, requires = "docker")]
    image_gc_period: Duration,
    /// When the node is short of something, so that pods are evicted: memory.available, nodefs.available,
    /// nodefs.inodesFree, imagefs.available, imagefs.inodesFree or pid.available, then `<`, then an amount or a
    /// percentage of what there is; several with commas between them. Where not given, an agent takes the kubelet's
    /// (memory.available<100Mi, nodefs.available<10%, nodefs.inodesFree<5%, imagefs.available<15%,
    /// imagefs.inodesFree<5%), and `skeg up` none, since a laptop's disk is often full.
    #[arg(long, value_name = "THRESHOLDS", requires = "docker")]
    eviction_hard: Option<String>,
    /// How long the node says that it is short of something after that was seen last.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration, requires = "docker")]
    eviction_pressure_transition_period: Duration,
}

impl UpkeepArgs {
    /// When pods are evicted, by these thresholds where none are given.
    pub fn eviction(&self, default: &str) -> Result<EvictionPolicy, String> {
        let thresholds = self.eviction_hard.as_deref().unwrap_or(default);
        let policy = EvictionPolicy::parse(thresholds, self.eviction_pressure_transition_period);
        policy.map_err(|why| format!("error: --eviction-hard: {why}"))
    }

    /// When images are removed; those that the agent has not pulled itself only if they may be.
    pub fn images(&self, of_others: bool) -> Result<ImagePolicy, String> {
        let (high_percent, low_percent) = (self.image_gc_high_threshold, self.image_gc_low_threshold);
        if low_percent > high_percent {
            return Err(format!(
                "error: --image-gc-low-threshold {low_percent} can not be higher than --image-gc-high-threshold \
                 {high_percent}"
            ));
        }
        if self.image_gc_period.is_zero() {
            return Err("error: --image-gc-period must be longer than 0s".to_owned());
        }
        let (minimum_age, period) = (self.minimum_image_ttl_duration, self.image_gc_period);
        Ok(ImagePolicy { high_percent, low_percent, minimum_age, period, of_others })
    }
}
