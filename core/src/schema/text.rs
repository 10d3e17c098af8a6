//! Parses the text of the schema table. The first lines of `kubernetes.txt` describe the format.

use std::collections::BTreeMap;

use super::{Field, ListType, Merge, Message, Named, Node, Package, Scalar, Schema, WireAt, WireField};

/// The scalars by their names in the text.
const SCALARS: [(&str, Scalar); 15] = [
    ("any", Scalar::Any),
    ("string", Scalar::String),
    ("bool", Scalar::Bool),
    ("int32", Scalar::Int32),
    ("int64", Scalar::Int64),
    ("double", Scalar::Double),
    ("bytes", Scalar::Bytes),
    ("time", Scalar::Time),
    ("micro-time", Scalar::MicroTime),
    ("duration", Scalar::Duration),
    ("quantity", Scalar::Quantity),
    ("int-or-string", Scalar::IntOrString),
    ("schema-or-bool", Scalar::SchemaOrBool),
    ("schema-or-array", Scalar::SchemaOrArray),
    ("schema-or-strings", Scalar::SchemaOrStrings),
];

/// The indices of the first two scalars in every schema.
pub(super) const ANY: u32 = 0;
pub(super) const STRING: u32 = 1;

/// The nodes of a schema under construction. Equal nodes are stored once.
pub(super) struct Nodes {
    all: Vec<Node>,
    known: BTreeMap<Node, u32>,
}

impl Nodes {
    /// Starts with the scalars, in the order of [`SCALARS`].
    pub(super) fn new() -> Nodes {
        let mut nodes = Nodes { all: Vec::new(), known: BTreeMap::new() };
        for (_, scalar) in SCALARS {
            nodes.intern(Node::Scalar(scalar));
        }
        nodes
    }

    pub(super) fn intern(&mut self, node: Node) -> u32 {
        *self.known.entry(node).or_insert_with_key(|node| {
            self.all.push(node.clone());
            (self.all.len() - 1) as u32
        })
    }

    pub(super) fn scalar(&mut self, scalar: Scalar) -> u32 {
        self.intern(Node::Scalar(scalar))
    }

    pub(super) fn into_vec(self) -> Vec<Node> {
        self.all
    }
}

impl Schema {
    /// Parses a table that `cargo xtask schema` has generated. An error names the line.
    pub fn parse(text: &str) -> Result<Schema, String> {
        let mut reader = Reader { schema: Schema::default(), nodes: Nodes::new(), names: BTreeMap::new() };
        reader.declare(text)?;
        for (number, line) in text.lines().enumerate() {
            reader.line(line).map_err(|why| format!("line {}: {line:?}: {why}", number + 1))?;
        }
        let Reader { mut schema, nodes, names } = reader;
        schema.nodes = nodes.into_vec();
        schema.names = names.into_iter().map(|((outer, inner), node)| named(outer, inner, node)).collect();
        schema.kinds.sort();
        Ok(schema)
    }
}

fn named(outer: &str, inner: &str, node: u32) -> Named {
    Named { outer: outer.into(), inner: inner.into(), node }
}

struct Reader<'a> {
    schema: Schema,
    nodes: Nodes,
    names: BTreeMap<(&'a str, &'a str), u32>,
}

impl<'a> Reader<'a> {
    /// Assigns a node to every message, so that fields may refer to messages that are declared later.
    fn declare(&mut self, text: &'a str) -> Result<(), String> {
        let (mut package, mut count) = ("", 0);
        for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with(['#', ' '])) {
            let mut words = line.split(' ');
            match (words.next(), words.next()) {
                (Some("package"), Some(name)) => package = name,
                (Some(message), _) => {
                    let node = self.nodes.intern(Node::Message(count));
                    if self.names.insert((package, message), node).is_some() {
                        return Err(format!("{package}.{message}: twice"));
                    }
                    count += 1;
                }
                (None, _) => {}
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let mut words = line.trim_start().split(' ');
        let first = words.next().unwrap_or("");
        if line.starts_with(' ') {
            self.field(first, words)
        } else if first == "package" {
            self.package(words)
        } else {
            self.message(first, words)
        }
    }

    fn package<'l>(&mut self, mut words: impl Iterator<Item = &'l str>) -> Result<(), String> {
        let mut word = || words.next().map(Box::<str>::from).ok_or("a package has three words");
        let (short, open, version) = (word()?, word()?, word()?);
        let (group, version) = version.split_once('/').ok_or("group and version are parted by a slash")?;
        self.schema.packages.push(Package { short, open, group: group.into(), version: version.into() });
        Ok(())
    }

    fn message<'l>(&mut self, name: &str, flags: impl Iterator<Item = &'l str>) -> Result<(), String> {
        let index = self.schema.messages.len() as u32;
        let package = self.schema.packages.last().ok_or("a message before any package")?;
        let mut message = Message {
            name: name.into(),
            package: (self.schema.packages.len() - 1) as u16,
            is_kind: false,
            atomic: false,
            is_list: false,
            open_ended: false,
            fields: Vec::new(),
            wire: Vec::new(),
        };
        for flag in flags {
            match flag {
                "kind" => message.is_kind = true,
                "atomic" => message.atomic = true,
                "list" => message.is_list = true,
                other => return Err(format!("flag {other:?} is not known")),
            }
        }
        if message.is_kind {
            let api_version = match &*package.group {
                "" => package.version.to_string(),
                group => format!("{group}/{}", package.version),
            };
            let node = self.nodes.intern(Node::Message(index));
            self.schema.kinds.push(named(&api_version, name, node));
        }
        self.schema.messages.push(message);
        Ok(())
    }

    fn field<'l>(&mut self, name: &str, mut words: impl Iterator<Item = &'l str>) -> Result<(), String> {
        let (Some(numbers), Some(of)) = (words.next(), words.next()) else {
            return Err("a field has a number and a type".to_owned());
        };
        let plain = name.trim_end_matches(['!', '*']);
        let marks = &name[plain.len()..];
        let (mut merge, mut list, mut atomic, mut default) = (Merge::default(), ListType::Unsaid, false, None);
        for word in words {
            match word.split_once('=').unwrap_or((word, "")) {
                ("atomic", _) => (list, atomic) = (ListType::Atomic, true),
                ("granular", _) => {}
                ("set", _) => list = ListType::Set,
                ("map", keys) => list = ListType::Map(keys.split(',').map(Box::from).collect()),
                ("merge", key) => merge.by = Some(key.into()),
                ("replace", _) => merge.replace = true,
                ("retainKeys", _) => merge.retain_keys = true,
                ("default", json) => default = Some(serde_json::from_str(json).map_err(|e| e.to_string())?),
                _ => return Err(format!("attribute {word:?} is not known")),
            }
        }
        let of = self.of(of, list, atomic)?;
        let (required, pointer) = (marks.contains('!'), marks.contains('*'));
        let message = self.schema.messages.last_mut().ok_or("a field before any message")?;
        if message.fields.last().is_some_and(|last| *last.name >= *plain) {
            return Err("fields are not in order".to_owned());
        }
        let numbers: Result<Vec<u32>, _> = numbers.split('.').map(str::parse).collect();
        place(&mut message.wire, &numbers.map_err(|_| "a number is not one")?, message.fields.len());
        message.fields.push(Field { name: plain.into(), of, required, pointer, merge, default });
        Ok(())
    }

    /// The node of a type such as `[]core.v1.Container`.
    fn of(&mut self, word: &str, list: ListType, atomic: bool) -> Result<u32, String> {
        if let Some(of) = word.strip_prefix("[]") {
            let of = self.of(of, ListType::Unsaid, false)?;
            return Ok(self.nodes.intern(Node::List { of, list }));
        }
        if let Some(of) = word.strip_prefix("{}") {
            let of = self.of(of, ListType::Unsaid, false)?;
            return Ok(self.nodes.intern(Node::Map { of, atomic }));
        }
        if let Some((_, scalar)) = SCALARS.iter().find(|(name, _)| *name == word) {
            return Ok(self.nodes.scalar(*scalar));
        }
        let here = self.schema.packages.last().map_or("", |p| &p.short);
        let (package, name) = word.rsplit_once('.').unwrap_or((here, word));
        self.names.get(&(package, name)).copied().ok_or_else(|| format!("{package}.{name}: there is no such message"))
    }
}

/// Inserts a field by its protobuf number. If there are several numbers, all but the last are those of inlined
/// messages.
fn place(wire: &mut Vec<WireField>, numbers: &[u32], index: usize) {
    let Some((number, rest)) = numbers.split_first() else { return };
    let found = wire.binary_search_by_key(number, |w| w.number);
    let at = match (found, rest.is_empty()) {
        (Ok(at), _) => at,
        (Err(at), leaf) => {
            let what = if leaf { WireAt::Field(index) } else { WireAt::Inline(Vec::new()) };
            wire.insert(at, WireField { number: *number, at: what });
            at
        }
    };
    if let WireAt::Inline(inner) = &mut wire[at].at {
        place(inner, rest, index);
    }
}
