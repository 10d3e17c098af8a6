//! CSIDriver.

use k8s_openapi::api::storage::v1::CSIDriver;
use serde_json::json;

use super::JsonStrategy;
use super::missing::Missing;

impl JsonStrategy for CSIDriver {
    fn defaults(m: &mut Missing<'_>) {
        m.at(&["spec"], "attachRequired", || json!(true));
        m.at(&["spec"], "podInfoOnMount", || json!(false));
        m.at(&["spec"], "storageCapacity", || json!(false));
        m.at(&["spec"], "fsGroupPolicy", || json!("ReadWriteOnceWithFSType"));
        m.at(&["spec"], "volumeLifecycleModes", || json!(["Persistent"]));
        m.at(&["spec"], "requiresRepublish", || json!(false));
        m.at(&["spec"], "seLinuxMount", || json!(false));
    }
}
