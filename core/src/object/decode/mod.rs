//! Decoding objects from JSON as the API server decodes request bodies. Every built-in kind is checked against its
//! k8s-openapi type, including the kinds that Skeg holds as [`Dynamic`]. Errors have the texts of Go and Kubernetes.
//!
//! [`strict`] reports every field that the [schema table](crate::schema) does not know (`fieldValidation=Strict`,
//! manifests). [`lenient`] drops such fields (`Ignore`). [`body`] does what the request's `fieldValidation` says, and
//! also finds duplicate fields. All of them normalise as Kubernetes does: `null` means absent, a number is accepted as
//! a quantity, and quantities are made canonical.

mod fields;
mod quantity;
mod reader;
mod type_name;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::strategy::json;
use super::{FieldError, Kind, KindInfo, KindRef, Kinds, Obj, Object, Resource};
use crate::api::{FieldValidation, Status};
use crate::schema::{Type, builtin_kind};

pub use quantity::{canonical, in_family_of, rounded_up};
pub(in crate::object) use reader::read;

/// One error in decoding an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DecodeError {
    /// Path of the field, for example `spec.containers[0].image`; empty for the object as a whole.
    pub path: String,
    /// The error in Kubernetes' words. Includes the field's name where Kubernetes' text does.
    pub message: String,
    /// Whether this is an unknown or duplicate field, which is an error only in strict decoding.
    pub unknown_field: bool,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl DecodeError {
    /// An error about the object as a whole.
    pub(in crate::object) fn whole(message: String) -> DecodeError {
        DecodeError { path: String::new(), message, unknown_field: false }
    }
}

/// Decodes an object; unknown fields are errors. Reports all unknown fields; a type error comes first.
pub fn strict(value: Value) -> Result<Object, Vec<DecodeError>> {
    strict_in(&Kinds::default(), value)
}

/// As [`strict`], with the custom kinds of a registry.
pub fn strict_in(kinds: &Kinds, value: Value) -> Result<Object, Vec<DecodeError>> {
    let (object, unknown) = with_unknown(kinds, value)?;
    if unknown.is_empty() { Ok(object) } else { Err(unknown) }
}

/// Decodes an object and drops unknown fields.
pub fn lenient(value: Value) -> Result<Object, Vec<DecodeError>> {
    lenient_in(&Kinds::default(), value)
}

/// As [`lenient`], with the custom kinds of a registry.
pub fn lenient_in(kinds: &Kinds, value: Value) -> Result<Object, Vec<DecodeError>> {
    let (kind, of) = kind_and_version(kinds, &value).map_err(|e| vec![e])?;
    read_object(kind, of, value).map_err(|e| vec![e])
}

/// Every field of `value` that its type does not have.
pub fn unknown_fields(value: &Value, of: Type<'_>) -> Vec<DecodeError> {
    fields::unknown(value, of, "")
}

/// Parses JSON, and lists the duplicate fields in it.
pub fn parse(text: &[u8]) -> Result<(Value, Vec<DecodeError>), Status> {
    fields::parse(text).map_err(|e| Status::bad_request(fields::syntax(&e)))
}

/// Decodes a request's JSON body according to its `fieldValidation`. Returns the object and the warnings to send.
/// Of a custom object only unknown fields of its metadata are reported here: the caller has its definition.
pub fn body(kinds: &Kinds, text: &[u8], validation: FieldValidation) -> Result<(Object, Vec<String>), Status> {
    let (value, twice) = parse(text)?;
    read_body(kinds, value, twice, validation)
}

/// As [`body`], for JSON that is already parsed, with its list of duplicate fields.
pub fn read_body(
    kinds: &Kinds,
    value: Value,
    twice: Vec<DecodeError>,
    validation: FieldValidation,
) -> Result<(Object, Vec<String>), Status> {
    let (kind, of) = kind_and_version(kinds, &value).map_err(|e| Status::bad_request(e.message))?;
    let mut minded = Vec::new();
    if validation != FieldValidation::Ignore {
        minded = unknown(&of, &value);
        minded.extend(twice);
    }
    let object = read_object(kind, of.clone(), value).map_err(|e| status(&of, &[e]))?;
    if validation == FieldValidation::Strict && !minded.is_empty() {
        return Err(status(&of, &minded));
    }
    Ok((object, minded.into_iter().map(|e| e.message).collect()))
}

/// Decodes an object, drops its unknown fields and lists them (`Warn`).
pub fn with_unknown(kinds: &Kinds, value: Value) -> Result<(Object, Vec<DecodeError>), Vec<DecodeError>> {
    let (kind, of) = kind_and_version(kinds, &value).map_err(|e| vec![e])?;
    let mut unknown = unknown(&of, &value);
    match read_object(kind, of, value) {
        Ok(object) => Ok((object, unknown)),
        Err(error) => {
            unknown.insert(0, error);
            Err(unknown)
        }
    }
}

/// The kind that a manifest names. An error says what is missing, or that there is no such kind.
pub fn kind_of(value: &Value) -> Result<Kind, DecodeError> {
    kind_in(&Kinds::default(), value)
}

/// Decodes a value as the type of `kind`, whose description is `of`.
fn read_object(kind: Kind, of: KindRef, value: Value) -> Result<Object, DecodeError> {
    match Object::read_typed(kind, value) {
        Ok(object) => object,
        Err(value) => json::read(kind, of, value),
    }
}

/// Decodes a value as a kind with a typed form.
pub(in crate::object) fn typed<R: Resource + for<'de> Deserialize<'de>>(value: Value) -> Result<Object, DecodeError> {
    let whole: R = read(value)?;
    let bad_revision = |e: FieldError| DecodeError { path: e.field.clone(), ..DecodeError::whole(e.to_string()) };
    Ok(R::into_object(Obj::from_whole(whole).map_err(bad_revision)?))
}

/// As [`kind_of`], with the custom kinds of a registry.
pub fn kind_in(kinds: &Kinds, value: &Value) -> Result<Kind, DecodeError> {
    let (api_version, kind) = names_of(value)?;
    let unknown = || DecodeError::whole(format!("no matches for kind {kind:?} in version {api_version:?}"));
    kinds.by_api_version(api_version, kind).ok_or_else(unknown)
}

/// A manifest's `apiVersion` and `kind`.
fn names_of(value: &Value) -> Result<(&str, &str), DecodeError> {
    let Some(map) = value.as_object() else {
        let message = "couldn't get version/kind; json parse error: json: cannot unmarshal";
        let what = type_name::json_kind(value);
        return Err(DecodeError::whole(format!(
            "{message} {what} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind \
             string \"json:\\\"kind,omitempty\\\"\" }}"
        )));
    };
    let text = |key: &str| match map.get(key) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(s)) => Ok(s.as_str()),
        Some(other) => Err(DecodeError {
            path: key.to_owned(),
            message: format!(
                "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go struct field .{key} of \
                 type string",
                type_name::json_kind(other)
            ),
            unknown_field: false,
        }),
    };
    let (api_version, kind) = (text("apiVersion")?, text("kind")?);
    for (name, given) in [("Kind", kind), ("apiVersion", api_version)] {
        if given.is_empty() {
            return Err(DecodeError::whole(format!("Object '{name}' is missing in '{value}'")));
        }
    }
    Ok((api_version, kind))
}

/// The API server's response to a body that cannot be decoded: status 400 in Kubernetes' words.
pub fn status(info: &KindInfo, errors: &[DecodeError]) -> Status {
    let list: Vec<&str> = errors.iter().map(|e| e.message.as_str()).collect();
    let strict = if errors.iter().all(|e| e.unknown_field) { "strict decoding error: " } else { "" };
    Status::bad_request(format!(
        "{} in version {:?} cannot be handled as a {}: {strict}{}",
        info.kind,
        info.version,
        info.kind,
        list.join(", ")
    ))
}

/// The kind that a manifest names, described in the version that the manifest names.
pub fn kind_and_version(known: &Kinds, value: &Value) -> Result<(Kind, KindRef), DecodeError> {
    let kind = kind_in(known, value)?;
    let version = names_of(value).map_or("", |(version, _)| version.rsplit('/').next().unwrap_or(""));
    Ok((kind, known.info(kind).in_version(version)))
}

/// Every unknown field of an object of a built-in kind; of a custom one, those of its metadata, which every kind has.
fn unknown(of: &KindRef, value: &Value) -> Vec<DecodeError> {
    match builtin_kind(&of.api_version(), &of.kind) {
        Some(of) => fields::unknown(value, of, ""),
        None => {
            let some = builtin_kind("v1", "ConfigMap").expect("it is in the table");
            let metadata = some.field("metadata").expect("every kind has metadata");
            fields::unknown(&value["metadata"], metadata, "metadata")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FieldValidation, builtin_kind, lenient, strict};
    use crate::api::Status;
    use crate::object::{Kind, Kinds, Object};
    use crate::schema::draw::for_drawn;
    use serde_json::{Value, json};

    fn body(text: &[u8], validation: FieldValidation) -> Result<(Object, Vec<String>), Status> {
        super::body(&Kinds::default(), text, validation)
    }

    fn check(value: Value, want: &[(&str, &str)]) {
        let errors = strict(value.clone()).map(|o| o.to_json()).expect_err(&value.to_string());
        let got: Vec<(&str, &str)> = errors.iter().map(|e| (e.path.as_str(), e.message.as_str())).collect();
        assert_eq!(got, want, "{value}");
    }

    fn deployment(spec: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
    }

    #[test]
    fn says_what_kind_is_missing() {
        check(json!({"kind": "Pod"}), &[("", r#"Object 'apiVersion' is missing in '{"kind":"Pod"}'"#)]);
        check(json!({"apiVersion": "v1"}), &[("", r#"Object 'Kind' is missing in '{"apiVersion":"v1"}'"#)]);
        check(json!({"apiVersion": "y/v1", "kind": "X"}), &[("", r#"no matches for kind "X" in version "y/v1""#)]);
        check(
            json!({"apiVersion": "extensions/v1beta1", "kind": "Deployment"}),
            &[("", r#"no matches for kind "Deployment" in version "extensions/v1beta1""#)],
        );
        assert!(strict(json!(["v1", "Pod"])).is_err());
        assert!(strict(json!({"apiVersion": 1, "kind": "Pod"})).is_err());
    }

    #[test]
    fn names_every_unknown_field() {
        check(
            deployment(json!({"replcias": 3, "selector": {}, "template": {"spec": {"containers": [
                {"name": "a", "image": "i"}, {"name": "b", "imagePullPolic": "Always"}]}}})),
            &[
                ("spec.replcias", r#"unknown field "spec.replcias""#),
                (
                    "spec.template.spec.containers[1].imagePullPolic",
                    r#"unknown field "spec.template.spec.containers[1].imagePullPolic""#,
                ),
            ],
        );
        check(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"nam": "x"}, "dat": {}}),
            &[("dat", r#"unknown field "dat""#), ("metadata.nam", r#"unknown field "metadata.nam""#)],
        );
        check(
            json!({"apiVersion": "batch/v1", "kind": "Job", "spec": {"backofLimit": 1, "template": {}}}),
            &[("spec.backofLimit", r#"unknown field "spec.backofLimit""#)],
        );
    }

    #[test]
    fn type_errors_are_gos() {
        check(
            deployment(json!({"replicas": "3"})),
            &[(
                "spec.replicas",
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            )],
        );
        check(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": 1}}}),
            &[(
                "metadata.labels.a",
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
            )],
        );
        check(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": ["a"]}}),
            &[(
                "metadata.labels",
                "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
            )],
        );
        check(
            json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": {"name": "a"}}}),
            &[(
                "spec.containers",
                "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
            )],
        );
        check(
            json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"ports": [{"containerPort": 1.5}]}]}}),
            &[(
                "spec.containers[0].ports[0].containerPort",
                "json: cannot unmarshal number 1.5 into Go struct field \
                 ContainerPort.spec.containers.ports.containerPort of type int32",
            )],
        );
        check(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"port": 80}}),
            &[("data.port", "json: cannot unmarshal number into Go struct field ConfigMap.data of type string")],
        );
        check(
            json!({"apiVersion": "v1", "kind": "Pod", "spec": "x"}),
            &[("spec", "json: cannot unmarshal string into Go struct field Pod.spec of type v1.PodSpec")],
        );
    }

    #[test]
    fn bad_quantities_are_kubernetes_own() {
        let pod = |cpu: Value| {
            json!({"apiVersion": "v1", "kind": "Pod",
                   "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}})
        };
        check(
            pod(json!("1 core")),
            &[(
                "spec.containers[0].resources.requests.cpu",
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            )],
        );
        for (given, want) in [
            (json!(1), "1"),
            (json!(0.5), "500m"),
            (json!("1000m"), "1"),
            (json!("0.1"), "100m"),
            (json!("1500m"), "1500m"),
        ] {
            let object = strict(pod(given.clone())).unwrap();
            let json = object.to_json();
            assert_eq!(json["spec"]["containers"][0]["resources"]["requests"]["cpu"], want, "{given}");
        }
    }

    #[test]
    fn nulls_are_absent_as_in_go() {
        let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": null,
            "creationTimestamp": null}, "spec": {"containers": [{"name": "c", "command": null}], "volumes": null},
            "status": null});
        let want = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c"}]}});
        assert_eq!(strict(value).unwrap().to_json(), want);
    }

    #[test]
    fn a_resource_version_that_is_none_is_refused() {
        for (kind, rv, why) in [
            ("Pod", "abc", "invalid syntax"),
            ("ConfigMap", "-1", "invalid syntax"),
            ("Pod", "+1", "invalid syntax"),
            ("ConfigMap", "99999999999999999999", "value out of range"),
        ] {
            let value = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "x", "resourceVersion": rv}});
            let errors = lenient(value).expect_err(rv);
            let want =
                format!("metadata.resourceVersion: Invalid value: {rv:?}: strconv.ParseUint: parsing {rv:?}: {why}");
            assert_eq!(errors[0].message, want);
        }
    }

    #[test]
    fn a_time_that_cannot_be_absent_is_gos_zero() {
        let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
            "status": {"currentHealthy": 1, "desiredHealthy": 1, "disruptionsAllowed": 0, "expectedPods": 1,
                       "disruptedPods": {"p": null}}});
        let json = strict(budget).unwrap().to_json();
        assert_eq!(json["status"]["disruptedPods"]["p"], "0001-01-01T00:00:00Z");
    }

    #[test]
    fn string_data_becomes_data() {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
            "data": {"a": "b2xk", "b": "aw=="}, "stringData": {"a": "new"}});
        let json = strict(secret).unwrap().to_json();
        assert_eq!(json["data"], json!({"a": "bmV3", "b": "aw=="}));
        assert_eq!(json.get("stringData"), None);
    }

    #[test]
    fn lenient_reading_drops_what_strict_reading_minds() {
        let value = deployment(json!({"replcias": 3, "selector": {}, "template": {}}));
        let Ok(Object::Deployment(d)) = lenient(value) else { panic!("not a Deployment") };
        assert_eq!(d.spec.replicas, None);
        let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "dat": 1, "data": {"a": "b"}});
        let want = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {"a": "b"}});
        assert_eq!(lenient(value).unwrap().to_json(), want);
    }

    fn untyped(object: &mut Value) {
        let fields = object.as_object_mut().expect("an object is one");
        fields.remove("apiVersion");
        fields.remove("kind");
    }

    /// Objects of every kind, with every field that the schema table has, survive encoding and decoding unchanged.
    #[test]
    fn objects_of_every_kind_come_back() {
        for kind in Kind::all() {
            let info = kind.row();
            let of = builtin_kind(&info.api_version(), &info.kind).unwrap();
            for_drawn(&info.kind, of, |mut object| {
                object["apiVersion"] = info.api_version().into();
                object["kind"] = (*info.kind).into();
                let bytes = serde_json::to_vec(&object).map_err(|e| e.to_string())?;
                let (read, _) = body(&bytes, FieldValidation::Strict).map_err(|s| s.to_string())?;
                let mut back = read.to_json();
                let again = body(back.to_string().as_bytes(), FieldValidation::Strict).map_err(|s| s.to_string())?;
                if again.0 != read {
                    return Err("its JSON is not read as the same object".to_owned());
                }
                untyped(&mut back);
                // The claim templates of a StatefulSet carry `apiVersion` and `kind` in output, as in Kubernetes.
                let claims = back.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut);
                claims.into_iter().flatten().for_each(untyped);
                Ok(back)
            });
        }
    }

    #[test]
    fn a_body_is_read_as_its_field_validation_asks() {
        let text = br#"{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"a": "1",
            "a": "2"}}, "spec": {"replicas": 1, "replicas": 2, "foo": 1, "template": {"spec": {"containers": [{},
            {"name": "c", "bar": 1}]}}}}"#;
        let minded = [
            r#"unknown field "spec.foo""#,
            r#"unknown field "spec.template.spec.containers[1].bar""#,
            r#"duplicate field "metadata.labels.a""#,
            r#"duplicate field "spec.replicas""#,
        ];
        let (object, warnings) = body(text, FieldValidation::Warn).unwrap();
        assert_eq!(warnings, minded);
        // The last occurrence of a duplicate field counts.
        let json = object.to_json();
        assert_eq!((&json["spec"]["replicas"], &json["metadata"]["labels"]["a"]), (&json!(2), &json!("2")));
        assert_eq!(body(text, FieldValidation::Ignore).unwrap(), (object, Vec::new()));
        let status = body(text, FieldValidation::Strict).unwrap_err();
        let want = "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: ";
        assert_eq!(&*status.message, format!("{want}{}", minded.join(", ")));
        assert_eq!(status.reason.code(), 400);
        // A type error comes first.
        let bad = br#"{"apiVersion": "v1", "kind": "Pod", "spec": 1, "x": 1}"#;
        for validation in [FieldValidation::Ignore, FieldValidation::Warn, FieldValidation::Strict] {
            let message = body(bad, validation).unwrap_err().message;
            assert!(message.ends_with("Go struct field Pod.spec of type v1.PodSpec"), "{message}");
        }
        assert!(body(b"{\"a\":", FieldValidation::Ignore).unwrap_err().message.contains("json parse error"));
    }

    #[test]
    fn custom_schemas_and_raw_json_pass() {
        let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "xs.y.io"}, "spec": {"group": "y.io", "scope": "Namespaced",
            "names": {"plural": "xs", "kind": "X"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object",
                "additionalProperties": {"type": "string"}, "default": {"a": [1, 2.5, null]},
                "x-kubernetes-preserve-unknown-fields": true}}}}}]}});
        assert_eq!(strict(crd.clone()).unwrap().to_json(), crd);
        let revision = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r"},
            "revision": 3, "data": {"spec": {"anything": ["goes"]}}});
        assert_eq!(strict(revision.clone()).unwrap().to_json(), revision);
    }
}
