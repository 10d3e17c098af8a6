//! OpenAPI v3 over HTTP: one document for each group and version, generated and compressed on the first request.
//!
//! Source: kube-openapi `pkg/handler3`.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::Value;
use skeg_core::openapi::{self, location};
use skeg_core::random::mix_bytes;
use skeg_core::schema;

use super::served::{Resource, Served};
use super::usage;

/// A document of one group and version.
#[derive(Debug)]
pub struct Document {
    /// Hash of everything that the document depends on, for its URL and ETag.
    pub hash: String,
    /// The JSON, compressed.
    pub gzip: Vec<u8>,
}

impl Document {
    fn make(group: &str, version: &str, resources: &[Arc<Resource>]) -> Document {
        let described: Vec<openapi::Resource<'_>> =
            resources.iter().map(|r| openapi::Resource { info: &r.info, schema: r.schema() }).collect();
        let value = openapi::document(&api_version(group, version), &described);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        serde_json::to_writer(&mut encoder, &value).expect("memory takes all");
        Document { hash: hash(resources), gzip: encoder.finish().expect("memory takes all") }
    }

    /// The JSON, uncompressed.
    pub fn plain(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        GzDecoder::new(&*self.gzip).read_to_end(&mut plain).expect("it was compressed here");
        plain
    }
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
        let mut made = self.0.lock().expect("nobody panics while a document is made");
        match made.get(path) {
            Some((of, document)) if *of == resources => Some(Arc::clone(document)),
            _ => {
                let document = Arc::new(Document::make(group, version, &resources));
                made.insert(path.to_owned(), (resources, Arc::clone(&document)));
                Some(document)
            }
        }
    }
}

/// The group-versions that have documents: all but the metrics, which metrics-server does not describe either.
fn described(served: &Served) -> impl Iterator<Item = (String, &str, &str)> {
    served.group_versions().into_iter().filter(|(_, group, _)| *group != usage::GROUP)
}

/// `/openapi/v3`: the URL of each document.
pub fn index(served: &Served) -> Value {
    let hashes: Vec<(String, String)> = described(served)
        .map(|(_, group, version)| {
            let resources: Vec<Arc<Resource>> = served.of(group, version).map(Arc::clone).collect();
            (location(&api_version(group, version)), hash(&resources))
        })
        .collect();
    openapi::index(hashes.iter().map(|(path, hash)| (path.as_str(), hash.as_str())))
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// A hash of everything that a document is generated from. It does not need the document, so the index is cheap.
fn hash(resources: &[Arc<Resource>]) -> String {
    let all = resources.iter().fold(schema::fingerprint(), |hash, resource| {
        let hash = mix_bytes(hash, format!("{:?}", resource.info).as_bytes());
        mix_bytes(hash, resource.schema().map(Value::to_string).unwrap_or_default().as_bytes())
    });
    format!("{:016X}", mix_bytes(all, env!("CARGO_PKG_VERSION").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::{Documents, index};
    use crate::up::served::Served;
    use crate::up::served::tests::widgets;
    use serde_json::Value;

    #[test]
    fn every_document_of_the_index_is_there_under_its_hash() {
        let (served, documents) = (widgets(), Documents::default());
        let index = index(&served);
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
}
