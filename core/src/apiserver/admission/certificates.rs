//! CertificateApproval and CertificateSigning: whoever approves a request for a certificate, or signs one, must have
//! the verb `approve` or `sign` on its signer, or on all signers of its domain.
//!
//! Source: kubernetes `plugin/pkg/admission/certificates`.

use crate::api::{Status, Subresource};
use crate::apiserver::write::{Deciding, Decision, Write};
use crate::auth::{Attempt, Authoriser, Resource};
use crate::object::{Dynamic, Kind, Object};

/// Name of the plug-in that guards `/approval`.
pub(super) const APPROVAL: &str = "CertificateApproval";
/// Name of the plug-in that guards `/status`.
pub(super) const SIGNING: &str = "CertificateSigning";

impl Deciding<'_> {
    /// Refuses an approval, or what a signer writes, by somebody who may not.
    pub(super) fn certificate(
        &self,
        write: &Write,
        subresource: Subresource,
        new: &Object,
        old: &Object,
    ) -> Result<(), Decision> {
        let (Object::Dynamic(request), Object::Dynamic(old)) = (new, old) else { return Ok(()) };
        if request.kind != Kind::CERTIFICATE_SIGNING_REQUEST {
            return Ok(());
        }
        let (plug_in, verb) = match subresource {
            Subresource::Approval => (APPROVAL, "approve"),
            Subresource::Status if signs(request, old) => (SIGNING, "sign"),
            Subresource::Status
            | Subresource::None
            | Subresource::Scale
            | Subresource::Finalize
            | Subresource::EphemeralContainers
            | Subresource::Resize => return Ok(()),
        };
        let signer = old.body.get("spec").and_then(|spec| spec["signerName"].as_str()).unwrap_or_default();
        if !self.runs(plug_in) || self.may(write, verb, signer) {
            return Ok(());
        }
        let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
        Err(Decision::refuse(Status::forbidden(new.info(), new.name(), &why)))
    }

    fn may(&self, write: &Write, verb: &str, signer: &str) -> bool {
        let (Some(grants), Some(user)) = (self.grants, write.request.identity.as_deref()) else { return true };
        let domain = signer.split('/').next().unwrap_or_default();
        [signer, &format!("{domain}/*")].iter().any(|name| {
            let group = "certificates.k8s.io";
            let signers = Resource { group, resource: "signers", subresource: "", namespace: "", name };
            grants.authority.judge(user, &Attempt::at(verb, signers)).allows()
        })
    }
}

/// Whether a status has another certificate or other conditions than before.
fn signs(new: &Dynamic, old: &Dynamic) -> bool {
    let [new, old] = [new, old].map(|d| d.status.as_deref());
    ["certificate", "conditions"].iter().any(|part| new.and_then(|s| s.get(part)) != old.and_then(|s| s.get(part)))
}
