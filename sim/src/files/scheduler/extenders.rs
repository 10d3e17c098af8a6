//! `extenders` of a KubeSchedulerConfiguration: servers that are asked about pods, and how they are reached.
//!
//! Sources: `pkg/scheduler/apis/config/validation`, `pkg/scheduler/extender.go`.

use std::time::Duration;

use skeg_core::object::is_extended_resource;
use skeg_core::object::validation::qualified_name;
use skeg_core::scheduler::extenders::{DEFAULT_TIMEOUT, Extender};
use skeg_core::scheduler::profile::Profile;

use super::whole;
use crate::files::fields::{Field, Fields};
use crate::scenario::{ExtenderTls, Extending};

/// Reads them. What nodes' own counts are to pass over, since an extender manages it, is added to the profiles.
pub(super) fn read(root: &Fields<'_>, profiles: &mut [Profile]) -> Vec<Extending> {
    let Some(all) = root.get("extenders") else { return Vec::new() };
    let items = all.items().unwrap_or_default();
    let (mut extenders, mut managed): (Vec<Extending>, Vec<String>) = (Vec::new(), Vec::new());
    for item in &items {
        let Some(fields) = item.fields() else { continue };
        let extender = extender(item, &fields, &mut managed, profiles);
        let https = fields.get("enableHTTPS").and_then(|f| f.boolean()).unwrap_or(false);
        let tls = fields.get("tlsConfig").map(|tls| read_tls(&tls)).unwrap_or_default();
        fields.finish();
        extenders.push(Extending { extender, tls: ExtenderTls { https, ..tls } });
    }
    let binders = extenders.iter().filter(|e| !e.extender.bind_verb.is_empty()).count();
    if binders > 1 {
        let what = format!("found {binders} extenders implementing bind");
        all.fail(format!("Invalid value: {what:?}: only one extender can implement bind"));
    }
    extenders
}

fn text(fields: &Fields<'_>, key: &'static str) -> String {
    fields.get(key).and_then(|f| f.text().map(str::to_owned)).unwrap_or_default()
}

fn flag(fields: &Fields<'_>, key: &'static str) -> bool {
    fields.get(key).and_then(|f| f.boolean()).unwrap_or(false)
}

fn extender<'a>(
    item: &Field<'a>,
    fields: &Fields<'a>,
    managed: &mut Vec<String>,
    profiles: &mut [Profile],
) -> Extender {
    let prioritize_verb = text(fields, "prioritizeVerb");
    let weight = fields.get("weight");
    let given = weight.as_ref().map_or(Some(0), whole).unwrap_or(1);
    if !prioritize_verb.is_empty() && given <= 0 {
        weight.as_ref().unwrap_or(item).invalid("must have a positive weight applied to it");
    }
    let timeout = fields.get("httpTimeout").and_then(|f| f.duration()).filter(|timeout| *timeout > Duration::ZERO);
    let mut managed_resources = Vec::new();
    for resource in fields.get("managedResources").and_then(|f| f.items()).into_iter().flatten() {
        let Some(fields) = resource.fields() else { continue };
        let name = fields.require("name").and_then(|name| check_resource(&name, managed));
        let ignored = flag(&fields, "ignoredByScheduler");
        fields.finish();
        let Some(name) = name else { continue };
        if ignored {
            profiles.iter_mut().for_each(|profile| profile.ignored_resources.push(name.clone()));
        }
        managed_resources.push(name);
    }
    Extender {
        url_prefix: text(fields, "urlPrefix"),
        filter_verb: text(fields, "filterVerb"),
        prioritize_verb,
        preempt_verb: text(fields, "preemptVerb"),
        bind_verb: text(fields, "bindVerb"),
        weight: given,
        timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
        node_cache_capable: flag(fields, "nodeCacheCapable"),
        managed_resources,
        ignorable: flag(fields, "ignorable"),
    }
}

/// The name of a resource that no other extender manages.
fn check_resource(field: &Field<'_>, managed: &mut Vec<String>) -> Option<String> {
    let name = field.text()?;
    let wrong = qualified_name(name);
    wrong.iter().for_each(|wrong| field.invalid(wrong));
    if wrong.is_empty() && !is_extended_resource(name) {
        field.invalid("is an invalid extended resource name");
    }
    if managed.iter().any(|other| other == name) {
        field.invalid("duplicate extender managed resource name");
    }
    managed.push(name.to_owned());
    Some(name.to_owned())
}

fn read_tls(tls: &Field<'_>) -> ExtenderTls {
    let Some(fields) = tls.fields() else { return ExtenderTls::default() };
    let read = ExtenderTls {
        https: false,
        insecure: flag(&fields, "insecure"),
        server_name: text(&fields, "serverName"),
        cert_file: text(&fields, "certFile"),
        key_file: text(&fields, "keyFile"),
        ca_file: text(&fields, "caFile"),
        cert_data: text(&fields, "certData"),
        key_data: text(&fields, "keyData"),
        ca_data: text(&fields, "caData"),
    };
    fields.finish();
    let given = |file: &String, data: &String| !file.is_empty() || !data.is_empty();
    if read.insecure && given(&read.ca_file, &read.ca_data) {
        tls.fail("specifying a root certificates file with the insecure flag is not allowed");
    }
    if given(&read.cert_file, &read.cert_data) != given(&read.key_file, &read.key_data) {
        tls.fail("certFile or certData and keyFile or keyData must be specified together");
    }
    read
}
