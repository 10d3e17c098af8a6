//! The Common Expression Language, as Kubernetes uses it for rules of schemas and admission policies. Pure: an
//! expression and values go in, a value and what it cost come out.
//!
//! An expression is parsed and its types are checked when it is compiled, in the words of cel-go; then it can be run as
//! often as one likes. A run ends when it costs more than it may, in the units of Kubernetes. Maps are in the order of
//! their keys. Nesting, costs and what is made are bounded, so no expression runs for long or takes much memory.
//!
//! Why not one of the crates: what runs here must be the same in every run and have an end. The crate `cel` 0.13 walks
//! maps in hash order, has no limit on costs and no type checker, keeps no places for errors, and brings ANTLR's
//! runtime.
//!
//! Source: <https://github.com/google/cel-spec>, <https://kubernetes.io/docs/reference/using-api/cel/>.

mod ast;
mod check;
mod eval;
mod functions;
mod library;
mod parse;
mod token;
pub mod types;
mod value;

use std::collections::BTreeMap;
use std::fmt;

use regex_lite::Regex;

use ast::{Expr, Kind, Literal};
pub use check::made;
pub use library::time::duration;
pub use types::Type;
pub use value::{Error, Key, Value};

/// The formats that `format.NAME()` knows, by name.
pub const FORMATS: [&str; 8] =
    ["dns1123Label", "dns1123Subdomain", "dns1035Label", "qualifiedName", "labelValue", "uuid", "date", "datetime"];

/// The most that a run may cost.
pub const MAX_COST: u64 = 1_000_000;

/// What surrounds an expression.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The variables and their types.
    pub variables: BTreeMap<&'static str, Type>,
    /// Whether expressions may make objects: `Object{…}`, `Object.spec{…}` and `JSONPatch{…}`.
    pub makes_objects: bool,
    /// Reads a quantity, in billionths of its unit.
    pub quantity: fn(&str) -> Result<i128, String>,
    /// Checks a text against one of [`FORMATS`].
    pub format: fn(&str, &str) -> Result<(), String>,
}

/// Something wrong in an expression.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Issue {
    at: usize,
    message: String,
}

impl Issue {
    fn new(at: usize, message: String) -> Issue {
        Issue { at, message }
    }
}

/// All that is wrong in an expression, with the lines in question, as cel-go shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Issues {
    source: String,
    issues: Vec<Issue>,
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, issue) in self.issues.iter().enumerate() {
            let before = &self.source[..issue.at.min(self.source.len())];
            let number = before.matches('\n').count();
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
            let line = self.source.split('\n').nth(number).unwrap_or_default().replace('\t', " ");
            let end = if n > 0 { "\n" } else { "" };
            write!(f, "{end}ERROR: <input>:{}:{}: {}", number + 1, column + 1, issue.message)?;
            write!(f, "\n | {line}\n | {}^", ".".repeat(column))?;
        }
        Ok(())
    }
}

/// Regular expressions that are written in an expression, compiled.
#[derive(Debug, Default)]
pub(crate) struct Regexes(BTreeMap<String, Regex>);

impl Regexes {
    fn with<'a>(&self, pattern: &str, then: impl FnOnce(&Regex) -> Value<'a>) -> Result<Value<'a>, Error> {
        match self.0.get(pattern) {
            Some(regex) => Ok(then(regex)),
            None => match Regex::new(pattern) {
                Ok(regex) => Ok(then(&regex)),
                Err(why) => Err(Error::Failed(format!("error parsing regexp: {why}"))),
            },
        }
    }
}

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    source: String,
    expr: Expr,
    regexes: Regexes,
    type_: Type,
    used: Vec<String>,
}

impl Program {
    /// Compiles an expression.
    pub fn compile(source: &str, environment: &Environment) -> Result<Program, Issues> {
        let wrong = |issues| Issues { source: source.to_owned(), issues };
        let expr = parse::parse(source).map_err(|issue| wrong(vec![issue]))?;
        let functions = functions::functions();
        let mut checker = check::Checker {
            environment,
            functions: &functions,
            scope: Vec::new(),
            issues: Vec::new(),
            used: Vec::new(),
            mixed: false,
        };
        let type_ = checker.check(&expr);
        let (mut issues, used) = (checker.issues, checker.used);
        let mut regexes = Regexes::default();
        if issues.is_empty() {
            find_regexes(&expr, &mut regexes, &mut issues);
        }
        if issues.is_empty() {
            Ok(Program { source: source.to_owned(), expr, regexes, type_, used })
        } else {
            Err(wrong(issues))
        }
    }

    /// Its text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The type of its value.
    pub fn type_(&self) -> &Type {
        &self.type_
    }

    /// Whether it uses a variable of its environment.
    pub fn uses(&self, variable: &str) -> bool {
        self.used.iter().any(|used| used == variable)
    }

    /// Evaluates the expression; returns its value, and what that cost. It ends when it costs more than `limit`, which
    /// is at most [`MAX_COST`].
    pub fn run<'a>(
        &'a self,
        environment: &Environment,
        variables: &BTreeMap<&'static str, Value<'a>>,
        limit: u64,
    ) -> (Result<Value<'a>, Error>, u64) {
        let mut eval = eval::Eval { environment, regexes: &self.regexes, variables, scope: Vec::new(), cost: 0, limit };
        let result = eval.eval(&self.expr);
        (result, eval.cost)
    }
}

/// Compiles the regular expressions that are written in an expression.
fn find_regexes(expr: &Expr, regexes: &mut Regexes, issues: &mut Vec<Issue>) {
    let mut go = |expr: &Expr| find_regexes(expr, regexes, issues);
    match &expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => {}
        Kind::Select { operand, .. } => go(operand),
        Kind::Logic { operands, .. } => operands.iter().for_each(go),
        Kind::List(items) => items.iter().for_each(|(_, item)| go(item)),
        Kind::Object { fields, .. } => fields.iter().for_each(|field| go(&field.value)),
        Kind::Map(entries) => entries.iter().for_each(|(_, key, value)| {
            go(key);
            go(value);
        }),
        Kind::Macro(of) => {
            go(&of.range);
            of.filter.iter().chain(&of.body).for_each(go);
        }
        Kind::Call { function, target, args } => {
            target.iter().for_each(|target| go(target));
            args.iter().for_each(&mut go);
            let pattern = if target.is_some() { args.first() } else { args.get(1) };
            if matches!(function.as_str(), "matches" | "find" | "findAll")
                && let Some(Expr { at, kind: Kind::Literal(Literal::String(pattern)) }) = pattern
            {
                match Regex::new(pattern) {
                    Ok(regex) => drop(regexes.0.insert(pattern.clone(), regex)),
                    Err(why) => issues.push(Issue::new(*at, format!("invalid matches argument: {why}"))),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
