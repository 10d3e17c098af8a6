//! The client side: informers, views, work queues, the runner of controllers, leader election, event recording.

mod view;

pub use view::{Change, Index, View, Views};
