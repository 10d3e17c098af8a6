//! What users do when the cluster is slow: a user machine with replies written by hand.

use std::rc::Rc;
use std::time::Duration;

use serde_json::json;

use skeg_core::api::{Call, FromServer, ReqId, Response, Status, ToServer};
use skeg_core::object::{Kind, Object, ObjectKey, Revision};
use skeg_core::{Machine, Mono, Now, Rng, Wall};

use super::User;
use crate::scenario::{NodeSet, UserAction};

struct Desk {
    user: User,
    seconds: u64,
}

impl Desk {
    fn new() -> Desk {
        Desk { user: User::new(Rng::from_seed(1)), seconds: 0 }
    }

    fn now(&self) -> Now {
        Now { mono: Mono::ZERO, wall: Wall(1_700_000_000_000_000) } + Duration::from_secs(self.seconds)
    }

    fn act(&mut self, action: &UserAction) {
        self.user.act(self.now(), action, &[]);
    }

    /// The requests that are sent a second later.
    fn requests(&mut self) -> Vec<(ReqId, Call)> {
        self.seconds += 1;
        let mut out = Vec::new();
        self.user.handle_timeout(self.now(), &mut out);
        calls(out)
    }

    fn reply(&mut self, id: ReqId, result: Result<Response, Status>) -> Vec<(ReqId, Call)> {
        let mut out = Vec::new();
        self.user.handle(self.now(), FromServer::Reply(id, result), &mut out);
        calls(out)
    }
}

fn calls(out: Vec<ToServer>) -> Vec<(ReqId, Call)> {
    let call = |message| match message {
        ToServer::Request(id, request) => (id, request.call),
        other => panic!("{other:?}"),
    };
    out.into_iter().map(call).collect()
}

fn deployment(observed: i64) -> Object {
    let value = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "generation": 2},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec":
            {"containers": [{"name": "main", "image": "web:1"}]}}},
        "status": {"observedGeneration": observed},
    });
    Object::from_json(value).expect("it is a Deployment")
}

fn web() -> ObjectKey {
    ObjectKey::new(Kind::DEPLOYMENT, "default", "web")
}

fn not_found() -> Result<Response, Status> {
    Err(Status::not_found(deployment(0).info(), "web"))
}

#[test]
fn an_action_waits_for_the_apply_of_its_object() {
    let mut desk = Desk::new();
    desk.act(&UserAction::Apply(vec![deployment(0)]));
    desk.act(&UserAction::Scale { key: web(), replicas: 3 });
    let sent = desk.requests();
    let [(get, Call::Get { .. }), (scale, Call::SetScale { .. })] = &sent[..] else { panic!("{sent:?}") };
    assert!(desk.reply(*scale, not_found()).is_empty());
    assert!(desk.user.refused().is_empty(), "the apply is under way");
    let sent = desk.reply(*get, not_found());
    let [(create, Call::Create { .. })] = &sent[..] else { panic!("{sent:?}") };
    desk.reply(*create, Ok(Response::Object(deployment(0))));
    let sent = desk.requests();
    let [(scale, Call::SetScale { .. })] = &sent[..] else { panic!("{sent:?}") };
    desk.reply(*scale, not_found());
    assert_eq!(desk.user.refused().len(), 1, "nobody makes it any more");
}

#[test]
fn a_taint_is_removed_after_the_command_that_sets_it() {
    let value = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}});
    let node = Object::from_json(value).expect("it is a Node");
    let taint = |removed| {
        let taint = Box::new(super::taint::read("explore:NoExecute").unwrap());
        UserAction::Taint { nodes: NodeSet::All, taint, removed }
    };
    let mut desk = Desk::new();
    let now = desk.now();
    desk.user.act(now, &taint(false), &["a".to_owned()]);
    desk.user.act(now, &taint(true), &["a".to_owned()]);
    let sent = desk.requests();
    let [(set, Call::Get { .. }), (remove, Call::Get { .. })] = &sent[..] else { panic!("{sent:?}") };
    assert!(desk.reply(*remove, Ok(Response::Object(node.clone()))).is_empty());
    assert!(desk.user.refused().is_empty(), "the taint is on its way");
    let sent = desk.reply(*set, Ok(Response::Object(node.clone())));
    let [(set, Call::Patch { .. })] = &sent[..] else { panic!("{sent:?}") };
    desk.reply(*set, Ok(Response::Object(node.clone())));
    let sent = desk.requests();
    let [(remove, Call::Get { .. })] = &sent[..] else { panic!("{sent:?}") };
    desk.reply(*remove, Ok(Response::Object(node)));
    assert_eq!(desk.user.refused().len(), 1, "nobody sets it any more");
}

#[test]
fn an_undo_waits_until_the_rollout_has_begun() {
    let mut desk = Desk::new();
    desk.act(&UserAction::Rollback { key: web(), to_revision: None });
    for _ in 0..200 {
        let sent = desk.requests();
        let [(get, Call::Get { .. })] = &sent[..] else { panic!("{sent:?}") };
        let sent = desk.reply(*get, Ok(Response::Object(deployment(1))));
        let [(list, Call::List { .. })] = &sent[..] else { panic!("{sent:?}") };
        desk.reply(*list, Ok(Response::List { items: Rc::default(), rv: Revision(9), rest: None }));
    }
    assert!(desk.user.refused().is_empty());
    let why = "its controller has not seen the last change".to_owned();
    assert_eq!(desk.user.waiting().map(|(_, why)| why).collect::<Vec<_>>(), [why]);
}
