//! The one table of types: what every field of every kind is called, is, and how it is merged.
//!
//! It drives strict decoding, strategic merge, server-side apply, protobuf and OpenAPI. Built-in types come from
//! `kubernetes.txt` (made by `cargo xtask schema` from Kubernetes' own facts, of 1.36); those of a custom resource from
//! its definition's `openAPIV3Schema` ([`Schema::custom`]). Both are the same structure, walked by [`Type`].

mod custom;
mod text;

#[cfg(test)]
pub(crate) mod draw;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::LazyLock;

use serde_json::Value;

use crate::random::mix_bytes;

/// Every built-in type. Parsed once, when it is first asked for: some 3,700 lines, under a millisecond in release.
pub fn builtin() -> &'static Schema {
    static TABLE: LazyLock<Schema> = LazyLock::new(|| {
        Schema::parse(include_str!("kubernetes.txt")).expect("the committed table is what the xtask writes")
    });
    &TABLE
}

/// A hash of the table of built-in types.
pub fn fingerprint() -> u64 {
    static HASH: LazyLock<u64> = LazyLock::new(|| mix_bytes(0, include_str!("kubernetes.txt").as_bytes()));
    *HASH
}

/// The built-in type of this `apiVersion` and `kind`, if there is one. Options (`DeleteOptions`, …), `Status` and
/// `WatchEvent` are of every group and version.
pub fn builtin_kind(api_version: &str, kind: &str) -> Option<Type<'static>> {
    let table = builtin();
    table.kind(api_version, kind).or_else(|| {
        let shared = kind.ends_with("Options") || kind == "Status" || kind == "WatchEvent";
        shared.then(|| table.message("meta.v1", kind)).flatten()
    })
}

/// Types that refer to each other.
#[derive(Clone, Default, PartialEq)]
pub struct Schema {
    packages: Vec<Package>,
    messages: Vec<Message>,
    nodes: Vec<Node>,
    /// Messages by package (`core.v1`) and name, in that order.
    names: Vec<Named>,
    /// Kinds by `apiVersion` and `kind`, in that order.
    kinds: Vec<Named>,
    root: u32,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema of {} messages", self.messages.len())
    }
}

/// Two names, and what they name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Named {
    outer: Box<str>,
    inner: Box<str>,
    node: u32,
}

/// A package of built-in types.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Package {
    /// `core.v1`.
    pub short: Box<str>,
    /// What stands before the names of its definitions in OpenAPI: `io.k8s.api.core.v1`.
    pub open: Box<str>,
    /// API group.
    pub group: Box<str>,
    /// API version.
    pub version: Box<str>,
}

/// A type with named fields.
#[derive(Clone, PartialEq, Debug)]
pub struct Message {
    /// `Pod`; empty within a custom resource.
    pub name: Box<str>,
    package: u16,
    /// Has `apiVersion` and `kind`, which are not among the fields.
    pub is_kind: bool,
    /// Server-side apply treats it as one value.
    pub atomic: bool,
    /// A list in JSON, which protobuf wraps in a message: its items are in the one field.
    pub is_list: bool,
    /// Fields that are not listed are kept as they come (`x-kubernetes-preserve-unknown-fields`).
    pub open_ended: bool,
    /// In order of their names.
    pub fields: Vec<Field>,
    /// In order of their numbers.
    pub(crate) wire: Vec<WireField>,
}

/// A field of a message.
#[derive(Clone, PartialEq, Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: Box<str>,
    of: u32,
    /// OpenAPI's `required`.
    pub required: bool,
    /// A pointer in Go: a zero on the wire is a value and not an absence.
    pub pointer: bool,
    /// How strategic merge patch treats it.
    pub merge: Merge,
    /// What it is if it is absent, where its type says so.
    pub default: Option<Value>,
}

/// How strategic merge patch treats a field (`x-kubernetes-patch-strategy`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Merge {
    /// A list is merged: of maps by this key, of primitives where the key is empty.
    pub by: Option<Box<str>>,
    /// A map is replaced.
    pub replace: bool,
    /// Only the keys that the patch lists are kept (`retainKeys`: for whoever makes patches).
    pub retain_keys: bool,
}

/// Where a field stands on the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WireField {
    pub(crate) number: u32,
    pub(crate) at: WireAt,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum WireAt {
    /// The field of this index.
    Field(usize),
    /// A message of its own on the wire, whose fields JSON has inline.
    Inline(Vec<WireField>),
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Node {
    Scalar(Scalar),
    Message(u32),
    Map {
        of: u32,
        atomic: bool,
    },
    List {
        of: u32,
        list: ListType,
    },
    /// A type of [`builtin`], within a custom one.
    Builtin(u32),
}

/// What has no parts that the table knows of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub enum Scalar {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// Base64 in JSON.
    Bytes,
    /// RFC 3339, in seconds.
    Time,
    /// RFC 3339, in microseconds.
    MicroTime,
    /// As Go writes it: `1m30s`.
    Duration,
    Quantity,
    IntOrString,
    /// Any JSON.
    Any,
    /// A `JSONSchemaProps`, or a boolean.
    SchemaOrBool,
    /// A `JSONSchemaProps`, or a list of them.
    SchemaOrArray,
    /// A `JSONSchemaProps`, or a list of strings.
    SchemaOrStrings,
}

/// How server-side apply treats a list (`x-kubernetes-list-type`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum ListType {
    /// Nothing is said: as atomic.
    #[default]
    Unsaid,
    /// One value.
    Atomic,
    /// Of scalars, each of which may be owned.
    Set,
    /// Of maps, told apart by these keys.
    Map(Box<[Box<str>]>),
}

/// A type within a [`Schema`]. Two words: pass it by value.
#[derive(Clone, Copy)]
pub struct Type<'a> {
    schema: &'a Schema,
    node: u32,
}

impl PartialEq for Type<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.schema, other.schema) && self.node == other.node
    }
}

impl fmt::Debug for Type<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shape() {
            Shape::Scalar(scalar) => write!(f, "{scalar:?}"),
            Shape::Message(message) => f.write_str(&message.name),
            Shape::Map(of) => write!(f, "{{}}{of:?}"),
            Shape::List(of, _) => write!(f, "[]{of:?}"),
        }
    }
}

/// What a type is made of.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'a> {
    /// Without parts.
    Scalar(Scalar),
    /// Named fields.
    Message(&'a Message),
    /// Values by any key.
    Map(Type<'a>),
    /// Items.
    List(Type<'a>, &'a ListType),
}

impl<'a> Type<'a> {
    /// Any JSON.
    pub fn any() -> Type<'static> {
        Type { schema: builtin(), node: text::ANY }
    }

    /// What it is made of.
    pub fn shape(self) -> Shape<'a> {
        match &self.schema.nodes[self.node as usize] {
            Node::Scalar(scalar) => Shape::Scalar(*scalar),
            Node::Message(message) => Shape::Message(&self.schema.messages[*message as usize]),
            Node::Map { of, .. } => Shape::Map(self.at(*of)),
            Node::List { of, list } => Shape::List(self.at(*of), list),
            Node::Builtin(node) => Type { schema: builtin(), node: *node }.shape(),
        }
    }

    fn at(self, node: u32) -> Type<'a> {
        self.schema.resolve(node)
    }

    /// Its fields, if it has any.
    pub fn message(self) -> Option<&'a Message> {
        match self.shape() {
            Shape::Message(message) => Some(message),
            Shape::Scalar(_) | Shape::Map(_) | Shape::List(..) => None,
        }
    }

    /// A field of this name, and its type. Of a map, the type of its values; of what is open, any.
    pub fn field(self, name: &str) -> Option<Type<'a>> {
        match self.shape() {
            Shape::Message(message) => match message.field(name) {
                Some(field) => Some(self.type_of(field)),
                None if message.is_kind && matches!(name, "apiVersion" | "kind") => Some(Type::string()),
                None => message.open_ended.then(Type::any),
            },
            Shape::Map(of) => Some(of),
            Shape::Scalar(Scalar::Any) => Some(self),
            Shape::Scalar(_) | Shape::List(..) => None,
        }
    }

    /// The type of a field of this type's message.
    pub fn type_of(self, field: &Field) -> Type<'a> {
        self.at(field.of)
    }

    /// What a field is if it is absent: what its type says, or the zero of a scalar that Kubernetes requires.
    pub fn default_of(self, name: &str) -> Option<Value> {
        let message = self.message()?;
        let field = message.field(name)?;
        if field.default.is_some() || !field.required || message.name.is_empty() {
            return field.default.clone();
        }
        match self.type_of(field).shape() {
            Shape::Scalar(Scalar::String) => Some(Value::from("")),
            Shape::Scalar(Scalar::Int32 | Scalar::Int64) => Some(Value::from(0)),
            Shape::Scalar(Scalar::Bool) => Some(Value::from(false)),
            Shape::Scalar(_) | Shape::Message(_) | Shape::Map(_) | Shape::List(..) => None,
        }
    }

    /// Text.
    pub fn string() -> Type<'static> {
        Type { schema: builtin(), node: text::STRING }
    }

    /// The type of its items, if it is a list; any, if nothing is known of it.
    pub fn items(self) -> Option<Type<'a>> {
        match self.shape() {
            Shape::List(of, _) => Some(of),
            Shape::Message(message) if message.is_list => message.fields.first().and_then(|f| self.type_of(f).items()),
            Shape::Scalar(Scalar::Any) => Some(self),
            Shape::Scalar(_) | Shape::Message(_) | Shape::Map(_) => None,
        }
    }

    /// Whether server-side apply treats it as one value. What nothing is known of is not: its maps are granular.
    pub fn is_atomic(self) -> bool {
        match &self.schema.nodes[self.node as usize] {
            Node::Scalar(scalar) => *scalar != Scalar::Any,
            Node::Message(message) => {
                let message = &self.schema.messages[*message as usize];
                message.atomic || message.is_list
            }
            Node::Map { atomic, .. } => *atomic,
            Node::List { list, .. } => matches!(list, ListType::Unsaid | ListType::Atomic),
            Node::Builtin(node) => Type { schema: builtin(), node: *node }.is_atomic(),
        }
    }

    /// The package of its message, if it is a built-in one.
    pub fn package(self) -> Option<&'a Package> {
        let message = self.message()?;
        self.home().packages.get(usize::from(message.package))
    }

    fn home(self) -> &'a Schema {
        match self.schema.nodes[self.node as usize] {
            Node::Builtin(_) => builtin(),
            _ => self.schema,
        }
    }
}

impl Message {
    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|f| (*f.name).cmp(name)).ok().map(|i| &self.fields[i])
    }
}

impl Schema {
    fn resolve(&self, node: u32) -> Type<'_> {
        match self.nodes[node as usize] {
            Node::Builtin(node) => Type { schema: builtin(), node },
            _ => Type { schema: self, node },
        }
    }

    /// The type of a whole object: of a custom resource's schema.
    pub fn root(&self) -> Type<'_> {
        self.resolve(self.root)
    }

    /// The type of a kind.
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<Type<'_>> {
        self.find(&self.kinds, api_version, kind)
    }

    /// A message by its package (`core.v1`) and name.
    pub fn message(&self, package: &str, name: &str) -> Option<Type<'_>> {
        self.find(&self.names, package, name)
    }

    fn find(&self, list: &[Named], outer: &str, inner: &str) -> Option<Type<'_>> {
        let found = list.binary_search_by(|n| (&*n.outer, &*n.inner).cmp(&(outer, inner))).ok()?;
        Some(self.resolve(list[found].node))
    }

    /// Every message, in order of packages and names.
    pub fn messages(&self) -> impl Iterator<Item = (&Package, Type<'_>)> {
        let types = self.names.iter().map(|n| self.resolve(n.node));
        types.filter_map(|of| of.package().map(|package| (package, of)))
    }

    /// Every kind, as `apiVersion`, `kind` and type, in that order.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, &str, Type<'_>)> {
        self.kinds.iter().map(|n| (&*n.outer, &*n.inner, self.resolve(n.node)))
    }
}
