//! The port through which the autoscaler learns of usage and other metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::machine::{Now, Wall};
use crate::object::{Pod, Selector};

/// What a pod's containers used over a window of time.
#[derive(Clone, Debug, PartialEq)]
pub struct PodUsage {
    /// When the window ended.
    pub at: Wall,
    /// Its length.
    pub window: Duration,
    /// By container and resource name, in thousandths of the resource's unit.
    pub containers: BTreeMap<String, BTreeMap<String, i64>>,
}

/// An object that a metric describes.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Where metrics come from: the resource, custom and external metrics APIs. Values are in thousandths. Answers depend
/// on nothing but the arguments and what the driver was built with.
pub trait MetricsSource: fmt::Debug {
    /// The usage of a pod's containers; `None` if it has not been measured yet.
    fn usage(&self, now: Now, pod: &Pod, others: &[&Pod]) -> Option<PodUsage>;

    /// A custom metric of a pod; `None` if nobody reports it.
    fn of_pod(&self, _now: Now, _pod: &Pod, _name: &str, _selector: Option<&Selector>) -> Option<i64> {
        None
    }

    /// A custom metric of any object; `None` if nobody reports it.
    fn of_object(&self, _now: Now, _object: &Described, _name: &str, _selector: Option<&Selector>) -> Option<i64> {
        None
    }

    /// An external metric: the values of every series that matches.
    fn external(&self, _now: Now, _namespace: &str, _name: &str, _selector: Option<&Selector>) -> Vec<i64> {
        Vec::new()
    }
}

/// The port as it is handed to the controller; `None` where no metrics API is served.
pub type Metrics = Option<Rc<dyn MetricsSource>>;
