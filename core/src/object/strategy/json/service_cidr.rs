//! ServiceCIDR and IPAddress. Source: `pkg/apis/networking/validation`, `pkg/registry/networking`.

use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use serde_json::{Value, json};

use super::JsonStrategy;
use super::fields::{Errors, at, list, text};
use crate::object::validation::path::{Go, Path};
use crate::object::validation::{meta, names, networking, push_all};
use crate::object::{Dynamic, FieldError};

impl JsonStrategy for ServiceCIDR {
    /// The status is kept: who makes a range may say that it is ready.
    fn prepare_for_create(_object: &mut Dynamic) {}

    fn validate_new(d: &Dynamic, errors: &mut Errors) {
        ranges(&d.body, errors);
    }

    fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        let (now, was) = (list(&new.body, RANGES), list(&old.body, RANGES));
        let changed = |i: usize, errors: &mut Errors| {
            if now[i] != was[i] {
                let at = format!("spec.cidrs[{i}]");
                errors.push(FieldError::invalid(at, Go(now[i].to_string()), meta::IMMUTABLE));
            }
        };
        match (was.len(), now.len()) {
            (before, after) if before == after => (0..before).for_each(|i| changed(i, errors)),
            // A second family may be added.
            (1, 2) => {
                changed(0, errors);
                ranges(&new.body, errors);
            }
            _ => errors.push(FieldError::invalid("spec.cidrs", shown(now), meta::IMMUTABLE)),
        }
    }
}

const RANGES: &[&str] = &["spec", "cidrs"];

fn shown(list: &[Value]) -> Go {
    Go(json!(list).to_string())
}

fn ranges(body: &serde_json::Map<String, Value>, errors: &mut Errors) {
    let cidrs = list(body, RANGES);
    match cidrs.len() {
        0 => return errors.push(FieldError::required("spec.cidrs", "at least one CIDR required")),
        1 | 2 => {}
        _ => {
            let spec = at(body, &["spec"]).map(Value::to_string).unwrap_or_default();
            return errors.push(FieldError::invalid("spec.cidrs", Go(spec), "may only hold up to 2 values"));
        }
    }
    let families: Vec<Option<bool>> = cidrs
        .iter()
        .enumerate()
        .map(|(i, cidr)| {
            let cidr = cidr.as_str().unwrap_or("");
            let family = networking::range(cidr).map(|(_, v4, _)| v4);
            if family.is_none() {
                errors.push(FieldError::invalid(format!("spec.cidrs[{i}]"), cidr, networking::CIDR));
            }
            family
        })
        .collect();
    if families.len() == 2 && families[0].is_some() && families[0] == families[1] {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(FieldError::invalid("spec.cidrs", shown(cidrs), why));
    }
}

impl JsonStrategy for IPAddress {
    const NAME: fn(&str) -> names::Wrongs = address;

    fn validate(d: &Dynamic, errors: &mut Errors) {
        let root = Path::Root("spec");
        let at_parent = root.field("parentRef");
        let parent = at(&d.body, &["spec", "parentRef"]).and_then(Value::as_object);
        // A reference that is left out has been decoded as one without a value.
        let given = |parent: &&serde_json::Map<String, Value>| parent.values().any(|v| v.as_str() != Some(""));
        let Some(parent) = parent.filter(given) else {
            return errors.push(FieldError::required(at_parent, ""));
        };
        let group = text(parent, &["group"]);
        if !group.is_empty() {
            push_all(errors, &at_parent.field("group"), group, names::subdomain(group));
        }
        for (field, required) in [("resource", true), ("name", true), ("namespace", false)] {
            let value = text(parent, &[field]);
            if !value.is_empty() {
                push_all(errors, &at_parent.field(field), value, names::path_segment(value));
            } else if required {
                errors.push(FieldError::required(at_parent.field(field), ""));
            }
        }
    }

    fn validate_update(new: &Dynamic, old: &Dynamic, errors: &mut Errors) {
        let parent = |d: &Dynamic| at(&d.body, &["spec", "parentRef"]).cloned().unwrap_or_default();
        let root = Path::Root("spec");
        let show = |value: &Value| Go(value.to_string());
        meta::immutable(&parent(new), &parent(old), &root.field("parentRef"), show, errors);
    }
}

/// `ValidateIPAddressName`.
fn address(name: &str) -> names::Wrongs {
    if name.parse::<core::net::IpAddr>().is_ok() { Vec::new() } else { vec![names::IP.to_owned()] }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::object::{Object, validation};

    fn range(cidrs: Value) -> Object {
        Object::from_json(json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": "more"}, "spec": {"cidrs": cidrs}}))
        .unwrap()
    }

    fn address(name: &str, parent: Value) -> Object {
        Object::from_json(json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {"name": name}, "spec": {"parentRef": parent}}))
        .unwrap()
    }

    fn check(errors: &[crate::object::FieldError], expect: &str) {
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(told.join("; "), expect);
    }

    #[test]
    fn ranges_are_one_of_each_family() {
        let cidr = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        for (cidrs, expect) in [
            (json!(["10.0.0.0/24"]), String::new()),
            (json!(["10.0.0.0/24", "fd00::/64"]), String::new()),
            (json!([]), "spec.cidrs: Required value: at least one CIDR required".to_owned()),
            (json!(["10.0.0.0"]), format!("spec.cidrs[0]: Invalid value: \"10.0.0.0\": {cidr}")),
            (
                json!(["10.0.0.0/24", "10.1.0.0/24"]),
                "spec.cidrs: Invalid value: [\"10.0.0.0/24\",\"10.1.0.0/24\"]: may specify no more than one IP for \
                 each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
                    .to_owned(),
            ),
            (
                json!(["10.0.0.0/24", "fd00::/64", "fd01::/64"]),
                "spec.cidrs: Invalid value: {\"cidrs\":[\"10.0.0.0/24\",\"fd00::/64\",\"fd01::/64\"]}: may only hold \
                 up to 2 values"
                    .to_owned(),
            ),
        ] {
            check(&validation::create(&range(cidrs)), &expect);
        }
    }

    #[test]
    fn a_range_stays_but_may_get_a_second_family() {
        let old = range(json!(["10.0.0.0/24"]));
        for (cidrs, expect) in [
            (json!(["10.0.0.0/24", "fd00::/64"]), ""),
            (json!(["10.1.0.0/24"]), "spec.cidrs[0]: Invalid value: \"10.1.0.0/24\": field is immutable"),
            (json!(["10.1.0.0/24", "fd00::/64"]), "spec.cidrs[0]: Invalid value: \"10.1.0.0/24\": field is immutable"),
            (json!([]), "spec.cidrs: Invalid value: []: field is immutable"),
        ] {
            check(&validation::update(&range(cidrs), &old), expect);
        }
    }

    #[test]
    fn an_address_is_of_something_and_stays_so() {
        let parent = json!({"resource": "services", "name": "a", "namespace": "d"});
        for (name, parent, expect) in [
            ("10.0.0.1", parent.clone(), ""),
            ("fd00::1", parent.clone(), ""),
            (
                "10.0.0",
                parent.clone(),
                "metadata.name: Invalid value: \"10.0.0\": must be a valid IP address, (e.g. 10.9.8.7 or \
                 2001:db8::ffff)",
            ),
            ("10.0.0.1", Value::Null, "spec.parentRef: Required value"),
            (
                "10.0.0.1",
                json!({"group": "_", "namespace": "a/b"}),
                "spec.parentRef.group: Invalid value: \"_\": a lowercase RFC 1123 subdomain must consist of lower case \
                 alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
                 'example.com', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'); spec.parentRef.resource: \
                 Required value; spec.parentRef.name: Required value; spec.parentRef.namespace: Invalid value: \
                 \"a/b\": may not contain '/'",
            ),
        ] {
            check(&validation::create(&address(name, parent)), expect);
        }
        let other = json!({"resource": "services", "name": "b", "namespace": "d"});
        let told = validation::update(&address("10.0.0.1", other), &address("10.0.0.1", parent));
        check(
            &told,
            "spec.parentRef: Invalid value: {\"name\":\"b\",\"namespace\":\"d\",\"resource\":\"services\"}: field is \
             immutable",
        );
    }
}
