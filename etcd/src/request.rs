//! Carries out requests other than watches.

use std::num::NonZeroU64;

use etcd_client::{
    Client, Compare, CompareOp, Error, GetOptions, KeyValue, PutOptions, ResponseHeader, Txn, TxnOp, TxnOpResponse,
};
use skeg_core::store::StoreError;
use skeg_core::store::remote::{ByteCompare, ByteKeyValue, ByteOp, ByteReply, ByteRequest, ByteSpan, Compared};

use crate::error::{self, Cause, Refusal};
use crate::format::FORMAT_KEY;
use crate::{LARGEST_MESSAGE, REQUEST_TIMEOUT, watch};

/// Carries out a request, and returns its reply.
pub async fn carry_out(client: Client, request: ByteRequest) -> ByteReply {
    let unavailable = ByteReply::Error(StoreError::Unavailable);
    let is_write = !matches!(request, ByteRequest::Range { .. } | ByteRequest::Revision);
    match tokio::time::timeout(REQUEST_TIMEOUT, ask(&client, request)).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(e)) => {
            let cause = Cause::of(&e);
            if cause == Cause::Other(Refusal::Unknown) {
                tracing::warn!(is_write, "a request to etcd failed: {}", error::show(&e));
                return unavailable;
            }
            match tokio::time::timeout(REQUEST_TIMEOUT, bound(&client, cause)).await {
                Ok(Ok(revision)) => ByteReply::Error(cause.store_error(revision)),
                // The request was refused, but the revision that says why is not known.
                Ok(Err(_)) | Err(_) => unavailable,
            }
        }
        Err(_) => {
            tracing::warn!(is_write, "a request to etcd had no reply in time");
            unavailable
        }
    }
}

/// The revision that an error speaks of: the oldest one, or the newest one.
async fn bound(client: &Client, cause: Cause) -> Result<u64, Error> {
    match cause {
        Cause::Compacted => watch::oldest(client).await,
        Cause::Future => newest(client).await,
        Cause::Other(_) => Ok(0),
    }
}

async fn ask(client: &Client, request: ByteRequest) -> Result<ByteReply, Error> {
    let mut kv = client.kv_client().max_decoding_message_size(LARGEST_MESSAGE);
    Ok(match request {
        ByteRequest::Txn { compare, success, failure } => {
            let txn = Txn::new()
                .when(compare.into_iter().map(condition).collect::<Vec<_>>())
                .and_then(success.into_iter().map(operation).collect::<Vec<_>>())
                .or_else(failure.into_iter().map(operation).collect::<Vec<_>>());
            let reply = kv.txn(txn).await?;
            let read = reply.op_responses().into_iter().filter_map(|response| match response {
                TxnOpResponse::Get(get) => Some(get.kvs().first().map(key_value)),
                TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
            });
            let results = read.collect();
            ByteReply::Txn { revision: revision(reply.header()), succeeded: reply.succeeded(), results }
        }
        ByteRequest::Range { span, at, limit } => {
            let options = GetOptions::new().with_range(span.end).with_revision(signed(at)).with_limit(limit as i64);
            let mut reply = kv.get(span.start, Some(options)).await?;
            let (revision, more, count) = (revision(reply.header()), reply.more(), reply.count() as u64);
            let kvs = reply.take_kvs().iter().map(key_value).collect();
            ByteReply::Range { revision: if at == 0 { revision } else { at }, kvs, more, count }
        }
        ByteRequest::Compact { at } => {
            let reply = kv.compact(signed(at), None).await?;
            ByteReply::Compacted { revision: revision(reply.header()) }
        }
        ByteRequest::LeaseGrant { ttl_seconds } => {
            let reply = client.lease_client().grant(signed(ttl_seconds), None).await?;
            lease(reply.id(), reply.ttl(), revision(reply.header()))
        }
        ByteRequest::LeaseKeepAlive { lease: id } => {
            let (mut keeper, mut replies) = client.lease_client().keep_alive(signed(id)).await?;
            keeper.keep_alive().await?;
            match replies.message().await? {
                Some(reply) => lease(reply.id(), reply.ttl(), revision(reply.header())),
                None => ByteReply::Error(StoreError::Unavailable),
            }
        }
        ByteRequest::LeaseRevoke { lease } => {
            let reply = client.lease_client().revoke(signed(lease)).await?;
            ByteReply::Revoked { revision: revision(reply.header()) }
        }
        ByteRequest::Revision => ByteReply::Revision { revision: newest(client).await? },
        ByteRequest::Watch { .. } | ByteRequest::CancelWatch { .. } | ByteRequest::Progress => {
            unreachable!("watches are not carried out here")
        }
    })
}

/// A lease in a reply. Its time to live is zero or less if there is no such lease.
fn lease(id: i64, ttl: i64, revision: u64) -> ByteReply {
    match (NonZeroU64::new(id as u64), u64::try_from(ttl)) {
        (Some(lease), Ok(ttl_seconds)) if ttl_seconds > 0 => ByteReply::Lease { revision, lease, ttl_seconds },
        (_, _) => ByteReply::Error(StoreError::LeaseNotFound),
    }
}

/// The newest revision. It is read by a linearizable range, since etcd answers an empty transaction without asking the
/// quorum.
pub async fn newest(client: &Client) -> Result<u64, Error> {
    let options = GetOptions::new().with_count_only();
    let reply = client.kv_client().get(FORMAT_KEY, Some(options)).await?;
    Ok(revision(reply.header()))
}

/// Whether a revision can still be read: an error of this request says why not.
pub async fn read_at(client: &Client, at: u64) -> Result<(), Error> {
    let options = GetOptions::new().with_count_only().with_revision(signed(at));
    client.kv_client().get(FORMAT_KEY, Some(options)).await.map(|_| ())
}

/// etcd's numbers are signed, and never negative.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The revision in a header.
pub fn revision(header: Option<&ResponseHeader>) -> u64 {
    header.map_or(0, |header| header.revision() as u64)
}

/// A key and its value.
pub fn key_value(kv: &KeyValue) -> ByteKeyValue {
    ByteKeyValue {
        key: kv.key().to_vec(),
        value: kv.value().to_vec(),
        create_revision: kv.create_revision() as u64,
        mod_revision: kv.mod_revision() as u64,
        version: kv.version() as u64,
        lease: kv.lease() as u64,
    }
}

/// The end of a span, for etcd's options.
pub fn ends(span: ByteSpan) -> (Vec<u8>, Vec<u8>) {
    (span.start, span.end)
}

fn condition(compare: ByteCompare) -> Compare {
    let ByteCompare { key, what, equals } = compare;
    match what {
        Compared::ModRevision => Compare::mod_revision(key, CompareOp::Equal, signed(equals)),
        Compared::CreateRevision => Compare::create_revision(key, CompareOp::Equal, signed(equals)),
        Compared::Version => Compare::version(key, CompareOp::Equal, signed(equals)),
    }
}

fn operation(op: ByteOp) -> TxnOp {
    match op {
        ByteOp::Put { key, value, lease } => {
            let options = (lease != 0).then(|| PutOptions::new().with_lease(signed(lease)));
            TxnOp::put(key, value, options)
        }
        ByteOp::Delete { key } => TxnOp::delete(key, None),
        ByteOp::Get { key } => TxnOp::get(key, None),
    }
}
