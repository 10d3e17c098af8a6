//! Startup, readiness and liveness probes: when they run, and what their results mean (kubelet `prober/worker.go`).

use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core_v1;

use super::pod::{Ctx, Life, PodState, Stop, What, container_spec};
use super::runtime::{PROBE_ERRORED, ProbeAction, RuntimeCommand, RuntimeError};
use crate::client::EventType;
use crate::machine::Mono;
use crate::object::IntOrString;

/// The type of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeKind {
    /// Blocks the other probes until it has succeeded; if it fails, the container is restarted.
    Startup,
    /// Determines whether the container receives traffic.
    Readiness,
    /// If it fails, the container is restarted.
    Liveness,
}

impl ProbeKind {
    const ALL: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness];

    fn title(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Readiness => "Readiness",
            ProbeKind::Liveness => "Liveness",
        }
    }

    fn spec(self, c: &core_v1::Container) -> Option<&core_v1::Probe> {
        match self {
            ProbeKind::Startup => c.startup_probe.as_ref(),
            ProbeKind::Readiness => c.readiness_probe.as_ref(),
            ProbeKind::Liveness => c.liveness_probe.as_ref(),
        }
    }
}

/// The state of one probe.
#[derive(Clone, Copy, Debug)]
struct Prober {
    next: Mono,
    in_flight: bool,
    last: Option<bool>,
    run: i32,
    /// The probe does not run again in this run of the container.
    held: bool,
}

/// The probes of one running container.
#[derive(Clone, Debug)]
pub(super) struct Probes {
    probers: [Option<Prober>; 3],
}

fn seconds(value: Option<i32>, default: i32) -> Duration {
    Duration::from_secs(u64::try_from(value.filter(|v| *v > 0).unwrap_or(default)).unwrap_or(0))
}

impl Probes {
    /// The probes in the spec of a container that has just started; `None` if there are none. If the pod is
    /// terminating, only the readiness probe is kept.
    pub(super) fn new(spec: &core_v1::Container, now: Mono, stopping: bool) -> Option<Probes> {
        let probers = ProbeKind::ALL.map(|kind| {
            let probe = kind.spec(spec)?;
            let next = now + seconds(probe.initial_delay_seconds, 0);
            Some(Prober { next, in_flight: false, last: None, run: 0, held: stopping && kind != ProbeKind::Readiness })
        });
        probers.iter().any(Option::is_some).then_some(Probes { probers })
    }

    /// Whether there is a probe of this type.
    pub(super) fn has(&self, kind: ProbeKind) -> bool {
        self.probers[kind as usize].is_some()
    }

    /// Handles the start of the pod's termination: only the readiness probe continues.
    pub(super) fn stop(&mut self) {
        for kind in [ProbeKind::Startup, ProbeKind::Liveness] {
            if let Some(p) = &mut self.probers[kind as usize] {
                p.held = true;
            }
        }
    }

    /// Skips the startup probe of a container that had already started before the agent restarted.
    pub(super) fn skip_startup(&mut self) {
        self.probers[ProbeKind::Startup as usize] = None;
    }

    /// Whether a probe may run now, apart from being due.
    fn is_open(&self, kind: ProbeKind, started: bool) -> bool {
        self.probers[kind as usize].is_some_and(|p| !p.held && !p.in_flight && (kind == ProbeKind::Startup) != started)
    }

    /// When the next probe is due.
    pub(super) fn deadline(&self, started: bool) -> Option<Mono> {
        let open = ProbeKind::ALL.into_iter().filter(|k| self.is_open(*k, started));
        open.filter_map(|k| self.probers[k as usize].map(|p| p.next)).min()
    }

    /// Handles a probe that could not be carried out: its result is thrown away.
    fn errored(&mut self, kind: ProbeKind) {
        if let Some(p) = &mut self.probers[kind as usize] {
            p.in_flight = false;
        }
    }

    /// Applies a result; returns the probe's verdict if a threshold was reached just now.
    fn result(&mut self, kind: ProbeKind, ok: bool, spec: &core_v1::Probe) -> Option<bool> {
        let p = self.probers[kind as usize].as_mut()?;
        p.in_flight = false;
        if p.last == Some(ok) {
            p.run = p.run.saturating_add(1);
        } else {
            (p.last, p.run) = (Some(ok), 1);
        }
        let threshold = if ok { spec.success_threshold.unwrap_or(1) } else { spec.failure_threshold.unwrap_or(3) };
        if p.run < threshold.max(1) {
            return None;
        }
        if kind != ProbeKind::Readiness && !ok {
            // The container will be restarted; its next run has new probes.
            p.held = true;
        }
        Some(ok)
    }
}

/// Replaces the name of a port by its number.
fn resolve_port(port: &mut IntOrString, c: &core_v1::Container) {
    if let IntOrString::String(name) = port {
        let named = c.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name.as_str()));
        if let Some(number) = named.map(|p| p.container_port).or_else(|| name.parse().ok()) {
            *port = IntOrString::Int(number);
        }
    }
}

impl PodState {
    /// A probe as a runtime of real containers wants it: with numbers for ports, and the pod's address.
    fn probe_with_address(
        &self,
        i: usize,
        mut probe: core_v1::Probe,
        ctx: &Ctx<'_>,
    ) -> (core_v1::Probe, Option<Rc<str>>) {
        let Some(c) = container_spec(&self.pod, &self.containers[i]).filter(|_| ctx.shared.config.resolve) else {
            return (probe, None);
        };
        let http = probe.http_get.as_mut().map(|http| &mut http.port);
        let tcp = probe.tcp_socket.as_mut().map(|tcp| &mut tcp.port);
        http.into_iter().chain(tcp).for_each(|port| resolve_port(port, c));
        (probe, self.sandbox.ip.clone())
    }

    /// A hook as a runtime of real containers wants it.
    pub(super) fn hook_with_address(
        &self,
        i: usize,
        mut hook: core_v1::LifecycleHandler,
        ctx: &Ctx<'_>,
    ) -> (core_v1::LifecycleHandler, Option<Rc<str>>) {
        let Some(c) = container_spec(&self.pod, &self.containers[i]).filter(|_| ctx.shared.config.resolve) else {
            return (hook, None);
        };
        hook.http_get.iter_mut().for_each(|http| resolve_port(&mut http.port, c));
        (hook, self.sandbox.ip.clone())
    }

    /// Runs every probe that is due.
    pub(super) fn run_probes(&mut self, ctx: &mut Ctx<'_>) {
        for i in 0..self.containers.len() {
            let c = &self.containers[i];
            let Some(probes) = &c.probes else { continue };
            if probes.deadline(c.started).is_none_or(|at| at > ctx.now.mono) {
                continue;
            }
            for kind in ProbeKind::ALL {
                self.run_probe(i, kind, ctx);
            }
        }
    }

    fn run_probe(&mut self, i: usize, kind: ProbeKind, ctx: &mut Ctx<'_>) {
        let c = &self.containers[i];
        let Life::Running(id, _) = &c.life else { return };
        if !c.probes.as_ref().is_some_and(|p| p.is_open(kind, c.started)) {
            return;
        }
        let container = id.clone();
        let Some(spec) = container_spec(&self.pod, &self.containers[i]).and_then(|s| kind.spec(s)) else {
            // A probe's spec is immutable; if it is gone nevertheless, there is nothing to run.
            self.containers[i].probes = None;
            return;
        };
        let period = seconds(spec.period_seconds, 10);
        let timeout = seconds(spec.timeout_seconds, 1);
        // Created anew each time: keeping an action for each container of each pod would use too much memory.
        let (probe, address) = self.probe_with_address(i, spec.clone(), ctx);
        let action = ProbeAction::Probe(Rc::new(probe));
        let c = &mut self.containers[i];
        let Some(probes) = &mut c.probes else { return };
        let Some(prober) = probes.probers[kind as usize].as_mut().filter(|p| p.next <= ctx.now.mono) else { return };
        prober.in_flight = true;
        prober.next = ctx.now.mono + period;
        let timeout_seconds = timeout.as_secs() as u32;
        let touched = self.touched;
        self.command(ctx, What::Probe(i as u16, kind), Duration::ZERO, |op| RuntimeCommand::Probe {
            op,
            container,
            action,
            timeout_seconds,
            address,
        });
        self.touched = touched;
        // A probe without a reply counts as failed after its own time-out, not the runtime's.
        if let Some(op) = self.ops.last_mut() {
            op.deadline = ctx.now.mono + timeout + Duration::from_secs(1);
        }
    }

    /// Handles the end of a probe.
    pub(super) fn probed(&mut self, i: u16, kind: ProbeKind, result: Result<(), RuntimeError>, ctx: &mut Ctx<'_>) {
        let i = usize::from(i);
        let Some(mut probes) = self.containers[i].probes.take() else { return };
        let errored = result.as_ref().err().filter(|e| &*e.reason == PROBE_ERRORED);
        let spec = container_spec(&self.pod, &self.containers[i]).and_then(|s| kind.spec(s));
        let verdict = match spec {
            Some(_) if errored.is_some() => {
                probes.errored(kind);
                Some(None)
            }
            Some(spec) => Some(probes.result(kind, result.is_ok(), spec)),
            None => None,
        };
        self.containers[i].probes = Some(probes);
        let Some(verdict) = verdict else { return };
        if let Some(e) = errored {
            self.event(ctx, EventType::Warning, "Unhealthy", || {
                format!("{} probe errored and resulted in unknown state: {}", kind.title(), e.message)
            });
            return;
        }
        if let Err(e) = &result {
            self.event(ctx, EventType::Warning, "Unhealthy", || {
                format!("{} probe failed: {}", kind.title(), e.message)
            });
        }
        let Some(ok) = verdict else { return };
        match (kind, ok) {
            (ProbeKind::Startup, true) => self.startup_succeeded(i),
            (ProbeKind::Readiness, _) => {
                let c = &mut self.containers[i];
                self.write.dirty |= c.ready != ok;
                c.ready = ok;
            }
            (ProbeKind::Liveness, true) => {}
            (ProbeKind::Startup | ProbeKind::Liveness, false) => self.probe_kills(i, kind, ctx),
        }
    }

    fn startup_succeeded(&mut self, i: usize) {
        let c = &mut self.containers[i];
        c.started = true;
        let Some(probes) = &c.probes else { return };
        c.ready = !probes.has(ProbeKind::Readiness);
        self.write.dirty = true;
    }

    fn probe_kills(&mut self, i: usize, kind: ProbeKind, ctx: &mut Ctx<'_>) {
        if self.ending.stop.is_some() || self.containers[i].stop != Stop::No {
            return;
        }
        let spec = container_spec(&self.pod, &self.containers[i]).and_then(|s| kind.spec(s));
        let own = spec.and_then(|p| p.termination_grace_period_seconds);
        let grace = own.or(self.pod.spec.termination_grace_period_seconds).unwrap_or(30);
        let (name, probe) = (Rc::clone(&self.containers[i].name), kind.title().to_lowercase());
        let until = ctx.now.mono + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        self.begin_stop(i, until, || format!("Container {name} failed {probe} probe, will be restarted"), ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::{ProbeKind, Probes};
    use crate::machine::Mono;
    use k8s_openapi::api::core::v1::{Container, Probe};

    fn at(s: u64) -> Mono {
        Mono(s * 1_000_000_000)
    }

    #[test]
    fn startup_holds_the_others_back() {
        let probe = |delay| Some(Probe { initial_delay_seconds: Some(delay), ..Probe::default() });
        let c = Container { startup_probe: probe(3), liveness_probe: probe(1), ..Container::default() };
        let probes = Probes::new(&c, at(10), false).unwrap();
        assert_eq!(probes.deadline(false), Some(at(13)));
        assert_eq!(probes.deadline(true), Some(at(11)));
        assert!(Probes::new(&Container::default(), at(0), false).is_none());
        assert_eq!(Probes::new(&c, at(10), true).unwrap().deadline(false), None);
    }

    #[test]
    fn thresholds_count_runs_of_equal_results() {
        let spec = Probe { failure_threshold: Some(2), success_threshold: Some(2), ..Probe::default() };
        let c = Container { readiness_probe: Some(spec.clone()), ..Container::default() };
        let mut probes = Probes::new(&c, at(0), false).unwrap();
        for (ok, verdict) in
            [(true, None), (true, Some(true)), (false, None), (true, None), (false, None), (false, Some(false))]
        {
            assert_eq!(probes.result(ProbeKind::Readiness, ok, &spec), verdict);
        }
    }
}
