//! Specs with a pod template. The template's pod spec is shared between a Deployment, its ReplicaSets and all their
//! pods, so a hundred pods of one template need the memory of one pod spec.

use std::ops::{Deref, DerefMut};

use k8s_openapi::api::{apps::v1 as apps_v1, batch::v1 as batch_v1, core::v1 as core_v1};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::SharedPodSpec;

/// A spec type that contains a pod template.
pub trait HasTemplate: Clone + Default + PartialEq + std::fmt::Debug {
    /// The template, mutably; created if absent.
    fn template_mut(&mut self) -> &mut core_v1::PodTemplateSpec;
    /// The template's metadata.
    fn template_meta(&self) -> Option<&ObjectMeta>;
    /// Whether there is a template. A template always has a pod spec, though it may be empty, as in Go.
    fn has_template(&self) -> bool;
}

/// Implements [`HasTemplate`] for a spec whose template is always present.
macro_rules! has_template {
    ($($spec:ty),*) => {
        $(impl HasTemplate for $spec {
            fn template_mut(&mut self) -> &mut core_v1::PodTemplateSpec {
                &mut self.template
            }
            fn template_meta(&self) -> Option<&ObjectMeta> {
                self.template.metadata.as_ref()
            }
            fn has_template(&self) -> bool {
                true
            }
        })*
    };
}
has_template!(apps_v1::DeploymentSpec, apps_v1::StatefulSetSpec, apps_v1::DaemonSetSpec, batch_v1::JobSpec);

/// Implements [`HasTemplate`] for a spec whose template may be absent.
macro_rules! may_have_template {
    ($($spec:ty),*) => {
        $(impl HasTemplate for $spec {
            fn template_mut(&mut self) -> &mut core_v1::PodTemplateSpec {
                self.template.get_or_insert_with(Default::default)
            }
            fn template_meta(&self) -> Option<&ObjectMeta> {
                self.template.as_ref().and_then(|t| t.metadata.as_ref())
            }
            fn has_template(&self) -> bool {
                self.template.is_some()
            }
        })*
    };
}
may_have_template!(apps_v1::ReplicaSetSpec, core_v1::ReplicationControllerSpec);

/// A spec whose template's pod spec is held separately. Dereferences to the spec, in which `template.spec` is always
/// `None`. The pod spec is [`pod`](Self::pod); `template_meta()` has the template's labels and annotations.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Templated<S> {
    /// Everything but the template's pod spec.
    pub fields: S,
    /// `spec.template.spec`.
    pub pod: SharedPodSpec,
    /// Whether `spec.template.spec` was given at all.
    has_pod: bool,
}

impl<S: HasTemplate> Templated<S> {
    /// Moves the pod spec out of a whole spec.
    pub fn new(mut fields: S) -> Templated<S> {
        let pod = if fields.has_template() { fields.template_mut().spec.take() } else { None };
        let has_pod = pod.is_some();
        Templated { fields, pod: pod.unwrap_or_default().into(), has_pod }
    }

    /// Builds a spec with an existing pod spec, which is shared.
    pub fn with_pod(mut fields: S, pod: SharedPodSpec) -> Templated<S> {
        fields.template_mut().spec = None;
        Templated { fields, pod, has_pod: true }
    }

    /// Builds the whole spec. Copies everything.
    pub fn to_whole(&self) -> S {
        let mut fields = self.fields.clone();
        if self.has_pod {
            fields.template_mut().spec = Some(core_v1::PodSpec::clone(&self.pod));
        }
        fields
    }

    /// Builds the whole template. Copies everything.
    pub fn template(&self) -> core_v1::PodTemplateSpec {
        let spec = self.has_pod.then(|| core_v1::PodSpec::clone(&self.pod));
        core_v1::PodTemplateSpec { metadata: self.template_meta().cloned(), spec }
    }

    /// Labels and annotations of the template.
    pub fn template_meta(&self) -> Option<&ObjectMeta> {
        self.fields.template_meta()
    }

    /// Whether `spec.template.spec` was given at all.
    pub fn template_is_given(&self) -> bool {
        self.has_pod
    }

    /// Pod spec for writing (copied first if shared).
    pub fn pod_mut(&mut self) -> &mut core_v1::PodSpec {
        self.has_pod = true;
        self.pod.make_mut()
    }

    /// Whether two specs have equal templates (metadata and pod spec). Shared pod specs compare equal at once.
    pub fn same_template<T: HasTemplate>(&self, other: &Templated<T>) -> bool {
        self.pod == other.pod && self.template_meta() == other.template_meta()
    }
}

impl<S> Deref for Templated<S> {
    type Target = S;
    fn deref(&self) -> &S {
        &self.fields
    }
}

impl<S> DerefMut for Templated<S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.fields
    }
}
