//! Whether an APIService is available: what can be said of its Service, and what becomes of its condition.
//!
//! Source: kube-aggregator `pkg/controllers/status/{local,remote}`.

use serde_json::{Value, json};
use skeg_core::Wall;

/// The condition `Available`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Condition {
    /// Of what this server serves itself.
    pub fn local() -> Condition {
        let message = "Local APIServices are always available".to_owned();
        Condition { holds: true, reason: "Local", message }
    }

    /// Of a server that answers.
    pub fn passed() -> Condition {
        Condition { holds: true, reason: "Passed", message: "all checks passed".to_owned() }
    }

    pub fn failed(reason: &'static str, message: String) -> Condition {
        Condition { holds: false, reason, message }
    }

    /// A status with this condition; `None` if it has it already.
    pub fn applied(&self, status: &Value, now: Wall) -> Option<Value> {
        let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let holds = if self.holds { "True" } else { "False" };
        let at = conditions.iter().position(|c| c["type"] == "Available");
        let held = at.map(|at| &conditions[at]);
        let is_same = |c: &Value| c["status"] == holds && c["reason"] == self.reason && c["message"] == *self.message;
        if held.is_some_and(is_same) {
            return None;
        }
        let since = held.filter(|c| c["status"] == holds).map(|c| c["lastTransitionTime"].clone());
        let next = json!({"type": "Available", "status": holds, "reason": self.reason, "message": self.message,
            "lastTransitionTime": since.unwrap_or_else(|| json!(now.to_time()))});
        match at {
            Some(at) => conditions[at] = next,
            None => conditions.push(next),
        }
        let mut status = if status.is_object() { status.clone() } else { json!({}) };
        status["conditions"] = Value::Array(conditions);
        Some(status)
    }
}

/// The path at which a server says what it serves of a group-version.
pub fn path(spec: &Value) -> String {
    let text = |name: &str| spec[name].as_str().unwrap_or_default();
    match text("group") {
        "" => format!("/api/{}", text("version")),
        group => format!("/apis/{group}/{}", text("version")),
    }
}

/// What is wrong with the Service of an APIService, if something is. `found` is that Service, `slices` its endpoints.
pub fn before_asking(
    (namespace, name, port): (&str, &str, u16),
    found: Option<&Value>,
    slices: &[Value],
) -> Result<(), Condition> {
    let Some(service) = found else {
        let why = format!("service/{name} in {namespace:?} is not present");
        return Err(Condition::failed("ServiceNotFound", why));
    };
    if service["spec"]["type"] != "ClusterIP" {
        return Ok(());
    }
    let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let Some(found) = ports.find(|p| p["port"] == port) else {
        let why = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Err(Condition::failed("ServicePortError", why));
    };
    if slices.is_empty() {
        let why = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Err(Condition::failed("EndpointsNotFound", why));
    }
    let named = found["name"].as_str().unwrap_or_default();
    let list = |slice: &Value, field: &str| slice[field].as_array().cloned().unwrap_or_default();
    let is_active = |slice: &Value| {
        list(slice, "endpoints").iter().any(|endpoint| endpoint["conditions"]["ready"] != false)
            && list(slice, "ports")
                .iter()
                .any(|p| p["name"].as_str().unwrap_or_default() == named && !p["port"].is_null())
    };
    if !slices.iter().any(is_active) {
        let why =
            format!("endpointslices for service/{name} in {namespace:?} have no addresses with port name {named:?}");
        return Err(Condition::failed("MissingEndpoints", why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use skeg_core::Wall;

    use super::{Condition, before_asking};

    #[test]
    fn what_is_wrong_with_a_service_has_a_reason() {
        let service = |type_: &str| json!({"spec": {"type": type_, "ports": [{"name": "https", "port": 443}]}});
        let slice = |ready: bool, port: &str| json!({"ports": [{"name": port, "port": 1}], "endpoints": [{"conditions": {"ready": ready}}]});
        let check = |service: Option<Value>, port: u16, slices: &[Value], want: Result<(), (&str, &str)>| {
            let got = before_asking(("n", "s", port), service.as_ref(), slices);
            let want = want.map_err(|(reason, message)| (reason, message.to_owned()));
            assert_eq!(got.map_err(|c| (c.reason, c.message)), want);
        };
        check(None, 443, &[], Err(("ServiceNotFound", "service/s in \"n\" is not present")));
        let cluster = || Some(service("ClusterIP"));
        check(cluster(), 80, &[], Err(("ServicePortError", "service/s in \"n\" is not listening on port 80")));
        let none = "cannot find endpointslices for service/s in \"n\"";
        check(cluster(), 443, &[], Err(("EndpointsNotFound", none)));
        let missing = "endpointslices for service/s in \"n\" have no addresses with port name \"https\"";
        check(cluster(), 443, &[slice(false, "https")], Err(("MissingEndpoints", missing)));
        check(cluster(), 443, &[slice(true, "http")], Err(("MissingEndpoints", missing)));
        check(cluster(), 443, &[slice(false, "https"), slice(true, "https")], Ok(()));
        check(Some(service("ExternalName")), 443, &[], Ok(()));
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_transition() {
        let at = |seconds: i64| Wall(seconds * 1_000_000);
        let first = Condition::failed("ServiceNotFound", "m".to_owned()).applied(&Value::Null, at(0)).unwrap();
        let since = |status: &Value| status["conditions"][0]["lastTransitionTime"].clone();
        assert_eq!(since(&first), "1970-01-01T00:00:00Z");
        let next = Condition::failed("FailedDiscoveryCheck", "n".to_owned()).applied(&first, at(5)).unwrap();
        assert_eq!((since(&next), &next["conditions"][0]["reason"]), (since(&first), &json!("FailedDiscoveryCheck")));
        let passed = Condition::passed().applied(&next, at(9)).unwrap();
        assert_eq!(since(&passed), "1970-01-01T00:00:09Z");
        assert_eq!(Condition::passed().applied(&passed, at(10)), None);
    }
}
