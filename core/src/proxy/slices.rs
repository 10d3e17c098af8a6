//! Maps a service to its EndpointSlices: a small index beside a view of EndpointSlices.
//!
//! A proxy runs on every node, so it uses this instead of the general label index of views, which is larger.

use core::net::IpAddr;
use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1 as discovery_v1;

use crate::client::{Change, Views};
use crate::object::{EndpointSlice, Kind, Object, ObjectKey};

/// Label that names the service of a slice.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Slices by service.
#[derive(Debug, Default)]
pub(crate) struct SliceIndex {
    slices: BTreeMap<ObjectKey, Vec<ObjectKey>>,
}

fn service_of(slice: Option<&Object>) -> Option<ObjectKey> {
    let slice = slice?;
    let name = slice.labels()?.get(SERVICE_NAME_LABEL)?;
    Some(ObjectKey::new(Kind::SERVICE, slice.namespace(), name))
}

impl SliceIndex {
    /// Applies a change of a slice; calls `touch` for each affected service.
    pub(crate) fn changed(&mut self, change: &Change, mut touch: impl FnMut(ObjectKey)) {
        let (old, new) = (service_of(change.old.as_ref()), service_of(change.new.as_ref()));
        if old != new {
            if let Some(old) = old {
                if let Some(list) = self.slices.get_mut(&old) {
                    list.retain(|k| *k != change.key);
                    if list.is_empty() {
                        self.slices.remove(&old);
                    }
                }
                touch(old);
            }
            if let Some(new) = &new {
                let list = self.slices.entry(new.clone()).or_insert_with(|| Vec::with_capacity(1));
                if let Err(at) = list.binary_search(&change.key) {
                    list.insert(at, change.key.clone());
                }
            }
        }
        if let Some(new) = new {
            touch(new);
        }
    }

    /// The slices of a service, sorted by name.
    pub(crate) fn of<'a>(&'a self, service: &ObjectKey, views: &'a Views) -> Vec<&'a EndpointSlice> {
        let keys = self.slices.get(service).into_iter().flatten();
        keys.filter_map(|k| views.get::<discovery_v1::EndpointSlice>(k)).collect()
    }
}

/// Whether an endpoint is ready; an unknown state counts as ready.
pub(crate) fn is_ready(endpoint: &discovery_v1::Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

/// The address of an endpoint: the first in its list (the others have no meaning). `None` if it cannot be parsed.
pub(crate) fn address(endpoint: &discovery_v1::Endpoint) -> Option<IpAddr> {
    endpoint.addresses.first().and_then(|a| a.parse().ok())
}
