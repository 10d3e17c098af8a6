//! Lists and sets.

use std::cmp::Ordering;

use super::tenth;
use crate::eval::Eval;
use crate::types::Identity;
use crate::value::{Error, Value, fail, no_overload};

/// Calls a function of this file.
pub(super) fn call<'a>(eval: &mut Eval<'_, 'a>, name: &str, args: &[Value<'a>]) -> Option<Result<Value<'a>, Error>> {
    let items = args.first()?.items()?;
    let mut looked = 0;
    let result = match (name, args) {
        ("_+_", [a, b]) => {
            let others = b.items()?;
            let work = match a.identity() {
                Some(Identity::Value | Identity::Fields(_)) => (items.len() as u64).saturating_mul(others.len() as u64),
                Some(Identity::Place) | None => 0,
            };
            if let Err(why) = eval.charge(tenth(work)) {
                return Some(Err(why));
            }
            Ok(Value::list(joined(a, &items, &others, &mut looked)))
        }
        ("isSorted", [_]) => {
            let mut pairs = items.windows(2).map(|pair| pair[0].order(&pair[1]));
            Ok(Value::Bool(pairs.all(|order| order.is_some_and(Ordering::is_le))))
        }
        ("sum", [_]) => sum(eval, &items),
        ("min" | "max", [_]) => {
            let wanted = if name == "min" { Ordering::Less } else { Ordering::Greater };
            let mut rest = items.iter();
            let Some(mut best) = rest.next() else { return Some(fail(format!("{name} called on empty list"))) };
            for item in rest {
                match item.order(best) {
                    Some(order) if order == wanted => best = item,
                    Some(_) => {}
                    None => return Some(no_overload()),
                }
            }
            Ok(best.clone())
        }
        ("indexOf", [_, wanted]) => Ok(place(items.iter().position(|item| item.equals(wanted, &mut looked)))),
        ("lastIndexOf", [_, wanted]) => Ok(place(items.iter().rposition(|item| item.equals(wanted, &mut looked)))),
        ("sets.contains" | "sets.intersects" | "sets.equivalent", [_, other]) => {
            let others = other.items()?;
            let mut has = |list: &[Value<'a>], wanted: &Value<'a>| list.iter().any(|i| i.equals(wanted, &mut looked));
            Ok(Value::Bool(match name {
                "sets.intersects" => others.iter().any(|wanted| has(&items, wanted)),
                "sets.contains" => others.iter().all(|wanted| has(&items, wanted)),
                _ => others.iter().all(|wanted| has(&items, wanted)) && items.iter().all(|wanted| has(&others, wanted)),
            }))
        }
        _ => return None,
    };
    Some(eval.charge(tenth(looked)).and(result))
}

fn place<'a>(at: Option<usize>) -> Value<'a> {
    Value::Int(at.map_or(-1, |n| n as i64))
}

/// Joins two lists. Items that are the same, by the identity of the first list, are there once; the second's win.
fn joined<'a>(a: &Value<'a>, items: &[Value<'a>], others: &[Value<'a>], looked: &mut u64) -> Vec<Value<'a>> {
    if let Some(Identity::Place) | None = a.identity() {
        return [items, others].concat();
    }
    let mut all = items.to_vec();
    let mut same = |one: &Value<'a>, other: &Value<'a>| match a.identity() {
        Some(Identity::Value) => one.equals(other, looked),
        Some(Identity::Fields(names)) => {
            names.iter().all(|name| match (json_field(one, name), json_field(other, name)) {
                (Some(one), Some(other)) => one.equals(&other, looked),
                (one, other) => one.is_none() && other.is_none(),
            })
        }
        Some(Identity::Place) | None => false,
    };
    for other in others {
        match all[..items.len()].iter().position(|one| same(one, other)) {
            Some(at) => all[at] = other.clone(),
            None => all.push(other.clone()),
        }
    }
    all
}

fn json_field<'a>(of: &Value<'a>, name: &str) -> Option<Value<'a>> {
    let name = crate::types::escape(name)?;
    of.field(&name).ok().flatten()
}

fn sum<'a>(eval: &Eval<'_, 'a>, items: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let Some(first) = items.first() else { return Ok(Value::Int(0)) };
    let mut total = first.clone();
    for item in &items[1..] {
        let pair = [total, item.clone()];
        let added = super::numbers::call(eval.environment, "_+_", &pair).or_else(|| super::time::call("_+_", &pair));
        total = added.unwrap_or_else(no_overload)?;
    }
    Ok(total)
}
