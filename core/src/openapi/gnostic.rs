//! A document of OpenAPI v2 in protobuf, the only encoding that kubectl asks for: the messages of gnostic's
//! `openapiv2/OpenAPIv2.proto`. A value of any type, as in an extension, is a text of YAML there; JSON is one.

use serde_json::Value;

use crate::protobuf::wire::{put_bytes, put_double, put_number};

/// The messages that documents of ours have.
#[derive(Clone, Copy)]
enum Message {
    Document,
    Info,
    PathItem,
    Operation,
    BodyParameter,
    QueryParameter,
    PathParameter,
    Response,
    Schema,
    ExternalDocs,
    StringArray,
    ApiKey,
}

/// The type of a field.
enum Of {
    Text,
    Flag,
    Integer,
    Double,
    Texts,
    Any,
    Anys,
    /// A message inside of others, each of which has it as the field with this number.
    Inside(&'static [u32], Message),
    /// A map: entries of name (1) and value (2) are a repeated field with this number of a message. The value is inside
    /// of others.
    Map(u32, &'static [u32], Message),
    /// The same, but the field itself is repeated: each has a map.
    Maps(Message),
    Parameters,
    Type,
    AdditionalProperties,
}

/// Encodes a document.
pub fn encode_v2(document: &Value) -> Vec<u8> {
    Message::Document.encode(document)
}

impl Message {
    /// The number and type of a field; `None` for one that the message does not have.
    fn field(self, name: &str) -> Option<(u32, Of)> {
        use Message::{ApiKey, ExternalDocs, Info, PathItem, Response, Schema, StringArray};
        Some(match (self, name) {
            (Message::Document, "swagger") => (1, Of::Text),
            (Message::Document, "info") => (2, Of::Inside(&[], Info)),
            (Message::Document, "paths") => (8, Of::Map(2, &[], PathItem)),
            (Message::Document, "definitions") => (9, Of::Map(1, &[], Schema)),
            (Message::Document, "security") => (12, Of::Maps(StringArray)),
            (Message::Document, "securityDefinitions") => (13, Of::Map(1, &[2], ApiKey)),
            (Info, "title") => (1, Of::Text),
            (Info, "version") => (2, Of::Text),
            (PathItem, "get") => (2, Of::Inside(&[], Message::Operation)),
            (PathItem, "put") => (3, Of::Inside(&[], Message::Operation)),
            (PathItem, "post") => (4, Of::Inside(&[], Message::Operation)),
            (PathItem, "delete") => (5, Of::Inside(&[], Message::Operation)),
            (PathItem, "patch") => (8, Of::Inside(&[], Message::Operation)),
            (PathItem, "parameters") => (9, Of::Parameters),
            (Message::Operation, "produces") => (6, Of::Texts),
            (Message::Operation, "consumes") => (7, Of::Texts),
            (Message::Operation, "parameters") => (8, Of::Parameters),
            (Message::Operation, "responses") => (9, Of::Map(1, &[1], Response)),
            (Message::BodyParameter, "name") => (2, Of::Text),
            (Message::BodyParameter, "in") => (3, Of::Text),
            (Message::BodyParameter, "required") => (4, Of::Flag),
            (Message::BodyParameter, "schema") => (5, Of::Inside(&[], Schema)),
            (Message::QueryParameter | Message::PathParameter, "required") => (1, Of::Flag),
            (Message::QueryParameter | Message::PathParameter, "in") => (2, Of::Text),
            (Message::QueryParameter | Message::PathParameter, "name") => (4, Of::Text),
            (Message::QueryParameter, "type") => (6, Of::Text),
            (Message::QueryParameter, "uniqueItems") => (20, Of::Flag),
            (Message::PathParameter, "type") => (5, Of::Text),
            (Message::PathParameter, "uniqueItems") => (19, Of::Flag),
            (Response, "description") => (1, Of::Text),
            (Response, "schema") => (2, Of::Inside(&[1], Schema)),
            (Schema, "$ref") => (1, Of::Text),
            (Schema, "format") => (2, Of::Text),
            (Schema, "title") => (3, Of::Text),
            (Schema, "description") => (4, Of::Text),
            (Schema, "multipleOf") => (6, Of::Double),
            (Schema, "maximum") => (7, Of::Double),
            (Schema, "exclusiveMaximum") => (8, Of::Flag),
            (Schema, "minimum") => (9, Of::Double),
            (Schema, "exclusiveMinimum") => (10, Of::Flag),
            (Schema, "maxLength") => (11, Of::Integer),
            (Schema, "minLength") => (12, Of::Integer),
            (Schema, "pattern") => (13, Of::Text),
            (Schema, "maxItems") => (14, Of::Integer),
            (Schema, "minItems") => (15, Of::Integer),
            (Schema, "uniqueItems") => (16, Of::Flag),
            (Schema, "maxProperties") => (17, Of::Integer),
            (Schema, "minProperties") => (18, Of::Integer),
            (Schema, "required") => (19, Of::Texts),
            (Schema, "enum") => (20, Of::Anys),
            (Schema, "additionalProperties") => (21, Of::AdditionalProperties),
            (Schema, "type") => (22, Of::Type),
            (Schema, "items") => (23, Of::Inside(&[1], Schema)),
            (Schema, "properties") => (25, Of::Map(1, &[], Schema)),
            (Schema, "externalDocs") => (29, Of::Inside(&[], ExternalDocs)),
            (Schema, "example") => (30, Of::Any),
            (ExternalDocs, "description") => (1, Of::Text),
            (ExternalDocs, "url") => (2, Of::Text),
            (ApiKey, "type") => (1, Of::Text),
            (ApiKey, "name") => (2, Of::Text),
            (ApiKey, "in") => (3, Of::Text),
            (ApiKey, "description") => (4, Of::Text),
            _ => return None,
        })
    }

    /// The number of the field that has extensions, `x-…`.
    fn extensions(self) -> Option<u32> {
        match self {
            Message::Operation => Some(13),
            Message::Schema => Some(31),
            Message::Document
            | Message::Info
            | Message::PathItem
            | Message::BodyParameter
            | Message::QueryParameter
            | Message::PathParameter
            | Message::Response
            | Message::ExternalDocs
            | Message::StringArray
            | Message::ApiKey => None,
        }
    }

    fn encode(self, value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        if let Message::StringArray = self {
            put(&mut out, 1, &Of::Texts, value);
        }
        for (name, value) in value.as_object().into_iter().flatten() {
            match (self.field(name), self.extensions()) {
                (Some((number, of)), _) => put(&mut out, number, &of, value),
                (None, Some(number)) if name.starts_with("x-") => {
                    put_bytes(&mut out, number, &entry(name, &any(value)))
                }
                // What v2 has no word for; a definition may say it.
                (None, _) => {}
            }
        }
        out
    }
}

fn put(out: &mut Vec<u8>, number: u32, of: &Of, value: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().as_bytes().to_vec();
    let all = || value.as_array().into_iter().flatten();
    match of {
        Of::Text => put_bytes(out, number, &text(value)),
        Of::Flag => put_number(out, number, value.as_bool().unwrap_or_default().into()),
        Of::Integer => put_number(out, number, value.as_i64().unwrap_or_default()),
        Of::Double => put_double(out, number, value.as_f64().unwrap_or_default()),
        Of::Texts => all().for_each(|value| put_bytes(out, number, &text(value))),
        Of::Any => put_bytes(out, number, &any(value)),
        Of::Anys => all().for_each(|value| put_bytes(out, number, &any(value))),
        Of::Inside(through, message) => put_bytes(out, number, &inside(through, message.encode(value))),
        Of::Map(inner, through, message) => put_bytes(out, number, &map(*inner, through, *message, value)),
        Of::Maps(message) => all().for_each(|value| put_bytes(out, number, &map(1, &[], *message, value))),
        Of::Parameters => all().for_each(|value| put_bytes(out, number, &parameter(value))),
        Of::Type => put_bytes(out, number, &inside(&[1], text(value))),
        Of::AdditionalProperties => {
            let mut item = Vec::new();
            match value {
                Value::Bool(allowed) => put_number(&mut item, 2, i64::from(*allowed)),
                schema => put_bytes(&mut item, 1, &Message::Schema.encode(schema)),
            }
            put_bytes(out, number, &item);
        }
    }
}

fn map(inner: u32, through: &[u32], message: Message, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        put_bytes(&mut out, inner, &entry(name, &inside(through, message.encode(value))));
    }
    out
}

fn entry(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, name.as_bytes());
    put_bytes(&mut out, 2, value);
    out
}

fn inside(through: &[u32], message: Vec<u8>) -> Vec<u8> {
    through.iter().rev().fold(message, |message, number| {
        let mut out = Vec::new();
        put_bytes(&mut out, *number, &message);
        out
    })
}

fn any(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 2, value.to_string().as_bytes());
    out
}

fn parameter(value: &Value) -> Vec<u8> {
    match value["in"].as_str() {
        Some("body") => inside(&[1, 1], Message::BodyParameter.encode(value)),
        Some("path") => inside(&[1, 2, 4], Message::PathParameter.encode(value)),
        _ => inside(&[1, 2, 3], Message::QueryParameter.encode(value)),
    }
}
