//! Defaults of workload specs. Source: `pkg/apis/{apps,batch}/v1/defaults.go`.

use k8s_openapi::api::apps::v1::{
    DaemonSetSpec, DaemonSetUpdateStrategy, DeploymentSpec, DeploymentStrategy, ReplicaSetSpec, RollingUpdateDaemonSet,
    RollingUpdateDeployment, RollingUpdateStatefulSetStrategy, StatefulSetPersistentVolumeClaimRetentionPolicy,
    StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::batch::v1::{
    CronJobSpec, JobSpec, JobTemplateSpec, PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, ReplicationControllerSpec,
};

use super::rules::{Defaults, Parts, defaults, one_part};
use crate::object::IntOrString;

one_part!(
    DeploymentStrategy,
    RollingUpdateDeployment,
    StatefulSetUpdateStrategy,
    RollingUpdateStatefulSetStrategy,
    StatefulSetPersistentVolumeClaimRetentionPolicy,
    DaemonSetUpdateStrategy,
    RollingUpdateDaemonSet,
    PodFailurePolicy,
    JobTemplateSpec,
    PersistentVolumeClaimSpec,
    PersistentVolumeClaimStatus,
);

const ROLLING_UPDATE: &str = "RollingUpdate";

fn percent(n: u8) -> IntOrString {
    IntOrString::String(format!("{n}%"))
}

// In typed kinds the template's pod spec is held apart, see `Templated`; in others it is inside the template.
defaults!(DeploymentSpec, |d| {
    set replicas = 1;
    set strategy = DeploymentStrategy::default();
    set revision_history_limit = 10;
    set progress_deadline_seconds = 600;
    each strategy;
});
defaults!(DeploymentStrategy, |s| {
    set type_ = ROLLING_UPDATE.to_owned();
    set rolling_update = RollingUpdateDeployment::default(), if s.type_.as_deref() == Some(ROLLING_UPDATE);
    each rolling_update;
});
defaults!(RollingUpdateDeployment, |r| {
    set max_unavailable = percent(25);
    set max_surge = percent(25);
});
defaults!(ReplicaSetSpec, |r| { set replicas = 1; });
defaults!(ReplicationControllerSpec, |r| { set replicas = 1; });

defaults!(StatefulSetSpec, |s| {
    set pod_management_policy = "OrderedReady".to_owned();
    set update_strategy = StatefulSetUpdateStrategy::default();
    set persistent_volume_claim_retention_policy = StatefulSetPersistentVolumeClaimRetentionPolicy::default();
    set replicas = 1;
    set revision_history_limit = 10;
    each update_strategy;
    each persistent_volume_claim_retention_policy;
    each volume_claim_templates;
});
defaults!(StatefulSetUpdateStrategy, |s| {
    set type_ = ROLLING_UPDATE.to_owned();
    set rolling_update = RollingUpdateStatefulSetStrategy::default(), if s.type_.as_deref() == Some(ROLLING_UPDATE);
    each rolling_update;
});
defaults!(RollingUpdateStatefulSetStrategy, |r| { set partition = 0; });
defaults!(StatefulSetPersistentVolumeClaimRetentionPolicy, |p| {
    set when_deleted = "Retain".to_owned();
    set when_scaled = "Retain".to_owned();
});
defaults!(PersistentVolumeClaim, |c| {
    set status = PersistentVolumeClaimStatus::default();
    each spec;
    each status;
});
defaults!(PersistentVolumeClaimSpec, |c| { set volume_mode = "Filesystem".to_owned(); each resources; });
defaults!(PersistentVolumeClaimStatus, |c| { set phase = "Pending".to_owned(); });

defaults!(DaemonSetSpec, |d| {
    set update_strategy = DaemonSetUpdateStrategy::default();
    set revision_history_limit = 10;
    each update_strategy;
});
defaults!(DaemonSetUpdateStrategy, |s| {
    set type_ = ROLLING_UPDATE.to_owned();
    set rolling_update = RollingUpdateDaemonSet::default(), if s.type_.as_deref() == Some(ROLLING_UPDATE);
    each rolling_update;
});
defaults!(RollingUpdateDaemonSet, |r| {
    set max_unavailable = IntOrString::Int(1);
    set max_surge = IntOrString::Int(0);
});

defaults!(JobSpec, |j| {
    set completions = 1, if j.parallelism.is_none();
    set parallelism = 1;
    set backoff_limit = if j.backoff_limit_per_index.is_some() { i32::MAX } else { 6 };
    set suspend = false;
    set completion_mode = "NonIndexed".to_owned();
    set manual_selector = false;
    set pod_replacement_policy =
        (if j.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" }).to_owned();
    each pod_failure_policy;
});
defaults!(PodFailurePolicy, |p| { each rules; });
defaults!(PodFailurePolicyRule, |r| { each on_pod_conditions; });
defaults!(PodFailurePolicyOnPodConditionsPattern, |p| { set status = "True".to_owned(); });

defaults!(CronJobSpec, |c| {
    set concurrency_policy = "Allow".to_owned();
    set suspend = false;
    set successful_jobs_history_limit = 3;
    set failed_jobs_history_limit = 1;
    each job_template;
});
// The Job's own defaults are set when the Job is created; those of its pod template are set in the CronJob.
defaults!(JobTemplateSpec, |t| { own fill_job_pods, job_pods_lack; });

fn fill_job_pods(t: &mut JobTemplateSpec) {
    if let Some(job) = &mut t.spec {
        job.template.fill();
    }
}

fn job_pods_lack(t: &JobTemplateSpec) -> bool {
    t.spec.as_ref().is_some_and(|job| job.template.lacks())
}
