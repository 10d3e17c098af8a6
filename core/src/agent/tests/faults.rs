//! Property: whatever faults occur, once they end the node runs exactly what the API says.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Due, LOSABLE, World, container, describe, exec, ready_world, with};
use crate::agent::pod::{Container, PodState};
use crate::agent::{In, NodeAgent, RuntimeEvent};
use crate::api::{FromServer, Status};
use crate::object::{Kind, Object, ObjectKey};

#[derive(Clone, Debug)]
enum Fault {
    Apply(u8),
    Delete(u8, i64),
    ForceDelete(u8),
    RestartAgent,
    Disconnect,
    LoseWrite(bool),
    LoseCommand(u8),
    KillSandbox(u8),
    Crash(u8),
    /// The view goes back in time: the list comes from a server that lags by this many changes.
    Rewind(u8),
    Wait(u8),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => any::<u8>().prop_map(Fault::Apply),
        3 => (any::<u8>(), prop_oneof![Just(0), Just(1), Just(30)]).prop_map(|(p, g)| Fault::Delete(p, g)),
        1 => any::<u8>().prop_map(Fault::ForceDelete),
        2 => Just(Fault::RestartAgent),
        1 => Just(Fault::Disconnect),
        2 => any::<bool>().prop_map(Fault::LoseWrite),
        2 => any::<u8>().prop_map(Fault::LoseCommand),
        1 => any::<u8>().prop_map(Fault::KillSandbox),
        2 => any::<u8>().prop_map(Fault::Crash),
        1 => any::<u8>().prop_map(Fault::Rewind),
        8 => any::<u8>().prop_map(Fault::Wait),
    ]
}

fn shape(n: u8) -> Value {
    let sidecar = with(container("side", "app:1"), "restartPolicy", json!("Always"));
    let hooked = with(container("a", "app:2"), "lifecycle", json!({"preStop": exec(&["sleep", "1"])}));
    match n % 5 {
        0 => json!({"containers": [container("a", "app:1")]}),
        1 => json!({"containers": [container("a", "app:2"), container("b", "app:1")],
            "initContainers": [container("i", "step:1")]}),
        2 => {
            json!({"restartPolicy": "OnFailure", "initContainers": [sidecar], "containers": [container("a", "step:1")]})
        }
        3 => json!({"containers": [hooked], "initContainers": [sidecar]}),
        _ => json!({"restartPolicy": "Never", "containers": [container("a", "step:1"), container("b", "step:1")]}),
    }
}

impl World {
    fn nth_pod(&self, n: u8) -> Option<ObjectKey> {
        let pods: Vec<_> = self.api.objects.keys().filter(|k| k.kind == Kind::POD).collect();
        (!pods.is_empty()).then(|| pods[usize::from(n) % pods.len()].clone())
    }

    fn strike(&mut self, fault: &Fault) {
        match fault {
            Fault::Apply(n) => {
                let name = format!("p{}", n % 6);
                if !self.api.objects.contains_key(&ObjectKey::new(Kind::POD, "d", &name)) {
                    self.apply(&name, shape(*n));
                }
            }
            Fault::Delete(n, grace) => {
                if let Some(key) = self.nth_pod(*n) {
                    self.delete(&key, *grace);
                }
            }
            Fault::ForceDelete(n) => {
                if let Some(key) = self.nth_pod(*n) {
                    self.remove(&key);
                }
            }
            Fault::RestartAgent => self.restart_agent(),
            Fault::Disconnect => {
                // All messages in flight and the watch are lost.
                self.queue.retain(|_, due| !matches!(due, Due::Input(In::Api(_))));
                (self.api.watch, self.api.node_watch) = (None, None);
                self.later(Duration::ZERO, Due::Input(In::Api(FromServer::Disconnected)));
            }
            Fault::LoseWrite(carried_out) => self.api.lose.push(*carried_out),
            Fault::LoseCommand(n) => {
                *self.runtime.lose.entry(LOSABLE[usize::from(*n) % LOSABLE.len()]).or_default() += 1;
            }
            Fault::KillSandbox(n) => self.kill_sandbox(*n),
            Fault::Crash(n) => {
                let ids: Vec<_> = self.runtime.containers.keys().cloned().collect();
                if let Some(id) = ids.get(usize::from(*n) % ids.len().max(1)) {
                    self.exit(id, 1);
                }
            }
            Fault::Rewind(changes) => self.rewind(usize::from(*changes % 16)),
            Fault::Wait(tenths) => self.run_for(f64::from(*tenths) / 10.0),
        }
    }

    /// Expires the watch; the next list shows the pods as they were this many changes ago.
    fn rewind(&mut self, changes: usize) {
        let Some(id) = self.api.watch.take() else { return };
        self.queue.retain(|_, due| !matches!(due, Due::Input(In::Api(FromServer::Watch(..)))));
        self.later(Duration::ZERO, Due::Input(In::Api(FromServer::Reply(id, Err(Status::expired("too old"))))));
        self.api.list_behind = changes;
    }

    fn kill_sandbox(&mut self, n: u8) {
        let ids: Vec<_> = self.runtime.sandboxes.keys().cloned().collect();
        let Some(id) = ids.get(usize::from(n) % ids.len().max(1)) else { return };
        let within: Vec<_> = self.runtime.containers.iter().filter(|(_, c)| c.spec.sandbox == *id).collect();
        let within: Vec<_> = within.into_iter().map(|(id, _)| id.clone()).collect();
        for container in within {
            self.exit(&container, 137);
        }
        if let Some(s) = self.runtime.sandboxes.get_mut(id) {
            s.ready = false;
        }
        self.tell(Duration::ZERO, RuntimeEvent::SandboxGone { sandbox: id.clone() });
    }

    fn assert_settled(&self) {
        let pods: Vec<_> =
            self.api.objects.values().filter_map(Object::get::<k8s_openapi::api::core::v1::Pod>).collect();
        for pod in &pods {
            let line = describe(pod);
            assert!(pod.meta.deletion_timestamp.is_none(), "still there: {line}");
            let phase = pod.status.phase.as_str();
            let rests = matches!(phase, "Succeeded" | "Failed");
            let loops = line.contains("CrashLoopBackOff");
            assert!(rests || loops || line.contains(" Running PIRCS"), "not settled: {line}");
            let running = self.runtime.containers.values().filter(|c| *c.spec.pod_uid == *pod.uid());
            let running = running.filter(|c| matches!(c.state, crate::agent::ContainerState::Running { .. })).count();
            let told = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
            let told = told.filter(|s| matches!(s.state, crate::object::ContainerState::Running { .. })).count();
            assert_eq!(running, told, "what runs is what is told: {line}");
        }
        let wanted: BTreeSet<&str> = pods.iter().map(|p| p.uid()).collect();
        let there: BTreeSet<&str> = self.runtime.sandboxes.values().map(|s| &*s.pod_uid).collect();
        assert!(there.is_subset(&wanted), "left behind: {:?}", there.difference(&wanted));
        assert_eq!(self.agent.pods(), pods.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn settles_after_any_faults(faults in prop::collection::vec(fault(), 1..60)) {
        let mut world = ready_world();
        for f in &faults {
            world.strike(f);
        }
        world.api.lose.clear();
        world.runtime.lose.clear();
        world.run_for(3000.0);
        world.assert_settled();
        world.wakeups = 0;
        world.run_for(100.0);
        assert!(world.wakeups < 30, "an agent at rest was woken {} times in 100 s", world.wakeups);
    }
}

#[test]
fn an_agent_is_light() {
    assert!(size_of::<NodeAgent>() <= 2048, "{}", size_of::<NodeAgent>());
    assert!(size_of::<PodState>() <= 640, "{}", size_of::<PodState>());
    assert!(size_of::<Container>() <= 256, "{}", size_of::<Container>());
}
