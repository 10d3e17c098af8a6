//! Content negotiation by the `Accept` header: encoding and shape of the response.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#alternate-representations-of-resources>.

use skeg_core::api::{Reason, Status};
use skeg_core::protobuf;

/// How a response is encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Encoding {
    /// `application/json`.
    #[default]
    Json,
    /// `application/yaml`. The body is JSON, which is valid YAML.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`. Tables and custom resources have no protobuf form and are sent as JSON.
    Protobuf,
}

/// Which parts of its objects a response shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Shape {
    /// Whole objects.
    #[default]
    Whole,
    /// Rows of a `Table` of this version of `meta.k8s.io`.
    Table(&'static str),
    /// `PartialObjectMetadata`, or a list of them, of this version of `meta.k8s.io`.
    Metadata(&'static str),
}

/// The negotiated encoding and shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Accepted {
    /// The encoding.
    pub encoding: Encoding,
    /// The shape.
    pub shape: Shape,
}

/// One media type of the `Accept` header.
struct Clause<'a> {
    media_type: String,
    params: Vec<(&'a str, &'a str)>,
}

impl Clause<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }
}

fn clauses(header: &str) -> impl Iterator<Item = Clause<'_>> {
    header.split(',').filter(|c| !c.trim().is_empty()).map(|clause| {
        let mut parts = clause.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        Clause { media_type, params: parts.filter_map(|p| p.split_once('=')).collect() }
    })
}

fn encoding(media_type: &str) -> Option<Encoding> {
    match media_type {
        "application/json" | "application/*" | "*/*" => Some(Encoding::Json),
        "application/yaml" => Some(Encoding::Yaml),
        protobuf::MEDIA_TYPE => Some(Encoding::Protobuf),
        _ => None,
    }
}

/// Returns the first media type of the header that the server supports; 406 if there is none.
pub fn negotiate(header: Option<&str>) -> Result<Accepted, Status> {
    let Some(header) = header.filter(|h| !h.trim().is_empty()) else { return Ok(Accepted::default()) };
    for clause in clauses(header) {
        let Some(encoding) = encoding(&clause.media_type) else { continue };
        let version = match clause.get("v") {
            Some("v1") => "meta.k8s.io/v1",
            Some("v1beta1") => "meta.k8s.io/v1beta1",
            Some(_) if clause.get("as").is_some() => continue,
            _ => "",
        };
        let shape = match clause.get("as") {
            None => Shape::Whole,
            // Tables have no protobuf form.
            Some("Table") if !version.is_empty() && encoding != Encoding::Protobuf => Shape::Table(version),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if !version.is_empty() => {
                Shape::Metadata(version)
            }
            Some(_) => continue,
        };
        return Ok(Accepted { encoding, shape });
    }
    let message = "only the following media types are accepted: application/json, application/yaml, \
                   application/vnd.kubernetes.protobuf"
        .into();
    Err(Status { reason: Reason::NotAcceptable, message, details: None })
}

/// The refusal to show something without metadata as a `Table`.
pub fn no_table(resource: &str) -> Status {
    let message = format!("the resource {resource} does not support being converted to a Table").into();
    Status { reason: Reason::NotAcceptable, message, details: None }
}

/// The first supported version of aggregated discovery that the header accepts; the response must have exactly this
/// version. `None`: the client gets unaggregated discovery.
pub fn discovery(header: Option<&str>) -> Option<&'static str> {
    for clause in clauses(header?) {
        if matches!(encoding(&clause.media_type), None | Some(Encoding::Protobuf)) {
            continue;
        }
        match (clause.get("as"), clause.get("g"), clause.get("v")) {
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => return Some("v2"),
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => return Some("v2beta1"),
            (None, None, None) => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Accepted, Encoding, Shape, discovery, negotiate};

    #[test]
    fn the_first_known_type_is_taken() {
        fn check(header: &str, encoding: Encoding, shape: Shape) {
            assert_eq!(negotiate(Some(header)).unwrap(), Accepted { encoding, shape }, "{header}");
        }
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,\
                       application/json";
        check(kubectl, Encoding::Json, Shape::Table("meta.k8s.io/v1"));
        check("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Encoding::Json, Shape::Table("meta.k8s.io/v1beta1"));
        check("application/vnd.kubernetes.protobuf, */*", Encoding::Protobuf, Shape::Whole);
        let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json";
        check(table, Encoding::Json, Shape::Whole);
        check("application/yaml", Encoding::Yaml, Shape::Whole);
        check("", Encoding::Json, Shape::Whole);
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
                        application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        check(metadata, Encoding::Protobuf, Shape::Metadata("meta.k8s.io/v1"));
        check("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", Encoding::Json, Shape::Whole);
        assert_eq!(negotiate(Some("text/html")).unwrap_err().reason.code(), 406);
    }

    #[test]
    fn discovery_is_answered_in_the_version_asked_for() {
        for (header, want) in [
            ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json", Some("v2")),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
                Some("v2beta1"),
            ),
            ("application/json", None),
            ("application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,application/json", None),
            ("*/*", None),
        ] {
            assert_eq!(discovery(Some(header)), want, "{header}");
        }
    }
}
