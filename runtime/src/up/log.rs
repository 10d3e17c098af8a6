//! Logs of simulated containers: `kubectl logs` shows text that is made up from the pod, since no program runs.

use serde_json::Value;
use skeg_core::api::{Reason, Status};

use super::params::Params;

fn bad(message: String) -> Status {
    Status { reason: Reason::BadRequest, message: message.into(), details: None }
}

fn names(pod: &Value, field: &str) -> Vec<String> {
    let list = pod["spec"][field].as_array().into_iter().flatten();
    list.filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
}

/// The log of a pod's container, or Kubernetes' error if there is none.
pub fn of(pod: &Value, params: &Params) -> Result<String, Status> {
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let (containers, inits) = (names(pod, "containers"), names(pod, "initContainers"));
    let container = match (params.said("container"), containers.as_slice()) {
        (Some(named), _) if containers.iter().chain(&inits).any(|c| c == named) => named.to_owned(),
        (Some(named), _) => return Err(bad(format!("container {named} is not valid for pod {pod_name}"))),
        (None, [only]) => only.clone(),
        (None, several) => {
            let mut why = format!("a container name must be specified for pod {pod_name}");
            why += &format!(", choose one of: [{}]", several.join(" "));
            if !inits.is_empty() {
                why += &format!(" or one of the init containers: [{}]", inits.join(" "));
            }
            return Err(bad(why));
        }
    };
    let statuses = ["containerStatuses", "initContainerStatuses"];
    let all = statuses.iter().flat_map(|s| pod["status"][*s].as_array().into_iter().flatten());
    let status = all.clone().find(|s| s["name"] == *container);
    let previous = params.flag("previous");
    let Some(status) = status else {
        return Err(bad(format!("container {container:?} in pod {pod_name:?} is waiting to start: ContainerCreating")));
    };
    if previous && status["lastState"]["terminated"].is_null() {
        return Err(bad(format!("previous terminated container {container:?} in pod {pod_name:?} not found")));
    }
    if let Some(reason) = status["state"]["waiting"]["reason"].as_str()
        && status["lastState"]["terminated"].is_null()
    {
        return Err(bad(format!("container {container:?} in pod {pod_name:?} is waiting to start: {reason}")));
    }
    let image = status["image"].as_str().unwrap_or_default();
    Ok(format!("container {container} of image {image} is simulated: no program runs in it\n"))
}

#[cfg(test)]
mod tests {
    use super::of;
    use crate::up::params::Params;
    use serde_json::json;

    #[test]
    fn a_log_is_there_once_the_container_runs() {
        let status = |state: serde_json::Value| json!([{"name": "c", "image": "nginx", "state": state}]);
        let pod = |state: serde_json::Value| {
            json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]},
                "status": {"containerStatuses": status(state)}})
        };
        let all = Params::parse(None);
        assert!(of(&pod(json!({"running": {}})), &all).unwrap().contains("nginx"));
        let waiting = of(&pod(json!({"waiting": {"reason": "ContainerCreating"}})), &all).unwrap_err();
        assert_eq!(&*waiting.message, "container \"c\" in pod \"p\" is waiting to start: ContainerCreating");
        let other = of(&pod(json!({"running": {}})), &Params::parse(Some("container=d"))).unwrap_err();
        assert_eq!(&*other.message, "container d is not valid for pod p");
        let two = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert!(of(&two, &all).unwrap_err().message.ends_with("choose one of: [a b]"));
    }
}
