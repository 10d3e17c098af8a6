//! Fields behind feature gates that are off are dropped when they are written, unless the stored object uses them
//! already. Source: `pkg/api/pod/util.go` (`DropDisabledPodFields`, `DropDisabledTemplateFields`).

use std::rc::Rc;

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::Value;

use crate::features::FeatureGates;
use crate::object::{Kind, Object};

/// Drops of a new object, or of one that replaces `old`, what is behind gates that are off.
pub(super) fn drop_disabled(gates: FeatureGates, new: &mut Object, old: Option<&Object>) {
    if !gates.generic_workload && names_group(new) && !old.is_some_and(names_group) {
        drop_group(new);
    }
}

fn cron_spec(object: &Object) -> Option<&PodSpec> {
    let Object::CronJob(job) = object else { return None };
    job.spec.job_template.spec.as_ref()?.template.spec.as_ref()
}

fn group_of_template(object: &Object) -> Option<&Value> {
    let Object::Dynamic(template) = object else { return None };
    if template.kind != Kind::POD_TEMPLATE {
        None
    } else {
        template.body.get("template")?.get("spec")?.get("schedulingGroup")
    }
}

/// Whether a pod or a pod template says which group its pods belong to.
fn names_group(object: &Object) -> bool {
    let spec = object.pod_spec().map(|spec| &**spec).or_else(|| cron_spec(object));
    spec.is_some_and(|spec| spec.scheduling_group.is_some()) || group_of_template(object).is_some_and(|g| !g.is_null())
}

fn drop_group(object: &mut Object) {
    if let Some(mut spec) = object.pod_spec().cloned() {
        spec.make_mut().scheduling_group = None;
        return object.set_pod_spec(spec);
    }
    match object {
        Object::CronJob(job) => {
            let job = job.spec_mut().job_template.spec.as_mut();
            if let Some(spec) = job.and_then(|job| job.template.spec.as_mut()) {
                spec.scheduling_group = None;
            }
        }
        Object::Dynamic(template) => {
            let spec = Rc::make_mut(&mut template.body).get_mut("template").and_then(|t| t.get_mut("spec"));
            if let Some(spec) = spec.and_then(Value::as_object_mut) {
                spec.remove("schedulingGroup");
            }
        }
        _ => unreachable!("no other kind names a group"),
    }
}
