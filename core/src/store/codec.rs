//! Keys and values of the store as bytes, for the stores that keep bytes: etcd and the embedded durable store.
//!
//! What comes in: keys and values. What goes out: bytes, and keys and values from bytes. Never decodes bytes as
//! anything other than what was encoded. Never makes a second copy of a value that is equal to one at hand (see
//! [`Codec::decode`]).
//!
//! **Keys** have Kubernetes' layout, so that `etcdctl get --prefix /registry/pods/default/` works as expected:
//!
//! | key | bytes |
//! |---|---|
//! | an object of the core group | `/registry/<resource>/<namespace>/<name>`, without namespace if cluster-scoped |
//! | an object of another group | `/registry/<group>/<resource>/<namespace>/<name>` |
//! | a fence | `/registry/~fences/<group>/<resource>/<namespace>/<name>` |
//! | a private key | `/registry/~private/<name>` |
//!
//! `~` sorts after every letter, so objects come first, as in the order of [`StoreKey`]. Among objects, bytes sort by
//! resource name, whereas keys in memory sort by kind number. Therefore a [`Span`] can be encoded only if it lies
//! within one kind or ends at the end of [`everything`](super::everything). No other spans are used.
//!
//! **Values** state their format in their first byte:
//!
//! | first byte | the value |
//! |---|---|
//! | `{` | an object: its JSON with `apiVersion` and `kind` and without `metadata.resourceVersion`, which is the revision of the put; what `kube-apiserver --storage-media-type=application/json` writes |
//! | `=` | a mark: the rest is its text |
//!
//! JSON is used because users who inspect the store with etcd's tools expect it, because reading it needs no schema,
//! and because untyped objects are kept as JSON anyway. A later format must use another first byte, which this version
//! rejects.

use std::fmt;
use std::rc::Rc;

use super::{Span, StoreKey, Stored, everything};
use crate::object::{Interner, Kind, Kinds, Object, ObjectKey, Revision};

/// Kubernetes' `--etcd-prefix`.
pub const PREFIX: &str = "/registry";

const FENCES: &str = "~fences";
const PRIVATE: &str = "~private";
const OBJECT: u8 = b'{';
const MARK: u8 = b'=';
/// Prefix of Kubernetes' protobuf values.
const PROTOBUF: &[u8] = b"k8s\0";

/// Why bytes cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// The key does not have this layout.
    NotAKey {
        /// The bytes, escaped.
        key: String,
    },
    /// The key belongs to a resource that is not known, or not known yet.
    UnknownResource {
        /// API group.
        group: String,
        /// Plural name.
        resource: String,
    },
    /// The value has another format.
    UnknownFormat {
        /// The key.
        key: String,
        /// What it appears to be instead.
        found: String,
    },
    /// The value has a known format but invalid contents.
    Malformed {
        /// The key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodecError::NotAKey { key } => write!(f, "{key:?} is no key of skeg's layout"),
            CodecError::UnknownResource { group, resource } if group.is_empty() => {
                write!(f, "there is no resource {resource:?} in the core group")
            }
            CodecError::UnknownResource { group, resource } => {
                write!(f, "there is no resource {resource:?} in group {group:?}")
            }
            CodecError::UnknownFormat { key, found } => write!(f, "the value of {key} is {found}, and not skeg's"),
            CodecError::Malformed { key, why } => write!(f, "the value of {key} cannot be read: {why}"),
        }
    }
}

impl std::error::Error for CodecError {}

/// Encodes a key.
pub fn encode_key(kinds: &Kinds, key: &StoreKey) -> Vec<u8> {
    match key {
        StoreKey::Object(key) => format!("{PREFIX}/{}/{}", resource(kinds, key.kind), key.path()),
        StoreKey::Fence(lease) => format!("{PREFIX}/{FENCES}/{}/{}", resource(kinds, lease.kind), lease.path()),
        StoreKey::Private(name) => format!("{PREFIX}/{PRIVATE}/{name}"),
    }
    .into_bytes()
}

/// Decodes a key. A custom resource gets its kind number here if its definition has not been seen yet.
pub fn decode_key(kinds: &Kinds, bytes: &[u8]) -> Result<StoreKey, CodecError> {
    let not_a_key = || CodecError::NotAKey { key: bytes.escape_ascii().to_string() };
    let text = std::str::from_utf8(bytes).ok();
    let path = text.and_then(|t| t.strip_prefix(PREFIX)?.strip_prefix('/')).ok_or_else(not_a_key)?;
    match path.split_once('/').ok_or_else(not_a_key)? {
        (PRIVATE, name) => Ok(StoreKey::Private(Rc::from(name))),
        (FENCES, lease) => object_key(kinds, lease, not_a_key).map(StoreKey::Fence),
        _ => object_key(kinds, path, not_a_key).map(StoreKey::Object),
    }
}

/// Encodes a span as its first key and its exclusive end. The module's documentation says which spans can be encoded.
pub fn encode_span(kinds: &Kinds, span: &Span) -> (Vec<u8>, Vec<u8>) {
    let all = everything();
    let start =
        if span.start == all.start { format!("{PREFIX}/").into_bytes() } else { encode_key(kinds, &span.start) };
    let end = match (&span.start, &span.end) {
        // '0' is the character after '/'.
        (_, end) if *end == all.end => format!("{PREFIX}0").into_bytes(),
        (StoreKey::Object(from), StoreKey::Object(to)) if from.kind == to.kind => encode_key(kinds, &span.end),
        (StoreKey::Object(from), StoreKey::Object(to)) if *to == ObjectKey::range_end(from.kind, "") => {
            format!("{PREFIX}/{}0", resource(kinds, from.kind)).into_bytes()
        }
        (StoreKey::Private(_), StoreKey::Private(_)) => encode_key(kinds, &span.end),
        (start, end) => panic!("from {start:?} to {end:?} is no span of one kind"),
    };
    (start, end)
}

/// `pods` or `apps/deployments`.
fn resource(kinds: &Kinds, kind: Kind) -> String {
    let info = kinds.info(kind);
    match &*info.group {
        "" => info.plural.to_string(),
        group => format!("{group}/{}", info.plural),
    }
}

/// From `pods/default/web` or `apps/deployments/default/web`.
fn object_key(kinds: &Kinds, path: &str, not_a_key: impl Fn() -> CodecError) -> Result<ObjectKey, CodecError> {
    let (first, rest) = path.split_once('/').ok_or_else(&not_a_key)?;
    if let Some(kind) = Kind::by_resource("", first) {
        return Ok(ObjectKey::from_path(kind, rest));
    }
    let unknown = |group: &str, resource: &str| {
        Err(CodecError::UnknownResource { group: group.to_owned(), resource: resource.to_owned() })
    };
    // The path of an object in a named group has at least a resource and a name; a shorter path is in the core group.
    let Some((second, rest)) = rest.split_once('/') else { return unknown("", first) };
    match kinds.stored(first, second, rest.contains('/')) {
        Some(kind) => Ok(ObjectKey::from_path(kind, rest)),
        None => unknown(first, second),
    }
}

/// Encodes a value. The revision is not included; it is the revision of the put.
pub fn encode(value: &Stored) -> Vec<u8> {
    match value {
        Stored::Object(object) => object.to_stored(),
        Stored::Mark(_, text) => [&[MARK], text.as_bytes()].concat(),
    }
}

/// Decodes values, and shares equal data: the unchanged parts of an object's versions, and data that many objects have
/// in common (see [`Interner`]).
#[derive(Debug, Default)]
pub struct Codec {
    interner: Interner,
    kinds: Kinds,
}

impl Codec {
    /// Creates a codec for a world with these kinds.
    pub fn new(kinds: Kinds) -> Codec {
        Codec { interner: Interner::default(), kinds }
    }

    /// The kinds of its world.
    pub fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// Decodes the value of a key that was put at `revision`. Every part that is equal to that of a `previous` version
    /// (metadata, spec, status, an embedded pod spec) is shared with it, so a lease renewal or status report stores
    /// only what changed.
    pub fn decode(
        &mut self,
        key: &StoreKey,
        revision: Revision,
        bytes: &[u8],
        previous: Option<&Stored>,
    ) -> Result<Stored, CodecError> {
        let malformed = |why: String| CodecError::Malformed { key: show(&self.kinds, key), why };
        match (bytes.first(), key) {
            (Some(&OBJECT), StoreKey::Object(key)) => {
                let mut object = Object::from_stored(key.kind, self.kinds.info(key.kind), bytes).map_err(malformed)?;
                if !key.is(object.kind(), object.namespace(), object.name()) {
                    return Err(malformed(format!("it is of {}", object.key())));
                }
                self.interner.intern(&mut object);
                object.meta().share_key(key);
                object.set_rv(revision);
                if let Some(Stored::Object(previous)) = previous {
                    object.share(previous);
                }
                Ok(Stored::Object(object))
            }
            (Some(&MARK), StoreKey::Fence(_) | StoreKey::Private(_)) => {
                let text = std::str::from_utf8(&bytes[1..]).map_err(|e| malformed(e.to_string()))?;
                Ok(Stored::Mark(revision, Rc::from(text)))
            }
            (Some(&OBJECT), _) => Err(malformed("it is an object where a mark belongs".to_owned())),
            (Some(&MARK), _) => Err(malformed("it is a mark where an object belongs".to_owned())),
            (first, _) => {
                let found = match first {
                    None => "empty".to_owned(),
                    Some(_) if bytes.starts_with(PROTOBUF) => "Kubernetes' protobuf".to_owned(),
                    Some(byte) => format!("of a format that begins with {:?}", byte.escape_ascii().to_string()),
                };
                Err(CodecError::UnknownFormat { key: show(&self.kinds, key), found })
            }
        }
    }
}

fn show(kinds: &Kinds, key: &StoreKey) -> String {
    String::from_utf8_lossy(&encode_key(kinds, key)).into_owned()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use serde_json::{Value, json};

    use super::{Codec, decode_key, encode, encode_key, encode_span};
    use crate::object::{Kind, Kinds, Object, ObjectKey, Revision};
    use crate::store::{StoreKey, Stored, everything};

    fn object(value: Value) -> Object {
        Object::from_json(value).unwrap()
    }

    fn round(object: &Object, previous: Option<&Object>) -> Object {
        let (key, bytes) = (StoreKey::Object(object.key()), encode(&Stored::Object(object.clone())));
        let previous = previous.map(|p| Stored::Object(p.clone()));
        match Codec::default().decode(&key, object.rv(), &bytes, previous.as_ref()) {
            Ok(Stored::Object(read)) => {
                assert_eq!((&read, read.to_json()), (object, object.to_json()), "{}", bytes.escape_ascii());
                read
            }
            other => panic!("{other:?} instead of an object"),
        }
    }

    #[test]
    fn keys_come_back() {
        let kinds = Kinds::default();
        let custom = decode_key(&kinds, b"/registry/y.io/xs/ns/n").unwrap();
        let pod = ObjectKey::new(Kind::POD, "default", "web-1");
        let lease = ObjectKey::new(Kind::LEASE, "kube-system", "scheduler");
        for (key, bytes) in [
            (StoreKey::Object(pod), "/registry/pods/default/web-1"),
            (StoreKey::Object(ObjectKey::new(Kind::NODE, "", "n")), "/registry/nodes/n"),
            (StoreKey::Object(lease.clone()), "/registry/coordination.k8s.io/leases/kube-system/scheduler"),
            (StoreKey::Fence(lease), "/registry/~fences/coordination.k8s.io/leases/kube-system/scheduler"),
            (StoreKey::Private(Rc::from("a/b")), "/registry/~private/a/b"),
            (custom, "/registry/y.io/xs/ns/n"),
        ] {
            assert_eq!(
                (encode_key(&kinds, &key), decode_key(&kinds, bytes.as_bytes())),
                (bytes.as_bytes().to_vec(), Ok(key))
            );
        }
        for kind in Kind::all() {
            let namespace = if kind.row().namespaced { "ns" } else { "" };
            let key = StoreKey::Object(ObjectKey::new(kind, namespace, "x"));
            assert_eq!(decode_key(&kinds, &encode_key(&kinds, &key)), Ok(key));
        }
    }

    #[test]
    fn other_keys_are_told() {
        for (bytes, why) in [
            (&b"/registry"[..], "\"/registry\" is no key of skeg's layout"),
            (b"/other/pods/a/b", "\"/other/pods/a/b\" is no key of skeg's layout"),
            (b"/registry/pods", "\"/registry/pods\" is no key of skeg's layout"),
            (b"/registry/p\xff/x", "\"/registry/p\\\\xff/x\" is no key of skeg's layout"),
            (b"/registry/minions/n", "there is no resource \"minions\" in the core group"),
            (b"/registry/yio/xs/ns/n", "there is no resource \"xs\" in group \"yio\""),
        ] {
            assert_eq!(decode_key(&Kinds::default(), bytes).unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn a_span_holds_the_bytes_of_its_keys() {
        let all = everything();
        let span = |from: ObjectKey, to: ObjectKey| StoreKey::Object(from)..StoreKey::Object(to);
        let of = |kind, namespace| span(ObjectKey::range_start(kind, namespace), ObjectKey::range_end(kind, namespace));
        let last = Kind::all().last().unwrap();
        let keys: Vec<StoreKey> = Kind::all()
            .flat_map(|kind| {
                ["", "a/b", "a/c", "b/b", "aa/b"].map(|path| StoreKey::Object(ObjectKey::from_path(kind, path)))
            })
            .chain([StoreKey::Fence(ObjectKey::new(Kind::LEASE, "a", "b")), StoreKey::Private(Rc::from("x"))])
            .collect();
        let spans = [of(Kind::POD, ""), of(Kind::DEPLOYMENT, "a"), of(Kind::LEASE, "a"), of(last, ""), all.clone()];
        for span in spans {
            let (start, end) = encode_span(&Kinds::default(), &span);
            let bytes = start..end;
            for key in &keys {
                assert_eq!(
                    span.contains(key),
                    bytes.contains(&encode_key(&Kinds::default(), key)),
                    "{key:?} in {span:?}"
                );
            }
        }
        let rest = encode_span(&Kinds::default(), &(StoreKey::Object(ObjectKey::new(Kind::POD, "a", "b"))..all.end));
        assert_eq!(rest, (b"/registry/pods/a/b".to_vec(), b"/registry0".to_vec()));
    }

    #[test]
    fn what_is_equal_to_the_previous_version_is_held_as_there() {
        let pod = |phase: &str, node: Option<&str>| {
            object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d", "uid": "u",
                "resourceVersion": "7"}, "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": node},
                "status": {"phase": phase, "startTime": "2026-01-01T00:00:00Z"}}))
        };
        let parts = |object: &Object| match object {
            Object::Pod(p) => (p.meta.clone(), p.spec.clone(), p.spec.shared.clone(), p.status.clone()),
            other => panic!("{other:?}"),
        };
        let old = pod("Pending", Some("n"));
        let (meta, spec, shared, status) = parts(&old);
        assert!(round(&old, Some(&old)).shares_parts(&old));
        let (m, s, _, _) = parts(&round(&pod("Running", Some("n")), Some(&old)));
        assert!(Rc::ptr_eq(&m, &meta) && Rc::ptr_eq(&s, &spec));
        let (_, s, sh, st) = parts(&round(&pod("Pending", None), Some(&old)));
        assert!(!Rc::ptr_eq(&s, &spec) && sh.is_held_as(&shared) && st.is_held_as(&status));

        let lease = |at: &str| {
            object(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l",
                "namespace": "d"}, "spec": {"holderIdentity": "n", "renewTime": at}}))
        };
        let old = lease("2026-01-01T00:00:00.000001Z");
        assert!(round(&lease("2026-01-01T00:00:10.000001Z"), Some(&old)).shares_parts(&old));

        let node = |at: &str| {
            object(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {
                "capacity": {"cpu": "4"}, "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": at}]}}))
        };
        let old = node("2026-01-01T00:00:00Z");
        let (Object::Node(new), Object::Node(old)) = (round(&node("2026-01-01T00:05:00Z"), Some(&old)), &old) else {
            panic!("nodes")
        };
        assert!(new.status.same_apart_from_report(&old.status) && Rc::ptr_eq(&new.spec, &old.spec));

        let map = |value: &str, label: &str| {
            object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "d",
                "labels": {"l": label}}, "data": {"k": value}}))
        };
        let old = map("v", "a");
        let (Object::Dynamic(relabelled), Object::Dynamic(changed), Object::Dynamic(old)) =
            (round(&map("v", "b"), Some(&old)), round(&map("w", "a"), Some(&old)), &old)
        else {
            panic!("dynamic")
        };
        assert!(Rc::ptr_eq(&relabelled.body, &old.body) && Rc::ptr_eq(&changed.meta, &old.meta));
    }

    #[test]
    fn marks_come_back_and_what_is_no_value_is_told() {
        let mut codec = Codec::default();
        let (private, pod) = (StoreKey::Private(Rc::from("x")), StoreKey::Object(ObjectKey::new(Kind::POD, "d", "p")));
        let mark = Stored::Mark(Revision(3), Rc::from("a text"));
        assert_eq!(codec.decode(&private, Revision(3), &encode(&mark), None), Ok(mark));
        let other = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"q","namespace":"d"}}"#;
        for (key, bytes, why) in [
            (&pod, &b""[..], "the value of /registry/pods/d/p is empty, and not skeg's"),
            (&pod, b"k8s\0\n", "the value of /registry/pods/d/p is Kubernetes' protobuf, and not skeg's"),
            (
                &pod,
                b"\x02",
                "the value of /registry/pods/d/p is of a format that begins with \"\\\\x02\", and not skeg's",
            ),
            (&pod, b"=x", "the value of /registry/pods/d/p cannot be read: it is a mark where an object belongs"),
            (&private, b"{}", "the value of /registry/~private/x cannot be read: it is an object where a mark belongs"),
            (&pod, other, "the value of /registry/pods/d/p cannot be read: it is of Pod/d/q"),
        ] {
            assert_eq!(codec.decode(key, Revision(1), bytes, None).unwrap_err().to_string(), why);
        }
        for bytes in
            [&b"{"[..], b"{}", br#"{"apiVersion":"v1","kind":"Node"}"#, br#"{"apiVersion":"v1","kind":"Pod"}x"#]
        {
            assert!(codec.decode(&pod, Revision(1), bytes, None).is_err(), "{}", bytes.escape_ascii());
        }
    }
}
