//! What a request for a stream asks of a pod: which container, and whether it is there.

use serde_json::Value;
use skeg_core::api::Status;

use super::visit::Place;
use crate::up::params::Params;

fn names(pod: &Value, field: &str) -> Vec<String> {
    let list = pod["spec"][field].as_array().into_iter().flatten();
    list.filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
}

/// The container that a request means: the one that it names, or the pod's only one.
pub fn container(pod: &Value, params: &Params) -> Result<String, Status> {
    let pod_name = name(pod);
    let (containers, inits) = (names(pod, "containers"), names(pod, "initContainers"));
    match (params.said("container"), containers.as_slice()) {
        (Some(named), _) => {
            let ephemeral = names(pod, "ephemeralContainers");
            let mut all = containers.iter().chain(&inits).chain(&ephemeral);
            let known = all.any(|c| c == named);
            known
                .then(|| named.to_owned())
                .ok_or_else(|| Status::bad_request(format!("container {named} is not valid for pod {pod_name}")))
        }
        (None, [only]) => Ok(only.clone()),
        (None, several) => {
            let mut why = format!("a container name must be specified for pod {pod_name}");
            why += &format!(", choose one of: [{}]", several.join(" "));
            if !inits.is_empty() {
                why += &format!(" or one of the init containers: [{}]", inits.join(" "));
            }
            Err(Status::bad_request(why))
        }
    }
}

/// The name of a pod.
pub fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

/// The status of a container.
pub fn status<'a>(pod: &'a Value, container: &str) -> Option<&'a Value> {
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let mut all = lists.iter().flat_map(|s| pod["status"][*s].as_array().into_iter().flatten());
    all.find(|s| s["name"] == *container)
}

/// The spec of a container.
pub fn spec<'a>(pod: &'a Value, container: &str) -> Option<&'a Value> {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    let mut all = lists.iter().flat_map(|s| pod["spec"][*s].as_array().into_iter().flatten());
    all.find(|s| s["name"] == *container)
}

/// Where a pod's container is; 400 if the pod has no node yet.
pub fn place(pod: &Value, container: String) -> Result<Place, Status> {
    match pod["spec"]["nodeName"].as_str() {
        None | Some("") => Err(Status::bad_request(format!("pod {} does not have a host assigned", name(pod)))),
        Some(node) => {
            let pod_uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            Ok(Place { node: node.to_owned(), pod_uid, container })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{container, place};
    use crate::up::params::Params;
    use serde_json::json;

    #[test]
    fn the_container_is_found_or_named() {
        let pod = |containers: &[&str]| {
            let named: Vec<_> = containers.iter().map(|c| json!({"name": c})).collect();
            json!({"metadata": {"name": "p"}, "spec": {"containers": named, "initContainers": [{"name": "i"}]}})
        };
        let check = |containers: &[&str], query: &str, want: Result<&str, &str>| {
            let got = container(&pod(containers), &Params::parse(Some(query)));
            let got = got.map_err(|status| status.message.to_string());
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{containers:?} {query}");
        };
        check(&["a"], "", Ok("a"));
        check(&["a", "b"], "container=b", Ok("b"));
        check(&["a"], "container=i", Ok("i"));
        check(&["a"], "container=x", Err("container x is not valid for pod p"));
        check(
            &["a", "b"],
            "",
            Err("a container name must be specified for pod p, choose one of: [a b] or one of the \
             init containers: [i]"),
        );
        let waits = place(&pod(&["a"]), "a".to_owned()).unwrap_err();
        assert_eq!(&*waits.message, "pod p does not have a host assigned");
    }
}
