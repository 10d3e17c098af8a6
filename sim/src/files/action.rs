//! Reads the steps of a timeline, and expectations, field by field.

use std::time::Duration;

use skeg_core::Kind;
use skeg_core::api::{Patch, Propagation};
use skeg_core::object::ObjectKey;

use super::fields::{Field, Fields, nearest};
use super::tree::Node;
use crate::fault::{self, Fault};
use crate::scenario::{Action, Expectation, NodeSet, UserAction};
use crate::user::taint;

/// Reads the manifests of a step: files that it names, or objects that it contains.
pub type ReadManifests<'f> = dyn FnMut(&Field<'_>) -> Option<Vec<skeg_core::Object>> + 'f;

/// The names of user actions in a scenario file.
const USER_ACTIONS: [&str; 16] = [
    "apply",
    "replace",
    "delete",
    "scale",
    "setImage",
    "patch",
    "rollback",
    "pause",
    "resume",
    "restart",
    "rollingUpdate",
    "cordon",
    "uncordon",
    "taint",
    "untaint",
    "drain",
];

/// Actions without fields.
const BARE: [&str; 2] = ["heal", "compact"];

/// Reads a step's action. The caller reads the step's other fields.
pub fn action(step: &Fields<'_>, manifests: &mut ReadManifests<'_>) -> Option<Action> {
    let given: Vec<&str> = step.keys().into_iter().filter(|k| !["at", "when"].contains(k)).collect();
    let name = match given[..] {
        [] => {
            step.of.fail("Required value: a step needs an action, such as scale, kill or heal");
            return None;
        }
        [one] => one,
        [..] => {
            step.of
                .fail(format!("Forbidden: a step has one action, found {}; make several steps", given.join(" and ")));
            return None;
        }
    };
    let known: Vec<&'static str> = USER_ACTIONS.iter().chain(fault::NAMES).copied().collect();
    let Some(name) = known.iter().copied().find(|a| *a == name) else {
        let near = nearest(name, &known).map(|n| format!("; did you mean {n:?}?"));
        let advice = near.unwrap_or_else(|| format!("; actions are {}", known.join(", ")));
        let field = step.all().into_iter().find(|(k, _)| *k == name).map(|(_, f)| f);
        field.as_ref().unwrap_or(&step.of).fail(format!("unknown field {name:?}{advice}"));
        return None;
    };
    let Some(field) = step.get(name) else {
        if BARE.contains(&name) {
            return Fault::read(name, step).map(Action::from);
        }
        step.of.fail(format!("Required value: {name} needs its fields"));
        return None;
    };
    named_action(name, step, &field, manifests)
}

fn named_action(name: &str, step: &Fields<'_>, field: &Field<'_>, manifests: &mut ReadManifests<'_>) -> Option<Action> {
    // Actions whose value is not a map of fields.
    match name {
        "apply" => return manifests(field).map(|objects| UserAction::Apply(objects).into()),
        "replace" if !matches!(field.tree.node, Node::Map(_)) => {
            let (objects, cascade) = (manifests(field)?, Propagation::Background);
            return Some(UserAction::Replace { objects, cascade }.into());
        }
        "delete" if field.tree.text().is_some() => {
            let (cascade, grace_period) = (Propagation::Background, None);
            return Some(UserAction::Delete { key: target(field)?, cascade, grace_period }.into());
        }
        _ if BARE.contains(&name) => {
            let empty = match &field.tree.node {
                Node::Map(entries) => entries.is_empty(),
                Node::Bool(b) => *b,
                _ => false,
            };
            if !empty {
                field.invalid("it has no fields; write {}");
                return None;
            }
            return Fault::read(name, step).map(Action::from);
        }
        "pause" | "resume" if field.tree.text().is_some() => {
            return Some(UserAction::Pause { key: target(field)?, paused: name == "pause" }.into());
        }
        "restart" if field.tree.text().is_some() => {
            return Some(UserAction::Restart { key: target(field)? }.into());
        }
        "rollback" if field.tree.text().is_some() => {
            return Some(UserAction::Rollback { key: target(field)?, to_revision: None }.into());
        }
        _ => {}
    }
    let fields = field.fields()?;
    let action = if fault::NAMES.contains(&name) {
        Fault::read(name, &fields).map(Action::from)
    } else {
        user_action(name, &fields, manifests).map(Action::from)
    };
    fields.finish();
    action
}

fn user_action(name: &str, f: &Fields<'_>, manifests: &mut ReadManifests<'_>) -> Option<UserAction> {
    let key = || f.require("target").and_then(|t| target(&t));
    Some(match name {
        "scale" => {
            let replicas = f.require("replicas").and_then(|r| r.integer(0, i64::from(i32::MAX)));
            UserAction::Scale { key: key()?, replicas: replicas? as i32 }
        }
        "setImage" => {
            let (key, image) = (key(), required_text(f, "image"));
            UserAction::SetImage { container: required_text(f, "container")?, key: key?, image: image? }
        }
        "delete" => delete(f)?,
        "replace" => {
            let objects = f.require("objects").and_then(|objects| manifests(&objects));
            UserAction::Replace { cascade: cascade(f)?, objects: objects? }
        }
        "patch" => patch(f)?,
        "rollback" => {
            let to_revision = match f.get("toRevision") {
                Some(r) => Some(r.integer(1, i64::MAX)?),
                None => None,
            };
            UserAction::Rollback { key: key()?, to_revision }
        }
        "pause" | "resume" => UserAction::Pause { key: key()?, paused: name == "pause" },
        "restart" => UserAction::Restart { key: key()? },
        "rollingUpdate" => rolling_update(f, manifests)?,
        "cordon" | "uncordon" => UserAction::Cordon { nodes: node_set(f)?, cordoned: name == "cordon" },
        "taint" | "untaint" => {
            let (nodes, text) = (node_set(f), f.require("taint")?);
            let taint = taint::read(text.text()?).map_err(|why| text.fail(why)).ok();
            UserAction::Taint { nodes: nodes?, taint: Box::new(taint?), removed: name == "untaint" }
        }
        "drain" => UserAction::Drain { nodes: node_set(f)? },
        other => unreachable!("{other} is in USER_ACTIONS and has no reader"),
    })
}

/// Reads an optional field. Returns `default` if the field is absent, `None` if it is invalid.
pub(crate) fn optional<'a, T>(
    f: &Fields<'a>,
    key: &'static str,
    default: T,
    read: impl Fn(&Field<'a>) -> Option<T>,
) -> Option<T> {
    match f.get(key) {
        Some(field) => read(&field),
        None => Some(default),
    }
}

fn required_text(f: &Fields<'_>, key: &'static str) -> Option<String> {
    f.require(key)?.name().map(str::to_owned)
}

/// The ways to treat what a deleted object has made, as `kubectl delete --cascade` calls them.
const CASCADES: [(&str, Propagation); 3] =
    [("background", Propagation::Background), ("foreground", Propagation::Foreground), ("orphan", Propagation::Orphan)];

/// The name of a way to treat what a deleted object has made.
pub(super) fn cascade_name(cascade: Propagation) -> &'static str {
    CASCADES.iter().find(|(_, c)| *c == cascade).expect("each has a name").0
}

fn cascade(f: &Fields<'_>) -> Option<Propagation> {
    optional(f, "cascade", Propagation::Background, |c| {
        let text = c.text()?;
        CASCADES.iter().find(|(name, _)| *name == text).map(|(_, cascade)| *cascade).or_else(|| {
            let names = CASCADES.map(|(name, _)| format!("{name:?}")).join(", ");
            c.fail(format!("Unsupported value: {text:?}: supported values: {names}"));
            None
        })
    })
}

fn delete(f: &Fields<'_>) -> Option<UserAction> {
    // Either a target with flags, or the fields of a target itself.
    if f.get("target").is_none() {
        let (kind, name) = (required_text(f, "kind"), required_text(f, "name"));
        let namespace = f.get("namespace").and_then(|n| n.name()).map(str::to_owned);
        let key = key_of(&f.of, &kind?, namespace.as_deref(), &name?)?;
        return Some(UserAction::Delete { key, cascade: Propagation::Background, grace_period: None });
    }
    let key = f.require("target").and_then(|t| target(&t));
    let cascade = cascade(f);
    let grace_period = match f.get("gracePeriod") {
        Some(seconds) => Some(seconds.integer(0, i64::from(i32::MAX))?),
        None => None,
    };
    Some(UserAction::Delete { key: key?, cascade: cascade?, grace_period })
}

fn patch(f: &Fields<'_>) -> Option<UserAction> {
    let key = f.require("target").and_then(|t| target(&t));
    let kind = optional(f, "type", "strategic", |t| {
        let text = t.text()?;
        ["strategic", "merge", "json"].into_iter().find(|k| *k == text).or_else(|| {
            t.fail(format!("Unsupported value: {text:?}: supported values: \"json\", \"merge\", \"strategic\""));
            None
        })
    });
    let body = f.require("patch")?.tree.to_value();
    let patch = match kind? {
        "strategic" => Patch::Strategic(body),
        "merge" => Patch::Merge(body),
        _ => Patch::Json(body),
    };
    Some(UserAction::Patch { key: key?, patch })
}

fn rolling_update(f: &Fields<'_>, manifests: &mut ReadManifests<'_>) -> Option<UserAction> {
    let old = f.require("old").and_then(|t| target(&t));
    let interval = optional(f, "interval", Duration::from_secs(60), Field::duration);
    let rollback_after = match f.get("rollbackAfter") {
        Some(r) => Some(r.duration()?),
        None => None,
    };
    let new_field = f.require("new")?;
    let mut objects = manifests(&new_field)?;
    let new = match (objects.pop(), objects.is_empty()) {
        (Some(object), true) if object.kind() == Kind::REPLICATION_CONTROLLER => object,
        _ => {
            new_field.fail("Invalid value: a rolling update needs exactly one new ReplicationController");
            return None;
        }
    };
    let old = old?;
    if old.kind != Kind::REPLICATION_CONTROLLER {
        f.of.fail(format!("Invalid value: {:?}: old must be a ReplicationController", old.to_string()));
        return None;
    }
    if old.name() == new.meta().name.as_deref().unwrap_or("") {
        new_field.fail(format!(
            "Invalid value: {:?}: the new ReplicationController cannot have the same name as the old one",
            old.name()
        ));
        return None;
    }
    Some(UserAction::RollingUpdate { old, new: Box::new(new), interval: interval?, rollback_after })
}

/// `Deployment/shop/api`, `deploy/api` (in `default`), or a map of kind, namespace and name.
pub fn target(field: &Field<'_>) -> Option<ObjectKey> {
    let (kind_text, namespace, name) = match &field.tree.node {
        Node::Text(s) => match s.split('/').collect::<Vec<_>>()[..] {
            [kind, name] => (kind.to_owned(), None, name.to_owned()),
            [kind, namespace, name] => (kind.to_owned(), Some(namespace.to_owned()), name.to_owned()),
            _ => {
                field.invalid("must be written kind/name or kind/namespace/name, such as deployment/shop/api");
                return None;
            }
        },
        _ => {
            let f = field.fields()?;
            let (kind, name) = (required_text(&f, "kind"), required_text(&f, "name"));
            let namespace = f.get("namespace").and_then(|n| n.name()).map(str::to_owned);
            f.finish();
            (kind?, namespace, name?)
        }
    };
    key_of(field, &kind_text, namespace.as_deref(), &name)
}

fn key_of(field: &Field<'_>, kind_text: &str, namespace: Option<&str>, name: &str) -> Option<ObjectKey> {
    let Some(kind) = Kind::by_alias(kind_text) else {
        field.fail(format!("Invalid value: {kind_text:?}: the server doesn't have a resource type {kind_text:?}"));
        return None;
    };
    if name.is_empty() || namespace == Some("") {
        field.invalid("the name must not be empty");
        return None;
    }
    let namespace = if kind.row().namespaced { namespace.unwrap_or("default") } else { "" };
    Some(ObjectKey::new(kind, namespace, name))
}

/// Reads which nodes are meant: exactly one of `all`, `names`, `zone`, `labels`, `random`, `controlPlane`, `machine`
/// and `actor`.
pub(crate) fn node_set(f: &Fields<'_>) -> Option<NodeSet> {
    let given = [
        f.get("all").map(|v| always(&v).map(|()| NodeSet::All)),
        f.get("names").map(|v| v.texts().map(NodeSet::Names)),
        f.get("zone").map(|v| v.name().map(|z| NodeSet::Zone(z.to_owned()))),
        f.get("labels").map(|v| v.selector().map(NodeSet::Labels)),
        f.get("random").map(|v| v.count(1, 1_000_000).map(NodeSet::Random)),
        f.get("controlPlane").map(|v| always(&v).map(|()| NodeSet::ControlPlane)),
        f.get("machine").map(|v| v.name().map(|m| NodeSet::Machine(m.to_owned()))),
        f.get("actor").map(|v| always(&v).map(|()| NodeSet::Actor)),
    ];
    let mut given = given.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(one), None) => one,
        (None, _) => {
            f.of.fail(
                "Required value: say which nodes: all, names, zone, labels, random, controlPlane, machine or actor",
            );
            None
        }
        (Some(_), Some(_)) => {
            f.of.fail("Forbidden: give only one of all, names, zone, labels, random, controlPlane, machine and actor");
            None
        }
    }
}

fn always(v: &Field<'_>) -> Option<()> {
    match v.boolean()? {
        true => Some(()),
        false => {
            v.invalid("must be true, or left out");
            None
        }
    }
}

pub(crate) fn signed_seconds(field: &Field<'_>) -> Option<i64> {
    let text = field.text()?;
    let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    match super::duration::parse(rest) {
        Some(d) if d.subsec_nanos() == 0 && !d.is_zero() => Some(sign * i64::try_from(d.as_secs()).ok()?),
        _ => {
            field.invalid("must be a jump in whole seconds, such as 30s or -2m");
            None
        }
    }
}

/// Reads an element of `expect`.
pub fn expectation(field: &Field<'_>) -> Option<Expectation> {
    const KINDS: [&str; 5] = ["ready", "neverBelow", "rolledOut", "image", "pending"];
    let all = field.fields()?;
    let [name] = all.keys()[..] else {
        field.fail(format!("Invalid value: an expectation is one of {}", KINDS.join(", ")));
        return None;
    };
    let Some(name) = KINDS.into_iter().find(|k| *k == name) else {
        let near =
            nearest(name, &KINDS).map_or(format!("one of {}", KINDS.join(", ")), |n| format!("did you mean {n:?}?"));
        field.fail(format!("unknown field {name:?}; {near}"));
        return None;
    };
    let f = all.require(name)?.fields()?;
    let key = || f.require("target").and_then(|t| target(&t));
    let replicas = || f.require("replicas").and_then(|r| r.integer(0, i64::from(i32::MAX))).map(|n| n as i32);
    let expectation = match name {
        "ready" => {
            let (key, replicas) = (key(), replicas());
            let by = f.get("by").map(|b| b.duration());
            match (key, replicas, by) {
                (Some(key), Some(replicas), None) => Some(Expectation::Ready { key, replicas, by: None }),
                (Some(key), Some(replicas), Some(Some(by))) => Some(Expectation::Ready { key, replicas, by: Some(by) }),
                _ => None,
            }
        }
        "neverBelow" => {
            let keys = match f.get("targets") {
                Some(list) => list.items().and_then(|items| items.iter().map(target).collect::<Option<Vec<_>>>()),
                None => key().map(|key| vec![key]),
            };
            keys.zip(replicas()).map(|(keys, replicas)| Expectation::NeverBelow { keys, replicas })
        }
        "rolledOut" => {
            let by = f.require("by").and_then(|b| b.duration());
            key().zip(by).map(|(key, by)| Expectation::RolledOut { key, by })
        }
        "image" => key().zip(required_text(&f, "image")).map(|(key, image)| Expectation::Image { key, image }),
        _ => {
            let namespace = optional(&f, "namespace", String::new(), |n| n.text().map(str::to_owned));
            let count = f.require("count").and_then(|c| c.count(0, 10_000_000));
            namespace.zip(count).map(|(namespace, count)| Expectation::Pending { namespace, count })
        }
    };
    f.finish();
    expectation
}
