//! Turns documents into objects: expands lists, strips exports, decodes every object strictly and adds missing
//! namespaces.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use skeg_core::object::{ObjectKey, ObjectMeta};
use skeg_core::{Kind, Object, volume};

use super::check;
use super::export::{self, Fate, Owners};
use super::problem::{Problem, Problems};
use super::tree::{Node, Tree, join};
use super::yaml::Document;
use crate::scenario::NodePool;

/// The objects of the input, with related information.
#[derive(Default, Debug)]
pub struct Manifests {
    /// The objects, in the order in which they are applied.
    pub objects: Vec<Object>,
    /// The nodes of the input, as pools.
    pub nodes: Vec<NodePool>,
    /// The objects that come from an export of a live cluster.
    pub exported: BTreeSet<ObjectKey>,
    /// How many objects were left out, by reason and kind.
    pub dropped: BTreeMap<(&'static str, String), usize>,
    /// Where in the input each object was found.
    places: BTreeMap<ObjectKey, Problem>,
}

/// An object of the input before it is decoded.
struct Raw<'d> {
    document: &'d Document,
    /// Path of the object within the document; empty, or `items[3]`.
    path: String,
    value: Value,
}

impl Raw<'_> {
    fn problem(&self, field: &str, message: impl Into<String>) -> Problem {
        let path = match field {
            "" => self.path.clone(),
            f if f.starts_with('[') => format!("{}{f}", self.path),
            f => join(&self.path, f),
        };
        self.document.problem(&path, message)
    }
}

/// Reads all objects of some documents.
pub fn read(documents: &[Document], keep_bindings: bool, problems: &mut Problems) -> Manifests {
    let mut raws = Vec::new();
    for document in documents {
        for (path, line, first) in document.root.duplicates() {
            let message = format!(
                "duplicate field {:?}; it is given in line {} already, remove one",
                path.rsplit('.').next().unwrap_or(&path),
                document.lines_before + u64::from(first)
            );
            problems.push(document.problem_at(line, &path, message));
        }
        open(document, &document.root, String::new(), None, &mut raws, problems);
    }
    objects(raws, keep_bindings, problems)
}

/// Reads objects that are contained in a document of another kind (a scenario).
pub fn read_inline(document: &Document, tree: &Tree, path: &str, problems: &mut Problems) -> Manifests {
    let mut raws = Vec::new();
    open(document, tree, path.to_owned(), None, &mut raws, problems);
    objects(raws, false, problems)
}

fn objects(raws: Vec<Raw>, keep_bindings: bool, problems: &mut Problems) -> Manifests {
    let mut owners = Owners::default();
    for raw in &raws {
        owners.note(&raw.value);
    }
    let mut out = Manifests::default();
    for raw in raws {
        take(raw, &owners, keep_bindings, &mut out, problems);
    }
    // Kinds that others refer to come first, as in `kubectl` and Helm; otherwise the order of the input is kept.
    out.objects.sort_by_key(|o| rank(o.kind()));
    out
}

/// The fields that a list may have; older tools wrote the last two beside the items.
const LIST_FIELDS: [&str; 6] = ["apiVersion", "kind", "metadata", "items", "resourceVersion", "selfLink"];

/// Expands lists, which may be nested.
fn open<'d>(
    document: &'d Document,
    tree: &'d Tree,
    path: String,
    implied: Option<(&str, &str)>,
    raws: &mut Vec<Raw<'d>>,
    problems: &mut Problems,
) {
    let fail = |message: &str| document.problem(&path, message.to_owned());
    let Node::Map(entries) = &tree.node else {
        problems.push(fail(&format!(
            "expected an object with apiVersion, kind and metadata, found a {}",
            tree.type_name()
        )));
        return;
    };
    let (mut value, mut ok) = (tree_without_items(tree), true);
    for (key, given) in [("apiVersion", implied.map(|i| i.0)), ("kind", implied.map(|i| i.1))] {
        match (tree.get(key).map(|t| &t.node), given) {
            (Some(Node::Text(s)), _) if !s.is_empty() => {}
            (None, Some(given)) => value[key] = json!(given),
            (None | Some(Node::Null | Node::Text(_)), _) => {
                problems.push(fail(&format!("Object '{key}' is missing; give apiVersion and kind")));
                ok = false;
            }
            (Some(_), _) => {
                problems.push(document.problem(&join(&path, key), "Invalid value: must be of type string"));
                ok = false;
            }
        }
    }
    if !ok {
        return;
    }
    let (api_version, kind) = (export::text(&value, "apiVersion"), export::text(&value, "kind"));
    if let (Some(element), true) = (kind.strip_suffix("List"), entries.iter().any(|e| e.key == "items")) {
        let Some(items) = tree.get("items").and_then(Tree::items) else {
            if tree.get("items").is_some_and(|t| t.node != Node::Null) {
                problems.push(document.problem(&join(&path, "items"), "Invalid value: must be of type list"));
            }
            return;
        };
        for entry in entries.iter().filter(|e| !LIST_FIELDS.contains(&e.key.as_str())) {
            let message = format!("unknown field {:?}; remove it or correct its name", entry.key);
            problems.push(document.problem_at(entry.line, &join(&path, &entry.key), message));
        }
        let implied = (!element.is_empty()).then_some((api_version.as_str(), element));
        for (i, item) in items.iter().enumerate() {
            open(document, item, format!("{}[{i}]", join(&path, "items")), implied, raws, problems);
        }
        return;
    }
    raws.push(Raw { document, path, value });
}

/// The tree as JSON without the items of a list, which are expanded one by one.
fn tree_without_items(tree: &Tree) -> Value {
    let is_list = tree.get("kind").and_then(Tree::text).is_some_and(|k| k.ends_with("List"));
    match &tree.node {
        Node::Map(entries) if is_list => {
            let rest = entries.iter().filter(|e| e.key != "items").cloned().collect();
            Tree { line: tree.line, node: Node::Map(rest) }.to_value()
        }
        _ => tree.to_value(),
    }
}

fn take(mut raw: Raw, owners: &Owners, keep_bindings: bool, out: &mut Manifests, problems: &mut Problems) {
    let (api_version, kind_name) = (export::text(&raw.value, "apiVersion"), export::text(&raw.value, "kind"));
    if kind_name == "Node" && api_version == "v1" {
        return take_node(&raw, out, problems);
    }
    let exported = export::is_exported(&raw.value);
    if let Fate::Drop(why) = export::strip(&mut raw.value, owners, keep_bindings) {
        *out.dropped.entry((why, kind_name)).or_default() += 1;
        return;
    }
    let Some(kind) = Kind::by_api_version(&api_version, &kind_name) else {
        let message = format!(
            "no matches for kind {kind_name:?} in version {api_version:?}; {}",
            instead(&api_version, &kind_name)
        );
        problems.push(raw.problem("kind", message));
        return;
    };
    default_namespace(&mut raw.value, kind);
    match check::object(raw.value.clone()) {
        Ok(object) => {
            let key = ObjectKey::new(
                kind,
                object.meta().namespace.as_deref().unwrap_or(""),
                object.meta().name.as_deref().unwrap_or(""),
            );
            let place = raw.problem("", "");
            if let Some(first) = out.places.get(&key) {
                problems.push(raw.problem("metadata.name", given_twice(&key, first)));
                return;
            }
            if exported {
                out.exported.insert(key.clone());
            }
            out.places.insert(key, place);
            out.objects.push(object);
        }
        Err(wrong) => {
            for (field, message) in wrong {
                problems.push(raw.problem(&field, message));
            }
        }
    }
}

fn given_twice(key: &ObjectKey, first: &Problem) -> String {
    let place = format!("{}, document {}, line {}", first.file, first.document, first.line);
    format!("Duplicate value: {:?}: {} {} is given at {place} already; remove one", key.name(), key.kind, key.path())
}

/// The API groups of Kubernetes itself, including old ones. Any other group with a dot is assumed to be a custom
/// resource's.
const BUILT_IN_GROUPS: [&str; 23] = [
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "extensions",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// Advice for an unknown kind: what to write instead.
fn instead(api_version: &str, kind: &str) -> String {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let of_name = || Kind::all().map(Kind::row).filter(|k| k.kind == kind);
    let others: Vec<String> = of_name().map(|k| k.api_version()).collect();
    // A group that is almost the right one is a typo and not a custom resource's group.
    let groups: Vec<&str> = of_name().map(|k| &*k.group).filter(|g| !g.is_empty()).collect();
    let of_kubernetes = group.ends_with(".k8s.io");
    let is_misspelt = !group.contains('.') || (of_kubernetes && super::fields::nearest(group, &groups).is_some());
    let built_in = BUILT_IN_GROUPS.contains(&group);
    if !others.is_empty() && (built_in || is_misspelt) {
        return format!("write apiVersion: {}", others.join(" or "));
    }
    if !built_in && group.contains('.') {
        return "custom resources are not supported yet, remove it".to_owned();
    }
    let kinds: Vec<&str> = Kind::all().map(|k| &*k.row().kind).collect();
    match super::fields::nearest(kind, &kinds) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "this kind of Kubernetes is not supported yet, remove it".to_owned(),
    }
}

/// Sets the namespace `default` on a namespaced object without a namespace, as kubectl does. Removes the namespace of a
/// cluster-scoped object, as the API server does (`EnsureObjectNamespaceMatchesRequestNamespace`).
fn default_namespace(value: &mut Value, kind: Kind) {
    if !kind.row().namespaced {
        if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.remove("namespace");
        }
        return;
    }
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        let absent = meta.get("namespace").is_none_or(|n| n.is_null() || n.as_str() == Some(""));
        if absent {
            meta.insert("namespace".to_owned(), json!("default"));
        }
    }
}

fn take_node(raw: &Raw, out: &mut Manifests, problems: &mut Problems) {
    match export::node_pool(&raw.value) {
        Some(pool) if out.nodes.iter().any(|p| p.names == pool.names) => {
            let message = format!("Duplicate value: {:?}: the Node is given twice; remove one", pool.name);
            problems.push(raw.problem("metadata.name", message));
        }
        Some(pool) => {
            for (resource, quantity) in &pool.capacity {
                if skeg_core::object::Milli::parse(quantity).is_err() {
                    let field = format!("status.capacity[{resource}]");
                    let message = format!("Invalid value: {quantity:?}: {}", skeg_core::object::QuantityError);
                    problems.push(raw.problem(&field, message));
                }
            }
            out.nodes.push(pool);
        }
        None => problems.push(raw.problem(
            "status.capacity",
            "Required value: a Node in the input becomes a node of the cluster; give its capacity (and its name), or \
             remove it and use --nodes",
        )),
    }
}

/// The rank of a kind in the order of application.
pub(crate) fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::NAMESPACE => 0,
        Kind::CUSTOM_RESOURCE_DEFINITION | Kind::PRIORITY_CLASS | Kind::STORAGE_CLASS | Kind::RUNTIME_CLASS => 1,
        Kind::RESOURCE_QUOTA | Kind::LIMIT_RANGE | Kind::SERVICE_ACCOUNT | Kind::SECRET | Kind::CONFIG_MAP => 2,
        Kind::SERVICE | Kind::POD_DISRUPTION_BUDGET => 3,
        // Pods (of an export whose bindings are kept) come before the controllers that adopt them.
        Kind::POD => 4,
        Kind::REPLICA_SET => 5,
        _ => 6,
    }
}

impl Manifests {
    /// Adds the objects of another file. An object that is in both is reported as a problem.
    pub fn merge(&mut self, other: Manifests, problems: &mut Problems) {
        for (key, place) in other.places {
            match self.places.get(&key) {
                Some(first) => {
                    let mut problem = place.clone();
                    problem.field = "metadata.name".to_owned();
                    problem.message = given_twice(&key, first);
                    problems.push(problem);
                }
                None => _ = self.places.insert(key, place),
            }
        }
        self.objects.extend(other.objects);
        self.objects.sort_by_key(|o| rank(o.kind()));
        self.nodes.extend(other.nodes);
        self.exported.extend(other.exported);
        for (what, n) in other.dropped {
            *self.dropped.entry(what).or_default() += n;
        }
    }

    /// Adds a default StorageClass if there are claims without a class and no such class. Returns whether it did.
    pub fn add_default_class(&mut self) -> bool {
        let is_default = |o: &Object| volume::default_class([o].into_iter()).is_some();
        if !self.objects.iter().any(has_claim_without_class)
            || self.objects.iter().any(|o| o.kind() == Kind::STORAGE_CLASS && is_default(o))
        {
            return false;
        }
        self.objects.insert(0, volume::standard_class());
        true
    }

    /// Adds the namespaces that objects refer to and that the input does not contain. Returns their names.
    pub fn add_namespaces(&mut self) -> Vec<String> {
        let given: BTreeSet<String> = self
            .objects
            .iter()
            .filter(|o| o.kind() == Kind::NAMESPACE)
            .filter_map(|o| o.meta().name.clone())
            .chain(export::SYSTEM_NAMESPACES.map(str::to_owned))
            .collect();
        let named: BTreeSet<String> = self.objects.iter().filter_map(|o| o.meta().namespace.clone()).collect();
        let absent: Vec<String> = named.difference(&given).cloned().collect();
        let make = |name: &String| {
            let json = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            Object::from_json(json).expect("a Namespace with a name is one")
        };
        let made: Vec<Object> = absent.iter().map(make).collect();
        if !self.exported.is_empty() {
            // If there is an export, these namespaces are treated as part of it.
            self.exported.extend(made.iter().map(Object::key));
        }
        self.objects.splice(0..0, made);
        absent
    }
}

/// Whether an object is, or makes, a claim that says nothing of its class.
fn has_claim_without_class(object: &Object) -> bool {
    let of_pod = object.pod_spec().into_iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut ephemeral = of_pod.filter_map(|v| v.ephemeral.as_ref()?.volume_claim_template.as_ref());
    let templates = match object {
        Object::StatefulSet(set) => set.spec.volume_claim_templates.as_deref().unwrap_or(&[]),
        _ => &[],
    };
    let old = |meta: &ObjectMeta| meta.annotations.iter().flatten().any(|(key, _)| key == volume::OLD_CLASS);
    object.kind() == Kind::PERSISTENT_VOLUME_CLAIM && !volume::names_class(object)
        || ephemeral.any(|template| template.spec.storage_class_name.is_none())
        || templates.iter().any(|template| {
            let named = template.spec.as_ref().is_some_and(|spec| spec.storage_class_name.is_some());
            !named && !old(&template.metadata)
        })
}

#[cfg(test)]
mod tests {
    use super::super::yaml;
    use super::{Manifests, Problems, read};

    fn read_text(text: &str) -> (Manifests, Problems) {
        let mut problems = Problems::default();
        let documents = yaml::parse("f.yaml", text.as_bytes(), &mut problems);
        let manifests = read(&documents, false, &mut problems);
        (manifests, problems)
    }

    fn names(text: &str) -> Vec<String> {
        let (m, problems) = read_text(text);
        assert!(problems.is_empty(), "{problems}");
        m.objects.iter().map(|o| format!("{}/{}", o.kind(), o.meta().name.as_deref().unwrap_or(""))).collect()
    }

    const CM: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";

    #[test]
    fn lists_are_opened_however_nested() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n\
                    - apiVersion: v1\n  kind: List\n  items:\n  - apiVersion: v1\n    kind: ConfigMapList\n    \
                    items:\n    - metadata: {name: b, namespace: x}\n- {apiVersion: v1, kind: Namespace, metadata: {name: x}}\n";
        assert_eq!(names(text), ["Namespace/x", "ConfigMap/a", "ConfigMap/b"]);
        assert!(names("apiVersion: v1\nkind: List\nitems: []\n").is_empty());
        let old = "apiVersion: v1\nitems: []\nkind: List\nmetadata: {}\nresourceVersion: ''\nselfLink: ''\n";
        assert!(names(old).is_empty());
    }

    #[test]
    fn namespaces_are_filled_in() {
        let (mut m, _) = read_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: shop}\n");
        assert_eq!(m.add_namespaces(), ["shop"]);
        assert_eq!(m.objects.len(), 2);
        assert_eq!(read_text(CM).0.objects[0].meta().namespace.as_deref(), Some("default"));
        let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r, namespace: x}\n\
                    rules: []\n";
        let (mut m, problems) = read_text(role);
        assert!(problems.is_empty(), "{problems}");
        assert_eq!((m.add_namespaces(), m.objects[0].meta().namespace.as_deref()), (Vec::new(), None));
    }

    #[test]
    fn objects_of_the_cluster_lose_the_namespace_that_they_name() {
        let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r, namespace: x}\n";
        let (mut m, problems) = read_text(role);
        assert!(problems.is_empty(), "{problems}");
        assert_eq!(m.objects[0].meta().namespace, None);
        assert!(m.add_namespaces().is_empty(), "and it is not made");
    }

    #[test]
    fn a_list_may_have_what_older_tools_wrote() {
        assert!(
            names("apiVersion: v1\nitems: []\nkind: List\nmetadata: {}\nresourceVersion: ''\nselfLink: ''\n")
                .is_empty()
        );
        let inside = "apiVersion: v1\nitems: []\nkind: List\nmetadata: {resourceVersion: '', selfLink: ''}\n";
        assert!(names(inside).is_empty());
    }

    #[test]
    fn the_advice_knows_whose_kind_it_is() {
        let check = |api_version: &str, kind: &str, want: &str| {
            let got =
                read_text(&format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a}}\n")).1.to_string();
            assert!(got.contains(want), "{api_version} {kind}: {got}\n  lacks {want}");
        };
        for (api_version, kind) in [
            ("serving.knative.dev/v1", "Service"),
            ("gateway.networking.k8s.io/v1", "Gateway"),
            ("monitoring.coreos.com/v1", "Pod"),
            ("networking.istio.io/v1", "Ingress"),
        ] {
            check(api_version, kind, "custom resources are not supported yet");
        }
        for (api_version, kind) in
            [("storagemigration.k8s.io/v1beta1", "StorageVersionMigration"), ("policy/v1beta1", "PodSecurityPolicy")]
        {
            check(api_version, kind, "this kind of Kubernetes is not supported yet");
        }
        check("extensions/v1beta1", "Ingress", "write apiVersion: networking.k8s.io/v1");
        check("network.k8s.io/v1", "Ingress", "write apiVersion: networking.k8s.io/v1");
        check("app/v1", "Deployment", "write apiVersion: apps/v1");
        check("v1", "Deployment", "write apiVersion: apps/v1");
        check("apps/v1", "Deploymen", "did you mean \"Deployment\"?");
    }

    #[test]
    fn problems_say_where() {
        let check = |text: &str, want: &str| {
            let got = read_text(text).1.to_string();
            assert!(got.contains(want), "{got}\n  lacks {want}");
        };
        check("- 1\n", "error: f.yaml, document 1, line 1: expected an object with apiVersion, kind and metadata");
        check("a: 1\n", "document 1, line 1: Object 'apiVersion' is missing");
        check(
            "apiVersion: v1\nkind: Podd\n",
            "line 2: kind: no matches for kind \"Podd\" in version \"v1\"; did you mean",
        );
        check(
            "apiVersion: extensions/v1beta1\nkind: Deployment\n",
            "no matches for kind \"Deployment\" in version \"extensions/v1beta1\"; write apiVersion: apps/v1",
        );
        check(
            &format!("{CM}---\n{CM}"),
            "document 2, line 7: metadata.name: Duplicate value: \"a\": ConfigMap default/a is given at f.yaml, \
             document 1, line 1 already; remove one",
        );
        check(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: '1'}\ndata: {}\n",
            "line 5: data: duplicate field \"data\"; it is given in line 4 already",
        );
        check("apiVersion: v1\nkind: Node\nmetadata: {name: n}\n", "status.capacity: Required value");
        check("apiVersion: v1\nkind: List\nitem: []\nitems: []\n", "line 3: item: unknown field \"item\"");
    }
}
