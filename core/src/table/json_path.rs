//! JSON paths as Kubernetes writes them, for the printer columns of custom resources.
//!
//! The dialect is that of `k8s.io/client-go/util/jsonpath`, without ranges over text: `.spec.replicas`,
//! `.metadata.labels.app\.kubernetes\.io/name`, `.spec.ports[0].port`, `.spec.containers[*].image`, `['a.b']`, and
//! filters that compare one field: `.status.conditions[?(@.type=="Ready")].status`.
//!
//! Source: <https://kubernetes.io/docs/reference/kubectl/jsonpath/>.

use serde_json::Value;

/// A parsed path.
#[derive(Clone, PartialEq, Debug)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, PartialEq, Debug)]
enum Step {
    /// A field by name.
    Field(String),
    /// An element by number; negative ones count from the end.
    Element(i64),
    /// Every element, or every field.
    All,
    /// The elements that fit.
    Filter(Filter),
}

#[derive(Clone, PartialEq, Debug)]
struct Filter {
    /// Path within the element.
    left: JsonPath,
    /// How it is compared; `None` keeps the elements in which the path leads somewhere.
    compare: Option<(Comparison, Value)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl JsonPath {
    /// Parses a path, with or without the braces of kubectl's templates. `None` for what is no path.
    pub fn parse(text: &str) -> Option<JsonPath> {
        let text = text.trim();
        let text = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        let mut rest = text.trim_start_matches(['$', '@']);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            rest = match rest.strip_prefix('[') {
                Some(inner) => {
                    let end = closing(inner)?;
                    steps.push(bracket(inner[..end].trim())?);
                    &inner[end + 1..]
                }
                None => {
                    let (name, after) = field(rest.strip_prefix('.').unwrap_or(rest));
                    match name.as_str() {
                        // A lone dot is the whole object.
                        "" if after.is_empty() && steps.is_empty() => {}
                        "" => return None,
                        "*" => steps.push(Step::All),
                        _ => steps.push(Step::Field(name)),
                    }
                    after
                }
            };
        }
        Some(JsonPath { steps })
    }

    /// The values that the path leads to, in order.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.steps {
            found = found.into_iter().flat_map(|value| step.from(value)).collect();
        }
        found
    }
}

/// The place of the bracket that closes what is open before this text, outside quotes.
fn closing(text: &str) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0);
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(i),
            (None, ']') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

/// A field's name, whose dots are escaped by a backslash, and what follows it.
fn field(text: &str) -> (String, &str) {
    let (mut name, mut chars) = (String::new(), text.char_indices());
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
            '.' | '[' => return (name, &text[i..]),
            c => name.push(c),
        }
    }
    (name, "")
}

fn quoted(text: &str) -> Option<&str> {
    let inside = |q: char| text.strip_prefix(q).and_then(|t| t.strip_suffix(q));
    inside('\'').or_else(|| inside('"'))
}

fn bracket(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = quoted(text) {
        return Some(Step::Field(name.to_owned()));
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        return filter_of(filter.trim()).map(Step::Filter);
    }
    text.parse().ok().map(Step::Element)
}

fn filter_of(text: &str) -> Option<Filter> {
    let split = COMPARISONS.iter().find_map(|(sign, comparison)| {
        let (left, right) = text.split_once(sign)?;
        Some((left, *comparison, right))
    });
    let Some((left, comparison, right)) = split else {
        return Some(Filter { left: JsonPath::parse(text)?, compare: None });
    };
    let right = right.trim();
    let right = match quoted(right) {
        Some(text) => Value::from(text),
        None => serde_json::from_str(right).ok()?,
    };
    Some(Filter { left: JsonPath::parse(left)?, compare: Some((comparison, right)) })
}

impl Step {
    fn from<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Step::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
            (Step::Element(n), Value::Array(list)) => {
                let n = if *n < 0 { *n + list.len() as i64 } else { *n };
                usize::try_from(n).ok().and_then(|n| list.get(n)).into_iter().collect()
            }
            (Step::All, Value::Array(list)) => list.iter().collect(),
            (Step::All, Value::Object(map)) => map.values().collect(),
            (Step::Filter(filter), Value::Array(list)) => list.iter().filter(|value| filter.keeps(value)).collect(),
            (Step::Field(_) | Step::Element(_) | Step::All | Step::Filter(_), _) => Vec::new(),
        }
    }
}

impl Filter {
    fn keeps(&self, value: &Value) -> bool {
        let left = self.left.find(value);
        let Some((comparison, right)) = &self.compare else { return !left.is_empty() };
        left.first().is_some_and(|left| comparison.holds(left, right))
    }
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> bool {
        let order = match (left, right) {
            (Value::Number(l), Value::Number(r)) => l.as_f64().partial_cmp(&r.as_f64()),
            (Value::String(l), Value::String(r)) => Some(l.cmp(r)),
            _ => None,
        };
        match self {
            Comparison::Equal => left == right || order.is_some_and(|o| o.is_eq()),
            Comparison::NotEqual => left != right && order.is_none_or(|o| o.is_ne()),
            Comparison::Less => order.is_some_and(|o| o.is_lt()),
            Comparison::LessOrEqual => order.is_some_and(|o| o.is_le()),
            Comparison::Greater => order.is_some_and(|o| o.is_gt()),
            Comparison::GreaterOrEqual => order.is_some_and(|o| o.is_ge()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::JsonPath;
    use serde_json::{Value, json};

    #[test]
    fn paths_lead_where_kubectl_says() {
        let object = json!({
            "metadata": {"labels": {"app.kubernetes.io/name": "web"}},
            "spec": {"replicas": 3, "ports": [{"port": 80, "name": "a"}, {"port": 443}], "map": {"x": 1, "y": 2}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Synced", "status": "False"}]},
        });
        let check = |path: &str, want: Value| {
            let found = JsonPath::parse(path).unwrap_or_else(|| panic!("{path} is a path"));
            assert_eq!(json!(found.find(&object)), want, "{path}");
        };
        check(".spec.replicas", json!([3]));
        check("{.spec.replicas}", json!([3]));
        check("$.spec.replicas", json!([3]));
        check(".spec.none.there", json!([]));
        check(r".metadata.labels.app\.kubernetes\.io/name", json!(["web"]));
        check(".metadata.labels['app.kubernetes.io/name']", json!(["web"]));
        check(".spec.ports[0].port", json!([80]));
        check(".spec.ports[-1].port", json!([443]));
        check(".spec.ports[7].port", json!([]));
        check(".spec.ports[*].port", json!([80, 443]));
        check(".spec.map.*", json!([1, 2]));
        check(r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"]));
        check(".status.conditions[?(@.type != 'Ready')].status", json!(["False"]));
        check(".spec.ports[?(@.port > 100)].port", json!([443]));
        check(".spec.ports[?(@.name)].port", json!([80]));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in [".spec..replicas", ".spec[", ".spec[a b]", ".spec[?(@.a==)]"] {
            assert_eq!(JsonPath::parse(text), None, "{text}");
        }
    }
}
