//! Secret. Source: `pkg/apis/core/validation` (`ValidateSecret`).

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use super::JsonStrategy;
use super::fields::{DATA_LIMIT, Errors, decoded_len, entries, immutable_data, text};
use super::missing::Missing;
use crate::auth::legacy_token::{ACCOUNT_NAME, SECRET_TYPE};
use crate::object::validation::path::Path;
use crate::object::validation::{names, push_all};
use crate::object::{Dynamic, FieldError};

impl JsonStrategy for Secret {
    /// Merges `stringData` over `data`: `stringData` is write-only in the API.
    fn normalize(&mut self) {
        if let Some(texts) = self.string_data.take() {
            let data = self.data.get_or_insert_with(BTreeMap::new);
            data.extend(texts.into_iter().map(|(k, v)| (k, ByteString(v.into_bytes()))));
        }
    }

    fn defaults(m: &mut Missing<'_>) {
        m.at(&[], "type", || json!("Opaque"));
    }

    fn validate(d: &Dynamic, errors: &mut Errors) {
        let at = Path::Root("data");
        let mut total = 0;
        for (key, value) in entries(&d.body, "data") {
            push_all(errors, &at.key(key), key, names::config_key(key));
            total += if value.is_empty() { 0 } else { decoded_len(value) };
        }
        if total > DATA_LIMIT {
            errors.push(FieldError::too_long("data", DATA_LIMIT));
        }
        let account = || d.meta.annotations.as_ref().and_then(|a| a.get(ACCOUNT_NAME)).map_or("", String::as_str);
        if text(&d.body, &["type"]) == SECRET_TYPE && account().is_empty() {
            let at = Path::Root("metadata");
            errors.push(FieldError::required(at.field("annotations").key(ACCOUNT_NAME), ""));
        }
        let has = |key: &str| d.body.get("data").is_some_and(|data| data.get(key).is_some());
        let needed: &[&str] = match text(&d.body, &["type"]) {
            "kubernetes.io/tls" => &["tls.crt", "tls.key"],
            "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
            "kubernetes.io/dockercfg" => &[".dockercfg"],
            "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
            "kubernetes.io/basic-auth" if !has("username") && !has("password") => &["username", "password"],
            _ => &[],
        };
        for key in needed {
            if !has(key) {
                errors.push(FieldError::required(at.key(key), ""));
            }
        }
    }

    fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        immutable_data(new, old, errors);
        let (now, was) = (text(&new.body, &["type"]), text(&old.body, &["type"]));
        if now != was {
            errors.push(FieldError::invalid("type", now, "field is immutable"));
        }
    }
}
