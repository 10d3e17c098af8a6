//! Admission of claims and volumes: DefaultStorageClass, StorageObjectInUseProtection, PersistentVolumeClaimResize.
//!
//! Source: `plugin/pkg/admission/storage`.

use serde_json::json;

use super::write::Deciding;
use crate::api::Status;
use crate::object::{Kind, Object};
use crate::volume::{
    CLAIM_PROTECTION, VOLUME_PROTECTION, class_of, default_class, names_class, requested, text, value,
};

impl Deciding<'_> {
    /// Gives a new claim that says nothing of its class the default one, if there is one, and protects new claims and
    /// volumes while they are in use.
    pub(super) fn admit_storage(&self, object: &mut Object) {
        let finalizer = match object.kind() {
            Kind::PERSISTENT_VOLUME_CLAIM => CLAIM_PROTECTION,
            Kind::PERSISTENT_VOLUME => VOLUME_PROTECTION,
            _ => return,
        };
        if object.kind() == Kind::PERSISTENT_VOLUME_CLAIM && !names_class(object) {
            let classes = self.cache.objects(Kind::STORAGE_CLASS).map(|(_, class)| class);
            let class = default_class(classes).map(|class| class.name().to_owned());
            if let (Some(class), Object::Dynamic(claim)) = (class, &mut *object) {
                let body = std::rc::Rc::make_mut(&mut claim.body);
                body.entry("spec").or_insert_with(|| json!({}))["storageClassName"] = json!(class);
            }
        }
        let finalizers = object.meta_mut().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == finalizer) {
            finalizers.push(finalizer.to_owned());
        }
    }

    /// Refuses to grow a claim whose volume cannot grow.
    pub(super) fn admit_growth(&self, new: &Object, current: &Object) -> Result<(), Status> {
        if new.kind() != Kind::PERSISTENT_VOLUME_CLAIM || requested(new) <= requested(current) {
            return Ok(());
        }
        let forbid = |why| Err(Status::forbidden(new.info(), new.name(), why));
        if text(current, "/status/phase") != "Bound" {
            return forbid("Only bound persistent volume claims can be expanded");
        }
        let name = class_of(new);
        let mut classes = self.cache.objects(Kind::STORAGE_CLASS).filter(|(_, class)| class.name() == name);
        let allows = |class: &Object| value(class, "/allowVolumeExpansion") == Some(&json!(true));
        if name != class_of(current) || !classes.any(|(_, class)| allows(class)) {
            return forbid(
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                 support resize",
            );
        }
        Ok(())
    }
}
