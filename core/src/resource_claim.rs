//! Claims for devices (`resource.k8s.io`), as the scheduler, controllers, the agent and checks read them.
//!
//! Source: `k8s.io/dynamic-resource-allocation/resourceclaim`.

use k8s_openapi::api::core::v1 as core_v1;
use serde_json::Value;

use crate::object::{Kind, Object, ObjectKey, Pod};
use crate::volume;

/// Finalizer of claims: it is allocated, or about to be.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// Annotation of a claim that was made from a template: which of its pod's claims it is.
pub const POD_CLAIM_NAME: &str = "resource.kubernetes.io/pod-claim-name";
/// Label of namespaces whose claims may have admin access.
pub const ADMIN_ACCESS: &str = "resource.kubernetes.io/admin-access";
/// How many pods may use a claim at once (`ResourceClaimReservedForMaxSize`).
pub const RESERVED_MAX: usize = 256;

/// A device, as all slices name it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub struct DeviceId {
    pub driver: String,
    pub pool: String,
    pub device: String,
}

impl std::fmt::Display for DeviceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.driver, self.pool, self.device)
    }
}

/// What an entry of a pod's `spec.resourceClaims` comes to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Named {
    /// A claim that exists by itself.
    Own(ObjectKey),
    /// A claim that was made for the pod from a template.
    Made(ObjectKey),
    /// The pod's status says that it needs none.
    NotNeeded,
    /// It has not been made yet.
    NotMade,
}

impl Named {
    /// The claim, if there is one.
    pub fn claim(&self) -> Option<&ObjectKey> {
        match self {
            Named::Own(claim) | Named::Made(claim) => Some(claim),
            Named::NotNeeded | Named::NotMade => None,
        }
    }
}

fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(Kind::RESOURCE_CLAIM, namespace, name)
}

/// Whether pods of a spec use claims for devices.
pub fn has_claims(spec: &core_v1::PodSpec) -> bool {
    spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty())
}

/// What a pod's status says of one of its claims.
fn told<'a>(pod: &'a Pod, name: &str) -> Option<&'a core_v1::PodResourceClaimStatus> {
    let rest = pod.status.rest.as_deref()?;
    rest.resource_claim_statuses.iter().flatten().find(|status| status.name == name)
}

/// The claims of a pod, and what they come to (`Name`).
pub fn claims(pod: &Pod) -> impl Iterator<Item = (&core_v1::PodResourceClaim, Named)> {
    pod.spec.shared.resource_claims.iter().flatten().map(|claim| {
        let named = match (&claim.resource_claim_name, told(pod, &claim.name)) {
            (Some(name), _) => Named::Own(key(pod.namespace(), name)),
            (None, None) => Named::NotMade,
            (None, Some(status)) => match &status.resource_claim_name {
                Some(name) => Named::Made(key(pod.namespace(), name)),
                None => Named::NotNeeded,
            },
        };
        (claim, named)
    })
}

/// A claim's allocation; `None` if it is not allocated.
pub fn allocation(claim: &Object) -> Option<&Value> {
    volume::value(claim, "/status/allocation").filter(|allocation| !allocation.is_null())
}

fn list<'a>(of: Option<&'a Value>, path: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    of.and_then(|value| value.pointer(path)).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The devices that an allocation gives to its claim alone: those with admin access are not among them.
pub fn devices(allocation: &Value) -> impl Iterator<Item = DeviceId> {
    let results = list(Some(allocation), "/devices/results");
    let own = results.filter(|result| result.get("adminAccess") != Some(&Value::Bool(true)));
    own.map(|result| DeviceId {
        driver: text(result, "driver").to_owned(),
        pool: text(result, "pool").to_owned(),
        device: text(result, "device").to_owned(),
    })
}

/// A pod, or something else, that may use a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Consumer<'a> {
    pub group: &'a str,
    pub resource: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
}

/// Who may use a claim (`status.reservedFor`).
pub fn consumers(claim: &Object) -> impl Iterator<Item = Consumer<'_>> {
    list(volume::value(claim, "/status/reservedFor"), "").map(|of| Consumer {
        group: text(of, "apiGroup"),
        resource: text(of, "resource"),
        name: text(of, "name"),
        uid: text(of, "uid"),
    })
}

/// Whether a pod with this UID may use a claim (`IsReservedForPod`).
pub fn is_reserved_for(claim: &Object, uid: &str) -> bool {
    consumers(claim).any(|consumer| consumer.uid == uid)
}

/// Whether one more pod may use a claim (`CanBeReserved`).
pub fn can_be_reserved(claim: &Object) -> bool {
    consumers(claim).count() < RESERVED_MAX
}

/// Why a claim is not the pod's own (`IsForPod`); `None` if it is.
pub fn not_of_pod(pod: &ObjectKey, uid: &str, claim: &Object) -> Option<String> {
    let owned = claim.meta().owner_references.iter().flatten();
    let is_its = owned.into_iter().any(|owner| owner.controller == Some(true) && owner.uid == uid);
    (!is_its).then(|| {
        format!("ResourceClaim {} was not created for pod {} (pod is not owner)", claim.key().path(), pod.path())
    })
}
