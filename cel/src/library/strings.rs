//! Text, bytes, formats. Places are counted in characters.

use std::fmt::Write as _;

use super::{tenth, time};
use crate::eval::Eval;
use crate::value::{Error, Value, fail, no_overload};

/// Calls a function of this file.
pub(super) fn call<'a>(eval: &mut Eval<'_, 'a>, name: &str, args: &[Value<'a>]) -> Option<Result<Value<'a>, Error>> {
    let bool = |is| Ok(Value::Bool(is));
    Some(match (name, args) {
        ("_+_", [Value::String(a), Value::String(b)]) => Ok(Value::text(format!("{a}{b}"))),
        ("_+_", [Value::Bytes(a), Value::Bytes(b)]) => Ok(Value::Bytes([&**a, &**b].concat().into())),
        ("string", [of]) => string(of),
        ("jsonpatch.escapeKey", [Value::String(key)]) => Ok(Value::text(key.replace('~', "~0").replace('/', "~1"))),
        ("bytes", [Value::String(text)]) => Ok(Value::Bytes(text.as_bytes().into())),
        ("bytes", [Value::Bytes(bytes)]) => Ok(Value::Bytes(bytes.clone())),
        ("contains", [Value::String(text), Value::String(part)]) => bool(text.contains(&**part)),
        ("startsWith", [Value::String(text), Value::String(part)]) => bool(text.starts_with(&**part)),
        ("endsWith", [Value::String(text), Value::String(part)]) => bool(text.ends_with(&**part)),
        ("matches", [Value::String(text), Value::String(pattern)]) => {
            eval.regexes.with(pattern, |regex| Value::Bool(regex.is_match(text)))
        }
        ("find", [Value::String(text), Value::String(pattern)]) => {
            eval.regexes.with(pattern, |regex| Value::text(regex.find(text).map_or("", |found| found.as_str())))
        }
        ("findAll", [Value::String(text), Value::String(pattern), rest @ ..]) => {
            let most = match rest {
                [Value::Int(n)] if *n >= 0 => *n as usize,
                _ => usize::MAX,
            };
            eval.regexes.with(pattern, |regex| {
                Value::list(regex.find_iter(text).take(most).map(|found| Value::text(found.as_str())).collect())
            })
        }
        ("charAt", [Value::String(text), Value::Int(at)]) => {
            let length = text.chars().count();
            match usize::try_from(*at) {
                Ok(at) if at <= length => Ok(Value::text(text.chars().nth(at).map(String::from).unwrap_or_default())),
                _ => fail(format!("index out of range: {at}")),
            }
        }
        ("lowerAscii", [Value::String(text)]) => Ok(Value::text(text.to_ascii_lowercase())),
        ("upperAscii", [Value::String(text)]) => Ok(Value::text(text.to_ascii_uppercase())),
        ("trim", [Value::String(text)]) => Ok(Value::text(text.trim())),
        ("substring", [Value::String(text), Value::Int(from)]) => substring(text, *from, None),
        ("substring", [Value::String(text), Value::Int(from), Value::Int(to)]) => substring(text, *from, Some(*to)),
        ("indexOf", [Value::String(text), Value::String(part), rest @ ..]) => index(text, part, rest, false),
        ("lastIndexOf", [Value::String(text), Value::String(part), rest @ ..]) => index(text, part, rest, true),
        ("replace", [Value::String(text), Value::String(from), Value::String(to), rest @ ..]) => {
            let most = match rest {
                [Value::Int(n)] if *n >= 0 => *n as usize,
                _ => usize::MAX,
            };
            let found = text.matches(&**from).count().min(most);
            if let Err(why) = eval.charge(tenth((found as u64).saturating_mul(to.len() as u64))) {
                return Some(Err(why));
            }
            Ok(Value::text(text.replacen(&**from, to, found)))
        }
        ("split", [Value::String(text), Value::String(by), rest @ ..]) => {
            let most = match rest {
                [Value::Int(n)] => *n,
                _ => -1,
            };
            Ok(Value::list(split(text, by, most).into_iter().map(Value::text).collect()))
        }
        ("join", [list, rest @ ..]) => {
            let by = match rest {
                [Value::String(by)] => &**by,
                _ => "",
            };
            join(eval, list, by)
        }
        ("strings.quote", [Value::String(text)]) => Ok(Value::text(quoted(text))),
        ("format", [Value::String(pattern), list]) => {
            let formatted = format(pattern, &list.items()?);
            let cost = formatted.as_ref().map_or(0, |text| tenth(text.len() as u64));
            return Some(eval.charge(cost).and(formatted.map(Value::text)));
        }
        (name, []) => Ok(Value::Format(named(name)?)),
        ("validate", [Value::Format(format), Value::String(text)]) => {
            Ok(match (eval.environment.format)(format, text) {
                Ok(()) => Value::Optional(None),
                Err(why) => Value::some(Value::list(vec![Value::text(why)])),
            })
        }
        _ => return None,
    })
}

/// The formats that `format.NAME()` knows.
fn named(function: &str) -> Option<&'static str> {
    let name = function.strip_prefix("format.")?;
    crate::FORMATS.into_iter().find(|known| *known == name)
}

fn string<'a>(of: &Value<'a>) -> Result<Value<'a>, Error> {
    Ok(match of {
        Value::String(text) => Value::String(text.clone()),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::text(text),
            Err(_) => return fail("invalid UTF-8 in bytes, cannot convert to string"),
        },
        of => match shown(of) {
            Some(text) => Value::text(text),
            None => return no_overload(),
        },
    })
}

/// A scalar as text.
fn shown(of: &Value<'_>) -> Option<String> {
    Some(match of {
        Value::String(text) => text.clone().into_owned(),
        Value::Bool(is) => is.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(n) => n.to_string(),
        Value::Timestamp(time) => time.to_string(),
        Value::Duration(nanos) => time::show(*nanos),
        _ => return None,
    })
}

/// The byte at which a character begins, or the end.
fn byte_at(text: &str, place: usize) -> Option<usize> {
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(place)
}

fn substring<'a>(text: &str, from: i64, to: Option<i64>) -> Result<Value<'a>, Error> {
    let place = |n: i64| usize::try_from(n).ok().and_then(|n| byte_at(text, n));
    let Some(start) = place(from) else { return fail(format!("index out of range: {from}")) };
    let end = match to {
        None => text.len(),
        Some(to) => match place(to) {
            Some(end) => end,
            None => return fail(format!("index out of range: {to}")),
        },
    };
    match text.get(start..end) {
        Some(part) => Ok(Value::text(part)),
        None => fail(format!("invalid substring range. start: {from}, end: {}", to.unwrap_or_default())),
    }
}

/// The first or last place of a part, looked for from an offset onwards or backwards.
fn index<'a>(text: &str, part: &str, rest: &[Value<'a>], last: bool) -> Result<Value<'a>, Error> {
    let (from, to) = match rest {
        [] => (0, text.len()),
        [Value::Int(offset)] => match usize::try_from(*offset).ok().and_then(|n| byte_at(text, n)) {
            Some(at) if last => (0, (at + part.len()).min(text.len())),
            Some(at) => (at, text.len()),
            None => return fail(format!("index out of range: {offset}")),
        },
        _ => return no_overload(),
    };
    // The end may be inside of a character, since the part is another text.
    let to = (to..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let within = &text[from..to];
    let found = if last { within.rfind(part) } else { within.find(part) };
    Ok(Value::Int(found.map_or(-1, |at| text[..from + at].chars().count() as i64)))
}

/// Splits as Go's `strings.SplitN` does: at most so many parts, all if it is negative.
fn split(text: &str, by: &str, most: i64) -> Vec<String> {
    let most = match usize::try_from(most) {
        Ok(0) => return Vec::new(),
        Ok(most) => most,
        Err(_) => usize::MAX,
    };
    if by.is_empty() {
        let characters = text.chars().count();
        let apart = characters.min(most).saturating_sub(usize::from(most < characters));
        let at = byte_at(text, apart).unwrap_or(text.len());
        let rest = (at < text.len()).then(|| text[at..].to_owned());
        return text[..at].chars().map(String::from).chain(rest).collect();
    }
    text.splitn(most, by).map(str::to_owned).collect()
}

fn join<'a>(eval: &mut Eval<'_, 'a>, list: &Value<'a>, by: &str) -> Result<Value<'a>, Error> {
    let Some(items) = list.items() else { return no_overload() };
    let mut parts = Vec::with_capacity(items.len());
    for item in items.iter() {
        let Value::String(text) = item else { return no_overload() };
        parts.push(&**text);
    }
    let size: usize = parts.iter().map(|part| part.len() + by.len()).sum();
    eval.charge(tenth(2 * size as u64))?;
    Ok(Value::text(parts.join(by)))
}

fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out += "\\a",
            '\u{8}' => out += "\\b",
            '\u{c}' => out += "\\f",
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            '\u{b}' => out += "\\v",
            '\\' => out += "\\\\",
            '"' => out += "\\\"",
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `'%s is %d'.format(list)`.
fn format(pattern: &str, items: &[Value<'_>]) -> Result<String, Error> {
    let mut out = String::new();
    let mut items = items.iter();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('%') {
        out += before;
        if let Some(after) = after.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (precision, after) = match after.strip_prefix('.') {
            None => (6, after),
            Some(after) => {
                let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                let Some(precision) = after[..end].parse().ok().filter(|n: &usize| *n <= 1000) else {
                    return fail("could not parse formatting clause: invalid precision");
                };
                (precision, &after[end..])
            }
        };
        let Some(verb) = after.chars().next() else { return fail("unexpected end of format string") };
        rest = &after[verb.len_utf8()..];
        let Some(item) = items.next() else {
            return fail("index out of range: the list has fewer items than the format has clauses");
        };
        clause(&mut out, verb, precision, item)?;
    }
    Ok(out + rest)
}

fn clause(out: &mut String, verb: char, precision: usize, item: &Value<'_>) -> Result<(), Error> {
    let wrong = || {
        let what = item.type_name();
        Error::Failed(format!("error during formatting: no formatting function for %{verb} and type {what}"))
    };
    match (verb, item) {
        ('s', item) => nested(out, item).ok_or_else(wrong)?,
        ('d', Value::Int(n)) => *out += &n.to_string(),
        ('d', Value::Uint(n)) => *out += &n.to_string(),
        ('d', Value::Double(n)) if !n.is_finite() => *out += &n.to_string(),
        ('f', Value::Double(n)) => write!(out, "{n:.precision$}").expect("a string takes all"),
        ('f', Value::Int(n)) => write!(out, "{:.precision$}", *n as f64).expect("a string takes all"),
        ('x', Value::Int(n)) if *n < 0 => write!(out, "-{:x}", n.unsigned_abs()).expect("a string takes all"),
        ('x', Value::Int(n)) => write!(out, "{n:x}").expect("a string takes all"),
        ('x', Value::Uint(n)) => write!(out, "{n:x}").expect("a string takes all"),
        ('x', Value::String(text)) => text.bytes().for_each(|b| *out += &format!("{b:02x}")),
        ('X', Value::Int(n)) if *n >= 0 => write!(out, "{n:X}").expect("a string takes all"),
        ('X', Value::Uint(n)) => write!(out, "{n:X}").expect("a string takes all"),
        ('o', Value::Int(n)) if *n >= 0 => write!(out, "{n:o}").expect("a string takes all"),
        ('o', Value::Uint(n)) => write!(out, "{n:o}").expect("a string takes all"),
        ('b', Value::Bool(is)) => *out += if *is { "1" } else { "0" },
        ('b', Value::Int(n)) if *n >= 0 => write!(out, "{n:b}").expect("a string takes all"),
        ('b', Value::Uint(n)) => write!(out, "{n:b}").expect("a string takes all"),
        _ => return Err(wrong()),
    }
    Ok(())
}

/// A value as `%s` shows it, lists and maps with their items.
fn nested(out: &mut String, item: &Value<'_>) -> Option<()> {
    if let Some(items) = item.items() {
        out.push('[');
        for (n, item) in items.iter().enumerate() {
            *out += if n > 0 { ", " } else { "" };
            nested(out, item)?;
        }
        out.push(']');
    } else if let Some(entries) = item.entries() {
        out.push('{');
        for (n, (key, value)) in entries.iter().enumerate() {
            *out += if n > 0 { ", " } else { "" };
            *out += &format!("{key}: ");
            nested(out, value)?;
        }
        out.push('}');
    } else {
        match item {
            Value::Null => *out += "null",
            Value::Type(name) => *out += name,
            Value::Bytes(bytes) => *out += &String::from_utf8_lossy(bytes),
            item => *out += &shown(item)?,
        }
    }
    Some(())
}
