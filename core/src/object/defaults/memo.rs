//! Completing many pods of one template without copying the template's spec for each of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use k8s_openapi::api::core::v1::PodSpec;

use crate::limits::COMPLETED_SPECS;

/// Remembers what lately came of completing a shared pod spec, so that pods that share a template's spec go on sharing
/// one after defaults and admission have changed it.
///
/// Both specs are kept alive, so a remembered address cannot become another spec's. Only lookups, no order.
#[derive(Debug, Default)]
pub struct SpecMemo {
    by_address: BTreeMap<(usize, u64), (Arc<PodSpec>, Arc<PodSpec>)>,
    oldest_first: VecDeque<(usize, u64)>,
}

impl SpecMemo {
    /// Replaces `spec` by what `complete` makes of it. `context` stands for everything else that `complete` depends
    /// on: equal specs in an equal context must come out equal.
    pub fn complete(&mut self, spec: &mut Arc<PodSpec>, context: u64, complete: impl FnOnce(&mut Arc<PodSpec>)) {
        let key = (Arc::as_ptr(spec).addr(), context);
        if let Some((_, done)) = self.by_address.get(&key) {
            *spec = Arc::clone(done);
            return;
        }
        let before = Arc::clone(spec);
        complete(spec);
        if Arc::ptr_eq(&before, spec) {
            return;
        }
        if self.oldest_first.len() >= COMPLETED_SPECS
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.by_address.remove(&oldest);
        }
        self.by_address.insert(key, (before, Arc::clone(spec)));
        self.oldest_first.push_back(key);
    }
}

#[cfg(test)]
mod tests {
    use super::{Arc, PodSpec, SpecMemo};

    #[test]
    fn pods_of_one_template_go_on_sharing() {
        let template = Arc::new(PodSpec::default());
        let mut memo = SpecMemo::default();
        let mut complete = |context: u64| {
            let mut spec = Arc::clone(&template);
            memo.complete(&mut spec, context, |s| Arc::make_mut(s).priority = Some(context as i32));
            spec
        };
        let (a, b, c) = (complete(1), complete(1), complete(2));
        assert!(Arc::ptr_eq(&a, &b));
        assert_eq!((a.priority, c.priority), (Some(1), Some(2)));
    }
}
