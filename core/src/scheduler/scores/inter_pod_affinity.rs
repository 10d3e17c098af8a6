//! InterPodAffinity: a node scores higher the greater the weights of the preferences between the pod and those nearby.
//!
//! Source: `interpodaffinity/scoring.go`, in floating point as there.

use crate::scheduler::framework::MAX_NODE_SCORE;

/// The score of a sum of weights. `least` and `most` are the extremes among the feasible nodes, and differ.
pub fn affinity_score(sum: i64, least: i64, most: i64) -> i32 {
    (MAX_NODE_SCORE as f64 * ((sum - least) as f64 / (most - least) as f64)) as i32
}

#[cfg(test)]
mod tests {
    use super::affinity_score;

    #[test]
    fn in_proportion_and_cut_off_as_floating_point_has_it() {
        for (sum, least, most, expect) in [(0, 0, 1, 0), (1, 0, 1, 100), (-1, -3, 3, 33), (29, 0, 100, 28)] {
            assert_eq!(affinity_score(sum, least, most), expect, "{sum} of {least}..{most}");
        }
    }
}
