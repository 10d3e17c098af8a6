//! The words of an expression.

use crate::Issue;
use crate::ast::Literal;

/// A word, where it begins and where it ends.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Token {
    pub(crate) at: usize,
    pub(crate) end: usize,
    pub(crate) what: What,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum What {
    Ident(String),
    Literal(Literal),
    Symbol(&'static str),
    End,
}

/// Longer ones first.
const SYMBOLS: [&str; 28] = [
    "&&", "||", "==", "!=", "<=", ">=", "[?", ".?", "+", "-", "*", "/", "%", "<", ">", "!", "?", ":", ",", ".", "(",
    ")", "[", "]", "{", "}", "=", "|",
];

/// Takes an expression apart.
pub(crate) fn tokens(source: &str) -> Result<Vec<Token>, Issue> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        let rest = &source[at..];
        let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']).len();
        if blank > 0 {
            at += blank;
            continue;
        }
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        let Some(first) = rest.chars().next() else {
            tokens.push(Token { at, end: at, what: What::End });
            return Ok(tokens);
        };
        let (length, what) = if let Some(found) = text(rest, at)? {
            found
        } else if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            number(rest, at)?
        } else if first.is_ascii_alphabetic() || first == '_' {
            let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let what = match &rest[..length] {
                "true" => What::Literal(Literal::Bool(true)),
                "false" => What::Literal(Literal::Bool(false)),
                "null" => What::Literal(Literal::Null),
                "in" => What::Symbol("in"),
                name => What::Ident(name.to_owned()),
            };
            (length, what)
        } else {
            let Some(symbol) = SYMBOLS.into_iter().find(|s| rest.starts_with(s)) else {
                return Err(Issue::new(at, format!("Syntax error: token recognition error at: '{first}'")));
            };
            (symbol.len(), What::Symbol(symbol))
        };
        tokens.push(Token { at, end: at + length, what });
        at += length;
    }
}

fn number(rest: &str, at: usize) -> Result<(usize, What), Issue> {
    if let Some(hex) = rest.strip_prefix("0x").or(rest.strip_prefix("0X")) {
        let digits = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        return integer(&rest[2..2 + digits], 16, hex[digits..].starts_with(['u', 'U']), 2 + digits, at);
    }
    let is_digit = |c: char| c.is_ascii_digit();
    let mut end = rest.find(|c| !is_digit(c)).unwrap_or(rest.len());
    let mut double = false;
    if rest[end..].starts_with('.') && rest[end + 1..].starts_with(is_digit) {
        double = true;
        end += 1;
        end += rest[end..].find(|c| !is_digit(c)).unwrap_or(rest.len() - end);
    }
    if let Some(exponent) = rest[end..].strip_prefix(['e', 'E']) {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if digits.starts_with(is_digit) {
            double = true;
            let length = digits.find(|c| !is_digit(c)).unwrap_or(digits.len());
            end = rest.len() - digits.len() + length;
        }
    }
    if double {
        let number = rest[..end].parse().map_err(|_| Issue::new(at, "invalid double literal".to_owned()))?;
        return Ok((end, What::Literal(Literal::Double(number))));
    }
    integer(&rest[..end], 10, rest[end..].starts_with(['u', 'U']), end, at)
}

fn integer(digits: &str, radix: u32, unsigned: bool, end: usize, at: usize) -> Result<(usize, What), Issue> {
    let Ok(number) = u64::from_str_radix(digits, radix) else {
        return Err(Issue::new(at, format!("invalid {} literal", if unsigned { "uint" } else { "int" })));
    };
    if unsigned {
        return Ok((end + 1, What::Literal(Literal::Uint(number))));
    }
    // The least integer is written as a minus and a number that is one too large; the parser takes both together.
    match i64::try_from(number) {
        Ok(number) => Ok((end, What::Literal(Literal::Int(number)))),
        Err(_) if number == 1 << 63 => Ok((end, What::Literal(Literal::Int(i64::MIN)))),
        Err(_) => Err(Issue::new(at, "invalid int literal".to_owned())),
    }
}

/// A string or bytes, if one begins here.
fn text(rest: &str, at: usize) -> Result<Option<(usize, What)>, Issue> {
    let quote = rest.bytes().take(3).position(|b| matches!(b, b'"' | b'\''));
    let Some(quote) = quote else { return Ok(None) };
    let prefix = rest[..quote].to_ascii_lowercase();
    if !matches!(prefix.as_str(), "" | "r" | "b" | "br" | "rb") {
        return Ok(None);
    }
    let (raw, bytes) = (prefix.contains('r'), prefix.contains('b'));
    let body = &rest[quote..];
    let one = &body[..1];
    let long = body.starts_with(&one.repeat(3));
    let mark = if long { one.repeat(3) } else { one.to_owned() };
    let unfinished = || Issue::new(at, format!("Syntax error: token recognition error at: '{}'", first_line(rest)));
    let mut out = Vec::new();
    let mut left = &body[mark.len()..];
    loop {
        if let Some(after) = left.strip_prefix(mark.as_str()) {
            let end = rest.len() - after.len();
            let what = if bytes {
                Literal::Bytes(out.into())
            } else {
                let text =
                    String::from_utf8(out).map_err(|_| Issue::new(at, "invalid UTF-8 in a string".to_owned()))?;
                Literal::String(text)
            };
            return Ok(Some((end, What::Literal(what))));
        }
        let Some(c) = left.chars().next() else { return Err(unfinished()) };
        if !long && matches!(c, '\n' | '\r') {
            return Err(unfinished());
        }
        if c == '\\' && !raw {
            left = unescape(left, bytes, &mut out).ok_or_else(unfinished)?;
            continue;
        }
        if c == '\\' {
            // In a raw string a backslash stands for itself, and a quote after it does not end the string.
            out.push(b'\\');
            left = &left[1..];
            let Some(next) = left.chars().next() else { return Err(unfinished()) };
            out.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
            left = &left[next.len_utf8()..];
            continue;
        }
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        left = &left[c.len_utf8()..];
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Takes an escape sequence; returns what follows it.
fn unescape<'a>(text: &'a str, bytes: bool, out: &mut Vec<u8>) -> Option<&'a str> {
    let c = text[1..].chars().next()?;
    let after = &text[1 + c.len_utf8()..];
    let code = |digits: usize, radix: u32, from: usize| {
        let number = u32::from_str_radix(text.get(from..from + digits)?, radix).ok()?;
        Some((number, &text[from + digits..]))
    };
    let plain = match c {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' | '\'' | '"' | '`' | '?' => c as u8,
        'x' | 'X' | 'u' | 'U' | '0'..='3' => {
            let (number, after) = match c {
                'x' | 'X' => code(2, 16, 2)?,
                'u' => code(4, 16, 2)?,
                'U' => code(8, 16, 2)?,
                _ => code(3, 8, 1)?,
            };
            if bytes && !matches!(c, 'u' | 'U') {
                out.push(u8::try_from(number).ok()?);
            } else {
                out.extend_from_slice(char::from_u32(number)?.encode_utf8(&mut [0; 4]).as_bytes());
            }
            return Some(after);
        }
        _ => return None,
    };
    out.push(plain);
    Some(after)
}
