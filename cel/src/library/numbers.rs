//! Arithmetic, order, conversions of numbers, quantities.

use std::cmp::Ordering;

use crate::Environment;
use crate::value::{Error, Value, fail};

const NANO: i128 = 1_000_000_000;

fn int<'a>(name: &str, value: Option<i64>) -> Result<Value<'a>, Error> {
    value.map_or_else(|| overflow(name), |n| Ok(Value::Int(n)))
}

fn uint<'a>(value: Option<u64>) -> Result<Value<'a>, Error> {
    value.map_or_else(|| fail("unsigned integer overflow"), |n| Ok(Value::Uint(n)))
}

fn overflow<'a>(name: &str) -> Result<Value<'a>, Error> {
    fail(if name == "duration" { "duration overflow" } else { "integer overflow" })
}

fn arithmetic<'a>(name: &str, a: &Value<'a>, b: &Value<'a>) -> Option<Result<Value<'a>, Error>> {
    Some(match (name, a, b) {
        ("_+_", Value::Int(a), Value::Int(b)) => int(name, a.checked_add(*b)),
        ("_-_", Value::Int(a), Value::Int(b)) => int(name, a.checked_sub(*b)),
        ("_*_", Value::Int(a), Value::Int(b)) => int(name, a.checked_mul(*b)),
        ("_/_", Value::Int(_), Value::Int(0)) | ("_/_", Value::Uint(_), Value::Uint(0)) => fail("division by zero"),
        ("_%_", Value::Int(_), Value::Int(0)) | ("_%_", Value::Uint(_), Value::Uint(0)) => fail("modulus by zero"),
        ("_/_", Value::Int(a), Value::Int(b)) => int(name, a.checked_div(*b)),
        ("_%_", Value::Int(a), Value::Int(b)) => int(name, a.checked_rem(*b)),
        ("_+_", Value::Uint(a), Value::Uint(b)) => uint(a.checked_add(*b)),
        ("_-_", Value::Uint(a), Value::Uint(b)) => uint(a.checked_sub(*b)),
        ("_*_", Value::Uint(a), Value::Uint(b)) => uint(a.checked_mul(*b)),
        ("_/_", Value::Uint(a), Value::Uint(b)) => uint(a.checked_div(*b)),
        ("_%_", Value::Uint(a), Value::Uint(b)) => uint(a.checked_rem(*b)),
        ("_+_", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        ("_-_", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        ("_*_", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        ("_/_", Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        _ => return None,
    })
}

/// Calls a function of this file.
pub(super) fn call<'a>(environment: &Environment, name: &str, args: &[Value<'a>]) -> Option<Result<Value<'a>, Error>> {
    if let [a, b] = args {
        if let Some(result) = arithmetic(name, a, b) {
            return Some(result);
        }
        let is: fn(Ordering) -> bool = match name {
            "_<_" => Ordering::is_lt,
            "_<=_" => Ordering::is_le,
            "_>_" => Ordering::is_gt,
            "_>=_" => Ordering::is_ge,
            _ => return quantities(environment, name, args),
        };
        let nan = [a, b].iter().any(|v| matches!(v, Value::Double(n) if n.is_nan()));
        return match a.order(b) {
            Some(order) => Some(Ok(Value::Bool(is(order)))),
            None if nan => Some(Ok(Value::Bool(false))),
            None => None,
        };
    }
    Some(match (name, args) {
        ("-_", [Value::Int(n)]) => int(name, n.checked_neg()),
        ("-_", [Value::Double(n)]) => Ok(Value::Double(-n)),
        ("-_", [Value::Duration(n)]) => Ok(Value::Duration(-n)),
        ("int", [of]) => to_int(of)?,
        ("uint", [of]) => to_uint(of)?,
        ("double", [of]) => to_double(of)?,
        ("bool", [Value::Bool(is)]) => Ok(Value::Bool(*is)),
        ("bool", [Value::String(text)]) => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            other => fail(format!("strconv.ParseBool: parsing {other:?}: invalid syntax")),
        },
        _ => return quantities(environment, name, args),
    })
}

fn to_int<'a>(of: &Value<'a>) -> Option<Result<Value<'a>, Error>> {
    Some(match of {
        Value::Int(n) => Ok(Value::Int(*n)),
        Value::Uint(n) => int("int", i64::try_from(*n).ok()),
        // Doubles that an integer cannot hold are refused, its limits included.
        Value::Double(n) => int("int", (n.abs() < 9.223_372_036_854_775e18).then_some(*n as i64)),
        Value::String(text) => match text.parse() {
            Ok(n) => Ok(Value::Int(n)),
            Err(_) => fail(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")),
        },
        Value::Timestamp(time) => Ok(Value::Int(time.as_second())),
        Value::Duration(n) => Ok(Value::Int(*n)),
        _ => return None,
    })
}

fn to_uint<'a>(of: &Value<'a>) -> Option<Result<Value<'a>, Error>> {
    Some(match of {
        Value::Uint(n) => Ok(Value::Uint(*n)),
        Value::Int(n) => uint(u64::try_from(*n).ok()),
        Value::Double(n) => uint((*n >= 0.0 && *n < 1.844_674_407_370_955e19).then_some(*n as u64)),
        Value::String(text) => match text.parse() {
            Ok(n) => Ok(Value::Uint(n)),
            Err(_) => fail(format!("strconv.ParseUint: parsing {text:?}: invalid syntax")),
        },
        _ => return None,
    })
}

fn to_double<'a>(of: &Value<'a>) -> Option<Result<Value<'a>, Error>> {
    Some(match of {
        Value::Double(n) => Ok(Value::Double(*n)),
        Value::Int(n) => Ok(Value::Double(*n as f64)),
        Value::Uint(n) => Ok(Value::Double(*n as f64)),
        Value::String(text) => match text.parse() {
            Ok(n) => Ok(Value::Double(n)),
            Err(_) => fail(format!("strconv.ParseFloat: parsing {text:?}: invalid syntax")),
        },
        _ => return None,
    })
}

fn quantities<'a>(environment: &Environment, name: &str, args: &[Value<'a>]) -> Option<Result<Value<'a>, Error>> {
    let added = |a: i128, b: Option<i128>, sign: i128| {
        let sum = b.and_then(|b| b.checked_mul(sign)).and_then(|b| a.checked_add(b));
        sum.map_or_else(|| overflow(name), |n| Ok(Value::Quantity(n)))
    };
    Some(match (name, args) {
        ("quantity", [Value::String(text)]) => (environment.quantity)(text).map(Value::Quantity).map_err(Error::Failed),
        ("isQuantity", [Value::String(text)]) => Ok(Value::Bool((environment.quantity)(text).is_ok())),
        ("sign", [Value::Quantity(n)]) => Ok(Value::Int(n.signum() as i64)),
        ("isInteger", [Value::Quantity(n)]) => Ok(Value::Bool(n % NANO == 0 && i64::try_from(n / NANO).is_ok())),
        ("asInteger", [Value::Quantity(n)]) => match i64::try_from(n / NANO) {
            Ok(whole) if n % NANO == 0 => Ok(Value::Int(whole)),
            _ => fail("cannot convert value to integer"),
        },
        ("asApproximateFloat", [Value::Quantity(n)]) => Ok(Value::Double(*n as f64 / 1e9)),
        ("isGreaterThan", [Value::Quantity(a), Value::Quantity(b)]) => Ok(Value::Bool(a > b)),
        ("isLessThan", [Value::Quantity(a), Value::Quantity(b)]) => Ok(Value::Bool(a < b)),
        ("compareTo", [Value::Quantity(a), Value::Quantity(b)]) => Ok(Value::Int(a.cmp(b) as i64)),
        ("add", [Value::Quantity(a), Value::Quantity(b)]) => added(*a, Some(*b), 1),
        ("add", [Value::Quantity(a), Value::Int(b)]) => added(*a, i128::from(*b).checked_mul(NANO), 1),
        ("sub", [Value::Quantity(a), Value::Quantity(b)]) => added(*a, Some(*b), -1),
        ("sub", [Value::Quantity(a), Value::Int(b)]) => added(*a, i128::from(*b).checked_mul(NANO), -1),
        _ => return None,
    })
}
