//! Selectors of fields of custom resources that a webhook converts. What is selected is what a client sees, and that
//! only the webhook makes: so all objects are read, and those are kept that fit when they are converted.

use std::borrow::Cow;
use std::collections::BTreeSet;

use hyper::Response;
use serde_json::Value;
use skeg_core::api::{ListOptions, Reason, Status, WatchOptions};
use skeg_core::object::FieldSelector;

use super::ask::{Answer, Deletion, Event, Target, What};
use super::handler::{Handler, Head, Written, wants_gzip};
use super::reply::{self, Content};
use super::route::Objects;
use super::served::Resource;

/// The terms of a field selector that are judged after conversion.
#[derive(Clone, PartialEq, Debug)]
pub struct Selection(FieldSelector);

impl Selection {
    /// Takes its terms from a selector; `None` if what is stored can be judged. No version of a custom resource selects
    /// by what another does.
    pub fn take(resource: &Resource, fields: &mut FieldSelector) -> Result<Option<Selection>, Status> {
        if resource.is_custom() {
            let mut own = fields.terms.iter().filter(|(path, ..)| !path.starts_with("metadata."));
            if let Some((path, ..)) = own.find(|(path, ..)| !resource.selects_by(path)) {
                return Err(Status::bad_request(format!("field label not supported: {path}")));
            }
        }
        if resource.conversion().is_none() {
            return Ok(None);
        }
        let (of_metadata, own): (Vec<_>, Vec<_>) =
            std::mem::take(&mut fields.terms).into_iter().partition(|(path, ..)| path.starts_with("metadata."));
        fields.terms = of_metadata;
        Ok((!own.is_empty()).then_some(Selection(FieldSelector { terms: own })))
    }

    /// Whether a converted object fits.
    pub fn holds(&self, object: &Value) -> bool {
        self.0.matches(|path| match object.pointer(&format!("/{}", path.replace('.', "/")))? {
            Value::String(text) => Some(Cow::Borrowed(text)),
            Value::Number(number) => Some(Cow::Owned(number.to_string())),
            Value::Bool(flag) => Some(Cow::Owned(flag.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        })
    }
}

/// Namespace and name.
type Name = (String, String);

fn name_of(object: &Value) -> Name {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

/// The selection of a watch: what fits enters it, and leaves it when it fits no more.
#[derive(Debug)]
pub struct Selected {
    selection: Selection,
    inside: BTreeSet<Name>,
}

impl Selected {
    /// The event as the watch sees it; `None` if it does not concern it.
    pub fn see(&mut self, event: Event) -> Option<Event> {
        let Event::Value(type_, object) = event else { unreachable!("what is converted is not encoded") };
        let fits = match type_ {
            "ADDED" | "MODIFIED" => self.selection.holds(&object),
            "DELETED" => false,
            _ => return Some(Event::Value(type_, object)),
        };
        let name = name_of(&object);
        let was_inside = if fits { !self.inside.insert(name) } else { self.inside.remove(&name) };
        let seen = match (was_inside, fits) {
            (false, false) => return None,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        Some(Event::Value(seen, object))
    }
}

impl Handler {
    /// The objects of a list that fit.
    async fn fitting(
        &self,
        head: &Head<'_>,
        objects: &Objects,
        options: ListOptions,
        selection: &Selection,
    ) -> Result<Vec<Value>, Status> {
        let what =
            What::List { kind: objects.resource.kind, namespace: objects.namespace.clone(), options, as_text: false };
        let Answer::List { mut items, .. } = self.ask(head, objects, what, Written::default()).await?.result? else {
            unreachable!("a list is answered by a list")
        };
        items.retain(|item| selection.holds(item));
        Ok(items)
    }

    /// The selection of a watch that has these options, as it is where the watch begins.
    pub(super) async fn selected(
        &self,
        head: &Head<'_>,
        objects: &Objects,
        options: &mut WatchOptions,
    ) -> Result<Option<Selected>, Status> {
        let Some(selection) = Selection::take(&objects.resource, &mut options.fields)? else { return Ok(None) };
        let mut inside = BTreeSet::new();
        if options.rv.0 != 0 && !options.send_initial_events {
            let (labels, fields) = (options.labels.clone(), options.fields.clone());
            let there = ListOptions { labels, fields, rv: Some(options.rv), exact: true, ..ListOptions::default() };
            inside = self.fitting(head, objects, there, &selection).await?.iter().map(name_of).collect();
        }
        Ok(Some(Selected { selection, inside }))
    }

    /// Deletes what fits of a collection, one after another.
    pub(super) async fn delete_selected(
        &self,
        head: &Head<'_>,
        objects: &Objects,
        list: ListOptions,
        (selection, options): (Selection, Deletion),
    ) -> Result<Response<Content>, Status> {
        for item in self.fitting(head, objects, list, &selection).await? {
            let (namespace, name) = name_of(&item);
            let uid = item["metadata"]["uid"].as_str().map(str::to_owned);
            let options = Deletion { uid, ..options.clone() };
            let what = What::Delete { target: Target { kind: objects.resource.kind, namespace, name }, options };
            match self.ask(head, objects, what, Written::default()).await?.result {
                Ok(_) => {}
                // Somebody else has deleted it, or has made another of its name.
                Err(status) if matches!(status.reason, Reason::NotFound | Reason::Conflict) => {}
                Err(status) => return Err(status),
            }
        }
        Ok(reply::value(200, &reply::success(None), head.accepted.encoding, wants_gzip(head.headers)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use serde_json::json;
    use skeg_core::object::FieldSelector;

    use super::{Selected, Selection};
    use crate::up::ask::Event;
    use crate::up::served::tests::{converted_widgets, widgets};

    #[test]
    fn what_a_version_selects_by_is_judged_after_conversion() {
        let served = converted_widgets();
        let take = |version: &str, text: &str| {
            let mut fields = FieldSelector::parse(text).unwrap();
            let resource = served.by_path("example.com", version, "widgets").unwrap();
            let taken = Selection::take(resource, &mut fields).map_err(|status| status.message.to_string());
            (taken.map(|taken| taken.is_some()), fields)
        };
        let named = FieldSelector::equal("metadata.name", "a");
        assert_eq!(take("v2", "spec.host=h,metadata.name=a"), (Ok(true), named.clone()));
        assert_eq!(take("v2", "metadata.name=a"), (Ok(false), named));
        let refused = Err("field label not supported: spec.host".to_owned());
        assert_eq!(take("v1", "spec.host=h").0, refused, "another version selects by it");
    }

    #[test]
    fn no_version_selects_by_what_another_does() {
        let (served, size) = (widgets(), FieldSelector::equal("spec.size", "1"));
        let take = |version: &str| {
            let mut fields = size.clone();
            let resource = served.by_path("example.com", version, "widgets").unwrap();
            let taken = Selection::take(resource, &mut fields).map_err(|status| status.message.to_string());
            (taken.map(|taken| taken.is_some()), fields == size)
        };
        assert_eq!(take("v1"), (Ok(false), true));
        assert_eq!(take("v1beta1").0, Err("field label not supported: spec.size".to_owned()));
    }

    #[test]
    fn objects_enter_a_selection_and_leave_it() {
        let selection = Selection(FieldSelector::parse("spec.host=h,spec.port!=1").unwrap());
        let mut selected = Selected { selection, inside: BTreeSet::from([("d".to_owned(), "known".to_owned())]) };
        let mut see = |type_, name: &str, host: &str, port: u16| {
            let object = json!({"metadata": {"namespace": "d", "name": name}, "spec": {"host": host, "port": port}});
            let Event::Value(seen, _) = selected.see(Event::Value(type_, Arc::new(object)))? else { unreachable!() };
            Some(seen)
        };
        assert_eq!(see("MODIFIED", "known", "h", 2), Some("MODIFIED"));
        assert_eq!(see("ADDED", "a", "x", 2), None);
        assert_eq!(see("MODIFIED", "a", "h", 1), None);
        assert_eq!(see("MODIFIED", "a", "h", 2), Some("ADDED"));
        assert_eq!(see("MODIFIED", "a", "x", 2), Some("DELETED"));
        assert_eq!(see("DELETED", "a", "x", 2), None);
        assert_eq!(see("DELETED", "known", "h", 2), Some("DELETED"));
        assert_eq!(see("BOOKMARK", "", "", 0), Some("BOOKMARK"));
    }
}
