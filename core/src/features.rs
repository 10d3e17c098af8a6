//! Feature gates: what Kubernetes 1.36 has, but off by default (`--feature-gates`). Source:
//! `staging/src/k8s.io/component-base/featuregate`, `pkg/features/kube_features.go`.
//!
//! Only gates that change something here are known; the fields of one that is off are dropped when they are written.

use serde::{Deserialize, Serialize};

use crate::object::Kind;

/// Which gates are on. All are off by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FeatureGates {
    /// `GenericWorkload`: Workloads and PodGroups are served, and pods may name the group that they belong to
    /// (KEP-4671, KEP-5832).
    #[serde(default)]
    pub generic_workload: bool,
    /// `GangScheduling`: groups with the policy `gang` are placed as a whole or not at all. Needs `GenericWorkload`.
    #[serde(default)]
    pub gang_scheduling: bool,
}

/// The gates, by name.
const KNOWN: [&str; 2] = ["GangScheduling", "GenericWorkload"];

impl FeatureGates {
    /// Whether a built-in kind is served. Most are, whatever gates are on.
    pub fn serves(self, kind: Kind) -> bool {
        self.generic_workload || !matches!(kind, Kind::WORKLOAD | Kind::POD_GROUP)
    }

    /// Sets a gate. The error says that there is none of this name.
    pub fn set(&mut self, name: &str, on: bool) -> Result<(), String> {
        match name {
            "GenericWorkload" => self.generic_workload = on,
            "GangScheduling" => self.gang_scheduling = on,
            _ => return Err(format!("unrecognized feature gate: {name} (known: {})", KNOWN.join(", "))),
        }
        Ok(())
    }

    /// Says which gate is on without one that it needs.
    pub fn check(&self) -> Result<(), String> {
        if self.gang_scheduling && !self.generic_workload {
            return Err(
                "GangScheduling is enabled, but depends on features that are disabled: [GenericWorkload]".into()
            );
        }
        Ok(())
    }

    /// Reads `NAME=true,NAME=false`, as `--feature-gates` is written.
    pub fn parse(text: &str) -> Result<FeatureGates, String> {
        let mut gates = FeatureGates::default();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| format!("missing bool value for {pair}"))?;
            // What Go's `strconv.ParseBool` takes.
            let on = match value.trim() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                value => return Err(format!("invalid value of {name}={value}: it is true or false")),
            };
            gates.set(name.trim(), on)?;
        }
        gates.check()?;
        Ok(gates)
    }
}

#[cfg(test)]
mod tests {
    use super::FeatureGates;

    #[test]
    fn gates_are_read_as_kubernetes_reads_them() {
        let gates = |generic_workload, gang_scheduling| Ok(FeatureGates { generic_workload, gang_scheduling });
        let err = |text: &str| Err(text.to_owned());
        let needs = "GangScheduling is enabled, but depends on features that are disabled: [GenericWorkload]";
        for (text, expect) in [
            ("", gates(false, false)),
            ("GenericWorkload=true", gates(true, false)),
            ("GangScheduling=true, GenericWorkload=1,", gates(true, true)),
            ("GenericWorkload=true,GenericWorkload=F", gates(false, false)),
            ("GangScheduling=true", err(needs)),
            ("GenericWorkload", err("missing bool value for GenericWorkload")),
            ("GenericWorkload=yes", err("invalid value of GenericWorkload=yes: it is true or false")),
            ("X=true", err("unrecognized feature gate: X (known: GangScheduling, GenericWorkload)")),
        ] {
            assert_eq!(FeatureGates::parse(text), expect, "{text:?}");
        }
    }
}
