//! Admission, defaulting and validation of written objects.
//!
//! The plug-ins are those that Kubernetes enables by default and that this build has a use for: NamespaceLifecycle (see
//! `namespace`), LimitRanger (see `limit_ranger`), ServiceAccount, Priority, DefaultTolerationSeconds,
//! TaintNodesByCondition, RuntimeClass (see `runtime_class`), PodSecurity (see `pod_security`), ResourceQuota (see
//! `quota`).

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use k8s_openapi::api::core::v1::{Taint, Toleration};
use serde_json::Value;

use super::limit_ranger;
use super::pod_security;
use super::write::{Deciding, Decision, Write};
use crate::api::{Status, Subresource};
use crate::limits;
use crate::object::{
    BoundPodSpec, FieldError, Kind, Object, ObjectKey, Part, Pod, PodCondition, PodStatus, Revision, SharedPodSpec,
    Summarized, TAINT_NOT_READY, TAINT_UNREACHABLE, Text, defaults, qos_class, validation,
};
use crate::store::StoreKey;

/// Annotation of mirror pods, which represent a node's static pods.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Priorities above this are reserved for the system.
const HIGHEST_USER_PRIORITY: i32 = 1_000_000_000;

/// The result of preparing a pod spec.
#[derive(Debug)]
struct Prepared {
    /// The spec as received.
    incoming: SharedPodSpec,
    namespace: Rc<str>,
    /// The spec after defaulting, admission and validation.
    spec: Rc<BoundPodSpec>,
    status: Summarized<PodStatus>,
    /// LimitRanger's annotation.
    limited: Option<String>,
    account: ObjectKey,
    account_rv: Revision,
    /// Revision of the last change of a PriorityClass, of a RuntimeClass and of a LimitRange when the spec was
    /// prepared.
    decided_by: [Revision; 3],
}

/// Cache of prepared pod specs: pods of one template are prepared once and share the result, whichever client created
/// them.
#[derive(Debug, Default)]
pub(super) struct Memo {
    /// By fingerprint of the received spec. Used for look-ups only, never iterated.
    by_print: BTreeMap<u64, Vec<Prepared>>,
    /// Oldest first.
    order: VecDeque<(SharedPodSpec, Rc<str>)>,
}

impl Memo {
    pub(super) fn clear(&mut self) {
        *self = Memo::default();
    }

    fn find(&self, spec: &SharedPodSpec, namespace: &str) -> Option<&Prepared> {
        self.by_print.get(&spec.fingerprint())?.iter().find(|p| p.is_of(spec, namespace))
    }

    fn add(&mut self, prepared: Prepared) {
        let (spec, namespace) = (prepared.incoming.clone(), Rc::clone(&prepared.namespace));
        let here = self.by_print.entry(spec.fingerprint()).or_default();
        match here.iter_mut().find(|p| p.is_of(&spec, &namespace)) {
            Some(old) => *old = prepared,
            None => {
                here.push(prepared);
                self.order.push_back((spec, namespace));
            }
        }
        if self.order.len() > limits::PREPARED_SPECS {
            let (spec, namespace) = self.order.pop_front().expect("a memo over its bound is not empty");
            let print = spec.fingerprint();
            let here = self.by_print.get_mut(&print).expect("the order names entries");
            here.retain(|p| !p.is_of(&spec, &namespace));
            if here.is_empty() {
                self.by_print.remove(&print);
            }
        }
    }
}

impl Prepared {
    fn is_of(&self, spec: &SharedPodSpec, namespace: &str) -> bool {
        *self.namespace == *namespace && self.incoming == *spec
    }
}

impl Deciding<'_> {
    /// Defaults, admits and validates a new object.
    pub(super) fn admit_new(&mut self, write: &Write, object: &mut Object) -> Result<(), Decision> {
        if let Object::Pod(pod) = object {
            return self.admit_pod(write, pod);
        }
        apply_defaults(object);
        if let Object::Node(node) = object {
            // TaintNodesByCondition: no pod is scheduled to a node before the node is known to be ready.
            let taints = node.spec_mut().taints.get_or_insert_with(Vec::new);
            if !taints.iter().any(|t| t.key == TAINT_NOT_READY && t.effect == "NoSchedule") {
                let (key, effect) = (TAINT_NOT_READY.to_owned(), "NoSchedule".to_owned());
                taints.push(Taint { key, effect, ..Taint::default() });
            }
        }
        self.admit_storage(object);
        let mut errors = validation::create(object);
        if let Object::Namespace(namespace) = object {
            errors.extend(pod_security::wrong_labels(namespace.meta.labels.as_ref()));
        }
        refuse(object, &errors).map_err(Decision::refuse)?;
        match object {
            Object::Dynamic(claim) if claim.kind == Kind::PERSISTENT_VOLUME_CLAIM => self.limit_claim(write, claim),
            _ => Ok(()),
        }
    }

    /// Defaults and validates a changed object.
    pub(super) fn admit_changed(
        &mut self,
        new: &mut Object,
        current: &Object,
        subresource: Subresource,
    ) -> Result<(), Status> {
        match subresource {
            Subresource::Status => refuse(new, &validation::status_update(new, current)),
            Subresource::Finalize => Ok(()),
            Subresource::None | Subresource::Scale => {
                // A stored object already has its defaults, so only a changed spec needs them.
                if !new.same_spec(current) {
                    apply_defaults(new);
                }
                let mut errors = validation::update(new, current);
                if let (Object::Namespace(new), Object::Namespace(old)) = (&*new, current) {
                    let wrong = pod_security::wrong_labels(new.meta.labels.as_ref());
                    if wrong != pod_security::wrong_labels(old.meta.labels.as_ref()) {
                        errors.extend(wrong);
                    }
                }
                refuse(new, &errors)?;
                self.admit_growth(new, current)
            }
        }
    }

    fn admit_pod(&mut self, write: &Write, pod: &mut Pod) -> Result<(), Decision> {
        let mirror = pod.meta.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR));
        if !mirror && self.admit_known_pod(write, pod) {
            refuse_pod(pod, validation::metadata_of_new)?;
            return self.pod_security(write, pod);
        }
        let incoming = pod.spec.shared.clone();
        pod.status = Part::new(PodStatus::default());
        let mut object = Object::Pod(pod.clone());
        apply_defaults(&mut object);
        let Object::Pod(defaulted) = object else { unreachable!("defaults keep the kind") };
        *pod = defaulted;
        self.limit_pod(write, pod)?;
        self.priority(write, pod)?;
        let with_account = self.config.service_accounts && !mirror;
        let account = if with_account { Some(self.service_account(write, pod)?) } else { None };
        tolerate_trouble_for_a_while(pod);
        self.runtime_class(write, pod)?;
        if pod.spec.shared == incoming {
            // No default was missing: the pod keeps sharing its template's spec.
            pod.spec_mut().shared = incoming.clone();
        }
        refuse_pod(pod, validation::create)?;
        self.pod_security(write, pod)?;
        self.first_status(pod);
        if let (Some((account, account_rv)), None) = (account, &pod.spec.node) {
            self.memo.add(Prepared {
                incoming,
                namespace: Rc::from(pod.namespace()),
                spec: Rc::clone(&pod.spec),
                status: pod.status.clone(),
                limited: pod.meta.annotations.as_ref().and_then(|a| a.get(limit_ranger::SET)).cloned(),
                account,
                account_rv,
                decided_by: self.deciding(),
            });
        }
        Ok(())
    }

    /// Reuses the result of an earlier pod with the same spec if that is still valid; returns whether it was.
    fn admit_known_pod(&self, write: &Write, pod: &mut Pod) -> bool {
        let Some(known) = self.memo.find(&pod.spec.shared, pod.namespace()) else { return false };
        let account = self.object(write, &known.account).map(|a| a.rv());
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
        let class = Text::from(qos_class(&pod.spec.shared));
        let status = pod.status_mut();
        status.phase = Text::PENDING;
        status.qos_class = class;
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

    /// ServiceAccount: every pod has a service account, which must exist.
    fn service_account(&self, write: &Write, pod: &mut Pod) -> Result<(ObjectKey, Revision), Decision> {
        let spec = &pod.spec.shared;
        let named = [&spec.service_account_name, &spec.service_account];
        let name = named.iter().find_map(|n| n.as_deref().filter(|n| !n.is_empty())).unwrap_or("default").to_owned();
        let key = ObjectKey::new(Kind::SERVICE_ACCOUNT, pod.namespace(), &name);
        let Some(Object::ServiceAccount(account)) = self.object(write, &key) else {
            let why = format!(
                "error looking up service account {}/{name}: serviceaccount {name:?} not found",
                pod.namespace()
            );
            return Err(Decision::refuse_if(&key, Status::forbidden(Kind::POD.row(), pod.name(), &why)));
        };
        let spec = pod.spec_mut().shared.make_mut();
        spec.service_account_name = Some(name.clone());
        spec.service_account = Some(name);
        if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
            spec.image_pull_secrets = account.spec.image_pull_secrets.clone().filter(|s| !s.is_empty());
        }
        Ok((key, account.rv))
    }

    /// Priority: resolves `priorityClassName`, or the default class, to an integer.
    fn priority(&self, write: &Write, pod: &mut Pod) -> Result<(), Decision> {
        let asked = pod.spec.shared.priority_class_name.clone().unwrap_or_default();
        let forbid = |why: &str| Status::forbidden(Kind::POD.row(), pod.name(), why);
        let class = if asked.is_empty() {
            self.default_class()
        } else {
            let key = ObjectKey::new(Kind::PRIORITY_CLASS, "", &asked);
            let found = self.object(write, &key);
            if found.is_none() {
                let why = format!("no PriorityClass with name {asked} was found");
                return Err(Decision::refuse_if(&key, forbid(&why)));
            }
            found
        };
        let value = class.as_ref().and_then(|c| body(c, "value")).and_then(Value::as_i64).unwrap_or(0);
        let value = i32::try_from(value).unwrap_or(HIGHEST_USER_PRIORITY);
        let policy = class.as_ref().and_then(|c| body(c, "preemptionPolicy")).and_then(Value::as_str);
        let policy = policy.unwrap_or("PreemptLowerPriority").to_owned();
        let spec = &pod.spec.shared;
        let keys = class.iter().map(|c| StoreKey::Object(c.key())).collect::<Vec<_>>();
        if let Some(given) = spec.priority.filter(|p| *p != value) {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission \
                 controller computed {value} from the given PriorityClass name"
            );
            return Err(Decision::AnswerIf(keys, Err(forbid(&why))));
        }
        if let Some(given) = spec.preemption_policy.as_ref().filter(|p| **p != policy) {
            let why = format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name"
            );
            return Err(Decision::AnswerIf(keys, Err(forbid(&why))));
        }
        let spec = pod.spec_mut().shared.make_mut();
        spec.priority_class_name = class.map(|c| c.name().to_owned());
        spec.priority = Some(value);
        spec.preemption_policy = Some(policy);
        Ok(())
    }

    /// The default PriorityClass; if there are several, the one with the lowest value.
    fn default_class(&self) -> Option<Object> {
        let default = |o: &&Object| body(o, "globalDefault").and_then(Value::as_bool) == Some(true);
        let value = |o: &&Object| body(o, "value").and_then(Value::as_i64).unwrap_or(0);
        self.cache.objects(Kind::PRIORITY_CLASS).map(|(_, o)| o).filter(default).min_by_key(value).cloned()
    }
}

fn body<'a>(object: &'a Object, field: &str) -> Option<&'a Value> {
    match object {
        Object::Dynamic(d) => d.body.get(field),
        _ => None,
    }
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

fn refuse_pod(pod: &Pod, validate: impl Fn(&Object) -> Vec<FieldError>) -> Result<(), Decision> {
    let object = Object::Pod(pod.clone());
    refuse(&object, &validate(&object)).map_err(Decision::refuse)
}

/// DefaultTolerationSeconds: tolerates a not-ready or unreachable node for five minutes.
fn tolerate_trouble_for_a_while(pod: &mut Pod) {
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
