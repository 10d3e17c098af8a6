//! Digests: what a commit changed in an object, mixed into one number, for hashes over whole runs.
//!
//! Input: an object and its previous version. Output: a number that depends only on the values of the parts that
//! differ: not on addresses, not on what is shared, not on the machine. Never: a change that leaves the digest
//! unaffected, or a copy of an object just to compute it.
//!
//! The digest of a changed Lease renewal, Node report time or pod status contains only that part.

use std::fmt;

use serde::ser::{self, Serialize, Serializer};

use super::{
    BoundPodSpec, Dynamic, HasTemplate, Meta, Obj, Part, ReportedNodeStatus, Resource, SharedPodSpec, Templated,
};
use crate::random::{mix, mix_bytes};

/// Flags for the parts of an object that differ.
const META: u64 = 1;
const SPEC: u64 = 2;
const STATUS: u64 = 4;

/// A part of an object that can mix its changes into a digest.
pub trait Digest {
    /// Mixes into `hash` what differs from the previous value, or everything if `before` is `None`.
    fn digest(&self, before: Option<&Self>, hash: u64) -> u64;
}

/// Most parts are small enough to be mixed in whole.
impl<T: Serialize> Digest for T {
    fn digest(&self, _before: Option<&T>, hash: u64) -> u64 {
        whole(self, hash)
    }
}

impl Digest for BoundPodSpec {
    fn digest(&self, before: Option<&BoundPodSpec>, hash: u64) -> u64 {
        let hash = mix_bytes(hash, self.node.as_deref().unwrap_or("").as_bytes());
        pod_spec(&self.shared, before.map(|b| &b.shared), hash)
    }
}

impl<S: HasTemplate + Serialize> Digest for Templated<S> {
    fn digest(&self, before: Option<&Templated<S>>, hash: u64) -> u64 {
        let hash = whole(&(&self.fields, self.template_is_given()), hash);
        pod_spec(&self.pod, before.map(|b| &b.pod), hash)
    }
}

impl Digest for ReportedNodeStatus {
    fn digest(&self, before: Option<&ReportedNodeStatus>, hash: u64) -> u64 {
        let hash = mix(hash, self.reported().map_or(0, |time| time.0.as_microsecond() as u64));
        unless_same(self.shared(), before.map(ReportedNodeStatus::shared), hash)
    }
}

/// Mixes in a pod spec, unless it is unchanged.
fn pod_spec(spec: &SharedPodSpec, before: Option<&SharedPodSpec>, hash: u64) -> u64 {
    if before.is_some_and(|before| spec == before) { mix(hash, 0) } else { whole(&**spec, mix(hash, 1)) }
}

/// Mixes in a shared part, unless it is unchanged.
fn unless_same<P: Part<Of: Serialize>>(part: &P, before: Option<&P>, hash: u64) -> u64 {
    if before.is_some_and(|before| part.same(before)) { mix(hash, 0) } else { whole(&**part, mix(hash, 1)) }
}

/// Mixes in what a commit changed in an object: which parts differ from the previous version, and their values.
pub(super) fn object<R: Resource>(new: &Obj<R>, old: Option<&Obj<R>>, hash: u64) -> u64 {
    let mut changed = META | SPEC | STATUS;
    if let Some(old) = old {
        changed = if new.shares_parts(old) {
            0
        } else {
            let bit = |same: bool, bit| if same { 0 } else { bit };
            bit(new.meta == old.meta, META)
                | bit(new.spec.same(&old.spec), SPEC)
                | bit(new.status.same(&old.status), STATUS)
        };
    }
    let mut hash = whole(&new.renewal, mix(hash, changed));
    if changed & META != 0 {
        hash = meta(&new.meta, hash);
    }
    if changed & SPEC != 0 {
        hash = new.spec.digest(old.map(|o| &*o.spec), hash);
    }
    if changed & STATUS != 0 {
        hash = new.status.digest(old.map(|o| &*o.status), hash);
    }
    hash
}

/// As [`object`], for a [`Dynamic`].
pub(super) fn dynamic(new: &Dynamic, old: Option<&Dynamic>, hash: u64) -> u64 {
    let is = |same: fn(&Dynamic, &Dynamic) -> bool| old.is_some_and(|old| same(new, old));
    let (same_meta, same_spec) = (is(|a, b| a.meta == b.meta), is(Dynamic::same_spec));
    let mut hash = mix(hash, u64::from(same_meta) | u64::from(same_spec) << 1);
    if !same_meta {
        hash = meta(&new.meta, hash);
    }
    if !same_spec {
        hash = whole(&new.body, hash);
    }
    whole(&new.status, hash)
}

fn meta(meta: &Meta, hash: u64) -> u64 {
    whole(&**meta, hash)
}

/// Mixes in a whole value.
pub(super) fn whole<T: Serialize + ?Sized>(value: &T, hash: u64) -> u64 {
    let mut mixer = Mixer(hash);
    value.serialize(&mut mixer).expect("whatever can be serialised can be mixed");
    mixer.0
}

/// A serialiser that writes nothing: it mixes field names and values into a number.
struct Mixer(u64);

/// Marks where a value begins or ends, so that values of different structure never give the same sequence.
#[derive(Clone, Copy)]
enum Mark {
    None,
    List,
    Map,
    End,
}

impl Mixer {
    fn number(&mut self, n: u64) -> Result<(), fmt::Error> {
        self.0 = mix(self.0, n);
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), fmt::Error> {
        self.0 = mix_bytes(self.0, text.as_bytes());
        Ok(())
    }

    fn mark(&mut self, mark: Mark) -> Result<(), fmt::Error> {
        self.number(u64::MAX - mark as u64)
    }

    fn open(&mut self, mark: Mark) -> Result<&mut Mixer, fmt::Error> {
        self.mark(mark)?;
        Ok(self)
    }
}

macro_rules! numbers {
    ($($name:ident $type:ty),*) => {
        $(fn $name(self, v: $type) -> Result<(), fmt::Error> { self.number(v as u64) })*
    };
}

impl<'a> Serializer for &'a mut Mixer {
    type Ok = ();
    type Error = fmt::Error;
    type SerializeSeq = &'a mut Mixer;
    type SerializeTuple = &'a mut Mixer;
    type SerializeTupleStruct = &'a mut Mixer;
    type SerializeTupleVariant = &'a mut Mixer;
    type SerializeMap = &'a mut Mixer;
    type SerializeStruct = &'a mut Mixer;
    type SerializeStructVariant = &'a mut Mixer;

    numbers!(serialize_bool bool, serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64);
    numbers!(serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64, serialize_char char);

    fn serialize_f32(self, v: f32) -> Result<(), fmt::Error> {
        self.number(u64::from(v.to_bits()))
    }
    fn serialize_f64(self, v: f64) -> Result<(), fmt::Error> {
        self.number(v.to_bits())
    }
    fn serialize_str(self, v: &str) -> Result<(), fmt::Error> {
        self.text(v)
    }
    fn serialize_bytes(self, v: &[u8]) -> Result<(), fmt::Error> {
        self.0 = mix_bytes(self.0, v);
        Ok(())
    }
    fn serialize_none(self) -> Result<(), fmt::Error> {
        self.mark(Mark::None)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), fmt::Error> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<(), fmt::Error> {
        self.mark(Mark::None)
    }
    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), fmt::Error> {
        self.mark(Mark::None)
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), fmt::Error> {
        self.text(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), fmt::Error> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), fmt::Error> {
        self.text(variant)?;
        value.serialize(self)
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Self, fmt::Error> {
        self.open(Mark::List)
    }
    fn serialize_tuple(self, _: usize) -> Result<Self, fmt::Error> {
        self.open(Mark::List)
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        self.open(Mark::List)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self, fmt::Error> {
        self.text(variant)?;
        self.open(Mark::List)
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self, fmt::Error> {
        self.open(Mark::Map)
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        self.open(Mark::Map)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self, fmt::Error> {
        self.text(variant)?;
        self.open(Mark::Map)
    }
}

macro_rules! lists {
    ($($name:ident $element:ident),*) => {
        $(impl ser::$name for &mut Mixer {
            type Ok = ();
            type Error = fmt::Error;
            fn $element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), fmt::Error> {
                value.serialize(&mut **self)
            }
            fn end(self) -> Result<(), fmt::Error> {
                self.mark(Mark::End)
            }
        })*
    };
}

lists!(SerializeSeq serialize_element, SerializeTuple serialize_element);
lists!(SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field);

macro_rules! structs {
    ($($name:ident),*) => {
        $(impl ser::$name for &mut Mixer {
            type Ok = ();
            type Error = fmt::Error;
            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> fmt::Result {
                self.text(key)?;
                value.serialize(&mut **self)
            }
            fn end(self) -> fmt::Result {
                self.mark(Mark::End)
            }
        })*
    };
}

structs!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for &mut Mixer {
    type Ok = ();
    type Error = fmt::Error;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> fmt::Result {
        key.serialize(&mut **self)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> fmt::Result {
        value.serialize(&mut **self)
    }
    fn end(self) -> fmt::Result {
        self.mark(Mark::End)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::object::Object;

    fn object(value: &Value) -> Object {
        Object::from_json(value.clone()).expect("a well-formed object")
    }

    /// Sample objects for each way of holding parts, with JSON pointers to fields that a change may touch.
    fn samples() -> Vec<(Value, Vec<&'static str>)> {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d", "labels": {"a": "b"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "s"},
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}]});
        let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r", "namespace": "d"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": {
                "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
            "status": {"replicas": 1}});
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.0/24"},
            "status": {"capacity": {"cpu": "4"}, "conditions": [
                {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}});
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
            "spec": {"holderIdentity": "n1", "renewTime": "2026-01-01T00:00:10.500000Z"}});
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v"}});
        vec![
            (
                pod,
                vec![
                    "/metadata/labels/a",
                    "/spec/nodeName",
                    "/spec/containers/0/image",
                    "/status/phase",
                    "/status/conditions/0/status",
                ],
            ),
            (slice, vec!["/endpoints/0/addresses/0", "/endpoints/0/conditions/ready"]),
            (
                set,
                vec![
                    "/spec/replicas",
                    "/spec/template/metadata/labels/a",
                    "/spec/template/spec/containers/0/image",
                    "/status/replicas",
                ],
            ),
            (
                node,
                vec![
                    "/spec/podCIDR",
                    "/status/capacity/cpu",
                    "/status/conditions/0/status",
                    "/status/conditions/0/lastHeartbeatTime",
                ],
            ),
            (lease, vec!["/spec/holderIdentity", "/spec/renewTime"]),
            (map, vec!["/data/k"]),
        ]
    }

    /// A value that differs from the given one.
    fn other(value: &Value) -> Value {
        match value {
            Value::Bool(b) => json!(!b),
            Value::Number(n) => json!(n.as_i64().expect("an integer") + 1),
            Value::String(s) if s.starts_with("2026") => json!("2027-01-01T00:00:00.000000Z"),
            Value::String(s) => json!(format!("{s}2")),
            other => panic!("{other} is no leaf"),
        }
    }

    #[test]
    fn whatever_differs_is_told_whether_new_or_changed() {
        for (value, places) in samples() {
            let (before, mut told, mut told_new) = (object(&value), Vec::new(), Vec::new());
            let unchanged = (before.digest_change(Some(&before), 0), before.digest_change(None, 0));
            for place in places {
                let mut value = value.clone();
                let leaf = value.pointer_mut(place).expect("a place of the sample");
                *leaf = other(leaf);
                let after = object(&value);
                told.push(after.digest_change(Some(&before), 0));
                told_new.push(after.digest_change(None, 0));
                assert_ne!(told.last(), Some(&unchanged.0), "{place} of {value}");
                assert_ne!(told_new.last(), Some(&unchanged.1), "{place} of {value}");
            }
            for list in [&mut told, &mut told_new] {
                let count = list.len();
                list.sort_unstable();
                list.dedup();
                assert_eq!(list.len(), count, "each place has a digest of its own");
            }
        }
    }

    #[test]
    fn what_is_shared_with_whom_does_not_matter() {
        for (value, places) in samples() {
            let (one, equal) = (object(&value), object(&value));
            assert!(!one.shares_parts(&equal));
            assert_eq!(one.digest_change(Some(&one.clone()), 7), one.digest_change(Some(&equal), 7), "{value}");
            for place in places {
                let mut value = value.clone();
                let leaf = value.pointer_mut(place).expect("a place of the sample");
                *leaf = other(leaf);
                let after = object(&value);
                let (mut sharing, changed) = (one.clone(), after.clone());
                if sharing.same_status(&changed) {
                    sharing.take_spec(&changed);
                } else {
                    sharing.take_status(&changed);
                }
                if sharing == changed {
                    assert_eq!(sharing.digest_change(Some(&one), 7), after.digest_change(Some(&one), 7), "{place}");
                }
            }
        }
    }

    #[test]
    fn shapes_do_not_read_alike() {
        let with = |data: Value| {
            object(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}))
        };
        let shapes = [
            json!({}),
            json!({"a": "b"}),
            json!({"ab": ""}),
            json!({"": "ab"}),
            json!({"a": "b", "c": ""}),
            json!({"a": "", "b": "c"}),
        ];
        let mut told: Vec<u64> = shapes.map(|shape| with(shape).digest_change(None, 0)).to_vec();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), 6);
    }
}
