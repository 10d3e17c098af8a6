//! The journal of a durable store as bytes: a sequence of checksummed records, and a reader that reports how the bytes
//! end.
//!
//! What comes in: [`Record`]s to append, or the bytes of a file. What goes out: bytes, or the records up to the first
//! one that is incomplete or damaged, and what is wrong with it ([`Tail`]). Never returns a record that was not
//! written; never discards bytes without reporting it. The driver handles files, `fsync` and file names.
//!
//! A file is [`MAGIC`] followed by frames. A frame is the length of the payload (32 bits, little-endian), the CRC-32C
//! of length and payload (32 bits, little-endian), and the payload. A payload is a tag byte followed by the record's
//! fields: numbers as 64 bits, little-endian, and byte strings with a 32-bit length prefix. A snapshot is a file of the
//! same format that starts with [`Record::Snapshot`] and is valid only if it ends with [`Record::Complete`].
//!
//! To recover, read the newest complete snapshot into [`MemoryStore::restore`](super::MemoryStore::restore), then the
//! journal into [`MemoryStore::replay`](super::MemoryStore::replay), truncate the file at [`Reader::end`], and append.

use std::fmt;
use std::num::NonZeroU64;

use super::LeaseId;
use crate::limits;
use crate::object::Revision;

/// The first bytes of a file; the number is the version of the format.
pub const MAGIC: &[u8] = b"skeg journal 1\n";

/// Size of a frame's length and checksum.
const HEAD: usize = 8;

/// One entry of a journal or of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// Starts a snapshot: the state at this revision follows.
    Snapshot {
        /// Revision of the newest change in the snapshot.
        revision: Revision,
        /// The id of the next lease to be granted.
        next_lease: LeaseId,
    },
    /// A lease that was granted, or that exists when the snapshot is taken.
    Lease {
        /// Its id.
        lease: LeaseId,
        /// Time to live after it was granted or kept alive.
        ttl_seconds: u64,
    },
    /// A lease has ended. Its keys are deleted by a commit.
    Revoked {
        /// Its id.
        lease: LeaseId,
    },
    /// A key of a snapshot.
    Value(Value<'a>),
    /// The changes of one revision: all of them or none.
    Commit {
        /// The revision.
        revision: Revision,
        /// The changes in the order of the transaction.
        changes: Vec<Change<'a>>,
    },
    /// Revisions before this one can no longer be read.
    Compacted {
        /// The oldest revision that can be read.
        revision: Revision,
    },
    /// Ends a snapshot.
    Complete {
        /// How many records precede this one.
        records: u64,
    },
}

/// A key of a snapshot, like etcd's `KeyValue`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// The key, encoded by the codec.
    pub key: &'a [u8],
    /// The value, encoded by the codec.
    pub value: &'a [u8],
    /// Revision of the put that created the key.
    pub create_revision: Revision,
    /// Revision of the last put.
    pub mod_revision: Revision,
    /// Number of puts since creation.
    pub version: u64,
    /// Lease that the key is attached to.
    pub lease: Option<LeaseId>,
}

/// A change in a commit. Keys and values are encoded by the codec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A key was put.
    Put {
        /// The key.
        key: &'a [u8],
        /// The new value.
        value: &'a [u8],
        /// Lease that the key is attached to.
        lease: Option<LeaseId>,
    },
    /// A key was deleted.
    Delete {
        /// The key.
        key: &'a [u8],
    },
}

/// How the bytes of a file end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// After a complete record.
    Clean,
    /// In the middle of a record, with no complete record after it: a write that was interrupted when the machine
    /// stopped. It was never acknowledged, so it may be truncated.
    Torn {
        /// Offset at which it begins.
        at: usize,
        /// Its length in bytes.
        bytes: usize,
    },
    /// With a damaged record. If complete records follow it, truncating would lose acknowledged changes, so an operator
    /// must decide.
    Corrupt {
        /// Offset at which it begins.
        at: usize,
        /// How many bytes there are from there to the end.
        bytes: usize,
        /// How many complete records follow it.
        records_after: usize,
    },
    /// With a record whose checksum is correct but whose tag or form is unknown: a newer version wrote it.
    Unknown {
        /// Offset at which it begins.
        at: usize,
        /// Its tag.
        tag: u8,
    },
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tail::Clean => write!(f, "the journal is whole"),
            Tail::Torn { at, bytes } => {
                write!(f, "the last {bytes} bytes, from byte {at} on, are a record that was never finished")
            }
            Tail::Corrupt { at, bytes, records_after: 0 } => {
                write!(f, "the last record, from byte {at} on ({bytes} bytes), is damaged")
            }
            Tail::Corrupt { at, records_after, .. } => {
                write!(f, "the record at byte {at} is damaged, and {records_after} whole records come after it")
            }
            Tail::Unknown { at, tag } => {
                write!(f, "the record at byte {at} is of kind {tag}, which a newer version of skeg must have written")
            }
        }
    }
}

/// The bytes are not a journal, or a journal of another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAJournal;

impl fmt::Display for NotAJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "it does not begin with {:?}: it is no journal of this version of skeg",
            MAGIC.escape_ascii().to_string()
        )
    }
}

impl std::error::Error for NotAJournal {}

/// Appends the start of a file.
pub fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
}

/// Appends a record. It must not be longer than [`limits::JOURNAL_RECORD`]; a store rejects larger transactions.
pub fn append(out: &mut Vec<u8>, record: &Record<'_>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    write(out, record);
    let length = out.len() - start - HEAD;
    assert!(length <= limits::JOURNAL_RECORD, "a record of {length} bytes is too long");
    let length = (length as u32).to_le_bytes();
    let sum = checksum(length, &out[start + HEAD..]);
    out[start..start + 4].copy_from_slice(&length);
    out[start + 4..start + HEAD].copy_from_slice(&sum.to_le_bytes());
}

/// The checksum covers the length too, so that a run of zero bytes is never a valid record.
fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), payload)
}

/// Reads the records of a file, oldest first, and ends at the first one that is incomplete or damaged. Afterwards,
/// [`tail`](Self::tail) says why it ended.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    end: usize,
    tail: Tail,
}

impl<'a> Reader<'a> {
    /// Creates a reader for the bytes of a file.
    pub fn new(bytes: &'a [u8]) -> Result<Reader<'a>, NotAJournal> {
        if bytes.starts_with(MAGIC) {
            return Ok(Reader { bytes, end: MAGIC.len(), tail: Tail::Clean });
        }
        if MAGIC.starts_with(bytes) {
            // The machine stopped while the file was being started. An empty file is valid.
            let tail = if bytes.is_empty() { Tail::Clean } else { Tail::Torn { at: 0, bytes: bytes.len() } };
            return Ok(Reader { bytes: &[], end: 0, tail });
        }
        Err(NotAJournal)
    }

    /// Offset of the end of the last record that was read: everything after it must be truncated before anything is
    /// appended. Zero means that the file must be started anew.
    pub fn end(&self) -> usize {
        self.end
    }

    /// How the bytes end; valid once there are no more records.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    fn broken(&self) -> Tail {
        let (at, rest) = (self.end, &self.bytes[self.end..]);
        let records_after = whole_records(&rest[1..]);
        let torn = match head(rest) {
            None => true,
            Some((length, _)) => length > rest.len() - HEAD,
        };
        if torn && records_after == 0 {
            Tail::Torn { at, bytes: rest.len() }
        } else {
            Tail::Corrupt { at, bytes: rest.len(), records_after }
        }
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.tail != Tail::Clean || self.end >= self.bytes.len() {
            return None;
        }
        let Some(payload) = frame(&self.bytes[self.end..]) else {
            self.tail = self.broken();
            return None;
        };
        let mut fields = Fields { rest: payload };
        let record = fields.record().filter(|_| fields.rest.is_empty());
        match record {
            Some(_) => self.end += HEAD + payload.len(),
            None => self.tail = Tail::Unknown { at: self.end, tag: payload[0] },
        }
        record
    }
}

/// The length and checksum in a frame's header.
fn head(bytes: &[u8]) -> Option<(usize, u32)> {
    let word = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")));
    Some((word(0)? as usize, word(4)?))
}

/// The payload of the first frame; `None` if it is incomplete or its checksum is wrong.
fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let (length, sum) = head(bytes)?;
    if length == 0 || length > limits::JOURNAL_RECORD {
        return None;
    }
    let payload = bytes.get(HEAD..HEAD + length)?;
    (checksum((length as u32).to_le_bytes(), payload) == sum).then_some(payload)
}

/// How many complete records there are at any offset in these bytes.
fn whole_records(mut bytes: &[u8]) -> usize {
    let mut records = 0;
    while !bytes.is_empty() {
        // The tag is checked before the checksum, because it excludes nearly every offset that is not the start of a
        // frame.
        let named = bytes.get(HEAD).is_some_and(|tag| (tag::FIRST..=tag::LAST).contains(tag));
        match if named { frame(bytes) } else { None } {
            Some(payload) => {
                records += 1;
                bytes = &bytes[HEAD + payload.len()..];
            }
            None => bytes = &bytes[1..],
        }
    }
    records
}

/// The tags of records and changes.
mod tag {
    pub(super) const SNAPSHOT: u8 = 1;
    pub(super) const LEASE: u8 = 2;
    pub(super) const REVOKED: u8 = 3;
    pub(super) const VALUE: u8 = 4;
    pub(super) const COMMIT: u8 = 5;
    pub(super) const COMPACTED: u8 = 6;
    pub(super) const COMPLETE: u8 = 7;
    pub(super) const FIRST: u8 = SNAPSHOT;
    pub(super) const LAST: u8 = COMPLETE;
    pub(super) const PUT: u8 = 1;
    pub(super) const DELETE: u8 = 2;
}

fn write(out: &mut Vec<u8>, record: &Record<'_>) {
    let numbers = |out: &mut Vec<u8>, numbers: &[u64]| {
        numbers.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
    };
    let text = |out: &mut Vec<u8>, text: &[u8]| {
        let length = u32::try_from(text.len()).expect("keys and values are shorter than a record may be");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(text);
    };
    let of = |lease: &Option<LeaseId>| lease.map_or(0, |l| l.0.get());
    match record {
        Record::Snapshot { revision, next_lease } => {
            out.push(tag::SNAPSHOT);
            numbers(out, &[revision.0, next_lease.0.get()]);
        }
        Record::Lease { lease, ttl_seconds } => {
            out.push(tag::LEASE);
            numbers(out, &[lease.0.get(), *ttl_seconds]);
        }
        Record::Revoked { lease } => {
            out.push(tag::REVOKED);
            numbers(out, &[lease.0.get()]);
        }
        Record::Value(v) => {
            out.push(tag::VALUE);
            text(out, v.key);
            text(out, v.value);
            numbers(out, &[v.create_revision.0, v.mod_revision.0, v.version, of(&v.lease)]);
        }
        Record::Commit { revision, changes } => {
            out.push(tag::COMMIT);
            numbers(out, &[revision.0, changes.len() as u64]);
            for change in changes {
                match change {
                    Change::Put { key, value, lease } => {
                        out.push(tag::PUT);
                        text(out, key);
                        text(out, value);
                        numbers(out, &[of(lease)]);
                    }
                    Change::Delete { key } => {
                        out.push(tag::DELETE);
                        text(out, key);
                    }
                }
            }
        }
        Record::Compacted { revision } => {
            out.push(tag::COMPACTED);
            numbers(out, &[revision.0]);
        }
        Record::Complete { records } => {
            out.push(tag::COMPLETE);
            numbers(out, &[*records]);
        }
    }
}

/// The unread rest of a payload.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes(1).map(|b| b[0])
    }

    fn number(&mut self) -> Option<u64> {
        self.bytes(8).map(|b| u64::from_le_bytes(b.try_into().expect("eight bytes")))
    }

    fn revision(&mut self) -> Option<Revision> {
        self.number().map(Revision)
    }

    fn lease(&mut self) -> Option<LeaseId> {
        self.number().and_then(NonZeroU64::new).map(LeaseId)
    }

    /// A lease if there is one.
    fn lease_if_any(&mut self) -> Option<Option<LeaseId>> {
        self.number().map(|n| NonZeroU64::new(n).map(LeaseId))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(self.bytes(4)?.try_into().expect("four bytes"));
        self.bytes(length as usize)
    }

    fn change(&mut self) -> Option<Change<'a>> {
        match self.byte()? {
            tag::PUT => Some(Change::Put { key: self.text()?, value: self.text()?, lease: self.lease_if_any()? }),
            tag::DELETE => Some(Change::Delete { key: self.text()? }),
            _ => None,
        }
    }

    fn record(&mut self) -> Option<Record<'a>> {
        Some(match self.byte()? {
            tag::SNAPSHOT => Record::Snapshot { revision: self.revision()?, next_lease: self.lease()? },
            tag::LEASE => Record::Lease { lease: self.lease()?, ttl_seconds: self.number()? },
            tag::REVOKED => Record::Revoked { lease: self.lease()? },
            tag::VALUE => Record::Value(Value {
                key: self.text()?,
                value: self.text()?,
                create_revision: self.revision()?,
                mod_revision: self.revision()?,
                version: self.number()?,
                lease: self.lease_if_any()?,
            }),
            tag::COMMIT => {
                let (revision, count) = (self.revision()?, self.number()?);
                Record::Commit { revision, changes: (0..count).map(|_| self.change()).collect::<Option<Vec<_>>>()? }
            }
            tag::COMPACTED => Record::Compacted { revision: self.revision()? },
            tag::COMPLETE => Record::Complete { records: self.number()? },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use proptest::prelude::{Strategy, any, prop_oneof};
    use proptest::{collection, option, prop_assert, prop_assert_eq, proptest, sample};

    use super::{Change, LeaseId, MAGIC, Reader, Record, Tail, Value, append, begin};
    use crate::object::Revision;

    fn lease() -> impl Strategy<Value = LeaseId> {
        (1..u64::MAX).prop_map(|n| LeaseId(NonZeroU64::new(n).unwrap()))
    }

    fn text() -> impl Strategy<Value = &'static [u8]> {
        sample::select(vec![
            &b""[..],
            b"k",
            b"/registry/pods/default/web-1",
            &[0; 40],
            &[0xff; 9],
            b"{\"kind\":\"Pod\"}",
        ])
    }

    fn change() -> impl Strategy<Value = Change<'static>> {
        let put =
            (text(), text(), option::of(lease())).prop_map(|(key, value, lease)| Change::Put { key, value, lease });
        prop_oneof![put, text().prop_map(|key| Change::Delete { key })]
    }

    fn record() -> impl Strategy<Value = Record<'static>> {
        let revision = || any::<u64>().prop_map(Revision);
        let value = (text(), text(), revision(), revision(), any::<u64>(), option::of(lease())).prop_map(
            |(key, value, create_revision, mod_revision, version, lease)| {
                Record::Value(Value { key, value, create_revision, mod_revision, version, lease })
            },
        );
        prop_oneof![
            (revision(), lease()).prop_map(|(revision, next_lease)| Record::Snapshot { revision, next_lease }),
            (lease(), any::<u64>()).prop_map(|(lease, ttl_seconds)| Record::Lease { lease, ttl_seconds }),
            lease().prop_map(|lease| Record::Revoked { lease }),
            value,
            (revision(), collection::vec(change(), 0..4))
                .prop_map(|(revision, changes)| Record::Commit { revision, changes }),
            revision().prop_map(|revision| Record::Compacted { revision }),
            any::<u64>().prop_map(|records| Record::Complete { records }),
        ]
    }

    /// The bytes of a journal, and the offset at which each record ends.
    fn journal(records: &[Record<'_>]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        begin(&mut bytes);
        let end_of = |record| {
            append(&mut bytes, record);
            bytes.len()
        };
        let ends = records.iter().map(end_of).collect();
        (bytes, ends)
    }

    fn read(bytes: &[u8]) -> (Vec<Record<'_>>, usize, Tail) {
        let mut reader = Reader::new(bytes).expect("a journal");
        let records = reader.by_ref().collect();
        (records, reader.end(), reader.tail().clone())
    }

    proptest! {
        #[test]
        fn every_truncation_is_found(records in collection::vec(record(), 0..5)) {
            let (bytes, ends) = journal(&records);
            for cut in 0..=bytes.len() {
                let whole = ends.iter().filter(|end| **end <= cut).count();
                let end = if cut < MAGIC.len() { 0 } else { ends[..whole].last().copied().unwrap_or(MAGIC.len()) };
                let tail = if cut == end { Tail::Clean } else { Tail::Torn { at: end, bytes: cut - end } };
                prop_assert_eq!(read(&bytes[..cut]), (records[..whole].to_vec(), end, tail));
            }
        }

        #[test]
        fn every_flipped_bit_is_found(records in collection::vec(record(), 1..5)) {
            let (mut bytes, ends) = journal(&records);
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                if bit / 8 < MAGIC.len() {
                    prop_assert!(Reader::new(&bytes).is_err());
                } else {
                    let hit = ends.iter().filter(|end| **end <= bit / 8).count();
                    let (got, end, tail) = read(&bytes);
                    prop_assert_eq!(&got, &records[..hit]);
                    prop_assert_eq!(end, if hit == 0 { MAGIC.len() } else { ends[hit - 1] });
                    let after = records.len() - hit - 1;
                    match tail {
                        Tail::Torn { at, .. } => prop_assert_eq!((at, after), (end, 0)),
                        Tail::Corrupt { at, records_after, .. } => prop_assert_eq!((at, records_after), (end, after)),
                        other => prop_assert!(false, "{other:?}"),
                    }
                }
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }

        #[test]
        fn whatever_comes_after_is_no_record(
            records in collection::vec(record(), 0..3),
            rest in prop_oneof![collection::vec(any::<u8>(), 1..200), (1..200usize).prop_map(|n| vec![0; n])],
        ) {
            let (mut bytes, ends) = journal(&records);
            let end = ends.last().copied().unwrap_or(MAGIC.len());
            bytes.extend(&rest);
            let (got, at, tail) = read(&bytes);
            prop_assert_eq!((got, at, tail != Tail::Clean), (records, end, true));
        }
    }

    #[test]
    fn a_record_of_a_newer_version_is_no_damage() {
        let (mut bytes, ends) = journal(&[Record::Complete { records: 0 }]);
        let payload = [200u8, 1, 2];
        let length = (payload.len() as u32).to_le_bytes();
        bytes.extend(length);
        bytes.extend(super::checksum(length, &payload).to_le_bytes());
        bytes.extend(payload);
        let (_, end, tail) = read(&bytes);
        assert_eq!((end, &tail), (ends[0], &Tail::Unknown { at: end, tag: 200 }));
        assert_eq!(
            tail.to_string(),
            "the record at byte 32 is of kind 200, which a newer version of skeg must have written"
        );
        assert!(Reader::new(b"skeg journal 2\n").is_err());
    }
}
