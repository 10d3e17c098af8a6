//! Hashes of pod templates, for labels and names.

/// 32-bit FNV-1a of the bytes and, unless it is zero, the collision count.
pub(super) fn fnv1a(text: &[u8], collisions: i32) -> u32 {
    let mut hash: u32 = 0x811c_9dc5;
    let count = collisions.to_le_bytes().into_iter().filter(|_| collisions != 0);
    for byte in text.iter().copied().chain(count) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    hash
}

/// Encodes a hash in letters and digits that do not form words (`rand.SafeEncodeString`).
pub(super) fn encoded(hash: u32) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|b| LETTERS[usize::from(b) % LETTERS.len()] as char).collect()
}
