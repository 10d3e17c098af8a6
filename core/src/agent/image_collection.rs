//! Removal of images that nothing uses, once their disk is too full: the least recently used first, until it is empty
//! enough.
//!
//! An image that a container is of is never removed, whether that runs or not, nor one that has come just now: it may
//! be about to be used.
//!
//! Source: kubernetes `pkg/kubelet/images/image_gc_manager.go`, `pkg/kubelet/kubelet.go` (`StartGarbageCollection`);
//! <https://kubernetes.io/docs/concepts/architecture/garbage-collection/#containers-images>.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Out;
use super::images::{Images, full_name};
use super::pod::{IMAGES_SLOT, OP_BITS};
use super::runtime::{ImageDisk, OpId, RuntimeCommand, RuntimeError, RuntimeEvent};
use crate::limits::RUNTIME_REQUEST_TIMEOUT;
use crate::machine::{Deadline, Mono, Now};

/// When images are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePolicy {
    /// From which use of their disk on, in percent (`imageGCHighThresholdPercent`); 100: never.
    pub high_percent: u8,
    /// Down to which use (`imageGCLowThresholdPercent`).
    pub low_percent: u8,
    /// How long an image is kept after it was first seen (`imageMinimumGCAge`).
    pub minimum_age: Duration,
    /// How often the disk is looked at (`ImageGCPeriod`).
    pub period: Duration,
    /// Whether also those are removed that the agent has not pulled itself since it began.
    pub of_others: bool,
}

impl Default for ImagePolicy {
    fn default() -> ImagePolicy {
        ImagePolicy {
            high_percent: 85,
            low_percent: 80,
            minimum_age: Duration::from_secs(120),
            period: Duration::from_secs(300),
            of_others: true,
        }
    }
}

/// What is known of an image. What was there at first counts as older than everything (`None`), and so does what was
/// never seen in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    last_used: Option<Mono>,
    first_seen: Option<Mono>,
}

/// An image that is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Victim {
    id: Rc<str>,
    names: Vec<Rc<str>>,
    bytes: u64,
}

/// How many bytes are to be freed, so that the disk is used to no more than the lower threshold; `None` if it is not
/// used to the higher one.
fn to_free(policy: &ImagePolicy, disk: &ImageDisk) -> Option<u64> {
    let available = disk.available.min(disk.capacity);
    let used_percent = 100 - u128::from(available) * 100 / u128::from(disk.capacity.max(1));
    if policy.high_percent >= 100 || used_percent < u128::from(policy.high_percent) {
        return None;
    }
    let wanted = u128::from(disk.capacity) * (100 - u128::from(policy.low_percent)) / 100;
    Some(u64::try_from(wanted).unwrap_or(u64::MAX).saturating_sub(available))
}

/// The images that may go, in the order in which they do.
fn victims(
    policy: &ImagePolicy,
    disk: &ImageDisk,
    records: &BTreeMap<Rc<str>, Record>,
    (images, pulled): (&Images, &BTreeSet<Rc<str>>),
    now: Mono,
) -> VecDeque<Victim> {
    let may_go = |record: &Record| record.first_seen.is_none_or(|at| now.since(at) >= policy.minimum_age);
    let candidates = disk.images.iter().filter(|image| !image.in_use && !image.pinned);
    let candidates = candidates.filter(|image| !images.is_pulling(&image.names));
    let candidates = candidates.filter(|image| policy.of_others || has_pulled(pulled, &image.names));
    let known = candidates.filter_map(|image| Some((*records.get(&image.id)?, image)));
    let mut all: Vec<_> = known.filter(|(record, _)| may_go(record)).collect();
    all.sort_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.id.cmp(&other.id)));
    let victim = |(_, image): (Record, &super::runtime::StoredImage)| Victim {
        id: Rc::clone(&image.id),
        names: image.names.clone(),
        bytes: image.bytes,
    };
    all.into_iter().map(victim).collect()
}

fn has_pulled(pulled: &BTreeSet<Rc<str>>, names: &[Rc<str>]) -> bool {
    names.iter().any(|name| pulled.contains(&full_name(name)))
}

/// What is being done.
#[derive(Debug)]
enum Phase {
    Resting,
    /// The list has been asked for.
    Listing(OpId),
    /// An image is being removed.
    Removing {
        op: OpId,
        bytes: u64,
        round: Round,
    },
}

/// One removal of images.
#[derive(Debug)]
struct Round {
    wanted: u64,
    freed: u64,
    left: VecDeque<Victim>,
    failures: Vec<String>,
}

/// Reason and message of an Event about the Node.
pub(super) type Said = (&'static str, String);

/// Removes images. What it wants to be told about the Node, it returns.
#[derive(Debug)]
pub(super) struct ImageCollector {
    policy: ImagePolicy,
    /// By id.
    records: BTreeMap<Rc<str>, Record>,
    /// Full names of those that were pulled since the agent began.
    pulled: BTreeSet<Rc<str>>,
    /// Whether the images have been looked at before.
    begun: bool,
    phase: Phase,
    /// When to look again, or when the phase is overdue.
    next: Mono,
    last_op: u64,
    /// The last round has failed. One failure is not told.
    failed: bool,
    removed: bool,
    sweep: Sweep,
}

/// Whether all images must go that may, because the disk is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sweep {
    No,
    /// After what is being done now.
    Wanted,
    /// This round.
    Now,
    /// It has been done.
    Done,
}

impl ImageCollector {
    pub(super) fn new(policy: ImagePolicy) -> ImageCollector {
        ImageCollector {
            policy,
            records: BTreeMap::new(),
            pulled: BTreeSet::new(),
            begun: false,
            phase: Phase::Resting,
            next: Mono::ZERO,
            last_op: 0,
            failed: false,
            removed: false,
            sweep: Sweep::No,
        }
    }

    /// Has all images removed that may be, whatever the disk is used to. [`ImageCollector::take_swept`] tells the end.
    pub(super) fn sweep(&mut self, now: Mono) {
        self.sweep = Sweep::Wanted;
        if matches!(self.phase, Phase::Resting) {
            self.next = now;
        }
    }

    /// Whether they have been removed since the last call.
    pub(super) fn take_swept(&mut self) -> bool {
        let is_done = self.sweep == Sweep::Done;
        if is_done {
            self.sweep = Sweep::No;
        }
        is_done
    }

    /// Handles that an image was pulled.
    pub(super) fn pulled(&mut self, name: &str) {
        self.pulled.insert(full_name(name));
    }

    /// Whether images were removed since the last call.
    pub(super) fn take_removed(&mut self) -> bool {
        std::mem::take(&mut self.removed)
    }

    pub(super) fn poll_timeout(&self) -> Deadline {
        let why = match self.phase {
            Phase::Resting => "look at the disk of images",
            Phase::Listing(_) | Phase::Removing { .. } => "the removal of images is overdue",
        };
        Deadline { at: self.next, why }
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Now, images: &mut Images, out: &mut Vec<Out>) -> Vec<Said> {
        if self.next > now.mono {
            return Vec::new();
        }
        let late = || "context deadline exceeded".to_owned();
        match std::mem::replace(&mut self.phase, Phase::Resting) {
            Phase::Resting => {
                if self.sweep == Sweep::Wanted {
                    self.sweep = Sweep::Now;
                }
                let op = self.op(now);
                self.phase = Phase::Listing(op);
                out.push(Out::Runtime(RuntimeCommand::ListImages { op }));
                Vec::new()
            }
            Phase::Listing(_) => self.ended(now, Err(late())),
            Phase::Removing { mut round, .. } => {
                round.failures.push(late());
                self.go_on(now, round, images, out)
            }
        }
    }

    /// Handles what the runtime says about images.
    pub(super) fn handle(
        &mut self,
        now: Now,
        event: RuntimeEvent,
        images: &mut Images,
        out: &mut Vec<Out>,
    ) -> Vec<Said> {
        match (std::mem::replace(&mut self.phase, Phase::Resting), event) {
            (Phase::Listing(asked), RuntimeEvent::ImagesListed { op, result }) if op == asked => {
                self.listed(now, result, images, out)
            }
            (Phase::Removing { op: asked, bytes, mut round }, RuntimeEvent::ImageRemoved { op, result })
                if op == asked =>
            {
                self.removed = true;
                match result {
                    Ok(()) => round.freed = round.freed.saturating_add(bytes),
                    Err(e) => round.failures.push(e.message.to_string()),
                }
                self.go_on(now, round, images, out)
            }
            // It was late.
            (phase, _) => {
                self.phase = phase;
                Vec::new()
            }
        }
    }

    fn op(&mut self, now: Now) -> OpId {
        self.last_op += 1;
        self.next = now.mono + RUNTIME_REQUEST_TIMEOUT;
        OpId(u64::from(IMAGES_SLOT) << OP_BITS | self.last_op)
    }

    fn listed(
        &mut self,
        now: Now,
        result: Result<ImageDisk, RuntimeError>,
        images: &mut Images,
        out: &mut Vec<Out>,
    ) -> Vec<Said> {
        let disk = match result {
            Ok(disk) => disk,
            Err(e) => return self.ended(now, Err(format!("failed to get image stats: {}", e.message))),
        };
        self.note(now.mono, &disk);
        if disk.capacity == 0 {
            let why = "invalid capacity 0 on image filesystem".to_owned();
            let mut said = vec![("InvalidDiskCapacity", why.clone())];
            said.extend(self.ended(now, Err(why)));
            return said;
        }
        let wanted = if self.sweep == Sweep::Now { Some(u64::MAX) } else { to_free(&self.policy, &disk) };
        let Some(wanted) = wanted else { return self.ended(now, Ok(())) };
        let left = victims(&self.policy, &disk, &self.records, (images, &self.pulled), now.mono);
        self.go_on(now, Round { wanted, freed: 0, left, failures: Vec::new() }, images, out)
    }

    /// Notes which images there are, and which of them are in use.
    fn note(&mut self, now: Mono, disk: &ImageDisk) {
        let first_seen = self.begun.then_some(now);
        self.begun = true;
        let known = std::mem::take(&mut self.records);
        for image in &disk.images {
            let mut record = known.get(&image.id).copied().unwrap_or(Record { last_used: None, first_seen });
            if image.in_use {
                record.last_used = Some(now);
            }
            self.records.insert(Rc::clone(&image.id), record);
        }
    }

    /// Removes the next image, or ends the round.
    fn go_on(&mut self, now: Now, mut round: Round, images: &mut Images, out: &mut Vec<Out>) -> Vec<Said> {
        if round.freed < round.wanted
            && let Some(Victim { id, names, bytes }) = round.left.pop_front()
        {
            images.forget(&names);
            self.pulled.retain(|pulled| names.iter().all(|name| full_name(name) != *pulled));
            let op = self.op(now);
            out.push(Out::Runtime(RuntimeCommand::RemoveImage { op, id }));
            self.phase = Phase::Removing { op, bytes, round };
            return Vec::new();
        }
        let Round { wanted, freed, failures, .. } = round;
        if !failures.is_empty() {
            let failures = match failures.as_slice() {
                [one] => one.clone(),
                several => format!("[{}]", several.join(", ")),
            };
            let why = format!(
                "wanted to free {wanted} bytes, but freed {freed} bytes space with errors in image deletion: {failures}"
            );
            return self.ended(now, Err(why));
        }
        // How much a sweep frees, whoever wanted it will see.
        if freed < wanted && self.sweep != Sweep::Now {
            let why = format!(
                "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found \
                 {freed} bytes eligible to free."
            );
            let mut said = vec![("FreeDiskSpaceFailed", why.clone())];
            said.extend(self.ended(now, Err(why)));
            return said;
        }
        self.ended(now, Ok(()))
    }

    /// Ends a round. What fails again is told.
    fn ended(&mut self, now: Now, result: Result<(), String>) -> Vec<Said> {
        self.phase = Phase::Resting;
        self.next = if self.sweep == Sweep::Wanted { now.mono } else { now.mono + self.policy.period };
        if self.sweep == Sweep::Now {
            self.sweep = Sweep::Done;
            return Vec::new();
        }
        let failed_before = std::mem::replace(&mut self.failed, result.is_err());
        result.err().filter(|_| failed_before).map(|why| ("ImageGCFailed", why)).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ImageCollector, ImagePolicy, to_free};
    use crate::agent::images::Images;
    use crate::agent::runtime::{ImageDisk, ImageInfo, OpId, RuntimeCommand, RuntimeError, RuntimeEvent, StoredImage};
    use crate::agent::{Mono, Now, Out};
    use crate::machine::Wall;

    fn disk(available: u64, images: &[(&str, u64, &str)]) -> ImageDisk {
        let image = |(id, bytes, is): &(&str, u64, &str)| StoredImage {
            id: (*id).into(),
            names: vec![format!("{id}:1").into()],
            bytes: *bytes,
            in_use: *is == "used",
            pinned: *is == "pinned",
        };
        ImageDisk { capacity: 1000, available, images: images.iter().map(image).collect() }
    }

    #[test]
    fn the_disk_is_emptied_from_the_higher_threshold_to_the_lower() {
        for (high, low, capacity, available, expect) in [
            (85, 80, 1000, 160, None),
            (85, 80, 1000, 159, Some(41)),
            (85, 80, 1000, 150, Some(50)),
            (85, 80, 1000, 0, Some(200)),
            (85, 80, 1000, 2000, None),
            (0, 0, 1000, 1000, Some(0)),
            (100, 80, 1000, 0, None),
            (85, 80, u64::MAX, 0, Some(u64::MAX / 5)),
        ] {
            let policy = ImagePolicy { high_percent: high, low_percent: low, ..ImagePolicy::default() };
            let disk = ImageDisk { capacity, available, images: Vec::new() };
            assert_eq!(to_free(&policy, &disk), expect, "{high} {low} {capacity} {available}");
        }
    }

    /// A collector, its images and its time.
    struct World {
        collector: ImageCollector,
        images: Images,
        seconds: u64,
        said: Vec<String>,
    }

    impl World {
        fn new(of_others: bool) -> World {
            let policy = ImagePolicy { of_others, ..ImagePolicy::default() };
            let (collector, images) = (ImageCollector::new(policy), Images::default());
            World { collector, images, seconds: 0, said: Vec::new() }
        }

        fn now(&self) -> Now {
            Now { mono: Mono(self.seconds * 1_000_000_000), wall: Wall(0) }
        }

        fn step(&mut self, event: Option<RuntimeEvent>) -> Option<RuntimeCommand> {
            let (now, mut out) = (self.now(), Vec::new());
            let said = match event {
                Some(event) => self.collector.handle(now, event, &mut self.images, &mut out),
                None => self.collector.handle_timeout(now, &mut self.images, &mut out),
            };
            self.said.extend(said.into_iter().map(|(reason, message)| format!("{reason}: {message}")));
            let mut commands = out.into_iter().map(|out| match out {
                Out::Runtime(command) => command,
                Out::Api(call) => panic!("{call:?}"),
            });
            let command = commands.next();
            assert!(commands.next().is_none(), "one after the other");
            command
        }

        /// One round at this second; returns which images were removed. That of the name `stuck` cannot be.
        fn round(&mut self, seconds: u64, disk: ImageDisk) -> Vec<String> {
            self.seconds = seconds;
            let mut command = self.step(None);
            let mut removed = Vec::new();
            let mut disk = Some(disk);
            loop {
                command = match command {
                    None => return removed,
                    Some(RuntimeCommand::ListImages { op }) => {
                        let result = Ok(disk.take().expect("it is asked once"));
                        self.step(Some(RuntimeEvent::ImagesListed { op, result }))
                    }
                    Some(RuntimeCommand::RemoveImage { op, id }) => {
                        let wrong = RuntimeError { reason: "".into(), message: "it is stuck".into() };
                        let result = if &*id == "stuck" { Err(wrong) } else { Ok(()) };
                        removed.push(id.to_string());
                        self.step(Some(RuntimeEvent::ImageRemoved { op, result }))
                    }
                    Some(other) => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn the_least_recently_used_goes_first_and_what_is_used_never() {
        let mut world = World::new(true);
        let there = |used: &'static str| {
            let is = move |name| if name == used { "used" } else { "" };
            [("b", 40, is("b")), ("a", 40, is("a")), ("c", 40, is("c")), ("pause", 40, "pinned")]
        };
        assert_eq!(world.round(0, disk(500, &there("a"))), [""; 0], "there is room");
        assert_eq!(world.round(300, disk(500, &there("b"))), [""; 0]);
        assert_eq!(world.round(600, disk(500, &there("none"))), [""; 0]);
        // 100 bytes are to be freed: the one that was never used, and then the two in the order of their last use.
        assert_eq!(world.round(900, disk(100, &there("none"))), ["c", "a", "b"]);
        assert_eq!(world.round(1200, disk(150, &there("c"))), ["a", "b"], "80 of 50 bytes are enough");
        assert_eq!(world.round(1500, disk(150, &[("x", 900, "used"), ("y", 60, "")])), [""; 0], "y is new");
        let short = "Attempted to free 50 bytes, but only found 0 bytes eligible to free.";
        assert_eq!(world.said.len(), 1, "{:?}", world.said);
        assert!(world.said[0].starts_with("FreeDiskSpaceFailed: ") && world.said[0].ends_with(short));
        assert_eq!(world.round(1800, disk(150, &[("x", 900, "used"), ("y", 60, "")])), ["y"]);
        assert_eq!(world.round(2100, disk(150, &[("stuck", 60, ""), ("z", 10, "")])), [""; 0], "both are new");
        assert_eq!(world.round(2400, disk(150, &[("stuck", 60, ""), ("z", 10, "")])), ["stuck", "z"]);
        let failed = "ImageGCFailed: wanted to free 50 bytes, but freed 10 bytes space with errors in image deletion: it \
                      is stuck";
        assert_eq!(world.said.last().map(String::as_str), Some(failed), "it failed before");
    }

    #[test]
    fn what_others_have_brought_is_left_to_them_if_so_configured() {
        let mut world = World::new(false);
        for name in ["own:1", "coming:1"] {
            let _ = world.images.wait(name, &[], (0, 0), Mono(0), || OpId(name.len() as u64));
        }
        let info = ImageInfo { image: "own:1".into(), bytes: 60 };
        assert!(world.images.ended(OpId(5), Some(&info)).is_some());
        world.collector.pulled("own:1");
        let there = [("other", 900, ""), ("own", 60, ""), ("coming", 60, "")];
        assert_eq!(world.round(0, disk(100, &there)), ["own"], "and what is being pulled is about to be used");
        assert!(world.collector.take_removed() && !world.collector.take_removed());
    }

    #[test]
    fn a_sweep_removes_all_that_may_go() {
        let mut world = World::new(true);
        let there = [("a", 40, ""), ("b", 40, "used"), ("c", 40, "")];
        assert_eq!(world.round(0, disk(900, &there)), [""; 0]);
        world.collector.sweep(world.now().mono);
        assert_eq!(world.round(1, disk(900, &there)), ["a", "c"]);
        assert!(world.collector.take_swept() && !world.collector.take_swept());
        assert_eq!(world.said, [""; 0], "{:?}", world.said);
        assert_eq!(world.round(301, disk(900, &there)), [""; 0]);
    }

    #[test]
    fn silence_ends_a_round() {
        let mut world = World::new(true);
        assert!(world.step(None).is_some());
        for seconds in [120, 420, 540] {
            world.seconds = seconds;
            world.step(None);
        }
        assert_eq!(world.said, ["ImageGCFailed: context deadline exceeded"], "the second time it is told");
        let late = RuntimeEvent::ImageRemoved { op: OpId(1), result: Ok(()) };
        assert!(world.step(Some(late)).is_none());
        assert_eq!(world.collector.poll_timeout().at, Mono(0) + Duration::from_secs(840));
    }
}
