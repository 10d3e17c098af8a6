//! Webhook configurations as they are read: which requests a webhook is asked about, and how.
//!
//! Source: kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook/{accessors.go,predicates}`.

use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use skeg_cel::Program;

use super::Callee;
use crate::apiserver::admission::matching::{Matching, words};
use crate::apiserver::cache::Cache;
use crate::object::{Dynamic, Kind, Object, Revision, cel};

/// Both kinds of configurations.
const KINDS: [Kind; 2] = [Kind::MUTATING_WEBHOOK_CONFIGURATION, Kind::VALIDATING_WEBHOOK_CONFIGURATION];
/// `timeoutSeconds` where a webhook gives none.
const TIMEOUT: u64 = 10;

/// A webhook of a configuration.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) name: String,
    pub(super) callee: Callee,
    /// Certificates by which to trust it, PEM.
    pub(super) ca: Option<String>,
    pub(super) timeout: Duration,
    /// `failurePolicy: Fail`.
    pub(super) must_answer: bool,
    /// Whether it may be asked about what is not carried out.
    pub(super) takes_dry_runs: bool,
    /// `reinvocationPolicy: IfNeeded`.
    pub(super) asked_again: bool,
    /// `admission.k8s.io/v1`, or `v1beta1` if it understands nothing newer.
    pub(super) review_version: &'static str,
    /// Which requests it is asked about.
    pub(super) matching: Matching,
    /// What must hold of them.
    pub(super) conditions: Vec<(String, Program)>,
}

impl Callee {
    /// Reads a `clientConfig`.
    pub(in crate::apiserver) fn read(client: &Value) -> Callee {
        if let Some(url) = client["url"].as_str() {
            return Callee::Url(url.to_owned());
        }
        let service = &client["service"];
        let text = |name: &str| service[name].as_str().unwrap_or_default().to_owned();
        let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
        Callee::Service { namespace: text("namespace"), name: text("name"), path: text("path"), port }
    }
}

/// The certificates of a `clientConfig`, PEM.
pub(in crate::apiserver) fn certificates(client: &Value) -> Option<String> {
    let bundle = client["caBundle"].as_str().and_then(|bundle| STANDARD.decode(bundle).ok());
    bundle.and_then(|pem| String::from_utf8(pem).ok())
}

impl Hook {
    fn read(value: &Value, mutating: bool) -> Hook {
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let client = &value["clientConfig"];
        let versions = words(&value["admissionReviewVersions"]);
        let side_effects = value["sideEffects"].as_str().unwrap_or("Unknown");
        Hook {
            name: text(value, "name"),
            callee: Callee::read(client),
            ca: certificates(client),
            timeout: Duration::from_secs(value["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT)),
            must_answer: value["failurePolicy"] != "Ignore",
            takes_dry_runs: matches!(side_effects, "None" | "NoneOnDryRun"),
            asked_again: mutating && value["reinvocationPolicy"] == "IfNeeded",
            review_version: if versions.first().is_some_and(|v| v == "v1beta1") { "v1beta1" } else { "v1" },
            matching: Matching::read(value, "rules"),
            // Validation has refused what cannot be compiled.
            conditions: cel::conditions(value, "", &mut Vec::new()),
        }
    }
}

/// The webhooks of a server's cache.
#[derive(Debug, Default)]
pub(in crate::apiserver) struct Hooks {
    pub(super) mutating: Vec<Rc<Hook>>,
    pub(super) validating: Vec<Rc<Hook>>,
    /// Revisions of the last change of each kind of configuration.
    at: [Revision; 2],
}

impl Hooks {
    /// Reads the configurations again if one has changed.
    pub(in crate::apiserver) fn refresh(&mut self, cache: &Cache) {
        let at = KINDS.map(|kind| cache.last_event(kind));
        if at == self.at {
            return;
        }
        let read = |kind: Kind| {
            let configurations = cache.objects(kind).filter_map(|(_, object)| match object {
                Object::Dynamic(configuration) => Some(configuration),
                _ => None,
            });
            let hooks = |configuration: &Dynamic| {
                let hooks = configuration.body.get("webhooks").and_then(Value::as_array).cloned().unwrap_or_default();
                let mutating = kind == Kind::MUTATING_WEBHOOK_CONFIGURATION;
                hooks.iter().map(|hook| Rc::new(Hook::read(hook, mutating))).collect::<Vec<_>>()
            };
            configurations.flat_map(hooks).collect::<Vec<_>>()
        };
        let [mutating, validating] = KINDS.map(read);
        *self = Hooks { mutating, validating, at };
    }

    /// Whether there is none.
    pub(in crate::apiserver) fn is_empty(&self) -> bool {
        self.mutating.is_empty() && self.validating.is_empty()
    }
}
