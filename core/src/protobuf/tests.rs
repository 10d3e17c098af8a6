use proptest::prelude::*;
use serde_json::{Value, json};

use super::{MEDIA_TYPE, PREFIX, decode, decode_message, encode, encode_message, watch_event};
use crate::schema::draw::for_drawn;
use crate::schema::{Type, builtin, builtin_kind};

fn of(kind: &str) -> Type<'static> {
    builtin_kind("v1", kind).unwrap()
}

/// Checks the error for a Pod message.
fn refused(bytes: &[u8], want: &str) {
    assert_eq!(decode_message(bytes, of("Pod")).unwrap_err().0, want, "{bytes:?}");
}

#[test]
fn objects_of_every_kind_come_back() {
    // List types are skipped: their items are objects of these kinds.
    for (api_version, kind, of) in builtin().kinds().filter(|k| !k.1.ends_with("List")) {
        for_drawn(kind, of, |object| {
            let mut whole = object;
            whole["apiVersion"] = json!(api_version);
            whole["kind"] = json!(kind);
            let bytes = encode(&whole).map_err(|e| e.0)?;
            let mut back = decode(&bytes, None).map_err(|e| e.0)?;
            if back["apiVersion"] != api_version || back["kind"] != kind {
                return Err(format!("came back as {} {}", back["apiVersion"], back["kind"]));
            }
            let fields = back.as_object_mut().ok_or("no object")?;
            fields.remove("apiVersion");
            fields.remove("kind");
            Ok(back)
        });
    }
}

#[test]
fn what_go_writes_empty_is_absent_unless_it_is_a_pointer() {
    // Deployment.spec { replicas: 0 (a pointer), paused: false, minReadySeconds: 0 }, status {}.
    let deployment = builtin_kind("apps/v1", "Deployment").unwrap();
    let bytes = [0x12, 6, 0x08, 0, 0x28, 0, 0x38, 0, 0x1a, 0];
    assert_eq!(decode_message(&bytes, deployment), Ok(json!({"spec": {"replicas": 0}, "status": {}})));
    // Container { name: "" (required), image: "", stdin: false }.
    let container = builtin().message("core.v1", "Container").unwrap();
    assert_eq!(decode_message(&[0x0a, 0, 0x12, 0], container), Ok(json!({"name": ""})));
    // A zero time is absent, and so is the zero `targetPort` of a service; the zero value of a pointer is not.
    let meta = builtin().message("meta.v1", "ObjectMeta").unwrap();
    assert_eq!(decode_message(&[0x42, 0], meta), Ok(json!({})));
    let port = builtin().message("core.v1", "ServicePort").unwrap();
    assert_eq!(decode_message(&[0x22, 6, 0x08, 0, 0x10, 0, 0x1a, 0], port), Ok(json!({})));
    let rolling = builtin().message("apps.v1", "RollingUpdateDeployment").unwrap();
    assert_eq!(decode_message(&[0x0a, 6, 0x08, 0, 0x10, 0, 0x1a, 0], rolling), Ok(json!({"maxUnavailable": 0})));
}

#[test]
fn lists_and_messages_may_come_in_pieces() {
    // If a message field occurs more than once, the occurrences are merged; lists of numbers may be packed.
    let pod = of("Pod");
    let bytes = [0x0a, 3, 0x0a, 1, b'a', 0x0a, 3, 0x1a, 1, b'b'];
    assert_eq!(decode_message(&bytes, pod), Ok(json!({"metadata": {"name": "a", "namespace": "b"}})));
    let security = builtin().message("core.v1", "PodSecurityContext").unwrap();
    let packed = [0x22, 2, 1, 2];
    let single = [0x20, 1, 0x20, 2];
    let want = Ok(json!({"supplementalGroups": [1, 2]}));
    assert_eq!((decode_message(&packed, security), decode_message(&single, security)), (want.clone(), want));
}

#[test]
fn bad_bytes_are_refused() {
    assert_eq!(
        decode(b"{}", None).unwrap_err().0,
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    );
    let unknown = super::encode::envelope("y/v1", "X", &[]);
    assert_eq!(decode(&unknown, None).unwrap_err().0, "no kind \"X\" is registered for version \"y/v1\"");
    refused(&[0x0a, 9, 1], "unexpected EOF");
    refused(&[0x80], "unexpected EOF");
    refused(&[0xff; 11], "proto: integer overflow");
    refused(&[0x0b], "proto: illegal wireType 3");
    refused(&[0x02, 0], "proto: illegal tag 0");
    refused(&[0x08, 1], "proto: wrong wireType for field metadata");
    refused(&[0x0a, 3, 0x0a, 1, 0xff], "proto: a string is not valid UTF-8");
    let fields = builtin().message("meta.v1", "ManagedFieldsEntry").unwrap();
    assert!(decode_message(&[0x3a, 4, 0x0a, 2, b'{', b'x'], fields).is_err());
    // Unknown fields of every wire type are skipped.
    assert_eq!(decode_message(&[0x98, 6, 1, 0x9d, 6, 1, 2, 3, 4, 0x9a, 6, 1, 7], of("Pod")), Ok(json!({})));
}

#[test]
fn nesting_and_amplification_are_bounded() {
    let schema = builtin().message("apiextensions.v1", "JSONSchemaProps").unwrap();
    let mut bytes = Vec::new();
    for _ in 0..200 {
        // A schema's `not` within `not`.
        let mut outer = Vec::new();
        super::wire::put_bytes(&mut outer, 28, &bytes);
        bytes = outer;
    }
    assert_eq!(decode_message(&bytes, schema).unwrap_err().0, "proto: exceeded max depth");
    let empties: Vec<u8> = [0x12, 0].repeat(1_000_001);
    let list = of("PodList");
    assert_eq!(decode_message(&empties, list).unwrap_err().0, "proto: more than 1000000 values");
    let mut deep = json!({});
    for _ in 0..200 {
        deep = json!({"not": deep});
    }
    assert!(encode_message(&deep, schema).unwrap_err().0.contains("nested more than"));
}

#[test]
fn options_without_a_kind_take_that_of_the_request() {
    let options = super::encode::envelope("", "", &[0x08, 5]);
    let want = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 5});
    assert_eq!(decode(&options, Some(("v1", "DeleteOptions"))), Ok(want));
    assert!(decode(&options, None).is_err());
    assert_eq!(MEDIA_TYPE, "application/vnd.kubernetes.protobuf");
}

#[test]
fn events_carry_bodies_of_their_own() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}});
    let body = encode(&pod).unwrap();
    assert!(body.starts_with(&PREFIX));
    let event = watch_event("ADDED", &body);
    let want = json!({"type": "ADDED", "object": pod});
    assert_eq!(decode_message(&event, of("WatchEvent")), Ok(want));
}

#[test]
fn json_that_does_not_fit_is_refused() {
    for (value, want) in [
        (json!({"spec": {"containers": {}}}), "containers: {} does not fit the type of the field"),
        (
            json!({"spec": {"activeDeadlineSeconds": "x"}}),
            "activeDeadlineSeconds: \"x\" does not fit the type of the field",
        ),
        (
            json!({"metadata": {"creationTimestamp": "x"}}),
            "creationTimestamp: \"x\" does not fit the type of the field",
        ),
        (json!([]), "Pod: [] does not fit the type of the field"),
    ] {
        assert_eq!(encode_message(&value, of("Pod")).unwrap_err().0, want);
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..4_usize) {
        let of = of(["Pod", "Service", "Status", "WatchEvent"][kind]);
        let _ = decode_message(&bytes, of);
        let _ = decode(&[&PREFIX[..], &bytes].concat(), Some(("v1", "Pod")));
    }

    /// A body with some bytes changed is decoded or rejected, without a panic.
    #[test]
    fn damaged_bodies_do_not_panic(seed in any::<u64>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let pod = crate::schema::draw::draw(&mut crate::random::Rng::from_seed(seed), 8, of("Pod"));
        let mut bytes = encode_message(&pod, of("Pod")).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(value) = decode_message(&bytes, of("Pod")) {
            let _: Value = value;
        }
    }
}
