//! Custom resources that another server already serves. Its reply that a definition is established may reach a client
//! before the events of it reach this server, and the client's next request may come here.
//!
//! Kubernetes' API server waits five seconds before it establishes a definition, for the same reason
//! (`customresource_handler.go`, "HA clusters"). Here a path that names nothing is looked up in the store before it is refused.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use skeg_core::Kind;
use skeg_core::api::{Reason, Status};
use skeg_core::object::KindInfo;
use tokio::time::{Instant, sleep};

use crate::up::ask::{Answer, Target, What};
use crate::up::handler::Handler;
use crate::up::route::{Route, route};
use crate::up::served::Served;

/// How long the events of a definition that is in the store are waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked whether they have come.
const INTERVAL: Duration = Duration::from_millis(5);

/// The name of the definition that a path of objects would need; `None` if no definition can serve it.
fn definition(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let plural = match parts[..] {
        ["apis", _, _, "namespaces", _, plural, ..] | ["apis", _, _, plural, ..] => plural,
        _ => return None,
    };
    // A definition's group has a dot in it.
    parts[1].contains('.').then(|| format!("{plural}.{}", parts[1]))
}

impl Handler {
    /// What a path refers to, and what is served.
    pub(in crate::up) async fn find(&self, path: &str) -> Result<(Arc<Served>, Route), Status> {
        let served = self.shared.catalogue.now();
        let why = match route(&served, path) {
            Ok(route) => return Ok((served, route)),
            Err(why) => why,
        };
        let name = definition(path).filter(|_| self.shared.shares_store && why.reason == Reason::NotFound);
        let Some(name) = name else { return Err(why) };
        if !self.is_established(&served, &name).await? {
            return Err(why);
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let served = self.shared.catalogue.now();
            match route(&served, path) {
                Ok(route) => return Ok((served, route)),
                Err(why) if Instant::now() > until => return Err(why),
                Err(_) => sleep(INTERVAL).await,
            }
        }
    }

    /// Whether the store has a definition that is established.
    async fn is_established(&self, served: &Served, name: &str) -> Result<bool, Status> {
        let kind = Kind::CUSTOM_RESOURCE_DEFINITION;
        let KindInfo { group, version, plural, .. } = kind.row();
        let resource = served.by_path(group, version, plural).expect("definitions are built in");
        let target = Target { kind, namespace: String::new(), name: name.to_owned() };
        let reply = self.ask_for_itself(resource, What::Get { target, rv: None }).await?;
        let found = match reply.result {
            Ok(Answer::Object(found)) => found,
            Ok(other) => unreachable!("a read is not answered by {other:?}"),
            Err(status) if status.reason == Reason::NotFound => return Ok(false),
            Err(status) => return Err(status),
        };
        let established = |c: &Value| c["type"] == "Established" && c["status"] == "True";
        Ok(found["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(established)))
    }
}

#[cfg(test)]
mod tests {
    use super::definition;

    #[test]
    fn a_path_names_the_definition_that_it_needs() {
        for (path, expect) in [
            ("/apis/example.com/v1/things", Some("things.example.com")),
            ("/apis/example.com/v1/things/a/status", Some("things.example.com")),
            ("/apis/example.com/v1/namespaces/n/things/a", Some("things.example.com")),
            ("/apis/example.com/v1", None),
            ("/apis/apps/v1/things", None),
            ("/api/v1/things", None),
            ("/", None),
        ] {
            assert_eq!(definition(path).as_deref(), expect, "{path}");
        }
    }
}
