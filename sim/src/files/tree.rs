//! A YAML document as a tree with line numbers, so that errors can point into the file.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// A value and its line.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    /// Line number, from one, within the parsed text.
    pub line: u32,
    /// The value.
    pub node: Node,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Tree>),
    /// In the order of the file; a duplicate key occurs twice.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key, as text.
    pub key: String,
    /// Line of the key.
    pub line: u32,
    /// The value.
    pub value: Tree,
}

impl Tree {
    /// The value of a key; `None` if this is not a map or has no such key.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        match &self.node {
            Node::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
            _ => None,
        }
    }

    /// The text; `None` if the value is not text.
    pub fn text(&self) -> Option<&str> {
        match &self.node {
            Node::Text(s) => Some(s),
            _ => None,
        }
    }

    /// The entries; `None` if the value is not a map.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.node {
            Node::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The elements; `None` if the value is not a list.
    pub fn items(&self) -> Option<&[Tree]> {
        match &self.node {
            Node::List(items) => Some(items),
            _ => None,
        }
    }

    /// The type of the value, in one word.
    pub fn type_name(&self) -> &'static str {
        match &self.node {
            Node::Null => "null",
            Node::Bool(_) => "bool",
            Node::Number(_) => "number",
            Node::Text(_) => "string",
            Node::List(_) => "list",
            Node::Map(_) => "map",
        }
    }

    /// Converts to JSON. Of duplicate keys, the first is used; see [`duplicates`](Self::duplicates).
    pub fn to_value(&self) -> Value {
        match &self.node {
            Node::Null => Value::Null,
            Node::Bool(b) => Value::Bool(*b),
            Node::Number(n) => Value::Number(n.clone()),
            Node::Text(s) => Value::String(s.clone()),
            Node::List(items) => Value::Array(items.iter().map(Tree::to_value).collect()),
            Node::Map(entries) => {
                let mut map = Map::new();
                for e in entries {
                    map.entry(e.key.clone()).or_insert_with(|| e.value.to_value());
                }
                Value::Object(map)
            }
        }
    }

    /// The duplicate keys within maps: path, line, and line of the first occurrence.
    pub fn duplicates(&self) -> Vec<(String, u32, u32)> {
        let mut found = Vec::new();
        self.find_duplicates("", &mut found);
        found
    }

    fn find_duplicates(&self, path: &str, found: &mut Vec<(String, u32, u32)>) {
        match &self.node {
            Node::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    item.find_duplicates(&format!("{path}[{i}]"), found);
                }
            }
            Node::Map(entries) => {
                let mut seen = std::collections::BTreeMap::new();
                for e in entries {
                    let here = join(path, &e.key);
                    match seen.get(e.key.as_str()) {
                        Some(first) => found.push((here.clone(), e.line, *first)),
                        None => _ = seen.insert(e.key.as_str(), e.line),
                    }
                    if !matches!(e.value.node, Node::Text(_) | Node::Number(_) | Node::Bool(_) | Node::Null) {
                        e.value.find_duplicates(&here, found);
                    }
                }
            }
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) => {}
        }
    }

    /// The line of a field, given its path in Kubernetes' notation (`spec.containers[0].image`,
    /// `metadata.labels[a.b/c]`). If the field does not exist, the line of its innermost existing parent.
    pub fn locate(&self, path: &str) -> u32 {
        let (mut at, mut line, mut rest) = (self, self.line, path.trim_start_matches('.'));
        while !rest.is_empty() {
            let Some((next, next_line, left)) = at.step(rest) else { break };
            (at, line, rest) = (next, next_line, left.trim_start_matches('.'));
        }
        line
    }

    /// Follows the longest key (or index) that the path starts with.
    fn step<'t, 'p>(&'t self, path: &'p str) -> Option<(&'t Tree, u32, &'p str)> {
        match &self.node {
            Node::List(items) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((item, item.line, rest))
            }
            Node::Map(entries) => {
                let (mut best, mut best_len) = (None, 0);
                for e in entries {
                    let Some(rest) = key_at(path, &e.key) else { continue };
                    if best.is_none() || e.key.len() > best_len {
                        best_len = e.key.len();
                        best = Some((&e.value, e.line, rest));
                    }
                }
                best
            }
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) => None,
        }
    }
}

/// The rest of a path after a key at its start, which may be written plainly or in brackets; `None` if the path does
/// not start with the key.
fn key_at<'p>(path: &'p str, key: &str) -> Option<&'p str> {
    if let Some(bracketed) = path.strip_prefix('[') {
        let bracketed = bracketed.strip_prefix('"').unwrap_or(bracketed);
        let rest = bracketed.strip_prefix(key)?;
        return rest.strip_prefix('"').unwrap_or(rest).strip_prefix(']');
    }
    let rest = path.strip_prefix(key)?;
    (rest.is_empty() || rest.starts_with(['.', '['])).then_some(rest)
}

/// Appends a key to a path.
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn line_of(location: &serde_saphyr::Location) -> u32 {
    u32::try_from(location.line()).unwrap_or(u32::MAX)
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        let spanned = Spanned::<Node>::deserialize(deserializer)?;
        Ok(Tree { line: line_of(&spanned.referenced), node: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        self.visit_unit()
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Node, D::Error> {
        Node::deserialize(d)
    }
    fn visit_bool<E: de::Error>(self, v: bool) -> Result<Node, E> {
        Ok(Node::Bool(v))
    }
    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Node, E> {
        Ok(Node::Number(v.into()))
    }
    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Node, E> {
        Ok(Node::Number(v.into()))
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Node, E> {
        Number::from_f64(v).map(Node::Number).ok_or_else(|| E::custom("the number is not finite"))
    }
    fn visit_str<E: de::Error>(self, v: &str) -> Result<Node, E> {
        Ok(Node::Text(v.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<Key>>()? {
            entries.push(Entry { line: line_of(&key.referenced), key: key.value.0, value: map.next_value()? });
        }
        Ok(Node::Map(entries))
    }
}

/// A key of a map. Numbers and booleans become text, as when Kubernetes converts YAML to JSON.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string as key")
            }
            fn visit_bool<E: de::Error>(self, v: bool) -> Result<Key, E> {
                Ok(Key(v.to_string()))
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Key, E> {
                Ok(Key(v.to_string()))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Key, E> {
                Ok(Key(v.to_string()))
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Key, E> {
                Ok(Key(v.to_string()))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Key, E> {
                Ok(Key(v.to_owned()))
            }
        }
        deserializer.deserialize_any(KeyVisitor)
    }
}
