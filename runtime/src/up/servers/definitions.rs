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
use tokio::time::{Instant, sleep};

use crate::up::handler::Handler;
use crate::up::route::{Route, route};
use crate::up::served::Served;

/// How long the events of a definition that is in the store are waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked whether they have come.
const INTERVAL: Duration = Duration::from_millis(5);

/// What a path of objects needs of a definition.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Needed {
    /// The definition's name.
    definition: String,
    version: String,
    /// The scope, if the path tells it: a list may be that of all namespaces.
    namespaced: Option<bool>,
}

impl Needed {
    /// `None` if no definition can serve the path.
    fn of(path: &str) -> Option<Needed> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, namespaced, plural, rest) = match &parts[..] {
            ["apis", group, version, "namespaces", _, plural, rest @ ..] => (group, version, Some(true), plural, rest),
            ["apis", group, version, plural, rest @ ..] => (group, version, None, plural, rest),
            _ => return None,
        };
        let namespaced = namespaced.or((!rest.is_empty()).then_some(false));
        // A definition's group has a dot in it.
        group.contains('.').then(|| Needed {
            definition: format!("{plural}.{group}"),
            version: (*version).to_owned(),
            namespaced,
        })
    }

    /// Whether a definition serves it, or will as soon as its events have come.
    fn serves(&self, definition: &Value) -> bool {
        let is_true = |c: &Value| c["type"] == "Established" && c["status"] == "True";
        let mut conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
        let spec = &definition["spec"];
        let versions = spec["versions"].as_array().into_iter().flatten();
        let served = versions.into_iter().any(|v| v["name"] == self.version && v["served"] == true);
        let in_scope = self.namespaced.is_none_or(|namespaced| (spec["scope"] == "Namespaced") == namespaced);
        conditions.any(is_true) && served && in_scope
    }
}

impl Handler {
    /// What a path refers to, and what is served.
    pub(in crate::up) async fn find(&self, path: &str) -> Result<(Arc<Served>, Route), Status> {
        let served = self.shared.catalogue.now();
        let why = match route(&served, path) {
            Ok(route) => return Ok((served, route)),
            Err(why) => why,
        };
        let needed = Needed::of(path).filter(|_| self.shared.shares_store && why.reason == Reason::NotFound);
        let Some(needed) = needed else { return Err(why) };
        let found = self.look_up_at(Kind::CUSTOM_RESOURCE_DEFINITION, "", &needed.definition, None).await?;
        if !found.is_some_and(|definition| needed.serves(&definition)) {
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
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Needed;

    #[test]
    fn a_path_names_the_definition_that_it_needs() {
        let things = |namespaced| Some(("things.example.com", namespaced));
        for (path, expect) in [
            ("/apis/example.com/v1/things", things(None)),
            ("/apis/example.com/v1/things/a", things(Some(false))),
            ("/apis/example.com/v1/things/a/status", things(Some(false))),
            ("/apis/example.com/v1/namespaces/n/things", things(Some(true))),
            ("/apis/example.com/v1/namespaces/n/things/a", things(Some(true))),
            ("/apis/example.com/v1", None),
            ("/apis/apps/v1/things", None),
            ("/api/v1/things", None),
            ("/", None),
        ] {
            let expect = expect.map(|(definition, namespaced)| Needed {
                definition: definition.to_owned(),
                version: "v1".to_owned(),
                namespaced,
            });
            assert_eq!(Needed::of(path), expect, "{path}");
        }
    }

    #[test]
    fn what_a_definition_will_never_serve_is_not_waited_for() {
        let check = |needed: &Needed, expect: bool, change: fn(&mut Value)| {
            let mut definition = json!({"spec": {"scope": "Namespaced",
                    "versions": [{"name": "v1", "served": true}]},
                "status": {"conditions": [{"type": "Established", "status": "True"}]}});
            change(&mut definition);
            assert_eq!(needed.serves(&definition), expect, "{needed:?} of {definition}");
        };
        let thing =
            Needed { definition: "things.example.com".to_owned(), version: "v1".to_owned(), namespaced: Some(true) };
        check(&thing, true, |_| ());
        check(&Needed { namespaced: None, ..thing.clone() }, true, |_| ());
        check(&Needed { version: "v2".to_owned(), ..thing.clone() }, false, |_| ());
        check(&Needed { namespaced: Some(false), ..thing.clone() }, false, |_| ());
        check(&thing, false, |d| d["spec"]["versions"][0]["served"] = json!(false));
        check(&thing, false, |d| d["spec"]["scope"] = json!("Cluster"));
        check(&thing, false, |d| d["status"]["conditions"][0]["status"] = json!("False"));
    }
}
