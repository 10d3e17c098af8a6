//! Types of expressions.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

/// The type of an expression.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Type {
    /// Not known before it is evaluated.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Rc<List>),
    /// The types of keys and of values.
    Map(Rc<(Type, Type)>),
    Object(Rc<Object>),
    /// The type of a type.
    Type,
    Optional(Rc<Type>),
    /// A type of Kubernetes' libraries, such as `kubernetes.Quantity`.
    Opaque(&'static str),
    /// A parameter of a function's signature.
    Param(char),
}

/// The type of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct List {
    /// The type of its items.
    pub item: Type,
    /// What makes two items the same (`x-kubernetes-list-type`).
    pub identity: Identity,
}

/// What makes two items of a list the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Identity {
    /// Their place.
    Place,
    /// Their value: the list is a set.
    Value,
    /// These fields, under their names in JSON.
    Fields(Vec<String>),
}

/// The type of an object whose fields are declared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// Its name in error messages.
    pub name: String,
    /// The fields by their names in expressions, which [`escape`] makes: their names in JSON and their types.
    pub fields: BTreeMap<String, (String, Type)>,
}

impl Type {
    /// A list in which the place of an item is its identity.
    pub fn list(item: Type) -> Type {
        Type::List(Rc::new(List { item, identity: Identity::Place }))
    }

    /// A map.
    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Rc::new((key, value)))
    }

    /// A value that may be missing.
    pub fn optional(of: Type) -> Type {
        Type::Optional(Rc::new(of))
    }

    /// Reads a type as the signatures of functions write it: `list<A>`, `map<string,int>`, `kubernetes.Quantity`.
    pub(crate) fn parse(text: &'static str) -> Type {
        match text {
            "dyn" => Type::Dyn,
            "null" => Type::Null,
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "timestamp" => Type::Timestamp,
            "duration" => Type::Duration,
            "type" => Type::Type,
            "A" | "B" => Type::Param(text.as_bytes()[0].into()),
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            other => match other.strip_suffix('>').and_then(|o| o.split_once('<')) {
                Some(("list", item)) => Type::list(Type::parse(item)),
                Some(("optional", of)) => Type::optional(Type::parse(of)),
                Some(("map", both)) => {
                    let (key, value) = both.split_once(',').expect("a map has two types");
                    Type::map(Type::parse(key), Type::parse(value))
                }
                Some((other, _)) => unreachable!("no type of a signature: {other}"),
                None => Type::Opaque(other),
            },
        }
    }

    /// Replaces parameters by what they are bound to; what is not bound is dynamic.
    pub(crate) fn with(&self, bound: &BTreeMap<char, Type>) -> Type {
        match self {
            Type::Param(name) => bound.get(name).cloned().unwrap_or(Type::Dyn),
            Type::List(list) => {
                Type::List(Rc::new(List { item: list.item.with(bound), identity: list.identity.clone() }))
            }
            Type::Map(both) => Type::map(both.0.with(bound), both.1.with(bound)),
            Type::Optional(of) => Type::optional(of.with(bound)),
            plain => plain.clone(),
        }
    }

    /// Whether a value of type `actual` may stand where this one is asked for; binds parameters.
    pub(crate) fn takes(&self, actual: &Type, bound: &mut BTreeMap<char, Type>) -> bool {
        match (self, actual) {
            (Type::Param(name), _) => match bound.get(name).cloned() {
                None | Some(Type::Dyn) => {
                    bound.insert(*name, actual.clone());
                    true
                }
                Some(before) => {
                    let fits = before.takes(actual, bound);
                    // `null` first, an object later.
                    if !fits && actual.takes(&before, bound) {
                        bound.insert(*name, actual.clone());
                        return true;
                    }
                    fits
                }
            },
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (Type::List(a), Type::List(b)) => a.item.takes(&b.item, bound),
            (Type::Map(a), Type::Map(b)) => a.0.takes(&b.0, bound) && a.1.takes(&b.1, bound),
            (Type::Optional(a), Type::Optional(b)) => a.takes(b, bound),
            (Type::Object(a), Type::Object(b)) => a.name == b.name,
            (Type::Object(_) | Type::Timestamp | Type::Duration | Type::Opaque(_), Type::Null) => true,
            (a, b) => a == b,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Type::Dyn => "dyn",
            Type::Null => "null",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::Duration => "google.protobuf.Duration",
            Type::Type => "type",
            Type::Opaque(name) => name,
            Type::Object(object) => &object.name,
            Type::Param(name) => return write!(f, "{name}"),
            Type::List(list) => return write!(f, "list({})", list.item),
            Type::Map(both) => return write!(f, "map({}, {})", both.0, both.1),
            Type::Optional(of) => return write!(f, "optional_type({of})"),
        };
        f.write_str(name)
    }
}

/// Words that are no identifiers.
pub(crate) const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The name of a field in expressions, as Kubernetes escapes it; `None` if it cannot be named.
pub fn escape(name: &str) -> Option<String> {
    if RESERVED.contains(&name) || matches!(name, "true" | "false" | "null" | "in") {
        return Some(format!("__{name}__"));
    }
    let is_first = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '.' | '-' | '/');
    if !name.starts_with(is_first) || !name.chars().all(|c| is_first(c) || c.is_ascii_digit()) {
        return None;
    }
    let escaped = name.replace("__", "__underscores__");
    Some(escaped.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__"))
}

/// The name in JSON of a field that expressions name so; undoes [`escape`].
pub(crate) fn unescape(name: &str) -> String {
    if let Some(word) = name.strip_prefix("__").and_then(|name| name.strip_suffix("__"))
        && (RESERVED.contains(&word) || matches!(word, "true" | "false" | "null" | "in"))
    {
        return word.to_owned();
    }
    let plain = name.replace("__dot__", ".").replace("__dash__", "-").replace("__slash__", "/");
    plain.replace("__underscores__", "__")
}

#[cfg(test)]
mod tests {
    use super::{escape, unescape};

    #[test]
    fn names_of_fields_are_escaped() {
        let check = |name: &str, want: Option<&str>| {
            assert_eq!(escape(name).as_deref(), want, "{name}");
            assert!(want.is_none_or(|escaped| unescape(escaped) == name), "{name}");
        };
        check("replicas", Some("replicas"));
        check("my_field", Some("my_field"));
        check("namespace", Some("__namespace__"));
        check("in", Some("__in__"));
        check("x-prop", Some("x__dash__prop"));
        check("a.b/c", Some("a__dot__b__slash__c"));
        check("redact__d", Some("redact__underscores__d"));
        check("9lives", None);
        check("a b", None);
    }
}
