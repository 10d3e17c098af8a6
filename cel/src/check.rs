//! The type checker: finds what would fail before it is evaluated, in the words of cel-go.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::ast::{Expr, Field, Fold, Kind, Literal, Macro, Select};
use crate::functions::Functions;
use crate::types::{Object, Type};
use crate::{Environment, Issue};

pub(crate) struct Checker<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) functions: &'a Functions,
    /// Variables of macros, the innermost last.
    pub(crate) scope: Vec<(String, Type)>,
    pub(crate) issues: Vec<Issue>,
    /// The variables of the environment that are used.
    pub(crate) used: Vec<String>,
    /// Whether literals may mix types, as the list of `format` may.
    pub(crate) mixed: bool,
}

impl Checker<'_> {
    /// The type of an expression. One that is wrong is reported and counts as dynamic.
    pub(crate) fn check(&mut self, expr: &Expr) -> Type {
        match &expr.kind {
            Kind::Literal(literal) => match literal {
                Literal::Null => Type::Null,
                Literal::Bool(_) => Type::Bool,
                Literal::Int(_) => Type::Int,
                Literal::Uint(_) => Type::Uint,
                Literal::Double(_) => Type::Double,
                Literal::String(_) => Type::String,
                Literal::Bytes(_) => Type::Bytes,
            },
            Kind::Ident(name) => self.ident(expr.at, name),
            Kind::Select { operand, field, how } => {
                let of = self.check(operand);
                self.select(expr.at, of, field, *how)
            }
            Kind::Call { function, target, args } => self.call(expr.at, function, target.as_deref(), args),
            Kind::Logic { and, operands } => self.logic(expr.at, *and, operands),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Object { name, fields } => self.object(expr.at, name, fields),
            Kind::Macro(of) => self.fold(expr.at, of),
        }
    }

    fn logic(&mut self, at: usize, and: bool, operands: &[Expr]) -> Type {
        let name = if and { "_&&_" } else { "_||_" };
        let mut left = Type::Bool;
        for (index, operand) in operands.iter().enumerate() {
            let right = self.check(operand);
            if index > 0 && !(is(&left, &Type::Bool) && is(&right, &Type::Bool)) {
                self.no_overload(at, name, None, &[left.clone(), right.clone()]);
            }
            left = if index == 0 { right } else { Type::Bool };
        }
        Type::Bool
    }

    fn list(&mut self, items: &[(bool, Expr)]) -> Type {
        let mut all = None;
        for (optional, item) in items {
            let type_ = self.check(item);
            let type_ = if *optional { self.unwrapped(item.at, type_) } else { type_ };
            self.join(item.at, &mut all, type_);
        }
        Type::list(all.unwrap_or(Type::Dyn))
    }

    fn map(&mut self, entries: &[(bool, Expr, Expr)]) -> Type {
        let (mut keys, mut values) = (None, None);
        for (optional, key, value) in entries {
            let key_type = self.check(key);
            self.join(key.at, &mut keys, key_type);
            let type_ = self.check(value);
            let type_ = if *optional { self.unwrapped(value.at, type_) } else { type_ };
            self.join(value.at, &mut values, type_);
        }
        Type::map(keys.unwrap_or(Type::Dyn), values.unwrap_or(Type::Dyn))
    }

    /// An object that is made. The types of a policy are named by paths of fields: what `spec` is set to in `Object` is
    /// an `Object.spec`.
    fn object(&mut self, at: usize, name: &str, fields: &[Field]) -> Type {
        let is_root = name == "Object" || name.starts_with("Object.");
        if !self.environment.makes_objects || !is_root && name != "JSONPatch" {
            return self.report(at, format!("undeclared reference to '{name}' (in container '')"));
        }
        for field in fields {
            let type_ = self.check(&field.value);
            let type_ = if field.optional { self.unwrapped(field.value.at, type_) } else { type_ };
            let item = match &type_ {
                Type::List(list) => &list.item,
                other => other,
            };
            let path = format!("{name}.{}", field.name);
            match (item, field.name.as_str()) {
                (Type::Object(made), _) if is_root && made.name.starts_with("Object") && made.name != path => {
                    let message = format!(
                        "unexpected type name {:?}, expected {path:?}, which matches field name path from root Object type",
                        made.name
                    );
                    self.report(field.at, message);
                }
                (_, "value") => {}
                (_, "op" | "path" | "from") if !is_root => {
                    if !is(&type_, &Type::String) {
                        let what = format!("expected type of field '{}' is 'string'", field.name);
                        self.report(field.at, format!("{what} but provided type is '{type_}'"));
                    }
                }
                _ if is_root => {}
                (_, unknown) => drop(self.report(field.at, format!("undefined field '{unknown}'"))),
            }
        }
        made(name)
    }

    fn report(&mut self, at: usize, message: String) -> Type {
        self.issues.push(Issue::new(at, message));
        Type::Dyn
    }

    fn ident(&mut self, at: usize, name: &str) -> Type {
        if let Some((_, type_)) = self.scope.iter().rfind(|(known, _)| known == name) {
            return type_.clone();
        }
        if let Some(type_) = self.environment.variables.get(name) {
            if !self.used.iter().any(|used| used == name) {
                self.used.push(name.to_owned());
            }
            return type_.clone();
        }
        if crate::value::TYPE_NAMES.contains(&name) {
            return Type::Type;
        }
        self.report(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn select(&mut self, at: usize, of: Type, field: &str, how: Select) -> Type {
        let (of, optional) = match of {
            Type::Optional(inner) => ((*inner).clone(), true),
            of => (of, how == Select::Optional),
        };
        let result = match &of {
            Type::Dyn => Type::Dyn,
            Type::Map(both) => {
                if !is(&both.0, &Type::String) {
                    self.no_overload(at, "_[_]", None, &[of.clone(), Type::String]);
                }
                both.1.clone()
            }
            Type::Object(object) => match object.fields.get(field) {
                Some((_, type_)) => type_.clone(),
                None => self.report(at, format!("undefined field '{field}'")),
            },
            other => self.report(at, format!("type '{other}' does not support field selection")),
        };
        match how {
            Select::Test => Type::Bool,
            Select::Field | Select::Optional if optional => Type::optional(result),
            Select::Field | Select::Optional => result,
        }
    }

    fn call(&mut self, at: usize, function: &str, target: Option<&Expr>, args: &[Expr]) -> Type {
        let outside = self.mixed;
        self.mixed |= function == "format";
        let types: Vec<Type> = target.into_iter().chain(args).map(|arg| self.check(arg)).collect();
        self.mixed = outside;
        let Some(overloads) = self.functions.get(function) else {
            return self.report(at, format!("undeclared reference to '{function}' (in container '')"));
        };
        let mut results = Vec::new();
        for overload in overloads.iter().filter(|o| o.method == target.is_some() && o.args.len() == types.len()) {
            let mut bound = BTreeMap::new();
            if overload.args.iter().zip(&types).all(|(wanted, is)| wanted.takes(is, &mut bound)) {
                results.push(overload.result.with(&bound));
            }
        }
        match results.as_slice() {
            [] => {
                self.no_overload(at, function, target.is_some().then(|| types[0].clone()).as_ref(), &types);
                Type::Dyn
            }
            [first, rest @ ..] if rest.iter().all(|other| other == first) => first.clone(),
            _ => Type::Dyn,
        }
    }

    fn no_overload(&mut self, at: usize, function: &str, target: Option<&Type>, types: &[Type]) {
        let listed = |types: &[Type]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let applied = match target {
            Some(target) => format!("{target}.({})", listed(&types[1..])),
            None => format!("({})", listed(types)),
        };
        self.report(at, format!("found no matching overload for '{function}' applied to '{applied}'"));
    }

    /// All elements of a literal have one type.
    fn join(&mut self, at: usize, all: &mut Option<Type>, type_: Type) {
        match all {
            None => *all = Some(type_),
            Some(known) if known.takes(&type_, &mut BTreeMap::new()) => {}
            Some(_) if self.mixed => *all = Some(Type::Dyn),
            Some(known) => {
                let message = format!("expected type '{known}' but found '{type_}'");
                self.report(at, message);
            }
        }
    }

    fn unwrapped(&mut self, at: usize, type_: Type) -> Type {
        match type_ {
            Type::Optional(of) => (*of).clone(),
            Type::Dyn => Type::Dyn,
            other => self.report(at, format!("expected type 'optional_type(dyn)' but found '{other}'")),
        }
    }

    fn fold(&mut self, at: usize, of: &Macro) -> Type {
        let range = self.check(&of.range);
        let vars: Vec<Type> = match (&of.fold, &range) {
            (Fold::Optional { .. }, Type::Optional(inner)) => vec![(**inner).clone()],
            (Fold::Optional { .. }, Type::Dyn) => vec![Type::Dyn],
            (Fold::Optional { .. }, other) => {
                let name = if of.fold == (Fold::Optional { flat: true }) { "optFlatMap" } else { "optMap" };
                let message = format!("found no matching overload for '{name}' applied to '{other}.(dyn, dyn)'");
                vec![self.report(at, message)]
            }
            (_, Type::List(list)) if of.vars.len() == 2 => vec![Type::Int, list.item.clone()],
            (_, Type::List(list)) => vec![list.item.clone()],
            (_, Type::Map(both)) => vec![both.0.clone(), both.1.clone()],
            (_, Type::Dyn) => vec![Type::Dyn, Type::Dyn],
            (_, other) => {
                let what = "(must be list, map, or dynamic)";
                let message = format!("expression of type '{other}' cannot be range of a comprehension {what}");
                vec![self.report(of.range.at, message), Type::Dyn]
            }
        };
        let depth = self.scope.len();
        self.scope.extend(of.vars.iter().cloned().zip(vars.clone()));
        if let Some(filter) = &of.filter {
            self.must_be_bool(at, filter, "_?_:_");
        }
        let result = match (of.fold, &of.body) {
            (Fold::All, Some(body)) => self.must_be_bool(at, body, "_&&_"),
            (Fold::Exists, Some(body)) => self.must_be_bool(at, body, "_||_"),
            (Fold::ExistsOne, Some(body)) => self.must_be_bool(at, body, "_?_:_"),
            (Fold::List, Some(body)) => Type::list(self.check(body)),
            (Fold::List, None) => Type::list(vars[0].clone()),
            (Fold::Map, Some(body)) => {
                let value = self.check(body);
                let key = if let Type::List(_) = range { Type::Int } else { vars[0].clone() };
                Type::map(key, value)
            }
            (Fold::Optional { flat }, Some(body)) => {
                let made = self.check(body);
                if flat { Type::optional(self.unwrapped(body.at, made)) } else { Type::optional(made) }
            }
            (Fold::All | Fold::Exists | Fold::ExistsOne | Fold::Map | Fold::Optional { .. }, None) => {
                unreachable!("the parser gives them a body")
            }
        };
        self.scope.truncate(depth);
        result
    }

    fn must_be_bool(&mut self, at: usize, expr: &Expr, function: &str) -> Type {
        let type_ = self.check(expr);
        if !is(&type_, &Type::Bool) {
            self.no_overload(at, function, None, &[Type::Bool, type_]);
        }
        Type::Bool
    }
}

/// The type of an object that is made, by its name.
pub fn made(name: &str) -> Type {
    Type::Object(Rc::new(Object { name: name.to_owned(), fields: BTreeMap::new() }))
}

fn is(type_: &Type, wanted: &Type) -> bool {
    type_ == wanted || *type_ == Type::Dyn
}
