//! DefaultTolerationSeconds: a pod tolerates a node that is not ready or not reachable for five minutes.
//!
//! Source: kubernetes `plugin/pkg/admission/defaulttolerationseconds/admission.go`.

use k8s_openapi::api::core::v1::Toleration;

use crate::apiserver::write::{Deciding, Decision, Write};
use crate::object::{Object, Pod, TAINT_NOT_READY, TAINT_UNREACHABLE};

impl Deciding<'_> {
    /// Lets a pod tolerate trouble for a while.
    pub(super) fn tolerate_trouble(&mut self, _write: &Write, object: &mut Object) -> Result<(), Decision> {
        if let Object::Pod(pod) = object {
            tolerate(pod);
        }
        Ok(())
    }
}

fn tolerate(pod: &mut Pod) {
    for key in [TAINT_NOT_READY, TAINT_UNREACHABLE] {
        let tolerates = |t: &Toleration| {
            let is = |field: &Option<String>, value: &str| field.as_deref().is_none_or(|f| f.is_empty() || f == value);
            is(&t.key, key) && is(&t.effect, "NoExecute")
        };
        if pod.spec.shared.tolerations.iter().flatten().any(tolerates) {
            continue;
        }
        let spec = pod.spec_mut().shared.make_mut();
        spec.tolerations.get_or_insert_with(Vec::new).push(Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            toleration_seconds: Some(300),
            value: None,
        });
    }
}
