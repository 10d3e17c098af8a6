//! The client side: informers, views, work queues, leader election, the event recorder.

mod election;
mod informer;
mod informers;
mod queue;
mod recorder;
mod view;

pub use election::{ElectionTimes, Elector};
pub use informer::{Informer, InformerConfig};
pub use informers::{Informers, Watched};
pub use queue::Queue;
pub use recorder::{EventType, Recorder};
pub use view::{Change, Index, View, Views};
