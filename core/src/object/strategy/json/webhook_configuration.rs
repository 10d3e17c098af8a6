//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration.

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use serde_json::json;

use super::JsonStrategy;
use super::missing::Missing;

impl JsonStrategy for MutatingWebhookConfiguration {
    fn defaults(m: &mut Missing<'_>) {
        webhooks(m, true);
    }
}

impl JsonStrategy for ValidatingWebhookConfiguration {
    fn defaults(m: &mut Missing<'_>) {
        webhooks(m, false);
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
