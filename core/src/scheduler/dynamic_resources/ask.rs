//! What a claim asks for, read from its spec and the classes that it names.

use std::collections::BTreeMap;
use std::rc::Rc;

use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceClass, DeviceSelector as SelectorSpec, DeviceSubRequest, DeviceToleration, ExactDeviceRequest,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::pools::PoolDevice;
use crate::limits;
use crate::object::device_selector::DeviceSelector;
use crate::object::{Object, ObjectKey};
use crate::volume;

/// How many devices are asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    Exactly(usize),
    All,
}

/// A claim that is to be allocated.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) claim: ObjectKey,
    pub(super) requests: Vec<Request>,
    /// Attributes that the devices of some requests must have in common.
    pub(super) constraints: Vec<(String, Vec<String>)>,
    /// What drivers are told.
    pub(super) config: Vec<Value>,
}

/// A request, which one of several alternatives meets.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) name: String,
    /// Whether it is one of `firstAvailable`.
    pub(super) has_alternatives: bool,
    pub(super) alternatives: Vec<Alternative>,
}

/// One way to meet a request.
#[derive(Debug)]
pub(super) struct Alternative {
    /// Its name in results.
    pub(super) name: String,
    pub(super) class: String,
    pub(super) class_config: Vec<Value>,
    pub(super) selectors: Selectors,
    pub(super) mode: Mode,
    pub(super) admin: bool,
    pub(super) tolerations: Vec<DeviceToleration>,
}

/// An expression, compiled, or why it is none; the number is its own.
pub(super) type Compiled = Rc<(u64, Result<DeviceSelector, String>)>;

/// The expressions that select devices, all of which must: those of the class, which is named, and of the claim.
#[derive(Debug)]
pub(super) struct Selectors {
    class: String,
    of_class: Vec<Compiled>,
    of_claim: Vec<Compiled>,
}

impl Selectors {
    /// Whether they select a device; an error says why that cannot be told.
    pub(super) fn select(&self, device: &PoolDevice, claim: &ObjectKey) -> Result<bool, String> {
        let class = || format!("class {}", self.class);
        let claim = || format!("claim {}", claim.path());
        Ok(all(&self.of_class, device, class)? && all(&self.of_claim, device, claim)?)
    }
}

fn all(selectors: &[Compiled], device: &PoolDevice, whose: impl Fn() -> String) -> Result<bool, String> {
    for (i, compiled) in selectors.iter().enumerate() {
        let (number, selector) = &**compiled;
        let selector =
            selector.as_ref().map_err(|why| format!("{}: selector #{i}: CEL compile error: {why}", whose()))?;
        let known = device.selected.borrow().get(number).cloned();
        let selects = known.unwrap_or_else(|| {
            let selects = selector.selects(&device.selectable).map_err(Rc::from);
            let mut selected = device.selected.borrow_mut();
            if selected.len() >= limits::DEVICE_SELECTORS {
                selected.clear();
            }
            selected.insert(*number, selects.clone());
            selects
        });
        match selects {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) => {
                let (whose, id) = (whose(), &device.id);
                return Err(format!("{whose}: selector #{i} on device {id}: CEL runtime error: {why}"));
            }
        }
    }
    Ok(true)
}

/// The compiled expressions by their text. What is compiled is a cache.
#[derive(Debug, Default)]
pub(super) struct Expressions {
    compiled: BTreeMap<String, Compiled>,
    next: u64,
}

impl Expressions {
    fn compile(&mut self, selectors: &Option<Vec<SelectorSpec>>) -> Vec<Compiled> {
        let texts = selectors.iter().flatten().map(|s| s.cel.as_ref().map_or("", |cel| cel.expression.as_str()));
        texts.map(|text| self.one(text)).collect()
    }

    fn one(&mut self, text: &str) -> Compiled {
        if let Some(known) = self.compiled.get(text) {
            return Rc::clone(known);
        }
        if self.compiled.len() >= limits::DEVICE_SELECTORS {
            self.compiled.clear();
        }
        self.next += 1;
        let compiled = Rc::new((self.next, DeviceSelector::compile(text)));
        self.compiled.insert(text.to_owned(), Rc::clone(&compiled));
        compiled
    }
}

/// The classes by their names.
pub(super) type Classes = BTreeMap<String, DeviceClass>;

/// What is the same in both kinds of requests.
struct Common<'a> {
    name: String,
    class: &'a str,
    selectors: &'a Option<Vec<SelectorSpec>>,
    mode: (Option<&'a str>, Option<i64>),
    admin: bool,
    tolerations: &'a Option<Vec<DeviceToleration>>,
}

impl<'a> Common<'a> {
    fn exact(name: &str, of: &'a ExactDeviceRequest) -> Common<'a> {
        Common {
            name: name.to_owned(),
            class: &of.device_class_name,
            selectors: &of.selectors,
            mode: (of.allocation_mode.as_deref(), of.count),
            admin: of.admin_access == Some(true),
            tolerations: &of.tolerations,
        }
    }

    fn alternative(name: &str, of: &'a DeviceSubRequest) -> Common<'a> {
        Common {
            name: format!("{name}/{}", of.name),
            class: &of.device_class_name,
            selectors: &of.selectors,
            mode: (of.allocation_mode.as_deref(), of.count),
            admin: false,
            tolerations: &of.tolerations,
        }
    }
}

/// Reads what a claim asks for; says in kube-scheduler's words why that cannot be.
pub(super) fn read(claim: &Object, classes: &Classes, expressions: &mut Expressions) -> Result<Ask, String> {
    let key = claim.key();
    let spec = volume::value(claim, "/spec/devices").cloned().unwrap_or(Value::Null);
    let config = spec.get("config").and_then(Value::as_array).cloned().unwrap_or_default();
    let spec = Option::<DeviceClaim>::deserialize(spec).ok().flatten().unwrap_or_default();
    let mut requests = Vec::new();
    for request in spec.requests.iter().flatten() {
        let (all, has_alternatives): (Vec<Common<'_>>, bool) = match (&request.exactly, &request.first_available) {
            (Some(exactly), _) => (vec![Common::exact(&request.name, exactly)], false),
            (None, Some(several)) if !several.is_empty() => {
                (several.iter().map(|of| Common::alternative(&request.name, of)).collect(), true)
            }
            _ => {
                return Err(format!("resource claim {}, request {}: unknown request type", key.path(), request.name));
            }
        };
        let alternatives =
            all.iter().map(|of| alternative(of, &key, classes, expressions)).collect::<Result<_, _>>()?;
        requests.push(Request { name: request.name.clone(), has_alternatives, alternatives });
    }
    let mut constraints = Vec::new();
    for (i, constraint) in spec.constraints.iter().flatten().enumerate() {
        let Some(attribute) = &constraint.match_attribute else {
            let claim = key.path();
            return Err(format!("claim {claim}, constraint #{i}: empty constraint (unsupported constraint type?)"));
        };
        constraints.push((attribute.clone(), constraint.requests.clone().unwrap_or_default()));
    }
    Ok(Ask { claim: key, requests, constraints, config })
}

fn alternative(
    of: &Common<'_>,
    claim: &ObjectKey,
    classes: &Classes,
    expressions: &mut Expressions,
) -> Result<Alternative, String> {
    let Some(class) = classes.get(of.class) else {
        return Err(format!("request {}: device class {} does not exist", of.name, of.class));
    };
    let mode = match of.mode {
        (None | Some("ExactCount"), count) => Mode::Exactly(usize::try_from(count.unwrap_or(1)).unwrap_or_default()),
        (Some("All"), _) => Mode::All,
        (Some(other), _) => {
            return Err(format!("claim {}, request {}: unsupported count mode {other}", claim.path(), of.name));
        }
    };
    Ok(Alternative {
        name: of.name.clone(),
        class: of.class.to_owned(),
        class_config: class.spec.config.iter().flatten().map(|config| json!(config)).collect(),
        selectors: Selectors {
            class: of.class.to_owned(),
            of_class: expressions.compile(&class.spec.selectors),
            of_claim: expressions.compile(of.selectors),
        },
        mode,
        admin: of.admin,
        tolerations: of.tolerations.clone().unwrap_or_default(),
    })
}
