//! CronJob. Source: `pkg/registry/batch/cronjob/strategy.go`.

use std::rc::Rc;

use k8s_openapi::api::batch::v1 as batch_v1;

use super::Strategy;
use crate::object::validation::job;
use crate::object::{CronJob, FieldError, Kind, Obj, Object, ObjectMeta, Resource, defaults};

spec_and_status!(CronJob batch_v1::CronJob, CRON_JOB, batch_v1::CronJobSpec, batch_v1::CronJobStatus);

impl Strategy for batch_v1::CronJob {
    /// A Job's name is longer by the scheduled time.
    const LONGEST_NAME: Option<usize> = Some(52);

    fn apply_defaults(object: &mut CronJob) {
        defaults::fill_shared(&mut object.spec);
    }

    fn validate(object: &CronJob, errors: &mut Vec<FieldError>) {
        job::cron_job(&object.spec, errors);
    }
}
