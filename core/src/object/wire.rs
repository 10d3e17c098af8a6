//! Kinds, keys and objects within messages that are written down, as recordings of machines are. An object is its JSON;
//! that of a custom kind goes with what its kind was known as, so that it is read without a registry.

use std::borrow::Cow;
use std::rc::Rc;

use k8s_openapi::api::core::v1::PodSpec;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{Kind, KindInfo, KindRef, Object, ObjectKey, SharedPodSpec};

/// What the number of a custom kind follows.
const CUSTOM: &str = "custom-";

fn kind_text(kind: Kind) -> String {
    match kind.built_in() {
        Some(row) => row.qualified(),
        None => format!("{CUSTOM}{}", kind.custom_number().expect("it is not built in")),
    }
}

fn read_kind(text: &str) -> Option<Kind> {
    if let Some(number) = text.strip_prefix(CUSTOM) {
        return number.parse::<u16>().ok().map(|number| Kind::custom(number.into()));
    }
    let (plural, group) = text.split_once('.').unwrap_or((text, ""));
    Kind::by_resource(group, plural)
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&kind_text(*self))
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Kind, D::Error> {
        let text = Cow::<str>::deserialize(from)?;
        read_kind(&text).ok_or_else(|| D::Error::custom(format!("there is no kind {text:?}")))
    }
}

/// `pods:default/web`.
impl Serialize for ObjectKey {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{}:{}", kind_text(self.kind), self.path()))
    }
}

impl<'de> Deserialize<'de> for ObjectKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<ObjectKey, D::Error> {
        let text = Cow::<str>::deserialize(from)?;
        let (kind, path) = text.split_once(':').ok_or_else(|| D::Error::custom(format!("{text:?} is no key")))?;
        let kind = read_kind(kind).ok_or_else(|| D::Error::custom(format!("there is no kind {kind:?}")))?;
        Ok(ObjectKey::from_path(kind, path))
    }
}

/// An object of a custom kind.
#[derive(Serialize, Deserialize)]
struct Custom<'a> {
    custom: Kind,
    of: Cow<'a, KindInfo>,
    object: Value,
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.kind().built_in() {
            Some(_) => self.write_json(to),
            None => {
                Custom { custom: self.kind(), of: Cow::Borrowed(self.info()), object: self.to_json() }.serialize(to)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Object, D::Error> {
        let value = Value::deserialize(from)?;
        let (kind, of, value) = match value.get("custom") {
            Some(_) => {
                let Custom { custom, of, object } = Custom::deserialize(value).map_err(D::Error::custom)?;
                (custom, KindRef::Custom(Rc::new(of.into_owned())), object)
            }
            None => {
                let text = |field: &str| value[field].as_str().unwrap_or_default();
                let kind = Kind::by_api_version(text("apiVersion"), text("kind"));
                let unknown = || format!("there is no kind {:?} of {:?}", text("kind"), text("apiVersion"));
                let kind = kind.ok_or_else(|| D::Error::custom(unknown()))?;
                (kind, KindRef::BuiltIn(kind.row()), value)
            }
        };
        let bytes = serde_json::to_vec(&value).expect("JSON serialises");
        Object::from_stored(kind, of, &bytes).map_err(D::Error::custom)
    }
}

impl Serialize for SharedPodSpec {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        PodSpec::serialize(self, to)
    }
}

impl<'de> Deserialize<'de> for SharedPodSpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<SharedPodSpec, D::Error> {
        PodSpec::deserialize(from).map(SharedPodSpec::from)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::object::{Kind, KindInfo, Kinds, Object, ObjectKey};

    #[test]
    fn kinds_and_keys_come_back() {
        let custom = Kinds::default().register(KindInfo { plural: "xs".into(), ..KindInfo::custom() });
        for kind in Kind::all().chain([custom]) {
            let key = ObjectKey::new(kind, "n", "a:b");
            let text = serde_json::to_string(&(kind, &key)).unwrap();
            assert_eq!(serde_json::from_str::<(Kind, ObjectKey)>(&text).unwrap(), (kind, key), "{text}");
        }
        assert_eq!(serde_json::to_value(ObjectKey::new(Kind::DEPLOYMENT, "n", "a")).unwrap(), "deployments.apps:n/a");
        assert!(serde_json::from_str::<Kind>("\"minions\"").is_err());
    }

    #[test]
    fn objects_come_back_with_their_revision() {
        let check = |object: &Object| {
            let text = serde_json::to_string(object).unwrap();
            let read: Object = serde_json::from_str(&text).unwrap();
            assert_eq!((&read, read.rv(), read.to_json()), (object, object.rv(), object.to_json()), "{text}");
            text
        };
        let of = |value: Value| Object::from_json(value).unwrap();
        let metadata = json!({"name": "p", "namespace": "d", "resourceVersion": "7"});
        check(&of(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {"containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Running"}})));
        check(&of(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}})));
        let info = KindInfo {
            group: "y.io".into(),
            version: "v2".into(),
            kind: "X".into(),
            plural: "xs".into(),
            ..KindInfo::custom()
        };
        let kinds = Kinds::default();
        let kind = kinds.register(info);
        let body = json!({"apiVersion": "y.io/v2", "kind": "X", "metadata": metadata, "spec": {"n": 1.5}});
        let bytes = serde_json::to_vec(&body).unwrap();
        let text = check(&Object::from_stored(kind, kinds.info(kind), &bytes).unwrap());
        assert!(text.starts_with(r#"{"custom":"custom-0","#), "{text}");
    }
}
