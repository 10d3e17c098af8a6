//! Violations planted by tests: behaviour that no machine should show, to test that the checkers detect it.

use std::rc::Rc;

use skeg_core::agent::{ContainerSpec, OpId, RuntimeCommand};
use skeg_core::api::{Call, FromServer, ReqId, Request, Response, ToServer, WatchEvent};
use skeg_core::object::Object;
use skeg_core::store::{self, Op, StoreClient, StoreKey, StoreRequest, Stored, Txn};
use skeg_core::{Machine, ObjectKey};

use super::{STORE_HOST, World};
use crate::ids::{NodeId, ProcessId};
use crate::process::Role;

/// A client of the store that is not an API server.
const ROGUE: StoreClient = StoreClient(u32::MAX);

impl World {
    /// Carries out all events up to a time in seconds.
    pub(crate) fn run_to(&mut self, seconds: u64) {
        while self.step(seconds * 1_000_000_000) {}
        self.pass(seconds * 1_000_000_000);
    }

    /// Writes directly to the store, without API server or validation. Watches receive the change unless `secretly` is
    /// true.
    pub(crate) fn write(&mut self, op: Op, secretly: bool) {
        let txn = Txn { success: [op].into_iter().collect(), ..Txn::default() };
        let now = self.clock(STORE_HOST);
        let mut out = Vec::new();
        self.store.handle(now, store::In::Request(ROGUE, 0, StoreRequest::Txn(Box::new(txn))), &mut out);
        self.record_commits();
        if !secretly {
            self.store_host.out.extend(out.into_iter().filter(|out| out.to != ROGUE));
            self.from_store();
        }
    }

    /// Writes an object unchanged.
    pub(crate) fn put(&mut self, object: Object) {
        let key = StoreKey::Object(object.key());
        self.write(Op::Put { key, value: Stored::Object(object), lease: None }, false);
    }

    /// Changes an object in a way that no client is permitted to.
    pub(crate) fn tamper(&mut self, key: &ObjectKey, change: impl FnOnce(&mut Object)) {
        let mut object = self.store.object(key).unwrap_or_else(|| panic!("{key} is there")).clone();
        change(&mut object);
        self.put(object);
    }

    /// Notes this often that a process is woken at this moment.
    pub(crate) fn wake_again(&mut self, process: ProcessId, times: u32) {
        (0..times).for_each(|_| self.check_progress(self.now, process));
    }

    /// Sends a request to an API server over a process's connection, with any user name.
    pub(crate) fn ask(&mut self, process: ProcessId, user: &str, call: Call) {
        self.send(process, ToServer::Request(ReqId(u64::MAX), Request::new(&Rc::from(user), call)));
    }

    /// Answers the request that this process has just sent, as soon as an API server has got it and before it replies.
    pub(crate) fn answer_first(&mut self, process: ProcessId, response: Response) {
        let connection = self.processes[process].connection.expect("it has sent a request");
        let (conn, id) = (connection.id(), ReqId(u64::MAX));
        while !self.checkers.exchanges.is_waiting(conn, id) {
            assert!(self.step(u64::MAX), "the request arrives");
        }
        let host = self.processes[self.apis[connection.api()].process].host;
        self.reply(host, conn, FromServer::Reply(id, Ok(response)));
    }

    /// The process of this name.
    pub(crate) fn process(&self, name: &str) -> ProcessId {
        let found = self.processes.ids().find(|p| *self.processes[*p].name == *name);
        found.unwrap_or_else(|| panic!("there is a process {name}"))
    }

    /// Crashes all processes with this name prefix permanently.
    pub(crate) fn stop(&mut self, prefix: &str) {
        for p in self.processes.ids() {
            if self.processes[p].name.starts_with(prefix) {
                self.crash(p);
            }
        }
    }

    /// Loses the next watch event (except bookmarks) on its way to a process.
    pub(crate) fn lose_next_event_of(&mut self, process: ProcessId) {
        self.losing = Some(process);
    }

    /// Whether this message is the one to lose.
    pub(super) fn loses(&mut self, process: ProcessId, msg: &FromServer) -> bool {
        let lost = self.losing == Some(process)
            && matches!(msg, FromServer::Watch(_, event) if !matches!(event, WatchEvent::Bookmark { .. }));
        if lost {
            self.losing = None;
        }
        lost
    }

    /// Makes a node's runtime create and start another container like this one.
    pub(crate) fn start_another(&mut self, node: NodeId, spec: &Rc<ContainerSpec>) {
        let Role::Agent(..) = self.processes[self.nodes[node].agent].role else { panic!("an agent") };
        let op = OpId(u64::MAX);
        let known: Vec<_> = self.nodes[node].runtime.containers().map(|(id, ..)| id.clone()).collect();
        let create = RuntimeCommand::CreateContainer { op, spec: Rc::clone(spec) };
        let (delay, fire) = self.nodes[node].runtime.command(create, &self.images);
        self.fire_later(node, delay, fire);
        let soon = self.now / 1_000_000_000 + 1;
        self.run_to(soon);
        let made = self.nodes[node].runtime.containers().map(|(id, ..)| id.clone()).find(|id| !known.contains(id));
        let start = RuntimeCommand::StartContainer { op, container: made.expect("it was made") };
        let (delay, fire) = self.nodes[node].runtime.command(start, &self.images);
        self.fire_later(node, delay, fire);
    }
}
