//! Defaults of what is written.

use super::Object;

/// Fills in what Kubernetes fills in.
pub fn apply(_object: &mut Object) {}
