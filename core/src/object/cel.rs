//! What surrounds expressions in CEL here: quantities and formats are Kubernetes' own.

use std::collections::BTreeMap;

use skeg_cel::Environment;

use super::{Nano, structural, validation};

/// The functions of expressions, without variables.
pub fn environment() -> Environment {
    Environment {
        variables: BTreeMap::new(),
        quantity: |text| Nano::parse(text).map(|quantity| quantity.0).map_err(|why| why.to_string()),
        format: |name, text| {
            let wrongs = match name {
                "dns1123Label" => validation::names::label(text),
                "dns1123Subdomain" => validation::names::subdomain(text),
                "dns1035Label" => validation::names::label_1035(text),
                "qualifiedName" => validation::names::qualified(text),
                "labelValue" => validation::names::label_value(text),
                "datetime" => known(text, "date-time"),
                other => known(text, other),
            };
            wrongs.into_iter().next().map_or(Ok(()), Err)
        },
    }
}

fn known(text: &str, format: &str) -> Vec<String> {
    let has = structural::has_format(text, format);
    if has { Vec::new() } else { vec![format!("{text:?} is not a {format}")] }
}
