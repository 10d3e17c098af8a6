//! A setting that several faults may change at the same time: the newest fault's value counts, and each fault can be
//! undone alone.

use super::FaultId;

/// One setting of the world, with the value of each fault that has set it, oldest first.
#[derive(Clone, Debug)]
pub(crate) struct Layered<T>(Vec<(FaultId, T)>);

impl<T> Default for Layered<T> {
    fn default() -> Layered<T> {
        Layered(Vec::new())
    }
}

impl<T: Copy> Layered<T> {
    /// Sets the value of a fault, until it is removed.
    pub(crate) fn set(&mut self, id: FaultId, value: T) {
        self.0.push((id, value));
    }

    /// Removes what a fault has set. Returns true if it had set a value.
    pub(crate) fn remove(&mut self, id: FaultId) -> bool {
        let before = self.0.len();
        self.0.retain(|(other, _)| *other != id);
        self.0.len() < before
    }

    /// Removes the values of all faults.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The current value: that of the newest fault; `None` if no fault has set one.
    #[inline(always)]
    pub(crate) fn get(&self) -> Option<T> {
        self.0.last().map(|(_, value)| *value)
    }

    /// The values of all faults, oldest first.
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
