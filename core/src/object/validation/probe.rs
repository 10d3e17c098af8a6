//! Validation of probes and lifecycle hooks. Source: `pkg/apis/core/validation` (`validateProbe`, `validateHandler`).

use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe};

use super::path::Path;
use super::{name_or_number, names, not_negative, one_of, push_all};
use crate::object::{FieldError, IntOrString};

/// Validates the probes and lifecycle hooks of a container that may have them. `grace` is the pod's grace period in
/// seconds.
pub(super) fn all(c: &Container, grace: Option<i64>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(l) = &c.lifecycle {
        lifecycle(l, grace, &at.field("lifecycle"), errors);
    }
    for (probe, field) in [
        (&c.liveness_probe, "livenessProbe"),
        (&c.readiness_probe, "readinessProbe"),
        (&c.startup_probe, "startupProbe"),
    ] {
        let Some(p) = probe else { continue };
        let at = at.field(field);
        self::probe(p, &at, errors);
        if field == "readinessProbe" {
            if let Some(n) = p.termination_grace_period_seconds {
                let detail = "must not be set for readinessProbes";
                errors.push(FieldError::invalid(at.field("terminationGracePeriodSeconds"), n, detail));
            }
        } else if let Some(n) = p.success_threshold.filter(|n| *n != 1) {
            errors.push(FieldError::invalid(at.field("successThreshold"), n, "must be 1"));
        }
    }
}

fn probe(p: &Probe, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut handlers = Handlers { given: false, at, errors };
    handlers.one("exec", p.exec.as_ref(), exec);
    handlers.one("httpGet", p.http_get.as_ref(), http);
    handlers.one("tcpSocket", p.tcp_socket.as_ref(), |t, at, e| name_or_number(&t.port, &at.field("port"), e));
    handlers.one("grpc", p.grpc.as_ref(), |g, at, e| {
        name_or_number(&IntOrString::Int(g.port), &at.field("port"), e);
    });
    handlers.end();
    for (field, n) in [
        ("initialDelaySeconds", p.initial_delay_seconds),
        ("timeoutSeconds", p.timeout_seconds),
        ("periodSeconds", p.period_seconds),
        ("successThreshold", p.success_threshold),
        ("failureThreshold", p.failure_threshold),
    ] {
        not_negative(n.map(i64::from), &at.field(field), errors);
    }
    if let Some(n) = p.termination_grace_period_seconds.filter(|n| *n <= 0) {
        errors.push(FieldError::invalid(at.field("terminationGracePeriodSeconds"), n, "must be greater than 0"));
    }
}

fn lifecycle(l: &Lifecycle, grace: Option<i64>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (handler, field) in [(&l.post_start, "postStart"), (&l.pre_stop, "preStop")] {
        if let Some(h) = handler {
            hook(h, grace, &at.field(field), errors);
        }
    }
}

fn hook(h: &LifecycleHandler, grace: Option<i64>, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut handlers = Handlers { given: false, at, errors };
    handlers.one("exec", h.exec.as_ref(), exec);
    handlers.one("httpGet", h.http_get.as_ref(), http);
    handlers.one("tcpSocket", h.tcp_socket.as_ref(), |t, at, e| name_or_number(&t.port, &at.field("port"), e));
    handlers.one("sleep", h.sleep.as_ref(), |s, at, e| {
        if let Some(grace) = grace.filter(|g| s.seconds < 0 || s.seconds > *g) {
            let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
            e.push(FieldError::invalid(at, s.seconds, detail));
        }
    });
    handlers.end();
}

/// The handlers of one probe or hook: exactly one must be set, and only the first one is validated.
struct Handlers<'a, 'e> {
    given: bool,
    at: &'a Path<'a>,
    errors: &'e mut Vec<FieldError>,
}

impl Handlers<'_, '_> {
    fn one<T>(&mut self, name: &str, handler: Option<&T>, check: impl FnOnce(&T, &Path<'_>, &mut Vec<FieldError>)) {
        let Some(handler) = handler else { return };
        let at = self.at.field(name);
        if self.given {
            self.errors.push(FieldError::forbidden(at, "may not specify more than 1 handler type"));
        } else {
            self.given = true;
            check(handler, &at, self.errors);
        }
    }

    fn end(self) {
        if !self.given {
            self.errors.push(FieldError::required(self.at, "must specify a handler type"));
        }
    }
}

fn exec(e: &ExecAction, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if e.command.iter().flatten().next().is_none() {
        errors.push(FieldError::required(at.field("command"), ""));
    }
}

fn http(h: &HTTPGetAction, at: &Path<'_>, errors: &mut Vec<FieldError>) {
    if h.path.as_deref().unwrap_or("").is_empty() {
        errors.push(FieldError::required(at.field("path"), ""));
    }
    name_or_number(&h.port, &at.field("port"), errors);
    one_of(h.scheme.as_deref().unwrap_or(""), &["HTTP", "HTTPS"], &at.field("scheme"), errors);
    for header in h.http_headers.iter().flatten() {
        push_all(errors, &at.field("httpHeaders"), &header.name, names::header_name(&header.name));
    }
}
