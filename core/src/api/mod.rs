//! The messages between clients and API servers, independent of the transport: values in the simulator, HTTP elsewhere.

mod request;
mod status;

pub use request::{
    Annotations, Call, DeleteOptions, Fence, FieldValidation, FromServer, ListOptions, Patch, Precondition,
    Propagation, ReqId, ReqIds, Request, Response, Rest, Scale, Subresource, ToServer, WatchEvent, WatchOptions,
    WriteOptions,
};
pub use status::{Cause, Details, Reason, Status};
