//! The arguments of plug-ins (`pluginConfig`).

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use skeg_core::limits::GPU_DEVICES;
use skeg_core::object::validation::qualified_name;
use skeg_core::scheduler::gpu::{Ask, Policy, Target, WHOLE};
use skeg_core::scheduler::profile::{Profile, Strategy};

use super::super::fields::{Field, Fields};
use super::plugins::{acts, was_removed};
use super::{API_VERSION, Warnings, pass, whole};

/// Most items of GPUShare's `workload`, and the greatest weight of one.
const MAX_TARGETS: usize = 1000;
const MAX_WEIGHT: i64 = 1_000_000;
/// The most that `largestNode` may be, in thousandths.
const MAX_LARGEST: i64 = 100_000_000;

/// Reads the arguments of a profile's plug-ins into it.
pub(super) fn read(field: Option<Field<'_>>, profile: &mut Profile, warnings: &Warnings<'_>) {
    let mut seen: Vec<String> = Vec::new();
    for item in field.and_then(|all| all.items()).into_iter().flatten() {
        let Some(fields) = item.fields() else { continue };
        let name = fields.require("name").and_then(|name| name.name()).unwrap_or_default();
        if seen.iter().any(|known| known == name) {
            item.fail(format!("Duplicate value: {name:?}"));
        }
        seen.push(name.to_owned());
        let args = fields.get("args");
        fields.finish();
        if name.is_empty() || was_removed(&item, name) {
            continue;
        }
        let Some(args) = args else { continue };
        if acts(name).is_none() {
            warnings.push(&item.path, &format!("there is no plug-in {name:?}, so that nothing takes its arguments"));
        } else if let Some(fields) = args.fields() {
            of_plugin(name, &args, fields, profile, warnings);
        }
    }
}

fn of_plugin(name: &str, args: &Field<'_>, fields: Fields<'_>, profile: &mut Profile, warnings: &Warnings<'_>) {
    let kind = format!("{name}Args");
    fields.get("apiVersion").and_then(|f| Some((f.text()?, f.clone()))).into_iter().for_each(|(version, field)| {
        if version != API_VERSION {
            field.fail(format!("no kind {kind:?} is registered for version {version:?}; write {API_VERSION}"));
        }
    });
    fields.get("kind").and_then(|f| Some((f.text()?, f.clone()))).into_iter().for_each(|(given, field)| {
        if given != kind {
            let group = "kubescheduler.config.k8s.io";
            field.fail(format!("args for plugin {name} were not of type {kind}.{group}, got {given}.{group}"));
        }
    });
    match name {
        "NodeResourcesFit" => resources_fit(&fields, profile),
        "NodeResourcesBalancedAllocation" => balanced(&fields, profile),
        "PodTopologySpread" => topology_spread(&fields, profile),
        "NodeAffinity" => node_affinity(&fields, profile),
        "InterPodAffinity" => inter_pod_affinity(&fields, profile),
        "DefaultPreemption" => preemption(args, &fields, warnings),
        "GPUShare" => gpu_share(args, &fields, profile),
        "VolumeBinding" => volume_binding(&fields, warnings),
        // A search for devices ends after so many steps, and binding goes on until it is known what came of it.
        "DynamicResources" => pass(&fields, &["filterTimeout", "bindingTimeout"], |_| true),
        // The others take none.
        _ => {}
    }
    fields.finish();
}

/// Resources with weights; one where none is given.
fn resources<'a>(field: &Field<'a>) -> Vec<(String, i64, Field<'a>)> {
    let mut all = Vec::new();
    for item in field.items().unwrap_or_default() {
        let Some(fields) = item.fields() else { continue };
        let name = fields.require("name").and_then(|name| name.name());
        let weight = fields.get("weight");
        let number = weight.as_ref().map_or(Some(1), whole).map(|n| if n == 0 { 1 } else { n });
        fields.finish();
        if let (Some(name), Some(number)) = (name, number) {
            all.push((name.to_owned(), number, weight.unwrap_or(item)));
        }
    }
    all
}

/// What is wrong with a name, as a label's or a resource's.
fn check_name(field: &Field<'_>, name: &str) {
    qualified_name(name).iter().for_each(|wrong| field.invalid(wrong));
}

fn names(field: Option<Field<'_>>, check: impl Fn(&Field<'_>, &str)) -> Vec<String> {
    let mut all = Vec::new();
    for item in field.and_then(|all| all.items()).into_iter().flatten() {
        if let Some(name) = item.text() {
            check(&item, name);
            all.push(name.to_owned());
        }
    }
    all
}

fn resources_fit(fields: &Fields<'_>, profile: &mut Profile) {
    profile.ignored_resources = names(fields.get("ignoredResources"), check_name);
    profile.ignored_groups = names(fields.get("ignoredResourceGroups"), |item, name| {
        if name.contains('/') {
            item.invalid("resource group name can't contain '/'");
        }
        check_name(item, name);
    });
    let Some(strategy) = fields.get("scoringStrategy") else { return };
    let Some(fields) = strategy.fields() else { return };
    let given = fields.get("resources").map(|all| resources(&all)).unwrap_or_default();
    for (name, weight, at) in &given {
        if !(1..=100).contains(weight) {
            at.invalid(&format!("resource weight of {name} not in valid range (0, 100]"));
        }
    }
    if !given.is_empty() {
        profile.resources = given.into_iter().map(|(name, weight, _)| (name, weight)).collect();
    }
    let (type_, ratio) = (fields.get("type"), fields.get("requestedToCapacityRatio"));
    let points = ratio.as_ref().map(shape);
    let name = type_.as_ref().map_or(Some(""), Field::text).unwrap_or_default();
    if let Some(ratio) = ratio.as_ref().filter(|_| name != "RequestedToCapacityRatio") {
        ratio.fail("Forbidden: must be nil when type is not RequestedToCapacityRatio");
    }
    profile.strategy = match (name, points) {
        ("LeastAllocated", _) => Strategy::LeastAllocated,
        ("MostAllocated", _) => Strategy::MostAllocated,
        ("RequestedToCapacityRatio", Some(points)) => Strategy::RequestedToCapacityRatio(points),
        ("RequestedToCapacityRatio", None) => {
            let mut at = strategy.clone();
            at.path.push_str(".requestedToCapacityRatio");
            at.fail("Required value: must be specified when type is RequestedToCapacityRatio");
            return;
        }
        _ => {
            let known = "supported values: \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\"";
            type_.as_ref().unwrap_or(&strategy).fail(format!("Unsupported value: {name:?}: {known}"));
            return;
        }
    };
    fields.finish();
}

/// The points of `requestedToCapacityRatio.shape`.
fn shape(ratio: &Field<'_>) -> Vec<(i64, i64)> {
    let Some(fields) = ratio.fields() else { return Vec::new() };
    let items = fields.get("shape");
    let mut points: Vec<(i64, i64)> = Vec::new();
    let mut is_sorted = true;
    for item in items.as_ref().and_then(Field::items).unwrap_or_default() {
        let Some(of) = item.fields() else { continue };
        let (at, score) = (of.require("utilization"), of.require("score"));
        of.finish();
        let (Some(at), Some(score)) = (at, score) else { continue };
        let (Some(x), Some(y)) = (whole(&at), whole(&score)) else { continue };
        if is_sorted && points.last().is_some_and(|(before, _)| *before >= x) {
            is_sorted = false;
            at.invalid("values must be sorted in increasing order");
        }
        if !(0..=100).contains(&x) {
            at.invalid("not in valid range [0, 100]");
        }
        if !(0..=10).contains(&y) {
            score.invalid("not in valid range [0, 10]");
        }
        points.push((x, y));
    }
    if items.as_ref().is_none_or(|items| items.tree.items().is_some_and(<[_]>::is_empty)) {
        items.as_ref().unwrap_or(ratio).fail("Required value: at least one point must be specified");
    }
    fields.finish();
    points
}

fn balanced(fields: &Fields<'_>, profile: &mut Profile) {
    let given = fields.get("resources").map(|all| resources(&all)).unwrap_or_default();
    for (i, (name, weight, at)) in given.iter().enumerate() {
        if given[..i].iter().any(|(other, ..)| other == name) {
            at.fail(format!("Duplicate value: {name:?}"));
        }
        if *weight != 1 {
            at.invalid("must be 1");
        }
    }
    if !given.is_empty() {
        profile.balanced = given.into_iter().map(|(name, ..)| name).collect();
    }
}

fn topology_spread(fields: &Fields<'_>, profile: &mut Profile) {
    let type_ = fields.get("defaultingType");
    let list = fields.get("defaultConstraints");
    let name = type_.as_ref().map_or(Some(""), Field::text).unwrap_or_default();
    let mut constraints: Vec<TopologySpreadConstraint> = Vec::new();
    for item in list.as_ref().and_then(Field::items).unwrap_or_default() {
        let Some(c) = constraint(&item) else { continue };
        let is_like = |other: &TopologySpreadConstraint| {
            (&other.topology_key, &other.when_unsatisfiable) == (&c.topology_key, &c.when_unsatisfiable)
        };
        if constraints.iter().any(is_like) {
            item.fail(format!("Duplicate value: \"{{{}, {}}}\"", c.topology_key, c.when_unsatisfiable));
        }
        constraints.push(c);
    }
    let some = list.as_ref().is_some_and(|list| list.tree.items().is_some_and(|items| !items.is_empty()));
    match name {
        "List" => profile.default_constraints = Some(constraints),
        "" | "System" if some => {
            let at = type_.as_ref().or(list.as_ref());
            at.into_iter().for_each(|at| {
                at.fail("Invalid value: \"System\": when .defaultConstraints are not empty");
            });
        }
        "" | "System" => {}
        _ => type_.into_iter().for_each(|at| {
            at.fail(format!("Unsupported value: {name:?}: supported values: \"System\", \"List\""));
        }),
    }
}

/// A default constraint, whose selector is that of the pods' owners.
fn constraint(item: &Field<'_>) -> Option<TopologySpreadConstraint> {
    let fields = item.fields()?;
    let (skew, key) = (fields.require("maxSkew"), fields.require("topologyKey"));
    let when = fields.require("whenUnsatisfiable");
    if let Some(skew) = &skew {
        match whole(skew) {
            Some(n) if n <= 0 => skew.invalid("not in valid range (0, inf)"),
            Some(_) => _ = skew.integer(1, i64::from(i32::MAX)),
            None => {}
        }
    }
    if let Some(key) = &key {
        key.text().filter(|text| !text.is_empty()).into_iter().for_each(|text| check_name(key, text));
        if key.text() == Some("") {
            key.fail("Required value: can not be empty");
        }
    }
    one_of(when.as_ref(), &["DoNotSchedule", "ScheduleAnyway"]);
    if let Some(selector) = fields.get("labelSelector") {
        selector.fail("Forbidden: constraint must not define a selector, as they deduced for each pod");
    }
    if let Some(domains) = fields.get("minDomains") {
        domains.integer(1, i64::from(i32::MAX));
    }
    for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
        one_of(fields.get(key).as_ref(), &["Honor", "Ignore"]);
    }
    names(fields.get("matchLabelKeys"), check_name);
    fields.finish();
    serde_json::from_value(item.tree.to_value()).ok()
}

fn one_of(field: Option<&Field<'_>>, known: &[&str]) {
    if let Some(field) = field
        && let Some(text) = field.text().filter(|text| !known.contains(text))
    {
        let known: Vec<String> = known.iter().map(|k| format!("{k:?}")).collect();
        field.fail(format!("Unsupported value: {text:?}: supported values: {}", known.join(", ")));
    }
}

fn node_affinity(fields: &Fields<'_>, profile: &mut Profile) {
    let Some(added) = fields.get("addedAffinity") else { return };
    let Some(of) = added.fields() else { return };
    if let Some(required) = of.get("requiredDuringSchedulingIgnoredDuringExecution")
        && let Some(of) = required.fields()
    {
        let terms = of.require("nodeSelectorTerms").and_then(|terms| terms.items()).unwrap_or_default();
        terms.iter().for_each(selector_term);
        of.finish();
    }
    let preferred = of.get("preferredDuringSchedulingIgnoredDuringExecution").and_then(|all| all.items());
    for item in preferred.into_iter().flatten() {
        let Some(of) = item.fields() else { continue };
        of.require("weight").map(|weight| weight.integer(0, i64::from(i32::MAX)));
        of.require("preference").iter().for_each(selector_term);
        of.finish();
    }
    of.finish();
    if let Ok(affinity) = serde_json::from_value(added.tree.to_value()) {
        profile.added_affinity = affinity;
    }
}

fn selector_term(term: &Field<'_>) {
    let Some(fields) = term.fields() else { return };
    for (key, known) in [
        ("matchExpressions", &["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"][..]),
        ("matchFields", &["In", "NotIn"][..]),
    ] {
        for item in fields.get(key).and_then(|all| all.items()).into_iter().flatten() {
            let Some(of) = item.fields() else { continue };
            let (name, operator) = (of.require("key"), of.require("operator"));
            let values = of.get("values");
            let given = values.as_ref().map_or(Some(Vec::new()), Field::texts).unwrap_or_default();
            one_of(operator.as_ref(), known);
            let at = values.as_ref().unwrap_or(&item);
            let wrong = match operator.as_ref().and_then(Field::text) {
                Some("In" | "NotIn") if key == "matchFields" && given.len() != 1 => "must have one element",
                Some("In" | "NotIn") if given.is_empty() => "for 'in', 'notin' operators, values set can't be empty",
                Some("Exists" | "DoesNotExist") if !given.is_empty() => {
                    "values set must be empty for exists and does not exist"
                }
                Some("Gt" | "Lt") if given.len() != 1 => "for 'Gt', 'Lt' operators, exactly one value is required",
                Some("Gt" | "Lt") if given[0].parse::<i64>().is_err() => {
                    "for 'Gt', 'Lt' operators, the value must be an integer"
                }
                _ => "",
            };
            if !wrong.is_empty() {
                at.invalid(wrong);
            }
            if let Some(name) = name.as_ref().filter(|_| key == "matchExpressions")
                && let Some(text) = name.text()
            {
                check_name(name, text);
            }
            of.finish();
        }
    }
    fields.finish();
}

fn inter_pod_affinity(fields: &Fields<'_>, profile: &mut Profile) {
    if let Some(weight) = fields.get("hardPodAffinityWeight")
        && let Some(n) = whole(&weight)
    {
        if (0..=100).contains(&n) {
            profile.hard_pod_affinity_weight = n;
        } else {
            weight.invalid("not in valid range [0, 100]");
        }
    }
    let ignore = fields.get("ignorePreferredTermsOfExistingPods");
    profile.ignore_preferred_terms = ignore.and_then(|ignore| ignore.boolean()).unwrap_or(false);
}

fn gpu_share(args: &Field<'_>, fields: &Fields<'_>, profile: &mut Profile) {
    let share = &mut profile.gpu_share;
    if let Some(policy) = fields.get("policy") {
        one_of(Some(&policy), &Policy::ALL.map(Policy::name));
        let named = policy.text().and_then(|text| Policy::ALL.into_iter().find(|p| p.name() == text));
        share.policy = named.unwrap_or(share.policy);
    }
    if let Some(of) = fields.get("largestNode").and_then(|largest| largest.fields()) {
        let cpu = of.get("cpu").and_then(|cpu| positive(&cpu, cpu.quantity()?.milli()));
        let gpu = of.get("gpuMilli").and_then(|gpu| positive(&gpu, whole(&gpu)?));
        share.largest = (cpu.unwrap_or(share.largest.0), gpu.unwrap_or(share.largest.1));
        of.finish();
    }
    let workload = fields.get("workload");
    let items = workload.as_ref().and_then(Field::items).unwrap_or_default();
    if items.len() > MAX_TARGETS {
        let many = format!("Too many: {}: must have at most {MAX_TARGETS} items", items.len());
        workload.iter().for_each(|at| at.fail(many.as_str()));
    }
    share.workload = items.iter().filter_map(target).collect();
    if share.policy == Policy::Fgd && items.is_empty() {
        let mut at = args.clone();
        at.path.push_str(".workload");
        at.fail("Required value: FGD measures fragmentation by the pods that are expected");
    }
}

/// A number of which there is some, and not absurdly much.
fn positive(field: &Field<'_>, n: i64) -> Option<i64> {
    let fine = (1..=MAX_LARGEST).contains(&n);
    if !fine {
        field.invalid(&format!("not in valid range [1, {MAX_LARGEST}] (thousandths)"));
    }
    fine.then_some(n)
}

/// Pods of the workload that fragmentation is measured by.
fn target(item: &Field<'_>) -> Option<Target> {
    let fields = item.fields()?;
    let cpu = fields.get("cpu").map_or(Some(0), |cpu| Some(cpu.quantity()?.milli()));
    let gpu = fields.get("gpuMilli");
    let milli = gpu.as_ref().map_or(Some(0), |gpu| gpu.integer(0, GPU_DEVICES as i64 * WHOLE));
    let ask = milli.map(Ask::of);
    if let Some(gpu) = gpu.as_ref().filter(|_| ask == Some(Ask::Odd)) {
        gpu.invalid("must be less than 1000 or a multiple of it");
    }
    let models = fields.get("models").map_or(Some(Vec::new()), |models| models.texts());
    let weight = fields.get("weight").map_or(Some(1), |weight| weight.integer(1, MAX_WEIGHT));
    fields.finish();
    Some(Target { cpu: cpu?, gpu: ask?, models: models?, pods: weight? })
}

fn preemption(args: &Field<'_>, fields: &Fields<'_>, warnings: &Warnings<'_>) {
    let (percentage, absolute) = (fields.get("minCandidateNodesPercentage"), fields.get("minCandidateNodesAbsolute"));
    let percent = percentage.as_ref().map_or(Some(10), whole);
    let nodes = absolute.as_ref().map_or(Some(100), whole);
    if let Some(field) = percentage.as_ref().filter(|_| percent.is_some_and(|n| !(0..=100).contains(&n))) {
        field.invalid("not in valid range [0, 100]");
    }
    if let Some(field) = absolute.as_ref().filter(|_| nodes.is_some_and(|n| n < 0)) {
        field.invalid("not in valid range [0, inf)");
    }
    if (percent, nodes) == (Some(0), Some(0)) {
        percentage.iter().for_each(|f| f.invalid("cannot be zero at the same time as minCandidateNodesAbsolute"));
        absolute.iter().for_each(|f| f.invalid("cannot be zero at the same time as minCandidateNodesPercentage"));
    }
    if percentage.is_some() || absolute.is_some() {
        warnings.push(&args.path, "evictions are tried on every node");
    }
}

fn volume_binding(fields: &Fields<'_>, warnings: &Warnings<'_>) {
    if let Some(timeout) = fields.get("bindTimeoutSeconds")
        && let Some(seconds) = whole(&timeout)
    {
        match seconds {
            i64::MIN..=-1 => timeout.invalid("invalid BindTimeoutSeconds, should not be a negative value"),
            600 => {}
            _ => warnings.push(&timeout.path, "claims have 600s to be bound"),
        }
    }
    if let Some(shape) = fields.get("shape") {
        shape.invalid("unexpected field `shape`, remove it or turn on the feature gate StorageCapacityScoring");
    }
}
