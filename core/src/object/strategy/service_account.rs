//! ServiceAccount. Source: `pkg/registry/core/serviceaccount/strategy.go`.

use std::rc::Rc;

use k8s_openapi::api::core::v1 as core_v1;

use super::Strategy;
use crate::object::{Inline, Kind, Obj, Object, ObjectMeta, Resource};

flat!(ServiceAccount core_v1::ServiceAccount, SERVICE_ACCOUNT);

impl Strategy for core_v1::ServiceAccount {}
