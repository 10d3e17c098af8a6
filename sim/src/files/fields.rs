//! Reads YAML trees field by field. Every field that is not asked for is reported as unknown, and every error has its
//! position.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use skeg_core::apiserver::parse_cidr;
use skeg_core::object::{Milli, Selector};

use super::duration;
use super::problem::Problems;
use super::tree::{Node, Tree, join};
use super::yaml::Document;

/// Reads a document and collects its problems.
pub struct Reader<'a> {
    /// The document.
    pub document: &'a Document,
    problems: RefCell<&'a mut Problems>,
}

impl<'a> Reader<'a> {
    /// Creates a reader for a document.
    pub fn new(document: &'a Document, problems: &'a mut Problems) -> Reader<'a> {
        Reader { document, problems: RefCell::new(problems) }
    }

    /// The whole document as a field.
    pub fn root(&'a self) -> Field<'a> {
        Field { reader: self, tree: &self.document.root, line: self.document.root.line, path: String::new() }
    }

    /// Reports a problem with a field.
    pub fn fail(&self, line: u32, path: &str, message: impl Into<String>) {
        self.problems.borrow_mut().push(self.document.problem_at(line, path, message));
    }
}

/// A field that is present.
#[derive(Clone)]
pub struct Field<'a> {
    reader: &'a Reader<'a>,
    /// Its value.
    pub tree: &'a Tree,
    /// Line of its key.
    pub line: u32,
    /// Its path.
    pub path: String,
}

impl<'a> Field<'a> {
    /// Reports a problem with the field.
    pub fn fail(&self, message: impl Into<String>) {
        self.reader.fail(self.line, &self.path, message);
    }

    /// Reports that the value is not allowed.
    pub fn invalid(&self, why: &str) {
        let shown = match &self.tree.node {
            Node::Text(s) => format!("{s:?}"),
            Node::Null => "null".to_owned(),
            Node::Bool(b) => b.to_string(),
            Node::Number(n) => n.to_string(),
            Node::List(_) | Node::Map(_) => format!("{:?}", self.tree.type_name()),
        };
        self.fail(format!("Invalid value: {shown}: {why}"));
    }

    /// The value as text. Like all of these functions, returns `None` and reports a problem if the value is of another
    /// type.
    pub fn text(&self) -> Option<&'a str> {
        let text = self.tree.text();
        if text.is_none() {
            self.invalid("must be of type string; quote it if it is one");
        }
        text
    }

    /// The value as text that is not empty.
    pub fn name(&self) -> Option<&'a str> {
        let text = self.text()?;
        if text.is_empty() {
            self.fail("Required value: must not be empty");
            return None;
        }
        Some(text)
    }

    /// The value as a boolean.
    pub fn boolean(&self) -> Option<bool> {
        match self.tree.node {
            Node::Bool(b) => Some(b),
            _ => {
                self.invalid("must be of type boolean: true or false");
                None
            }
        }
    }

    /// The value as a network of IPv4.
    pub fn cidr(&self) -> Option<([u8; 4], u8)> {
        let cidr = self.text().and_then(parse_cidr);
        if cidr.is_none() {
            self.invalid("must be a network of IPv4, such as 10.96.0.0/12, at most /30");
        }
        cidr
    }

    /// The value as an integer from `min` to `max`.
    pub fn integer(&self, min: i64, max: i64) -> Option<i64> {
        let n = match &self.tree.node {
            Node::Number(n) => n.as_i64(),
            _ => None,
        };
        let Some(n) = n else {
            self.invalid("must be of type integer");
            return None;
        };
        if n < min {
            self.invalid(&format!("must be greater than or equal to {min}"));
            return None;
        }
        if n > max {
            self.invalid(&format!("must be less than or equal to {max}"));
            return None;
        }
        Some(n)
    }

    /// The value as a number of things, from `min` to `max`.
    pub fn count(&self, min: i64, max: i64) -> Option<usize> {
        self.integer(min, max).map(|n| n as usize)
    }

    /// The value as a duration.
    pub fn duration(&self) -> Option<Duration> {
        let parsed = match &self.tree.node {
            Node::Text(s) => duration::parse(s),
            Node::Number(n) if n.as_u64() == Some(0) => Some(Duration::ZERO),
            _ => None,
        };
        if parsed.is_none() {
            self.invalid(&format!("must be of type duration; {}", duration::FORM));
        }
        parsed
    }

    /// The value as a range of durations, `1ms..5ms`; a single duration stands for both ends.
    pub fn duration_range(&self) -> Option<(Duration, Duration)> {
        let parsed = match &self.tree.node {
            Node::Text(s) => match s.split_once("..") {
                Some((from, to)) => duration::parse(from).zip(duration::parse(to)),
                None => duration::parse(s).map(|d| (d, d)),
            },
            Node::Number(n) if n.as_u64() == Some(0) => Some((Duration::ZERO, Duration::ZERO)),
            _ => None,
        };
        match parsed {
            Some((from, to)) if from <= to => parsed,
            Some(_) => {
                self.invalid("the range ends before it begins; write the shorter duration first");
                None
            }
            None => {
                self.invalid("must be a duration or a range of durations, such as 2s or 500ms..2s");
                None
            }
        }
    }

    /// The value as a quantity; plain numbers are allowed.
    pub fn quantity(&self) -> Option<Milli> {
        let text = match &self.tree.node {
            Node::Text(s) => s.clone(),
            Node::Number(n) => n.to_string(),
            _ => String::new(),
        };
        match Milli::parse(&text) {
            Ok(q) if q >= Milli::ZERO => Some(q),
            Ok(_) => {
                self.invalid("must be greater than or equal to 0");
                None
            }
            Err(e) => {
                self.invalid(&e.to_string());
                None
            }
        }
    }

    /// The value as a label selector: `app=web,tier in (a, b)`, or a map of labels.
    pub fn selector(&self) -> Option<Selector> {
        match &self.tree.node {
            Node::Text(s) => Selector::parse(s).map_err(|e| self.invalid(&e.0)).ok(),
            Node::Map(_) => self.text_map().map(|m| Selector::from_map(&m)),
            _ => {
                self.invalid("must be a label selector such as app=web, or a map of labels");
                None
            }
        }
    }

    /// The value as a map from text to text.
    pub fn text_map(&self) -> Option<BTreeMap<String, String>> {
        let fields = self.fields()?;
        let mut map = BTreeMap::new();
        for (key, field) in fields.all() {
            map.insert(key.to_owned(), field.text()?.to_owned());
        }
        Some(map)
    }

    /// The elements of the list.
    pub fn items(&self) -> Option<Vec<Field<'a>>> {
        let Some(items) = self.tree.items() else {
            self.invalid("must be of type list");
            return None;
        };
        let field = |(i, tree): (usize, &'a Tree)| Field {
            reader: self.reader,
            tree,
            line: tree.line,
            path: format!("{}[{i}]", self.path),
        };
        Some(items.iter().enumerate().map(field).collect())
    }

    /// The value as a list of texts.
    pub fn texts(&self) -> Option<Vec<String>> {
        self.items()?.iter().map(|i| i.name().map(str::to_owned)).collect()
    }

    /// The value as a map of fields.
    pub fn fields(&self) -> Option<Fields<'a>> {
        if self.tree.entries().is_none() {
            self.invalid("must be of type object: a map of fields");
            return None;
        }
        Some(Fields { of: self.clone(), known: RefCell::new(Vec::new()) })
    }
}

/// The fields of a map. It records which ones are asked for; [`finish`](Fields::finish) reports all others as unknown.
pub struct Fields<'a> {
    /// The map itself.
    pub of: Field<'a>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Fields<'a> {
    /// A field; `None` if it is absent or null.
    pub fn get(&self, key: &'static str) -> Option<Field<'a>> {
        self.known.borrow_mut().push(key);
        self.look(key)
    }

    /// A required field; reports a problem if it is absent or null.
    pub fn require(&self, key: &'static str) -> Option<Field<'a>> {
        let field = self.get(key);
        if field.is_none() {
            self.of.reader.fail(self.of.line, &join(&self.of.path, key), "Required value: must be given");
        }
        field
    }

    fn look(&self, key: &str) -> Option<Field<'a>> {
        let entry = self.of.tree.entries()?.iter().find(|e| e.key == key)?;
        (entry.value.node != Node::Null).then(|| Field {
            reader: self.of.reader,
            tree: &entry.value,
            line: entry.line,
            path: join(&self.of.path, key),
        })
    }

    /// Every entry of a map whose keys are data.
    pub fn all(&self) -> Vec<(&'a str, Field<'a>)> {
        let field = |e: &'a super::tree::Entry| {
            let path = if e.key.contains(['.', '/']) {
                format!("{}[{}]", self.of.path, e.key)
            } else {
                join(&self.of.path, &e.key)
            };
            (e.key.as_str(), Field { reader: self.of.reader, tree: &e.value, line: e.line, path })
        };
        self.of.tree.entries().unwrap_or_default().iter().map(field).collect()
    }

    /// The names of the fields that are present.
    pub fn keys(&self) -> Vec<&'a str> {
        self.of.tree.entries().unwrap_or_default().iter().map(|e| e.key.as_str()).collect()
    }

    /// Reports every field that was not asked for.
    pub fn finish(self) {
        let known = self.known.borrow();
        for entry in self.of.tree.entries().unwrap_or_default() {
            if known.contains(&entry.key.as_str()) {
                continue;
            }
            let path = join(&self.of.path, &entry.key);
            let advice = match nearest(&entry.key, &known) {
                Some(near) => format!("; did you mean {near:?}?"),
                None => "; remove it or correct its name".to_owned(),
            };
            self.of.reader.fail(entry.line, &path, format!("unknown field {:?}{advice}", entry.key));
        }
    }
}

/// The known name with the smallest edit distance; `None` if even that one differs too much.
pub fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|k| (distance(&name.to_lowercase(), &k.to_lowercase()), *k))
        .filter(|(d, k)| *d <= 1 + k.len() / 4)
        .min()
        .map(|(_, k)| k)
}

/// The Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replace = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn near_names_are_suggested() {
        assert_eq!(nearest("replcas", &["replicas", "by"]), Some("replicas"));
        assert_eq!(nearest("setimage", &["setImage", "scale"]), Some("setImage"));
        assert_eq!(nearest("zebra", &["replicas", "by"]), None);
    }
}
