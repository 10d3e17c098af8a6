//! Shuffle sharding: which queues a flow's requests may wait in. Two flows rarely have a whole hand in common, so that
//! one that floods its queues leaves another at least one of its own.
//!
//! Source: KEP-1040; the algorithm is Knuth's conversion of a number to a choice without repetition.

/// Deals `size` different numbers below `deck`, which is at least as large, by the bits of a hash.
pub(super) fn deal(mut hash: u64, deck: usize, size: usize) -> Vec<usize> {
    let mut hand: Vec<usize> = Vec::with_capacity(size);
    // What has been dealt, in order: a card's number among those that are left becomes its number in the deck.
    let mut taken: Vec<usize> = Vec::with_capacity(size);
    for dealt in 0..size.min(deck) {
        let left = (deck - dealt) as u64;
        let mut card = (hash % left) as usize;
        hash /= left;
        for &other in &taken {
            if card >= other {
                card += 1;
            }
        }
        let place = taken.partition_point(|&other| other < card);
        taken.insert(place, card);
        hand.push(card);
    }
    hand
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::deal;
    use crate::random::Rng;

    #[test]
    fn hands_have_different_cards_of_the_deck_and_spread_over_it() {
        let mut rng = Rng::from_seed(1);
        let mut seen = vec![0u32; 64];
        for _ in 0..10_000 {
            let hand = deal(rng.next_u64(), 64, 6);
            assert_eq!(hand.iter().collect::<BTreeSet<_>>().len(), 6, "{hand:?}");
            hand.iter().for_each(|&card| seen[card] += 1);
        }
        // 60,000 cards over 64: each is dealt about 937 times.
        assert!(seen.iter().all(|n| (800..1100).contains(n)), "{seen:?}");
        assert_eq!(deal(7, 1, 1), [0]);
        assert_eq!(deal(u64::MAX, 3, 3).iter().collect::<BTreeSet<_>>().len(), 3);
    }
}
