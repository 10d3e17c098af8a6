//! Validation errors, with the texts of Kubernetes' `field.Error`.

use std::fmt;

/// The kinds of validation errors, named as the `reason`s of `metav1.StatusCause`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum ErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

impl ErrorKind {
    /// The `reason` of a `StatusCause`.
    pub fn reason(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "FieldValueNotFound",
            ErrorKind::Required => "FieldValueRequired",
            ErrorKind::Duplicate => "FieldValueDuplicate",
            ErrorKind::Invalid => "FieldValueInvalid",
            ErrorKind::NotSupported => "FieldValueNotSupported",
            ErrorKind::Forbidden => "FieldValueForbidden",
            ErrorKind::TooLong => "FieldValueTooLong",
            ErrorKind::TooMany => "FieldValueTooMany",
            ErrorKind::Internal => "InternalError",
            ErrorKind::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn words(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "Not found",
            ErrorKind::Required => "Required value",
            ErrorKind::Duplicate => "Duplicate value",
            ErrorKind::Invalid | ErrorKind::TypeInvalid => "Invalid value",
            ErrorKind::NotSupported => "Unsupported value",
            ErrorKind::Forbidden => "Forbidden",
            ErrorKind::TooLong => "Too long",
            ErrorKind::TooMany => "Too many",
            ErrorKind::Internal => "Internal error",
        }
    }
}

/// One error in one field, for example `spec.replicas: Invalid value: -1: must be greater than or equal to 0`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldError {
    /// The kind of error.
    pub kind: ErrorKind,
    /// Path of the field: `spec.containers[0].name`.
    pub field: String,
    /// The value as Kubernetes prints it (strings quoted); `None` if the message shows no value.
    pub value: Option<String>,
    /// The rule that the value breaks.
    pub detail: String,
}

impl FieldError {
    /// The value is not allowed.
    pub fn invalid(field: impl Into<String>, value: impl fmt::Debug, detail: impl Into<String>) -> FieldError {
        FieldError {
            kind: ErrorKind::Invalid,
            field: field.into(),
            value: Some(format!("{value:?}")),
            detail: detail.into(),
        }
    }

    /// A value must be given.
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> FieldError {
        FieldError { kind: ErrorKind::Required, field: field.into(), value: None, detail: detail.into() }
    }

    /// The value occurs twice.
    pub fn duplicate(field: impl Into<String>, value: impl fmt::Debug) -> FieldError {
        FieldError {
            kind: ErrorKind::Duplicate,
            field: field.into(),
            value: Some(format!("{value:?}")),
            detail: String::new(),
        }
    }

    /// The field must not be set, or must not be changed.
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> FieldError {
        FieldError { kind: ErrorKind::Forbidden, field: field.into(), value: None, detail: detail.into() }
    }

    /// The value is not one of a fixed set.
    pub fn not_supported(field: impl Into<String>, value: impl fmt::Debug, supported: &[&str]) -> FieldError {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        FieldError {
            kind: ErrorKind::NotSupported,
            field: field.into(),
            value: Some(format!("{value:?}")),
            detail: format!("supported values: {}", list.join(", ")),
        }
    }

    /// The referenced object or item does not exist.
    pub fn not_found(field: impl Into<String>, value: impl fmt::Debug) -> FieldError {
        FieldError {
            kind: ErrorKind::NotFound,
            field: field.into(),
            value: Some(format!("{value:?}")),
            detail: String::new(),
        }
    }

    /// The text is too long.
    pub fn too_long(field: impl Into<String>, max: usize) -> FieldError {
        FieldError {
            kind: ErrorKind::TooLong,
            field: field.into(),
            value: None,
            detail: format!("may not be more than {max} bytes"),
        }
    }

    /// The message without the field's path, as in `StatusCause.message`.
    pub fn body(&self) -> String {
        let mut s = self.kind.words().to_owned();
        for part in self.value.iter().chain((!self.detail.is_empty()).then_some(&self.detail)) {
            s.push_str(": ");
            s.push_str(part);
        }
        s
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}
