//! Attaching and detaching the volumes of CSI drivers: a VolumeAttachment for each volume and each node that some pod
//! needs it on.
//!
//! What comes in: pods, nodes, claims, volumes, drivers, attachments. What goes out: attachments, what a node's status
//! says is attached to it, and Events. Never attaches a volume that one node may use while it is attached to another.
//! Never detaches a volume that a pod on the node needs, nor one that the node's status says is in use: unless the node
//! has not been ready for six minutes, or is declared out of service.
//!
//! Before a volume is detached, the node's status ceases to say that it is attached. That is written at the revision at
//! which the status did not say that the volume was in use, so no agent can begin to use it meanwhile.
//!
//! The attacher stands for those of all drivers: it does what is asked at once.
//!
//! Source: upstream's `pkg/controller/volume/attachdetach`, `kubernetes-csi/external-attacher`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;
use serde_json::json;

use super::groups::Groups;
use super::pod_gc::OUT_OF_SERVICE;
use super::{Controller, EventNote, Plan, Write};
use crate::api::Subresource;
use crate::client::{Change, EventType, Views, Watched};
use crate::machine::{Mono, Now};
use crate::object::{ContainerState, Kind, Node, Object, ObjectKey, Pod, is_node_ready, is_pod_terminal};
use crate::volume::{
    access_modes, attachment_name, attachment_of, claim_of, claims, csi_driver, is_attached, is_bound, is_for,
    is_of_controller, requires_attachment, text, unique_name,
};

/// How long a node that is not ready keeps a volume that no pod needs (`ReconcilerMaxWaitForUnmountDuration`).
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(360);

/// The controller that asks for attachments. Keys are volumes, and nodes whose status is to be written.
#[derive(Debug, Default)]
pub struct AttachDetachController {
    /// Made by the first reconcile, and kept up to date from then on.
    known: Option<Known>,
    /// Since when no pod needs an attachment any more.
    unneeded: BTreeMap<ObjectKey, Mono>,
    /// The attachments that are not done yet.
    attaching: BTreeSet<ObjectKey>,
    /// The nodes that volumes cannot be attached to, of which that has been said.
    refused: BTreeMap<ObjectKey, BTreeSet<Rc<str>>>,
}

/// A cache of what a walk over the views shows.
#[derive(Debug, Default)]
struct Known {
    /// Pods on nodes by the claims that they use.
    users: Groups<ObjectKey, ObjectKey>,
    /// This controller's attachments by the names of their volumes.
    by_volume: Groups<String, ObjectKey>,
    /// The same by the names of their nodes.
    by_node: Groups<String, ObjectKey>,
}

/// The nodes that a volume is needed on, each with the pods that need it there.
type Wanted<'a> = BTreeMap<&'a str, Vec<&'a Pod>>;

/// What is to become of an attachment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// It stays.
    Stays,
    /// It stays for now; it is to be looked at again after this time, if any, or when something changes.
    StaysFor(Option<Duration>),
    /// It goes.
    Goes,
}

/// The attacher of every driver.
#[derive(Debug)]
pub struct Attacher;

const WATCHES: &[Watched] = &[
    Watched { kind: Kind::POD, indexes: &[] },
    Watched { kind: Kind::NODE, indexes: &[] },
    Watched { kind: Kind::PERSISTENT_VOLUME_CLAIM, indexes: &[] },
    Watched { kind: Kind::PERSISTENT_VOLUME, indexes: &[] },
    Watched { kind: Kind::CSI_DRIVER, indexes: &[] },
    Watched { kind: Kind::VOLUME_ATTACHMENT, indexes: &[] },
];

const ATTACHMENTS: &[Watched] = &[Watched { kind: Kind::VOLUME_ATTACHMENT, indexes: &[] }];

impl Controller for Attacher {
    fn name(&self) -> &'static str {
        "external-attacher"
    }

    fn watches(&self) -> &'static [Watched] {
        ATTACHMENTS
    }

    fn keys(&self, change: &Change, _views: &Views, keys: &mut Vec<ObjectKey>) {
        keys.extend(change.new.as_ref().map(Object::key));
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, _now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let attachment = views.view(Kind::VOLUME_ATTACHMENT).get(key).filter(|a| !a.is_deleting() && !is_attached(a));
        plan.writes.extend(attachment.map(|attachment| {
            let mut value = attachment.to_json();
            value["status"] = json!({"attached": true});
            let copy = Object::from_json(value).expect("an attachment with a status reads");
            Write::Update(copy, Subresource::Status)
        }));
        plan
    }
}

impl Controller for AttachDetachController {
    fn name(&self) -> &'static str {
        "attachdetach-controller"
    }

    fn watches(&self) -> &'static [Watched] {
        WATCHES
    }

    fn observe(&mut self, change: &Change, _now: Now) {
        if change.key.kind == Kind::VOLUME_ATTACHMENT && change.new.is_none() {
            self.unneeded.remove(&change.key);
            self.attaching.remove(&change.key);
        }
        let Some(known) = &mut self.known else { return };
        if let (Some(Object::Pod(old)), Some(Object::Pod(new))) = (&change.old, &change.new)
            && Rc::ptr_eq(&old.spec, &new.spec)
            && is_done(old) == is_done(new)
        {
            return;
        }
        change.old.iter().for_each(|old| known.note(old, false));
        change.new.iter().for_each(|new| known.note(new, true));
    }

    fn keys(&self, change: &Change, views: &Views, keys: &mut Vec<ObjectKey>) {
        let volume = |name: &str| ObjectKey::new(Kind::PERSISTENT_VOLUME, "", name);
        let both = || change.old.iter().chain(&change.new);
        match change.key.kind {
            Kind::POD => {
                let pods = both().filter_map(Object::get::<core_v1::Pod>).filter(|pod| pod.spec.node.is_some());
                for claim in pods.flat_map(claims).map(|(claim, _)| claim) {
                    keys.extend(views.view(Kind::PERSISTENT_VOLUME_CLAIM).get(&claim).and_then(volume_of).map(volume));
                }
            }
            Kind::PERSISTENT_VOLUME_CLAIM => keys.extend(both().filter_map(volume_of).map(volume)),
            Kind::PERSISTENT_VOLUME => keys.push(change.key.clone()),
            Kind::VOLUME_ATTACHMENT => keys.extend(both().map(|a| volume(attachment_of(a).0))),
            Kind::NODE if may_matter(change) => {
                let attached = self.known.iter().flat_map(|known| known.on_node(views, change.key.name()));
                keys.extend(attached.map(|a| volume(attachment_of(a).0)));
            }
            _ => {}
        }
        keys.sort_unstable();
        keys.dedup();
    }

    fn reconcile(&mut self, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        let known = self.known.take().unwrap_or_else(|| Known::of(views));
        let plan = match key.kind {
            Kind::NODE => self.report(&known, views, key, now),
            _ => self.arrange(&known, views, key, now),
        };
        self.known = Some(known);
        plan
    }
}

impl AttachDetachController {
    /// Attaches a volume where it is needed, and detaches it where it is not.
    fn arrange(&mut self, known: &Known, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let volume = views.view(Kind::PERSISTENT_VOLUME).get(key);
        let wanted = volume.map(|volume| known.wanted(views, volume)).unwrap_or_default();
        let attached = known.of_volume(views, key.name());
        if let Some(volume) = volume {
            self.attach(views, volume, &wanted, &attached, &mut plan);
        }
        for attachment in attached {
            let fate = self.fate(views, volume, attachment, &wanted, now);
            let node = node_of(views, attachment);
            let is_right = |node: &Node| lists(node, volume) == is_to_be_listed(attachment, fate);
            let waits = volume.is_some() && node.is_some_and(|node| !is_right(node));
            if waits || fate == Fate::Goes {
                plan.wake.extend(node.map(Node::key));
            }
            if fate == Fate::Goes && !waits {
                plan.writes.push(detach(attachment));
            }
            if let Fate::StaysFor(Some(time)) = fate {
                plan.requeue(time);
            }
        }
        if let Some(nodes) = self.refused.get_mut(key) {
            nodes.retain(|node| wanted.contains_key(&**node));
            if nodes.is_empty() {
                self.refused.remove(key);
            }
        }
        plan
    }

    /// Writes into a node's status which volumes are attached to it.
    fn report(&mut self, known: &Known, views: &Views, key: &ObjectKey, now: Now) -> Plan {
        let mut plan = Plan::nothing();
        let Some(Object::Node(node)) = views.view(Kind::NODE).get(key) else { return plan };
        let mut listed = Vec::new();
        for attachment in known.on_node(views, key.name()) {
            let volume = views.view(Kind::PERSISTENT_VOLUME).find("", attachment_of(attachment).0);
            let Some(volume) = volume else { continue };
            let fate = self.fate(views, Some(volume), attachment, &known.wanted(views, volume), now);
            if let (true, Some(name)) = (is_to_be_listed(attachment, fate), unique_name(volume)) {
                listed.push(core_v1::AttachedVolume { name, device_path: String::new() });
            }
        }
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        if listed != *node.status.volumes_attached.as_deref().unwrap_or_default() {
            let mut next = node.clone();
            next.status_mut().volumes_attached = Some(listed).filter(|all| !all.is_empty());
            plan.writes.push(Write::Update(next.into(), Subresource::Status));
        }
        plan
    }

    /// What is to become of an attachment.
    fn fate(
        &mut self,
        views: &Views,
        volume: Option<&Object>,
        attachment: &Object,
        wanted: &Wanted<'_>,
        now: Now,
    ) -> Fate {
        if attachment.is_deleting() || wanted.contains_key(attachment_of(attachment).1) {
            self.unneeded.remove(attachment.key_ref());
            return Fate::Stays;
        }
        let since = *self.unneeded.entry(attachment.key()).or_insert(now.mono);
        let waited = now.mono.since(since);
        let node = node_of(views, attachment);
        let is_ready = node.is_some_and(is_node_ready);
        let is_free = node.is_some_and(|node| is_out_of_service(node) || !is_in_use(node, volume));
        if is_free || (!is_ready && waited >= UNMOUNT_PATIENCE) {
            return Fate::Goes;
        }
        Fate::StaysFor((!is_ready).then(|| UNMOUNT_PATIENCE - waited))
    }

    /// Attaches a volume to the nodes of its pods.
    fn attach(&mut self, views: &Views, volume: &Object, wanted: &Wanted<'_>, attached: &[&Object], plan: &mut Plan) {
        let Some(driver) = csi_driver(volume) else { return };
        if views.view(Kind::CSI_DRIVER).find("", driver).is_some_and(|driver| !requires_attachment(driver)) {
            return;
        }
        let mut on: BTreeSet<&str> = attached.iter().map(|a| attachment_of(a).1).collect();
        for (node, pods) in wanted {
            if let Some(there) = attached.iter().find(|a| attachment_of(a).1 == *node) {
                if !is_attached(there) {
                    self.attaching.insert(there.key());
                } else if self.attaching.remove(there.key_ref()) {
                    let message = format!("AttachVolume.Attach succeeded for volume {:?} ", volume.name());
                    tell(plan, pods, EventType::Normal, "SuccessfulAttachVolume", &message);
                }
            } else if on.is_empty() || is_shared(volume) {
                on.insert(node);
                let attachment = attachment(volume, driver, node);
                self.attaching.insert(attachment.key());
                plan.writes.push(Write::Create(attachment));
            } else if self.refused.entry(volume.key()).or_default().insert(Rc::from(*node)) {
                let message = format!("Multi-Attach error for volume {:?} {}", volume.name(), why_refused(wanted, &on));
                tell(plan, pods, EventType::Warning, "FailedAttachVolume", &message);
            }
        }
    }
}

impl Known {
    fn of(views: &Views) -> Known {
        let mut known = Known::default();
        for kind in [Kind::POD, Kind::VOLUME_ATTACHMENT] {
            views.view(kind).iter().for_each(|(_, object)| known.note(object, true));
        }
        known
    }

    fn note(&mut self, object: &Object, there: bool) {
        match object {
            Object::Pod(pod) if pod.spec.node.is_some() && !is_done(pod) => self.users.put_user(pod, there),
            Object::Dynamic(d) if d.kind == Kind::VOLUME_ATTACHMENT && is_of_controller(object) => {
                let (volume, node) = attachment_of(object);
                self.by_volume.put(volume.to_owned(), object.key(), there);
                self.by_node.put(node.to_owned(), object.key(), there);
            }
            _ => {}
        }
    }

    fn of_volume<'a>(&self, views: &'a Views, name: &str) -> Vec<&'a Object> {
        let keys = self.by_volume.get(name).into_iter().flatten();
        keys.filter_map(|key| views.view(Kind::VOLUME_ATTACHMENT).get(key)).collect()
    }

    fn on_node<'a>(&'a self, views: &'a Views, name: &str) -> impl Iterator<Item = &'a Object> + use<'a> {
        let keys = self.by_node.get(name).into_iter().flatten();
        keys.filter_map(|key| views.view(Kind::VOLUME_ATTACHMENT).get(key))
    }

    fn wanted<'a>(&self, views: &'a Views, volume: &Object) -> Wanted<'a> {
        let mut wanted = Wanted::new();
        let claims = views.view(Kind::PERSISTENT_VOLUME_CLAIM);
        let claim = claim_of(volume).and_then(|(key, _)| claims.get(&key));
        let claim = claim.filter(|claim| volume_of(claim) == Some(volume.name()) && is_for(volume, claim));
        let users = claim.and_then(|claim| self.users.get(claim.key_ref())).into_iter().flatten();
        for pod in users.filter_map(|key| views.get::<core_v1::Pod>(key)) {
            if let Some(node) = &pod.spec.node {
                wanted.entry(node).or_default().push(pod);
            }
        }
        wanted
    }
}

/// Whether a node's change may decide whether volumes are detached from it.
fn may_matter(change: &Change) -> bool {
    fn node(object: &Option<Object>) -> Option<&Node> {
        object.as_ref()?.get::<core_v1::Node>()
    }
    let (Some(old), Some(new)) = (node(&change.old), node(&change.new)) else { return true };
    is_node_ready(old) != is_node_ready(new)
        || is_out_of_service(old) != is_out_of_service(new)
        || old.status.volumes_in_use != new.status.volumes_in_use
        || old.status.volumes_attached != new.status.volumes_attached
}

/// Whether a pod needs no volumes any more (`IsPodTerminated`).
fn is_done(pod: &Pod) -> bool {
    let is_over = |state: &ContainerState| match state {
        ContainerState::Waiting { .. } | ContainerState::Terminated(_) => true,
        ContainerState::Running { .. }
        | ContainerState::Absent
        | ContainerState::Empty
        | ContainerState::Several(_) => false,
    };
    let is_going = pod.meta.deletion_timestamp.is_some();
    is_pod_terminal(pod) || (is_going && pod.status.container_statuses.iter().all(|status| is_over(&status.state)))
}

fn is_out_of_service(node: &Node) -> bool {
    node.spec.taints.iter().flatten().any(|taint| taint.key == OUT_OF_SERVICE)
}

fn node_of<'a>(views: &'a Views, attachment: &Object) -> Option<&'a Node> {
    views.view(Kind::NODE).find("", attachment_of(attachment).1)?.get::<core_v1::Node>()
}

/// Whether a node's status says that it uses a volume. What it calls a volume that is gone, nobody knows.
fn is_in_use(node: &Node, volume: Option<&Object>) -> bool {
    match volume.and_then(unique_name) {
        Some(name) => node.status.volumes_in_use.iter().flatten().any(|listed| *listed == name),
        None => !is_node_ready(node),
    }
}

/// Whether a node's status says that a volume is attached.
fn lists(node: &Node, volume: Option<&Object>) -> bool {
    let name = volume.and_then(unique_name);
    name.is_some_and(|name| node.status.volumes_attached.iter().flatten().any(|listed| listed.name == name))
}

/// Whether a node's status is to say that a volume is attached.
fn is_to_be_listed(attachment: &Object, fate: Fate) -> bool {
    fate != Fate::Goes && is_attached(attachment) && !attachment.is_deleting()
}

/// The volume that a claim is bound to.
fn volume_of(claim: &Object) -> Option<&str> {
    Some(text(claim, "/spec/volumeName")).filter(|name| !name.is_empty() && is_bound(claim))
}

/// Whether several nodes may use a volume at once (`IsMultiAttachAllowed`).
fn is_shared(volume: &Object) -> bool {
    let mut modes = access_modes(volume).peekable();
    modes.peek().is_none() || modes.any(|mode| matches!(mode, "ReadWriteMany" | "ReadOnlyMany"))
}

/// Why a volume cannot be attached to a further node than those that it is on (`reportMultiAttachError`). All pods of a
/// claim are in one namespace.
fn why_refused(wanted: &Wanted<'_>, on: &BTreeSet<&str>) -> String {
    let others = wanted.iter().filter(|(node, _)| on.contains(*node)).flat_map(|(_, pods)| pods);
    let others: Vec<&str> = others.map(|pod| pod.name()).collect();
    if others.is_empty() {
        "Volume is already exclusively attached to one node and can't be attached to another".to_owned()
    } else {
        format!("Volume is already used by pod(s) {}", others.join(", "))
    }
}

fn tell(plan: &mut Plan, pods: &[&Pod], type_: EventType, reason: &'static str, message: &str) {
    let about = |pod: &&Pod| Object::from((*pod).clone());
    let notes = pods.iter().map(|pod| EventNote { about: about(pod), type_, reason, message: message.to_owned() });
    plan.events.extend(notes);
}

fn attachment(volume: &Object, driver: &str, node: &str) -> Object {
    let value = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
        "metadata": {"name": attachment_name(volume, node)},
        "spec": {"attacher": driver, "nodeName": node, "source": {"persistentVolumeName": volume.name()}}});
    Object::from_json(value).expect("an attachment reads")
}

fn detach(attachment: &Object) -> Write {
    Write::Delete {
        key: attachment.key(),
        uid: attachment.uid().into(),
        rv: Some(attachment.rv()),
        grace_seconds: None,
        propagation: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{AttachDetachController, Attacher, Change, Controller};
    use crate::controllers::fake_cluster::{Fake, at, node, object, with};
    use crate::object::{Kind, Object, ObjectKey};

    /// A pod on a node with the claim `c`.
    fn pod(name: &str, node: &str) -> Object {
        object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "d", "uid": name},
            "spec": {"nodeName": node, "containers": [],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}}))
    }

    fn volume(patch: Value) -> Object {
        let whole = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v", "uid": "u-v"},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
                "csi": {"driver": "disk", "volumeHandle": "h"},
                "claimRef": {"namespace": "d", "name": "c", "uid": "u-c"}}});
        with(object(whole), patch)
    }

    fn claim() -> Object {
        object(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "c", "namespace": "d", "uid": "u-c",
                "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
            "spec": {"volumeName": "v", "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}}))
    }

    struct Bench {
        fake: Fake,
        controller: AttachDetachController,
        told: Vec<String>,
    }

    impl Bench {
        fn new(volume_patch: Value, others: impl IntoIterator<Item = Object>) -> Bench {
            let kinds: Vec<Kind> = super::WATCHES.iter().map(|w| w.kind).collect();
            let objects = [node("n1"), node("n2"), claim(), volume(volume_patch)];
            let fake = Fake::new(&kinds, objects.into_iter().chain(others));
            Bench { fake, controller: AttachDetachController::default(), told: Vec::new() }
        }

        /// Runs both controllers until nothing is written; returns the nodes that the volume is attached to.
        fn settle(&mut self, second: u64) -> Vec<String> {
            loop {
                let mut keys = vec![ObjectKey::new(Kind::PERSISTENT_VOLUME, "", "v")];
                keys.extend(self.fake.views.view(Kind::NODE).iter().map(|(key, _)| key.clone()));
                let mut wrote = false;
                for key in &keys {
                    let plan = self.fake.step(&mut self.controller, key, at(second));
                    let told = plan.events.iter().map(|e| format!("{} {}: {}", e.about.name(), e.reason, e.message));
                    self.told.extend(told);
                    wrote |= !plan.writes.is_empty();
                }
                let keys: Vec<ObjectKey> =
                    self.fake.views.view(Kind::VOLUME_ATTACHMENT).iter().map(|(key, _)| key.clone()).collect();
                for key in keys {
                    // What the attacher writes, the controller sees.
                    self.fake.tell(&mut self.controller, at(second));
                    wrote |= !self.fake.step(&mut Attacher, &key, at(second)).writes.is_empty();
                }
                self.fake.tell(&mut self.controller, at(second));
                if !wrote {
                    break;
                }
            }
            let all = self.fake.views.view(Kind::VOLUME_ATTACHMENT).iter();
            let mut nodes: Vec<String> = all.map(|(_, a)| super::attachment_of(a).1.to_owned()).collect();
            nodes.sort();
            nodes
        }

        /// What a node's status says is attached.
        fn listed(&self, name: &str) -> Vec<String> {
            let Some(Object::Node(node)) = self.fake.get(Kind::NODE, name) else { return Vec::new() };
            node.status.volumes_attached.iter().flatten().map(|volume| volume.name.clone()).collect()
        }

        fn remove_pod(&mut self, name: &str) {
            self.fake.remove(&ObjectKey::new(Kind::POD, "d", name));
        }

        fn change_node(&mut self, name: &str, patch: Value) {
            let node = self.fake.get(Kind::NODE, name).expect("it is there").clone();
            self.fake.put(with(node, patch));
        }
    }

    #[test]
    fn a_volume_is_attached_where_its_pods_are() {
        let check = |patch: Value, others: Vec<Object>, expect: &[&str]| {
            assert_eq!(Bench::new(patch, others).settle(0), expect);
        };
        let both = || vec![pod("p", "n1"), pod("q", "n2")];
        check(json!({}), vec![], &[]);
        check(json!({}), vec![pod("p", "n1")], &["n1"]);
        check(json!({}), both(), &["n1"]);
        check(json!({"spec": {"accessModes": ["ReadWriteMany"]}}), both(), &["n1", "n2"]);
        check(json!({"spec": {"csi": null, "hostPath": {"path": "/x"}}}), both(), &[]);
        check(json!({"spec": {"claimRef": {"name": "other"}}}), both(), &[]);
        let driver = |required: bool| {
            object(json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "disk"},
                "spec": {"attachRequired": required}}))
        };
        check(json!({}), vec![pod("p", "n1"), driver(true)], &["n1"]);
        check(json!({}), vec![pod("p", "n1"), driver(false)], &[]);
        let ended = with(pod("p", "n1"), json!({"status": {"phase": "Succeeded"}}));
        check(json!({}), vec![ended], &[]);
    }

    #[test]
    fn a_volume_moves_to_another_node_once_no_pod_needs_it_on_the_first() {
        let mut b = Bench::new(json!({}), [pod("p", "n1"), pod("q", "n2")]);
        assert_eq!(b.settle(0), ["n1"]);
        assert_eq!(b.settle(1), ["n1"]);
        b.remove_pod("p");
        assert_eq!(b.settle(2), ["n2"]);
        let told = [
            "q FailedAttachVolume: Multi-Attach error for volume \"v\" Volume is already used by pod(s) p",
            "p SuccessfulAttachVolume: AttachVolume.Attach succeeded for volume \"v\" ",
            "q SuccessfulAttachVolume: AttachVolume.Attach succeeded for volume \"v\" ",
        ];
        assert_eq!(b.told, told);
        // SHA-256 of `hdiskn2`.
        let name = "csi-b5aaf2a4ff75fa2ce17eea503d818a26b86613c41949d4a8285c0de7f2705c42";
        assert_eq!(b.fake.views.view(Kind::VOLUME_ATTACHMENT).iter().next().expect("one is left").0.name(), name);
    }

    /// A patch of a node that says that it uses the volume, or nothing.
    fn uses(yes: bool) -> Value {
        json!({"status": {"volumesInUse": yes.then(|| vec!["kubernetes.io/csi/disk^h"])}})
    }

    /// One write of a node's status can take one volume off the list and put another on it.
    #[test]
    fn a_volume_that_another_replaces_in_a_nodes_status_is_looked_at_again() {
        let lists = |handle: &str| {
            let name = format!("kubernetes.io/csi/disk^{handle}");
            with(node("n1"), json!({"status": {"volumesAttached": [{"name": name, "devicePath": ""}]}}))
        };
        let mut b = Bench::new(json!({}), [pod("p", "n1")]);
        b.settle(0);
        let keys = |old: &Object, new: &Object| {
            let change = Change { key: new.key(), old: Some(old.clone()), new: Some(new.clone()) };
            let mut keys = Vec::new();
            b.controller.keys(&change, &b.fake.views, &mut keys);
            keys
        };
        assert_eq!(keys(&lists("h"), &lists("other")), [ObjectKey::new(Kind::PERSISTENT_VOLUME, "", "v")]);
        assert_eq!(keys(&lists("h"), &lists("h")), []);
    }

    fn lost() -> Value {
        json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})
    }

    #[test]
    fn a_node_keeps_a_volume_while_its_status_says_that_it_uses_it() {
        let mut b = Bench::new(json!({}), [pod("p", "n1"), pod("q", "n2")]);
        b.settle(0);
        let name = ["kubernetes.io/csi/disk^h"];
        assert_eq!((b.listed("n1"), b.listed("n2")), (name.map(str::to_owned).to_vec(), vec![]));
        b.change_node("n1", uses(true));
        b.remove_pod("p");
        // A node that is ready is never hurried.
        assert_eq!((b.settle(10), b.settle(1000)), (vec!["n1".to_owned()], vec!["n1".to_owned()]));
        assert_eq!(b.listed("n1"), name);
        b.change_node("n1", uses(false));
        assert_eq!(b.settle(1001), ["n2"]);
        assert_eq!((b.listed("n1"), b.listed("n2")), (vec![], name.map(str::to_owned).to_vec()));
    }

    #[test]
    fn a_node_that_is_not_ready_keeps_a_volume_for_six_minutes() {
        let mut b = Bench::new(json!({}), [pod("p", "n1"), pod("q", "n2")]);
        b.settle(0);
        b.change_node("n1", uses(true));
        b.change_node("n1", lost());
        b.remove_pod("p");
        assert_eq!(b.settle(10), ["n1"]);
        assert_eq!(b.settle(369), ["n1"]);
        assert_eq!(b.settle(370), ["n2"]);
        assert_eq!(b.listed("n1"), Vec::<String>::new());
        // The same where the node is gone.
        let mut b = Bench::new(json!({}), [pod("p", "n1")]);
        b.settle(0);
        b.fake.remove(&ObjectKey::new(Kind::NODE, "", "n1"));
        b.remove_pod("p");
        assert_eq!((b.settle(10), b.settle(370)), (vec!["n1".to_owned()], vec![]));
        // At once where it does not use the volume, or is declared out of service.
        let out = json!({"spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]}});
        for (in_use, patch, expect) in [(false, json!({}), 0), (true, json!({}), 1), (true, out, 0)] {
            let mut b = Bench::new(json!({}), [pod("p", "n1")]);
            b.settle(0);
            b.change_node("n1", uses(in_use));
            b.change_node("n1", lost());
            b.change_node("n1", patch);
            b.remove_pod("p");
            assert_eq!(b.settle(10).len(), expect, "in use: {in_use}");
        }
    }

    #[test]
    fn a_pod_that_is_going_needs_its_volume_while_a_container_runs() {
        let going = |running: bool| {
            let state = if running { json!({"running": {}}) } else { json!({"terminated": {"exitCode": 0}}) };
            with(
                pod("p", "n1"),
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
                    "status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "restartCount": 0,
                        "ready": false, "state": state}]}}),
            )
        };
        for running in [true, false] {
            let mut b = Bench::new(json!({}), [pod("p", "n1")]);
            b.settle(0);
            b.fake.put(going(running));
            assert_eq!(b.settle(1).len(), usize::from(running));
        }
    }

    #[test]
    fn attachments_of_others_are_left_alone() {
        let foreign = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
            "metadata": {"name": "mine", "uid": "u"},
            "spec": {"attacher": "x", "nodeName": "n1", "source": {"persistentVolumeName": "v"}}});
        let mut b = Bench::new(json!({}), [pod("p", "n2"), object(foreign)]);
        assert_eq!((b.settle(0), b.settle(1000)), (vec!["n1".into(), "n2".into()], vec!["n1".into(), "n2".into()]));
    }
}
