//! Violates every invariant on purpose in a complete world, and checks that the violation is found.

mod workloads;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use skeg_core::Wall;
use skeg_core::agent::ContainerSpec;
use skeg_core::api::{Call, DeleteOptions, Fence, ListOptions, ReqId, Request, Response, ToServer, WriteOptions};
use skeg_core::controllers::GarbageCollector;
use skeg_core::object::{Kind, Object, ObjectKey, PodStatus, Revision, Text};
use skeg_core::store::{Op, StoreKey, Stored};

use super::{Checkers, Invariant, miscounting, stale_cache, stale_view, unsettled};
use crate::converge::objects;
use crate::fault::FaultId;
use crate::ids::{Id, NodeId};
use crate::run::plain;
use crate::scenario::{FaultLevel, ImageProfile, Step, UserAction};
use crate::world::World;

fn object(value: Value) -> Object {
    Object::from_json(value).expect("a well-formed object")
}

/// A world one minute after these were applied: a Deployment with two replicas, a pod that is never restarted, a pod
/// that is never scheduled, and Services of every type.
fn settled() -> World {
    let service = |name: &str, spec: Value| {
        object(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": spec}))
    };
    let app = json!({"app": "web"});
    let web = object(json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 2, "selector": {"matchLabels": app}, "template": {"metadata": {"labels": app},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 80}]}]}}}}));
    let pod = |name: &str, spec: Value| {
        object(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": app}, "spec": spec}))
    };
    let containers = json!([{"name": "c", "image": "i"}]);
    let hard = json!({"pods": "10", "services": "10", "count/deployments.apps": "2"});
    let objects = vec![
        service("web", json!({"selector": app, "ports": [{"port": 80}]})),
        service("each", json!({"clusterIP": "None", "selector": app, "ports": [{"port": 80}]})),
        // Only the Deployment's pods have a port of this name.
        service("named", json!({"selector": app, "ports": [{"port": 80, "targetPort": "http"}]})),
        service("other", json!({"type": "ExternalName", "externalName": "example.com", "selector": app})),
        service("all", json!({"publishNotReadyAddresses": true, "selector": app, "ports": [{"port": 80}]})),
        object(json!({"apiVersion": "v1", "kind": "ResourceQuota",
            "metadata": {"name": "quota", "namespace": "default"}, "spec": {"hard": hard}})),
        web,
        pod("never", json!({"restartPolicy": "Never", "containers": containers})),
        pod(
            "waiting",
            json!({"schedulerName": "nobody", "containers":
            [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100"}}}]}),
        ),
    ];
    let apply = Step::at(Duration::from_secs(2), UserAction::Apply(objects));
    let mut scenario = plain(3, 1);
    // Some invariants are checked only where faults are expected.
    scenario.faults = FaultLevel::Listed;
    // The image needs a profile so that the container of the pod that is never restarted keeps running.
    scenario.images.insert("i".to_owned(), ImageProfile::default());
    let mut world = World::new(&scenario, 1, vec![apply], false);
    world.run_to(60);
    world
}

fn key(kind: Kind, name: &str) -> ObjectKey {
    ObjectKey::new(kind, "default", name)
}

/// A pod of the Deployment.
fn web_pod(world: &World) -> Object {
    objects(&world.store, Kind::POD).find(|o| o.name().starts_with("web-")).expect("there are two").clone()
}

fn node_of(world: &World, pod: &Object) -> NodeId {
    let Object::Pod(pod) = pod else { panic!("a pod") };
    let is_its = |n: &NodeId| pod.spec.node.as_deref() == Some(&*world.nodes[*n].name);
    world.nodes.ids().find(is_its).expect("it is bound")
}

/// The EndpointSlice of a Service.
fn slice_of(world: &World, service: &str) -> ObjectKey {
    let prefix = format!("{service}-");
    let slice = objects(&world.store, Kind::ENDPOINT_SLICE).find(|o| o.name().starts_with(&prefix));
    slice.expect("the Service has a slice").key()
}

/// A copy of an object under another name.
fn twin(object: &Object, name: &str) -> Object {
    let mut twin = object.clone();
    twin.meta_mut().name = Some(name.to_owned());
    twin.meta_mut().uid = Some(format!("uid-of-{name}"));
    twin
}

fn delete(key: ObjectKey) -> Call {
    Call::Delete { key, options: DeleteOptions::default() }
}

/// Adds a ReplicaSet of the same size to the Deployment. Returns the key of the first one, and the new one.
fn second_set(world: &mut World) -> (ObjectKey, Object) {
    let first = objects(&world.store, Kind::REPLICA_SET).next().expect("the Deployment has one").clone();
    let second = twin(&first, "web-new");
    world.put(second.clone());
    (first.key(), second)
}

/// Starts a second container with the spec of a pod's container, on the pod's node.
fn start_another(world: &mut World, pod: &Object) {
    let (n, spec) = container_of(world, pod);
    world.start_another(n, &Rc::new(spec));
}

/// The node of a pod, and the spec of a container of it.
fn container_of(world: &World, pod: &Object) -> (NodeId, ContainerSpec) {
    let n = node_of(world, pod);
    let found = world.nodes[n].runtime.containers().find(|(_, spec, _)| *spec.pod_uid == *pod.uid());
    (n, found.expect("it has a container").1.as_ref().clone())
}

/// Runs for another minute and returns the names of the invariants that were violated during the run or at rest.
fn broken(world: &mut World) -> BTreeSet<&'static str> {
    world.run_to(120);
    let judged = world.store.revision();
    world.run_to(122);
    let mut found: BTreeSet<&'static str> = world.checkers.report.names().into_iter().collect();
    found.extend(unsettled(world).map(|(invariant, _)| invariant.name()));
    found.extend(stale_cache(world, judged).map(|_| Invariant::CachesAtRest.name()));
    found.extend(stale_view(world, judged).map(|_| Invariant::ViewsAtRest.name()));
    found.extend(miscounting(world, judged).map(|_| Invariant::SchedulerAtRest.name()));
    found
}

/// Each invariant with an action that violates it.
const PLANTED: &[(Invariant, fn(&mut World))] = &[
    (Invariant::NodeOverAllocatable, |w| bind(w, "waiting", "node-0")),
    (Invariant::PodBoundTwice, |w| bind(w, "never", "node-9")),
    (Invariant::PodBoundTwice, |w| bind(w, "waiting", "node-9")),
    (Invariant::GangsBindTogether, |w| {
        w.put(object(json!({"apiVersion": "scheduling.k8s.io/v1alpha2", "kind": "PodGroup",
            "metadata": {"name": "gang", "namespace": "default", "uid": "gang"},
            "spec": {"schedulingPolicy": {"gang": {"minCount": 2}}}})));
        w.put(object(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "one-of-two", "namespace": "default", "uid": "one"},
            "spec": {"schedulerName": "nobody", "schedulingGroup": {"podGroupName": "gang"},
                "containers": [{"name": "c", "image": "i"}]}})));
        bind(w, "one-of-two", "node-0");
        // What is due is looked at when something is committed.
        w.run_to(100);
        w.put(object(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "later", "namespace": "default", "uid": "later"}})));
    }),
    (Invariant::AvailableFloor, |w| {
        let set = objects(&w.store, Kind::REPLICA_SET).next().expect("the Deployment has one").key();
        w.tamper(&set, |set| {
            let Object::ReplicaSet(set) = set else { panic!("a ReplicaSet") };
            set.spec_mut().replicas = Some(1);
        });
    }),
    // A second ReplicaSet has none of its pods yet.
    (Invariant::AvailableFloor, |w| {
        let (old, _) = second_set(w);
        w.tamper(&old, |set| {
            let Object::ReplicaSet(set) = set else { panic!("a ReplicaSet") };
            set.spec_mut().replicas = Some(0);
        });
    }),
    (Invariant::RecreateWaits, |w| {
        w.tamper(&key(Kind::DEPLOYMENT, "web"), |d| {
            let Object::Deployment(d) = d else { panic!("a Deployment") };
            d.spec_mut().strategy.get_or_insert_default().type_ = Some("Recreate".to_owned());
        });
        let (_, new) = second_set(w);
        let mut pod = twin(&web_pod(w), "web-new-1");
        for owner in pod.meta_mut().owner_references.iter_mut().flatten() {
            (owner.name, owner.uid) = (new.name().to_owned(), new.uid().to_owned());
        }
        w.put(pod);
    }),
    (Invariant::MembersInOrder, |w| {
        let app = json!({"app": "db"});
        w.put(object(json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "db", "namespace": "default", "uid": "db"},
            "spec": {"replicas": 0, "serviceName": "db", "selector": {"matchLabels": app},
                "template": {"metadata": {"labels": app}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})));
        let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "db",
            "controller": true});
        w.put(object(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "db-1", "namespace": "default", "uid": "db-1", "labels": app,
                "ownerReferences": [owner]},
            "spec": {"containers": [{"name": "c", "image": "i"}]}})));
    }),
    (Invariant::JobCounts, |w| {
        w.put(object(json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "once", "namespace": "default", "uid": "once"},
            "spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never",
                "containers": [{"name": "c", "image": "i"}]}}},
            "status": {"succeeded": 1}})));
    }),
    (Invariant::JobCounts, |w| {
        w.stop("controller-manager");
        w.put(object(json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "once", "namespace": "default", "uid": "once"},
            "spec": {"suspend": true, "completions": 1, "template": {"spec": {"restartPolicy": "Never",
                "containers": [{"name": "c", "image": "i"}]}}},
            "status": {"conditions": [{"type": "Complete", "status": "True"}]}})));
    }),
    (Invariant::ZoneRate, |w| {
        // Three nodes, each three times.
        for (n, taint) in (0..9).flat_map(|n| [(n % 3, true), (n % 3, false)]) {
            w.tamper(&ObjectKey::new(Kind::NODE, "", &format!("node-{n}")), |node| {
                let Object::Node(node) = node else { panic!("a node") };
                let taints = json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]);
                let taints = serde_json::from_value(taints).expect("a taint");
                node.spec_mut().taints = if taint { taints } else { None };
            });
        }
    }),
    // A node that is not ready, and nobody who taints it.
    (Invariant::ZoneRate, |w| {
        w.stop("controller-manager");
        w.stop("agent node-1");
        set_ready(w, "node-1", "False");
        w.run_to(130);
        w.put(twin(&web_pod(w), "another"));
    }),
    (Invariant::DeletionWaits, |w| {
        let pod = StoreKey::Object(web_pod(w).key());
        w.write(Op::Delete { key: pod }, false);
    }),
    (Invariant::BudgetIsEarned, |w| {
        w.put(object(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "b", "namespace": "default"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
            "status": {"disruptionsAllowed": 4, "desiredHealthy": 1}})));
    }),
    // The leader is partitioned, and its clock almost stops, so that by its own clock its lease does not expire.
    (Invariant::OneLeader, |w| {
        let leader = w.processes.ids().find(|p| w.is_leader(*p)).expect("somebody leads");
        let (now, host) = (w.now, w.processes[leader].host);
        w.tamper_with_clock(host).drift(now, FaultId(1), -999_000);
        w.rearm_all();
        let others = (0..99).filter(|other| *other != host).collect();
        w.net.cut(FaultId(1), BTreeSet::from([host]), others, false);
    }),
    (Invariant::ChildOutlivesOwner, |w| {
        let (pod, user) = (web_pod(w).key(), w.process("user"));
        w.ask(user, GarbageCollector::NAME, delete(pod));
    }),
    (Invariant::OrphansSurvive, |w| {
        let mut owner = twin(w.store.object(&key(Kind::SERVICE, "each")).expect("it is there"), "owner");
        w.put(owner.clone());
        let reference = json!({"apiVersion": "v1", "kind": "Service", "name": "owner", "uid": owner.uid()});
        w.tamper(&key(Kind::POD, "never"), |pod| {
            pod.meta_mut().owner_references = serde_json::from_value(json!([reference])).expect("a reference");
        });
        owner.meta_mut().finalizers = Some(vec!["orphan".to_owned()]);
        owner.meta_mut().deletion_timestamp = owner.meta().creation_timestamp.clone();
        // The garbage collector hears only that the owner is gone.
        let key = StoreKey::Object(owner.key());
        w.write(Op::Put { key: key.clone(), value: Stored::Object(owner), lease: None }, true);
        w.write(Op::Delete { key }, false);
    }),
    // Its owner waits for nothing, and is there.
    (Invariant::ChildOutlivesOwner, |w| {
        let set = objects(&w.store, Kind::REPLICA_SET).next().expect("the Deployment has one").key();
        w.tamper(&set, |set| {
            set.meta_mut().finalizers = Some(vec!["example.com/stays".to_owned()]);
            set.meta_mut().deletion_timestamp = set.meta().creation_timestamp.clone();
        });
        let (pod, user) = (web_pod(w).key(), w.process("user"));
        w.ask(user, GarbageCollector::NAME, delete(pod));
    }),
    (Invariant::HeardNodesAreKnown, |w| {
        w.run_to(200);
        set_ready(w, "node-0", "Unknown");
    }),
    (Invariant::HeardNodesAreKnown, |w| {
        w.run_to(200);
        w.stop("controller-manager");
        w.checkers.silence.disturb(f64::MAX);
        for node in ["node-0", "node-1", "node-2"] {
            set_ready(w, node, "Unknown");
        }
    }),
    (Invariant::DeadNodesServeNothing, |w| {
        let pod = web_pod(w);
        let node = w.nodes[node_of(w, &pod)].name.clone();
        w.stop("controller-manager");
        w.stop(&format!("agent {node}"));
        set_ready(w, &node, "False");
        w.run_to(125);
        w.put(twin(&pod, "another"));
    }),
    (Invariant::BoundAsSeen, |w| ask_to_bind(w, "node-9")),
    (Invariant::BoundAsSeen, |w| {
        w.tamper(&ObjectKey::new(Kind::NODE, "", "node-1"), |node| {
            let Object::Node(node) = node else { panic!("a node") };
            node.spec_mut().unschedulable = Some(true);
        });
        w.run_to(62);
        ask_to_bind(w, "node-1");
    }),
    // An election whose mark is gone: whoever led before it was made may write again.
    (Invariant::DeposedLeadersWriteNothing, |w| {
        let lease = ObjectKey::new(Kind::LEASE, "kube-system", "election");
        let mark = StoreKey::Fence(lease.clone());
        w.write(Op::Put { key: mark.clone(), value: Stored::mark(""), lease: None }, false);
        w.write(Op::Delete { key: mark }, false);
        let account = object(json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "new", "namespace": "default"}}));
        let call = Call::Create { object: account, options: WriteOptions::default() };
        let mut request = Request::new(&Rc::from("somebody"), call);
        request.fence = Some(Fence { lease, epoch: Revision(0) });
        w.send(w.process("user"), ToServer::Request(ReqId(u64::MAX), request));
    }),
    (Invariant::WritesAreGuarded, |w| {
        let options = DeleteOptions::default();
        w.ask(w.process("agent node-1"), "system:node:node-1", Call::Delete { key: key(Kind::POD, "web-1"), options });
    }),
    (Invariant::WritesAreGuarded, |w| {
        let key = ObjectKey::new(Kind::NODE, "", "node-1");
        let call = Call::SetScale { key, replicas: 1, rv: Revision(0), options: WriteOptions::default() };
        w.ask(w.process("controller-manager 0"), "horizontal-pod-autoscaler-controller", call);
    }),
    (Invariant::FreshReads, |w| {
        let list = Call::List { kind: Kind::SERVICE, namespace: Rc::from(""), options: ListOptions::default() };
        let (user, rest) = (w.process("user"), None);
        w.ask(user, "somebody", list);
        w.answer_first(user, Response::List { items: Rc::default(), rv: Revision(1), rest });
    }),
    (Invariant::GenerationCounts, |w| {
        w.tamper(&key(Kind::DEPLOYMENT, "web"), |d| d.meta_mut().generation = Some(0));
    }),
    (Invariant::BudgetIsSpent, |w| {
        w.put(object(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "b", "namespace": "default"}, "spec": {"maxUnavailable": 1},
            "status": {"disruptionsAllowed": 1}})));
        w.tamper(&key(Kind::POD_DISRUPTION_BUDGET, "b"), |budget| {
            let Object::PodDisruptionBudget(budget) = budget else { panic!("a budget") };
            let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Default::default());
            budget.status_mut().disrupted_pods = Some([("web-1".to_owned(), now)].into());
        });
    }),
    // An eviction that the budget has not heard of.
    (Invariant::BudgetIsSpent, |w| {
        w.put(object(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "b", "namespace": "default"},
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}})));
        w.run_to(190);
        w.tamper(&web_pod(w).key(), |pod| {
            let mut value = pod.to_json();
            let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"});
            value["status"]["conditions"].as_array_mut().expect("it has some").push(condition);
            *pod = object(value);
        });
    }),
    (Invariant::SchedulerAtRest, |w| {
        w.lose_next_event_of(w.process("scheduler 0"));
        let (pod, user) = (web_pod(w).key(), w.process("user"));
        let options = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
        w.ask(user, "somebody", Call::Delete { key: pod, options });
    }),
    (Invariant::MostReplicas, |w| w.put(twin(&web_pod(w), "web-third"))),
    (Invariant::OnePodPerClaim, |w| {
        w.put(object(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "c", "namespace": "default"}, "spec": {"accessModes": ["ReadWriteOncePod"],
            "resources": {"requests": {"storage": "1Gi"}}}})));
        for (pod, node) in [("first", "node-0"), ("second", "node-1")] {
            w.put(object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": "default"},
                "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "i"}],
                    "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}})));
            bind(w, pod, node);
        }
    }),
    (Invariant::OneNodePerVolume, |w| {
        w.put(object(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
                "csi": {"driver": "disk", "volumeHandle": "h"}}})));
        for node in ["node-0", "node-1"] {
            w.put(object(json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
                "metadata": {"name": format!("to-{node}")}, "spec": {"attacher": "disk", "nodeName": node,
                    "source": {"persistentVolumeName": "v"}}})));
        }
    }),
    (Invariant::OneClaimPerDevice, |w| {
        for claim in ["first", "second"] {
            let results = json!([{"request": "r", "driver": "d", "pool": "p", "device": "x"}]);
            w.put(object(json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
                "metadata": {"name": claim, "namespace": "default"},
                "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}},
                "status": {"allocation": {"devices": {"results": results}}}})));
        }
    }),
    (Invariant::ReadyAndTerminating, |w| {
        change_endpoint(w, "web", |c| (c.ready, c.terminating) = (Some(true), Some(true)));
    }),
    (Invariant::SlicesDoNotPileUp, |w| {
        let slice = w.store.object(&slice_of(w, "web")).expect("it is there").clone();
        w.stop("controller-manager");
        ["web-again", "web-and-again"].into_iter().for_each(|name| w.put(twin(&slice, name)));
    }),
    (Invariant::ServiceAddresses, |w| {
        let web = w.store.object(&key(Kind::SERVICE, "web")).expect("it is there").clone();
        w.put(twin(&web, "thief"));
    }),
    (Invariant::DeletedWhileRunning, |w| {
        let pod = web_pod(w);
        let node = w.nodes[node_of(w, &pod)].name.clone();
        let agent = w.process(&format!("agent {node}"));
        w.ask(agent, &format!("system:node:{node}"), delete(pod.key()));
    }),
    (Invariant::OneContainer, |w| start_another(w, &web_pod(w))),
    (Invariant::NeverRestarts, |w| {
        let never = w.store.object(&key(Kind::POD, "never")).expect("it is there").clone();
        start_another(w, &never);
    }),
    (Invariant::InitsComeFirst, |w| {
        let (pod, init) = (web_pod(w), json!([{"name": "first", "image": "i"}]));
        let n = node_of(w, &pod);
        let mut spec = (*w.nodes[n].runtime.containers().next().expect("it has a container").1).as_ref().clone();
        let made = object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"initContainers": init, "containers": [{"name": "c", "image": "i"}]}}));
        let Object::Pod(made) = made else { panic!("a pod") };
        (spec.pod, spec.pod_uid) = (made.spec.shared.clone(), Rc::from("another"));
        w.start_another(n, &Rc::new(spec));
    }),
    (Invariant::StatusesAddUp, |w| {
        let pod = web_pod(w).key();
        w.tamper(&pod, |pod| status(pod).container_statuses[0].ready = false);
    }),
    (Invariant::StatusesAddUp, |w| {
        for phase in [Text::SUCCEEDED, Text::FAILED] {
            w.tamper(&key(Kind::POD, "waiting"), |pod| status(pod).phase = phase);
        }
    }),
    (Invariant::StatusesAddUp, |w| {
        let now = web_pod(w).meta().creation_timestamp.clone();
        for deleted in [now, None] {
            w.tamper(&key(Kind::POD, "waiting"), |pod| pod.meta_mut().deletion_timestamp = deleted);
        }
    }),
    // Its agent is not told.
    (Invariant::StatusesAtRest, |w| {
        let node = node_of(w, &web_pod(w));
        w.nodes[node].runtime.power_off(Wall(0), false);
    }),
    (Invariant::CountsAtRest, |w| {
        w.stop("controller-manager");
        let set = objects(&w.store, Kind::REPLICA_SET).next().expect("the Deployment has one").key();
        w.tamper(&set, |set| {
            let Object::ReplicaSet(set) = set else { panic!("a ReplicaSet") };
            set.status_mut().ready_replicas = Some(1);
        });
    }),
    // One says that none is healthy, and one that two are, and allows nothing.
    (Invariant::CountsAtRest, |w| put_budget(w, json!({}))),
    (Invariant::CountsAtRest, |w| {
        put_budget(w, json!({"currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}));
    }),
    (Invariant::CachesAtRest, |w| {
        let mut web = w.store.object(&key(Kind::SERVICE, "web")).expect("it is there").clone();
        web.meta_mut().labels = Some([("a".to_owned(), "b".to_owned())].into());
        w.write(Op::Put { key: StoreKey::Object(web.key()), value: Stored::Object(web), lease: None }, true);
    }),
    (Invariant::ViewsAtRest, |w| {
        w.lose_next_event_of(w.process("proxy node-1"));
        w.tamper(&key(Kind::SERVICE, "web"), |s| s.meta_mut().labels = Some([("a".to_owned(), "b".to_owned())].into()));
    }),
    (Invariant::EndpointsAtRest, |w| {
        w.stop("controller-manager");
        change_endpoint(w, "web", |c| c.ready = Some(false));
    }),
    (Invariant::ProxiesAtRest, |w| w.nodes[NodeId::new(1)].services.clear()),
    (Invariant::ProxiesAtRest, |w| {
        let mut entry = w.nodes[NodeId::new(2)].services.pop_first().expect("a line").1;
        Rc::make_mut(&mut entry).backends = [].into();
    }),
    (Invariant::NamesAtRest, |w| drop(w.zones[0].remove("each.default.svc.cluster.local"))),
    (Invariant::NamesAtRest, |w| w.zones[1].clear()),
    (Invariant::QuotasAtRest, |w| {
        w.stop("controller-manager");
        w.tamper(&key(Kind::RESOURCE_QUOTA, "quota"), |quota| {
            let Object::Dynamic(quota) = quota else { panic!("a ResourceQuota") };
            let mut status = quota.status.as_deref().cloned().expect("its controller has counted");
            status["used"]["pods"] = json!("1");
            quota.status = Some(Rc::new(status));
        });
    }),
    (Invariant::SurgeCeiling, |w| {
        let set = objects(&w.store, Kind::REPLICA_SET).next().expect("the Deployment has one").key();
        w.tamper(&set, |set| {
            let Object::ReplicaSet(set) = set else { panic!("a ReplicaSet") };
            set.spec_mut().replicas = Some(9);
        });
    }),
    (Invariant::PausedDoesNotRoll, |w| {
        w.stop("controller-manager");
        let next = |object: &Object| {
            let mut value = object.to_json();
            value["spec"]["template"]["spec"]["containers"][0]["image"] = json!("next");
            value["metadata"]["generation"] = json!(7);
            value
        };
        let set = objects(&w.store, Kind::REPLICA_SET).next().expect("the Deployment has one").clone();
        w.tamper(&key(Kind::DEPLOYMENT, "web"), |d| {
            let mut value = next(d);
            value["spec"]["paused"] = json!(true);
            *d = object(value);
        });
        w.put(twin(&object(next(&set)), "web-next"));
    }),
    // Below the partition.
    (Invariant::MembersRollInTurn, |w| {
        put_members(w, json!({"rollingUpdate": {"partition": 1}}));
        ask_to_delete(w, "statefulset-controller", &key(Kind::POD, "db-0"));
    }),
    // One after another, at once.
    (Invariant::MembersRollInTurn, |w| {
        put_members(w, json!({}));
        for pod in ["db-1", "db-0"] {
            ask_to_delete(w, "statefulset-controller", &key(Kind::POD, pod));
        }
    }),
    // Of two that are not wanted the lower one.
    (Invariant::MembersRollInTurn, |w| {
        put_members(w, json!({}));
        ask_to_delete(w, "statefulset-controller", &key(Kind::POD, "db-2"));
    }),
    (Invariant::DaemonsRollInTurn, |w| {
        let app = json!({"app": "log"});
        w.put(object(json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "log", "namespace": "default", "uid": "log", "generation": 1},
            "spec": {"updateStrategy": {"type": "OnDelete"}, "selector": {"matchLabels": app},
                "template": {"metadata": {"labels": app}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})));
        w.run_to(200);
        w.stop("controller-manager");
        let pod = objects(&w.store, Kind::POD).find(|pod| pod.name().starts_with("log-")).expect("it runs").key();
        ask_to_delete(w, "daemonset-controller", &pod);
        w.run_to(202);
    }),
    (Invariant::CronJobsTakeTurns, |w| put_jobs_of_cron_job(w, json!({"concurrencyPolicy": "Forbid"}))),
    (Invariant::CronJobsTakeTurns, |w| put_jobs_of_cron_job(w, json!({"suspend": true}))),
    (Invariant::AutoscalersKeepBounds, |w| {
        w.put(autoscaler());
        ask_to_scale(w, 9);
    }),
    (Invariant::AutoscalersKeepBounds, |w| {
        w.put(autoscaler());
        ask_to_scale(w, 3);
        w.run_to(70);
        ask_to_scale(w, 2);
    }),
    (Invariant::TtlIsKept, |w| {
        w.stop("controller-manager");
        w.put(object(json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "once", "namespace": "default", "uid": "once"},
            "spec": {"ttlSecondsAfterFinished": 100, "template": {"spec": {"restartPolicy": "Never",
                "containers": [{"name": "c", "image": "i"}]}}},
            "status": {"conditions": [{"type": "Failed", "status": "True"}]}})));
        ask_to_delete(w, "ttl-after-finished-controller", &key(Kind::JOB, "once"));
    }),
    // It tolerates the taint for five minutes.
    (Invariant::EvictedInTime, |w| {
        let pod = web_pod(w);
        taint_node_of(w, &pod, "node.kubernetes.io/unreachable");
        ask_to_delete(w, "node-controller", &pod.key());
    }),
    // It does not tolerate the taint at all, and nobody evicts it.
    (Invariant::EvictedInTime, |w| {
        let pod = web_pod(w);
        taint_node_of(w, &pod, "example.com/gone");
        w.run_to(100);
        w.put(twin(&pod, "another"));
    }),
    (Invariant::VictimsAreLesser, |w| {
        let pod = web_pod(w).key();
        ask_to_delete(w, "system:kube-scheduler", &pod);
    }),
    (Invariant::ClaimsStayWhileUsed, |w| {
        let claim = object(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "c", "namespace": "default"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}));
        w.put(claim.clone());
        w.put(object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "user", "namespace": "default"},
            "spec": {"schedulerName": "nobody", "nodeName": "node-0", "containers": [{"name": "c", "image": "i"}],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}})));
        w.write(Op::Delete { key: StoreKey::Object(claim.key()) }, false);
    }),
    (Invariant::GraceIsKept, |w| {
        let pod = web_pod(w);
        begin_to_delete(w, &pod);
        tell_to_stop(w, &pod, "c", 0);
    }),
    (Invariant::SidecarsGoLast, |w| {
        let pod = web_pod(w);
        let (n, mut spec) = container_of(w, &pod);
        let made = object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
            "initContainers": [{"name": "beside", "image": "i", "restartPolicy": "Always"}],
            "containers": [{"name": "c", "image": "i"}]}}));
        let Object::Pod(made) = made else { panic!("a pod") };
        (spec.pod, spec.name) = (made.spec.shared.clone(), Rc::from("beside"));
        w.start_another(n, &Rc::new(spec));
        w.run_to(65);
        begin_to_delete(w, &pod);
        tell_to_stop(w, &pod, "beside", 30);
    }),
    (Invariant::HooksRunFirst, |w| {
        let pod = web_pod(w);
        let (n, mut spec) = container_of(w, &pod);
        let hook = json!({"preStop": {"sleep": {"seconds": 5}}});
        let made = object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "hooked", "image": "i", "lifecycle": hook}]}}));
        let Object::Pod(made) = made else { panic!("a pod") };
        (spec.pod, spec.name) = (made.spec.shared.clone(), Rc::from("hooked"));
        w.start_another(n, &Rc::new(spec));
        w.run_to(65);
        begin_to_delete(w, &pod);
        tell_to_stop(w, &pod, "hooked", 30);
    }),
    // Nobody deletes the pod of a Job that is suspended.
    (Invariant::DoneInTime, |w| {
        w.stop("controller-manager");
        w.put(object(json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "all", "namespace": "default", "uid": "all"},
            "spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never",
                "containers": [{"name": "c", "image": "i"}]}}}})));
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "all", "uid": "all", "controller": true});
        w.put(object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "all-a", "namespace": "default",
            "uid": "all-a", "ownerReferences": [owner]}, "spec": {"schedulerName": "nobody",
                "containers": [{"name": "c", "image": "i"}]}})));
        w.run_to(100);
        w.put(twin(&web_pod(w), "another"));
    }),
    // Nor binds anybody a pod that is nominated.
    (Invariant::DoneInTime, |w| {
        w.tamper(&key(Kind::POD, "waiting"), |pod| status(pod).nominated_node_name = "node-1".into());
        w.run_to(200);
        w.put(twin(&web_pod(w), "another"));
    }),
    (Invariant::DetachedWhenUnused, |w| {
        w.stop("controller-manager");
        w.stop("agent node-0");
        w.put(object(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
                "claimRef": {"namespace": "default", "name": "c"}, "csi": {"driver": "disk", "volumeHandle": "h"}}})));
        w.put(object(
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": "to-node-0"},
            "spec": {"attacher": "disk", "nodeName": "node-0", "source": {"persistentVolumeName": "v"}}}),
        ));
        w.put(object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "user", "namespace": "default"},
            "spec": {"schedulerName": "nobody", "nodeName": "node-0", "containers": [{"name": "c", "image": "i"}],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}})));
        w.tamper(&ObjectKey::new(Kind::NODE, "", "node-0"), |node| {
            let Object::Node(node) = node else { panic!("a node") };
            node.status_mut().volumes_in_use = Some(vec!["kubernetes.io/csi/disk^h".to_owned()]);
        });
        w.run_to(80);
        let attachment = ObjectKey::new(Kind::VOLUME_ATTACHMENT, "", "to-node-0");
        ask_to_delete(w, "attachdetach-controller", &attachment);
    }),
    (Invariant::UnreadyGoFirst, |w| {
        w.stop("controller-manager");
        w.stop("scheduler");
        let mut unready = twin(&web_pod(w), "web-unready");
        let Object::Pod(pod) = &mut unready else { panic!("a pod") };
        pod.status_mut().conditions.retain(|c| c.type_ != Text::READY);
        pod.spec_mut().node = None;
        w.put(unready);
        w.run_to(80);
        let ready =
            objects(&w.store, Kind::POD).find(|pod| pod.name() != "web-unready" && pod.name().starts_with("web-"));
        let ready = ready.expect("there are two").key();
        ask_to_delete(w, "replicaset-controller", &ready);
    }),
    (Invariant::RestartsBackOff, |w| {
        let pod = web_pod(w);
        let (n, spec) = container_of(w, &pod);
        for attempt in [1, 2] {
            w.start_another(n, &Rc::new(ContainerSpec { attempt, ..spec.clone() }));
        }
    }),
    (Invariant::NamespacesGoEmpty, |w| {
        let namespace = object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "left"}}));
        w.put(namespace.clone());
        w.put(object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "left"}})));
        w.write(Op::Delete { key: StoreKey::Object(namespace.key()) }, false);
    }),
    (Invariant::QuotaHolds, |w| {
        w.run_to(130);
        let pod = web_pod(w);
        (0..9).for_each(|i| w.put(twin(&pod, &format!("web-too-many-{i}"))));
    }),
    (Invariant::MostReplicas, |w| {
        w.put(object(json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "all", "namespace": "default", "uid": "all"},
            "spec": {"suspend": true, "parallelism": 9, "template": {"spec": {"restartPolicy": "Never",
                "containers": [{"name": "c", "image": "i"}]}}}})));
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "all", "uid": "all", "controller": true});
        for name in ["all-0-a", "all-0-b"] {
            w.put(object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default",
                "uid": name, "annotations": {"batch.kubernetes.io/job-completion-index": "0"},
                "ownerReferences": [owner]}, "spec": {"schedulerName": "nobody",
                    "containers": [{"name": "c", "image": "i"}]}})));
        }
    }),
    (Invariant::BoundAsSeen, |w| {
        w.tamper(&ObjectKey::new(Kind::NODE, "", "node-1"), |node| {
            let Object::Node(node) = node else { panic!("a node") };
            let taints = json!([{"key": "mine", "effect": "NoSchedule"}]);
            node.spec_mut().taints = serde_json::from_value(taints).expect("a taint");
        });
        w.run_to(62);
        ask_to_bind(w, "node-1");
    }),
    (Invariant::ServiceAddresses, |w| {
        for (name, ip) in [("one", "10.96.77.1"), ("two", "10.96.77.2")] {
            w.put(object(
                json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
                "spec": {"type": "NodePort", "clusterIP": ip, "ports": [{"port": 80, "nodePort": 31000}]}}),
            ));
        }
    }),
    (Invariant::StatusesAddUp, |w| w.tamper(&key(Kind::POD, "waiting"), |pod| status(pod).phase = Text::FAILED)),
    (Invariant::CountsAtRest, |w| {
        w.stop("controller-manager");
        let (_, second) = second_set(w);
        w.put(twin(&second, "web-newer"));
        w.tamper(&key(Kind::DEPLOYMENT, "web"), |d| {
            let Object::Deployment(d) = d else { panic!("a Deployment") };
            d.spec_mut().revision_history_limit = Some(0);
        });
    }),
];

/// A StatefulSet of the size two, and three ready members and one more, which nobody looks after.
fn put_members(world: &mut World, strategy: Value) {
    world.stop("controller-manager");
    let app = json!({"app": "db"});
    world.put(object(json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "default", "uid": "db", "generation": 1},
        "spec": {"replicas": 2, "serviceName": "db", "selector": {"matchLabels": app}, "updateStrategy": strategy,
            "podManagementPolicy": "Parallel",
            "template": {"metadata": {"labels": app}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})));
    let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "db", "controller": true});
    for name in ["db-0", "db-1", "db-2", "db-3"] {
        world.put(object(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": name, "labels": app, "ownerReferences": [owner]},
            "spec": {"containers": [{"name": "c", "image": "i"}]}})));
    }
    // Of what has changed a moment ago a controller need not know.
    world.run_to(80);
}

/// A CronJob, and, one after the other, two Jobs of it.
fn put_jobs_of_cron_job(world: &mut World, mut spec: Value) {
    world.stop("controller-manager");
    let template = json!({"spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i"}]}}}});
    (spec["schedule"], spec["jobTemplate"]) = (json!("* * * * *"), template.clone());
    world.put(object(json!({"apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "tick", "namespace": "default", "uid": "tick"}, "spec": spec})));
    let owner = json!({"apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": "tick", "controller": true});
    world.run_to(80);
    for name in ["tick-1", "tick-2"] {
        world.put(object(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name,
            "namespace": "default", "uid": name, "ownerReferences": [owner]}, "spec": template["spec"]})));
    }
}

/// An autoscaler of the Deployment.
fn autoscaler() -> Object {
    object(json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": "default"}, "spec": {"minReplicas": 1, "maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}}))
}

/// Lets the autoscaler's controller scale the Deployment.
fn ask_to_scale(world: &mut World, replicas: i32) {
    let web = world.store.object(&key(Kind::DEPLOYMENT, "web")).expect("it is there");
    let call = Call::SetScale { key: web.key(), replicas, rv: web.rv(), options: WriteOptions::default() };
    world.ask(world.process("user"), "horizontal-pod-autoscaler", call);
}

/// Lets a controller delete an object, as it does by its UID.
fn ask_to_delete(world: &mut World, user: &str, key: &ObjectKey) {
    let uid = Rc::from(world.store.object(key).expect("it is there").uid());
    let precondition = skeg_core::api::Precondition { uid: Some(uid), rv: None };
    let options = DeleteOptions { precondition, ..DeleteOptions::default() };
    world.ask(world.process("user"), user, Call::Delete { key: key.clone(), options });
}

/// Taints the node of a pod so that pods must leave it, which nobody sees to.
fn taint_node_of(world: &mut World, pod: &Object, taint: &str) {
    world.stop("controller-manager");
    let name = world.nodes[node_of(world, pod)].name.clone();
    world.tamper(&ObjectKey::new(Kind::NODE, "", &name), |node| {
        let Object::Node(node) = node else { panic!("a node") };
        let taints = json!([{"key": taint, "effect": "NoExecute"}]);
        node.spec_mut().taints = serde_json::from_value(taints).expect("a taint");
    });
}

/// Deletes a pod with a grace period of half a minute.
fn begin_to_delete(world: &mut World, pod: &Object) {
    world.tamper(&pod.key(), |pod| {
        pod.meta_mut().deletion_timestamp = pod.meta().creation_timestamp.clone();
        pod.meta_mut().deletion_grace_period_seconds = Some(30);
    });
}

/// Shows the checkers that a container of a pod is told to stop.
fn tell_to_stop(world: &mut World, pod: &Object, name: &str, grace: u32) {
    let node = &world.nodes[node_of(world, pod)];
    let mut containers = node.runtime.containers();
    let found = containers.find(|(_, spec, _)| *spec.pod_uid == *pod.uid() && *spec.name == *name);
    let Checkers { stops, report, .. } = &mut world.checkers;
    stops.told(world.now as f64 / 1e9, node, found.expect("it runs").0, grace, report);
}

fn status(pod: &mut Object) -> &mut PodStatus {
    let Object::Pod(pod) = pod else { panic!("a pod") };
    pod.status_mut()
}

/// Adds a budget of the Deployment's pods with a status that nobody corrects.
fn put_budget(world: &mut World, status: Value) {
    world.stop("controller-manager");
    let Object::Pod(pod) = web_pod(world) else { panic!("a pod") };
    let hash = pod.meta.labels.as_ref().expect("it has labels")["pod-template-hash"].clone();
    world.put(object(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"pod-template-hash": hash}}}, "status": status})));
}

fn set_ready(world: &mut World, node: &str, status: &str) {
    world.tamper(&ObjectKey::new(Kind::NODE, "", node), |node| {
        let Object::Node(node) = node else { panic!("a node") };
        let ready = node.status_mut().conditions.iter_mut().flatten().find(|c| c.type_ == "Ready");
        ready.expect("its agent has reported it").status = status.to_owned();
    });
}

/// Lets the scheduler bind the waiting pod to a node.
fn ask_to_bind(world: &mut World, node: &str) {
    let pod = world.store.object(&key(Kind::POD, "waiting")).expect("it is there");
    let call =
        Call::Bind { pod: pod.key(), uid: Rc::from(pod.uid()), node: Rc::from(node), annotations: Default::default() };
    world.ask(world.process("scheduler 0"), "system:kube-scheduler", call);
}

fn bind(world: &mut World, pod: &str, node: &str) {
    world.tamper(&key(Kind::POD, pod), |pod| {
        let Object::Pod(pod) = pod else { panic!("a pod") };
        pod.spec_mut().node = Some(Rc::from(node));
    });
}

fn change_endpoint(
    world: &mut World,
    service: &str,
    change: impl FnOnce(&mut k8s_openapi::api::discovery::v1::EndpointConditions),
) {
    let slice = slice_of(world, service);
    world.tamper(&slice, |slice| {
        let Object::EndpointSlice(slice) = slice else { panic!("a slice") };
        let endpoint = slice.spec_mut().endpoints.iter_mut().flatten().next().expect("it has endpoints");
        change(endpoint.conditions.get_or_insert_default());
    });
}

#[test]
fn a_sound_cluster_breaks_nothing() {
    let mut world = settled();
    assert_eq!(world.nodes[NodeId::new(1)].services.len(), 3, "a front end of each Service with an address");
    // This is not the garbage collector that the invariants judge.
    let (pod, user) = (web_pod(&world).key(), world.process("user"));
    world.ask(user, "pod-garbage-collector", delete(pod));
    let judged = world.store.revision();
    world.run_to(64);
    assert_eq!((unsettled(&world), stale_cache(&world, judged), stale_view(&world, judged)), (None, None, None));
    assert_eq!(miscounting(&world, judged), None);
    assert_eq!(broken(&mut world), BTreeSet::new(), "{:?}", world.checkers.report);
}

#[test]
#[should_panic(expected = "it asks to be woken at once, 100000 times")]
fn a_machine_that_never_sleeps_fails_the_run() {
    let mut world = settled();
    let agent = world.process("agent node-1");
    world.wake_again(agent, 100_000);
    world.wake_again(agent, 1);
}

#[test]
fn what_is_planted_is_found() {
    for (invariant, plant) in PLANTED.iter().chain(workloads::PLANTED) {
        let mut world = settled();
        plant(&mut world);
        let found = broken(&mut world);
        assert!(found.contains(invariant.name()), "{} is not found, but {found:?}", invariant.name());
    }
}

#[test]
fn every_invariant_is_broken_on_purpose() {
    let all = PLANTED.iter().chain(workloads::PLANTED);
    let mut planted: BTreeSet<Invariant> = all.map(|(invariant, _)| *invariant).collect();
    // Needs a complete run; see `a_run_that_does_not_converge_says_so`.
    planted.insert(Invariant::ConvergedAndKept);
    assert_eq!(planted, Invariant::ALL.iter().copied().collect());
}

#[test]
fn a_run_that_does_not_converge_says_so() {
    let huge = object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "huge", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1000"}}}]}}));
    let mut scenario = plain(2, 1);
    (scenario.duration, scenario.settle) = (Duration::from_secs(60), Duration::from_secs(30));
    let action = UserAction::Apply(vec![huge]);
    scenario.timeline = vec![Step::at(Duration::from_secs(1), action)];
    let outcome =
        crate::run(&scenario, 1, &crate::RunOptions::default(), &mut crate::Silent).expect("no machine panics");
    let broken: Vec<&str> = outcome.invariants.iter().filter(|i| i.broken).map(|i| &*i.name).collect();
    assert_eq!(broken, [Invariant::ConvergedAndKept.name()]);
}

/// The scheduler's view may still show a node that was deleted a moment ago, but not one deleted long ago.
#[test]
fn a_view_may_lag_when_a_node_goes() {
    for (bound_at, expect) in [(80, false), (400, true)] {
        let mut world = settled();
        world.stop("controller-manager");
        world.stop("agent node-2");
        let node = ObjectKey::new(Kind::NODE, "", "node-2");
        world.write(Op::Delete { key: StoreKey::Object(node) }, false);
        world.run_to(bound_at);
        bind(&mut world, "waiting", "node-2");
        let found = world.checkers.report.names();
        assert_eq!(found.contains(&"pod-bound-twice"), expect, "at {bound_at}: {found:?}");
    }
}
