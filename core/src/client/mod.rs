//! The client side: informers, views, work queues, the runner of controllers, leader election, event recording.

mod election;
mod informer;
mod recorder;
mod view;

pub use election::Elector;
pub use informer::{Informer, InformerConfig};
pub use recorder::Recorder;
pub use view::{Change, Index, View, Views};
