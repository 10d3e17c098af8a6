//! What clients and API servers say to each other, whatever carries it: a value in the simulator, HTTP elsewhere.

mod request;
mod status;

pub use request::{
    Call, DeleteOptions, Fence, FromServer, ListOptions, Patch, Precondition, Propagation, ReqId, ReqIds, Request,
    Response, Rest, Scale, Subresource, ToServer, WatchEvent, WatchOptions, WriteOptions,
};
pub use status::{Cause, Details, Reason, Status};
