//! Kinds: a small number for each resource, and what is known of it.
//!
//! A kind stands for a *resource*: what is stored once, in whatever versions it is served. Built-in kinds are the rows
//! of [`builtin`](super::builtin); custom ones are numbered by [`Kinds`](super::Kinds) as they come, after the last
//! row. Discovery, paths, RESTMapping, validation of scope, `kubectl get` short names and the store's keys all derive
//! from what is known of a kind.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use super::builtin::TABLE;

/// A kind of object: a number. `Copy`, small, and ordered as the table is; custom kinds come after it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u16);

/// Words that are part of the program, or that came with a definition.
pub type Words = Cow<'static, [Cow<'static, str>]>;

/// What the API server does with objects of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbs {
    /// Everything: create, delete, deletecollection, get, list, patch, update, watch.
    All,
    /// Everything but deletecollection.
    Single,
    /// Only asked, never stored: create.
    Create,
    /// Only shown, never stored: get, list.
    Read,
}

impl Verbs {
    /// Their names, as discovery gives them.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Verbs::All => &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            Verbs::Single => &["create", "delete", "get", "list", "patch", "update", "watch"],
            Verbs::Create => &["create"],
            Verbs::Read => &["get", "list"],
        }
    }

    /// Whether objects are stored: they can be read, written, watched and collected.
    pub fn stored(self) -> bool {
        matches!(self, Verbs::All | Verbs::Single)
    }
}

/// A group and version in which a resource is served beside the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupVersion {
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// Version within the group.
    pub version: Cow<'static, str>,
}

/// What is known of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindInfo {
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// Version within the group: the one in which objects are held.
    pub version: Cow<'static, str>,
    /// Other groups and versions in which the same objects are served.
    pub also: Cow<'static, [GroupVersion]>,
    /// Kind as in manifests: `Pod`.
    pub kind: Cow<'static, str>,
    /// Plural resource name as in paths: `pods`.
    pub plural: Cow<'static, str>,
    /// Singular resource name; empty where it is the kind in lower case.
    pub singular: Cow<'static, str>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// `kubectl`'s short names.
    pub short_names: Words,
    /// Groups of resources that `kubectl` knows: `all`.
    pub categories: Words,
    /// Subresources that may be addressed.
    pub subresources: Words,
    /// Fields that may be selected on, beside those of the metadata (upstream's field label conversion functions).
    pub selectable: Words,
    /// What may be done with objects.
    pub verbs: Verbs,
    /// Whether the status is written apart from the rest, through a subresource of its own.
    pub has_status: bool,
    /// Whether `metadata.generation` counts changes of the spec.
    pub has_generation: bool,
    /// Whether an update of an object that does not exist creates it (`AllowCreateOnUpdate`).
    pub create_on_update: bool,
    /// Whether an update may leave out the revision that it is based on (`AllowUnconditionalUpdate`).
    pub unconditional_update: bool,
}

/// A subresource, as discovery tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubresourceInfo {
    /// API group of its bodies; empty for the core group.
    pub group: Cow<'static, str>,
    /// Version of its bodies.
    pub version: Cow<'static, str>,
    /// Kind of its bodies: `Scale`.
    pub kind: Cow<'static, str>,
    /// What may be done with it.
    pub verbs: &'static [&'static str],
}

impl KindInfo {
    /// A custom kind before anything is known of it.
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

    /// `pods` or `deployments.apps`: the qualified resource of error messages.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `Pod` or `Deployment.apps`: the qualified kind of error messages.
    pub fn qualified_kind(&self) -> String {
        if self.group.is_empty() { self.kind.to_string() } else { format!("{}.{}", self.kind, self.group) }
    }

    /// Whether a subresource may be addressed.
    pub fn has_subresource(&self, name: &str) -> bool {
        self.subresources.iter().any(|known| known == name)
    }

    /// Whether it is served in this group and version.
    pub fn is_served_in(&self, group: &str, version: &str) -> bool {
        self.group == group && self.version == version
            || self.also.iter().any(|gv| gv.group == group && gv.version == version)
    }

    /// What discovery tells of a subresource; `None` if there is none of that name.
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

/// What is known of a kind, held for as long as it is needed: a row of the table, or a custom kind's, shared.
#[derive(Clone)]
pub enum KindRef {
    /// A row of the table.
    BuiltIn(&'static KindInfo),
    /// A custom kind.
    Custom(Rc<KindInfo>),
}

impl KindRef {
    /// The same kind as a stored object was written: of a custom one the definition may not have been heard of yet, or
    /// may store another version by now.
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

    /// The same kind in another of its versions, as an object that is written in that one says.
    pub fn in_version(self, version: &str) -> KindRef {
        match &self {
            KindRef::Custom(info) if info.version != version && info.is_served_in(&info.group, version) => {
                KindRef::Custom(Rc::new(KindInfo { version: version.to_owned().into(), ..(**info).clone() }))
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

    /// The row of a built-in kind; `None` for a custom one, of which [`Kinds`](super::Kinds) knows.
    pub fn built_in(self) -> Option<&'static KindInfo> {
        TABLE.get(usize::from(self.0))
    }

    /// The row of a kind that is known to be built in. Panics for a custom one.
    pub fn row(self) -> &'static KindInfo {
        self.built_in().expect("a kind of the table")
    }

    /// The custom kind of this number, counted from zero.
    pub(super) fn custom(number: usize) -> Kind {
        Kind(u16::try_from(TABLE.len() + number).expect("fewer than 65,000 kinds"))
    }

    /// The number of a custom kind, counted from zero; `None` for a built-in one.
    pub(super) fn custom_number(self) -> Option<usize> {
        usize::from(self.0).checked_sub(TABLE.len())
    }

    /// Finds a built-in kind by `apiVersion` and `kind` as a manifest gives them.
    pub fn by_api_version(api_version: &str, kind: &str) -> Option<Kind> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Kind::all().find(|k| k.row().kind == kind && k.row().is_served_in(group, version))
    }

    /// Finds a built-in kind by group and plural resource name as a path gives them.
    pub fn by_resource(group: &str, plural: &str) -> Option<Kind> {
        Kind::all().find(|k| {
            let row = k.row();
            row.plural == plural && (row.group == group || row.also.iter().any(|gv| gv.group == group))
        })
    }

    /// Finds a built-in kind by group, version and plural resource name as a path gives them.
    pub fn by_path(group: &str, version: &str, plural: &str) -> Option<Kind> {
        Kind::all().find(|k| k.row().plural == plural && k.row().is_served_in(group, version))
    }

    /// Finds a built-in kind as a person names it on a command line: plural, singular or short name, with or without
    /// group.
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

/// Its name as in manifests.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.custom_number() {
            None => f.write_str(&self.row().kind),
            // Its name is known to the registry and to its objects; this is for traces of where neither is at hand.
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
