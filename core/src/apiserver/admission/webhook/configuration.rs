//! Webhook configurations as they are read: which requests a webhook is asked about, and how.
//!
//! Source: kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook/{accessors.go,predicates}`.

use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::{Callee, Operation};
use crate::apiserver::cache::Cache;
use crate::object::{Dynamic, Kind, KindInfo, Object, Revision, Selector};

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
    /// `matchPolicy: Equivalent`.
    equivalent: bool,
    rules: Vec<Rule>,
    pub(super) namespaces: Selector,
    pub(super) objects: Selector,
}

#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
}

/// A request, as rules ask about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) operation: Operation,
    pub(super) of: &'a KindInfo,
    pub(super) subresource: &'a str,
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn covers(list: &[String], word: &str) -> bool {
    list.iter().any(|w| w == "*" || w == word)
}

/// A selector; validation has made sure that it can be read.
fn selector(value: &Value) -> Selector {
    let read = serde_json::from_value::<LabelSelector>(value.clone()).ok();
    read.and_then(|s| Selector::from_label_selector(&s).ok()).unwrap_or_else(Selector::everything)
}

impl Rule {
    fn read(value: &Value) -> Rule {
        Rule {
            operations: words(&value["operations"]),
            groups: words(&value["apiGroups"]),
            versions: words(&value["apiVersions"]),
            resources: words(&value["resources"]),
            scope: value["scope"].as_str().unwrap_or("*").to_owned(),
        }
    }

    fn matches(&self, asked: &Asked<'_>, version: &str) -> bool {
        let scope = match self.scope.as_str() {
            "Namespaced" => asked.of.namespaced,
            "Cluster" => !asked.of.namespaced,
            _ => true,
        };
        let resource = |rule: &String| {
            let (resource, subresource) = rule.split_once('/').unwrap_or((rule, ""));
            (resource == "*" || resource == asked.of.plural) && (subresource == "*" || subresource == asked.subresource)
        };
        scope
            && covers(&self.operations, asked.operation.name())
            && covers(&self.groups, &asked.of.group)
            && covers(&self.versions, version)
            && self.resources.iter().any(resource)
    }
}

impl Hook {
    fn read(value: &Value, mutating: bool) -> Hook {
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let client = &value["clientConfig"];
        let callee = match client["url"].as_str() {
            Some(url) => Callee::Url(url.to_owned()),
            None => {
                let service = &client["service"];
                let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
                let (namespace, name) = (text(service, "namespace"), text(service, "name"));
                Callee::Service { namespace, name, path: text(service, "path"), port }
            }
        };
        let ca = client["caBundle"].as_str().and_then(|bundle| STANDARD.decode(bundle).ok());
        let versions = words(&value["admissionReviewVersions"]);
        let side_effects = value["sideEffects"].as_str().unwrap_or("Unknown");
        Hook {
            name: text(value, "name"),
            callee,
            ca: ca.and_then(|pem| String::from_utf8(pem).ok()),
            timeout: Duration::from_secs(value["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT)),
            must_answer: value["failurePolicy"] != "Ignore",
            takes_dry_runs: matches!(side_effects, "None" | "NoneOnDryRun"),
            asked_again: mutating && value["reinvocationPolicy"] == "IfNeeded",
            review_version: if versions.first().is_some_and(|v| v == "v1beta1") { "v1beta1" } else { "v1" },
            equivalent: value["matchPolicy"] != "Exact",
            rules: value["rules"].as_array().into_iter().flatten().map(Rule::read).collect(),
            namespaces: selector(&value["namespaceSelector"]),
            objects: selector(&value["objectSelector"]),
        }
    }

    /// The version in which it is asked about a request; `None` if its rules don't cover it. Of the versions in which
    /// the resource is served, one that equals the request's is preferred.
    pub(super) fn version_for(&self, asked: &Asked<'_>) -> Option<String> {
        let matches = |version: &str| self.rules.iter().any(|rule| rule.matches(asked, version));
        if matches(&asked.of.version) {
            return Some(asked.of.version.to_string());
        }
        let same_group = asked.of.also.iter().filter(|also| also.group == asked.of.group);
        let mut others = same_group.map(|also| also.version.to_string());
        if self.equivalent { others.find(|version| matches(version)) } else { None }
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

#[cfg(test)]
mod tests {
    use super::{Asked, Hook};
    use crate::apiserver::admission::webhook::Operation;
    use crate::object::{GroupVersion, Kind, KindInfo};
    use serde_json::{Value, json};

    #[test]
    fn rules_match_as_upstreams() {
        let check = |rule: Value, policy: &str, operation: Operation, of: &KindInfo, sub: &str, want: Option<&str>| {
            let hook = Hook::read(&json!({"rules": [rule], "matchPolicy": policy}), false);
            let asked = Asked { operation, of, subresource: sub };
            assert_eq!(hook.version_for(&asked).as_deref(), want, "{rule} {operation:?} {}/{sub}", of.plural);
        };
        let rule = |operations: &[&str], group: &str, version: &str, resource: &str, scope: &str| {
            json!({"operations": operations, "apiGroups": [group], "apiVersions": [version], "resources": [resource],
                "scope": scope})
        };
        let (pods, nodes, create) = (Kind::POD.row(), Kind::NODE.row(), Operation::Create);
        check(rule(&["CREATE"], "", "v1", "pods", "*"), "Exact", create, pods, "", Some("v1"));
        check(rule(&["UPDATE"], "", "v1", "pods", "*"), "Exact", create, pods, "", None);
        check(rule(&["*"], "*", "*", "*", "*"), "Exact", create, pods, "", Some("v1"));
        check(rule(&["*"], "*", "*", "*", "*"), "Exact", Operation::Update, pods, "status", None);
        check(rule(&["*"], "*", "*", "*/*", "*"), "Exact", Operation::Update, pods, "status", Some("v1"));
        check(rule(&["*"], "", "v1", "pods/*", "*"), "Exact", Operation::Update, pods, "status", Some("v1"));
        check(rule(&["*"], "apps", "v1", "pods", "*"), "Exact", create, pods, "", None);
        check(rule(&["*"], "*", "*", "*", "Namespaced"), "Exact", create, nodes, "", None);
        check(rule(&["*"], "*", "*", "*", "Cluster"), "Exact", create, nodes, "", Some("v1"));
        let also = vec![GroupVersion { group: "example.com".into(), version: "v1beta1".into() }];
        let widgets = KindInfo {
            group: "example.com".into(),
            version: "v1".into(),
            plural: "widgets".into(),
            also: also.into(),
            ..KindInfo::custom()
        };
        let beta = || rule(&["*"], "example.com", "v1beta1", "widgets", "*");
        check(beta(), "Exact", create, &widgets, "", None);
        check(beta(), "Equivalent", create, &widgets, "", Some("v1beta1"));
    }
}
