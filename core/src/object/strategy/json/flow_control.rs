//! FlowSchema and PriorityLevelConfiguration. Source: `pkg/apis/flowcontrol/{v1,validation}`.

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use serde_json::json;

use super::JsonStrategy;
use super::fields::{Errors, number, text};
use super::missing::Missing;
use crate::object::validation::one_of;
use crate::object::validation::path::Path;
use crate::object::{Dynamic, FieldError};

/// The highest `matchingPrecedence`.
const LAST: i64 = 10_000;

impl JsonStrategy for FlowSchema {
    fn defaults(m: &mut Missing<'_>) {
        if m.has(&["spec"]) {
            m.at(&["spec"], "matchingPrecedence", || json!(1000));
        }
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        let precedence = number(&d.body, &["spec", "matchingPrecedence"]).unwrap_or(0);
        if precedence <= 0 {
            let why = "must be a positive value";
            errors.push(FieldError::invalid("spec.matchingPrecedence", precedence, why));
        }
        if precedence > LAST {
            let why = format!("must not be greater than {LAST}");
            errors.push(FieldError::invalid("spec.matchingPrecedence", precedence, why));
        }
        let is_exempt = d.meta.name.as_deref() == Some("exempt");
        if precedence == 1 && !is_exempt {
            let why = "only the schema named 'exempt' may have matchingPrecedence 1";
            errors.push(FieldError::invalid("spec.matchingPrecedence", precedence, why));
        }
        if text(&d.body, &["spec", "priorityLevelConfiguration", "name"]).is_empty() {
            let why = "must reference a priority level";
            errors.push(FieldError::required("spec.priorityLevelConfiguration.name", why));
        }
        match text(&d.body, &["spec", "distinguisherMethod", "type"]) {
            "" => {}
            method => {
                let at = &Path::Root("spec").field("distinguisherMethod");
                one_of(method, &["ByNamespace", "ByUser"], at, errors);
            }
        }
    }
}

impl JsonStrategy for PriorityLevelConfiguration {
    fn defaults(m: &mut Missing<'_>) {
        for (part, shares) in [("exempt", 0), ("limited", 30)] {
            if m.has(&["spec", part]) {
                m.at(&["spec", part], "nominalConcurrencyShares", || json!(shares));
                m.at(&["spec", part], "lendablePercent", || json!(0));
            }
        }
        let queuing = ["spec", "limited", "limitResponse", "queuing"];
        if m.has(&queuing) {
            for (field, count) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                m.at(&queuing, field, || json!(count));
            }
        }
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        let type_ = text(&d.body, &["spec", "type"]);
        let is_exempt = d.meta.name.as_deref() == Some("exempt");
        if is_exempt != (type_ == "Exempt") {
            let why = "type must be 'Exempt' if and only if `name` is 'exempt'";
            errors.push(FieldError::invalid("spec.type", type_, why));
        }
        let limited = d.body.get("spec").and_then(|spec| spec.get("limited")).filter(|limited| !limited.is_null());
        match (type_, limited) {
            ("Exempt", Some(_)) => {
                let why = "must be nil if the type is not Limited";
                errors.push(FieldError::forbidden("spec.limited", why));
            }
            ("Exempt", None) => {}
            ("Limited", None) => {
                errors.push(FieldError::required("spec.limited", "must not be empty when type is Limited"));
            }
            ("Limited", Some(limited)) => {
                let shares = limited["nominalConcurrencyShares"].as_i64().unwrap_or(0);
                if shares < 0 {
                    let why = "must be a non-negative integer";
                    errors.push(FieldError::invalid("spec.limited.nominalConcurrencyShares", shares, why));
                }
            }
            (other, _) => one_of(other, &["Exempt", "Limited"], &Path::Root("spec").field("type"), errors),
        }
    }
}
