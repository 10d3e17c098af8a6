//! The ClusterRole aggregation controller: gives a ClusterRole with an `aggregationRule` the rules of those that it
//! selects.
//!
//! Source: kubernetes `pkg/controller/clusterroleaggregation`.

use std::rc::Rc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::{Controller, Plan, Write};
use crate::api::Subresource;
use crate::client::{Change, View, Views, Watched};
use crate::machine::Now;
use crate::object::{Dynamic, Kind, Object, ObjectKey, Selector};

static WATCHED: &[Watched] = &[Watched { kind: Kind::CLUSTER_ROLE, indexes: &[] }];

/// Aggregates ClusterRoles. Keys are ClusterRoles.
#[derive(Debug, Default)]
pub struct ClusterRoleAggregationController;

fn role(object: &Object) -> Option<&Dynamic> {
    match object {
        Object::Dynamic(role) => Some(role),
        _ => None,
    }
}

/// The selectors of a role that aggregates others; `None` if it does not.
fn selectors(role: &Dynamic) -> Option<Vec<Selector>> {
    let all = role.body.get("aggregationRule")?.get("clusterRoleSelectors")?.as_array()?;
    // A selector that cannot be read selects nothing: validation refuses it, so there is none.
    let read = |value: &Value| serde_json::from_value::<LabelSelector>(value.clone()).ok();
    Some(all.iter().filter_map(read).filter_map(|s| Selector::from_label_selector(&s).ok()).collect())
}

fn rules(role: &Dynamic) -> &[Value] {
    role.body.get("rules").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The rules of all roles that these selectors select, in order of selector and name, each once.
fn aggregated(view: &View, own: &str, selectors: &[Selector]) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for selector in selectors {
        for other in view.iter().filter_map(|(_, object)| role(object)) {
            if other.meta.name.as_deref() == Some(own) || !selector.matches(other.meta.labels.as_ref()) {
                continue;
            }
            for rule in rules(other) {
                if !all.contains(rule) {
                    all.push(rule.clone());
                }
            }
        }
    }
    all
}

impl Controller for ClusterRoleAggregationController {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHED
    }

    fn keys(&self, _change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
        let aggregates = |object: &Object| role(object).is_some_and(|role| selectors(role).is_some());
        let all = views.view(Kind::CLUSTER_ROLE).iter();
        keys.extend(all.filter(|(_, object)| aggregates(object)).map(|(key, _)| key.clone()));
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, _now: Now) -> Plan {
        let (mut plan, view) = (Plan::nothing(), views.view(Kind::CLUSTER_ROLE));
        let Some(object) = view.get(key) else { return plan };
        let Some((held, selectors)) = role(object).and_then(|role| Some((role, selectors(role)?))) else {
            return plan;
        };
        let wanted = aggregated(view, key.name(), &selectors);
        if rules(held) != wanted {
            let mut next = held.clone();
            Rc::make_mut(&mut next.body).insert("rules".to_owned(), Value::Array(wanted));
            plan.writes.push(Write::Update(Object::Dynamic(next), Subresource::None));
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::ClusterRoleAggregationController;
    use crate::controllers::fake_cluster::{Fake, at, object};
    use crate::object::{Kind, Object, ObjectKey};
    use serde_json::{Value, json};

    fn role(name: &str, into: &[&str], more: Value) -> Object {
        let labels: serde_json::Map<String, Value> = into.iter().map(|to| ((*to).to_owned(), json!("true"))).collect();
        let mut role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name, "labels": labels}});
        json_patch::merge(&mut role, &more);
        object(role)
    }

    fn gives(verb: &str) -> Value {
        json!({"rules": [{"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}]})
    }

    #[test]
    fn a_role_has_the_rules_of_those_it_selects() {
        let collects =
            |label: &str| json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]}});
        let mut fake = Fake::new(
            &[Kind::CLUSTER_ROLE],
            [
                role("admin", &[], collects("to-admin")),
                role("edit", &["to-admin"], collects("to-edit")),
                role("reads", &["to-edit"], gives("get")),
                role("writes", &["to-admin", "to-edit"], gives("update")),
                role("other", &[], gives("delete")),
            ],
        );
        let key = |name: &str| ObjectKey::new(Kind::CLUSTER_ROLE, "", name);
        let settle = |fake: &mut Fake| {
            for name in ["edit", "admin"] {
                fake.settle(&mut ClusterRoleAggregationController, &key(name), at(0));
            }
        };
        let check = |fake: &Fake, name: &str, verbs: &[&str]| {
            let role = fake.views.view(Kind::CLUSTER_ROLE).get(&key(name)).unwrap().to_json();
            let has: Vec<_> = role["rules"].as_array().unwrap().iter().map(|r| r["verbs"][0].clone()).collect();
            assert_eq!(has, verbs, "{name}");
        };
        settle(&mut fake);
        check(&fake, "edit", &["get", "update"]);
        check(&fake, "admin", &["get", "update"]);
        check(&fake, "other", &["delete"]);
        fake.put(role("reads", &["to-edit"], gives("list")));
        settle(&mut fake);
        check(&fake, "admin", &["list", "update"]);
        fake.remove(&key("writes"));
        settle(&mut fake);
        check(&fake, "admin", &["list"]);
    }
}
