//! LimitRange. Source: `pkg/apis/core/validation` (`ValidateLimitRange`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem, LimitRangeSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Map, Value};

use super::JsonStrategy;
use super::fields::{Errors, typed};
use super::missing::Missing;
use crate::object::decode::rounded_up;
use crate::object::validation::path::Path;
use crate::object::validation::{names, push_all, resources};
use crate::object::{Dynamic, FieldError, Milli};

impl JsonStrategy for LimitRange {
    fn defaults(m: &mut Missing<'_>) {
        limits_by_limits(m);
        limits_rounded(m);
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        typed(d, "spec", errors, spec);
    }
}

/// The default limit of a container defaults to the maximum; the default request to the default limit, or else to the
/// minimum.
fn limits_by_limits(m: &mut Missing<'_>) {
    for i in 0..m.list(&["spec", "limits"]).len() {
        let i = i.to_string();
        let item = |field: &'static str| ["spec", "limits", i.as_str(), field];
        if m.text(&item("type")) != "Container" {
            continue;
        }
        let amounts = |m: &Missing<'_>, field| {
            let list = m.get(&item(field)).and_then(Value::as_object).into_iter().flatten();
            let rounded = |v: &Value| v.as_str().and_then(rounded_up).map_or_else(|| v.clone(), Value::String);
            list.map(|(name, v)| (name.clone(), rounded(v))).collect::<Map<_, _>>()
        };
        let (max, min) = (amounts(m, "max"), amounts(m, "min"));
        let (old_limit, old_request) = (amounts(m, "default"), amounts(m, "defaultRequest"));
        let (mut limit, mut request) = (max, min);
        limit.extend(old_limit.clone());
        request.extend(limit.clone());
        request.extend(old_request.clone());
        for (field, old, new) in [("default", old_limit, limit), ("defaultRequest", old_request, request)] {
            if old != new {
                m.set(&item(field), Value::Object(new));
            }
        }
    }
}

fn limits_rounded(m: &mut Missing<'_>) {
    for i in 0..m.list(&["spec", "limits"]).len() {
        for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            m.round(&["spec", "limits", &i.to_string(), field]);
        }
    }
}

fn spec(spec: &LimitRangeSpec, errors: &mut Errors) {
    let at = Path::Root("spec");
    let at = at.field("limits");
    for (i, item) in spec.limits.iter().enumerate() {
        let path = at.index(i);
        let type_ = item.type_.as_str();
        push_all(errors, &path.field("type"), type_, names::qualified(type_));
        let known = ["Container", "PersistentVolumeClaim", "Pod"].contains(&type_);
        if names::qualified(type_).is_empty() && !type_.contains('/') && !known {
            let detail = "must be a standard limit type or fully qualified";
            errors.push(FieldError::invalid(path.field("type"), type_, detail));
        }
        if spec.limits[..i].iter().any(|earlier| earlier.type_ == item.type_) {
            errors.push(FieldError::duplicate(path.field("type"), type_));
        }
        limits(item, &path, errors);
    }
}

type Amounts = Option<BTreeMap<String, Quantity>>;

fn limits(item: &LimitRangeItem, at: &Path<'_>, errors: &mut Errors) {
    let of_pod = item.type_ == "Pod";
    let lists: [(&str, &Amounts); 5] = [
        ("max", &item.max),
        ("min", &item.min),
        ("default", &item.default),
        ("defaultRequest", &item.default_request),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ];
    let mut all = BTreeSet::new();
    for (field, list) in lists {
        if of_pod && field.starts_with("default") {
            if list.as_ref().is_some_and(|l| !l.is_empty()) {
                errors.push(FieldError::forbidden(at.field(field), "may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for name in list.iter().flatten().map(|(name, _)| name) {
            let path = at.field(field);
            let path = path.key(name);
            if matches!(item.type_.as_str(), "Pod" | "Container") {
                resources::container_resource(name, &path, errors);
            } else {
                resources::resource(name, &path, errors);
            }
            all.insert(name.as_str());
        }
    }
    let bounds_storage = [&item.min, &item.max].iter().any(|l| l.as_ref().is_some_and(|l| l.contains_key("storage")));
    if item.type_ == "PersistentVolumeClaim" && !bounds_storage {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(at.field("limits"), detail));
    }
    for name in all {
        limits_of(item, name, at, errors);
    }
}

/// Checks the bounds of one resource against each other.
fn limits_of(item: &LimitRangeItem, name: &str, at: &Path<'_>, errors: &mut Errors) {
    let of = |list: &'_ Amounts| list.as_ref().and_then(|l| l.get(name)).cloned();
    let (min, max, ratio) = (of(&item.min), of(&item.max), of(&item.max_limit_request_ratio));
    let (limit, request) =
        if item.type_ == "Pod" { (None, None) } else { (of(&item.default), of(&item.default_request)) };
    let above = |a: &Option<Quantity>, b: &Option<Quantity>| match (a, b) {
        (Some(a), Some(b)) if Milli::of(a) > Milli::of(b) => Some((a.0.clone(), b.0.clone())),
        _ => None,
    };
    let rows = [
        (&min, &max, "min", &min, ["min value", "max value"]),
        (&min, &request, "defaultRequest", &request, ["min value", "default request value"]),
        (&request, &max, "defaultRequest", &request, ["default request value", "max value"]),
        (&request, &limit, "defaultRequest", &request, ["default request value", "default limit value"]),
        (&min, &limit, "default", &min, ["min value", "default value"]),
        (&limit, &max, "default", &max, ["default value", "max value"]),
    ];
    for (low, high, field, shown, [a, b]) in rows {
        if let Some((x, y)) = above(low, high) {
            let shown = shown.as_ref().map_or("", |q| &q.0);
            let detail = format!("{a} {x} is greater than {b} {y}");
            errors.push(FieldError::invalid(at.field(field).key(name), shown, detail));
        }
    }
    if let Some(r) = &ratio {
        let path = at.field("maxLimitRequestRatio");
        if Milli::of(r) < Milli::units(1) {
            errors.push(FieldError::invalid(path.key(name), &r.0, format!("ratio {} is less than 1", r.0)));
        }
        if let (Some(min), Some(max)) = (&min, &max) {
            // Compared in exact integers; only the numbers in the message are rounded.
            let (low, high) = (Milli::of(min).0, Milli::of(max).0);
            if low > 0 && Milli::of(r).0 * low > high * 1000 {
                let most = high as f64 / low as f64;
                let detail = format!("ratio {} is greater than max/min = {most:.6}", r.0);
                errors.push(FieldError::invalid(path.key(name), &r.0, detail));
            }
        }
    }
    if let (Some(limit), Some(request)) = (&limit, &request)
        && !resources::overcommits(name)
        && Milli::of(limit) != Milli::of(request)
    {
        let detail = format!("default value {} must equal to defaultRequest value {} in {name}", limit.0, request.0);
        errors.push(FieldError::invalid(at.field("defaultRequest").key(name), &request.0, detail));
    }
}
