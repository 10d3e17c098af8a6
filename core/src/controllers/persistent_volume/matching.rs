//! Which volume a claim gets: the smallest that is large enough and is what the claim asks for.
//!
//! Source: `k8s.io/component-helpers/storage/volume` (`FindMatchingVolume`), `checkVolumeSatisfyClaim`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

use super::catalog::Catalog;
use crate::client::Views;
use crate::object::{Kind, Object, Selector};
use crate::volume;

/// The best volume for a claim that names none. A volume that names the claim is taken before all others; a claim that
/// waits for its consumer (`waits`) gets only such a one.
pub(super) fn find<'a>(catalog: &Catalog, views: &'a Views, claim: &Object, waits: bool) -> Option<&'a Object> {
    let view = views.view(Kind::PERSISTENT_VOLUME);
    let named = catalog.named(claim.key_ref()).filter_map(|key| view.get(key));
    let named = named.into_iter().find(|volume| {
        volume::is_for(volume, claim) && volume::capacity(volume) >= volume::requested(claim) && is_like(volume, claim)
    });
    if named.is_some() || waits {
        return named;
    }
    let free = catalog.free(volume::class_of(claim), volume::requested(claim)).filter_map(|key| view.get(key));
    free.into_iter().find(|volume| is_like(volume, claim) && is_selected(volume, claim))
}

fn is_like(volume: &Object, claim: &Object) -> bool {
    has_modes(volume, claim)
        && volume::volume_mode(volume) == volume::volume_mode(claim)
        && attributes(volume) == attributes(claim)
}

fn has_modes(volume: &Object, claim: &Object) -> bool {
    volume::access_modes(claim).all(|mode| volume::access_modes(volume).any(|has| has == mode))
}

fn attributes(object: &Object) -> &str {
    volume::text(object, "/spec/volumeAttributesClassName")
}

/// Whether a claim's selector matches a volume.
fn is_selected(volume: &Object, claim: &Object) -> bool {
    let Some(selector) = volume::value(claim, "/spec/selector").filter(|s| !s.is_null()) else { return true };
    let selector = LabelSelector::deserialize(selector).ok().and_then(|s| Selector::from_label_selector(&s).ok());
    selector.is_some_and(|s| s.matches(volume.labels()))
}

/// Why a claim cannot have the volume that it names; `None` if it can.
pub(super) fn mismatch(volume: &Object, claim: &Object) -> Option<&'static str> {
    if volume::capacity(volume) < volume::requested(claim) {
        Some("requested PV is too small")
    } else if volume::class_of(volume) != volume::class_of(claim) {
        Some("storageClassName does not match")
    } else if attributes(volume) != attributes(claim) {
        Some("volumeAttributesClassName does not match")
    } else if volume::volume_mode(volume) != volume::volume_mode(claim) {
        Some("incompatible volumeMode")
    } else if !has_modes(volume, claim) {
        Some("incompatible accessMode")
    } else {
        None
    }
}
