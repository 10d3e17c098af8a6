//! CertificateSigningRequest.
//!
//! Of a request and of a certificate the PEM block is read, and not what is in it: whoever signs reads that, and checks
//! the signature.
//!
//! Source: kubernetes `pkg/registry/certificates/certificates/strategy.go`,
//! `pkg/apis/certificates/validation/validation.go`.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::{Value, json};

use super::JsonStrategy;
use super::fields::{Errors, at, list, number, text};
use crate::Wall;
use crate::object::validation::names::{self, Wrongs};
use crate::object::validation::path::Path;
use crate::object::{Dynamic, FieldError};

/// The conditions by which a request is approved or denied, which only `/approval` writes.
const VERDICTS: [&str; 2] = ["Approved", "Denied"];
/// The conditions that stay.
const LASTING: [&str; 3] = ["Approved", "Denied", "Failed"];
/// The signer of requests from before there were names of signers.
const LEGACY: &str = "kubernetes.io/legacy-unknown";
/// Least `spec.expirationSeconds`.
const SHORTEST: i64 = 600;
/// The usages of a key, sorted.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

impl JsonStrategy for CertificateSigningRequest {
    const NAME: fn(&str) -> Wrongs = |_| Wrongs::new();

    /// What is asked for never changes, nor who asks, and the status has subresources of its own.
    fn prepare_for_update(new: &mut Dynamic, old: &Dynamic) {
        (new.body, new.status) = (Rc::clone(&old.body), old.status.clone());
    }

    /// Who signs does not approve: as many verdicts as there were are those that there were. Others are refused.
    fn prepare_for_status_update(new: &mut Dynamic, old: &Dynamic, now: Wall) {
        let mut all = conditions(new).to_vec();
        for type_ in VERDICTS.into_iter().filter(|type_| count(new, type_) == count(old, type_)) {
            let sent = all.iter_mut().filter(|condition| condition["type"] == type_);
            let kept = conditions(old).iter().filter(|condition| condition["type"] == type_);
            sent.zip(kept).for_each(|(sent, kept)| sent.clone_from(kept));
        }
        set_conditions(new, all, old, now);
    }

    fn approve(new: &mut Dynamic, sent: &Dynamic, now: Wall) {
        let old = new.clone();
        set_conditions(new, conditions(sent).to_vec(), &old, now);
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        let root = &Path::Root("spec");
        let request = decoded(at(&d.body, &["spec", "request"]));
        if pem_blocks(&request).first().is_none_or(|block| *block != "CERTIFICATE REQUEST") {
            let why = "PEM block type must be CERTIFICATE REQUEST";
            errors.push(FieldError::invalid(root.field("request"), text(&d.body, &["spec", "request"]), why));
        }
        usages(list(&d.body, &["spec", "usages"]), &root.field("usages"), errors);
        signer(text(&d.body, &["spec", "signerName"]), &root.field("signerName"), errors);
        if let Some(seconds) = number(&d.body, &["spec", "expirationSeconds"]).filter(|seconds| *seconds < SHORTEST) {
            let why = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(FieldError::invalid(root.field("expirationSeconds"), seconds, why));
        }
    }

    fn validate_new(d: &Dynamic, errors: &mut Errors) {
        let name = text(&d.body, &["spec", "signerName"]);
        if name == LEGACY {
            let why = "the legacy signerName is not allowed via this API version";
            errors.push(FieldError::invalid("spec.signerName", name, why));
        }
    }

    fn validate_status_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        validate_conditions(conditions(new), errors);
        keeps_conditions(new, old, errors);
        let root = &Path::Root("status");
        for type_ in VERDICTS {
            if count(new, type_) > count(old, type_) {
                let why = format!("updates may not add a condition of type {type_:?}");
                errors.push(FieldError::forbidden(root.field("conditions"), why));
            }
        }
        let [sent, held] = [new, old].map(certificate);
        if sent == held {
            return;
        }
        let field = &root.field("certificate");
        if held.is_some() {
            errors.push(FieldError::forbidden(field, "updates may not modify existing certificate content"));
        }
        let text = decoded(sent);
        let blocks = pem_blocks(&text);
        let why = match blocks.iter().find(|block| **block != "CERTIFICATE") {
            Some(other) => format!("only CERTIFICATE PEM blocks are allowed, found {other:?}"),
            None if blocks.is_empty() && sent.is_some() => "must contain at least one CERTIFICATE PEM block".to_owned(),
            None => return,
        };
        errors.push(FieldError::invalid(field, "<certificate data>", why));
    }

    fn validate_approval(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        validate_conditions(conditions(new), errors);
        keeps_conditions(new, old, errors);
    }
}

fn conditions(d: &Dynamic) -> &[Value] {
    let found = d.status.as_ref().and_then(|status| status.get("conditions"));
    found.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn certificate(d: &Dynamic) -> Option<&Value> {
    d.status.as_ref().and_then(|status| status.get("certificate")).filter(|value| *value != "" && !value.is_null())
}

fn count(d: &Dynamic, type_: &str) -> usize {
    conditions(d).iter().filter(|condition| condition["type"] == type_).count()
}

/// Sets the conditions, each with its times: one without a transition time takes that of the stored condition of its
/// type and status, if there is one.
fn set_conditions(new: &mut Dynamic, mut all: Vec<Value>, old: &Dynamic, now: Wall) {
    if all.is_empty() && conditions(new).is_empty() {
        return;
    }
    let now = json!(now.to_time());
    for condition in &mut all {
        let is_same = |old: &&Value| old["type"] == condition["type"] && old["status"] == condition["status"];
        let since = conditions(old).iter().find(is_same).map(|old| old["lastTransitionTime"].clone());
        let times = [("lastUpdateTime", now.clone()), ("lastTransitionTime", since.unwrap_or_else(|| now.clone()))];
        for (field, time) in times {
            if condition[field].is_null() {
                condition[field] = if time.is_null() { now.clone() } else { time };
            }
        }
    }
    let mut status = new.status.as_deref().filter(|status| status.is_object()).cloned().unwrap_or_else(|| json!({}));
    status["conditions"] = Value::Array(all);
    new.status = Some(Rc::new(status));
}

fn validate_conditions(conditions: &[Value], errors: &mut Errors) {
    let root = &Path::Root("status");
    let field = &root.field("conditions");
    let mut seen: Vec<&str> = Vec::new();
    for (index, condition) in conditions.iter().enumerate() {
        let at = &field.index(index);
        let [type_, status] = ["type", "status"].map(|name| condition[name].as_str().unwrap_or_default());
        if type_.is_empty() {
            errors.push(FieldError::required(at.field("type"), ""));
        }
        let allowed: &[&str] = if LASTING.contains(&type_) { &["True"] } else { &["False", "True", "Unknown"] };
        if status.is_empty() {
            errors.push(FieldError::required(at.field("status"), ""));
        } else if !allowed.contains(&status) {
            errors.push(FieldError::not_supported(at.field("status"), status, allowed));
        }
        if seen.contains(&type_) {
            errors.push(FieldError::duplicate(at.field("type"), type_));
        } else if VERDICTS.contains(&type_) && VERDICTS.iter().any(|other| seen.contains(other)) {
            let why = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid(at.field("type"), type_, why));
        }
        seen.push(type_);
    }
}

/// What has been approved, denied or has failed stays so.
fn keeps_conditions(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
    for type_ in LASTING {
        if count(new, type_) < count(old, type_) {
            let why = format!("updates may not remove a condition of type {type_:?}");
            errors.push(FieldError::forbidden("status.conditions", why));
        }
    }
}

fn usages(usages: &[Value], field: &Path<'_>, errors: &mut Errors) {
    if usages.is_empty() {
        errors.push(FieldError::required(field, ""));
    }
    for (index, usage) in usages.iter().enumerate() {
        let (at, usage) = (&field.index(index), usage.as_str().unwrap_or_default());
        if !USAGES.contains(&usage) {
            errors.push(FieldError::not_supported(at, usage, &USAGES));
        }
        if usages[..index].iter().any(|before| before == usage) {
            errors.push(FieldError::duplicate(at, usage));
        }
    }
}

/// `ValidateSignerName`: a domain and a path.
fn signer(name: &str, field: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.push(FieldError::required(field, ""));
    }
    let Some((domain, path)) = name.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.push(FieldError::invalid(field, name, why));
    };
    let mut check = |text: &str, rule: fn(&str) -> Wrongs| {
        let wrong = text.split('.').map(|label| (label, rule(label))).find(|(_, wrongs)| !wrongs.is_empty());
        for (label, why) in wrong.into_iter().flat_map(|(label, all)| all.into_iter().map(move |why| (label, why))) {
            errors.push(FieldError::invalid(field, text, format!("validating label {label:?}: {why}")));
        }
    };
    check(domain, names::label);
    check(path, names::subdomain);
    if !domain.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(field, domain, why));
    }
}

/// The bytes of a field, which JSON has in base64, as text.
fn decoded(field: Option<&Value>) -> String {
    let bytes = field.and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The types of the PEM blocks in a text, in order. What is no block is passed over, as `pem.Decode` does.
fn pem_blocks(text: &str) -> Vec<&str> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let Some((type_, body)) = after.split_once("-----") else { break };
        rest = body;
        if let Some((body, after)) = body.split_once(&format!("-----END {type_}-----")) {
            let body: String = body.split_whitespace().collect();
            if STANDARD.decode(body).is_ok() {
                blocks.push(type_);
                rest = after;
            }
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};

    use super::pem_blocks;
    use crate::object::{Object, validation};

    fn pem(type_: &str) -> String {
        STANDARD.encode(format!("-----BEGIN {type_}-----\nMAA=\n-----END {type_}-----\n"))
    }

    fn object(change: Value) -> Object {
        let mut sent = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": "any:Name"},
            "spec": {"request": pem("CERTIFICATE REQUEST"), "signerName": "example.com/s", "usages": ["client auth"]}});
        json_patch::merge(&mut sent, &change);
        Object::from_json(sent).unwrap()
    }

    fn told(errors: &[crate::object::FieldError]) -> String {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn requests_are_checked() {
        let check = |spec: Value, want: &str| {
            let got = told(&validation::create(&object(json!({"spec": spec}))));
            assert!(if want.is_empty() { got.is_empty() } else { got.contains(want) }, "{got}\ndoes not say\n{want}");
        };
        check(json!({}), "");
        check(json!({"request": ""}), "PEM block type must be CERTIFICATE REQUEST");
        check(json!({"request": pem("CERTIFICATE")}), "PEM block type must be CERTIFICATE REQUEST");
        check(json!({"usages": []}), "spec.usages: Required value");
        check(json!({"usages": ["sing"]}), "spec.usages[0]: Unsupported value: \"sing\": supported values: \"any\"");
        check(json!({"usages": ["any", "any"]}), "spec.usages[1]: Duplicate value: \"any\"");
        check(json!({"signerName": ""}), "spec.signerName: Required value");
        check(
            json!({"signerName": "a/b/c"}),
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
        check(json!({"signerName": "a/b"}), "should be a domain with at least two segments separated by dots");
        check(json!({"signerName": "a.B/c"}), "spec.signerName: Invalid value: \"a.B\": validating label \"B\": ");
        check(
            json!({"signerName": "kubernetes.io/legacy-unknown"}),
            "the legacy signerName is not allowed via this API version",
        );
        check(json!({"expirationSeconds": 599}), "may not specify a duration less than 600 seconds (10 minutes)");
        check(json!({"expirationSeconds": 600}), "");
    }

    #[test]
    fn what_is_decided_stays() {
        let condition = |type_: &str| json!({"type": type_, "status": "True"});
        let with = |types: &[&str]| {
            object(json!({"status": {"conditions": types.iter().map(|t| condition(t)).collect::<Vec<_>>()}}))
        };
        let approval = |old: &[&str], new: &[&str]| told(&validation::approval(&with(new), &with(old)));
        assert_eq!(approval(&[], &["Approved"]), "");
        assert_eq!(approval(&["Approved"], &["Approved", "Other"]), "");
        let gone = "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\"";
        assert_eq!(approval(&["Approved"], &[]), gone);
        let both = approval(&["Approved"], &["Approved", "Denied"]);
        assert!(both.contains("Approved and Denied conditions are mutually exclusive"), "{both}");
        let twice = approval(&[], &["Denied", "Denied"]);
        assert!(twice.contains("status.conditions[1].type: Duplicate value: \"Denied\""), "{twice}");
        let unsure = object(json!({"status": {"conditions": [{"type": "Approved", "status": "Unknown"}, {}]}}));
        let unsure = told(&validation::approval(&unsure, &with(&[])));
        assert!(unsure.contains("conditions[0].status: Unsupported value: \"Unknown\""), "{unsure}");
        assert!(unsure.contains("conditions[1].type: Required value"), "{unsure}");
        assert!(unsure.contains("conditions[1].status: Required value"), "{unsure}");
        let status = |old: &[&str], new: &[&str]| told(&validation::status_update(&with(new), &with(old)));
        assert_eq!(status(&["Approved"], &["Approved", "Failed"]), "");
        let added = "status.conditions: Forbidden: updates may not add a condition of type \"Denied\"";
        assert_eq!(status(&[], &["Denied"]), added);
    }

    #[test]
    fn a_certificate_is_set_once() {
        let with = |certificate: &str| object(json!({"status": {"certificate": certificate}}));
        let check = |old: &str, new: &str| told(&validation::status_update(&with(new), &with(old)));
        let (one, other) = (pem("CERTIFICATE"), pem("PRIVATE KEY"));
        assert_eq!(check("", &one), "");
        assert_eq!(check(&one, &one), "");
        assert!(check(&one, "").contains("updates may not modify existing certificate content"));
        assert!(check("", &other).contains("only CERTIFICATE PEM blocks are allowed, found \"PRIVATE KEY\""));
        assert!(check("", "eA==").contains("must contain at least one CERTIFICATE PEM block"));
    }

    #[test]
    fn blocks_are_found() {
        let two = "text\n-----BEGIN A-----\nMAA=\n-----END A-----\n-----BEGIN B C-----\n\n-----END B C-----";
        assert_eq!(pem_blocks(two), ["A", "B C"]);
        assert_eq!(pem_blocks("-----BEGIN A-----\nMAA=\n-----END B-----"), [""; 0]);
    }
}
