//! The evaluator. What it does has a cost, as in Kubernetes, and ends when it costs too much.
//!
//! Source: cel-go's `interpreter/runtimecost.go`, Kubernetes' `pkg/cel/library/cost.go`. Text and lists that are made
//! cost as much as copying them, which those two leave out.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::ast::{Expr, Field, Fold, Kind, Literal, Macro, Select};
use crate::library;
use crate::types::unescape;
use crate::value::{Error, Key, Value, fail, no_overload};
use crate::{Environment, Regexes};

/// The evaluation of one expression.
pub(crate) struct Eval<'v, 'a> {
    pub(crate) environment: &'v Environment,
    pub(crate) regexes: &'a Regexes,
    pub(crate) variables: &'v BTreeMap<&'static str, Value<'a>>,
    /// Variables of macros, the innermost last.
    pub(crate) scope: Vec<(&'a str, Value<'a>)>,
    pub(crate) cost: u64,
    pub(crate) limit: u64,
}

impl<'a> Eval<'_, 'a> {
    pub(crate) fn charge(&mut self, cost: u64) -> Result<(), Error> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(Error::Cost) } else { Ok(()) }
    }

    pub(crate) fn eval(&mut self, expr: &'a Expr) -> Result<Value<'a>, Error> {
        match &expr.kind {
            Kind::Literal(literal) => Ok(constant(literal)),
            Kind::Ident(name) => self.ident(name),
            Kind::Select { operand, field, how } => self.select(operand, field, *how),
            Kind::Call { function, args, .. } if function == "_?_:_" => match self.eval(&args[0])? {
                Value::Bool(yes) => self.eval(&args[if yes { 1 } else { 2 }]),
                _ => no_overload(),
            },
            Kind::Call { function, target, args } => self.call(function, target.as_deref(), args),
            Kind::Logic { and, operands } => self.logic(*and, operands),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Object { fields, .. } => self.object(fields),
            Kind::Macro(of) => self.fold(of),
        }
    }

    fn ident(&mut self, name: &str) -> Result<Value<'a>, Error> {
        self.charge(1)?;
        if let Some((_, value)) = self.scope.iter().rfind(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        if let Some(value) = self.variables.get(name) {
            return Ok(value.clone());
        }
        match crate::value::TYPE_NAMES.into_iter().find(|known| *known == name) {
            Some(name) => Ok(Value::Type(name)),
            None => fail(format!("no such attribute(s): {name}")),
        }
    }

    fn select(&mut self, operand: &'a Expr, field: &str, how: Select) -> Result<Value<'a>, Error> {
        let of = self.eval(operand)?;
        self.charge(1)?;
        let (found, optional) = match &of {
            Value::Optional(None) => (None, true),
            Value::Optional(Some(inner)) => (inner.field(field)?, true),
            of => (of.field(field)?, how == Select::Optional),
        };
        match (how, found) {
            (Select::Test, found) => Ok(Value::Bool(found.is_some())),
            (_, Some(Value::Failed(why))) => fail(&*why),
            (_, found) if optional => Ok(Value::Optional(found.map(Rc::new))),
            (_, Some(found)) => Ok(found),
            (_, None) => fail(format!("no such key: {field}")),
        }
    }

    fn call(&mut self, function: &'a str, target: Option<&'a Expr>, args: &'a [Expr]) -> Result<Value<'a>, Error> {
        let mut values = Vec::with_capacity(args.len() + 1);
        for arg in target.into_iter().chain(args) {
            values.push(self.eval(arg)?);
        }
        library::call(self, function, &values)
    }

    /// An error counts only if no other operand decides.
    fn logic(&mut self, and: bool, operands: &'a [Expr]) -> Result<Value<'a>, Error> {
        let mut failed = None;
        for operand in operands {
            match self.eval(operand) {
                Ok(Value::Bool(is)) if is != and => return Ok(Value::Bool(is)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => drop(failed.get_or_insert(Error::Failed("no such overload".to_owned()))),
                Err(Error::Cost) => return Err(Error::Cost),
                Err(why) => drop(failed.get_or_insert(why)),
            }
        }
        failed.map_or(Ok(Value::Bool(and)), Err)
    }

    /// The value of an element that may be optional.
    fn element(&mut self, optional: bool, expr: &'a Expr) -> Result<Option<Value<'a>>, Error> {
        match (self.eval(expr)?, optional) {
            (Value::Optional(value), true) => Ok(value.map(|v| (*v).clone())),
            (_, true) => no_overload(),
            (value, false) => Ok(Some(value)),
        }
    }

    fn list(&mut self, items: &'a [(bool, Expr)]) -> Result<Value<'a>, Error> {
        let mut list = Vec::with_capacity(items.len());
        for (optional, item) in items {
            list.extend(self.element(*optional, item)?);
        }
        self.charge(10)?;
        Ok(Value::list(list))
    }

    fn map(&mut self, entries: &'a [(bool, Expr, Expr)]) -> Result<Value<'a>, Error> {
        let mut map = BTreeMap::new();
        for (optional, key, value) in entries {
            let key = self.eval(key)?;
            let Some(key) = Key::of(&key) else { return fail("unsupported key type") };
            let Some(value) = self.element(*optional, value)? else { continue };
            if map.insert(key.clone(), value).is_some() {
                return fail(format!("duplicate key: {key}"));
            }
        }
        self.charge(30)?;
        Ok(Value::Map(Rc::new(map)))
    }

    fn object(&mut self, fields: &'a [Field]) -> Result<Value<'a>, Error> {
        let mut map = BTreeMap::new();
        for Field { name, optional, value, .. } in fields {
            let value = self.element(*optional, value)?;
            map.extend(value.map(|value| (Key::String(unescape(name)), value)));
        }
        self.charge(40)?;
        Ok(Value::Map(Rc::new(map)))
    }

    /// What the variables of a macro stand for, one after the other.
    fn elements(&self, range: &Value<'a>, vars: usize) -> Result<Vec<(Value<'a>, Option<Value<'a>>)>, Error> {
        if let Some(items) = range.items() {
            let items = items.iter().cloned().enumerate();
            let pair = |(n, item)| if vars == 2 { (Value::Int(n as i64), Some(item)) } else { (item, None) };
            return Ok(items.map(pair).collect());
        }
        match range.entries() {
            Some(entries) => {
                Ok(entries.into_iter().map(|(key, value)| (key.value(), (vars == 2).then_some(value))).collect())
            }
            None => no_overload(),
        }
    }

    fn fold(&mut self, of: &'a Macro) -> Result<Value<'a>, Error> {
        let range = self.eval(&of.range)?;
        if let Fold::Optional { flat } = of.fold {
            return self.optional(of, range, flat);
        }
        let mut so_far = Made::default();
        for (first, second) in self.elements(&range, of.vars.len())? {
            let depth = self.scope.len();
            self.scope.push((&of.vars[0], first));
            self.scope.extend(second.map(|second| (of.vars[1].as_str(), second)));
            let done = self.step(of, &mut so_far);
            self.scope.truncate(depth);
            if done? {
                break;
            }
        }
        self.charge(if of.fold == Fold::ExistsOne { 2 } else { 1 })?;
        match of.fold {
            Fold::All | Fold::Exists => match (so_far.decided, so_far.failed) {
                (Some(is), _) => Ok(Value::Bool(is)),
                (None, Some(why)) => Err(why),
                (None, None) => Ok(Value::Bool(of.fold == Fold::All)),
            },
            Fold::ExistsOne => Ok(Value::Bool(so_far.count == 1)),
            Fold::List => Ok(Value::list(so_far.list)),
            Fold::Map => Ok(Value::Map(Rc::new(so_far.map))),
            Fold::Optional { .. } => unreachable!("it has no range"),
        }
    }

    /// Takes one element of a macro's range; returns whether the result is decided. The costs are those of the loop
    /// that cel-go makes of the macro.
    fn step(&mut self, of: &'a Macro, so_far: &mut Made<'a>) -> Result<bool, Error> {
        if let Some(filter) = &of.filter {
            match self.eval(filter)? {
                Value::Bool(true) => {}
                Value::Bool(false) => {
                    self.charge(1)?;
                    return Ok(false);
                }
                _ => return no_overload(),
            }
        }
        match of.fold {
            Fold::All | Fold::Exists => {
                let all = of.fold == Fold::All;
                self.charge(if all { 3 } else { 4 })?;
                match self.body(of) {
                    Ok(Value::Bool(is)) if is != all => {
                        so_far.decided = Some(is);
                        return Ok(true);
                    }
                    Ok(Value::Bool(_)) => {}
                    Ok(_) => drop(so_far.failed.get_or_insert(Error::Failed("no such overload".to_owned()))),
                    Err(Error::Cost) => return Err(Error::Cost),
                    Err(why) => drop(so_far.failed.get_or_insert(why)),
                }
            }
            Fold::ExistsOne => match self.body(of)? {
                Value::Bool(is) => {
                    so_far.count += usize::from(is);
                    self.charge(if is { 2 } else { 1 })?;
                }
                _ => return no_overload(),
            },
            Fold::List => {
                let value = match &of.body {
                    Some(_) => self.body(of)?,
                    None => self.scope.last().expect("an element is there").1.clone(),
                };
                self.charge(if of.body.is_some() { 12 } else { 13 })?;
                so_far.list.push(value);
            }
            Fold::Map => {
                let key = Key::of(&self.scope[self.scope.len() - 2].1);
                let Some(key) = key else { return fail("unsupported key type") };
                let value = self.body(of)?;
                self.charge(32)?;
                so_far.map.insert(key, value);
            }
            Fold::Optional { .. } => unreachable!("it has no range"),
        }
        Ok(false)
    }

    fn body(&mut self, of: &'a Macro) -> Result<Value<'a>, Error> {
        self.eval(of.body.as_ref().expect("the parser gives it one"))
    }

    fn optional(&mut self, of: &'a Macro, range: Value<'a>, flat: bool) -> Result<Value<'a>, Error> {
        let Value::Optional(inner) = range else { return no_overload() };
        let Some(inner) = inner else { return Ok(Value::Optional(None)) };
        let depth = self.scope.len();
        self.scope.push((&of.vars[0], (*inner).clone()));
        let made = self.body(of);
        self.scope.truncate(depth);
        match (made?, flat) {
            (made, false) => Ok(Value::some(made)),
            (made @ Value::Optional(_), true) => Ok(made),
            (_, true) => no_overload(),
        }
    }
}

/// What a macro has made so far.
#[derive(Default)]
struct Made<'a> {
    decided: Option<bool>,
    failed: Option<Error>,
    count: usize,
    list: Vec<Value<'a>>,
    map: BTreeMap<Key, Value<'a>>,
}

fn constant(literal: &Literal) -> Value<'_> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(is) => Value::Bool(*is),
        Literal::Int(n) => Value::Int(*n),
        Literal::Uint(n) => Value::Uint(*n),
        Literal::Double(n) => Value::Double(*n),
        Literal::String(text) => Value::String(Cow::Borrowed(text)),
        Literal::Bytes(bytes) => Value::Bytes(Rc::clone(bytes)),
    }
}
