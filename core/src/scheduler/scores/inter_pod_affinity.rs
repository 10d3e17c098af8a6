//! InterPodAffinity: the more the pods nearby are wanted, by weight, and want it, the better.
//!
//! Source: `interpodaffinity/scoring.go`, floating point as there.

use crate::scheduler::framework::MAX_NODE_SCORE;

/// The score of a sum of weights between the least and the greatest of the feasible nodes, which differ.
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
