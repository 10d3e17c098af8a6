//! Parses the path of a URL.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris>.

use std::sync::Arc;

use skeg_core::Kind;
use skeg_core::api::{Reason, Status};

use super::served::{Resource, Served};

/// What a path refers to.
#[derive(Clone, PartialEq, Debug)]
pub enum Route {
    /// `/healthz`, `/livez` or `/readyz`, or one of their checks.
    Health {
        /// True for `/readyz`, which asks whether requests can be served; the others ask whether the process is alive.
        readiness: bool,
        /// The check, if the path names one.
        check: Option<String>,
    },
    /// `/version`.
    Version,
    /// `/metrics`.
    Metrics,
    /// `/`: the list of paths.
    Root,
    /// `/api` or `/apis`.
    Groups {
        /// True for `/api`.
        legacy: bool,
    },
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    Resources {
        /// The group; empty for the core group.
        group: String,
        /// The version.
        version: String,
    },
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v3`.
    OpenApiIndex,
    /// `/openapi/v3/api/v1` or `/openapi/v3/apis/GROUP/VERSION`. The value is the path after `/openapi/v3/`.
    OpenApi(String),
    /// `/.well-known/openid-configuration`.
    OpenIdConfiguration,
    /// `/openid/v1/jwks`.
    KeySet,
    /// An object or a collection.
    Objects(Objects),
}

/// An object or a collection, as the path names it.
#[derive(Clone, PartialEq, Debug)]
pub struct Objects {
    /// The resource, in the version that the path names.
    pub resource: Arc<Resource>,
    /// The namespace; empty for all namespaces or a cluster-scoped resource.
    pub namespace: String,
    /// The object's name; `None` for a collection.
    pub name: Option<String>,
    /// The subresource, if the path names one.
    pub subresource: Option<String>,
    /// Whether the path is the deprecated `/api/v1/watch/…`.
    pub watch: bool,
}

/// 404 for a path that does not exist.
pub fn not_found() -> Status {
    let message = "the server could not find the requested resource".into();
    // `kubectl debug` reads the details of every 404, and crashes without.
    Status { reason: Reason::NotFound, message, details: Some(Box::default()) }
}

/// Parses a path. `served` has the resources that exist.
pub fn route(served: &Served, path: &str) -> Result<Route, Status> {
    let decoded = segments(path)?;
    let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
    let health =
        |readiness: bool, check: Option<&&str>| Route::Health { readiness, check: check.map(|c| (*c).to_owned()) };
    Ok(match parts.as_slice() {
        [] => Route::Root,
        ["healthz" | "livez", rest @ ..] if rest.len() <= 1 => health(false, rest.first()),
        ["readyz", rest @ ..] if rest.len() <= 1 => health(true, rest.first()),
        ["version"] => Route::Version,
        ["metrics"] => Route::Metrics,
        ["api"] => Route::Groups { legacy: true },
        ["apis"] => Route::Groups { legacy: false },
        ["openapi", "v2"] => Route::OpenApiV2,
        ["openapi", "v3"] => Route::OpenApiIndex,
        ["openapi", "v3", rest @ ..] => Route::OpenApi(rest.join("/")),
        [".well-known", "openid-configuration"] => Route::OpenIdConfiguration,
        ["openid", "v1", "jwks"] => Route::KeySet,
        ["api", "v1"] => Route::Resources { group: String::new(), version: "v1".to_owned() },
        ["apis", group] => Route::Group((*group).to_owned()),
        ["apis", group, version] => Route::Resources { group: (*group).to_owned(), version: (*version).to_owned() },
        ["api", version, rest @ ..] => Route::Objects(objects(served, "", version, rest)?),
        ["apis", group, version, rest @ ..] => Route::Objects(objects(served, group, version, rest)?),
        _ => return Err(not_found()),
    })
}

/// Splits and decodes a path. A segment that decodes to `.`, `..` or something with a slash is refused, because it
/// would change the meaning of a store key.
pub fn segments(path: &str) -> Result<Vec<String>, Status> {
    let mut segments = Vec::new();
    for raw in path.split('/').filter(|s| !s.is_empty()) {
        let bad = |why: &str| Status::bad_request(format!("invalid path segment {raw:?}: {why}"));
        let text = percent_encoding::percent_decode_str(raw).decode_utf8().map_err(|_| bad("it is not UTF-8"))?;
        if text == "." || text == ".." {
            return Err(bad("it may not be '.' or '..'"));
        }
        if text.contains(['/', '%', '\0']) {
            return Err(bad("it may not contain '/' or '%'"));
        }
        segments.push(text.into_owned());
    }
    Ok(segments)
}

fn objects(served: &Served, group: &str, version: &str, mut rest: &[&str]) -> Result<Objects, Status> {
    let watch = rest.first() == Some(&"watch");
    if watch {
        rest = &rest[1..];
    }
    let (namespace, rest) = match rest {
        // The core group has namespaced resources (`/namespaces/NS/pods`) and subresources of Namespaces
        // (`/namespaces/NS/status`) in the same place.
        ["namespaces", namespace, plural, more @ ..] if group.is_empty() && !is_namespace_subresource(plural, more) => {
            (Some(*namespace), &rest[2..])
        }
        ["namespaces", namespace, _, ..] if !group.is_empty() => (Some(*namespace), &rest[2..]),
        _ => (None, rest),
    };
    let [plural, rest @ ..] = rest else { return Err(not_found()) };
    let resource = served.by_path(group, version, plural).ok_or_else(not_found)?;
    let namespaced = resource.info.namespaced;
    if namespace.is_some() && !namespaced {
        return Err(not_found());
    }
    let (name, subresource) = match rest {
        [] => (None, None),
        [name] => (Some(*name), None),
        [name, subresource] => (Some(*name), Some(*subresource)),
        _ => return Err(not_found()),
    };
    if name.is_some() && namespaced && namespace.is_none() {
        return Err(not_found());
    }
    if watch && subresource.is_some() {
        return Err(not_found());
    }
    Ok(Objects {
        resource: Arc::clone(resource),
        namespace: namespace.unwrap_or_default().to_owned(),
        name: name.map(str::to_owned),
        subresource: subresource.map(str::to_owned),
        watch,
    })
}

fn is_namespace_subresource(segment: &str, after: &[&str]) -> bool {
    after.is_empty() && Kind::NAMESPACE.row().has_subresource(segment)
}

#[cfg(test)]
mod tests {
    use super::{Route, route};
    use crate::up::served::Served;
    use crate::up::served::tests::widgets;
    use skeg_core::Kind;

    #[test]
    fn paths_lead_to_objects() {
        fn check(path: &str, kind: Kind, namespace: &str, name: Option<&str>, subresource: Option<&str>, watch: bool) {
            let owned = |s: Option<&str>| s.map(str::to_owned);
            let (name, subresource) = (owned(name), owned(subresource));
            let Route::Objects(got) = route(&Served::built_in(), path).unwrap() else { panic!("{path}") };
            assert_eq!((got.resource.kind, got.namespace.as_str()), (kind, namespace), "{path}");
            assert_eq!((got.name, got.subresource, got.watch), (name, subresource, watch), "{path}");
        }
        check("/api/v1/pods", Kind::POD, "", None, None, false);
        check("/api/v1/namespaces/a/pods", Kind::POD, "a", None, None, false);
        check("/api/v1/namespaces/a/pods/p", Kind::POD, "a", Some("p"), None, false);
        check("/api/v1/namespaces/a/pods/p/eviction", Kind::POD, "a", Some("p"), Some("eviction"), false);
        check("/api/v1/watch/namespaces/a/pods", Kind::POD, "a", None, None, true);
        check("/api/v1/namespaces", Kind::NAMESPACE, "", None, None, false);
        check("/api/v1/namespaces/a", Kind::NAMESPACE, "", Some("a"), None, false);
        check("/api/v1/namespaces/a/finalize", Kind::NAMESPACE, "", Some("a"), Some("finalize"), false);
        check("/api/v1/nodes/n/status", Kind::NODE, "", Some("n"), Some("status"), false);
        check("/apis/apps/v1/namespaces/a/deployments/d/scale", Kind::DEPLOYMENT, "a", Some("d"), Some("scale"), false);
        check("/api/v1/namespaces/a/configmaps/kube%2Droot", Kind::CONFIG_MAP, "a", Some("kube-root"), None, false);
    }

    #[test]
    fn what_definitions_add_is_found_in_its_versions() {
        let served = widgets();
        for (path, version) in [
            ("/apis/example.com/v1/namespaces/a/widgets/w", Some("v1")),
            ("/apis/example.com/v1beta1/widgets", Some("v1beta1")),
            ("/apis/example.com/v1alpha1/widgets", None),
        ] {
            let found = route(&served, path).ok().map(|route| match route {
                Route::Objects(objects) => objects.resource.info.version.to_string(),
                other => panic!("{other:?}"),
            });
            assert_eq!(found.as_deref(), version, "{path}");
        }
    }

    #[test]
    fn paths_that_lead_nowhere_are_refused() {
        for (path, code) in [
            ("/nothing", 404),
            ("/api/v2/pods", 404),
            ("/api/v1/pots", 404),
            ("/apis/apps/v1beta1/deployments", 404),
            ("/api/v1/namespaces/a/nodes", 404),
            ("/api/v1/pods/p", 404),
            ("/api/v1/namespaces/a/pods/p/log/more", 404),
            ("/api/v1/namespaces/../pods/p", 400),
            ("/api/v1/namespaces/a/pods/..%2f..%2fsecrets", 400),
            ("/api/v1/namespaces/a%2fb/pods", 400),
            ("/api/v1/namespaces/%2e%2e/pods", 400),
            ("/api/v1/namespaces/a/pods/%ff", 400),
        ] {
            assert_eq!(route(&Served::built_in(), path).unwrap_err().reason.code(), code, "{path}");
        }
    }
}
