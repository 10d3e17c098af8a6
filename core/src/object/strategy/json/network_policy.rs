//! NetworkPolicy.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::json;

use super::JsonStrategy;
use super::fields::{Errors, typed_or_none};
use super::missing::Missing;
use crate::object::Dynamic;
use crate::object::validation::networking;

impl JsonStrategy for NetworkPolicy {
    fn defaults(m: &mut Missing<'_>) {
        for direction in ["ingress", "egress"] {
            for i in 0..m.list(&["spec", direction]).len() {
                let rule = i.to_string();
                for j in 0..m.list(&["spec", direction, &rule, "ports"]).len() {
                    m.at(&["spec", direction, &rule, "ports", &j.to_string()], "protocol", || json!("TCP"));
                }
            }
        }
        if m.list(&["spec", "policyTypes"]).is_empty() {
            let both = !m.list(&["spec", "egress"]).is_empty();
            let types = if both { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
            m.set(&["spec", "policyTypes"], types);
        }
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        typed_or_none(d, errors, networking::policy);
    }
}
