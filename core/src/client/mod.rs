//! The client side: informers, views, work queues, the controller runner, leader election, the event recorder.

mod election;
mod informer;
mod informers;
mod journal;
mod queue;
mod recorder;
mod runner;
mod view;

pub use election::Elector;
pub use informer::{Informer, InformerConfig};
pub use informers::Informers;
pub use queue::Queue;
pub use recorder::Recorder;
pub use runner::{Mandate, Runner};
pub use view::{Change, Index, View, Views};
