//! Kinds: a small number for each resource, and its description ([`KindInfo`]).
//!
//! A kind stands for a *resource*: something that is stored once, whatever versions serve it. Built-in kinds are the
//! rows of [`builtin`](super::builtin). [`Kinds`](super::Kinds) numbers custom kinds after them, in the order in which
//! they are registered. Discovery, URL paths, RESTMapping, validation of scope, `kubectl get` short names and the
//! store's keys all derive from the `KindInfo`.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::builtin::TABLE;

/// A kind of object, as a small number (`Copy`). Built-in kinds are numbered in table order; custom kinds follow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u16);

/// A list of words: static for built-in kinds, owned if it came from a CustomResourceDefinition.
pub type Words = Cow<'static, [Cow<'static, str>]>;

/// The verbs that the API server supports for a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verbs {
    /// Everything: create, delete, deletecollection, get, list, patch, update, watch.
    All,
    /// All but deletecollection.
    Single,
    /// Create only: for review requests that are answered and never stored.
    Create,
    /// Get and list only: for objects that are computed and never stored.
    Read,
}

impl Verbs {
    /// The verbs' names, as discovery lists them.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Verbs::All => &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            Verbs::Single => &["create", "delete", "get", "list", "patch", "update", "watch"],
            Verbs::Create => &["create"],
            Verbs::Read => &["get", "list"],
        }
    }

    /// Whether objects of this kind are stored, so that they can be read, written, watched and garbage-collected.
    pub fn stored(self) -> bool {
        matches!(self, Verbs::All | Verbs::Single)
    }
}

/// An additional group and version in which a resource is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupVersion {
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// Version within the group.
    pub version: Cow<'static, str>,
}

/// The description of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindInfo {
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// Version within the group in which Skeg holds the objects.
    pub version: Cow<'static, str>,
    /// Other groups and versions in which the same objects are served.
    pub also: Cow<'static, [GroupVersion]>,
    /// Kind as in manifests: `Pod`.
    pub kind: Cow<'static, str>,
    /// Plural resource name as in paths: `pods`.
    pub plural: Cow<'static, str>,
    /// Singular resource name; empty if it is the kind in lower case.
    pub singular: Cow<'static, str>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// `kubectl`'s short names.
    pub short_names: Words,
    /// Categories, for example `all` in `kubectl get all`.
    pub categories: Words,
    /// Names of the subresources that are served.
    pub subresources: Words,
    /// Fields that field selectors may use, beside those of the metadata (upstream's field label conversion functions).
    pub selectable: Words,
    /// The supported verbs.
    pub verbs: Verbs,
    /// Whether the status can be written only through the status subresource.
    pub has_status: bool,
    /// Whether `metadata.generation` counts changes of the spec.
    pub has_generation: bool,
    /// Whether an update of an object that does not exist creates it (`AllowCreateOnUpdate`).
    pub create_on_update: bool,
    /// Whether an update may omit `resourceVersion` (`AllowUnconditionalUpdate`).
    pub unconditional_update: bool,
}

/// A subresource, as discovery describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubresourceInfo {
    /// API group of its request and response bodies; empty for the core group.
    pub group: Cow<'static, str>,
    /// Version of its bodies.
    pub version: Cow<'static, str>,
    /// Kind of its bodies: `Scale`.
    pub kind: Cow<'static, str>,
    /// The supported verbs.
    pub verbs: &'static [&'static str],
}

impl KindInfo {
    /// A custom kind of which nothing is known yet: its names are empty, all other fields have their defaults.
    pub fn custom() -> KindInfo {
        KindInfo {
            group: "".into(),
            version: "".into(),
            also: Cow::Borrowed(&[]),
            kind: "".into(),
            plural: "".into(),
            singular: "".into(),
            namespaced: true,
            short_names: Cow::Borrowed(&[]),
            categories: Cow::Borrowed(&[]),
            subresources: Cow::Borrowed(&[]),
            selectable: Cow::Borrowed(&[]),
            verbs: Verbs::All,
            has_status: false,
            has_generation: true,
            create_on_update: false,
            unconditional_update: false,
        }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        join(&self.group, &self.version)
    }

    /// Singular resource name.
    pub fn singular(&self) -> String {
        if self.singular.is_empty() { self.kind.to_lowercase() } else { self.singular.to_string() }
    }

    /// The qualified resource as error messages show it: `pods` or `deployments.apps`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The qualified kind as error messages show it: `Pod` or `Deployment.apps`.
    pub fn qualified_kind(&self) -> String {
        if self.group.is_empty() { self.kind.to_string() } else { format!("{}.{}", self.kind, self.group) }
    }

    /// Whether the kind has a subresource of this name.
    pub fn has_subresource(&self, name: &str) -> bool {
        self.subresources.iter().any(|known| known == name)
    }

    /// Whether it is served in this group and version.
    pub fn is_served_in(&self, group: &str, version: &str) -> bool {
        self.group == group && self.version == version
            || self.also.iter().any(|gv| gv.group == group && gv.version == version)
    }

    /// The description of a subresource for discovery; `None` if the kind has none of that name.
    pub fn subresource(&self, name: &str) -> Option<SubresourceInfo> {
        const CHANGE: &[&str] = &["get", "patch", "update"];
        const OPEN: &[&str] = &["create", "get"];
        const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];
        if !self.has_subresource(name) {
            return None;
        }
        let of = |group: &'static str, version: &'static str, kind: &'static str, verbs| SubresourceInfo {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            verbs,
        };
        Some(match (name, &*self.kind) {
            ("scale", _) => of("autoscaling", "v1", "Scale", CHANGE),
            ("token", _) => of("authentication.k8s.io", "v1", "TokenRequest", &["create"]),
            ("eviction", _) => of("policy", "v1", "Eviction", &["create"]),
            ("binding", _) => of("", "v1", "Binding", &["create"]),
            ("attach", _) => of("", "v1", "PodAttachOptions", OPEN),
            ("exec", _) => of("", "v1", "PodExecOptions", OPEN),
            ("portforward", _) => of("", "v1", "PodPortForwardOptions", OPEN),
            ("proxy", "Node") => of("", "v1", "NodeProxyOptions", PROXY),
            ("proxy", "Pod") => of("", "v1", "PodProxyOptions", PROXY),
            ("proxy", _) => of("", "v1", "ServiceProxyOptions", PROXY),
            ("log", _) => of("", "v1", "Pod", &["get"]),
            ("finalize", _) => of("", "v1", "Namespace", &["update"]),
            _ => SubresourceInfo {
                group: self.group.clone(),
                version: self.version.clone(),
                kind: self.kind.clone(),
                verbs: CHANGE,
            },
        })
    }
}

fn join(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// An owning reference to a [`KindInfo`].
#[derive(Clone)]
pub enum KindRef {
    /// A row of the built-in table.
    BuiltIn(&'static KindInfo),
    /// A custom kind; the description is shared.
    Custom(Rc<KindInfo>),
}

impl KindRef {
    /// This kind with the version and kind name that a stored object was written with. They can differ for a custom
    /// kind: its definition may not have been seen yet, or may name another storage version by now.
    pub(super) fn written_as(self, api_version: &str, kind: &str) -> KindRef {
        match (&self, api_version.split_once('/')) {
            (KindRef::Custom(info), Some((group, version))) if info.group == group => {
                if info.version == version && info.kind == kind {
                    return self;
                }
                let (version, kind) = (version.to_owned().into(), kind.to_owned().into());
                KindRef::Custom(Rc::new(KindInfo { version, kind, ..(**info).clone() }))
            }
            (KindRef::Custom(_) | KindRef::BuiltIn(_), _) => self,
        }
    }

    /// This kind in another of its served versions, for an object that is written in that version. Unchanged if the
    /// version is not served.
    pub fn in_version(self, version: &str) -> KindRef {
        match &self {
            KindRef::Custom(info) if info.version != version && info.is_served_in(&info.group, version) => {
                let other = |also: &GroupVersion| match also.version == version {
                    true => GroupVersion { group: also.group.clone(), version: info.version.clone() },
                    false => also.clone(),
                };
                let also = info.also.iter().map(other).collect::<Vec<_>>().into();
                KindRef::Custom(Rc::new(KindInfo { version: version.to_owned().into(), also, ..(**info).clone() }))
            }
            KindRef::Custom(_) | KindRef::BuiltIn(_) => self,
        }
    }
}

impl Deref for KindRef {
    type Target = KindInfo;

    fn deref(&self) -> &KindInfo {
        match self {
            KindRef::BuiltIn(info) => info,
            KindRef::Custom(info) => info,
        }
    }
}

impl fmt::Debug for KindRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.qualified_kind())
    }
}

impl Kind {
    /// Every built-in kind.
    pub fn all() -> impl Iterator<Item = Kind> {
        (0..TABLE.len() as u16).map(Kind)
    }

    /// Every built-in kind whose objects are stored.
    pub fn all_stored() -> impl Iterator<Item = Kind> {
        Kind::all().filter(|kind| kind.row().verbs.stored())
    }

    /// The row of a built-in kind; `None` for a custom kind, whose description is in [`Kinds`](super::Kinds).
    pub fn built_in(self) -> Option<&'static KindInfo> {
        TABLE.get(usize::from(self.0))
    }

    /// The row of a built-in kind. Panics for a custom kind.
    pub fn row(self) -> &'static KindInfo {
        self.built_in().expect("a kind of the table")
    }

    /// The custom kind with this index, counted from zero.
    pub(super) fn custom(number: usize) -> Kind {
        Kind(u16::try_from(TABLE.len() + number).expect("fewer than 65,000 kinds"))
    }

    /// The index of a custom kind, counted from zero; `None` for a built-in kind.
    pub(super) fn custom_number(self) -> Option<usize> {
        usize::from(self.0).checked_sub(TABLE.len())
    }

    /// Finds a built-in kind by a manifest's `apiVersion` and `kind`.
    pub fn by_api_version(api_version: &str, kind: &str) -> Option<Kind> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Kind::all().find(|k| k.row().kind == kind && k.row().is_served_in(group, version))
    }

    /// Finds a built-in kind by the group and plural resource name of a URL path.
    pub fn by_resource(group: &str, plural: &str) -> Option<Kind> {
        Kind::all().find(|k| {
            let row = k.row();
            row.plural == plural && (row.group == group || row.also.iter().any(|gv| gv.group == group))
        })
    }

    /// Finds a built-in kind by the group, version and plural resource name of a URL path.
    pub fn by_path(group: &str, version: &str, plural: &str) -> Option<Kind> {
        Kind::all().find(|k| k.row().plural == plural && k.row().is_served_in(group, version))
    }

    /// Finds a built-in kind by a name given on a command line: plural, singular or short name, with or without group.
    pub fn by_alias(alias: &str) -> Option<Kind> {
        let lower = alias.to_lowercase();
        let (name, group) = match lower.split_once('.') {
            Some((name, group)) => (name, Some(group)),
            None => (lower.as_str(), None),
        };
        Kind::all().find(|k| {
            let row = k.row();
            (row.plural == name || row.singular() == name || row.short_names.iter().any(|s| s == name))
                && group.is_none_or(|g| g == row.group)
        })
    }
}

/// Shows the kind's name as in manifests.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.custom_number() {
            None => f.write_str(&self.row().kind),
            // The name of a custom kind is in the registry, which is not at hand here. This form is only for traces.
            Some(number) => write!(f, "custom-kind-{number}"),
        }
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn rows_are_unique_and_found_again() {
        for kind in Kind::all() {
            let i = kind.row();
            assert_eq!(Kind::by_api_version(&i.api_version(), &i.kind), Some(kind));
            assert_eq!(Kind::by_resource(&i.group, &i.plural), Some(kind));
            assert_eq!(Kind::by_path(&i.group, &i.version, &i.plural), Some(kind));
            assert_eq!(Kind::by_alias(&i.plural), Some(kind));
            for name in i.subresources.iter() {
                assert!(i.subresource(name).is_some(), "{kind}/{name}");
            }
        }
        assert_eq!(Kind::by_alias("deploy"), Some(Kind::DEPLOYMENT));
        assert_eq!(Kind::by_alias("deployments.apps"), Some(Kind::DEPLOYMENT));
        assert_eq!(Kind::by_api_version("extensions/v1beta1", "Deployment"), None);
        assert_eq!(Kind::by_path("apps", "v1beta1", "deployments"), None);
        assert_eq!(Kind::POD.row().subresource("eviction").unwrap().kind, "Eviction");
        assert_eq!(Kind::POD.row().subresource("scale"), None);
    }
}
