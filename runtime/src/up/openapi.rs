//! OpenAPI over HTTP: of v3 one document for each group and version, of v2 one for all. Each is generated and
//! compressed on the first request.
//!
//! Source: kube-openapi `pkg/handler3`, `pkg/handler`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use skeg_core::api::{Reason, Status};
use skeg_core::openapi::{self, Descriptions, location};
use skeg_core::random::mix_bytes;
use skeg_core::schema;

use super::aggregator::Remote;
use super::served::{Resource, Served};
use super::usage;

/// The type of a document of v2 in protobuf, as clients ask for it and as it is answered: the first is no media type.
const ASKED_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const JSON: &str = "application/json";

/// A document.
#[derive(Debug)]
pub struct Document {
    /// Its media type.
    pub media_type: &'static str,
    /// Hash of everything that the document depends on, for its URL and ETag.
    pub hash: String,
    /// The text, compressed.
    pub gzip: Vec<u8>,
}

impl Document {
    fn make(group: &str, version: &str, resources: &[Arc<Resource>]) -> Document {
        let described: Vec<_> = resources.iter().map(|r| describe(r)).collect();
        let text = descriptions();
        let value = openapi::document(&api_version(group, version), &described, &Descriptions::parse(&text));
        Document::compress(JSON, resources, value.to_string().as_bytes())
    }

    /// The document of v2.
    fn make_v2(media_type: &'static str, served: &Served, resources: &[Arc<Resource>]) -> Document {
        let versions = described(served).map(|(_, group, version)| {
            (api_version(group, version), served.of(group, version).map(|resource| describe(resource)).collect())
        });
        let text = descriptions();
        let value = openapi::document_v2(versions, &Descriptions::parse(&text));
        let text = if media_type == PROTOBUF { openapi::encode_v2(&value) } else { value.to_string().into_bytes() };
        Document::compress(media_type, resources, &text)
    }

    fn compress(media_type: &'static str, resources: &[Arc<Resource>], text: &[u8]) -> Document {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).expect("memory takes all");
        Document { media_type, hash: hash(resources), gzip: encoder.finish().expect("memory takes all") }
    }

    /// The text, uncompressed.
    pub fn plain(&self) -> Vec<u8> {
        decompress(&self.gzip)
    }
}

/// Kubernetes' descriptions of its types (Apache-2.0), as `cargo xtask schema` takes them from k8s-openapi.
static DESCRIPTIONS: &[u8] = include_bytes!("descriptions.gz");

fn descriptions() -> String {
    String::from_utf8(decompress(DESCRIPTIONS)).expect("it was made of text")
}

fn decompress(gzip: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(gzip).read_to_end(&mut plain).expect("it was compressed by this project");
    plain
}

/// The documents that have been generated, each with the resources that it describes. A document is regenerated when
/// they change.
#[derive(Default, Debug)]
pub struct Documents(Mutex<BTreeMap<String, (Vec<Arc<Resource>>, Arc<Document>)>>);

impl Documents {
    /// The document for a path such as `apis/apps/v1`; `None` if nothing is served there.
    pub fn get(&self, served: &Served, path: &str) -> Option<Arc<Document>> {
        let (_, group, version) = described(served).find(|(p, ..)| p == path)?;
        let resources: Vec<Arc<Resource>> = served.of(group, version).map(Arc::clone).collect();
        Some(self.cached(path, resources, |resources| Document::make(group, version, resources)))
    }

    /// The document of v2 in the first encoding of an `Accept` header that there is.
    pub fn get_v2(&self, served: &Served, accept: Option<&str>) -> Result<Arc<Document>, Status> {
        let media_type = v2_media_type(accept)?;
        let resources: Vec<Arc<Resource>> =
            described(served).flat_map(|(_, group, version)| served.of(group, version)).map(Arc::clone).collect();
        Ok(self.cached(media_type, resources, |resources| Document::make_v2(media_type, served, resources)))
    }

    fn cached(
        &self,
        name: &str,
        resources: Vec<Arc<Resource>>,
        make: impl FnOnce(&[Arc<Resource>]) -> Document,
    ) -> Arc<Document> {
        let mut made = self.0.lock().expect("nobody panics while a document is made");
        match made.get(name) {
            Some((of, document)) if *of == resources => Arc::clone(document),
            _ => {
                let document = Arc::new(make(&resources));
                made.insert(name.to_owned(), (resources, Arc::clone(&document)));
                document
            }
        }
    }
}

fn describe(resource: &Resource) -> openapi::Resource<'_> {
    openapi::Resource { info: &resource.info, schema: resource.schema() }
}

fn v2_media_type(accept: Option<&str>) -> Result<&'static str, Status> {
    let Some(accept) = accept else { return Ok(JSON) };
    let types = accept.split(',').map(|clause| clause.split(';').next().unwrap_or_default().trim());
    let found = types.into_iter().find_map(|named| match named {
        "" | "*/*" | "application/*" | JSON => Some(JSON),
        ASKED_PROTOBUF | PROTOBUF => Some(PROTOBUF),
        _ => None,
    });
    let message = "only the following media types are accepted: ";
    found.ok_or_else(|| Status {
        reason: Reason::NotAcceptable,
        message: format!("{message}{JSON}, {ASKED_PROTOBUF}").into(),
        details: None,
    })
}

/// The group-versions that have documents: all but the metrics, which metrics-server does not describe either.
fn described(served: &Served) -> impl Iterator<Item = (String, &str, &str)> {
    served.group_versions().into_iter().filter(|(_, group, _)| *group != usage::GROUP)
}

/// `/openapi/v3`: the URL of each document.
pub fn index(served: &Served, remotes: &[Remote]) -> Value {
    let hashes: Vec<(String, String)> = described(served)
        .map(|(_, group, version)| {
            let resources: Vec<Arc<Resource>> = served.of(group, version).map(Arc::clone).collect();
            (location(&api_version(group, version)), hash(&resources))
        })
        .collect();
    let mut index = openapi::index(hashes.iter().map(|(path, hash)| (path.as_str(), hash.as_str())));
    for remote in remotes.iter().filter(|remote| remote.is_available) {
        if let Some(url) = &remote.found.openapi {
            index["paths"][format!("apis/{}/{}", remote.group, remote.version)] = json!({"serverRelativeURL": url});
        }
    }
    index
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// A hash of everything that a document is generated from. It does not need the document, so the index is cheap.
fn hash(resources: &[Arc<Resource>]) -> String {
    let built_in = mix_bytes(schema::fingerprint(), DESCRIPTIONS);
    let all = resources.iter().fold(built_in, |hash, resource| {
        let hash = mix_bytes(hash, format!("{:?}", resource.info).as_bytes());
        mix_bytes(hash, resource.schema().map(Value::to_string).unwrap_or_default().as_bytes())
    });
    format!("{:016X}", mix_bytes(all, env!("CARGO_PKG_VERSION").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::{Documents, JSON, PROTOBUF, index};
    use crate::up::served::Served;
    use crate::up::served::tests::widgets;
    use serde_json::Value;

    #[test]
    fn every_document_of_the_index_is_there_under_its_hash() {
        let (served, documents) = (widgets(), Documents::default());
        let index = index(&served, &[]);
        for (path, entry) in index["paths"].as_object().unwrap() {
            let document = documents.get(&served, path).unwrap();
            assert_eq!(entry["serverRelativeURL"], format!("/openapi/v3/{path}?hash={}", document.hash));
            let value: Value = serde_json::from_slice(&document.plain()).unwrap();
            assert!(!value["paths"].as_object().unwrap().is_empty(), "{path}");
        }
        assert!(documents.get(&served, "apis/apps/v9").is_none());
        // When a definition is deleted, only the document of its group disappears.
        let (before, built_in) = (documents.get(&served, "apis/apps/v1").unwrap(), Served::built_in());
        assert!(documents.get(&built_in, "apis/example.com/v1").is_none());
        assert!(std::sync::Arc::ptr_eq(&documents.get(&built_in, "apis/apps/v1").unwrap(), &before));
    }

    #[test]
    fn v2_comes_in_the_first_encoding_that_is_accepted() {
        let (served, documents) = (widgets(), Documents::default());
        let check = |accept: Option<&str>, want: Option<&str>| {
            let got = documents.get_v2(&served, accept);
            assert_eq!(got.as_ref().ok().map(|document| document.media_type), want, "{accept:?}");
            assert_eq!(got.err().map(|status| status.reason.code()), want.is_none().then_some(406), "{accept:?}");
        };
        check(None, Some(JSON));
        check(Some("*/*"), Some(JSON));
        check(Some("application/com.github.proto-openapi.spec.v2@v1.0+protobuf"), Some(PROTOBUF));
        check(Some("text/html, application/com.github.proto-openapi.spec.v2.v1.0+protobuf;q=0.9"), Some(PROTOBUF));
        check(Some("text/html"), None);
        let document = documents.get_v2(&served, None).unwrap();
        let value: Value = serde_json::from_slice(&document.plain()).unwrap();
        assert!(value["definitions"].get("com.example.v1.Widget").is_some());
        assert!(std::sync::Arc::ptr_eq(&documents.get_v2(&served, None).unwrap(), &document));
    }
}
