//! Expressions, as the parser makes them.

use std::rc::Rc;

/// An expression and where it stands: a byte of the source.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Expr {
    pub(crate) at: usize,
    pub(crate) kind: Kind,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Kind {
    Literal(Literal),
    Ident(String),
    /// `operand.field`, or `has(operand.field)` if it is a test, or `operand.?field`.
    Select {
        operand: Box<Expr>,
        field: String,
        how: Select,
    },
    /// A function, a method or an operator.
    Call {
        function: String,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    /// Operands of `&&` (true) or `||`, and where the operators stand.
    Logic {
        and: bool,
        operands: Vec<Expr>,
    },
    /// Elements; those that are optional (`?x`) are there if they have a value.
    List(Vec<(bool, Expr)>),
    Map(Vec<(bool, Expr, Expr)>),
    /// An object of a named type: `Object.spec{replicas: 1}`.
    Object {
        name: String,
        fields: Vec<Field>,
    },
    Macro(Box<Macro>),
}

/// A field of an object that is made.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Field {
    pub(crate) at: usize,
    pub(crate) name: String,
    /// It is there if its value is (`?name: value`).
    pub(crate) optional: bool,
    pub(crate) value: Expr,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Select {
    Field,
    Test,
    Optional,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Rc<[u8]>),
}

/// A macro that evaluates expressions with variables of its own.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Macro {
    pub(crate) fold: Fold,
    pub(crate) range: Expr,
    /// The element, or index or key and element.
    pub(crate) vars: Vec<String>,
    pub(crate) filter: Option<Expr>,
    /// What is asked of each element, or made of it.
    pub(crate) body: Option<Expr>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fold {
    All,
    Exists,
    ExistsOne,
    /// `map` and `filter`, and `transformList`.
    List,
    /// `transformMap`.
    Map,
    /// `optMap`, and `optFlatMap` if it is flat.
    Optional {
        flat: bool,
    },
}
