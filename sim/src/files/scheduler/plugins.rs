//! Which plug-ins a profile enables at which extension point, and with what weights.
//!
//! As in kube-scheduler, what a point says of itself goes before `multiPoint`, and that before the default.

use std::collections::{BTreeMap, BTreeSet};

use skeg_core::scheduler::profile::{Plugin, Plugins, Profile};

use super::super::fields::Field;
use super::{API_VERSION, Warnings};

/// An extension point.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Point {
    PreEnqueue,
    QueueSort,
    PreFilter,
    Filter,
    PostFilter,
    PreScore,
    Score,
    Reserve,
    Permit,
    PreBind,
    Bind,
    PostBind,
}

/// Each with its field, and its name in kube-scheduler's messages.
const POINTS: [(Point, &str, &str); 12] = [
    (Point::PreFilter, "preFilter", "PreFilterPlugin"),
    (Point::Filter, "filter", "FilterPlugin"),
    (Point::PostFilter, "postFilter", "PostFilterPlugin"),
    (Point::Reserve, "reserve", "ReservePlugin"),
    (Point::PreScore, "preScore", "PreScorePlugin"),
    (Point::Score, "score", "ScorePlugin"),
    (Point::PreBind, "preBind", "PreBindPlugin"),
    (Point::Bind, "bind", "BindPlugin"),
    (Point::PostBind, "postBind", "PostBindPlugin"),
    (Point::Permit, "permit", "PermitPlugin"),
    (Point::PreEnqueue, "preEnqueue", "PreEnqueuePlugin"),
    (Point::QueueSort, "queueSort", "QueueSortPlugin"),
];

const FILTERS: &[Point] = &[Point::PreFilter, Point::Filter];
const SCORES_TOO: &[Point] = &[Point::PreFilter, Point::Filter, Point::PreScore, Point::Score];

/// The plug-ins of the default profile in its order, and where they act.
const DEFAULTS: [(&str, &[Point]); 19] = [
    ("SchedulingGates", &[Point::PreEnqueue]),
    ("PrioritySort", &[Point::QueueSort]),
    ("NodeUnschedulable", &[Point::Filter]),
    ("NodeName", &[Point::Filter]),
    ("TaintToleration", &[Point::Filter, Point::PreScore, Point::Score]),
    ("NodeAffinity", SCORES_TOO),
    ("NodePorts", FILTERS),
    ("NodeResourcesFit", SCORES_TOO),
    ("VolumeRestrictions", FILTERS),
    ("NodeVolumeLimits", FILTERS),
    (
        "VolumeBinding",
        &[Point::PreFilter, Point::Filter, Point::Reserve, Point::PreBind, Point::PreScore, Point::Score],
    ),
    ("VolumeZone", FILTERS),
    ("PodTopologySpread", SCORES_TOO),
    ("InterPodAffinity", SCORES_TOO),
    (
        "DynamicResources",
        &[Point::PreEnqueue, Point::PreFilter, Point::Filter, Point::PostFilter, Point::Reserve, Point::PreBind],
    ),
    ("DefaultPreemption", &[Point::PostFilter]),
    ("NodeResourcesBalancedAllocation", &[Point::PreScore, Point::Score]),
    ("ImageLocality", &[Point::Score]),
    ("DefaultBinder", &[Point::Bind]),
];

/// Our own plug-ins, which no profile has that does not enable them.
const OTHERS: [(&str, &[Point]); 1] = [("GPUShare", &[Point::Filter, Point::Reserve, Point::Score])];

/// Plug-ins that are no more in this version.
const REMOVED: [&str; 4] = ["AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits"];

/// Where a plug-in acts; `None` if there is no such plug-in.
pub(super) fn acts(name: &str) -> Option<&'static [Point]> {
    DEFAULTS.iter().chain(&OTHERS).find(|(known, _)| *known == name).map(|(_, points)| *points)
}

fn named(name: &str) -> Option<Plugin> {
    Plugin::ALL.into_iter().find(|plugin| plugin.name() == name)
}

/// Says that a plug-in is no more; returns whether it is so.
pub(super) fn was_removed(field: &Field<'_>, name: &str) -> bool {
    let removed = REMOVED.contains(&name);
    if removed {
        field.fail(format!(
            "Invalid value: {name:?}: was invalid in version {API_VERSION:?} (KubeSchedulerConfiguration is version \
             {API_VERSION:?})"
        ));
    }
    removed
}

/// What a profile says of an extension point.
#[derive(Default)]
struct Set {
    /// Name, and weight; zero where none is given.
    enabled: Vec<(String, i64)>,
    disabled: BTreeSet<String>,
}

impl Set {
    /// Reads a set. `of` is the kind of plug-in that it names, as messages have it, and where it acts.
    fn read(field: &Field<'_>, of: (&str, Option<Point>), warnings: &Warnings<'_>) -> Set {
        let mut set = Set::default();
        let Some(fields) = field.fields() else { return set };
        for item in fields.get("enabled").and_then(|all| all.items()).into_iter().flatten() {
            let Some((name, weight)) = entry(&item) else { continue };
            if was_removed(&item, &name) {
                continue;
            }
            match (acts(&name), of.1) {
                (None, _) => item.fail(format!("{} {name:?} does not exist", of.0)),
                (Some(points), Some(point)) if !points.contains(&point) => {
                    item.fail(format!("plugin {name:?} does not extend {} plugin", of.0));
                }
                (Some(_), _) if set.enabled.iter().any(|(known, _)| *known == name) => {
                    item.fail(format!("plugin {name:?} already registered as {:?}", of.0));
                }
                (Some(_), _) => set.enabled.push((name, weight)),
            }
        }
        for item in fields.get("disabled").and_then(|all| all.items()).into_iter().flatten() {
            let Some((name, _)) = entry(&item) else { continue };
            if name != "*" && acts(&name).is_none() && !REMOVED.contains(&name.as_str()) {
                warnings.push(&item.path, &format!("there is no plug-in {name:?}, so that nothing is disabled by it"));
            }
            set.disabled.insert(name);
        }
        fields.finish();
        set
    }
}

/// A plug-in's name and weight.
fn entry(item: &Field<'_>) -> Option<(String, i64)> {
    let fields = item.fields()?;
    let name = fields.require("name").and_then(|name| name.name());
    let weight = fields.get("weight");
    let weight = weight.map_or(Some(0), |weight| weight.integer(0, i64::from(i32::MAX)));
    fields.finish();
    Some((name?.to_owned(), weight?))
}

/// The enabled plug-ins of a profile.
struct Enabled {
    /// Those of `multiPoint`, in order.
    multi: Vec<(String, i64)>,
    sets: BTreeMap<Point, Set>,
}

impl Enabled {
    /// The plug-ins at a point, in order (`expandMultiPointPlugins`).
    fn at(&self, point: Point) -> Vec<&str> {
        static NONE: Set = Set { enabled: Vec::new(), disabled: BTreeSet::new() };
        let set = self.sets.get(&point).unwrap_or(&NONE);
        let own = || set.enabled.iter().map(|(name, _)| name.as_str());
        if set.disabled.contains("*") {
            return own().collect();
        }
        let act = |name: &&str| acts(name).is_some_and(|points| points.contains(&point));
        let multi = || self.multi.iter().map(|(name, _)| name.as_str()).filter(act);
        let multi = || multi().filter(|name| !set.disabled.contains(*name));
        let overriding = own().filter(|name| multi().any(|other| other == *name));
        let of_multi = multi().filter(|name| !own().any(|other| other == *name));
        let others = own().filter(|name| !multi().any(|other| other == *name));
        overriding.chain(of_multi).chain(others).collect()
    }

    fn has(&self, point: Point, name: &str) -> bool {
        self.at(point).contains(&name)
    }

    /// The weight of a plug-in that scores; one where none is given.
    fn weight(&self, name: &str) -> i64 {
        let own = self.sets.get(&Point::Score).into_iter().flat_map(|set| &set.enabled);
        let found = own.chain(&self.multi).find(|(known, _)| known == name).map_or(0, |(_, weight)| *weight);
        found.max(1)
    }
}

/// The default plug-ins with what `multiPoint` says (`mergePluginSet`).
fn merge(custom: &Set) -> Vec<(String, i64)> {
    let default = |name: &str| named(name).map_or(0, Plugin::default_weight);
    let all = DEFAULTS.iter().map(|(name, _)| *name);
    let kept = all.filter(|name| !custom.disabled.contains("*") && !custom.disabled.contains(*name));
    let said = |name: &str| custom.enabled.iter().find(|(known, _)| known == name);
    let merged = kept.map(|name| said(name).cloned().unwrap_or_else(|| (name.to_owned(), default(name))));
    let mut merged: Vec<(String, i64)> = merged.collect();
    let new = custom.enabled.iter().filter(|(name, _)| !merged.iter().any(|(known, _)| known == name));
    let new: Vec<_> = new.cloned().collect();
    merged.extend(new);
    merged
}

/// Reads the plug-ins of a profile into it.
pub(super) fn read(field: Option<Field<'_>>, of: &Field<'_>, profile: &mut Profile, warnings: &Warnings<'_>) {
    let Some(field) = field else { return };
    let Some(fields) = field.fields() else { return };
    let multi = fields.get("multiPoint").map(|set| Set::read(&set, (POINTS[0].2, None), warnings));
    let mut sets = BTreeMap::new();
    for (point, key, kind) in POINTS {
        if let Some(set) = fields.get(key) {
            sets.insert(point, Set::read(&set, (kind, Some(point)), warnings));
        }
    }
    fields.finish();
    let enabled = Enabled { multi: merge(&multi.unwrap_or_default()), sets };
    let sorts = enabled.at(Point::QueueSort).len();
    if sorts != 1 {
        let name = &profile.name;
        of.fail(format!(
            "only one queue sort plugin required for profile with scheduler name {name:?}, but got {sorts}"
        ));
    }
    if enabled.at(Point::Bind).is_empty() {
        of.fail(format!("at least one bind plugin is needed for profile with scheduler name {:?}", profile.name));
    }
    let filters: Vec<Plugin> = enabled.at(Point::Filter).into_iter().filter_map(named).collect();
    let scores = enabled.at(Point::Score).into_iter().filter_map(named);
    let mut weights = profile.weights;
    Plugin::ALL.into_iter().for_each(|plugin| weights.set(plugin, 0));
    for plugin in scores.filter(|plugin| plugin.is_score()) {
        weights.set(plugin, enabled.weight(plugin.name()));
    }
    profile.weights = weights;
    profile.narrows = enabled.has(Point::PreFilter, "NodeAffinity");
    profile.preempts = enabled.has(Point::PostFilter, "DefaultPreemption");
    let binding = filters.iter().copied().chain([Plugin::VolumeBinding]);
    profile.filters = binding.collect::<Plugins>();
    warn(&field, &enabled, &filters, warnings);
}

/// Says what is asked of the extension points and not carried out.
fn warn(field: &Field<'_>, enabled: &Enabled, filters: &[Plugin], warnings: &Warnings<'_>) {
    let say = |point: &str, instead: &str| warnings.push(&format!("{}.{point}", field.path), instead);
    if !enabled.has(Point::PreEnqueue, "SchedulingGates") {
        say("preEnqueue", "SchedulingGates stays enabled");
    }
    for (point, key) in [
        (Point::PreFilter, "preFilter"),
        (Point::Filter, "filter"),
        (Point::Reserve, "reserve"),
        (Point::PreBind, "preBind"),
    ] {
        if !enabled.has(point, "VolumeBinding") {
            say(key, "VolumeBinding stays enabled");
        }
    }
    if filters.windows(2).any(|pair| pair[0] > pair[1]) {
        say("filter", "filters keep their default order, which shows only in the reasons of nodes that several refuse");
    }
    for plugin in filters.iter().filter(|plugin| !matches!(plugin, Plugin::NodeAffinity | Plugin::VolumeBinding)) {
        let prepares = acts(plugin.name()).is_some_and(|points| points.contains(&Point::PreFilter));
        if prepares && !enabled.has(Point::PreFilter, plugin.name()) {
            say("preFilter", &format!("{} stays enabled, since its filter is", plugin.name()));
        }
    }
    for plugin in [Plugin::VolumeRestrictions, Plugin::VolumeZone].into_iter().filter(|p| !filters.contains(p)) {
        if enabled.has(Point::PreFilter, plugin.name()) {
            say("preFilter", &format!("{} is disabled, since its filter is", plugin.name()));
        }
    }
    for name in ["TaintToleration", "PodTopologySpread", "InterPodAffinity"] {
        if enabled.has(Point::Score, name) && !enabled.has(Point::PreScore, name) {
            say("preScore", &format!("{name} stays enabled, since its score is"));
        }
    }
    match (filters.contains(&Plugin::GPUShare), enabled.has(Point::Reserve, "GPUShare")) {
        (true, false) => say("reserve", "GPUShare gives devices to pods, since its filter is enabled"),
        (false, true) => say("reserve", "GPUShare gives no devices to pods, since its filter is disabled"),
        (true, true) | (false, false) => {}
    }
    if enabled.sets.get(&Point::Score).is_some_and(|set| set.enabled.iter().any(|(name, _)| name == "VolumeBinding")) {
        say("score", "VolumeBinding scores no node: free capacity is not looked at");
    }
}
