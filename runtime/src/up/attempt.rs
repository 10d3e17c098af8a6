//! What an HTTP request attempts, as authorisation asks. It is read from the path alone: whether what it names exists
//! nobody learns who may not do it.
//!
//! Source: kubernetes `staging/src/k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.

use hyper::Method;
use skeg_core::auth::{self, Attempt, Target};
use skeg_core::object::FieldSelector;

use super::params::Params;
use super::route::segments;
use skeg_core::api::Status;

/// Subresources of Namespaces, which look like namespaced resources.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// What a request attempts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    verb: String,
    /// The path, for requests that are not about objects.
    path: Option<String>,
    group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

impl Asked {
    /// Reads a request.
    pub fn read(method: &Method, path: &str, params: &Params) -> Result<Asked, Status> {
        let decoded = segments(path)?;
        let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let other = || Asked {
            verb: method.as_str().to_ascii_lowercase(),
            path: Some(path.to_owned()),
            group: String::new(),
            resource: String::new(),
            subresource: String::new(),
            namespace: String::new(),
            name: String::new(),
        };
        let (group, mut parts) = match parts.as_slice() {
            ["api", _, rest @ ..] if !rest.is_empty() => ("", rest),
            ["apis", group, _, rest @ ..] if !rest.is_empty() => (*group, rest),
            _ => return Ok(other()),
        };
        let mut verb = match *method {
            Method::GET | Method::HEAD => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        };
        if parts[0] == "watch" && parts.len() > 1 {
            // Whatever else such a path is asked for is judged as what it is.
            verb = if verb == "get" { "watch" } else { verb };
            parts = &parts[1..];
        }
        let mut namespace = "";
        if let ["namespaces", given, rest @ ..] = parts {
            namespace = given;
            if rest.first().is_some_and(|next| !NAMESPACE_SUBRESOURCES.contains(next)) {
                parts = rest;
            }
        }
        let part = |index: usize| parts.get(index).copied().unwrap_or("");
        let mut name = part(1).to_owned();
        if name.is_empty() {
            verb = match verb {
                "get" if params.flag("watch") => "watch",
                "get" => "list",
                "delete" => "deletecollection",
                verb => verb,
            };
            let selected = params.said("fieldSelector").and_then(|text| FieldSelector::parse(text).ok());
            let selected = selected.as_ref().and_then(|fields| fields.required("metadata.name"));
            if let Some(selected) = selected.filter(|_| matches!(verb, "list" | "watch" | "deletecollection")) {
                name = selected.to_owned();
            }
        }
        Ok(Asked {
            verb: verb.to_owned(),
            path: None,
            group: group.to_owned(),
            resource: part(0).to_owned(),
            subresource: part(2).to_owned(),
            namespace: namespace.to_owned(),
            name,
        })
    }

    /// The attempt.
    pub fn attempt(&self) -> Attempt<'_> {
        let Asked { verb, path, group, resource, subresource, namespace, name } = self;
        let to = match path {
            Some(path) => Target::Path(path),
            None => Target::Resource(auth::Resource { group, resource, subresource, namespace, name }),
        };
        Attempt { verb, to }
    }
}

#[cfg(test)]
mod tests {
    use super::Asked;
    use crate::up::params::Params;
    use hyper::Method;
    use skeg_core::auth::{Attempt, Resource};

    #[test]
    fn requests_attempt_what_upstream_reads_from_them() {
        let check = |request: &str, verb: &str, want: [&str; 5]| {
            let (method, url) = request.split_once(' ').unwrap();
            let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
            let asked = Asked::read(&method.parse::<Method>().unwrap(), path, &Params::parse(query)).unwrap();
            let [group, resource, subresource, namespace, name] = want;
            let want = Attempt::at(verb, Resource { group, resource, subresource, namespace, name });
            assert_eq!(asked.attempt(), want, "{request}");
        };
        check("GET /api/v1/pods", "list", ["", "pods", "", "", ""]);
        check("GET /api/v1/pods?watch=1", "watch", ["", "pods", "", "", ""]);
        check("HEAD /api/v1/namespaces/a/pods/p", "get", ["", "pods", "", "a", "p"]);
        check("GET /api/v1/watch/namespaces/a/pods/p", "watch", ["", "pods", "", "a", "p"]);
        check("GET /api/v1/watch/namespaces/a/pods/p/exec", "watch", ["", "pods", "exec", "a", "p"]);
        check("DELETE /api/v1/watch/namespaces/a/pods/p", "delete", ["", "pods", "", "a", "p"]);
        check("GET /api/v1/namespaces/a/pods/p/log", "get", ["", "pods", "log", "a", "p"]);
        check("POST /api/v1/namespaces/a/pods", "create", ["", "pods", "", "a", ""]);
        check("POST /api/v1/namespaces/a/pods/p/eviction", "create", ["", "pods", "eviction", "a", "p"]);
        check(
            "DELETE /apis/apps/v1/namespaces/a/deployments",
            "deletecollection",
            ["apps", "deployments", "", "a", ""],
        );
        check("PATCH /apis/apps/v1/namespaces/a/deployments/d", "patch", ["apps", "deployments", "", "a", "d"]);
        check("GET /api/v1/namespaces", "list", ["", "namespaces", "", "", ""]);
        check("GET /api/v1/namespaces/a", "get", ["", "namespaces", "", "a", "a"]);
        check("PUT /api/v1/namespaces/a/finalize", "update", ["", "namespaces", "finalize", "a", "a"]);
        check("GET /apis/not.there/v7/things/x", "get", ["not.there", "things", "", "", "x"]);
        let named = "GET /api/v1/namespaces/a/configmaps?fieldSelector=metadata.name%3Dx&watch=true";
        check(named, "watch", ["", "configmaps", "", "a", "x"]);
        for (method, path, verb) in [
            ("GET", "/healthz", "get"),
            ("POST", "/apis/apps", "post"),
            ("GET", "/apis/apps/v1", "get"),
            ("GET", "/api/v1", "get"),
            ("GET", "/nothing/here/at/all", "get"),
        ] {
            let asked = Asked::read(&method.parse::<Method>().unwrap(), path, &Params::parse(None)).unwrap();
            assert_eq!(asked.attempt(), Attempt::path(verb, path));
        }
    }
}
