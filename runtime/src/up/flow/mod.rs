//! Priority and fairness: the FlowSchemas and PriorityLevelConfigurations that every cluster has are kept, each
//! FlowSchema says whether its priority level is missing, and each request is told which of both it belongs to, and
//! waits at the [`gate`] for its turn. What is decided there, `core/src/flow` decides.
//!
//! Source: kubernetes `pkg/registry/flowcontrol/ensurer`, apiserver `pkg/util/flowcontrol`.

pub mod gate;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde_json::{Value, json};
use skeg_core::api::{Call, ReqIds, Request, Subresource, ToServer, WriteOptions};
use skeg_core::apiserver::ApiServer;
use skeg_core::auth::{Attempt, Target, User};
use skeg_core::flow::bootstrap::{self, AUTO_UPDATE, Wanted};
use skeg_core::flow::{self, LevelConfig, Queuing};
use skeg_core::{Kind, Now, Object};

/// How often they are looked at.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Who writes specifications, and who statuses.
const PRODUCER: &str = "api-priority-and-fairness-config-producer-v1";
const CONSUMER: &str = "api-priority-and-fairness-config-consumer-v1";
/// Where requests belong that nothing else is about.
const CATCH_ALL: &str = "catch-all";

/// The FlowSchema and the priority level that a request belongs to.
#[derive(PartialEq, Eq, Debug)]
pub struct Class {
    schema: String,
    level: String,
    /// The FlowSchema's UID.
    pub schema_uid: String,
    /// The priority level's UID.
    pub level_uid: String,
}

/// What a request belongs to.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Its FlowSchema and priority level.
    pub class: Arc<Class>,
    /// The user or the namespace by which the FlowSchema tells its flows apart, if it does.
    distinguisher: String,
}

/// A FlowSchema, as requests are matched against it.
#[derive(Clone, PartialEq, Debug)]
struct Schema {
    precedence: i64,
    class: Arc<Class>,
    /// `ByUser` or `ByNamespace`, or nothing.
    distinguisher: String,
    /// Its `rules`.
    rules: Value,
}

/// What is in force.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Flows {
    /// Every FlowSchema whose priority level exists, the one that is asked first first.
    schemas: Vec<Schema>,
    levels: Vec<LevelConfig>,
}

/// Those that are in force, for the HTTP threads.
pub type Published = Arc<RwLock<Arc<Flows>>>;

impl Flows {
    /// What a request belongs to; `None` until there is a FlowSchema.
    pub fn of(&self, user: &User, attempt: &Attempt<'_>) -> Option<Flow> {
        let found = self.schemas.iter().find(|schema| flow::is_about(&schema.rules, user, attempt));
        let found = found.or_else(|| self.schemas.iter().find(|schema| schema.class.schema == CATCH_ALL))?;
        let distinguisher = match (&*found.distinguisher, &attempt.to) {
            ("ByUser", _) => &*user.name,
            ("ByNamespace", Target::Resource(resource)) => resource.namespace,
            _ => "",
        };
        Some(Flow { class: Arc::clone(&found.class), distinguisher: distinguisher.to_owned() })
    }
}

/// Keeps the objects.
pub struct Keeper {
    ids: ReqIds,
    /// The levels and schemas that every cluster has.
    wanted: [(Kind, Vec<Wanted>); 2],
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// What an object is to become, if it is to change (`ShouldUpdate`).
fn mended(held: &Value, wanted: &Wanted) -> Option<Value> {
    let said = held["metadata"]["annotations"][AUTO_UPDATE].as_str().and_then(|said| said.parse::<bool>().ok());
    // Whoever has changed nothing yet has made no decision either.
    let is_kept = wanted.is_mandatory || said.unwrap_or(held["metadata"]["generation"] == 1);
    let mut next = held.clone();
    if said != Some(is_kept) {
        next["metadata"]["annotations"][AUTO_UPDATE] = json!(is_kept.to_string());
    }
    if is_kept {
        next["spec"] = wanted.object["spec"].clone();
        // How many seats others may have of the level that is never queued, is the administrator's (`plcSpecEqualish`).
        for share in ["nominalConcurrencyShares", "lendablePercent"] {
            if let (Some(_), Some(own)) = (next["spec"].get("exempt"), held["spec"]["exempt"].get(share)) {
                next["spec"]["exempt"][share] = own.clone();
            }
        }
    }
    (next != *held).then_some(next)
}

/// The status of a FlowSchema, if it is to change.
fn status(held: &Value, exists: bool, now: Now) -> Option<Value> {
    let level = held["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
    let what = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = match exists {
        true => ("False", "Found", format!("{what} and it exists")),
        false => ("True", "NotFound", format!("{what} but there is no such object")),
    };
    let mut conditions = held["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let at = conditions.iter().position(|condition| condition["type"] == "Dangling");
    let held = at.map(|at| &conditions[at]);
    if held.is_some_and(|c| c["status"] == status && c["reason"] == reason && c["message"] == message) {
        return None;
    }
    let next = json!({"type": "Dangling", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": now.wall.to_time()});
    match at {
        Some(at) => conditions[at] = next,
        None => conditions.push(next),
    }
    Some(json!({"conditions": conditions}))
}

/// A FlowSchema and its priority level, as requests are matched.
fn schema(name: &str, held: &Value, level: &Value) -> Schema {
    let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    Schema {
        precedence: held["spec"]["matchingPrecedence"].as_i64().unwrap_or(0),
        class: Arc::new(Class {
            schema: name.to_owned(),
            level: name_of(level).to_owned(),
            schema_uid: uid(held),
            level_uid: uid(level),
        }),
        distinguisher: held["spec"]["distinguisherMethod"]["type"].as_str().unwrap_or_default().to_owned(),
        rules: held["spec"]["rules"].clone(),
    }
}

/// A PriorityLevelConfiguration, which has been checked and has its defaults.
fn configured(name: &str, level: &Value) -> LevelConfig {
    let spec = &level["spec"];
    let is_exempt = spec["type"] == "Exempt";
    let own = if is_exempt { &spec["exempt"] } else { &spec["limited"] };
    let number = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
    let response = &own["limitResponse"];
    let queuing = |name: &str| response["queuing"][name].as_u64().map_or(1, |n| n.max(1) as usize);
    let queues = queuing("queues");
    LevelConfig {
        name: name.to_owned(),
        is_exempt,
        shares: number(&own["nominalConcurrencyShares"]).unwrap_or(0),
        lendable: number(&own["lendablePercent"]).unwrap_or(0),
        borrowing: number(&own["borrowingLimitPercent"]),
        queuing: (response["type"] == "Queue").then(|| Queuing {
            queues,
            hand_size: queuing("handSize").min(queues),
            length_limit: queuing("queueLengthLimit"),
        }),
    }
}

impl Keeper {
    /// Knows what every cluster has.
    pub fn new() -> Keeper {
        let wanted =
            [(Kind::PRIORITY_LEVEL_CONFIGURATION, bootstrap::levels()), (Kind::FLOW_SCHEMA, bootstrap::schemas())];
        Keeper { ids: ReqIds::new(1), wanted }
    }

    /// Looks at all of them: what is to be asked of the API server, and what is in force.
    pub fn look(&mut self, now: Now, api: &ApiServer) -> (Vec<ToServer>, Flows) {
        let held = |kind: Kind| {
            let objects = api.cached(kind).map(|(_, object)| object.to_json());
            objects.map(|object| (name_of(&object).to_owned(), object)).collect::<BTreeMap<String, Value>>()
        };
        let (levels, schemas) = (held(Kind::PRIORITY_LEVEL_CONFIGURATION), held(Kind::FLOW_SCHEMA));
        let mut calls = Vec::new();
        for (kind, wanted) in &self.wanted {
            let held = if *kind == Kind::FLOW_SCHEMA { &schemas } else { &levels };
            for wanted in wanted {
                let options = WriteOptions::default();
                match held.get(name_of(&wanted.object)) {
                    None => {
                        let object = Object::from_json(wanted.object.clone()).expect("it is well-formed");
                        calls.push((PRODUCER, Call::Create { object, options }));
                    }
                    Some(held) => {
                        let next = mended(held, wanted).and_then(|next| Object::from_json(next).ok());
                        let update = |object| Call::Update { object, subresource: Subresource::None, options };
                        calls.extend(next.map(|object| (PRODUCER, update(object))));
                    }
                }
            }
        }
        let mut all = Vec::new();
        for (name, held) in &schemas {
            let level = levels.get(held["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default());
            if let Some(status) = status(held, level.is_some(), now) {
                let mut next = held.clone();
                next["status"] = status;
                if let Ok(object) = Object::from_json(next) {
                    let (subresource, options) = (Subresource::Status, WriteOptions::default());
                    calls.push((CONSUMER, Call::Update { object, subresource, options }));
                }
            }
            all.extend(level.map(|level| schema(name, held, level)));
        }
        all.sort_by(|a, b| (a.precedence, &a.class.schema).cmp(&(b.precedence, &b.class.schema)));
        let user = Rc::from("system:apiserver");
        let request = |(manager, call): (&str, Call)| {
            let mut request = Request::new(&user, call);
            request.field_manager = Some(Rc::from(manager));
            ToServer::Request(self.ids.next(), request)
        };
        let flows =
            Flows { schemas: all, levels: levels.iter().map(|(name, level)| configured(name, level)).collect() };
        (calls.into_iter().map(request).collect(), flows)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};
    use skeg_core::{Mono, Now, Wall};

    use skeg_core::flow::bootstrap::{AUTO_UPDATE, Wanted};

    use super::{mended, status};

    #[test]
    fn what_a_user_has_changed_stays_unless_it_is_mandatory() {
        let held = |annotation: Value, generation: u32, shares: u32| {
            let mut held = json!({"metadata": {"name": "a", "generation": generation}, "spec": {"shares": shares}});
            if !annotation.is_null() {
                held["metadata"]["annotations"] = json!({AUTO_UPDATE: annotation});
            }
            held
        };
        let check = |held: Value, is_mandatory: bool, want: Option<(&str, u32)>| {
            let object = json!({"spec": {"shares": 5}});
            let got = mended(&held, &Wanted { object, is_mandatory }).map(|next| {
                let annotation = next["metadata"]["annotations"][AUTO_UPDATE].as_str().unwrap().to_owned();
                (annotation, next["spec"]["shares"].as_u64().unwrap() as u32)
            });
            assert_eq!(got, want.map(|(annotation, shares)| (annotation.to_owned(), shares)), "{held}");
        };
        check(held(json!("true"), 1, 5), false, None);
        check(held(json!("true"), 2, 6), false, Some(("true", 5)));
        check(held(json!("false"), 2, 6), false, None);
        check(held(json!(null), 1, 6), false, Some(("true", 5)));
        check(held(json!(null), 2, 6), false, Some(("false", 6)));
        check(held(json!("false"), 2, 6), true, Some(("true", 5)));
    }

    #[test]
    fn the_seats_of_the_exempt_level_are_the_administrators() {
        let spec = |shares: u32, type_: &str| json!({"type": type_, "exempt": {"nominalConcurrencyShares": shares}});
        let wanted = Wanted { object: json!({"spec": spec(0, "Exempt")}), is_mandatory: true };
        let held =
            |spec: Value| json!({"metadata": {"name": "exempt", "annotations": {AUTO_UPDATE: "true"}}, "spec": spec});
        assert_eq!(mended(&held(spec(7, "Exempt")), &wanted), None);
        let next = mended(&held(spec(7, "Limited")), &wanted).unwrap();
        assert_eq!(next["spec"], spec(7, "Exempt"));
    }

    #[test]
    fn a_schema_says_whether_its_level_is_missing() {
        let now = Now { mono: Mono::ZERO, wall: Wall(0) + Duration::ZERO };
        let held = json!({"spec": {"priorityLevelConfiguration": {"name": "p"}}});
        let missing = status(&held, false, now).unwrap();
        let why =
            "This FlowSchema references the PriorityLevelConfiguration object named \"p\" but there is no such object";
        assert_eq!(
            (&missing["conditions"][0]["status"], &missing["conditions"][0]["message"]),
            (&json!("True"), &json!(why))
        );
        let held = json!({"spec": held["spec"], "status": missing});
        assert_eq!(status(&held, false, now), None);
        assert_eq!(status(&held, true, now).unwrap()["conditions"][0]["reason"], "Found");
    }
}
