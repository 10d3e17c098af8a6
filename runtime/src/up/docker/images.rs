//! Images: what the engine has, pulling, and removing.

use std::collections::BTreeSet;
use std::rc::Rc;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use skeg_core::agent::StoredImage;

use super::engine::{Engine, Failure, query};
use super::keyring::{Credential, Keyring};
use super::pause;

/// An image as the engine lists it.
#[derive(Clone, Debug)]
pub struct Image {
    /// A name of it.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Why an image could not be pulled: reason and message.
pub type Why = (&'static str, String);

/// Every name of every image.
pub async fn list(engine: &Engine) -> Result<Vec<Image>, Failure> {
    let listed = engine.get("/images/json").await?;
    let mut all = Vec::new();
    for image in listed.as_array().into_iter().flatten() {
        let bytes = image["Size"].as_u64().unwrap_or(0);
        let names = names(image, "RepoTags").chain(names(image, "RepoDigests"));
        all.extend(names.map(|name| Image { name: name.to_owned(), bytes }));
    }
    Ok(all)
}

/// An image under all of its names, as the agent wants it for their collection.
#[derive(Clone, Debug)]
pub struct Stored {
    id: String,
    names: Vec<String>,
    bytes: u64,
    in_use: bool,
    pinned: bool,
}

impl Stored {
    /// In the words of the agent.
    pub fn told(self) -> StoredImage {
        StoredImage {
            id: self.id.into(),
            names: self.names.into_iter().map(Rc::from).collect(),
            bytes: self.bytes,
            in_use: self.in_use,
            pinned: self.pinned,
        }
    }
}

/// The disk that the engine's files are on: its size, and what is free of it.
pub fn disk(root: &str) -> Result<(u64, u64), String> {
    let fs = rustix::fs::statvfs(root).map_err(|e| format!("{root}: {e}"))?;
    Ok((fs.f_blocks.saturating_mul(fs.f_frsize), fs.f_bavail.saturating_mul(fs.f_frsize)))
}

fn names<'a>(image: &'a Value, field: &str) -> impl Iterator<Item = &'a str> {
    let names = image[field].as_array().into_iter().flatten().filter_map(Value::as_str);
    names.filter(|name| !name.contains("<none>"))
}

/// Every image, and whether a container is of it, whoever's that is.
pub async fn stored(engine: &Engine) -> Result<Vec<Stored>, Failure> {
    let (images, containers) = (engine.get("/images/json").await?, engine.get("/containers/json?all=1").await?);
    let used = containers.as_array().into_iter().flatten().filter_map(|c| c["ImageID"].as_str());
    let used: BTreeSet<&str> = used.collect();
    let stored = |image: &Value| {
        let id = image["Id"].as_str()?;
        let names = names(image, "RepoTags").chain(names(image, "RepoDigests")).map(str::to_owned);
        Some(Stored {
            id: id.to_owned(),
            names: names.collect(),
            bytes: image["Size"].as_u64().unwrap_or(0),
            in_use: used.contains(id),
            pinned: self::names(image, "RepoTags").any(|name| name == pause::IMAGE),
        })
    };
    Ok(images.as_array().into_iter().flatten().filter_map(stored).collect())
}

/// Removes an image with all of its names. One that a container is of is not removed.
pub async fn remove(engine: &Engine, id: &str) -> Result<(), Failure> {
    let image = match engine.get(&format!("/images/{id}/json")).await {
        Err(e) if e.is_missing() => return Ok(()),
        image => image?,
    };
    // With the last name of one kind the image may go, and the others with it.
    for name in names(&image, "RepoTags").chain(names(&image, "RepoDigests")) {
        engine.remove(&format!("/images/{name}")).await?;
    }
    engine.remove(&format!("/images/{id}")).await
}

/// What identifies an image: the digest by which it can be pulled again, or else its id.
pub fn id_of(image: &Value) -> String {
    let digest = image["RepoDigests"][0].as_str();
    digest.or(image["Id"].as_str()).unwrap_or_default().to_owned()
}

/// Pulls an image. Of several credentials that may be meant, each is tried until the registry accepts one.
pub async fn pull(engine: &Engine, name: &str, keyring: Result<Keyring, String>) -> Result<Image, Why> {
    let keyring = keyring.map_err(|why| ("ErrImagePull", why))?;
    let credentials = keyring.lookup(name);
    if credentials.is_empty() {
        return pull_as(engine, name, None).await;
    }
    let mut failures: Vec<Why> = Vec::new();
    for credential in &credentials {
        match pull_as(engine, name, Some(credential)).await {
            Ok(image) => return Ok(image),
            Err((reason, why)) => failures.push((reason, credential.hidden_in(&why))),
        }
    }
    let reason = failures[0].0;
    failures.dedup();
    match failures.as_slice() {
        [(_, why)] => Err((reason, why.clone())),
        several => {
            Err((reason, format!("[{}]", several.iter().map(|(_, w)| w.as_str()).collect::<Vec<_>>().join(", "))))
        }
    }
}

async fn pull_as(engine: &Engine, name: &str, credential: Option<&Credential>) -> Result<Image, Why> {
    let failed = |e: Failure| match &e {
        Failure::Refused(400, why) if why.contains("invalid reference format") => (
            "InvalidImageName",
            format!("Failed to apply default image tag {name:?}: couldn't parse image name: {why}"),
        ),
        _ => ("ErrImagePull", e.to_string()),
    };
    // Without a tag, the engine would pull all of them.
    let last = name.rsplit('/').next().unwrap_or(name);
    let tagged = if last.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") };
    let path = format!("/images/create?{}", query(&[("fromImage", &tagged)]));
    let body = engine.pull(&path, credential.map(Credential::header)).await.map_err(failed)?;
    finish(body).await.map_err(|why| ("ErrImagePull", format!("Error response from daemon: {why}")))?;
    let image = engine.get(&format!("/images/{tagged}/json")).await.map_err(failed)?;
    Ok(Image { name: name.to_owned(), bytes: image["Size"].as_u64().unwrap_or(0) })
}

/// Reads the progress of a pull or an import until its end; the error that it tells.
pub async fn finish(body: Incoming) -> Result<(), String> {
    let bytes = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
    let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let mut errors = lines.filter_map(|line| line["error"].as_str().map(str::to_owned));
    errors.next().map_or(Ok(()), Err)
}
