//! What etcd's errors mean for the outcome of a request.

use etcd_client::Error;
use skeg_core::object::Revision;
use skeg_core::store::StoreError;

/// The gRPC codes that matter here (`google.rpc.Code`).
const UNKNOWN: i32 = 2;
const PERMISSION_DENIED: i32 = 7;
const UNAUTHENTICATED: i32 = 16;

/// What went wrong with a request. The numbers of revisions are not in etcd's errors, so that they are asked for later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The revision is compacted.
    Compacted,
    /// The revision is in the future.
    Future,
    /// Any other error.
    Other(Refusal),
}

/// An error that stands for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Refusal {
    LeaseNotFound,
    TooLarge,
    NoSpace,
    Denied,
    /// The outcome is unknown.
    Unknown,
}

impl Refusal {
    /// In the store's words.
    pub fn store_error(self) -> StoreError {
        match self {
            Refusal::LeaseNotFound => StoreError::LeaseNotFound,
            Refusal::TooLarge => StoreError::TooLarge,
            Refusal::NoSpace => StoreError::NoSpace,
            Refusal::Denied => StoreError::Denied,
            Refusal::Unknown => StoreError::Unavailable,
        }
    }
}

impl Cause {
    /// The cause of an error. etcd's server gives each refusal a text of its own (`rpctypes`); whatever is not known
    /// here has an unknown outcome.
    pub fn of(error: &Error) -> Cause {
        match error {
            Error::GRpcStatus(status) => Cause::of_status(status.code() as i32, status.message()),
            Error::WatchError(text) | Error::LeaseKeepAliveError(text) => Cause::of_status(UNKNOWN, text),
            // The errors of etcd-client, which is not ours, that say nothing about what the server did.
            _ => Cause::Other(Refusal::Unknown),
        }
    }

    fn of_status(code: i32, message: &str) -> Cause {
        let is = |text: &str| message.contains(text);
        let other = match code {
            _ if is("required revision has been compacted") => return Cause::Compacted,
            _ if is("required revision is a future revision") => return Cause::Future,
            _ if is("lease not found") => Refusal::LeaseNotFound,
            _ if is("request is too large") || is("too many operations in txn request") => Refusal::TooLarge,
            // The server's limit of gRPC, which is somewhat above that of requests.
            _ if is("received message larger than max") => Refusal::TooLarge,
            _ if is("database space exceeded") => Refusal::NoSpace,
            _ if is("user name is empty") || is("invalid auth token") || is("permission denied") => Refusal::Denied,
            PERMISSION_DENIED | UNAUTHENTICATED => Refusal::Denied,
            _ => Refusal::Unknown,
        };
        Cause::Other(other)
    }

    /// In the store's words, with the revision that matters: the oldest or the newest one.
    pub fn store_error(self, revision: u64) -> StoreError {
        match self {
            Cause::Compacted => StoreError::Compacted { oldest: Revision(revision) },
            Cause::Future => StoreError::FutureRevision { newest: Revision(revision) },
            Cause::Other(refusal) => refusal.store_error(),
        }
    }
}

/// An error in the server's own words, where it has any.
pub fn show(error: &Error) -> String {
    match error {
        Error::GRpcStatus(status) => status.message().to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Cause, Refusal};

    #[test]
    fn refusals_are_told_from_unknown_outcomes() {
        for (code, message, expect) in [
            (11, "etcdserver: mvcc: required revision has been compacted", Cause::Compacted),
            (11, "etcdserver: mvcc: required revision is a future revision", Cause::Future),
            (5, "etcdserver: requested lease not found", Cause::Other(Refusal::LeaseNotFound)),
            (2, "lease not found", Cause::Other(Refusal::LeaseNotFound)),
            (3, "etcdserver: request is too large", Cause::Other(Refusal::TooLarge)),
            (3, "etcdserver: too many operations in txn request", Cause::Other(Refusal::TooLarge)),
            (8, "grpc: received message larger than max (3 vs. 2)", Cause::Other(Refusal::TooLarge)),
            (8, "etcdserver: mvcc: database space exceeded", Cause::Other(Refusal::NoSpace)),
            (7, "etcdserver: permission denied", Cause::Other(Refusal::Denied)),
            (16, "etcdserver: invalid auth token", Cause::Other(Refusal::Denied)),
            (3, "etcdserver: user name is empty", Cause::Other(Refusal::Denied)),
            (14, "etcdserver: request timed out", Cause::Other(Refusal::Unknown)),
            (14, "etcdserver: no leader", Cause::Other(Refusal::Unknown)),
            (4, "context deadline exceeded", Cause::Other(Refusal::Unknown)),
            (2, "tcp connect error", Cause::Other(Refusal::Unknown)),
            (8, "etcdserver: too many requests", Cause::Other(Refusal::Unknown)),
        ] {
            assert_eq!(Cause::of_status(code, message), expect, "{message}");
        }
    }
}
