//! The resources that are served over HTTP, each in every served version: built-in ones and custom ones.
//!
//! The machines' thread publishes a new [`Served`] whenever the definitions in the API server change. An HTTP request
//! uses the one that was current when it arrived.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use serde_json::{Value, json};
use skeg_core::Kind;
use skeg_core::api::{Patch, Status};
use skeg_core::apiserver::Conversion;
use skeg_core::features::FeatureGates;
use skeg_core::object::structural::{Defaults, Schema};
use skeg_core::object::{FieldSelector, GroupVersion, KindInfo, SubresourceInfo, versions};
use skeg_core::table::{self, CustomColumns, Time};

use super::review::REVIEWS;
use super::usage;

/// A resource in one of the versions in which it is served.
#[derive(Clone, PartialEq, Debug)]
pub struct Resource {
    /// Its kind.
    pub kind: Kind,
    /// Its names, scope and subresources; `version` is the version that is served.
    pub info: KindInfo,
    /// What the definition says about this version; `None` for built-in resources.
    custom: Option<CustomVersion>,
}

#[derive(Clone, PartialEq, Debug, Default)]
struct CustomVersion {
    columns: CustomColumns,
    /// Its `openAPIV3Schema`.
    schema: Arc<Value>,
    /// Those of objects that were stored before the schema had them.
    defaults: Option<Defaults>,
    /// The warning for clients, if the version is deprecated.
    warning: Option<String>,
    /// How a webhook converts objects to it; `None` if versions differ by name only.
    conversion: Option<Arc<Converter>>,
    /// The fields by which clients may select.
    selectable: Vec<String>,
    /// The kind of its lists; `None` for what no definition defines.
    list_kind: Option<String>,
}

/// How a webhook converts the objects of a definition.
#[derive(PartialEq, Debug)]
struct Converter {
    conversion: Conversion,
    /// The defaults of each version, which an object has before it is converted.
    defaults: BTreeMap<String, Defaults>,
}

impl Converter {
    fn read(spec: &Value) -> Option<Converter> {
        let conversion = Conversion::read(spec)?;
        let versions = spec["versions"].as_array().into_iter().flatten();
        let defaults = versions.filter_map(|version| {
            let name = format!("{}/{}", spec["group"].as_str()?, version["name"].as_str()?);
            Some((name, Defaults::read(&version["schema"]["openAPIV3Schema"])?))
        });
        Some(Converter { conversion, defaults: defaults.collect() })
    }
}

/// Subresources that are served; the others of the table are not yet.
const SUBRESOURCES: [&str; 14] = [
    "status",
    "scale",
    "binding",
    "eviction",
    "finalize",
    "approval",
    "ephemeralcontainers",
    "resize",
    "log",
    "exec",
    "attach",
    "portforward",
    "proxy",
    "token",
];

impl Resource {
    fn built_in(kind: Kind) -> Resource {
        Resource { kind, info: kind.row().clone(), custom: None }
    }

    fn in_second_version((kind, group, version): (Kind, &'static str, &'static str)) -> Resource {
        let info = KindInfo { group: group.into(), version: version.into(), ..kind.row().clone() };
        Resource { kind, info, custom: None }
    }

    /// Whether it is a built-in resource in another version than the one in which its objects are held.
    /// Whether its objects are shown as they are held.
    pub fn is_shown_as_held(&self) -> bool {
        self.custom.is_none() && !self.is_second_version()
    }

    fn is_second_version(&self) -> bool {
        self.custom.is_none() && {
            let (held, here) = (self.kind.row(), &self.info);
            (&held.group, &held.version) != (&here.group, &here.version)
        }
    }

    /// A resource whose objects are computed and never stored, with additional columns as a definition writes them.
    pub fn computed(kind: Kind, info: KindInfo, columns: &[Value]) -> Resource {
        let columns = CustomColumns::of_version(&json!({"additionalPrinterColumns": columns}));
        let custom = CustomVersion { columns, schema: Arc::new(Value::Null), ..CustomVersion::default() };
        Resource { kind, info, custom: Some(custom) }
    }

    /// The served versions of a custom resource, from the `spec` of its definition, in order of priority.
    fn custom(kind: Kind, stored: &KindInfo, spec: &Value) -> Vec<Resource> {
        let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
        let converter = Converter::read(spec).map(Arc::new);
        let served = versions.iter().filter(|v| v["served"] == true);
        let names: Vec<String> = served.clone().filter_map(|v| v["name"].as_str().map(str::to_owned)).collect();
        let of = |version: &Value| {
            let name = version["name"].as_str()?;
            let gv = |n: &String| GroupVersion { group: stored.group.clone(), version: n.clone().into() };
            let has = |sub: &&str| version["subresources"].get(*sub).is_some();
            let subresources: Vec<_> = ["status", "scale"].into_iter().filter(has).map(Into::into).collect();
            let info = KindInfo {
                version: name.to_owned().into(),
                also: names.iter().filter(|n| *n != name).map(gv).collect::<Vec<_>>().into(),
                has_status: subresources.iter().any(|s| s == "status"),
                subresources: subresources.into(),
                ..stored.clone()
            };
            let warning = (version["deprecated"] == true).then(|| match version["deprecationWarning"].as_str() {
                Some(warning) => warning.to_owned(),
                None => format!("{} {} is deprecated", info.api_version(), info.kind),
            });
            let schema = Arc::new(version["schema"]["openAPIV3Schema"].clone());
            let (columns, defaults) = (CustomColumns::of_version(version), Defaults::read(&schema));
            let list_kind = spec["names"]["listKind"].as_str().map(str::to_owned);
            let list_kind = Some(list_kind.unwrap_or_else(|| format!("{}List", info.kind)));
            let conversion = converter.clone();
            let fields = version["selectableFields"].as_array().into_iter().flatten();
            let paths = fields.filter_map(|field| Some(field["jsonPath"].as_str()?.trim_start_matches('.').to_owned()));
            let selectable = paths.collect();
            let custom = CustomVersion { columns, schema, defaults, warning, conversion, selectable, list_kind };
            Some(Resource { kind, info, custom: Some(custom) })
        };
        let mut all: Vec<Resource> = served.filter_map(of).collect();
        all.sort_by(|a, b| by_priority(&a.info.version, &b.info.version));
        all
    }

    /// Whether it is a version of a custom resource.
    pub fn is_custom(&self) -> bool {
        self.custom.is_some()
    }

    /// Whether the definition of this version lets clients select by a field.
    pub fn selects_by(&self, path: &str) -> bool {
        self.custom.as_ref().is_some_and(|custom| custom.selectable.iter().any(|field| field == path))
    }

    /// The kind of a custom resource's lists, each of whose items says its own kind and version; `None` for others.
    pub fn custom_list_kind(&self) -> Option<&str> {
        self.custom.as_ref()?.list_kind.as_deref()
    }

    /// The served subresources, each with its name.
    pub fn subresources(&self) -> impl Iterator<Item = (&'static str, SubresourceInfo)> {
        SUBRESOURCES.into_iter().filter_map(|name| Some((name, self.info.subresource(name)?)))
    }

    /// Whether a subresource is served.
    pub fn has_subresource(&self, name: &str) -> bool {
        SUBRESOURCES.contains(&name) && self.info.has_subresource(name)
    }

    /// Converts an object to this resource's version. Versions of a custom resource differ only in their `apiVersion`
    /// (conversion `strategy: None`) and in defaults; what a webhook is to convert stays as it is stored.
    pub fn present(&self, mut object: Value) -> Value {
        if self.is_second_version() {
            return versions::shown_in(self.kind, &self.info.api_version(), object);
        }
        if let Some(custom) = &self.custom
            && object.get("apiVersion").is_some()
        {
            if let Some(converter) = custom.conversion.as_ref().filter(|_| self.is_other_version(&object)) {
                let defaults = object["apiVersion"].as_str().and_then(|version| converter.defaults.get(version));
                defaults.iter().for_each(|defaults| defaults.fill(&mut object));
                return object;
            }
            object["apiVersion"] = json!(self.info.api_version());
            custom.defaults.iter().for_each(|defaults| defaults.fill(&mut object));
        }
        object
    }

    /// The webhook that converts objects to this resource's version; `None` if there is no need of one.
    pub fn conversion(&self) -> Option<&Conversion> {
        Some(&self.custom.as_ref()?.conversion.as_ref()?.conversion)
    }

    /// Whether an object is in another version of this resource.
    pub fn is_other_version(&self, object: &Value) -> bool {
        let version = object["apiVersion"].as_str().unwrap_or_default();
        let group = version.split_once('/').map_or("", |(group, _)| group);
        group == self.info.group && version != self.info.api_version()
    }

    /// What a webhook has made of objects, without the fields that this version does not have.
    pub fn pruned(&self, mut objects: Vec<Value>) -> Vec<Value> {
        if let Some(schema) = self.schema().filter(|schema| !schema.is_null()) {
            let schema = Schema::for_pruning(schema);
            objects.iter_mut().for_each(|object| schema.prune(object, true));
        }
        objects
    }

    /// Converts the body of a write to the version in which built-in objects are held.
    pub fn to_held(&self, object: Value) -> Value {
        if self.is_second_version() { versions::to_held(self.kind, object) } else { object }
    }

    /// The same field selector by the names of the held version.
    pub fn fields_to_held(&self, fields: FieldSelector) -> Result<FieldSelector, Status> {
        if self.is_second_version() { versions::fields_to_held(self.kind, fields) } else { Ok(fields) }
    }

    /// Converts a patch to one of the held version.
    pub fn patch_to_held(&self, patch: Patch) -> Result<Patch, Status> {
        if self.is_second_version() {
            return versions::patch_to_held(self.kind, &self.info.api_version(), patch);
        }
        Ok(patch)
    }

    /// The text for the `Warning` header if this version is deprecated.
    pub fn warning(&self) -> Option<&str> {
        self.custom.as_ref()?.warning.as_deref()
    }

    /// The `openAPIV3Schema` of a custom resource (JSON null if its definition has none); `None` for built-in
    /// resources.
    pub fn schema(&self) -> Option<&Value> {
        self.custom.as_ref().map(|custom| &*custom.schema)
    }

    /// The columns of a Table.
    pub fn columns(&self) -> Vec<Value> {
        match &self.custom {
            Some(custom) => custom.columns.to_json(),
            None => table::columns(self.kind).iter().map(table::Column::to_json).collect(),
        }
    }

    /// The cells of an object's row.
    pub fn cells(&self, object: &Value, now: Time) -> Vec<Value> {
        match &self.custom {
            Some(custom) => custom.columns.cells(object, now),
            None if self.is_second_version() => table::cells(self.kind, &self.to_held(object.clone()), now),
            None => table::cells(self.kind, object, now),
        }
    }
}

/// Orders versions by Kubernetes' version priority: `v2`, `v1`, `v1beta1`, `v1alpha1`, then all others by name.
///
/// Source:
/// <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#version-priority>.
pub fn by_priority(a: &str, b: &str) -> Ordering {
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability, major and minor number; `None` if the version is not named like Kubernetes' versions.
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, rest) = (rest[..digits].parse().ok()?, &rest[digits..]);
    let staged = |stage: u8, minor: &str| Some((stage, major, minor.parse().ok()?));
    match rest {
        "" => Some((2, major, 0)),
        _ => rest
            .strip_prefix("beta")
            .and_then(|minor| staged(1, minor))
            .or_else(|| rest.strip_prefix("alpha").and_then(|minor| staged(0, minor))),
    }
}

/// All served resources, each in every served version.
#[derive(Clone, Debug)]
pub struct Served {
    resources: Vec<Arc<Resource>>,
}

impl Served {
    /// The built-in resources that are served by default.
    pub fn built_in() -> Served {
        Served::built_in_with(FeatureGates::default())
    }

    /// The built-in resources that are served while these gates are on.
    pub fn built_in_with(features: FeatureGates) -> Served {
        let held = Kind::all_stored().filter(|kind| features.serves(*kind)).chain(REVIEWS).map(Resource::built_in);
        let second = versions::SECOND_VERSIONS.into_iter().map(Resource::in_second_version);
        Served { resources: held.chain(second).chain(usage::resources()).map(Arc::new).collect() }
    }

    /// The built-in resources, and custom ones, given by their kind, its stored version and the `spec` of the
    /// definition.
    pub fn with<'a>(features: FeatureGates, customs: impl Iterator<Item = (Kind, KindInfo, &'a Value)>) -> Served {
        let mut served = Served::built_in_with(features);
        let all = customs.flat_map(|(kind, info, spec)| Resource::custom(kind, &info, spec));
        served.resources.extend(all.map(Arc::new));
        served
    }

    /// All resources: built-in ones in the order of the table of kinds, then custom ones.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.iter()
    }

    /// The resources of a group version.
    pub fn of<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.all().filter(move |r| r.info.group == group && r.info.version == version)
    }

    /// The resource that a path names.
    pub fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let named = |r: &&Arc<Resource>| r.info.group == group && r.info.version == version && r.info.plural == plural;
        self.all().find(named)
    }

    /// All groups except the core group, each with its versions in order of priority.
    pub fn groups(&self) -> Vec<(&str, Vec<&str>)> {
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        for Resource { info, custom, .. } in self.all().map(|r| &**r).filter(|r| !r.info.group.is_empty()) {
            let index = groups.iter().position(|(group, _)| *group == info.group).unwrap_or_else(|| {
                groups.push((&info.group, Vec::new()));
                groups.len() - 1
            });
            let versions = &mut groups[index].1;
            if !versions.contains(&&*info.version) {
                versions.push(&info.version);
                // Built-in versions are already in order.
                if custom.is_some() {
                    versions.sort_by(|a, b| by_priority(a, b));
                }
            }
        }
        groups
    }

    /// All group-versions with their path: `api/v1`, `apis/apps/v1`.
    pub fn group_versions(&self) -> Vec<(String, &str, &str)> {
        let named = self.groups().into_iter();
        let named = named.flat_map(|(g, versions)| versions.into_iter().map(move |v| (format!("apis/{g}/{v}"), g, v)));
        std::iter::once(("api/v1".to_owned(), "", "v1")).chain(named).collect()
    }
}

/// Holds the current [`Served`] for the HTTP threads.
#[derive(Clone, Debug)]
pub struct Catalogue(Arc<RwLock<Arc<Served>>>);

impl Default for Catalogue {
    fn default() -> Catalogue {
        Catalogue(Arc::new(RwLock::new(Arc::new(Served::built_in()))))
    }
}

impl Catalogue {
    /// The resources that are served now.
    pub fn now(&self) -> Arc<Served> {
        Arc::clone(&self.0.read().expect("nobody panics while it is replaced"))
    }

    /// Replaces the resources that are served.
    pub fn publish(&self, served: Served) {
        *self.0.write().expect("nobody panics while it is read") = Arc::new(served);
    }
}

#[cfg(test)]
pub mod tests {
    use super::{FeatureGates, Resource, Served, by_priority};
    use serde_json::json;
    use skeg_core::Kind;
    use skeg_core::object::KindInfo;

    /// The built-in resources and one custom resource.
    pub fn widgets() -> Served {
        let info = KindInfo {
            group: "example.com".into(),
            version: "v1".into(),
            kind: "Widget".into(),
            plural: "widgets".into(),
            ..KindInfo::custom()
        };
        let spec = json!({"names": {"listKind": "ManyWidgets"}, "versions": [
            {"name": "v1beta1", "served": true, "storage": false, "deprecated": true},
            {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
             "selectableFields": [{"jsonPath": ".spec.size"}]},
            {"name": "v1alpha1", "served": false, "storage": false},
        ]});
        Served::with(FeatureGates::default(), std::iter::once((Kind(60_000), info, &spec)))
    }

    /// As [`widgets`], in two versions that a webhook converts, of which the second selects by a field of its own.
    pub fn converted_widgets() -> Served {
        let plural = "widgets".into();
        let info = KindInfo { group: "example.com".into(), kind: "Widget".into(), plural, ..KindInfo::custom() };
        let spec = json!({"group": "example.com", "versions": [
            {"name": "v1", "served": true, "storage": true},
            {"name": "v2", "served": true, "storage": false, "selectableFields": [{"jsonPath": ".spec.host"}]},
        ], "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://converter.example.com"}}}});
        Served::with(FeatureGates::default(), std::iter::once((Kind(60_000), info, &spec)))
    }

    #[test]
    fn a_definitions_versions_are_served_best_first() {
        let served = widgets();
        assert_eq!(served.groups().last().unwrap(), &("example.com", vec!["v1", "v1beta1"]));
        let of = |version: &str| served.by_path("example.com", version, "widgets");
        assert!(of("v1alpha1").is_none());
        let (stable, beta): (&Resource, &Resource) = (of("v1").unwrap(), of("v1beta1").unwrap());
        assert_eq!((stable.has_subresource("status"), beta.has_subresource("status")), (true, false));
        assert_eq!((stable.warning(), beta.warning()), (None, Some("example.com/v1beta1 Widget is deprecated")));
        let shown = beta.present(json!({"apiVersion": "example.com/v1", "kind": "Widget"}));
        assert_eq!(shown["apiVersion"], "example.com/v1beta1");
    }

    #[test]
    fn versions_are_preferred_as_kubernetes_documents() {
        let mut versions = vec!["foo1", "v1alpha1", "v2", "v10", "v1beta2", "foo10", "v11alpha2", "v3beta1", "v1"];
        versions.sort_by(|a, b| by_priority(a, b));
        assert_eq!(versions, ["v10", "v2", "v1", "v3beta1", "v1beta2", "v11alpha2", "v1alpha1", "foo1", "foo10"]);
    }
}
