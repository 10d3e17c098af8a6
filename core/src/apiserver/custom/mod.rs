//! Custom resources: which ones are served, and what their definitions say about their objects.
//!
//! A server serves what the established CustomResourceDefinitions in its cache define. Another server's cache may be
//! ahead or behind. The lifecycle of definitions (names, conditions, deletion) is in [`definition`].
//!
//! Source: upstream's `apiextensions-apiserver/pkg/apiserver/customresource_handler.go` and
//! `pkg/registry/customresource`. Conversion between versions changes `apiVersion` only (`strategy: None`), or is what
//! a webhook makes of it ([`conversion`](super::conversion)).

mod definition;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde_json::{Map, Value};

use super::conversion::Conversion;
use super::write::{Deciding, Write};
use super::{ApiServer, Cache, Out};
use crate::api::{Call, Status};
use crate::machine::Now;
use crate::object::structural::{Defaults, Schema};
use crate::object::{
    Dynamic, FieldError, GroupVersion, Kind, KindInfo, KindRef, Kinds, Object, ObjectKey, Verbs, validation,
};
use crate::schema::{Schema as Types, Type};

/// A server's state of custom resources.
#[derive(Debug, Default)]
pub(super) struct Customs {
    served: BTreeMap<Kind, Rc<CustomResource>>,
    /// The kind of each served definition.
    by_definition: BTreeMap<ObjectKey, Kind>,
    /// Definitions for which a step may be due.
    pending: BTreeSet<ObjectKey>,
    /// Changes whenever what is served may have changed.
    generation: u64,
}

/// A resource of an established definition.
#[derive(Debug)]
pub(super) struct CustomResource {
    kind: Kind,
    /// Names and scope, in the storage version.
    of: KindRef,
    /// The definition is being deleted: its objects are being deleted and none may be created.
    terminating: bool,
    /// The webhook that converts between versions; `None` if they differ by name only.
    pub(super) conversion: Option<Conversion>,
    versions: Vec<Version>,
}

#[derive(Debug)]
struct Version {
    name: String,
    schema: Option<Schema>,
    defaults: Option<Defaults>,
    types: Option<Types>,
    scale: Option<ScalePaths>,
}

/// The field paths of `/scale`.
#[derive(Debug)]
pub(super) struct ScalePaths {
    pub(super) spec: String,
    pub(super) status: String,
    pub(super) selector: Option<String>,
}

impl Customs {
    /// The resource of a kind; `None` if it is not served.
    pub(super) fn of(&self, kind: Kind) -> Option<&Rc<CustomResource>> {
        self.served.get(&kind)
    }

    /// Serves the current version of a definition; returns the kind that is no longer served, if any.
    fn take(&mut self, key: &ObjectKey, definition: Option<&Object>, kinds: &Kinds) -> Option<Kind> {
        self.generation += 1;
        let dynamic = match definition {
            Some(Object::Dynamic(d)) => Some(d),
            Some(_) | None => None,
        };
        let now = dynamic.and_then(|d| CustomResource::of(d, kinds));
        let kind = now.as_ref().map(|resource| resource.kind);
        let before = match kind {
            Some(kind) => self.by_definition.insert(key.clone(), kind),
            None => self.by_definition.remove(key),
        };
        let gone = before.filter(|before| kind != Some(*before));
        gone.iter().for_each(|kind| drop(self.served.remove(kind)));
        if let Some(resource) = now {
            self.served.insert(resource.kind, Rc::new(resource));
        }
        gone
    }
}

/// The strings in a JSON list.
fn words(value: Option<&Value>) -> impl Iterator<Item = String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned)
}

impl CustomResource {
    /// What an established definition serves; `None` if it is not established or serves nothing.
    fn of(definition: &Dynamic, kinds: &Kinds) -> Option<CustomResource> {
        if !definition::is_true(definition, "Established") || !definition::is_true(definition, "NamesAccepted") {
            return None;
        }
        let spec = definition.body.get("spec")?;
        let names = definition.status.as_ref()?.get("acceptedNames")?;
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
        let versions = spec.get("versions").and_then(Value::as_array)?;
        let flag = |version: &Value, name: &str| version.get(name) == Some(&Value::Bool(true));
        let stored = versions.iter().find(|version| flag(version, "storage"))?;
        let group = text(spec, "group");
        let served = versions.iter().filter(|version| flag(version, "served")).map(|version| text(version, "name"));
        let also = served.filter(|name| *name != text(stored, "name"));
        let gv = |version: String| GroupVersion { group: group.clone().into(), version: version.into() };
        let has = |name: &str| versions.iter().any(|v| v.pointer(&format!("/subresources/{name}")).is_some());
        let subresources = ["scale", "status"].into_iter().filter(|name| has(name)).map(Into::into).collect::<Vec<_>>();
        let selectable = versions.iter().flat_map(|version| {
            let fields = version.get("selectableFields").and_then(Value::as_array).into_iter().flatten();
            fields.map(|field| text(field, "jsonPath").trim_start_matches('.').to_owned()).collect::<Vec<_>>()
        });
        let info = KindInfo {
            version: text(stored, "name").into(),
            also: also.map(gv).collect::<Vec<_>>().into(),
            kind: text(names, "kind").into(),
            plural: text(names, "plural").into(),
            singular: text(names, "singular").into(),
            namespaced: text(spec, "scope") == "Namespaced",
            short_names: words(names.get("shortNames")).map(Into::into).collect::<Vec<_>>().into(),
            categories: words(names.get("categories")).map(Into::into).collect::<Vec<_>>().into(),
            selectable: selectable.map(Into::into).collect::<Vec<_>>().into(),
            has_status: has("status"),
            subresources: subresources.into(),
            verbs: Verbs::All,
            group: group.clone().into(),
            ..KindInfo::custom()
        };
        let kind = kinds.register(info);
        let terminating = definition::is_true(definition, "Terminating");
        let versions = versions.iter().map(Version::parse).collect();
        let conversion = Conversion::read(spec);
        Some(CustomResource { kind, of: kinds.info(kind), terminating, conversion, versions })
    }

    fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// The types of its objects in a version, as its schema declares them.
    pub(super) fn types(&self, version: &str) -> Option<Type<'_>> {
        self.version(version)?.types.as_ref().map(Types::root)
    }

    /// The field paths of `/scale` in a version.
    pub(super) fn scale(&self, version: &str) -> Option<&ScalePaths> {
        self.version(version)?.scale.as_ref()
    }

    /// The version in which its objects are stored.
    pub(super) fn storage_version(&self) -> &str {
        &self.of.version
    }

    /// Whether an object is one of this resource, and not of a subresource.
    pub(super) fn is_of(&self, object: &Object) -> bool {
        object.info().group == self.of.group
    }

    /// A version as objects name it: `example.com/v1`.
    pub(super) fn api_version(&self, version: &str) -> String {
        format!("{}/{version}", self.of.group)
    }

    /// An object as it is in another version that differs by name only, with the names of the current definition, which
    /// may have changed since the object was written.
    pub(super) fn retagged(&self, object: &Object, version: &str) -> Object {
        let mut object = object.clone();
        if let Object::Dynamic(d) = &mut object {
            d.of = self.of.clone().in_version(version);
        }
        object
    }

    /// Prunes an object that a client has written, and applies its defaults.
    pub(super) fn shape(&self, object: &mut Object) {
        self.change(object, |version, whole| {
            version.schema.iter().for_each(|schema| schema.prune(whole, true));
            version.defaults.iter().for_each(|defaults| defaults.fill(whole));
        });
    }

    /// Prunes what a webhook has made of an object.
    pub(super) fn prune(&self, object: &mut Object) {
        self.change(object, |version, whole| version.schema.iter().for_each(|schema| schema.prune(whole, true)));
    }

    /// Applies the defaults of its version to an object.
    pub(super) fn fill(&self, object: &mut Object) {
        self.change(object, |version, whole| version.defaults.iter().for_each(|defaults| defaults.fill(whole)));
    }

    /// Changes what is not metadata of an object, by its version.
    fn change(&self, object: &mut Object, how: impl FnOnce(&Version, &mut Value)) {
        let Object::Dynamic(d) = object else { unreachable!("a custom object is held as it came") };
        let Some(version) = self.version(&d.of.version).filter(|version| version.schema.is_some()) else { return };
        let mut whole: Map<String, Value> = (*d.body).clone();
        if let Some(status) = &d.status {
            whole.insert("status".to_owned(), (**status).clone());
        }
        let mut whole = Value::Object(whole);
        how(version, &mut whole);
        let Value::Object(mut whole) = whole else { unreachable!("an object stays one") };
        d.status = whole.remove("status").map(Rc::new);
        d.body = Rc::new(whole);
    }

    /// Makes an object of what a webhook has returned.
    pub(super) fn accept(&self, deciding: &Deciding<'_>, value: Value) -> Result<Object, Status> {
        let mut object = deciding.decode(value)?;
        self.shape(&mut object);
        Ok(object)
    }

    /// Adds the errors by the schema of the version in which an object is, and returns `Err` if there are any.
    fn refuse(&self, object: &Object, old: Option<&Object>, mut errors: Vec<FieldError>) -> Result<(), Status> {
        if let Some(schema) = self.version(&object.info().version).and_then(|version| version.schema.as_ref()) {
            let old = old.map(Object::to_json);
            schema.validate(&object.to_json(), old.as_ref(), &mut errors);
        }
        if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&self.of, object.name(), &errors)) }
    }

    /// Validates a new object.
    pub(super) fn admit_new(&self, object: &Object) -> Result<(), Status> {
        self.refuse(object, None, validation::create(object))
    }

    /// Validates a changed object. Both are in the same version.
    pub(super) fn admit_changed(&self, new: &Object, current: &Object) -> Result<(), Status> {
        self.refuse(new, Some(current), validation::update(new, current))
    }
}

impl Version {
    fn parse(value: &Value) -> Version {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let scale = text("/subresources/scale/specReplicasPath").map(|spec| ScalePaths {
            spec,
            status: text("/subresources/scale/statusReplicasPath").unwrap_or_default(),
            selector: text("/subresources/scale/labelSelectorPath"),
        });
        let schema = value.pointer("/schema/openAPIV3Schema");
        // A schema that is no structural one is refused before a definition is established.
        let types = schema.and_then(|schema| Types::custom(schema).ok());
        let defaults = schema.and_then(Defaults::read);
        let schema = schema.map(Schema::parse);
        Version { name: text("/name").unwrap_or_default(), schema, defaults, types, scale }
    }
}

impl Deciding<'_> {
    /// Prunes and defaults a new custom object; returns its resource, or `None` if it is not a custom object.
    pub(super) fn shape_new(
        &self,
        write: &mut Write,
        object: &mut Object,
    ) -> Result<Option<Rc<CustomResource>>, Status> {
        let Some(custom) = self.customs.of(object.kind()) else { return Ok(None) };
        if custom.terminating {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Status { message: why.into(), ..Status::method_not_allowed(&custom.of, "create") });
        }
        if let Call::Create { options, .. } = &write.request.call
            && !write.applies
        {
            write.warnings = self.check_custom_fields(object, &write.request.minded, options.field_validation)?;
        }
        write.warnings.extend(validation::finalizer_warnings(object, None));
        if let Object::Dynamic(d) = object
            && custom.of.has_status
        {
            d.status = None;
        }
        custom.shape(object);
        Ok(Some(Rc::clone(custom)))
    }
}

impl ApiServer {
    /// A number that changes whenever the result of [`served_definitions`](Self::served_definitions) may have changed.
    pub fn definitions_generation(&self) -> u64 {
        self.customs.generation
    }

    /// The custom resources that are served: what is known of each in its stored version, and its definition's `spec`.
    pub fn served_definitions(&self) -> impl Iterator<Item = (Kind, KindRef, &Value)> {
        self.customs.by_definition.iter().filter_map(|(key, kind)| {
            let Some(Object::Dynamic(definition)) = self.cache.get(key) else { return None };
            let served = self.customs.of(*kind)?;
            Some((*kind, served.of.clone(), definition.body.get("spec")?))
        })
    }

    /// Recomputes the served resources after the cache was loaded.
    pub(super) fn load_definitions(&mut self) {
        self.customs = Customs { generation: self.customs.generation + 1, ..Customs::default() };
        let keys: Vec<ObjectKey> =
            self.cache.objects(Kind::CUSTOM_RESOURCE_DEFINITION).map(|(k, _)| k.clone()).collect();
        for key in keys {
            self.customs.take(&key, self.cache.get(&key), &self.config.kinds);
            self.customs.pending.insert(key);
        }
    }

    /// Handles a change of a definition.
    pub(super) fn definition_changed(&mut self, now: Now, key: &ObjectKey, out: &mut Vec<Out>) {
        if let Some(gone) = self.customs.take(key, self.cache.get(key), &self.config.kinds) {
            self.watchers.end_kind(gone, out);
        }
        if self.cache.get(key).is_some() {
            self.customs.pending.insert(key.clone());
        } else {
            // The names that it had are free now.
            self.customs.pending.extend(rejected(&self.cache));
        }
        self.tend_definitions(now, out);
    }
}

/// Definitions whose names have not been accepted.
fn rejected(cache: &Cache) -> impl Iterator<Item = ObjectKey> {
    cache.objects(Kind::CUSTOM_RESOURCE_DEFINITION).filter_map(|(key, object)| match object {
        Object::Dynamic(d) if !definition::is_true(d, "NamesAccepted") => Some(key.clone()),
        _ => None,
    })
}
