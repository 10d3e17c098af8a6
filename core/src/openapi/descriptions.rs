//! What Kubernetes says of its types and their fields, for `kubectl explain`.
//!
//! It is as large as all documents together, so whoever makes documents reads it for that, and drops it again.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Descriptions of built-in types.
#[derive(Debug, Default)]
pub struct Descriptions<'a>(BTreeMap<&'a str, Described<'a>>);

#[derive(Debug, Default)]
struct Described<'a> {
    own: &'a str,
    fields: BTreeMap<&'a str, &'a str>,
}

impl<'a> Descriptions<'a> {
    /// Reads them from the text that `cargo xtask schema` makes: a line `NAME TEXT` for each type, and after it one for
    /// each field, which begins with a space. In a text, `\n` is the end of a line and `\\` a backslash.
    pub fn parse(text: &'a str) -> Descriptions<'a> {
        let mut all = BTreeMap::<&str, Described<'_>>::new();
        let mut last = "";
        for line in text.lines() {
            let field = line.strip_prefix(' ');
            let (name, text) = field.unwrap_or(line).split_once(' ').unwrap_or((line, ""));
            if field.is_some() {
                all.entry(last).or_default().fields.insert(name, text);
            } else {
                last = name;
                all.entry(name).or_default().own = text;
            }
        }
        Descriptions(all)
    }

    /// What is said of a type.
    pub(super) fn of_type(&self, name: &str) -> Option<Value> {
        self.0.get(name).and_then(|of| plain(of.own))
    }

    /// What is said of a field of a type.
    pub(super) fn of_field(&self, name: &str, field: &str) -> Option<Value> {
        self.0.get(name).and_then(|of| of.fields.get(field)).and_then(|text| plain(text))
    }
}

fn plain(text: &str) -> Option<Value> {
    let mut plain = String::with_capacity(text.len());
    let mut all = text.chars();
    while let Some(c) = all.next() {
        plain.push(match c {
            '\\' if all.next() == Some('n') => '\n',
            c => c,
        });
    }
    (!plain.is_empty()).then(|| json!(plain))
}
