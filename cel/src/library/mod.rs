//! What functions do. Their signatures are in `functions.rs`.

mod lists;
mod net;
mod numbers;
mod strings;
pub(crate) mod time;
pub(crate) mod url;

use std::rc::Rc;

use crate::eval::Eval;
use crate::value::{Error, Value, fail, no_overload};

/// A tenth of a size, rounded up: what it costs to walk through it.
fn tenth(size: u64) -> u64 {
    size.div_ceil(10)
}

/// What it costs to look for a regular expression in a text.
fn regex_cost(text: &Value<'_>, pattern: &Value<'_>) -> u64 {
    tenth(1 + text.weight()).saturating_mul(pattern.weight().div_ceil(4))
}

/// Calls a function, an operator or a method, whose target is the first argument.
pub(crate) fn call<'a>(eval: &mut Eval<'_, 'a>, name: &'a str, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let first = args.first().map_or(1, Value::weight);
    let cost = match (name, args) {
        ("isSorted" | "sum" | "min" | "max" | "indexOf" | "lastIndexOf", [list, ..]) => match list.items() {
            Some(items) => items.iter().map(|item| 1 + tenth(item.weight())).sum(),
            None => tenth(first),
        },
        ("sets.contains" | "sets.equivalent" | "sets.intersects", [_, other]) => first.saturating_mul(other.weight()),
        ("startsWith" | "endsWith" | "bytes" | "url" | "isURL" | "lowerAscii" | "upperAscii" | "substring", _)
        | ("trim" | "charAt" | "quantity" | "isQuantity" | "cidr" | "isIP" | "isCIDR" | "ip", _)
        | ("validate" | "timestamp" | "duration" | "strings.quote", _) => tenth(first),
        ("string", [Value::Bytes(_) | Value::String(_)]) => tenth(first),
        ("replace" | "split" | "ip.isCanonical", _) => tenth(2 * first),
        ("matches" | "find" | "findAll", [text, pattern, ..]) => regex_cost(text, pattern),
        ("contains", [_, part]) => tenth(first).saturating_mul(tenth(part.weight())),
        ("_<_" | "_<=_" | "_>_" | "_>=_", [_, other]) => tenth(first.min(other.weight())),
        ("_+_", [Value::String(a), Value::String(b)]) => tenth((a.len() + b.len()) as u64),
        ("_+_", [Value::Bytes(a), Value::Bytes(b)]) => tenth((a.len() + b.len()) as u64),
        ("_+_", [_, other]) if args[0].items().is_some() => 1 + tenth(first.saturating_add(other.weight())),
        // These are charged as they go.
        ("_==_" | "_!=_" | "@in", _) => 0,
        _ => 1,
    };
    eval.charge(cost)?;
    match name {
        "_==_" | "_!=_" => {
            let [a, b] = args else { return no_overload() };
            let mut looked = 0;
            let equal = a.equals(b, &mut looked);
            eval.charge(tenth(a.weight().min(b.weight()).max(looked)))?;
            return Ok(Value::Bool(equal == (name == "_==_")));
        }
        "@in" => return within(eval, args),
        "_[_]" | "_[?_]" => return index(name == "_[?_]", args),
        "!_" => {
            return match args {
                [Value::Bool(is)] => Ok(Value::Bool(!is)),
                _ => no_overload(),
            };
        }
        "size" => {
            return match args {
                [of] => of.size().map_or_else(no_overload, |n| Ok(Value::Int(n as i64))),
                _ => no_overload(),
            };
        }
        "type" => return Ok(Value::Type(args[0].type_name())),
        "dyn" => return Ok(args[0].clone()),
        _ => {}
    }
    if let Some(result) = optionals(name, args) {
        return result;
    }
    if let Some(result) = numbers::call(eval.environment, name, args) {
        return result;
    }
    if let Some(result) = time::call(name, args) {
        return result;
    }
    if let Some(result) = net::call(name, args) {
        return result;
    }
    if let Some(result) = lists::call(eval, name, args) {
        return result;
    }
    strings::call(eval, name, args).unwrap_or_else(no_overload)
}

fn within<'a>(eval: &mut Eval<'_, 'a>, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let [item, of] = args else { return no_overload() };
    let Some(items) = of.items() else {
        eval.charge(1)?;
        return match of {
            Value::Map(_) | Value::Object(..) => Ok(Value::Bool(of.at(item)?.is_some())),
            Value::Sparse(map) => Ok(Value::Bool(Value::Map(Rc::clone(map)).at(item)?.is_some())),
            _ => no_overload(),
        };
    };
    let mut looked = 0;
    let found = items.iter().any(|other| other.equals(item, &mut looked));
    eval.charge((items.len() as u64).max(tenth(looked)))?;
    Ok(Value::Bool(found))
}

fn index<'a>(optional: bool, args: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let [of, index] = args else { return no_overload() };
    let found = match of {
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => return Ok(Value::Optional(inner.at(index)?.map(Rc::new))),
        of => of.at(index)?,
    };
    match (found, index) {
        (found, _) if optional => Ok(Value::Optional(found.map(Rc::new))),
        (Some(found), _) => Ok(found),
        (None, Value::String(key)) => fail(format!("no such key: {key}")),
        (None, Value::Int(n)) if of.items().is_some() => fail(format!("index out of bounds: {n}")),
        (None, Value::Int(n)) => fail(format!("no such key: {n}")),
        (None, _) => fail("index out of bounds"),
    }
}

fn optionals<'a>(name: &str, args: &[Value<'a>]) -> Option<Result<Value<'a>, Error>> {
    Some(Ok(match (name, args) {
        ("optional.none", []) => Value::Optional(None),
        ("optional.of", [value]) => Value::some(value.clone()),
        ("optional.ofNonZeroValue", [value]) => {
            let is_zero = match value {
                Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) | Value::Duration(0) => true,
                Value::Double(n) => *n == 0.0,
                other => other.size() == Some(0),
            };
            if is_zero { Value::Optional(None) } else { Value::some(value.clone()) }
        }
        ("hasValue", [Value::Optional(value)]) => Value::Bool(value.is_some()),
        ("value", [Value::Optional(Some(value))]) => (**value).clone(),
        ("value", [Value::Optional(None)]) => return Some(fail("optional.none() dereference")),
        ("or", [Value::Optional(None), other @ Value::Optional(_)]) => other.clone(),
        ("or", [some @ Value::Optional(Some(_)), _]) => some.clone(),
        ("orValue", [Value::Optional(Some(value)), _]) => (**value).clone(),
        ("orValue", [Value::Optional(None), other]) => other.clone(),
        _ => return None,
    }))
}
