//! The volumes that are directories of this node, made for claims by the provisioner: when one is released and is to go
//! with its claim, its directory is emptied, then the volume is deleted, and at last the directory is removed.
//! What a crash leaves between any two of these is an empty directory, or a volume that is found again.
//!
//! Source: the provisioners that run on each node, `sigs.k8s.io/sig-storage-lib-external-provisioner` (Events) and
//! `kubernetes-csi/external-provisioner` (deployment on each node).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::Out;
use super::pod::{DIRECTORIES_SLOT, OP_BITS};
use super::runtime::{OpId, RuntimeCommand, RuntimeError};
use crate::api::{
    Call, DeleteOptions, FromServer, Precondition, Reason, ReqId, ReqIds, Request, Response, Status, ToServer,
};
use crate::client::{EventType, Informer, InformerConfig, Recorder, View};
use crate::machine::{Deadline, Mono, Now};
use crate::object::{FieldSelector, Kind, ObjectKey, Selector};
use crate::random::Rng;
use crate::volume::{self, DIRECTORIES, DIRECTORY_OF_NODE};

/// How long a failure is left alone before the next try.
const PAUSE: Duration = Duration::from_secs(15);
/// How long a reply may take. A directory may be large.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is done about a volume.
#[derive(Debug, PartialEq)]
enum Step {
    /// Its directory is emptied.
    Emptying(OpId),
    /// The volume is deleted.
    Deleting(ReqId),
    /// Its directory is removed.
    Removing(OpId),
    /// Something failed, so nothing is done for a while.
    Pausing,
}

#[derive(Debug)]
struct Work {
    uid: String,
    path: String,
    step: Step,
    /// When the step is overdue, or the pause is over.
    until: Mono,
}

/// A watched view of the volumes of this node, and what is done about those that are released.
#[derive(Debug)]
pub(super) struct Directories {
    informer: Informer,
    view: View,
    user: Rc<str>,
    ids: ReqIds,
    last_op: u64,
    /// By the volume's name.
    work: BTreeMap<String, Work>,
}

impl Directories {
    /// `watch` and `write` are parts of the agent as an API client.
    pub(super) fn new(node: &str, user: &Rc<str>, (watch, write): (u16, u16), rng: Rng) -> Directories {
        let config = InformerConfig {
            kind: Kind::PERSISTENT_VOLUME,
            namespace: Rc::from(""),
            labels: selector(node),
            fields: FieldSelector::default(),
            user: Rc::clone(user),
        };
        Directories {
            informer: Informer::new(config, watch, rng),
            view: View::new(Kind::PERSISTENT_VOLUME, &[]),
            user: Rc::clone(user),
            ids: ReqIds::new(write),
            last_op: 0,
            work: BTreeMap::new(),
        }
    }

    /// Handles a message for the view.
    pub(super) fn tell(&mut self, now: Now, message: &FromServer, out: &mut Vec<Out>) {
        let (mut requests, mut changes) = (Vec::new(), Vec::new());
        self.informer.handle(now, message, &mut self.view, &mut requests, &mut changes);
        out.extend(requests.into_iter().map(Out::Api));
        for change in changes {
            self.look(now, change.key.name(), out);
        }
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Now, out: &mut Vec<Out>) {
        if self.informer.poll_timeout().is_some_and(|d| d.at <= now.mono) {
            let mut requests = Vec::new();
            self.informer.handle_timeout(now, &mut self.view, &mut requests);
            out.extend(requests.into_iter().map(Out::Api));
        }
        let due = |(name, work): (&String, &Work)| (work.until <= now.mono).then(|| name.clone());
        for name in self.work.iter().filter_map(due).collect::<Vec<_>>() {
            self.work.remove(&name);
            self.look(now, &name, out);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        let work = self.work.values().map(|work| work.until).min();
        let work = work.map(|at| Deadline { at, why: "look at the directory of a released volume" });
        Deadline::earlier(self.informer.poll_timeout(), work)
    }

    /// Begins with a volume that is released, if nothing is done about it yet.
    fn look(&mut self, now: Now, name: &str, out: &mut Vec<Out>) {
        let Some(volume) = self.view.find("", name).filter(|_| !self.work.contains_key(name)) else { return };
        let path = volume::text(volume, "/spec/hostPath/path");
        // No other path is emptied, whatever a volume says of itself.
        if !volume::is_released(volume) || path != format!("{DIRECTORIES}/{name}") {
            return;
        }
        let (uid, path) = (volume.uid().to_owned(), path.to_owned());
        let op = self.op();
        out.push(Out::Runtime(RuntimeCommand::EmptyDirectory { op, path: path.as_str().into() }));
        let work = Work { uid, path, step: Step::Emptying(op), until: now.mono + PATIENCE };
        self.work.insert(name.to_owned(), work);
    }

    fn op(&mut self) -> OpId {
        self.last_op += 1;
        OpId(u64::from(DIRECTORIES_SLOT) << OP_BITS | self.last_op)
    }

    /// Handles that a directory was emptied or removed, or why not.
    pub(super) fn done(
        &mut self,
        now: Now,
        op: OpId,
        result: Result<(), RuntimeError>,
        recorder: &mut Recorder,
        out: &mut Vec<Out>,
    ) {
        let is_it = |work: &Work| work.step == Step::Emptying(op) || work.step == Step::Removing(op);
        let Some(name) = self.work.iter().find_map(|(name, work)| is_it(work).then(|| name.clone())) else { return };
        let removed = matches!(self.work[&name].step, Step::Removing(_));
        match result {
            Err(e) => self.failed(now, &name, &e.message, recorder, out),
            Ok(()) if removed => drop(self.work.remove(&name)),
            Ok(()) => {
                let id = self.ids.next();
                let work = self.work.get_mut(&name).expect("it was just there");
                (work.step, work.until) = (Step::Deleting(id), now.mono + PATIENCE);
                let precondition = Precondition { uid: Some(work.uid.as_str().into()), rv: None };
                let key = ObjectKey::new(Kind::PERSISTENT_VOLUME, "", &name);
                let call = Call::Delete { key, options: DeleteOptions { precondition, ..DeleteOptions::default() } };
                out.push(Out::Api(ToServer::Request(id, Request::new(&self.user, call))));
            }
        }
    }

    /// Handles the reply to a deletion.
    pub(super) fn replied(
        &mut self,
        now: Now,
        id: ReqId,
        result: &Result<Response, Status>,
        recorder: &mut Recorder,
        out: &mut Vec<Out>,
    ) {
        let is_it = |work: &Work| work.step == Step::Deleting(id);
        let Some(name) = self.work.iter().find_map(|(name, work)| is_it(work).then(|| name.clone())) else { return };
        match result {
            Err(status) if status.reason != Reason::NotFound => {
                self.failed(now, &name, &status.message, recorder, out);
            }
            // Another volume of this name is none of ours: its claim would have another UID.
            Ok(_) | Err(_) => {
                let op = self.op();
                let work = self.work.get_mut(&name).expect("it was just there");
                (work.step, work.until) = (Step::Removing(op), now.mono + PATIENCE);
                out.push(Out::Runtime(RuntimeCommand::RemoveDirectory { op, path: work.path.as_str().into() }));
            }
        }
    }

    /// Handles the loss of the connection: no reply will come.
    pub(super) fn disconnected(&mut self, now: Now) {
        for work in self.work.values_mut().filter(|work| matches!(work.step, Step::Deleting(_))) {
            (work.step, work.until) = (Step::Pausing, now.mono + PAUSE);
        }
    }

    fn failed(&mut self, now: Now, name: &str, why: &str, recorder: &mut Recorder, out: &mut Vec<Out>) {
        if let Some(work) = self.work.get_mut(name) {
            (work.step, work.until) = (Step::Pausing, now.mono + PAUSE);
        }
        if let Some(volume) = self.view.find("", name) {
            let mut requests = Vec::new();
            recorder.record(now, volume, EventType::Warning, "VolumeFailedDelete", why, &mut requests);
            out.extend(requests.into_iter().map(Out::Api));
        }
    }
}

/// What selects the volumes of a node. One whose name is too long for a label has none.
fn selector(node: &str) -> Selector {
    let of = |node: &str| Selector::parse(&format!("{DIRECTORY_OF_NODE}={node}"));
    of(node).or_else(|_| of("")).expect("an empty value is valid")
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::{Directories, PAUSE};
    use crate::agent::{Out, RuntimeCommand, RuntimeError};
    use crate::api::{Call, FromServer, Response, Status, ToServer};
    use crate::client::Recorder;
    use crate::machine::{Mono, Now, Wall};
    use crate::object::{Object, Revision};
    use crate::random::Rng;

    /// A volume that is to go with its claim, changed by a merge patch.
    fn volume(patch: Value) -> Object {
        let mut value = json!({"apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": "pvc-1", "uid": "u-1", "resourceVersion": "7",
                "labels": {"skeg.dev/directory-of": "n1"},
                "annotations": {"pv.kubernetes.io/provisioned-by": "skeg.dev/local-path"}},
            "spec": {"persistentVolumeReclaimPolicy": "Delete", "hostPath": {"path": "/var/lib/skeg/volumes/pvc-1"},
                "claimRef": {"namespace": "d", "name": "a", "uid": "u-a"}},
            "status": {"phase": "Released"}});
        json_patch::merge(&mut value, &patch);
        Object::from_json(value).expect("a volume")
    }

    struct Bench {
        directories: Directories,
        recorder: Recorder,
        now: Now,
        out: Vec<Out>,
    }

    impl Bench {
        /// With these volumes listed.
        fn new(volumes: Vec<Object>) -> Bench {
            let user: Rc<str> = Rc::from("system:node:n1");
            let rng = || Rng::from_seed(1);
            let recorder = Recorder::new(Rc::from("kubelet"), Rc::from("n1"), true, 4, rng());
            let directories = Directories::new("n1", &user, (9, 10), rng());
            let now = Now { mono: Mono(1), wall: Wall(1_700_000_000_000_000) };
            let mut bench = Bench { directories, recorder, now, out: Vec::new() };
            bench.directories.handle_timeout(now, &mut bench.out);
            let Some(Out::Api(ToServer::Request(id, request))) = bench.out.pop() else { panic!("it lists") };
            let Call::List { options, .. } = &request.call else { panic!("{:?}", request.call) };
            assert_eq!(options.labels.to_string(), "skeg.dev/directory-of=n1");
            let list = Response::List { items: Rc::new(volumes), rv: Revision(9), rest: None };
            bench.directories.tell(now, &FromServer::Reply(id, Ok(list)), &mut bench.out);
            bench.out.retain(
                |out| !matches!(out, Out::Api(ToServer::Request(_, r)) if matches!(r.call, Call::Watch { .. })),
            );
            bench
        }

        /// What it does next, in words; it is carried out with this result.
        fn next(&mut self, result: Result<(), &str>) -> String {
            let fault = |why: &&str| RuntimeError { reason: "".into(), message: (*why).into() };
            let (directories, recorder) = (&mut self.directories, &mut self.recorder);
            let mut out = std::mem::take(&mut self.out).into_iter();
            let (done, more) = (out.next(), out.next());
            assert!(more.is_none(), "one thing after the other: {more:?}");
            let (op, said) = match done {
                None => return "nothing".to_owned(),
                Some(Out::Runtime(RuntimeCommand::EmptyDirectory { op, path })) => (op, format!("empty {path}")),
                Some(Out::Runtime(RuntimeCommand::RemoveDirectory { op, path })) => (op, format!("remove {path}")),
                Some(Out::Api(ToServer::Request(id, request))) => {
                    let Call::Delete { key, options } = &request.call else { return format!("{:?}", request.call) };
                    assert_eq!(options.precondition.uid.as_deref(), Some("u-1"));
                    let reply = result.map(|()| Response::Done { rv: Revision(10) }).map_err(Status::internal);
                    directories.replied(self.now, id, &reply, recorder, &mut self.out);
                    return format!("delete {}", key.name());
                }
                Some(other) => panic!("{other:?}"),
            };
            directories.done(self.now, op, result.map_err(|why| fault(&why)), recorder, &mut self.out);
            said
        }

        fn wait(&mut self, time: Duration) {
            self.now.mono = self.now.mono + time;
            self.directories.handle_timeout(self.now, &mut self.out);
            self.out.retain(|out| matches!(out, Out::Runtime(_)));
        }
    }

    const EMPTY: &str = "empty /var/lib/skeg/volumes/pvc-1";

    #[test]
    fn a_released_directory_is_emptied_before_its_volume_is_deleted() {
        let mut bench = Bench::new(vec![volume(json!({}))]);
        let did: Vec<String> = (0..4).map(|_| bench.next(Ok(()))).collect();
        assert_eq!(did, [EMPTY, "delete pvc-1", "remove /var/lib/skeg/volumes/pvc-1", "nothing"]);
    }

    #[test]
    fn what_fails_is_tried_again_from_the_beginning() {
        for failing in 0..2 {
            let mut bench = Bench::new(vec![volume(json!({}))]);
            for step in 0..=failing {
                let did = bench.next(if step == failing { Err("it is in use") } else { Ok(()) });
                assert_eq!(did, [EMPTY, "delete pvc-1"][step]);
            }
            bench.out.retain(|out| matches!(out, Out::Runtime(_)));
            assert_eq!(bench.next(Ok(())), "nothing");
            bench.wait(PAUSE);
            assert_eq!(bench.next(Ok(())), EMPTY, "after step {failing}");
        }
        let mut bench = Bench::new(vec![volume(json!({}))]);
        bench.next(Ok(()));
        bench.directories.disconnected(bench.now);
        bench.out.clear();
        bench.wait(PAUSE);
        assert_eq!(bench.next(Ok(())), EMPTY, "the reply of the deletion is lost");
    }

    #[test]
    fn no_other_directory_is_touched() {
        for patch in [
            json!({"status": {"phase": "Bound"}}),
            json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}}),
            json!({"spec": {"hostPath": {"path": "/"}}}),
            json!({"spec": {"hostPath": {"path": "/var/lib/skeg/volumes/pvc-1/.."}}}),
            json!({"spec": {"hostPath": null}}),
            json!({"spec": {"claimRef": null}}),
            json!({"metadata": {"annotations": null}}),
        ] {
            assert_eq!(Bench::new(vec![volume(patch.clone())]).next(Ok(())), "nothing", "{patch}");
        }
    }
}
