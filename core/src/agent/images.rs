//! Images on the node: which are present, which are being pulled, and what a container's pull policy requires.
//!
//! Containers that need the same image at the same time share one pull.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use super::runtime::{ImageInfo, OpId, PullSecret};
use crate::limits::{IMAGE_PULL_TIMEOUT, NODE_STATUS_MAX_IMAGES};
use crate::machine::Mono;

/// What the pull policy requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pull {
    /// The image is present and may be used.
    Present,
    /// It must be pulled first.
    Needed,
    /// The image is not present and must not be pulled.
    Forbidden,
}

/// A container that waits for an image: slot of its pod and index of the container.
pub(super) type Waiter = (u32, u16);

#[derive(Debug)]
struct Pulling {
    op: OpId,
    /// With what it is pulled. Who has other credentials may not share it.
    secrets: Vec<PullSecret>,
    since: Mono,
    waiters: Vec<Waiter>,
}

/// The images of one node.
#[derive(Debug, Default)]
pub(super) struct Images {
    /// By full name: the name by which the runtime lists it, and its size in bytes.
    present: BTreeMap<Rc<str>, (Rc<str>, u64)>,
    /// By name.
    pulling: BTreeMap<Rc<str>, Vec<Pulling>>,
    changed: bool,
}

/// A pull that has completed or timed out: who waited for it and since when.
pub(super) struct EndedPull {
    /// The containers that wait for it.
    pub(super) waiters: Vec<Waiter>,
    /// When it was started.
    pub(super) since: Mono,
}

impl Images {
    /// Applies the images of a runtime list.
    pub(super) fn listed(&mut self, images: Vec<ImageInfo>) {
        let listed: BTreeMap<_, _> = images.into_iter().map(|i| (full_name(&i.image), (i.image, i.bytes))).collect();
        self.changed |= listed != self.present;
        self.present = listed;
    }

    /// Decides what to do about a container's image.
    pub(super) fn decide(&self, container: &core_v1::Container) -> Pull {
        let image = container.image.as_deref().unwrap_or("");
        let present = self.present.contains_key(&full_name(image));
        match (pull_policy(container), present) {
            ("Never", false) => Pull::Forbidden,
            ("Never" | "IfNotPresent", true) => Pull::Present,
            _ => Pull::Needed,
        }
    }

    /// Registers a container that waits for an image. If no pull of it with these credentials is in flight, a pull must
    /// be started: returns its command id, made by `op`, and the image.
    pub(super) fn wait(
        &mut self,
        image: &str,
        secrets: &[PullSecret],
        waiter: Waiter,
        now: Mono,
        op: impl FnOnce() -> OpId,
    ) -> Option<(OpId, Rc<str>)> {
        let pulls = self.pulling.get_mut(image);
        if let Some(pull) = pulls.and_then(|pulls| pulls.iter_mut().find(|pull| pull.secrets == secrets)) {
            pull.waiters.push(waiter);
            return None;
        }
        let (name, op): (Rc<str>, _) = (Rc::from(image), op());
        let pull = Pulling { op, secrets: secrets.to_vec(), since: now, waiters: vec![waiter] };
        self.pulling.entry(Rc::clone(&name)).or_default().push(pull);
        Some((op, name))
    }

    /// Handles the completion of a pull.
    pub(super) fn ended(&mut self, op: OpId, info: Option<&ImageInfo>) -> Option<EndedPull> {
        let mut pulls = self.pulling.iter().flat_map(|(name, pulls)| pulls.iter().map(move |pull| (name, pull)));
        let name = pulls.find(|(_, pull)| pull.op == op).map(|(name, _)| Rc::clone(name))?;
        let pulls = self.pulling.get_mut(&name)?;
        let pull = pulls.remove(pulls.iter().position(|pull| pull.op == op)?);
        if pulls.is_empty() {
            self.pulling.remove(&name);
        }
        if let Some(info) = info {
            let listed = (name, info.bytes);
            let key = full_name(&listed.0);
            self.changed |= self.present.insert(key, listed.clone()).is_none_or(|old| old.1 != listed.1);
        }
        Some(EndedPull { waiters: pull.waiters, since: pull.since })
    }

    /// Whether an image of one of these names is being pulled.
    pub(super) fn is_pulling(&self, names: &[Rc<str>]) -> bool {
        let names: BTreeSet<Rc<str>> = names.iter().map(|name| full_name(name)).collect();
        self.pulling.keys().any(|pulling| names.contains(&full_name(pulling)))
    }

    /// Handles that an image is about to be removed: nothing is created of it any more.
    pub(super) fn forget(&mut self, names: &[Rc<str>]) {
        for name in names.iter().map(|name| full_name(name)) {
            self.changed |= self.present.remove(&name).is_some();
        }
    }

    /// When the oldest pull times out.
    #[inline(always)]
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.pulling.values().flatten().map(|p| p.since + IMAGE_PULL_TIMEOUT).min()
    }

    /// A pull that has timed out.
    pub(super) fn overdue(&self, now: Mono) -> Option<OpId> {
        self.pulling.values().flatten().find(|p| p.since + IMAGE_PULL_TIMEOUT <= now).map(|p| p.op)
    }

    /// Whether the list has changed since the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The images in the form of `node.status.images`: largest first.
    pub(super) fn status(&self, limit: usize) -> Vec<core_v1::ContainerImage> {
        if limit == 0 {
            return Vec::new();
        }
        let mut all: Vec<_> = self.present.values().map(|(name, bytes)| (name, bytes)).collect();
        all.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let limit = limit.min(NODE_STATUS_MAX_IMAGES);
        let one = |(name, bytes): (&Rc<str>, &u64)| core_v1::ContainerImage {
            names: Some(vec![name.to_string()]),
            size_bytes: Some(i64::try_from(*bytes).unwrap_or(i64::MAX)),
        };
        all.into_iter().take(limit).map(one).collect()
    }
}

/// The full name of an image, by which `nginx`, `nginx:latest` and `docker.io/library/nginx:latest` are one
/// (`github.com/distribution/reference`).
pub(super) fn full_name(image: &str) -> Rc<str> {
    let (name, digest) = image.split_once('@').map_or((image, ""), |(name, digest)| (name, digest));
    let last = name.rsplit('/').next().unwrap_or(name);
    let (name, tag) = match last.split_once(':') {
        Some((_, tag)) => (&name[..name.len() - tag.len() - 1], tag),
        None => (name, "latest"),
    };
    let host = |first: &str| first.contains(['.', ':']) || first == "localhost";
    let name = match name.split_once('/') {
        Some(("index.docker.io", rest)) => format!("docker.io/{rest}"),
        Some((first, _)) if host(first) => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    };
    // With a digest, the tag means nothing.
    Rc::from(if digest.is_empty() { format!("{name}:{tag}") } else { format!("{name}@{digest}") })
}

/// `imagePullPolicy`, with Kubernetes' default: `Always` for `:latest` or no tag, else `IfNotPresent`.
fn pull_policy(container: &core_v1::Container) -> &str {
    match container.image_pull_policy.as_deref() {
        Some(policy) if !policy.is_empty() => policy,
        _ => {
            let image = container.image.as_deref().unwrap_or("");
            let last = image.rsplit('/').next().unwrap_or(image);
            let latest = !last.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest");
            if latest { "Always" } else { "IfNotPresent" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Images, Pull};
    use crate::agent::runtime::{ImageInfo, OpId, PullSecret};
    use crate::machine::Mono;
    use k8s_openapi::api::core::v1::Container;

    #[test]
    fn policies() {
        let mut images = Images::default();
        images.listed(vec![ImageInfo { image: "r:5/a:1".into(), bytes: 7 }, ImageInfo { image: "a".into(), bytes: 9 }]);
        for (image, policy, expect) in [
            ("r:5/a:1", "", Pull::Present),
            ("r:5/a:1", "Always", Pull::Needed),
            ("a", "", Pull::Needed),
            ("a", "IfNotPresent", Pull::Present),
            ("b:1", "", Pull::Needed),
            ("b:1", "Never", Pull::Forbidden),
            ("a", "Never", Pull::Present),
        ] {
            let image_pull_policy = (!policy.is_empty()).then(|| policy.to_owned());
            let c = Container { image: Some(image.to_owned()), image_pull_policy, ..Container::default() };
            assert_eq!(images.decide(&c), expect, "{image} {policy}");
        }
        assert_eq!(images.status(50)[0].size_bytes, Some(9), "the largest first");
    }

    #[test]
    fn pulls_of_one_image_are_shared() {
        let mut images = Images::default();
        let secrets = [PullSecret { is_dockercfg: false, config: b"{}".to_vec() }];
        assert!(images.wait("a:1", &[], (0, 0), Mono(5), || OpId(1)).is_some());
        assert!(images.wait("a:1", &[], (1, 0), Mono(6), || OpId(2)).is_none());
        assert!(images.wait("a:1", &secrets, (2, 0), Mono(7), || OpId(3)).is_some(), "it may do more");
        assert!(images.wait("a:1", &secrets, (3, 0), Mono(8), || OpId(4)).is_none());
        let info = ImageInfo { image: "a:1".into(), bytes: 1 };
        assert_eq!(images.ended(OpId(1), Some(&info)).unwrap().waiters, [(0, 0), (1, 0)]);
        assert!(images.take_changed() && !images.take_changed());
        assert!(images.ended(OpId(1), Some(&info)).is_none());
        assert_eq!(images.ended(OpId(3), None).unwrap().waiters, [(2, 0), (3, 0)]);
        assert_eq!(images.deadline(), None);
    }
}
