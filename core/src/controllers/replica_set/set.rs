//! What ReplicaSets and ReplicationControllers have in common.

use crate::object::{Object, ObjectMeta, Selector, SharedPodSpec};

/// The parts of a ReplicaSet or ReplicationController that the controller reads.
pub(super) struct Set<'a> {
    pub selector: Selector,
    pub replicas: i32,
    pub min_ready_seconds: i32,
    pub template_meta: Option<&'a ObjectMeta>,
    pub pod: &'a SharedPodSpec,
}

impl<'a> Set<'a> {
    /// `None` for other kinds, and for a set whose selector is invalid or would match everything: validation rejects
    /// those, and if one exists nevertheless, it must not adopt the whole namespace.
    pub fn of(object: &'a Object) -> Option<Set<'a>> {
        let set = match object {
            Object::ReplicaSet(rs) => Set {
                selector: Selector::from_label_selector(&rs.spec.selector).ok()?,
                replicas: rs.spec.replicas.unwrap_or(1),
                min_ready_seconds: rs.spec.min_ready_seconds.unwrap_or(0),
                template_meta: rs.spec.template_meta(),
                pod: &rs.spec.pod,
            },
            Object::ReplicationController(rc) => Set {
                selector: Selector::from_map(rc.spec.selector.as_ref()?),
                replicas: rc.spec.replicas.unwrap_or(1),
                min_ready_seconds: rc.spec.min_ready_seconds.unwrap_or(0),
                template_meta: rc.spec.template_meta(),
                pod: &rc.spec.pod,
            },
            _ => return None,
        };
        (!set.selector.is_everything()).then_some(set)
    }
}
