//! Draws random objects of any type of the table, for tests.

use proptest::prelude::any;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Map, Value, json};

use super::{Field, Message, Scalar, Shape, Type};
use crate::random::Rng;

/// Maximum nesting depth of a drawn object: enough for a container's probe in a template of a template.
const DEPTH: usize = 12;

/// Default number of objects that are drawn of each type.
const CASES: u32 = 200;

/// Runs a round-trip test on drawn objects of a type: `test` must return its argument. It runs 200 times, or as often
/// as `PROPTEST_CASES` says.
pub(crate) fn for_drawn(name: &str, of: Type<'_>, test: impl Fn(Value) -> Result<Value, String>) {
    // proptest's default number of cases, which means that `PROPTEST_CASES` is not set.
    const UNASKED: u32 = 256;
    let asked = Config::default().cases;
    let cases = if asked == UNASKED { CASES } else { asked };
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let drawn = runner.run(&(any::<u64>(), 1_u64..16), |(seed, density)| {
        let object = draw(&mut Rng::from_seed(seed), density, of);
        let got = test(object.clone()).map_err(|e| TestCaseError::fail(format!("{object}: {e}")))?;
        difference("", &object, &got).map_or(Ok(()), |at| Err(TestCaseError::fail(at)))
    });
    drawn.unwrap_or_else(|e| panic!("{name}: {e}"));
}

/// The path of the first difference between two values, and the difference.
fn difference(at: &str, want: &Value, got: &Value) -> Option<String> {
    match (want, got) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|k| !a.contains_key(*k)));
            let mut all = keys.map(|k| (format!("{at}.{k}"), &want[k], &got[k]));
            all.find_map(|(at, a, b)| difference(&at, a, b))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut all = a.iter().zip(b).enumerate();
            all.find_map(|(i, (a, b))| difference(&format!("{at}[{i}]"), a, b))
        }
        _ => (want != got).then(|| format!("{at}: {want} came back as {got}")),
    }
}

/// Draws an object of a type. An optional field is drawn with a probability of `density` in 16.
pub(crate) fn draw(rng: &mut Rng, density: u64, of: Type<'_>) -> Value {
    Drawer { rng, density, depth: 0, budget: 200 }.value("", of)
}

struct Drawer<'a> {
    rng: &'a mut Rng,
    density: u64,
    depth: usize,
    /// How many more optional values may be drawn: ten objects with some fields test more than one with all of them.
    budget: usize,
}

impl Drawer<'_> {
    fn value(&mut self, name: &str, of: Type<'_>) -> Value {
        self.budget = self.budget.saturating_sub(1);
        match of.shape() {
            Shape::Scalar(scalar) => self.scalar(name, scalar),
            Shape::Message(message) if message.is_list => {
                let items = of.items().expect("a list has items");
                Value::Array(self.items(name, items))
            }
            Shape::Message(message) => Value::Object(self.fields(of, message)),
            Shape::List(items, _) => Value::Array(self.items(name, items)),
            Shape::Map(values) => {
                let keys = 1 + self.rng.below(2);
                (0..keys).map(|i| (format!("key{i}"), self.value(name, values))).collect::<Map<_, _>>().into()
            }
        }
    }

    fn items(&mut self, name: &str, of: Type<'_>) -> Vec<Value> {
        (0..=self.rng.below(2)).map(|_| self.value(name, of)).collect()
    }

    fn fields(&mut self, of: Type<'_>, message: &Message) -> Map<String, Value> {
        let mut fields = Map::new();
        self.depth += 1;
        for field in &message.fields {
            let wanted = self.rng.chance(self.density, 16) && self.depth < DEPTH && self.budget > 0;
            // In Go's types a kind's `spec` is never absent, and an empty `status` is absent.
            let is_spec = message.is_kind && &*field.name == "spec";
            if (field.required || wanted || is_spec) && !is_special(message, field) {
                let value = self.value(&field.name, of.type_of(field));
                if !(message.is_kind && &*field.name == "status" && value == json!({})) {
                    fields.insert(field.name.to_string(), value);
                }
            }
        }
        self.depth -= 1;
        fields
    }

    fn scalar(&mut self, name: &str, scalar: Scalar) -> Value {
        let (n, other) = (1 + self.rng.below(9), self.rng.chance(1, 2));
        match scalar {
            // Objects store the resourceVersion as a number.
            Scalar::String if name == "resourceVersion" => n.to_string().into(),
            Scalar::String => format!("{name}-{n}").into(),
            Scalar::Bool => true.into(),
            Scalar::Int32 => json!(self.rng.range(1, i32::MAX as u64)),
            Scalar::Int64 => json!(self.rng.range(1, i64::MAX as u64)),
            Scalar::Double => json!(n as f64 + 0.5),
            Scalar::Bytes => ["AQ==", "c2VjcmV0", "//79"][n as usize % 3].into(),
            Scalar::Time => format!("202{n}-02-03T04:05:06Z").into(),
            Scalar::MicroTime => format!("202{n}-02-03T04:05:06.00700{n}Z").into(),
            Scalar::Duration => format!("{n}m30s").into(),
            Scalar::Quantity => [format!("{n}"), format!("{n}m"), format!("{n}Gi")][n as usize % 3].clone().into(),
            Scalar::IntOrString if other => json!(n),
            Scalar::IntOrString => format!("{n}0%").into(),
            Scalar::Any => json!({"any": {"list": [n, true, "x"]}}),
            Scalar::SchemaOrBool if other => json!(n > 5),
            Scalar::SchemaOrArray if other => json!([{"type": "string"}, {"type": "object"}]),
            Scalar::SchemaOrStrings if other => json!(["a", "b"]),
            Scalar::SchemaOrBool | Scalar::SchemaOrArray | Scalar::SchemaOrStrings => json!({"type": "integer"}),
        }
    }
}

/// Fields that do not survive a round trip: `stringData` is write-only, and the other field is behind a feature gate
/// that is off in 1.36 and has another type in the 1.37 data.
fn is_special(message: &Message, field: &Field) -> bool {
    matches!(
        (&*message.name, &*field.name),
        ("Secret", "stringData") | ("PodStatus", "nodeAllocatableResourceClaimStatuses")
    )
}
