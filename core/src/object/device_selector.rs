//! CEL expressions that select devices, and devices as these see them.
//!
//! Left out: `semver` and `cel.bind`. A version is a text, which can be compared for equality only.
//!
//! Source: `k8s.io/dynamic-resource-allocation/cel`.

use std::collections::BTreeMap;
use std::rc::Rc;

use k8s_openapi::api::resource::v1::{Device, DeviceAttribute};
use skeg_cel::types::Object;
use skeg_cel::{Environment, Key, MAX_COST, Program, Type, Value};

use super::{Nano, cel};

/// The longest expression (`CELSelectorExpressionMaxLength`).
pub const MAX_LENGTH: usize = 10 * 1024;

/// A compiled expression.
#[derive(Debug)]
pub struct DeviceSelector(Program);

/// A device, as expressions see it.
#[derive(Debug)]
pub struct SelectableDevice(Value<'static>);

fn environment() -> Environment {
    let by_domain = |of: Type| Type::map(Type::String, Type::map(Type::String, of));
    let fields = [
        ("driver", Type::String),
        ("attributes", by_domain(Type::Dyn)),
        ("capacity", by_domain(Type::Opaque("kubernetes.Quantity"))),
    ];
    let fields = fields.map(|(name, of)| (name.to_owned(), (name.to_owned(), of)));
    let device = Type::Object(Rc::new(Object { name: "kubernetes.DRADevice".to_owned(), fields: fields.into() }));
    Environment { variables: [("device", device)].into(), ..cel::environment() }
}

impl DeviceSelector {
    /// Compiles an expression; says in Kubernetes' words why it is none.
    pub fn compile(expression: &str) -> Result<DeviceSelector, String> {
        let program =
            Program::compile(expression, &environment()).map_err(|why| format!("compilation failed: {why}"))?;
        match program.type_() {
            Type::Bool | Type::Dyn => Ok(DeviceSelector(program)),
            other => Err(format!("must evaluate to bool or the unknown type, not {other}")),
        }
    }

    /// Whether it selects a device; an error says why that cannot be told.
    pub fn selects(&self, device: &SelectableDevice) -> Result<bool, String> {
        let variables = BTreeMap::from([("device", device.0.clone())]);
        match self.0.run(&environment(), &variables, MAX_COST).0 {
            Ok(Value::Bool(selects)) => Ok(selects),
            Ok(_) => Err("CEL result could not be converted to bool".to_owned()),
            Err(why) => Err(why.to_string()),
        }
    }
}

impl SelectableDevice {
    /// A device of a driver.
    pub fn new(driver: &str, device: &Device) -> SelectableDevice {
        let attributes = device.attributes.iter().flatten();
        let attributes = attributes.filter_map(|(name, attribute)| Some((name, value(attribute)?)));
        let capacity = device.capacity.iter().flatten();
        let capacity = capacity.map(|(name, capacity)| (name, Value::Quantity(Nano::of(&capacity.value).0)));
        SelectableDevice(Value::map([
            ("driver".to_owned(), Value::text(driver)),
            ("attributes".to_owned(), by_domain(driver, attributes)),
            ("capacity".to_owned(), by_domain(driver, capacity)),
        ]))
    }
}

fn value(attribute: &DeviceAttribute) -> Option<Value<'static>> {
    let (int, bool) = (attribute.int.map(Value::Int), attribute.bool.map(Value::Bool));
    let text = attribute.string.as_ref().or(attribute.version.as_ref());
    int.or(bool).or_else(|| Some(Value::text(text?.as_str())))
}

/// Values by the domains of their names. A name without one is in the driver's.
fn by_domain<'a>(driver: &str, all: impl Iterator<Item = (&'a String, Value<'static>)>) -> Value<'static> {
    let mut domains: BTreeMap<&str, Vec<(String, Value<'static>)>> = BTreeMap::new();
    for (name, value) in all {
        let (domain, id) = name.split_once('/').unwrap_or((driver, name));
        domains.entry(domain).or_default().push((id.to_owned(), value));
    }
    let domains = domains.into_iter().map(|(domain, values)| (Key::String(domain.to_owned()), Value::map(values)));
    Value::Sparse(Rc::new(domains.collect()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::resource::v1::Device;
    use serde_json::json;

    use super::{DeviceSelector, SelectableDevice};

    #[test]
    fn expressions_see_attributes_and_capacity_by_domain() {
        let device = json!({"name": "d", "attributes": {"model": {"string": "a100"}, "gen": {"int": 8},
                "x.org/ecc": {"bool": true}, "driverVersion": {"version": "1.2.3"}},
            "capacity": {"memory": {"value": "40Gi"}}});
        let device: Device = serde_json::from_value(device).unwrap();
        let device = SelectableDevice::new("gpu.example.com", &device);
        let check = |expression: &str, expect: Result<bool, &str>| {
            let got = DeviceSelector::compile(expression).and_then(|selector| selector.selects(&device));
            assert_eq!(got, expect.map_err(str::to_owned), "{expression}");
        };
        check("device.driver == 'gpu.example.com'", Ok(true));
        check("device.attributes['gpu.example.com'].model == 'a100'", Ok(true));
        check("device.attributes['gpu.example.com'].gen > 8", Ok(false));
        check("device.attributes['x.org'].ecc", Ok(true));
        check("device.attributes['gpu.example.com'].driverVersion == '1.2.3'", Ok(true));
        check("device.capacity['gpu.example.com'].memory.compareTo(quantity('32Gi')) > 0", Ok(true));
        check("'other.org' in device.attributes", Ok(false));
        check("'x.org' in device.attributes", Ok(true));
        check("'ecc' in device.attributes['other.org']", Ok(false));
        check("device.attributes['other.org'].ecc", Err("no such key: ecc"));
        check("device.attributes.size() == 2", Ok(true));
        check("device.attributes['gpu.example.com'].model", Err("CEL result could not be converted to bool"));
        check("'yes'", Err("must evaluate to bool or the unknown type, not string"));
        let undeclared = "compilation failed: ERROR: <input>:1:1: undeclared reference to 'gpu' (in container '')\n \
            | gpu == 1\n | ^";
        check("gpu == 1", Err(undeclared));
    }
}
