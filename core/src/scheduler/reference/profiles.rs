//! Profiles that are drawn: plug-ins left out, other weights, other arguments.

use k8s_openapi::api::core::v1 as core_v1;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{gpu, pick, selector_term, spread};
use crate::scheduler::profile::{Plugin, Profile, Strategy as Scoring, Weights};

const RESOURCES: [&str; 7] =
    ["cpu", "memory", "ephemeral-storage", "example.com/gpu", "example.com/none", "pods", "alibabacloud.com/gpu-milli"];

fn scoring() -> BoxedStrategy<Scoring> {
    let points = prop::collection::btree_map(0..=100i64, 0..=10i64, 1..5);
    let points = points.prop_map(|points| Scoring::RequestedToCapacityRatio(points.into_iter().collect()));
    prop_oneof![2 => Just(Scoring::LeastAllocated), 2 => Just(Scoring::MostAllocated), 3 => points].boxed()
}

fn weights() -> BoxedStrategy<Weights> {
    let weight = prop_oneof![4 => Just(None), 1 => Just(Some(0)), 1 => (1..6i64).prop_map(Some), 1 => Just(Some(1000))];
    let all = prop::collection::vec(weight, Plugin::ALL.len());
    all.prop_map(|drawn| {
        let mut weights = Weights::default();
        for (plugin, weight) in Plugin::ALL.into_iter().zip(drawn) {
            if let Some(weight) = weight.filter(|_| plugin.is_score()) {
                weights.set(plugin, weight);
            }
        }
        weights
    })
    .boxed()
}

fn affinity() -> BoxedStrategy<core_v1::NodeAffinity> {
    let required = prop_oneof![3 => Just(None), 1 => prop::collection::vec(selector_term(), 1..4).prop_map(Some)];
    let preferred = prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec((1..100i32, selector_term()), 1..3)];
    (required, preferred)
        .prop_map(|(required, preferred)| {
            let preferred: Vec<Value> = preferred.iter().map(|(w, t)| json!({"weight": w, "preference": t})).collect();
            let mut whole = json!({"preferredDuringSchedulingIgnoredDuringExecution": preferred});
            if let Some(terms) = required {
                whole["requiredDuringSchedulingIgnoredDuringExecution"] = json!({"nodeSelectorTerms": terms});
            }
            serde_json::from_value(whole).unwrap()
        })
        .boxed()
}

fn constraints() -> BoxedStrategy<Option<Vec<core_v1::TopologySpreadConstraint>>> {
    let one = spread().prop_map(|mut c| {
        c["labelSelector"] = Value::Null;
        serde_json::from_value(c).unwrap()
    });
    prop_oneof![1 => Just(None), 2 => prop::collection::vec(one, 0..4).prop_map(Some)].boxed()
}

fn resources() -> BoxedStrategy<Vec<(String, i64)>> {
    let named = prop::collection::btree_map(pick(&RESOURCES), pick(&[1, 1, 2, 7, 100]), 1..6);
    named.prop_map(|all| all.into_iter().map(|(name, weight)| (name.to_owned(), weight)).collect()).boxed()
}

fn profile() -> BoxedStrategy<Profile> {
    let plugins = (prop::collection::vec(prop::bool::weighted(0.88), Plugin::ALL.len()), weights());
    let flags = (prop::bool::weighted(0.8), prop::bool::weighted(0.8), prop::bool::weighted(0.3), any::<bool>());
    let ignored = (pick(&[None, None, Some("example.com/gpu"), Some("cpu")]), pick(&[None, None, Some("example.com")]));
    let hard = pick(&[0, 1, 20, 100]);
    let arguments = (scoring(), resources(), resources(), affinity(), constraints(), (hard, gpu::arguments()));
    (plugins, flags, ignored, arguments)
        .prop_map(|((on, weights), (narrows, preempts, ignore, volumes), (resource, group), arguments)| {
            let (strategy, resources, balanced, added_affinity, default_constraints, (hard, gpu_share)) = arguments;
            // Few pods have claims, so that these are left out more often.
            let of_volumes = [Plugin::VolumeRestrictions, Plugin::NodeVolumeLimits, Plugin::VolumeZone];
            let off = |plugin: Plugin| volumes && of_volumes.contains(&plugin);
            let on = Plugin::ALL.into_iter().zip(on);
            let on = on.filter(|(plugin, on)| (*on && !off(*plugin)) || *plugin == Plugin::VolumeBinding);
            Profile {
                name: String::new(),
                filters: on.map(|(plugin, _)| plugin).filter(|plugin| plugin.is_filter()).collect(),
                narrows,
                preempts,
                weights,
                strategy,
                resources,
                ignored_resources: resource.into_iter().map(str::to_owned).collect(),
                ignored_groups: group.into_iter().map(str::to_owned).collect(),
                balanced: balanced.into_iter().map(|(name, _)| name).collect(),
                added_affinity,
                default_constraints,
                hard_pod_affinity_weight: hard,
                ignore_preferred_terms: ignore,
                gpu_share,
            }
        })
        .boxed()
}

/// One to three profiles; often the default one alone.
pub fn profiles() -> BoxedStrategy<Vec<Profile>> {
    let named = |profiles: Vec<Profile>| {
        let named = |(profile, name): (Profile, &str)| Profile { name: name.to_owned(), ..profile };
        profiles.into_iter().zip(["a", "default-scheduler", "b"]).map(named).collect()
    };
    let drawn = prop_oneof![4 => profile(), 1 => Just(Profile::default())];
    prop_oneof![1 => Just(vec![Profile::default()]), 2 => prop::collection::vec(drawn, 1..4).prop_map(named)].boxed()
}
