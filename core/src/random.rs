//! Randomness as an argument: a small generator (xoshiro256++ seeded by SplitMix64) with one stream per entity.
//!
//! A stream is named after its purpose, `(seed, machine, incarnation)`. Streams share no state, so adding a machine
//! changes no other machine's random numbers. Source of the algorithms: Blackman and Vigna, <https://prng.di.unimi.it>.

use std::sync::atomic::{AtomicU64, Ordering};

/// A deterministic stream of random numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    s: [u64; 4],
}

#[inline]
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Mixes `value` into a 64-bit running hash; order matters. Used for the names of streams and for event hashes.
#[inline]
pub fn mix(hash: u64, value: u64) -> u64 {
    let mut s = hash ^ value.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    splitmix(&mut s)
}

/// Mixes bytes into a running hash, eight at a time.
pub fn mix_bytes(hash: u64, bytes: &[u8]) -> u64 {
    let mut h = mix(hash, bytes.len() as u64);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        h = mix(h, u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let mut word = [0u8; 8];
        word[..rest.len()].copy_from_slice(rest);
        h = mix(h, u64::from_le_bytes(word));
    }
    h
}

/// Initial value of name hashes. It is zero until [`key_name_hashes`] is called, and so in every simulation.
static NAME_KEY: AtomicU64 = AtomicU64::new(0);

/// Sets the key of the name hashes, for a server whose names come from users: without the key, nobody can choose names
/// whose hashes collide. Must be called once, with a number that is hard to guess, before the first name is hashed.
/// Nothing is ordered by these hashes, so no decision depends on them.
pub fn key_name_hashes(key: u64) {
    NAME_KEY.store(key, Ordering::Relaxed);
}

/// The initial value of a name hash.
#[inline(always)]
pub(crate) fn name_key() -> u64 {
    NAME_KEY.load(Ordering::Relaxed)
}

/// Characters that Kubernetes uses in generated names: no vowels, and no characters that look alike.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

impl Rng {
    /// The root stream of a run.
    pub fn from_seed(seed: u64) -> Rng {
        let mut state = seed;
        Rng { s: std::array::from_fn(|_| splitmix(&mut state)) }
    }

    /// The stream for `name` in its life number `incarnation`, in the run with `seed`.
    pub fn stream(seed: u64, name: &str, incarnation: u64) -> Rng {
        Rng::from_seed(mix(mix_bytes(mix(0, seed), name.as_bytes()), incarnation))
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.s;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in `0..n`. Panics if `n` is zero.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "below(0) has no answer");
        // Lemire's multiply-shift; at 64 bits the bias is below 2^-32 for every `n` used here.
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// Uniform in `lo..hi`; `lo` if the range is empty.
    #[inline]
    pub fn range(&mut self, lo: u64, hi: u64) -> u64 {
        if hi <= lo { lo } else { lo + self.below(hi - lo) }
    }

    /// True with probability `num`/`den`.
    pub fn chance(&mut self, num: u64, den: u64) -> bool {
        self.below(den) < num
    }

    /// Uniform between two durations.
    pub fn duration(&mut self, lo: std::time::Duration, hi: std::time::Duration) -> std::time::Duration {
        std::time::Duration::from_nanos(self.range(lo.as_nanos() as u64, hi.as_nanos() as u64))
    }

    /// `base` extended by a random 0 to `percent` per cent, as client-go's `wait.Jitter`.
    pub fn jitter(&mut self, base: std::time::Duration, percent: u64) -> std::time::Duration {
        let most = base.as_nanos() as u64 * percent / 100;
        base + std::time::Duration::from_nanos(self.range(0, most))
    }

    /// A random element of a slice; `None` if it is empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { items.get(self.below(items.len() as u64) as usize) }
    }

    /// `n` random characters, as Kubernetes appends them to a `generateName`.
    pub fn name_suffix(&mut self, n: usize) -> String {
        (0..n).map(|_| NAME_ALPHABET[self.below(NAME_ALPHABET.len() as u64) as usize] as char).collect()
    }

    /// A version-4 UUID in the usual text form.
    pub fn uuid(&mut self) -> String {
        let (a, b) = (self.next_u64(), self.next_u64());
        let bits = u128::from(a >> 16) << 80
            | 4 << 76
            | u128::from(a & 0xfff) << 64
            | u128::from(8 + (b >> 62)) << 60
            | u128::from(b >> 48 & 0xfff) << 48
            | u128::from(b & 0xffff_ffff_ffff);
        let mut text = String::with_capacity(36);
        for digit in 0..32 {
            if matches!(digit, 8 | 12 | 16 | 20) {
                text.push('-');
            }
            text.push(char::from(b"0123456789abcdef"[(bits >> (124 - 4 * digit)) as usize & 15]));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn streams_do_not_touch_each_other() {
        let mut a = Rng::stream(7, "node-1", 0);
        let mut b = Rng::stream(7, "node-2", 0);
        let mut a2 = Rng::stream(7, "node-1", 1);
        let first = (a.next_u64(), b.next_u64(), a2.next_u64());
        assert_eq!(first.0, Rng::stream(7, "node-1", 0).next_u64());
        assert!(first.0 != first.1 && first.0 != first.2);
    }

    #[test]
    fn uuid_has_its_shape() {
        let u = Rng::from_seed(1).uuid();
        assert_eq!(u.len(), 36);
        assert_eq!(u.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&u.as_bytes()[19]));
        for seed in 0..50 {
            let mut rng = Rng::from_seed(seed);
            let mut draws = rng.clone();
            let (a, b) = (draws.next_u64(), draws.next_u64());
            let (low, variant) = (a & 0xfff, 8 + (b >> 62));
            let front = format!("{:08x}-{:04x}-4{low:03x}-{variant:x}", a >> 32, a >> 16 & 0xffff);
            assert_eq!(rng.uuid(), format!("{front}{:03x}-{:012x}", b >> 48 & 0xfff, b & 0xffff_ffff_ffff));
        }
    }
}
