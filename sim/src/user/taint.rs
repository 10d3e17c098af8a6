//! `kubectl taint`: reads the node, and sets or removes a taint if the node has not changed meanwhile.

use k8s_openapi::api::core::v1::Taint;
use serde_json::json;

use skeg_core::api::{Call, Patch, Precondition, Subresource, WriteOptions};
use skeg_core::object::{Kind, Object, ObjectKey};

use super::command::{Task, Then};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Reads a taint as kubectl writes it: `key=value:effect` or `key:effect`.
pub fn read(text: &str) -> Result<Taint, String> {
    let wrong = || format!("Invalid value: {text:?}: a taint is written as key=value:effect or key:effect");
    let (name, effect) = text.split_once(':').ok_or_else(wrong)?;
    let (key, value) = name.split_once('=').map_or((name, None), |(key, value)| (key, Some(value.to_owned())));
    if key.is_empty() || !EFFECTS.contains(&effect) {
        return Err(format!("{}, with one of the effects {}", wrong(), EFFECTS.join(", ")));
    }
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

/// A taint as kubectl writes it.
pub fn text(taint: &Taint) -> String {
    let value = taint.value.as_ref().map(|value| format!("={value}")).unwrap_or_default();
    format!("{}{value}:{}", taint.key, taint.effect)
}

pub(super) fn task(node: &str, taint: &Taint, removed: bool) -> Task {
    let then = Then::Taint { taint: Box::new(taint.clone()), removed };
    Task::Get(ObjectKey::new(Kind::NODE, "", node), then)
}

/// The write that changes the taint of a node as it was read; `None` if there is nothing to change.
pub(super) fn change(live: &Object, taint: &Taint, removed: bool) -> Result<Option<Call>, String> {
    let Object::Node(node) = live else { return Err(format!("{} has no taints", live.key())) };
    let is_it = |other: &&Taint| other.key == taint.key && other.effect == taint.effect;
    let old = node.spec.taints.as_deref().unwrap_or_default();
    let mut taints: Vec<Taint> = old.iter().filter(|other| !is_it(other)).cloned().collect();
    match (old.iter().find(is_it), removed) {
        (None, true) => return Err(format!("taint \"{}:{}\" not found", taint.key, taint.effect)),
        (Some(old), false) if old.value == taint.value => return Ok(None),
        (_, false) => taints.push(taint.clone()),
        (Some(_), true) => {}
    }
    let precondition = Precondition { uid: None, rv: Some(live.rv()) };
    Ok(Some(Call::Patch {
        key: live.key(),
        patch: Patch::Merge(json!({"spec": {"taints": taints}})),
        subresource: Subresource::None,
        precondition,
        options: WriteOptions::default(),
    }))
}

#[cfg(test)]
mod tests {
    use super::{read, text};

    #[test]
    fn taints_are_read_and_written_as_kubectl_does() {
        for well in ["a=b:NoSchedule", "example.com/a:NoExecute", "a=:PreferNoSchedule"] {
            assert_eq!(text(&read(well).unwrap()), well);
        }
        for wrong in ["a=b", "=b:NoSchedule", "a:Never", ""] {
            read(wrong).unwrap_err();
        }
    }
}
