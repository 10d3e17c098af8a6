//! The format of the data in etcd, which is written beside it.
//!
//! The first server that comes writes the format, in one transaction with the check that etcd holds none of the keys
//! yet. Every later one compares it. So no version of Skeg ever reads what another one wrote in a way that it does not
//! know.

use etcd_client::{Client, Compare, CompareOp, Error, Txn, TxnOp, TxnOpResponse};
use skeg_core::store::codec::PREFIX;

/// The key of the format. It is not among the keys of the data, so that no watch and no load sees it.
pub const FORMAT_KEY: &str = "/skeg/format";
/// The format that this version reads and writes.
const FORMAT: &str = "1";

/// Checks the format of the data, and writes it if there is no data. The inner result has what to tell the user.
pub async fn check(client: &Client) -> Result<Result<(), String>, Error> {
    let prefix = format!("{PREFIX}/");
    let nothing = [
        Compare::create_revision(FORMAT_KEY, CompareOp::Equal, 0),
        // Of a range, it holds if it holds for each key.
        Compare::create_revision(prefix, CompareOp::Equal, 0).with_prefix(),
    ];
    let txn = Txn::new()
        .when(nothing)
        .and_then([TxnOp::put(FORMAT_KEY, FORMAT, None)])
        .or_else([TxnOp::get(FORMAT_KEY, None)]);
    let reply = client.kv_client().txn(txn).await?;
    if reply.succeeded() {
        return Ok(Ok(()));
    }
    let found = reply.op_responses().into_iter().find_map(|response| match response {
        TxnOpResponse::Get(mut get) => get.take_kvs().pop().map(|kv| String::from_utf8_lossy(kv.value()).into_owned()),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    });
    Ok(judge(found.as_deref()))
}

/// What to say about the format that was found where there is data.
fn judge(found: Option<&str>) -> Result<(), String> {
    match found {
        Some(FORMAT) => Ok(()),
        Some(other) => Err(format!(
            "the data is of format {other:?}, and this version of skeg reads format {FORMAT}; use the version that wrote \
             it, or another etcd"
        )),
        None => Err(format!("it holds keys under {PREFIX}/ that skeg has not written; use another etcd")),
    }
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn another_format_is_named() {
        assert_eq!(judge(Some("1")), Ok(()));
        assert!(judge(Some("2")).unwrap_err().contains("format \"2\", and this version of skeg reads format 1"));
        assert!(judge(None).unwrap_err().contains("that skeg has not written"));
    }
}
