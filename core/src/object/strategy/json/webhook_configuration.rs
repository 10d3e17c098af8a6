//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration.

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use serde_json::{Value, json};

use super::JsonStrategy;
use super::fields::{Errors, list, selector};
use super::missing::Missing;
use crate::object::Dynamic;
use crate::object::cel;
use crate::object::validation::path::Path;

impl JsonStrategy for MutatingWebhookConfiguration {
    fn defaults(m: &mut Missing<'_>) {
        webhooks(m, true);
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        selectors(d, errors);
    }
}

impl JsonStrategy for ValidatingWebhookConfiguration {
    fn defaults(m: &mut Missing<'_>) {
        webhooks(m, false);
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        selectors(d, errors);
    }
}

/// Sets the defaults of the webhooks in a configuration.
fn webhooks(m: &mut Missing<'_>, mutating: bool) {
    for i in 0..m.list(&["webhooks"]).len() {
        let i = i.to_string();
        let hook = ["webhooks", i.as_str()];
        m.at(&hook, "failurePolicy", || json!("Fail"));
        m.at(&hook, "matchPolicy", || json!("Equivalent"));
        m.at(&hook, "namespaceSelector", || json!({}));
        m.at(&hook, "objectSelector", || json!({}));
        m.at(&hook, "timeoutSeconds", || json!(10));
        if mutating {
            m.at(&hook, "reinvocationPolicy", || json!("Never"));
        }
        if m.has(&["webhooks", &i, "clientConfig", "service"]) {
            m.at(&["webhooks", &i, "clientConfig", "service"], "port", || json!(443));
        }
        for j in 0..m.list(&["webhooks", &i, "rules"]).len() {
            m.at(&["webhooks", &i, "rules", &j.to_string()], "scope", || json!("*"));
        }
    }
}

/// Checks the selectors and conditions of the webhooks in a configuration.
fn selectors(d: &Dynamic, errors: &mut Errors) {
    let root = &Path::Root("webhooks");
    for (i, hook) in list(&d.body, &["webhooks"]).iter().enumerate() {
        let at = root.index(i);
        for field in ["namespaceSelector", "objectSelector"] {
            selector(hook.get(field).unwrap_or(&Value::Null), &at.field(field), errors);
        }
        cel::conditions(hook, &format!("{at}."), errors);
    }
}
