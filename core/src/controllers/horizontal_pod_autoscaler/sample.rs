//! What each metric of an autoscaler asks for (`computeReplicasForMetrics`).

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2 as autoscaling_v2;
use k8s_openapi::api::autoscaling::v2::{MetricIdentifier, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::conditions::Conditions;
use super::metrics::{Described, MetricsSource, PodUsage};
use super::replicas::{Proposal, Samples, Workload, samples};
use super::{Autoscaler, Plan, warn};
use crate::machine::Now;
use crate::object::{Milli, Selector};

/// Where, and when, metrics are looked up.
pub(super) struct Of<'a> {
    pub(super) metrics: Option<&'a dyn MetricsSource>,
    pub(super) namespace: &'a str,
    /// `status.replicas` of the target.
    pub(super) there: i32,
    pub(super) now: Now,
}

/// Why a metric gives no proposal: reason of condition and Event, and the error.
struct Failure {
    reason: &'static str,
    why: String,
}

/// What a metric asks for, its name for the reason of a change, and its status.
type Found = (Proposal, String, MetricStatus);

/// The highest proposal of all metrics, the name of its metric, and all statuses. A metric that fails keeps the
/// workload from being scaled down. The error is the statuses alone.
pub(super) fn all(
    hpa: &Autoscaler<'_>,
    of: &Of<'_>,
    workload: &Workload<'_>,
    conditions: &mut Conditions,
    plan: &mut Plan,
) -> Result<(i32, String, Vec<MetricStatus>), Vec<MetricStatus>> {
    let specs = hpa.spec.metrics.as_deref().unwrap_or(&[]);
    let usage = of.usage(workload);
    let (mut best, mut statuses, mut failures): (Option<(i32, String)>, Vec<_>, Vec<Failure>) = Default::default();
    for spec in specs {
        match of.one(spec, &usage, workload) {
            Ok((proposal, name, status)) => {
                statuses.push(status);
                if best.as_ref().is_none_or(|(most, _)| proposal.replicas > *most) {
                    best = Some((proposal.replicas, name));
                }
            }
            Err(failure) => {
                warn(plan, hpa.object, failure.reason, failure.why.clone());
                failures.push(failure);
            }
        }
    }
    let failed = failures.len();
    let summary = |first: &Failure| {
        format!("invalid metrics ({failed} invalid out of {}), first error is: {}", specs.len(), first.why)
    };
    match (best, failures.first()) {
        (Some((replicas, name)), first) if first.is_none() || replicas >= workload.current => {
            let message = format!("the HPA was able to successfully calculate a replica count from {name}");
            conditions.set("ScalingActive", true, "ValidMetricFound", message);
            Ok((replicas, name, statuses))
        }
        (_, Some(first)) => {
            let message = format!("the HPA was unable to compute the replica count: {}", first.why);
            conditions.set("ScalingActive", false, first.reason, message);
            warn(plan, hpa.object, "FailedComputeMetricsReplicas", summary(first));
            Err(statuses)
        }
        (_, None) => Err(statuses),
    }
}

fn milli(quantity: Option<&Quantity>) -> Option<i64> {
    quantity.map(|q| i64::try_from(Milli::of(q).0).unwrap_or(i64::MAX))
}

/// An amount in thousandths, as Kubernetes shows it.
fn shown(value: i64) -> Quantity {
    Quantity(if value % 1000 == 0 { (value / 1000).to_string() } else { format!("{value}m") })
}

fn average(value: i64) -> MetricValueStatus {
    MetricValueStatus { average_value: Some(shown(value)), ..MetricValueStatus::default() }
}

fn selector(of: &MetricIdentifier) -> Option<Selector> {
    of.selector.as_ref().map(|s| Selector::from_label_selector(s).unwrap_or_else(|_| Selector::nothing()))
}

/// The words for a utilisation and an amount in the reason of a change.
fn named(resource: &str, what: &str, is_percent: bool) -> String {
    let percent = if is_percent { " utilization (percentage of request)" } else { "" };
    format!("{resource} {what}{percent}")
}

impl Of<'_> {
    fn usage(&self, workload: &Workload<'_>) -> BTreeMap<String, PodUsage> {
        let Some(metrics) = self.metrics else { return BTreeMap::new() };
        let each = workload.pods.iter();
        each.filter_map(|pod| Some((pod.name().to_owned(), metrics.usage(self.now, pod, workload.pods)?))).collect()
    }

    fn one(
        &self,
        spec: &MetricSpec,
        usage: &BTreeMap<String, PodUsage>,
        workload: &Workload<'_>,
    ) -> Result<Found, Failure> {
        match spec.type_.as_str() {
            "Resource" => self.resource(spec, usage, workload),
            "ContainerResource" => self.container(spec, usage, workload),
            "Pods" => self.of_pods(spec, usage, workload),
            "Object" => self.of_object(spec, workload),
            "External" => self.external(spec, workload),
            other => {
                Err(Failure { reason: "InvalidMetricSourceType", why: format!("unknown metric source type {other:?}") })
            }
        }
    }

    fn resource(
        &self,
        spec: &MetricSpec,
        usage: &BTreeMap<String, PodUsage>,
        workload: &Workload<'_>,
    ) -> Result<Found, Failure> {
        let source = spec.resource.clone().unwrap_or_default();
        let fails = |why| Failure { reason: "FailedGetResourceMetric", why };
        let proposal = self.measured(usage, workload, (&source.name, None), &source.target).map_err(fails)?;
        let name = named(&source.name, "resource", proposal.utilization.is_some());
        let status = autoscaling_v2::ResourceMetricStatus { name: source.name, current: current(&proposal) };
        Ok((
            proposal,
            name,
            MetricStatus { type_: "Resource".to_owned(), resource: Some(status), ..Default::default() },
        ))
    }

    fn container(
        &self,
        spec: &MetricSpec,
        usage: &BTreeMap<String, PodUsage>,
        workload: &Workload<'_>,
    ) -> Result<Found, Failure> {
        let source = spec.container_resource.clone().unwrap_or_default();
        let fails = |why| Failure { reason: "FailedGetContainerResourceMetric", why };
        let of = (source.name.as_str(), Some(source.container.as_str()));
        let proposal = self.measured(usage, workload, of, &source.target).map_err(fails)?;
        let name = named(&source.name, "container resource", proposal.utilization.is_some());
        let status = autoscaling_v2::ContainerResourceMetricStatus {
            name: source.name,
            container: source.container,
            current: current(&proposal),
        };
        let type_ = "ContainerResource".to_owned();
        Ok((proposal, name, MetricStatus { type_, container_resource: Some(status), ..Default::default() }))
    }

    /// What the usage of a resource asks for, by utilisation or by average value.
    fn measured(
        &self,
        usage: &BTreeMap<String, PodUsage>,
        workload: &Workload<'_>,
        (resource, container): (&str, Option<&str>),
        target: &MetricTarget,
    ) -> Result<Proposal, String> {
        let unserved = || {
            let why = "unable to fetch metrics from resource metrics API: the server could not find the requested \
                       resource (get pods.metrics.k8s.io)";
            format!("unable to get metrics for resource {resource}: {why}")
        };
        let what = if target.average_value.is_some() { "usage" } else { "utilization" };
        let failed = |why: String| format!("failed to get {resource} {what}: {why}");
        self.metrics.ok_or_else(unserved).map_err(failed)?;
        if let Some(target) = milli(target.average_value.as_ref()) {
            let samples = samples(usage, resource, container);
            return workload.by_average(self.now, usage, samples, (resource, target)).map_err(failed);
        }
        let Some(target) = target.average_utilization else {
            return Err("invalid resource metric source: neither an average utilization target nor an average value \
                        (usage) target was set"
                .to_owned());
        };
        workload.by_utilization(self.now, usage, (resource, container), target).map_err(failed)
    }

    fn of_pods(
        &self,
        spec: &MetricSpec,
        usage: &BTreeMap<String, PodUsage>,
        workload: &Workload<'_>,
    ) -> Result<Found, Failure> {
        let source = spec.pods.clone().unwrap_or_default();
        let metric = source.metric;
        let fails = |why| Failure {
            reason: "FailedGetPodsMetric",
            why: format!("failed to get pods metric value: unable to get metric {}: {why}", metric.name),
        };
        let matches = selector(&metric);
        let sample = |pod| self.metrics?.of_pod(self.now, pod, &metric.name, matches.as_ref());
        let samples: Samples =
            workload.pods.iter().filter_map(|pod| Some((pod.name().to_owned(), sample(pod)?))).collect();
        if samples.is_empty() {
            return Err(fails("no metrics returned from custom metrics API".to_owned()));
        }
        let target = milli(source.target.average_value.as_ref()).unwrap_or(0);
        let proposal = workload.by_average(self.now, usage, samples, (&metric.name, target)).map_err(fails)?;
        let name = format!("pods metric {}", metric.name);
        let status = autoscaling_v2::PodsMetricStatus { metric, current: average(proposal.value) };
        Ok((proposal, name, MetricStatus { type_: "Pods".to_owned(), pods: Some(status), ..Default::default() }))
    }

    fn of_object(&self, spec: &MetricSpec, workload: &Workload<'_>) -> Result<Found, Failure> {
        let source = spec.object.clone().unwrap_or_default();
        let (metric, about) = (source.metric, source.described_object);
        let described =
            Described { kind: about.kind.clone(), namespace: self.namespace.to_owned(), name: about.name.clone() };
        let value = self
            .metrics
            .and_then(|m| m.of_object(self.now, &described, &metric.name, selector(&metric).as_ref()))
            .ok_or_else(|| Failure {
                reason: "FailedGetObjectMetric",
                why: format!(
                    "failed to get object metric value: unable to get metric {}: {} on {} {}/no metrics returned from \
                     custom metrics API",
                    metric.name, about.kind, self.namespace, about.name
                ),
            })?;
        let (proposal, current) = self.valued(workload, value, &source.target);
        let name = format!("{} metric {}", about.kind, metric.name);
        let status = autoscaling_v2::ObjectMetricStatus { metric, described_object: about, current };
        Ok((proposal, name, MetricStatus { type_: "Object".to_owned(), object: Some(status), ..Default::default() }))
    }

    fn external(&self, spec: &MetricSpec, workload: &Workload<'_>) -> Result<Found, Failure> {
        let source = spec.external.clone().unwrap_or_default();
        let metric = source.metric;
        let matches = selector(&metric);
        let values = self.metrics.map(|m| m.external(self.now, self.namespace, &metric.name, matches.as_ref()));
        let values = values.filter(|values| !values.is_empty()).ok_or_else(|| Failure {
            reason: "FailedGetExternalMetric",
            why: format!(
                "failed to get {} external metric: unable to get external metric {}/{}/{}: no metrics returned from \
                 external metrics API",
                metric.name,
                self.namespace,
                metric.name,
                matches.as_ref().map_or_else(|| "nil".to_owned(), Selector::to_string)
            ),
        })?;
        let (proposal, current) = self.valued(workload, values.iter().sum(), &source.target);
        let labels = matches.map_or_else(|| "nil".to_owned(), |s| s.to_string());
        let name = format!("external metric {}({labels})", metric.name);
        let status = autoscaling_v2::ExternalMetricStatus { metric, current };
        Ok((
            proposal,
            name,
            MetricStatus { type_: "External".to_owned(), external: Some(status), ..Default::default() },
        ))
    }

    /// What one value for the whole workload asks for, whole or shared by its pods.
    fn valued(&self, workload: &Workload<'_>, value: i64, target: &MetricTarget) -> (Proposal, MetricValueStatus) {
        match milli(target.average_value.as_ref()) {
            Some(share) => {
                let proposal = workload.by_share(self.there.max(1), value, share);
                (proposal, average(proposal.value))
            }
            None => {
                let proposal = workload.by_value(value, milli(target.value.as_ref()).unwrap_or(0));
                (proposal, MetricValueStatus { value: Some(shown(value)), ..MetricValueStatus::default() })
            }
        }
    }
}

fn current(proposal: &Proposal) -> MetricValueStatus {
    MetricValueStatus { average_utilization: proposal.utilization, ..average(proposal.value) }
}
