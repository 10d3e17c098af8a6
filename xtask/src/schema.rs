//! Generates the core's schema table from Kubernetes' data: `cargo xtask schema`.
//!
//! Input: the fields of every protobuf message and the OpenAPI definitions (of Kubernetes 1.37, under `$SKEG_SHARED`),
//! the same of types that 1.37 does not have any more (`xtask/schema/only-in-1.36.json`), facts that are only in Go's
//! types (`xtask/schema/go-types.txt`), and k8s-openapi's types of 1.36, which determine
//! what 1.36 has. Output: `core/src/schema/kubernetes.txt`, whose first lines describe its format, and what k8s-openapi
//! says of types and fields, compressed. The same input gives the same text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Path of the table in the repository.
pub const TABLE: &str = "core/src/schema/kubernetes.txt";

/// Path of the descriptions in the repository.
pub const DESCRIPTIONS: &str = "runtime/src/up/descriptions.gz";

/// What the table contains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// What Kubernetes 1.36 has according to k8s-openapi, and what the wire format additionally needs.
    V1_36,
    /// Everything in the data, including 1.37 and versions that are no longer served.
    Everything,
}

/// Packages of messages that OpenAPI does not describe but that clients and servers exchange.
const WIRE_ONLY: [&str; 5] = ["meta.v1", "admission.v1", "apidiscovery.v2", "apidiscovery.v2beta1", "metrics.v1beta1"];

/// Fields of 1.36 that 1.37 does not have. They are behind a disabled feature gate (`DRANodeAllocatableResources`), so
/// they are never visible; `resources` is the one in `NodeAllocatableResourceClaimStatus`.
const GONE: [&str; 2] = ["nodeAllocatableResourceMappings", "resources"];

/// Messages whose JSON form is a scalar.
const SCALARS: [(&str, &str); 13] = [
    ("k8s.io.apimachinery.pkg.api.resource.Quantity", "quantity"),
    ("k8s.io.apimachinery.pkg.api.resource.QuantityValue", "quantity"),
    ("k8s.io.apimachinery.pkg.util.intstr.IntOrString", "int-or-string"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.Time", "time"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime", "micro-time"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.Duration", "duration"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1", "any"),
    ("k8s.io.apimachinery.pkg.runtime.RawExtension", "any"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.Patch", "any"),
    ("k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSON", "any"),
    ("k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool", "schema-or-bool"),
    ("k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray", "schema-or-array"),
    ("k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray", "schema-or-strings"),
];

const HEADER: &str = "\
# Kubernetes' types, made by `cargo xtask schema`; not to be edited.
#
# package SHORT OPENAPI-PREFIX GROUP/VERSION
# MESSAGE [kind] [atomic] [list]
#   kind: has apiVersion and kind; atomic: applied as a whole; list: a list in JSON
#  NAME[!][*] NUMBER TYPE [ATTRIBUTE...]
#   !: required; *: a pointer in Go, so that zero is a value
#   NUMBER: of the protobuf field, after those of messages that JSON has inline
#   TYPE: [] list of, {} map of; a scalar, a message of this package, or PACKAGE.MESSAGE
#   list types: atomic, set, map=KEYS; granular; strategic merge: merge[=KEY], retainKeys, replace; default=JSON
";

/// Generates the table from the data in `shared` (the path in `$SKEG_SHARED`); `root` is the repository's root.
pub fn table(root: &Path, shared: &Path, keep: Keep) -> Result<String, String> {
    let data = shared.join("data/schema");
    let mut wire = read_gz(&data.join("protobuf-fields.json.gz"))?;
    let mut open = read_gz(&data.join("openapi-definitions-v1.37.json.gz"))?;
    let older = root.join("xtask/schema/only-in-1.36.json");
    let failed = |e: &dyn std::fmt::Display| format!("error: {}: {e}", older.display());
    let text = fs::read_to_string(&older).map_err(|e| failed(&e))?;
    let mut only: Value = serde_json::from_str(&text).map_err(|e| failed(&e))?;
    for (all, more) in [(&mut wire, only["wire"].take()), (&mut open, only["open"].take())] {
        let (Value::Object(all), Value::Object(more)) = (all, more) else { return Err(failed(&"not an object")) };
        all.extend(more);
    }
    let known = k8s_openapi(root)?;
    let go = go_types(&root.join("xtask/schema/go-types.txt"))?;
    Maker { wire: &wire, open: &open, known: &known, go: &go, keep }.make()
}

/// The descriptions of 1.36's types, in the form that `skeg_core::openapi::Descriptions` reads.
pub fn descriptions(root: &Path) -> Result<String, String> {
    let mut all = String::new();
    for (name, Known { descriptions, .. }) in k8s_openapi(root)? {
        for (field, text) in descriptions {
            let text = text.replace('\\', "\\\\").replace('\n', "\\n");
            match field.as_str() {
                "" => writeln!(all, "{name} {text}"),
                field => writeln!(all, " {field} {text}"),
            }
            .expect("a string takes all");
        }
    }
    Ok(all)
}

/// The text of a compressed file.
pub fn decompressed(path: &Path) -> Result<String, String> {
    let bytes = output(Command::new("gzip").arg("-dc").arg(path))?;
    String::from_utf8(bytes).map_err(|e| format!("error: {}: {e}", path.display()))
}

fn compress(text: &str, path: &Path) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("error: {}: {e}", path.display());
    let file = fs::File::create(path).map_err(failed)?;
    let mut gzip = Command::new("gzip").arg("-9n").stdin(Stdio::piped()).stdout(file).spawn().map_err(failed)?;
    gzip.stdin.take().expect("it is piped").write_all(text.as_bytes()).map_err(failed)?;
    if gzip.wait().map_err(failed)?.success() { Ok(()) } else { Err(format!("error: gzip made no {}", path.display())) }
}

/// Writes the table and the descriptions to their paths. A file of the same descriptions stays as it is, whichever gzip
/// made it.
pub fn run(root: &Path) -> Result<(), String> {
    let shared = std::env::var_os("SKEG_SHARED")
        .ok_or("error: SKEG_SHARED is not set: it names the directory that has data/schema")?;
    let path = root.join(TABLE);
    fs::write(&path, table(root, Path::new(&shared), Keep::V1_36)?)
        .map_err(|e| format!("error: {}: {e}", path.display()))?;
    let (path, made) = (root.join(DESCRIPTIONS), descriptions(root)?);
    if decompressed(&path).is_ok_and(|held| held == made) { Ok(()) } else { compress(&made, &path) }
}

fn read_gz(path: &Path) -> Result<Value, String> {
    let bytes = output(Command::new("gzip").arg("-dc").arg(path))?;
    serde_json::from_slice(&bytes).map_err(|e| format!("error: {}: {e}", path.display()))
}

/// The output of a command.
fn output(command: &mut Command) -> Result<Vec<u8>, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("error: {name}: {e}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("error: {name}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// What k8s-openapi has for a definition.
#[derive(Default)]
struct Known {
    /// Names of its fields; empty if it is not a struct.
    fields: BTreeSet<String>,
    required: BTreeSet<String>,
    /// What it says of each field, and of itself under an empty name.
    descriptions: BTreeMap<String, String>,
}

/// Reads the source of k8s-openapi from cargo's registry.
fn k8s_openapi(root: &Path) -> Result<BTreeMap<String, Known>, String> {
    let version = output(Command::new("rustc").arg("-vV").current_dir(root))?;
    let version = String::from_utf8_lossy(&version);
    // Restricted to this platform, because dependencies of other platforms may not have been downloaded.
    let host = version.lines().find_map(|l| l.strip_prefix("host: ")).ok_or("error: rustc -vV names no host")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = ["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform", host];
    let metadata = output(Command::new(cargo).args(args).current_dir(root))?;
    let metadata: Value = serde_json::from_slice(&metadata).map_err(|e| format!("error: cargo metadata: {e}"))?;
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let manifest = packages
        .iter()
        .find(|p| p["name"] == "k8s-openapi")
        .and_then(|p| p["manifest_path"].as_str())
        .ok_or("error: cargo metadata: k8s-openapi is not among the packages")?;
    let mut known = BTreeMap::new();
    read_sources(&PathBuf::from(manifest).with_file_name("src/v1_36"), &mut known)?;
    Ok(known)
}

fn read_sources(directory: &Path, known: &mut BTreeMap<String, Known>) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("error: {}: {e}", directory.display());
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            read_sources(&path, known)?;
            continue;
        }
        let text = fs::read_to_string(&path).map_err(failed)?;
        let definition = text.lines().next().and_then(|l| l.strip_prefix("// Generated from definition "));
        if let Some(name) = definition {
            let fields = quoted(&text, "deserializer.deserialize_struct(", "            &[", "            ],");
            let required = quoted(&text, "fn json_schema", "            \"required\": [", "            ],");
            known.insert(name.to_owned(), Known { fields, required, descriptions: described(&text) });
        }
    }
    Ok(())
}

/// The quoted words between the lines `from` and `to`, after the line `after`.
fn quoted(text: &str, after: &str, from: &str, to: &str) -> BTreeSet<String> {
    let lines = text.lines().skip_while(|l| !l.contains(after)).skip_while(|l| *l != from).skip(1);
    let word = |l: &str| l.trim().trim_end_matches(',').trim_matches('"').to_owned();
    lines.take_while(|l| *l != to).map(word).collect()
}

/// The descriptions in a type's JSON schema.
fn described(text: &str) -> BTreeMap<String, String> {
    let (mut all, mut field) = (BTreeMap::new(), String::new());
    for line in text.lines().skip_while(|l| !l.contains("fn json_schema")) {
        let depth = line.len() - line.trim_start().len();
        // A field that refers to another type.
        const INSERT: &str = "schema_obj.ensure_object().insert(\"description\".into(), ";
        if let (20, Some(literal)) = (depth, line.trim_start().strip_prefix(INSERT)) {
            let literal = literal.strip_suffix(".into());").unwrap_or(literal);
            all.entry(field.clone()).or_insert_with(|| unquoted(literal));
        }
        let Some((name, rest)) = line.trim_start().strip_prefix('"').and_then(|l| l.split_once("\": ")) else {
            continue;
        };
        match (depth, name, rest) {
            (16, name, "{" | "({") => name.clone_into(&mut field),
            (12 | 20, "description", literal) => {
                let of = if depth == 12 { String::new() } else { field.clone() };
                all.entry(of).or_insert_with(|| unquoted(literal.trim_end_matches(',')));
            }
            _ => {}
        }
    }
    all
}

/// The text of a literal.
fn unquoted(literal: &str) -> String {
    // Those of Rust and JSON have the same escapes, as long as none is by number.
    serde_json::from_str(literal).unwrap_or_else(|e| panic!("{e}: {literal}"))
}

/// What only Go's types say about a message.
#[derive(Default)]
struct Go {
    pointers: BTreeSet<String>,
    defaults: BTreeMap<String, String>,
}

fn go_types(path: &Path) -> Result<BTreeMap<String, Go>, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("error: {}: {e}", path.display()))?;
    let (mut all, mut message) = (BTreeMap::<String, Go>::new(), String::new());
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let mut words = line.split_whitespace();
        match (line.starts_with(' '), words.next()) {
            (false, Some(name)) => message = name.to_owned(),
            (true, Some("pointers")) => {
                all.entry(message.clone()).or_default().pointers.extend(words.map(str::to_owned));
            }
            (true, Some("default")) => {
                let (field, value) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
                all.entry(message.clone()).or_default().defaults.insert(field.to_owned(), value.to_owned());
            }
            _ => return Err(format!("error: {}: {line:?}: neither a message nor a fact", path.display())),
        }
    }
    Ok(all)
}

struct Maker<'a> {
    wire: &'a Value,
    open: &'a Value,
    known: &'a BTreeMap<String, Known>,
    go: &'a BTreeMap<String, Go>,
    keep: Keep,
}

/// A field as in JSON.
struct Field<'a> {
    name: String,
    /// Field numbers on the wire, from the message down to the field.
    numbers: Vec<u32>,
    wire: &'a Value,
    /// Whether it is a pointer in the message that has it on the wire.
    pointer: bool,
    default: Option<&'a str>,
}

impl<'a> Maker<'a> {
    fn make(&self) -> Result<String, String> {
        let mut packages: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let messages = self.wire.as_object().ok_or("error: protobuf-fields.json.gz: not an object")?;
        for name in messages.keys().filter(|n| self.is_kept(n)) {
            let (package, message) = name.rsplit_once('.').unwrap_or(("", name));
            packages.entry(package).or_default().push(message);
        }
        let mut out = HEADER.to_owned();
        for (package, names) in packages {
            self.package(package, &names, &mut out)?;
        }
        Ok(out)
    }

    /// Whether a message is in the table.
    fn is_kept(&self, name: &str) -> bool {
        if SCALARS.iter().any(|(n, _)| *n == name) {
            return false;
        }
        let (package, message) = name.rsplit_once('.').unwrap_or(("", name));
        let element = message.strip_suffix("List").map(|m| open_name(&format!("{package}.{m}")));
        self.keep == Keep::Everything
            || self.known.contains_key(&open_name(name))
            || element.is_some_and(|e| self.known.contains_key(&e))
            || WIRE_ONLY.contains(&short(package).as_str())
            || self.is_list(name) && self.known.keys().any(|k| k.starts_with(&format!("{}.", open_name(package))))
    }

    /// Whether a message is a named list: on the wire, a message whose only field is `items`.
    fn is_list(&self, name: &str) -> bool {
        let fields = self.wire[name].as_object();
        fields.is_some_and(|f| f.len() == 1 && f.values().all(|f| f["name"] == "items"))
            && !self.known.contains_key(&open_name(name))
    }

    /// Group and version of a definition that is a kind; `None` for other definitions.
    fn kind(&self, definition: &str) -> Option<(&str, &str)> {
        let kinds = self.open[definition]["x-kubernetes-group-version-kind"].as_array()?;
        let first = kinds.first()?;
        Some((first["group"].as_str()?, first["version"].as_str()?))
    }

    fn package(&self, package: &str, names: &[&str], out: &mut String) -> Result<(), String> {
        let prefix = open_name(package);
        let kinds = names.iter().find_map(|n| self.kind(&format!("{prefix}.{n}")));
        let short = short(package);
        let (group, version) = match (short.as_str(), kinds) {
            ("meta.v1", _) => (String::new(), "v1".to_owned()),
            (_, Some((group, version))) => (group.to_owned(), version.to_owned()),
            (short, None) => {
                let (name, version) = short.split_once('.').unwrap_or((short, ""));
                let plain = ["apps", "batch", "autoscaling", "policy", "extensions"].contains(&name);
                let group = match name {
                    "rbac" => "rbac.authorization.k8s.io".to_owned(),
                    "flowcontrol" => "flowcontrol.apiserver.k8s.io".to_owned(),
                    name if plain => name.to_owned(),
                    name => format!("{name}.k8s.io"),
                };
                (group, version.to_owned())
            }
        };
        let _ = writeln!(out, "\npackage {short} {prefix} {group}/{version}");
        for name in names {
            self.message(package, name, out)?;
        }
        Ok(())
    }

    fn message(&self, package: &str, name: &str, out: &mut String) -> Result<(), String> {
        let wire_name = format!("{package}.{name}");
        let definition = open_name(&wire_name);
        let (open, known) = (&self.open[definition.as_str()], self.known.get(&definition));
        let mut fields = Vec::new();
        self.flatten(&wire_name, &[], &mut fields)?;
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let has_type = fields.iter().any(|f| f.name == "apiVersion");
        let is_kind = self.kind(&definition).is_some() || self.is_wire_kind(package, name, &fields);
        out.push_str(name);
        for (flag, on) in [
            ("kind", is_kind && !has_type),
            ("atomic", open["x-kubernetes-map-type"] == "atomic"),
            ("list", self.is_list(&wire_name)),
        ] {
            if on {
                let _ = write!(out, " {flag}");
            }
        }
        out.push('\n');
        for field in &fields {
            let is_known = known.is_none_or(|k| k.fields.contains(&field.name));
            if is_known || self.keep == Keep::Everything {
                self.field(package, open, known, field, out)?;
            }
        }
        let missing = known.into_iter().flat_map(|k| &k.fields).find(|name| {
            let in_body = !["apiVersion", "kind"].contains(&name.as_str());
            in_body && !GONE.contains(&name.as_str()) && !fields.iter().any(|f| f.name == **name)
        });
        missing.map_or(Ok(()), |f| Err(format!("error: {definition}: 1.36 has a field {f} and the data has none")))
    }

    /// Whether a message is a kind of its own on the wire although OpenAPI does not list it.
    fn is_wire_kind(&self, package: &str, name: &str, fields: &[Field<'_>]) -> bool {
        let has_metadata = fields.iter().any(|f| {
            let of = f.wire["type"].as_str().unwrap_or("");
            f.name == "metadata" && (of.ends_with("meta.v1.ObjectMeta") || of.ends_with("meta.v1.ListMeta"))
        });
        let is_template = name.ends_with("TemplateSpec") || name.ends_with("ClaimTemplate");
        let in_meta = short(package) == "meta.v1" && (name.ends_with("Options") || name.starts_with("Table"));
        has_metadata && !is_template || in_meta || ["AdmissionReview", "PodMetrics", "NodeMetrics"].contains(&name)
    }

    /// Appends the fields of a message, replacing messages that JSON inlines by their fields.
    fn flatten(&self, message: &str, before: &[u32], fields: &mut Vec<Field<'a>>) -> Result<(), String> {
        let body = self.wire[message].as_object().ok_or_else(|| format!("error: {message}: not in the data"))?;
        let (package, name) = message.rsplit_once('.').unwrap_or(("", message));
        let go = self.go.get(&format!("{}.{name}", short(package)));
        for (number, wire) in body {
            let number = number.parse().map_err(|e| format!("error: {message}: field {number}: {e}"))?;
            let numbers: Vec<u32> = before.iter().copied().chain([number]).collect();
            let of = wire["type"].as_str().unwrap_or("");
            if wire["inline"] == true && !SCALARS.iter().any(|(n, _)| *n == of) {
                self.flatten(of, &numbers, fields)?;
                continue;
            }
            let name = json_name(message, wire["name"].as_str().unwrap_or(""));
            let pointer = go.is_some_and(|g| g.pointers.contains(&name));
            let default = go.and_then(|g| g.defaults.get(&name)).map(String::as_str);
            fields.push(Field { name, numbers, wire, pointer, default });
        }
        Ok(())
    }

    fn field(
        &self,
        package: &str,
        open: &Value,
        known: Option<&Known>,
        field: &Field<'_>,
        out: &mut String,
    ) -> Result<(), String> {
        let said = &open["properties"][field.name.as_str()];
        let required = match known {
            Some(known) => known.required.contains(&field.name),
            None => open["required"].as_array().is_some_and(|r| r.iter().any(|r| *r == *field.name)),
        };
        let numbers: Vec<String> = field.numbers.iter().map(u32::to_string).collect();
        let of = field.wire["type"].as_str().unwrap_or("");
        let scalar = SCALARS.iter().find(|(name, _)| *name == of);
        let of = match (scalar, of.rsplit_once('.')) {
            (Some((_, scalar)), _) => (*scalar).to_owned(),
            (None, Some((within, name))) if within == package => name.to_owned(),
            (None, Some((within, name))) => format!("{}.{name}", short(within)),
            (None, None) => of.to_owned(),
        };
        let around = match field.wire["card"].as_str() {
            Some("repeated") => "[]",
            Some("map") => "{}",
            _ => "",
        };
        let marks = [(required, "!"), (field.pointer, "*")];
        let marks: String = marks.iter().filter(|(on, _)| *on).map(|(_, mark)| *mark).collect();
        let _ = write!(out, " {}{marks} {} {around}{of}", field.name, numbers.join("."));
        for word in attributes(said)? {
            let _ = write!(out, " {word}");
        }
        if let Some(default) = field.default {
            let _ = write!(out, " default={default}");
        }
        out.push('\n');
        Ok(())
    }
}

/// The attributes of a field that follow from OpenAPI's extensions.
fn attributes(said: &Value) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let keys = |key: &str| -> Vec<String> {
        said[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    match said["x-kubernetes-list-type"].as_str() {
        Some("map") => words.push(format!("map={}", keys("x-kubernetes-list-map-keys").join(","))),
        Some(other) => words.push(other.to_owned()),
        None => {}
    }
    words.extend(said["x-kubernetes-map-type"].as_str().map(str::to_owned));
    for strategy in said["x-kubernetes-patch-strategy"].as_str().unwrap_or("").split(',').filter(|s| !s.is_empty()) {
        words.push(match (strategy, said["x-kubernetes-patch-merge-key"].as_str()) {
            ("merge", Some(key)) => format!("merge={key}"),
            ("merge" | "replace" | "retainKeys", _) => strategy.to_owned(),
            (other, _) => return Err(format!("error: patch strategy {other:?}: not known")),
        });
    }
    Ok(words)
}

/// OpenAPI's name for a message or package.
fn open_name(wire: &str) -> String {
    let name = wire.replacen("k8s.io.", "io.k8s.", 1);
    name.replacen("apiextensions_apiserver", "apiextensions-apiserver", 1).replacen(
        "kube_aggregator",
        "kube-aggregator",
        1,
    )
}

/// `core.v1` of `k8s.io.api.core.v1`.
fn short(package: &str) -> String {
    let mut words = package.rsplit('.');
    let (version, group) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    format!("{group}.{version}")
}

/// The JSON name of a field: in the data, some fields have their wire names.
fn json_name(message: &str, wire: &str) -> String {
    if message.ends_with(".JSONSchemaProps") {
        return match wire {
            "ref" | "schema" => format!("${wire}"),
            _ if wire.starts_with("xKubernetes") => wire.chars().fold(String::new(), |mut name, c| {
                if c.is_ascii_uppercase() {
                    name.push('-');
                }
                name.push(c.to_ascii_lowercase());
                name
            }),
            _ => wire.to_owned(),
        };
    }
    match wire {
        "aPIGroup" => "apiGroup".to_owned(),
        "Expression" | "Webhooks" => wire.to_ascii_lowercase(),
        _ => wire.to_owned(),
    }
}
