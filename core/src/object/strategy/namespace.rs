//! Namespace. Source: `pkg/registry/core/namespace/strategy.go`.

use std::borrow::Cow;
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use super::{Strategy, text};
use crate::object::validation::names::{self, Wrongs};
use crate::object::{Kind, Namespace, Obj, Object, ObjectMeta, Resource, defaults};

spec_and_status!(Namespace core_v1::Namespace, NAMESPACE, core_v1::NamespaceSpec, core_v1::NamespaceStatus);

impl Strategy for core_v1::Namespace {
    const NAME: fn(&str) -> Wrongs = names::label;

    /// A new namespace is active, and gets the `kubernetes` finalizer so that it is not removed before its contents
    /// are.
    fn prepare_for_create(namespace: &mut Namespace) {
        namespace.status = Default::default();
        namespace.status_mut().phase = Some("Active".to_owned());
        let finalizers = namespace.spec_mut().finalizers.get_or_insert_with(Vec::new);
        if !finalizers.iter().any(|f| f == "kubernetes") {
            finalizers.push("kubernetes".to_owned());
        }
        let name = namespace.name().to_owned();
        let labels = namespace.meta_mut().labels.get_or_insert_with(Default::default);
        labels.insert("kubernetes.io/metadata.name".to_owned(), name);
    }

    /// `spec.finalizers` can be changed only through `/finalize`.
    fn prepare_for_update(new: &mut Namespace, old: &Namespace) {
        new.spec = Rc::clone(&old.spec);
    }

    fn finalize(namespace: &mut Namespace, sent: &Namespace) {
        if namespace.spec.finalizers != sent.spec.finalizers {
            namespace.spec_mut().finalizers.clone_from(&sent.spec.finalizers);
        }
    }

    /// It is not removed while `spec.finalizers` is not empty.
    fn ends_on_update(namespace: &Namespace, _old: &Namespace) -> bool {
        namespace.spec.finalizers.as_ref().is_none_or(Vec::is_empty)
    }

    fn apply_defaults(namespace: &mut Namespace) {
        defaults::namespace(namespace);
    }

    fn field<'a>(namespace: &'a Namespace, _path: &str) -> Option<Cow<'a, str>> {
        text(namespace.status.phase.as_deref())
    }
}
