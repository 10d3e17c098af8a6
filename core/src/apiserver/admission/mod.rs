//! Admission, defaulting and validation of written objects.
//!
//! The order is that of Kubernetes: defaults → plug-ins that change the object → validation → plug-ins that refuse it.
//! The plug-ins are those that Kubernetes enables by default and that this build has a use for, in its order
//! ([`CHAIN`]), each in a file of its own. ResourceQuota is the last: what it charges is written with the object.
//!
//! Source: kubernetes `pkg/kubeapiserver/options/plugins.go`.

mod admin_access;
mod certificates;
mod default_ingress_class;
mod default_toleration_seconds;
mod limit_ranger;
mod matching;
mod memo;
mod mutating_policy;
mod namespace_lifecycle;
mod pod_security;
pub(super) mod policy;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage;
mod taint_nodes_by_condition;
pub(super) mod webhook;

use std::rc::Rc;

use serde_json::Value;

use super::write::{Deciding, Decision, Write};
use crate::api::{Status, Subresource};
use crate::object::{
    FieldError, Kind, Object, ObjectKey, Part, Pod, PodCondition, PodStatus, Revision, SharedPodSpec, Text, defaults,
    qos_class, validation,
};

pub(super) use memo::Memo;
use memo::Prepared;
use webhook::Operation;

/// Annotation of mirror pods, which represent a node's static pods.
const MIRROR: &str = "kubernetes.io/config.mirror";
const NAMESPACE_LIFECYCLE: &str = "NamespaceLifecycle";
const RESOURCE_QUOTA: &str = "ResourceQuota";

/// Changes a new object, or refuses it.
type Mutate = fn(&mut Deciding<'_>, &Write, &mut Object) -> Result<(), Decision>;
/// Refuses an object that is new or replaces another.
type Validate = fn(&mut Deciding<'_>, &Write, &Object, Option<&Object>) -> Result<(), Decision>;

/// A plug-in of the chain.
struct PlugIn {
    /// Kubernetes' name.
    name: &'static str,
    /// What it does before validation.
    mutate: Option<Mutate>,
    /// What it does after validation.
    validate: Option<Validate>,
}

/// The plug-ins in Kubernetes' order.
static CHAIN: &[PlugIn] = &[
    // It also says which namespaces are never deleted. What is created, it judges before everything else: an object
    // that it refuses gets no name.
    PlugIn { name: NAMESPACE_LIFECYCLE, mutate: None, validate: None },
    PlugIn {
        name: "LimitRanger",
        mutate: Some(|d, w, o| d.limit_pod(w, o)),
        validate: Some(|d, w, new, old| d.limit_claim(w, new, old)),
    },
    PlugIn { name: "ServiceAccount", mutate: Some(|d, w, o| d.service_account(w, o)), validate: None },
    PlugIn { name: "TaintNodesByCondition", mutate: Some(|d, w, o| d.taint_node(w, o)), validate: None },
    PlugIn { name: "PodSecurity", mutate: None, validate: Some(|d, w, new, old| d.pod_security(w, new, old)) },
    PlugIn { name: "Priority", mutate: Some(|d, w, o| d.priority(w, o)), validate: None },
    PlugIn { name: "DefaultTolerationSeconds", mutate: Some(|d, w, o| d.tolerate_trouble(w, o)), validate: None },
    PlugIn { name: "DefaultStorageClass", mutate: Some(|d, w, o| d.storage_class(w, o)), validate: None },
    PlugIn { name: "StorageObjectInUseProtection", mutate: Some(|d, w, o| d.protect_storage(w, o)), validate: None },
    PlugIn {
        name: "PersistentVolumeClaimResize",
        mutate: None,
        validate: Some(|d, w, new, old| d.claim_growth(w, new, old)),
    },
    // They guard subresources, where nothing else runs.
    PlugIn { name: certificates::APPROVAL, mutate: None, validate: None },
    PlugIn { name: certificates::SIGNING, mutate: None, validate: None },
    PlugIn { name: "RuntimeClass", mutate: Some(|d, w, o| d.runtime_class(w, o)), validate: None },
    PlugIn { name: "DefaultIngressClass", mutate: Some(|d, w, o| d.ingress_class(w, o)), validate: None },
    // These ask outside, and are called between the others: see `webhook`.
    PlugIn { name: mutating_policy::MUTATING, mutate: None, validate: None },
    PlugIn { name: webhook::MUTATING, mutate: None, validate: None },
    PlugIn { name: policy::VALIDATING, mutate: None, validate: None },
    PlugIn { name: webhook::VALIDATING, mutate: None, validate: None },
    // It is called where a write is committed.
    PlugIn { name: RESOURCE_QUOTA, mutate: None, validate: None },
];

/// The names of the admission plug-ins, in their order.
pub fn plug_ins() -> impl Iterator<Item = &'static str> {
    CHAIN.iter().map(|plug_in| plug_in.name)
}

impl Deciding<'_> {
    /// Whether a plug-in runs.
    fn runs(&self, name: &str) -> bool {
        !self.config.disabled_plug_ins.contains(name)
    }

    fn mutate(&mut self, write: &Write, object: &mut Object) -> Result<(), Decision> {
        for PlugIn { name, mutate, .. } in CHAIN {
            if let Some(mutate) = mutate
                && self.runs(name)
            {
                mutate(self, write, object)?;
            }
        }
        Ok(())
    }

    /// Runs the plug-ins that refuse what is not as it should be.
    fn validate(&mut self, write: &Write, new: &Object, old: Option<&Object>) -> Result<(), Decision> {
        for PlugIn { name, validate, .. } in CHAIN {
            if let Some(validate) = validate
                && self.runs(name)
            {
                validate(self, write, new, old)?;
            }
        }
        Ok(())
    }

    /// Defaults, admits and validates a new object.
    pub(super) fn admit_new(&mut self, write: &Write, object: &mut Object) -> Result<(), Decision> {
        if let Object::Pod(_) = object {
            return self.admit_pod(write, object);
        }
        apply_defaults(object);
        self.mutate(write, object)?;
        self.consult_mutating(write, CREATE, object, None, &accept)?;
        // After the webhooks: what they make of a role counts.
        self.check_grant(write, object, None)?;
        refuse(object, &validation::create(object)).map_err(Decision::refuse)?;
        self.admin_access(write, object)?;
        self.validate(write, object, None)?;
        self.consult_validating(write, CREATE, Some(object), None)
    }

    /// Defaults, validates and admits a changed object. No plug-in changes it.
    pub(super) fn admit_changed(
        &mut self,
        write: &Write,
        key: &ObjectKey,
        new: &mut Object,
        current: &Object,
        subresource: Subresource,
    ) -> Result<(), Decision> {
        let update = (Operation::Update, subresource.name());
        let refuse = |new: &Object, errors| refuse(new, errors).map_err(|status| Decision::refuse_if(key, status));
        match subresource {
            Subresource::Status => {
                refuse(new, &validation::status_update(new, current))?;
                self.certificate(write, subresource, new, current)
            }
            Subresource::Approval => {
                refuse(new, &validation::approval(new, current))?;
                self.certificate(write, subresource, new, current)
            }
            Subresource::Finalize => Ok(()),
            Subresource::None | Subresource::Scale => {
                // A stored object already has its defaults, so only a changed spec needs them.
                if !new.same_spec(current) {
                    apply_defaults(new);
                }
                refuse(new, &validation::update(new, current))?;
                self.validate(write, new, Some(current))
            }
            Subresource::EphemeralContainers => {
                apply_defaults(new);
                refuse(new, &validation::ephemeral_update(new, current))?;
                self.validate(write, new, Some(current))
            }
            Subresource::Resize => {
                apply_defaults(new);
                refuse(new, &validation::resize(new, current))?;
                self.validate(write, new, Some(current))
            }
        }?;
        self.consult_validating(write, update, Some(new), Some(current))
    }

    fn admit_pod(&mut self, write: &Write, object: &mut Object) -> Result<(), Decision> {
        let Object::Pod(pod) = object else { unreachable!("not a pod") };
        // What webhooks make of a pod is not remembered.
        let consults = self.consults_about(Kind::POD);
        if !is_mirror(pod) && !consults && self.admit_known_pod(write, pod) {
            refuse(object, &validation::metadata_of_new(object)).map_err(Decision::refuse)?;
            return self.validate(write, object, None);
        }
        let incoming = pod.spec.shared.clone();
        pod.status = Part::new(PodStatus::default());
        apply_defaults(object);
        self.mutate(write, object)?;
        self.consult_mutating(write, CREATE, object, None, &accept)?;
        if let Object::Pod(pod) = object
            && pod.spec.shared == incoming
        {
            // No default was missing: the pod keeps sharing its template's spec.
            pod.spec_mut().shared = incoming.clone();
        }
        refuse(object, &validation::create(object)).map_err(Decision::refuse)?;
        self.validate(write, object, None)?;
        self.consult_validating(write, CREATE, Some(object), None)?;
        let Object::Pod(pod) = object else { unreachable!("plug-ins keep the kind") };
        self.first_status(pod);
        if !consults {
            self.remember(write, pod, incoming);
        }
        Ok(())
    }

    /// Remembers what the plug-ins made of the spec of a pod.
    fn remember(&mut self, write: &Write, pod: &Pod, incoming: SharedPodSpec) {
        if is_mirror(pod) || pod.spec.node.is_some() {
            return;
        }
        // Without the plug-in ServiceAccount a pod may have no account, and is admitted each time.
        let Some(account) = &pod.spec.shared.service_account_name else { return };
        let account = ObjectKey::new(Kind::SERVICE_ACCOUNT, pod.namespace(), account);
        let Some(account_rv) = self.known(write, &account).map(Object::rv) else { return };
        let decided_by = self.deciding();
        self.memo.add(Prepared {
            incoming,
            namespace: Rc::from(pod.namespace()),
            spec: Rc::clone(&pod.spec),
            status: pod.status.clone(),
            limited: pod.meta.annotations.as_ref().and_then(|a| a.get(limit_ranger::SET)).cloned(),
            account,
            account_rv,
            decided_by,
        });
    }

    /// Reuses the result of an earlier pod with the same spec if that is still valid; returns whether it was.
    fn admit_known_pod(&self, write: &Write, pod: &mut Pod) -> bool {
        let Some(known) = self.memo.find(&pod.spec.shared, pod.namespace()) else { return false };
        let account = self.known(write, &known.account).map(Object::rv);
        let gated = known.spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
        if account != Some(known.account_rv) || known.decided_by != self.deciding() || gated {
            return false;
        }
        if pod.spec.node.is_some() {
            pod.spec_mut().shared = known.spec.shared.clone();
        } else {
            pod.spec = Rc::clone(&known.spec);
        }
        pod.status = known.status.clone();
        if let Some(told) = known.limited.clone() {
            pod.meta_mut().annotations.get_or_insert_default().insert(limit_ranger::SET.to_owned(), told);
        }
        true
    }

    fn deciding(&self) -> [Revision; 3] {
        [Kind::PRIORITY_CLASS, Kind::RUNTIME_CLASS, Kind::LIMIT_RANGE].map(|kind| self.cache.last_event(kind))
    }

    fn first_status(&self, pod: &mut Pod) {
        let qos_class = Text::from(qos_class(&pod.spec.shared));
        pod.status = Part::new(PodStatus { phase: Text::PENDING, qos_class, ..PodStatus::default() });
        if pod.spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()) {
            let gated = PodCondition {
                type_: Text::POD_SCHEDULED,
                status: Text::FALSE,
                reason: "SchedulingGated".into(),
                message: "Scheduling is blocked due to non-empty scheduling gates".into(),
                ..PodCondition::default()
            };
            pod.status_mut().set_condition_at(self.now.wall, gated);
        }
    }
}

/// What webhooks are told of a create.
pub(super) const CREATE: (Operation, &str) = (Operation::Create, "");

/// Makes a built-in object of what a webhook has returned.
pub(super) fn accept(deciding: &Deciding<'_>, value: Value) -> Result<Object, Status> {
    let mut object = deciding.decode(value)?;
    apply_defaults(&mut object);
    Ok(object)
}

fn is_mirror(pod: &Pod) -> bool {
    pod.meta.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR))
}

/// Applies the defaults. A pod spec without missing defaults is not copied, so it stays shared with its template.
fn apply_defaults(object: &mut Object) {
    let before = object.pod_spec().cloned();
    defaults::apply(object);
    let (Some(before), Some(after)) = (before, object.pod_spec()) else { return };
    if before.is_held_as(after) || before != *after {
        return;
    }
    object.set_pod_spec(before);
}

fn refuse(object: &Object, errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(object.info(), object.name(), errors)) }
}
