//! Admission, defaulting and validation of what is written.
//!
//! The plug-ins are those that Kubernetes enables by default and that this build has a use for: NamespaceLifecycle,
//! ServiceAccount, Priority, DefaultTolerationSeconds.

use std::collections::VecDeque;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PodSpec, Toleration};

use super::ApiServer;
use crate::api::{Status, Subresource};
use crate::object::{
    Kind, Object, ObjectKey, Pod, TAINT_NOT_READY, TAINT_UNREACHABLE, defaults, qos_class, validation,
};

/// How many prepared pod specs are remembered.
const PREPARED: usize = 512;
/// Priorities that are reserved for the system.
const SYSTEM_PRIORITIES: [(&str, i32); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// A pod spec that has been through everything, and what came out.
#[derive(Debug)]
struct Entry {
    /// Kept, so that its address cannot be given to another spec.
    before: Arc<PodSpec>,
    namespace: Arc<str>,
    after: Arc<PodSpec>,
}

/// Pods of one template are prepared once: the second brings the same pod spec, and shares what came out.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    entries: VecDeque<Entry>,
}

impl Prepared {
    fn find(&self, spec: &Arc<PodSpec>, namespace: &str) -> Option<Arc<PodSpec>> {
        let same =
            |e: &&Entry| (Arc::ptr_eq(&e.before, spec) || Arc::ptr_eq(&e.after, spec)) && *e.namespace == *namespace;
        self.entries.iter().rev().find(same).map(|e| Arc::clone(&e.after))
    }

    fn add(&mut self, before: Arc<PodSpec>, namespace: &str, after: Arc<PodSpec>) {
        if self.entries.len() == PREPARED {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { before, namespace: Arc::from(namespace), after });
    }
}

impl ApiServer {
    /// Everything that a new object goes through.
    pub(super) fn admit_create(&mut self, object: &mut Object) -> Result<(), Status> {
        self.namespace_lifecycle(object)?;
        if let Object::Pod(pod) = object {
            return self.admit_pod(pod);
        }
        defaults::apply(object);
        refuse(object, &validation::create(object))
    }

    /// Everything that a changed object goes through.
    pub(super) fn admit_update(
        &mut self,
        new: &mut Object,
        old: &Object,
        subresource: Subresource,
    ) -> Result<(), Status> {
        match subresource {
            Subresource::Status => refuse(new, &validation::status_update(new, old)),
            Subresource::Finalize => Ok(()),
            Subresource::None | Subresource::Scale => {
                // A renewal of a lease or another change that leaves the spec alone needs no defaults.
                if !new.same_spec(old) {
                    defaults::apply(new);
                }
                refuse(new, &validation::update(new, old))
            }
        }
    }

    fn namespace_lifecycle(&self, object: &Object) -> Result<(), Status> {
        let name = object.namespace();
        if name.is_empty() {
            return Ok(());
        }
        match self.cache.get(&ObjectKey::new(Kind::NAMESPACE, "", name)) {
            None => Err(Status::not_found(Kind::NAMESPACE, name)),
            Some(ns) if ns.is_deleting() => {
                let why = format!("unable to create new content in namespace {name} because it is being terminated");
                Err(Status::forbidden(object.kind(), object.name(), &why))
            }
            Some(_) => Ok(()),
        }
    }

    fn admit_pod(&mut self, pod: &mut Pod) -> Result<(), Status> {
        let namespace = pod.meta.namespace.clone().unwrap_or_default();
        if let Some(after) = self.prepared.find(&pod.spec.shared, &namespace) {
            self.service_account(&after, pod)?;
            pod.spec_mut().shared = after;
            start_status(pod);
            let errors = validation::metadata_of_new(&Object::from(pod.clone()));
            return refuse(&Object::from(pod.clone()), &errors);
        }
        let before = Arc::clone(&pod.spec.shared);
        {
            let spec = Arc::make_mut(&mut pod.spec_mut().shared);
            if spec.service_account_name.as_deref().unwrap_or("").is_empty() {
                spec.service_account_name = Some(spec.service_account.clone().unwrap_or_else(|| "default".to_owned()));
            }
            spec.service_account.clone_from(&spec.service_account_name);
            tolerate_node_trouble(spec);
        }
        self.priority(pod)?;
        let mut object = Object::from(pod.clone());
        defaults::apply(&mut object);
        refuse(&object, &validation::create(&object))?;
        let Object::Pod(defaulted) = object else { unreachable!("defaults keep the kind") };
        *pod = defaulted;
        let spec = Arc::clone(&pod.spec.shared);
        self.service_account(&spec, pod)?;
        self.prepared.add(before, &namespace, spec);
        start_status(pod);
        Ok(())
    }

    fn service_account(&self, spec: &PodSpec, pod: &Pod) -> Result<(), Status> {
        let name = spec.service_account_name.as_deref().unwrap_or("default");
        let key = ObjectKey::new(Kind::SERVICE_ACCOUNT, pod.namespace(), name);
        if self.cache.get(&key).is_some() {
            return Ok(());
        }
        let why =
            format!("error looking up service account {}/{name}: serviceaccount {name:?} not found", pod.namespace());
        Err(Status::forbidden(Kind::POD, pod.name(), &why))
    }

    /// Resolves `priorityClassName`, or the default class, to a number.
    fn priority(&self, pod: &mut Pod) -> Result<(), Status> {
        let class = pod.spec.priority_class_name.clone().unwrap_or_default();
        let system = SYSTEM_PRIORITIES.iter().find(|(name, _)| *name == class).map(|(_, value)| *value);
        let field = |o: &Object, name: &str| match o {
            Object::Dynamic(d) => d.body.get(name).cloned(),
            _ => None,
        };
        let value = |o: &Object| field(o, "value").and_then(|v| v.as_i64()).and_then(|v| i32::try_from(v).ok());
        let (name, number) = if let Some(number) = system {
            (class, number)
        } else if class.is_empty() {
            let default = self
                .cache
                .range(Kind::PRIORITY_CLASS, "", None)
                .find(|(_, o)| field(o, "globalDefault").and_then(|v| v.as_bool()).unwrap_or(false));
            default.map_or((String::new(), 0), |(k, o)| (k.name().to_owned(), value(o).unwrap_or(0)))
        } else {
            let found = self.cache.get(&ObjectKey::new(Kind::PRIORITY_CLASS, "", &class));
            let Some(found) = found else {
                let why = format!("no PriorityClass with name {class} was found");
                return Err(Status::forbidden(Kind::POD, pod.name(), &why));
            };
            (class, value(found).unwrap_or(0))
        };
        let spec = Arc::make_mut(&mut pod.spec_mut().shared);
        if !name.is_empty() {
            spec.priority_class_name = Some(name);
        }
        spec.priority = Some(number);
        spec.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".to_owned());
        Ok(())
    }
}

fn refuse(object: &Object, errors: &[crate::object::FieldError]) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(object.kind(), object.name(), errors)) }
}

/// A pod starts as Pending, with its quality-of-service class.
fn start_status(pod: &mut Pod) {
    let class = qos_class(&pod.spec.shared).to_owned();
    let status = pod.status_mut();
    status.phase = Some("Pending".to_owned());
    status.qos_class = Some(class);
}

/// DefaultTolerationSeconds: five minutes on a node that is not ready or not reachable.
fn tolerate_node_trouble(spec: &mut PodSpec) {
    for key in [TAINT_NOT_READY, TAINT_UNREACHABLE] {
        let tolerates = |t: &Toleration| {
            t.key.as_deref().is_none_or(|k| k.is_empty() || k == key)
                && t.effect.as_deref().is_none_or(|e| e.is_empty() || e == "NoExecute")
        };
        let all = spec.tolerations.get_or_insert_with(Vec::new);
        if !all.iter().any(tolerates) {
            all.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(300),
                value: None,
            });
        }
    }
}
