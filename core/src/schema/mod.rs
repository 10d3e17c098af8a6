//! The schema table: the name, type and merge strategy of every field of every kind.
//!
//! It drives strict decoding, strategic merge, server-side apply, protobuf and OpenAPI. Built-in types come from
//! `kubernetes.txt`, which `cargo xtask schema` generates from Kubernetes 1.36's own data. The types of a custom
//! resource come from its definition's `openAPIV3Schema` ([`Schema::custom`]). Both have the same structure, and
//! [`Type`] is the way to read it.

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

/// All built-in types. The text is parsed on first use: some 3,700 lines, under a millisecond in a release build.
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

/// The built-in type of an `apiVersion` and `kind`; `None` if there is none. Options (`DeleteOptions`, …), `Status` and
/// `WatchEvent` belong to every group-version.
pub fn builtin_kind(api_version: &str, kind: &str) -> Option<Type<'static>> {
    let table = builtin();
    table.kind(api_version, kind).or_else(|| {
        let shared = kind.ends_with("Options") || kind == "Status" || kind == "WatchEvent";
        shared.then(|| table.message("meta.v1", kind)).flatten()
    })
}

/// A set of types that refer to each other.
#[derive(Clone, Default, PartialEq)]
pub struct Schema {
    packages: Vec<Package>,
    messages: Vec<Message>,
    nodes: Vec<Node>,
    /// Messages, sorted by package (`core.v1`) and name.
    names: Vec<Named>,
    /// Kinds, sorted by `apiVersion` and `kind`.
    kinds: Vec<Named>,
    root: u32,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema of {} messages", self.messages.len())
    }
}

/// A two-part name, and the node that it refers to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Named {
    outer: Box<str>,
    inner: Box<str>,
    node: u32,
}

/// A package of built-in types.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Package {
    /// Short name: `core.v1`.
    pub short: Box<str>,
    /// Prefix of the names of its types in OpenAPI: `io.k8s.api.core.v1`.
    pub open: Box<str>,
    /// API group.
    pub group: Box<str>,
    /// API version.
    pub version: Box<str>,
}

/// A type with named fields.
#[derive(Clone, PartialEq, Debug)]
pub struct Message {
    /// Name, such as `Pod`; empty within a custom resource.
    pub name: Box<str>,
    package: u16,
    /// Whether it has `apiVersion` and `kind`, which are not in `fields`.
    pub is_kind: bool,
    /// Whether server-side apply treats it as one value.
    pub atomic: bool,
    /// Whether it is a list in JSON. Protobuf wraps the list in a message with one field.
    pub is_list: bool,
    /// Whether fields that are not listed are kept (`x-kubernetes-preserve-unknown-fields`).
    pub open_ended: bool,
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// Sorted by field number.
    pub(crate) wire: Vec<WireField>,
}

/// A field of a message.
#[derive(Clone, PartialEq, Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: Box<str>,
    of: u32,
    /// Whether OpenAPI requires it.
    pub required: bool,
    /// Whether it is a pointer in Go. Then a zero in protobuf is a value; otherwise it means that the field is absent.
    pub pointer: bool,
    /// How strategic merge patch treats it.
    pub merge: Merge,
    /// The default that its type declares.
    pub default: Option<Value>,
}

/// How strategic merge patch treats a field (`x-kubernetes-patch-strategy`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Merge {
    /// `Some` if the list is merged: a list of maps by this key, a list of primitives as a set if the key is empty.
    pub by: Option<Box<str>>,
    /// Whether a map is replaced instead of merged.
    pub replace: bool,
    /// Whether patches list the keys to keep in `$retainKeys`. Only code that generates patches needs this.
    pub retain_keys: bool,
}

/// A field in protobuf.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WireField {
    pub(crate) number: u32,
    pub(crate) at: WireAt,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum WireAt {
    /// The index of the field in [`Message::fields`].
    Field(usize),
    /// A nested message whose fields are inlined in JSON.
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
    /// A type of [`builtin`] that a custom type refers to.
    Builtin(u32),
}

/// A type whose parts the table does not describe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub enum Scalar {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// Bytes; base64 in JSON.
    Bytes,
    /// RFC 3339, with seconds.
    Time,
    /// RFC 3339, with microseconds.
    MicroTime,
    /// A duration as Go writes it: `1m30s`.
    Duration,
    Quantity,
    IntOrString,
    /// Any JSON.
    Any,
    /// A `JSONSchemaProps` or a boolean.
    SchemaOrBool,
    /// A `JSONSchemaProps` or a list of them.
    SchemaOrArray,
    /// A `JSONSchemaProps` or a list of strings.
    SchemaOrStrings,
}

/// How server-side apply treats a list (`x-kubernetes-list-type`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum ListType {
    /// Not declared; treated as atomic.
    #[default]
    Unsaid,
    /// The list is owned as a whole.
    Atomic,
    /// A set of scalars; each item has its own owners.
    Set,
    /// A list of maps that are identified by these keys; each item has its own owners.
    Map(Box<[Box<str>]>),
}

/// A type in a [`Schema`]. It is two words in size: pass it by value.
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

/// The structure of a type.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'a> {
    /// A value without parts.
    Scalar(Scalar),
    /// An object with named fields.
    Message(&'a Message),
    /// An object with arbitrary keys, and the type of its values.
    Map(Type<'a>),
    /// A list, and the type of its items.
    List(Type<'a>, &'a ListType),
}

impl<'a> Type<'a> {
    /// The type of any JSON.
    pub fn any() -> Type<'static> {
        Type { schema: builtin(), node: text::ANY }
    }

    /// The structure of this type.
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

    /// Its message, if it is an object with named fields.
    pub fn message(self) -> Option<&'a Message> {
        match self.shape() {
            Shape::Message(message) => Some(message),
            Shape::Scalar(_) | Shape::Map(_) | Shape::List(..) => None,
        }
    }

    /// The type of the field with this name; `None` if there is no such field. In a map it is the type of the values.
    /// If unknown fields are allowed, they have the type [`Type::any`].
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

    /// The type of a field. The field must be of this type's message.
    pub fn type_of(self, field: &Field) -> Type<'a> {
        self.at(field.of)
    }

    /// The default of a field: the declared one, or the zero value of a scalar that is required. Types of custom
    /// resources have declared defaults only.
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

    /// The type of strings.
    pub fn string() -> Type<'static> {
        Type { schema: builtin(), node: text::STRING }
    }

    /// The type of its items if it is a list; any JSON if this type is any JSON; `None` otherwise.
    pub fn items(self) -> Option<Type<'a>> {
        match self.shape() {
            Shape::List(of, _) => Some(of),
            Shape::Message(message) if message.is_list => message.fields.first().and_then(|f| self.type_of(f).items()),
            Shape::Scalar(Scalar::Any) => Some(self),
            Shape::Scalar(_) | Shape::Message(_) | Shape::Map(_) => None,
        }
    }

    /// Whether server-side apply treats it as one value. Any JSON is not atomic: its maps are granular.
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

    /// The package of its message; `None` if it is not a built-in message.
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
    /// The field with this name.
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

    /// The type of a whole object, in the schema of a custom resource.
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

    /// All messages, sorted by package and name.
    pub fn messages(&self) -> impl Iterator<Item = (&Package, Type<'_>)> {
        let types = self.names.iter().map(|n| self.resolve(n.node));
        types.filter_map(|of| of.package().map(|package| (package, of)))
    }

    /// `apiVersion`, `kind` and type of all kinds, sorted by `apiVersion` and `kind`.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, &str, Type<'_>)> {
        self.kinds.iter().map(|n| (&*n.outer, &*n.inner, self.resolve(n.node)))
    }
}
