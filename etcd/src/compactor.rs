//! Compaction: every five minutes, one of the servers discards the history that is older than that.
//!
//! As `kube-apiserver` does (`storage/etcd3/compact.go`, with the same key): the servers compare and write the version
//! of one key, and only the one that has written it compacts, at the revision that it saw at its turn before.

use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, Error, Txn, TxnOp, TxnOpResponse};

use crate::error;

/// `--etcd-compaction-interval`.
const INTERVAL: Duration = Duration::from_secs(5 * 60);
/// The key whose version counts the turns.
const KEY: &str = "compact_rev_key";

/// What is known of the turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Turns {
    /// The number of turns so far.
    count: i64,
    /// The revision at the last turn; zero if it is not known.
    revision: i64,
}

/// Compacts in turns with the other servers, for ever.
pub async fn run(client: Client) {
    let mut turns = Turns::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        match take_turn(&client, turns).await {
            Ok(next) => turns = next,
            Err(e) => tracing::warn!("etcd could not be compacted: {}", error::show(&e)),
        }
    }
}

async fn take_turn(client: &Client, turns: Turns) -> Result<Turns, Error> {
    let txn = Txn::new()
        .when([Compare::version(KEY, CompareOp::Equal, turns.count)])
        .and_then([TxnOp::put(KEY, turns.revision.to_string(), None)])
        .or_else([TxnOp::get(KEY, None)]);
    let mut kv = client.kv_client();
    let reply = kv.txn(txn).await?;
    let revision = reply.header().map_or(0, |header| header.revision());
    if !reply.succeeded() {
        let count = reply.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(get) => get.kvs().first().map(|kv| kv.version()),
            TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
        });
        return Ok(Turns { count: count.unwrap_or(0), revision });
    }
    if turns.revision > 0 {
        match kv.compact(turns.revision, None).await {
            Ok(_) => tracing::info!(revision = turns.revision, "etcd is compacted"),
            // Somebody else was faster.
            Err(e) if error::Cause::of(&e) == error::Cause::Compacted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Turns { count: turns.count + 1, revision })
}
