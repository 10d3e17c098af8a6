//! HorizontalPodAutoscaler. Source: `pkg/apis/autoscaling/validation`.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::json;

use super::JsonStrategy;
use super::fields::{Errors, number, required};
use super::missing::Missing;
use crate::object::validation::path::Path;
use crate::object::{Dynamic, FieldError};

impl JsonStrategy for HorizontalPodAutoscaler {
    fn defaults(m: &mut Missing<'_>) {
        m.at(&["spec"], "minReplicas", || json!(1));
        if m.list(&["spec", "metrics"]).is_empty() {
            let cpu = json!([{"type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
            m.set(&["spec", "metrics"], cpu);
        }
        if m.has(&["spec", "behavior"]) {
            let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
            let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
            let up = ["spec", "behavior", "scaleUp"];
            m.at(&up, "stabilizationWindowSeconds", || json!(0));
            m.at(&up, "selectPolicy", || json!("Max"));
            m.at(&up, "policies", || json!([pods, percent]));
            let down = ["spec", "behavior", "scaleDown"];
            m.at(&down, "selectPolicy", || json!("Max"));
            m.at(&down, "policies", || json!([percent]));
        }
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        let at = &Path::Root("spec");
        let (min, max) =
            (number(&d.body, &["spec", "minReplicas"]), number(&d.body, &["spec", "maxReplicas"]).unwrap_or(0));
        if let Some(min) = min.filter(|m| *m < 1) {
            errors.push(FieldError::invalid(at.field("minReplicas"), min, "must be greater than or equal to 1"));
        }
        if max < 1 {
            errors.push(FieldError::invalid(at.field("maxReplicas"), max, "must be greater than 0"));
        }
        if min.is_some_and(|min| max < min) {
            let detail = "must be greater than or equal to `minReplicas`";
            errors.push(FieldError::invalid(at.field("maxReplicas"), max, detail));
        }
        for field in ["kind", "name"] {
            required(&d.body, &["spec", "scaleTargetRef", field], errors);
        }
    }
}
