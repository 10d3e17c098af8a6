//! The parser. Nesting is bounded, so no expression exhausts the stack.
//!
//! Source: <https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax>; places and messages are cel-go's.

use crate::Issue;
use crate::ast::{Expr, Field, Fold, Kind, Literal, Macro, Select};
use crate::token::{Token, What, tokens};
use crate::types::RESERVED;

/// How deep expressions may be nested, as in cel-go.
const MAX_DEPTH: usize = 250;
/// How long an expression may be, in characters, as in cel-go.
const MAX_LENGTH: usize = 100_000;

/// What the parser of cel-go says that it expected where an operand is missing.
const OPERAND: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, \
                       BYTES, IDENTIFIER}";

/// First words of the names of functions, which are no variables.
const NAMESPACES: [&str; 6] = ["sets", "optional", "format", "strings", "ip", "jsonpatch"];

/// Binary operators, from those that bind least; those of a line bind alike.
const LEVELS: [&[&str]; 5] =
    [&["||"], &["&&"], &["==", "!=", "<", "<=", ">", ">=", "in"], &["+", "-"], &["*", "/", "%"]];
/// The first level that is not of `||` and `&&`.
const LOGIC: usize = 2;

/// Parses an expression.
pub(crate) fn parse(source: &str) -> Result<Expr, Issue> {
    let length = source.chars().count();
    if length > MAX_LENGTH {
        let message = format!("expression code point size exceeds limit: size: {length}, limit {MAX_LENGTH}");
        return Err(Issue::new(0, message));
    }
    let mut parser = Parser { tokens: tokens(source)?, next: 0, depth: 0, source };
    let expr = parser.expr()?;
    match parser.peek() {
        What::End => Ok(expr),
        _ => Err(parser.mismatched("<EOF>")),
    }
}

struct Parser<'a> {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
    source: &'a str,
}

/// The name of an operator as a function.
fn function(symbol: &str) -> String {
    if symbol == "in" { "@in".to_owned() } else { format!("_{symbol}_") }
}

impl Parser<'_> {
    fn peek(&self) -> &What {
        &self.tokens[self.next].what
    }

    fn at(&self) -> usize {
        self.tokens[self.next].at
    }

    /// Takes a symbol if it comes next; returns where it stands.
    fn take(&mut self, symbol: &str) -> Option<usize> {
        let at = self.at();
        let is = matches!(self.peek(), What::Symbol(s) if *s == symbol);
        is.then(|| {
            self.next += 1;
            at
        })
    }

    fn need(&mut self, symbol: &str) -> Result<usize, Issue> {
        self.take(symbol).ok_or_else(|| self.mismatched(&format!("'{symbol}'")))
    }

    fn mismatched(&self, expected: &str) -> Issue {
        let token = &self.tokens[self.next];
        let text = if token.what == What::End { "<EOF>" } else { &self.source[token.at..token.end] };
        Issue::new(token.at, format!("Syntax error: mismatched input '{text}' expecting {expected}"))
    }

    /// Goes one level deeper; the caller comes back up.
    fn deeper(&mut self, levels: usize) -> Result<(), Issue> {
        self.depth += levels;
        if self.depth > MAX_DEPTH {
            return Err(Issue::new(self.at(), format!("expression recursion limit exceeded: {MAX_DEPTH}")));
        }
        Ok(())
    }

    fn expr(&mut self) -> Result<Expr, Issue> {
        self.deeper(1)?;
        let condition = self.binary(0)?;
        let expr = match self.take("?") {
            None => condition,
            Some(at) => {
                let yes = self.binary(0)?;
                self.need(":")?;
                let no = self.expr()?;
                call(at, "_?_:_", vec![condition, yes, no])
            }
        };
        self.depth -= 1;
        Ok(expr)
    }

    /// Operands of operators that bind at least as much as `least`.
    fn binary(&mut self, least: usize) -> Result<Expr, Issue> {
        let mut left = self.unary()?;
        let mut levels = 0;
        while let What::Symbol(symbol) = *self.peek()
            && let Some(level) = LEVELS.iter().position(|symbols| symbols.contains(&symbol))
            && level >= least
        {
            let at = self.at();
            self.next += 1;
            self.deeper(1)?;
            levels += 1;
            let right = self.binary(level + 1)?;
            left = self.joined(left, at, symbol, level, right, &mut levels);
        }
        self.depth -= levels;
        Ok(left)
    }

    fn joined(&mut self, left: Expr, at: usize, symbol: &str, level: usize, right: Expr, levels: &mut usize) -> Expr {
        match left.kind {
            // As many operands as there are beside each other are one level of nesting.
            Kind::Logic { and, mut operands } if level < LOGIC && and == (symbol == "&&") => {
                self.depth -= 1;
                *levels -= 1;
                operands.push(right);
                Expr { at: left.at, kind: Kind::Logic { and, operands } }
            }
            kind if level < LOGIC => {
                let operands = vec![Expr { at: left.at, kind }, right];
                Expr { at, kind: Kind::Logic { and: symbol == "&&", operands } }
            }
            kind => call(at, &function(symbol), vec![Expr { at: left.at, kind }, right]),
        }
    }

    fn unary(&mut self) -> Result<Expr, Issue> {
        if matches!(self.peek(), What::Symbol("!" | "-")) {
            return self.sign();
        }
        let primary = self.primary()?;
        self.members(primary)
    }

    fn sign(&mut self) -> Result<Expr, Issue> {
        let at = self.at();
        if self.take("!").is_some() {
            self.deeper(1)?;
            let operand = self.unary()?;
            self.depth -= 1;
            return Ok(call(at, "!_", vec![operand]));
        }
        self.need("-")?;
        let negative = match self.peek() {
            What::Literal(Literal::Int(i64::MIN)) => Some(Literal::Int(i64::MIN)),
            What::Literal(Literal::Int(n)) => Some(Literal::Int(-n)),
            What::Literal(Literal::Double(n)) => Some(Literal::Double(-n)),
            _ => None,
        };
        if let Some(negative) = negative {
            self.next += 1;
            return self.members(Expr { at, kind: Kind::Literal(negative) });
        }
        self.deeper(1)?;
        let operand = self.unary()?;
        self.depth -= 1;
        Ok(call(at, "-_", vec![operand]))
    }

    /// What follows a value: fields, indices, methods.
    fn members(&mut self, mut expr: Expr) -> Result<Expr, Issue> {
        let mut levels = 0;
        while matches!(self.peek(), What::Symbol("." | ".?" | "[" | "[?" | "{")) {
            expr = match self.peek() {
                What::Symbol("{") => match dotted(&expr) {
                    Some(name) => self.object(name)?,
                    None => break,
                },
                _ => self.member(expr)?,
            };
            self.deeper(1)?;
            levels += 1;
        }
        self.depth -= levels;
        Ok(expr)
    }

    fn member(&mut self, of: Expr) -> Result<Expr, Issue> {
        let at = self.at();
        let What::Symbol(symbol) = *self.peek() else { return Ok(of) };
        self.next += 1;
        if let "[" | "[?" = symbol {
            let index = self.expr()?;
            self.need("]")?;
            return Ok(call(at, if symbol == "[" { "_[_]" } else { "_[?_]" }, vec![of, index]));
        }
        let name_at = self.at();
        let field = self.ident()?;
        if symbol == "."
            && let Some(open) = self.take("(")
        {
            let args = self.args(")")?;
            return self.method(open, name_at, of, field, args);
        }
        let how = if symbol == "." { Select::Field } else { Select::Optional };
        Ok(Expr { at, kind: Kind::Select { operand: Box::new(of), field, how } })
    }

    fn ident(&mut self) -> Result<String, Issue> {
        let What::Ident(name) = self.peek() else { return Err(self.mismatched("IDENTIFIER")) };
        let name = name.clone();
        self.next += 1;
        Ok(name)
    }

    fn args(&mut self, close: &str) -> Result<Vec<Expr>, Issue> {
        let mut args = Vec::new();
        if self.take(close).is_some() {
            return Ok(args);
        }
        loop {
            args.push(self.expr()?);
            if self.take(",").is_none() {
                self.need(close)?;
                return Ok(args);
            }
        }
    }

    fn primary(&mut self) -> Result<Expr, Issue> {
        let at = self.at();
        match *self.peek() {
            What::Symbol("(") => {
                self.next += 1;
                let expr = self.expr()?;
                self.need(")")?;
                Ok(expr)
            }
            What::Symbol("[") => {
                self.next += 1;
                self.list(at)
            }
            What::Symbol("[?") => {
                // `[?x]`: the question mark belongs to the element.
                self.tokens[self.next].what = What::Symbol("?");
                self.list(at)
            }
            What::Symbol("{") => {
                self.next += 1;
                self.map(at)
            }
            What::Literal(_) => self.literal(at),
            What::Symbol(_) | What::Ident(_) | What::End => self.name(),
        }
    }

    fn literal(&mut self, at: usize) -> Result<Expr, Issue> {
        let What::Literal(literal) = self.peek().clone() else { return Err(self.mismatched(OPERAND)) };
        if literal == Literal::Int(i64::MIN) {
            return Err(Issue::new(at, "invalid int literal".to_owned()));
        }
        self.next += 1;
        Ok(Expr { at, kind: Kind::Literal(literal) })
    }

    /// A variable or a function.
    fn name(&mut self) -> Result<Expr, Issue> {
        // A leading dot names what is not in any container; there are no containers.
        self.take(".");
        if !matches!(self.peek(), What::Ident(_)) {
            return Err(self.mismatched(OPERAND));
        }
        let at = self.at();
        let name = self.ident()?;
        if RESERVED.contains(&name.as_str()) {
            return Err(Issue::new(at, format!("reserved identifier: {name}")));
        }
        let Some(open) = self.take("(") else { return Ok(Expr { at, kind: Kind::Ident(name) }) };
        let args = self.args(")")?;
        if name == "has" && args.len() == 1 {
            return has(open, args);
        }
        Ok(call(open, &name, args))
    }

    fn list(&mut self, at: usize) -> Result<Expr, Issue> {
        let mut items = Vec::new();
        while self.take("]").is_none() {
            let optional = self.take("?").is_some();
            items.push((optional, self.expr()?));
            if self.take(",").is_none() {
                self.need("]")?;
                break;
            }
        }
        Ok(Expr { at, kind: Kind::List(items) })
    }

    fn map(&mut self, at: usize) -> Result<Expr, Issue> {
        let mut entries = Vec::new();
        while self.take("}").is_none() {
            let optional = self.take("?").is_some();
            let key = self.binary(0)?;
            self.need(":")?;
            entries.push((optional, key, self.expr()?));
            if self.take(",").is_none() {
                self.need("}")?;
                break;
            }
        }
        Ok(Expr { at, kind: Kind::Map(entries) })
    }

    fn object(&mut self, name: String) -> Result<Expr, Issue> {
        let at = self.need("{")?;
        let mut fields = Vec::new();
        while self.take("}").is_none() {
            let optional = self.take("?").is_some();
            let at = self.at();
            let name = self.ident()?;
            self.need(":")?;
            fields.push(Field { at, name, optional, value: self.expr()? });
            if self.take(",").is_none() {
                self.need("}")?;
                break;
            }
        }
        Ok(Expr { at, kind: Kind::Object { name, fields } })
    }

    /// A method, a macro, or a function whose name has a dot.
    fn method(
        &mut self,
        at: usize,
        name_at: usize,
        target: Expr,
        name: String,
        mut args: Vec<Expr>,
    ) -> Result<Expr, Issue> {
        if let Kind::Ident(namespace) = &target.kind
            && NAMESPACES.contains(&namespace.as_str())
        {
            return Ok(call(at, &format!("{namespace}.{name}"), args));
        }
        // The number of variables, whether there is a filter among the arguments, and what is made.
        let (vars, filter, fold) = match (name.as_str(), args.len()) {
            ("all", 2) => (1, false, Fold::All),
            ("all", 3) => (2, false, Fold::All),
            ("exists", 2) => (1, false, Fold::Exists),
            ("exists", 3) => (2, false, Fold::Exists),
            ("exists_one" | "existsOne", 2) => (1, false, Fold::ExistsOne),
            ("exists_one" | "existsOne", 3) => (2, false, Fold::ExistsOne),
            ("map", 2) => (1, false, Fold::List),
            ("map", 3) => (1, true, Fold::List),
            ("filter", 2) => (1, true, Fold::List),
            ("transformList", 3) => (2, false, Fold::List),
            ("transformList", 4) => (2, true, Fold::List),
            ("transformMap", 3) => (2, false, Fold::Map),
            ("transformMap", 4) => (2, true, Fold::Map),
            ("optMap", 2) => (1, false, Fold::Optional { flat: false }),
            ("optFlatMap", 2) => (1, false, Fold::Optional { flat: true }),
            _ => {
                let kind = Kind::Call { function: name, target: Some(Box::new(target)), args };
                return Ok(Expr { at, kind });
            }
        };
        let mut names = Vec::new();
        let rest = args.split_off(vars);
        for arg in args {
            let Kind::Ident(name) = arg.kind else {
                return Err(Issue::new(arg.at, "argument must be a simple name".to_owned()));
            };
            names.push(name);
        }
        if names.len() == 2 && names[0] == names[1] {
            return Err(Issue::new(name_at, "duplicate variable name".to_owned()));
        }
        let mut rest = rest.into_iter();
        let filter = if filter { rest.next() } else { None };
        let body = rest.next();
        Ok(Expr { at, kind: Kind::Macro(Box::new(Macro { fold, range: target, vars: names, filter, body })) })
    }
}

/// The name that plain words with dots between them are.
fn dotted(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        Kind::Select { operand, field, how: Select::Field } => Some(format!("{}.{field}", dotted(operand)?)),
        _ => None,
    }
}

fn call(at: usize, function: &str, args: Vec<Expr>) -> Expr {
    Expr { at, kind: Kind::Call { function: function.to_owned(), target: None, args } }
}

fn has(at: usize, mut args: Vec<Expr>) -> Result<Expr, Issue> {
    match args.pop() {
        Some(Expr { kind: Kind::Select { operand, field, how: Select::Field }, .. }) => {
            Ok(Expr { at, kind: Kind::Select { operand, field, how: Select::Test } })
        }
        _ => Err(Issue::new(at, "invalid argument to has() macro".to_owned())),
    }
}
