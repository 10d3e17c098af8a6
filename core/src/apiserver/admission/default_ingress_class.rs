//! DefaultIngressClass: a new Ingress that names no class gets the default one.
//!
//! Source: kubernetes `plugin/pkg/admission/network/defaultingressclass/admission.go`.

use std::rc::Rc;

use serde_json::json;

use crate::apiserver::write::{Deciding, Decision, Write};
use crate::object::{Kind, Object, default_class};

const IS_DEFAULT: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];
/// The annotation by which Ingresses once named their class.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

impl Deciding<'_> {
    /// Gives an Ingress its class.
    pub(super) fn ingress_class(&mut self, _write: &Write, object: &mut Object) -> Result<(), Decision> {
        let Object::Dynamic(ingress) = object else { return Ok(()) };
        if ingress.kind != Kind::INGRESS {
            return Ok(());
        }
        let named = ingress.body.get("spec").is_some_and(|spec| !spec["ingressClassName"].is_null());
        let annotated = ingress.meta.annotations.as_ref().is_some_and(|a| a.contains_key(OLD_CLASS));
        if named || annotated {
            return Ok(());
        }
        let classes = self.cache.objects(Kind::INGRESS_CLASS).map(|(_, class)| class);
        if let Some(class) = default_class(classes, &IS_DEFAULT) {
            let spec = Rc::make_mut(&mut ingress.body).entry("spec").or_insert_with(|| json!({}));
            spec["ingressClassName"] = json!(class.name());
        }
        Ok(())
    }
}
