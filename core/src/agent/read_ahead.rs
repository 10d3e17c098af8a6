//! Reads ahead the memory that an agent's next steps will touch; see [`crate::read_ahead`].

use super::lease::NodeLease;
use super::{NODE_INFORMER, NodeAgent};
use crate::api::ReqId;
use crate::client::{Informer, View};
use crate::read_ahead::{Step, touch, touch_shared};

impl NodeAgent {
    /// Reads ahead the agent's memory that the next heartbeat will touch, and that of the Lease.
    #[inline]
    pub fn read_ahead(&self, step: Step) {
        if step == Step::Entry {
            touch(&self.begun);
        }
        self.lease.read_ahead(step);
    }

    /// Reads ahead the memory that a message from the API or the container runtime will touch: mainly what is read to
    /// find the next deadline.
    pub fn read_ahead_news(&self) {
        touch(&self.begun);
        touch(&self.deadline_of_others());
        touch(&self.view.len());
        touch(&self.pods.len());
    }

    /// Reads ahead the memory that a bookmark will touch. It is a small part of the agent, and most messages to idle
    /// agents are bookmarks.
    #[inline]
    pub fn read_ahead_bookmark(&self, id: ReqId, step: Step) {
        let own = id.part() == NODE_INFORMER;
        match step {
            Step::Entry => touch(&self.begun),
            Step::Value if own => touch(&std::ptr::from_ref(&*self.own)),
            Step::Value => bookmark(&self.informer, &self.view),
            Step::Parts if own => bookmark(&self.own.informer, &self.own.view),
            Step::Cell | Step::Parts => {}
        }
    }
}

impl NodeLease {
    /// Reads ahead the memory that the next renewal will touch.
    #[inline]
    fn read_ahead(&self, step: Step) {
        match (step, &self.lease) {
            (Step::Cell, _) | (_, None) => {}
            (Step::Entry, Some(_)) => touch(&self.renewed),
            (Step::Value, Some(lease)) => {
                touch_shared(&self.user);
                lease.read_ahead();
            }
            (Step::Parts, Some(lease)) => touch_shared(&lease.meta),
        }
    }
}

fn bookmark(informer: &Informer, view: &View) {
    touch(&informer.poll_timeout());
    touch(&view.revision());
}
