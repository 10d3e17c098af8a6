//! PodTopologySpread: a node scores higher the fewer matching pods are in its domains.
//!
//! Source: `podtopologyspread/scoring.go`, in floating point as there. The logarithm is computed with the four basic
//! operations only, as in Go's `math.Log`, so that it is the same on every machine.

use crate::scheduler::framework::MAX_NODE_SCORE;

/// The weight of a constraint whose feasible nodes are in this many domains. It evens out that the pods of more domains
/// are fewer in each.
pub fn log_of_domains(size: usize) -> f64 {
    ln(size as f64 + 2.0)
}

/// What a domain with this many pods adds to a node's raw score.
pub fn spread_count(pods: i64, max_skew: i64, weight: f64) -> f64 {
    pods as f64 * weight + (max_skew - 1) as f64
}

/// Normalises a raw score. `least` and `most` are the extremes among the feasible nodes.
pub fn spread_score(raw: i32, least: i32, most: i32) -> i32 {
    if most == 0 {
        return MAX_NODE_SCORE as i32;
    }
    // Exact, since quotients of numbers this small are never rounded up to the next integer.
    (f64::from(MAX_NODE_SCORE as i32) * f64::from(most + least - raw) / f64::from(most)) as i32
}

/// The natural logarithm of a number above one (FreeBSD's `e_log.c`).
fn ln(x: f64) -> f64 {
    const LN2_HI: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
    const LN2_LO: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
    const L: [f64; 7] = [
        f64::from_bits(0x3fe5_5555_5555_5593),
        f64::from_bits(0x3fd9_9999_9997_fa04),
        f64::from_bits(0x3fd2_4924_9422_9359),
        f64::from_bits(0x3fcc_71c5_1d8e_78af),
        f64::from_bits(0x3fc7_4664_96cb_03de),
        f64::from_bits(0x3fc3_9a09_d078_c69f),
        f64::from_bits(0x3fc2_f112_df3e_5244),
    ];
    let (mut fraction, mut exponent) = (x, 0);
    while fraction >= 1.0 {
        fraction /= 2.0;
        exponent += 1;
    }
    if fraction < std::f64::consts::FRAC_1_SQRT_2 {
        fraction *= 2.0;
        exponent -= 1;
    }
    let (f, k) = (fraction - 1.0, f64::from(exponent));
    let s = f / (2.0 + f);
    let s2 = s * s;
    let s4 = s2 * s2;
    let t1 = s2 * (L[0] + s4 * (L[2] + s4 * (L[4] + s4 * L[6])));
    let t2 = s4 * (L[1] + s4 * (L[3] + s4 * L[5]));
    let r = t1 + t2;
    let half = 0.5 * f * f;
    k * LN2_HI - ((half - (s * (half + r) + k * LN2_LO)) - f)
}

#[cfg(test)]
mod tests {
    use super::{log_of_domains, spread_score};

    #[test]
    fn logarithms_are_the_platforms_to_the_last_bit_or_one() {
        for size in 0..20_000 {
            let (ours, theirs) = (log_of_domains(size), (size as f64 + 2.0).ln());
            assert!((ours - theirs).abs() <= theirs * f64::EPSILON, "{size}: {ours} {theirs}");
        }
    }

    #[test]
    fn fewer_is_better() {
        for (raw, least, most, expect) in [(0, 0, 0, 100), (0, 0, 7, 100), (7, 0, 7, 0), (7, 3, 7, 42), (3, 3, 7, 100)]
        {
            assert_eq!(spread_score(raw, least, most), expect, "{raw} of {least}..{most}");
        }
        for most in 1..300 {
            for raw in 0..=most {
                assert_eq!(spread_score(raw, 0, most), 100 * (most - raw) / most);
            }
        }
    }
}
