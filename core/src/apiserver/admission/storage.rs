//! Admission of claims and volumes: DefaultStorageClass, StorageObjectInUseProtection, PersistentVolumeClaimResize.
//!
//! Source: `plugin/pkg/admission/storage`.

use serde_json::json;

use crate::api::Status;
use crate::apiserver::write::{Deciding, Decision, Write};
use crate::object::{Kind, Object, ObjectKey};
use crate::store::StoreKey;
use crate::volume::{
    CLAIM_PROTECTION, VOLUME_PROTECTION, class_of, default_class, names_class, requested, text, value,
};

impl Deciding<'_> {
    /// Gives a new claim that says nothing of its class the default one, if there is one.
    pub(super) fn storage_class(&mut self, _write: &Write, object: &mut Object) -> Result<(), Decision> {
        if object.kind() != Kind::PERSISTENT_VOLUME_CLAIM || names_class(object) {
            return Ok(());
        }
        let classes = self.cache.objects(Kind::STORAGE_CLASS).map(|(_, class)| class);
        let class = default_class(classes).map(|class| class.name().to_owned());
        if let (Some(class), Object::Dynamic(claim)) = (class, &mut *object) {
            let body = std::rc::Rc::make_mut(&mut claim.body);
            body.entry("spec").or_insert_with(|| json!({}))["storageClassName"] = json!(class);
        }
        Ok(())
    }

    /// Protects new claims and volumes while they are in use.
    pub(super) fn protect_storage(&mut self, _write: &Write, object: &mut Object) -> Result<(), Decision> {
        let finalizer = match object.kind() {
            Kind::PERSISTENT_VOLUME_CLAIM => CLAIM_PROTECTION,
            Kind::PERSISTENT_VOLUME => VOLUME_PROTECTION,
            _ => return Ok(()),
        };
        let finalizers = object.meta_mut().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == finalizer) {
            finalizers.push(finalizer.to_owned());
        }
        Ok(())
    }

    /// Refuses to grow a claim whose volume cannot grow.
    pub(super) fn claim_growth(&mut self, write: &Write, new: &Object, old: Option<&Object>) -> Result<(), Decision> {
        let grows = |old: &&Object| new.kind() == Kind::PERSISTENT_VOLUME_CLAIM && requested(new) > requested(old);
        let Some(current) = old.filter(grows) else { return Ok(()) };
        let claim = StoreKey::Object(new.key());
        let forbid = |keys, why| Err(Decision::AnswerIf(keys, Err(Status::forbidden(new.info(), new.name(), why))));
        if text(current, "/status/phase") != "Bound" {
            return forbid(vec![claim], "Only bound persistent volume claims can be expanded");
        }
        let class = ObjectKey::new(Kind::STORAGE_CLASS, "", class_of(new));
        let allows = |class: &Object| value(class, "/allowVolumeExpansion") == Some(&json!(true));
        if class.name() != class_of(current) || !self.known(write, &class).is_some_and(allows) {
            return forbid(
                vec![claim, StoreKey::Object(class)],
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                 support resize",
            );
        }
        Ok(())
    }
}
