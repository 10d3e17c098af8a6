//! What several faults may set at once: the newest one counts, and each is taken back by itself.

use super::FaultId;

/// A setting of the world in layers, one a fault.
#[derive(Clone, Debug)]
pub(crate) struct Layered<T>(Vec<(FaultId, T)>);

impl<T> Default for Layered<T> {
    fn default() -> Layered<T> {
        Layered(Vec::new())
    }
}

impl<T: Copy> Layered<T> {
    /// Sets it for as long as this fault lasts.
    pub(crate) fn set(&mut self, id: FaultId, value: T) {
        self.0.push((id, value));
    }

    /// Takes back what a fault has set. True if it had set anything.
    pub(crate) fn remove(&mut self, id: FaultId) -> bool {
        let before = self.0.len();
        self.0.retain(|(other, _)| *other != id);
        self.0.len() < before
    }

    /// Takes back what all have set.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// What holds now, if any fault has set it.
    #[inline(always)]
    pub(crate) fn get(&self) -> Option<T> {
        self.0.last().map(|(_, value)| *value)
    }

    /// What each has set, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = T> {
        self.0.iter().map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::{FaultId, Layered};

    #[test]
    fn each_takes_back_its_own() {
        let mut layers = Layered::default();
        assert_eq!(layers.get(), None);
        layers.set(FaultId(1), 10);
        layers.set(FaultId(2), 20);
        assert_eq!(layers.get(), Some(20));
        assert!(layers.remove(FaultId(1)) && !layers.remove(FaultId(1)));
        assert_eq!((layers.get(), layers.all().sum::<i32>()), (Some(20), 20));
        layers.set(FaultId(3), 30);
        assert!(layers.remove(FaultId(3)));
        assert_eq!(layers.get(), Some(20));
        layers.clear();
        assert_eq!(layers.get(), None);
    }
}
