//! ImageLocality: a node scores by the images that it holds of those that a pod needs.
//!
//! An image counts by its size, in proportion to how many of the nodes hold it: a new image does not draw all its pods
//! to the first node that has it. Differs from the other scores in that a node's score depends on what others hold, so
//! it is computed for each decision, and only if any node's can be above zero.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use k8s_openapi::api::core::v1::{ContainerImage, PodSpec};

use super::cache::Slot;
use super::framework::MAX_NODE_SCORE;

/// Images that add up to no more than this, in bytes, score zero (`minThreshold`).
const LEAST: i64 = 23 << 20;
/// Images that add up to this for each container, in bytes, have the highest score (`maxContainerThreshold`).
const MOST_PER_CONTAINER: i64 = 1000 << 20;

#[derive(Debug)]
struct Image {
    /// As the first of the nodes that hold it has reported it.
    bytes: i64,
    on: BTreeSet<Slot>,
}

/// The images that nodes report, by the names that they report them under.
#[derive(Debug, Default)]
pub struct Images {
    known: BTreeMap<Rc<str>, Image>,
    on: BTreeMap<Slot, BTreeSet<Rc<str>>>,
}

/// What images that a pod needs are worth to it.
#[derive(Debug)]
pub struct Worth<'a> {
    images: Vec<(i64, &'a BTreeSet<Slot>)>,
    most: i64,
}

/// The name under which nodes report an image: with a tag or a digest.
fn reported_name(name: &str) -> Cow<'_, str> {
    if name.rfind(':') <= name.rfind('/') { Cow::Owned(format!("{name}:latest")) } else { Cow::Borrowed(name) }
}

/// The images that a pod needs, once for each time that it needs them.
fn needed(spec: &PodSpec) -> impl Iterator<Item = &str> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let volumes = spec.volumes.iter().flatten().filter_map(|volume| volume.image.as_ref());
    containers.filter_map(|c| c.image.as_deref()).chain(volumes.filter_map(|image| image.reference.as_deref()))
}

impl Images {
    /// Replaces the images of a node.
    pub fn put(&mut self, slot: Slot, images: &[ContainerImage]) {
        let mut now = BTreeMap::new();
        for image in images {
            for name in image.names.iter().flatten() {
                now.entry(name.as_str()).or_insert(image.size_bytes.unwrap_or(0));
            }
        }
        let before = self.on.remove(&slot).unwrap_or_default();
        for name in before.iter().filter(|name| !now.contains_key(&***name)) {
            self.forget(name, slot);
        }
        let names = now.into_iter().map(|(name, bytes)| self.hold(name, bytes, slot)).collect::<BTreeSet<_>>();
        if !names.is_empty() {
            self.on.insert(slot, names);
        }
    }

    fn hold(&mut self, name: &str, bytes: i64, slot: Slot) -> Rc<str> {
        let known = self.known.get_key_value(name);
        let held = known.map_or_else(|| Rc::from(name), |(held, _)| Rc::clone(held));
        let image = self.known.entry(Rc::clone(&held)).or_insert_with(|| Image { bytes, on: BTreeSet::new() });
        image.on.insert(slot);
        if image.on.len() == 1 {
            image.bytes = bytes;
        }
        held
    }

    fn forget(&mut self, name: &str, slot: Slot) {
        let image = self.known.get_mut(name).expect("an image that a node reports is known");
        image.on.remove(&slot);
        if image.on.is_empty() {
            self.known.remove(name);
        }
    }

    /// What the images of a pod are worth, of so many nodes; `None` if every node scores zero.
    pub fn worth(&self, spec: &PodSpec, nodes: usize) -> Option<Worth<'_>> {
        if self.known.is_empty() {
            return None;
        }
        let known = needed(spec).filter_map(|name| self.known.get(&*reported_name(name)));
        let share = |image: &Image| image.on.len() as f64 / nodes as f64;
        let images: Vec<_> = known.map(|image| ((image.bytes as f64 * share(image)) as i64, &image.on)).collect();
        // Image volumes do not raise it in 1.36 (kubernetes issue 138952).
        let containers = spec.init_containers.iter().flatten().count() + spec.containers.len();
        let is_some = images.iter().map(|(bytes, _)| bytes).sum::<i64>() > LEAST;
        is_some.then_some(Worth { images, most: MOST_PER_CONTAINER * containers as i64 })
    }
}

impl Worth<'_> {
    /// Adds each feasible node's score, times `weight`, to a column of scores; -1 stands for the other nodes.
    pub fn add(&self, weight: i64, scores: &mut [i32]) {
        let mut sums = vec![0; scores.len()];
        for (bytes, on) in &self.images {
            on.iter().for_each(|slot| sums[*slot as usize] += bytes);
        }
        for (score, sum) in scores.iter_mut().zip(sums).filter(|(score, sum)| **score >= 0 && *sum > LEAST) {
            *score += (weight * (MAX_NODE_SCORE * (sum.min(self.most) - LEAST) / (self.most - LEAST))) as i32;
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerImage, PodSpec};
    use serde_json::{Value, json};

    use super::{Images, reported_name};

    const MB: i64 = 1 << 20;

    fn images(all: &[(&str, i64)]) -> Vec<ContainerImage> {
        let image = |(name, mb): &(&str, i64)| ContainerImage {
            names: Some(vec![(*name).to_owned(), format!("{name}-too")]),
            size_bytes: Some(mb * MB),
        };
        all.iter().map(image).collect()
    }

    fn check(images: &Images, pod: &Value, expect: Option<[i32; 3]>) {
        let pod: PodSpec = serde_json::from_value(pod.clone()).unwrap();
        let mut scores = [0, 0, -1, 0];
        let worth = images.worth(&pod, 4);
        worth.iter().for_each(|worth| worth.add(1, &mut scores));
        assert_eq!((worth.is_some(), scores[2]), (expect.is_some(), -1), "{pod:?}");
        assert_eq!([scores[0], scores[1], scores[3]], expect.unwrap_or_default(), "{pod:?}");
    }

    #[test]
    fn scores_as_kube_scheduler() {
        let mut all = Images::default();
        let one = json!({"containers": [{"name": "c", "image": "r/web"}]});
        check(&all, &one, None);
        all.put(0, &images(&[("r/web:latest", 1000), ("r/db:1", 4000), ("r/small:1", 80)]));
        all.put(1, &images(&[("r/db:1", 9)]));
        all.put(2, &images(&[("r/web:latest", 1), ("r/db:1", 9)]));
        // 1000 MB on two of four nodes count as 500: 100 * (500 - 23) / (1000 - 23).
        check(&all, &one, Some([48, 0, 0]));
        // 4000 MB, as the first node has it, on three of four.
        let db = json!({"containers": [{"name": "c", "image": "r/db:1"}]});
        check(&all, &db, Some([100, 100, 0]));
        check(&all, &json!({"containers": [{"name": "c", "image": "r/small:1"}]}), None);
        check(&all, &json!({"containers": [{"name": "c", "image": "web"}]}), None);
        // Init containers count, each time; 100 * (1000 - 23) / (2000 - 23).
        let twice = json!({"initContainers": [{"name": "i", "image": "r/web"}],
            "containers": [{"name": "c", "image": "r/web:latest-too"}]});
        check(&all, &twice, Some([49, 0, 0]));
        // A volume's image counts too, and does not raise what can be reached.
        let volume = json!({"containers": [{"name": "c", "image": "r/web"}],
            "volumes": [{"name": "v", "image": {"reference": "r/web"}}]});
        check(&all, &volume, Some([100, 0, 0]));
        // When the first node lets go of it, the size stays what it was; when the last one does, it is unknown. The
        // third node, which has both, is not feasible.
        all.put(0, &[]);
        check(&all, &one, Some([0, 0, 0]));
        check(&all, &db, Some([0, 100, 0]));
        all.put(1, &[]);
        all.put(2, &[]);
        check(&all, &db, None);
        assert!(all.known.is_empty() && all.on.is_empty());
        all.put(3, &images(&[("r/db:1", 400)]));
        check(&all, &db, Some([0, 0, 7]));
    }

    #[test]
    fn names_have_a_tag() {
        for (name, expect) in [
            ("nginx", "nginx:latest"),
            ("nginx:1", "nginx:1"),
            ("r:5000/nginx", "r:5000/nginx:latest"),
            ("r:5000/nginx:1", "r:5000/nginx:1"),
            ("nginx@sha256:0", "nginx@sha256:0"),
        ] {
            assert_eq!(reported_name(name), expect);
        }
    }
}
