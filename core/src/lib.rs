//! The core of Skeg: every decision of a container orchestrator that speaks the Kubernetes API, as pure state machines.
//!
//! Nothing in this crate uses a clock, IO, ambient randomness or hash order. Time and randomness come in as arguments;
//! effects go out as values. See [`machine`] for the contract of each machine and `ARCHITECTURE.md` for the map.
//!
//! A driver is a loop that carries messages between machines and tells them the time. This one runs a store, an API
//! server and the controllers of a cluster by hand, until a ReplicaSet that a client has created has its pods:
//!
//! ```
//! use std::rc::Rc;
//! use std::time::Duration;
//!
//! use serde_json::json;
//! use skeg_core::api::{Call, ReqId, Request, ToServer, WriteOptions};
//! use skeg_core::apiserver::{ApiServer, Config, ConnId, In, Out};
//! use skeg_core::controllers::{ControllerManager, ManagerConfig};
//! use skeg_core::store::{self, MemoryStore, StoreClient};
//! use skeg_core::{Kind, Machine, Mono, Now, Object, Rng, Wall};
//!
//! const MANAGER: ConnId = ConnId(1);
//! const CLIENT: ConnId = ConnId(2);
//! let mut store = MemoryStore::new();
//! let mut api = ApiServer::new(Config::default(), Rng::stream(7, "api", 0));
//! let config = ManagerConfig { leader_elect: false, ..ManagerConfig::default() };
//! let mut manager = ControllerManager::new(config, Rng::stream(7, "manager", 0));
//!
//! let web = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "namespace": "default"},
//!     "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels":
//!         {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}}});
//! let create = Call::Create { object: Object::from_json(web).unwrap(), options: WriteOptions::default() };
//! let request = ToServer::Request(ReqId(1), Request::new(&Rc::from("me"), create));
//!
//! for second in 0..30 {
//!     let now = Now { mono: Mono::ZERO + Duration::from_secs(second), wall: Wall(second as i64 * 1_000_000) };
//!     let (mut from_api, mut from_store, mut from_manager) = (Vec::new(), Vec::new(), Vec::new());
//!     api.handle_timeout(now, &mut from_api);
//!     manager.handle_timeout(now, &mut from_manager);
//!     if second == 10 {
//!         api.handle(now, In::Client(CLIENT, request.clone()), &mut from_api);
//!     }
//!     while !(from_api.is_empty() && from_manager.is_empty()) {
//!         for message in std::mem::take(&mut from_manager) {
//!             api.handle(now, In::Client(MANAGER, message), &mut from_api);
//!         }
//!         for message in std::mem::take(&mut from_api) {
//!             match message {
//!                 Out::Client(MANAGER, reply) => manager.handle(now, reply, &mut from_manager),
//!                 Out::Client(..) | Out::Note(..) | Out::Consult(..) => {}
//!                 Out::Store(id, ask) => {
//!                     store.handle(now, store::In::Request(StoreClient(0), id, ask), &mut from_store);
//!                 }
//!             }
//!         }
//!         for message in std::mem::take(&mut from_store) {
//!             api.handle(now, In::Store(message.msg), &mut from_api);
//!         }
//!     }
//! }
//! let pods = store.objects(Kind::POD).count();
//! assert_eq!(pods, 3);
//! ```

pub mod agent;
pub mod api;
pub mod apiserver;
pub mod apply;
pub mod auth;
pub mod client;
pub mod controllers;
pub mod cron;
pub mod dns;
pub mod features;
pub mod flow;
pub mod limits;
pub mod machine;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod proxy;
pub mod quota;
pub mod random;
pub mod read_ahead;
pub mod resource_claim;
pub mod scheduler;
pub mod schema;
pub mod store;
pub mod table;
pub mod volume;

pub use machine::{Deadline, Machine, Mono, Now, Wall};
pub use object::{Kind, Kinds, Object, ObjectKey, Revision};
pub use random::Rng;
