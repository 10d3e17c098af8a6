//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: somebody outside is asked about a write.
//!
//! A write that needs an answer waits with the server, and its driver is told whom to ask ([`Consultation`]). With the
//! answers it is decided anew: what the webhooks have made of the object so far is kept with it ([`Progress`]), as long
//! as it replaces the same version of the stored object.
//!
//! Webhooks that change objects are asked one after another, in the order of their configurations' names; one that
//! wants so is asked a second time if another has changed the object after it. Those that only refuse are asked all at
//! once.
//!
//! Source: kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook`.

mod configuration;
pub(super) mod review;
mod subresource;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::CREATE;
use super::matching::Asked;
use super::mutating_policy::Round;
use super::policy::conditions_hold;
use crate::api::{Patch, Status};
use crate::apiserver::conversion::requested;
use crate::apiserver::write::{Deciding, Decision, Write};
use crate::limits;
use crate::object::{Kind, Object, Revision, Time, cel};
use crate::patch;

use configuration::Hook;
pub(in crate::apiserver) use configuration::{Hooks, certificates};
use review::Verdict;

/// Kinds that webhooks are never asked about, so that a broken configuration can be mended.
const EXEMPT: [Kind; 6] = [
    Kind::MUTATING_WEBHOOK_CONFIGURATION,
    Kind::VALIDATING_WEBHOOK_CONFIGURATION,
    Kind::VALIDATING_ADMISSION_POLICY,
    Kind::VALIDATING_ADMISSION_POLICY_BINDING,
    Kind::MUTATING_ADMISSION_POLICY,
    Kind::MUTATING_ADMISSION_POLICY_BINDING,
];
/// Name of the plug-in whose webhooks change objects.
pub(super) const MUTATING: &str = "MutatingAdmissionWebhook";
/// Name of the plug-in whose webhooks refuse objects.
pub(super) const VALIDATING: &str = "ValidatingAdmissionWebhook";

/// What a write does to an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::apiserver) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }

    /// The kind of its options, if it has any.
    fn options(self) -> Option<&'static str> {
        match self {
            Operation::Create => Some("CreateOptions"),
            Operation::Update => Some("UpdateOptions"),
            Operation::Delete => Some("DeleteOptions"),
            Operation::Connect => None,
        }
    }
}

/// Where a webhook is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Callee {
    /// At a URL.
    Url(String),
    /// Behind a Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The path of the URL; may be empty.
        path: String,
        /// The Service's port.
        port: u16,
    },
}

/// A question to somebody outside, which the driver asks by HTTPS.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Consultation {
    /// Whom.
    pub callee: Callee,
    /// Certificates by which to trust them, PEM. Without any nobody is trusted, where upstream trusts the system's.
    pub ca: Option<String>,
    /// How long to wait for the answer.
    pub timeout: Duration,
    /// What to post, as JSON.
    pub body: Value,
}

/// What came of a [`Consultation`]: the answer's JSON, or why there is none.
pub type Answered = Result<Value, String>;

/// A webhook that has been asked.
#[derive(Clone, Debug)]
struct Pending {
    hook: Rc<Hook>,
    /// The UID of the question.
    uid: String,
    /// The version in which it was asked.
    version: String,
}

/// How far the webhooks have been asked about a write.
#[derive(Debug, Default)]
pub(in crate::apiserver) struct Progress {
    /// The revision of the object that is replaced (zero: none); `None` if nothing has been asked yet.
    base: Option<Revision>,
    /// The object as the webhooks have made it.
    object: Option<Object>,
    /// UID and time of creation of a new object.
    stamp: (Option<String>, Option<Time>),
    /// Those that may change it and that have not been asked yet.
    queue: VecDeque<Rc<Hook>>,
    /// Those that have been asked and want to be asked again, if another has changed the object since.
    again: Vec<(Rc<Hook>, bool)>,
    /// What the policies did in the first round.
    policies: Round,
    is_second_round: bool,
    /// A webhook has changed the object.
    changed: bool,
    mutated: bool,
    validated: bool,
    pending: Vec<Pending>,
    /// The answers to what is pending.
    pub(in crate::apiserver) answers: Vec<Answered>,
    /// Warnings for the client.
    pub(in crate::apiserver) warnings: Vec<String>,
}

impl Progress {
    /// Begins anew if the write replaces another version than before.
    fn begin(&mut self, base: Revision, hooks: &Hooks) {
        if self.base == Some(base) {
            return;
        }
        let queue = hooks.mutating.iter().cloned().collect();
        *self = Progress { base: Some(base), queue, ..Progress::default() };
    }

    /// Notes the answer of a webhook that may change the object.
    fn heard(&mut self, hook: Rc<Hook>, has_changed: bool) {
        if has_changed {
            self.changed = true;
            self.again.iter_mut().for_each(|(_, changed)| *changed = true);
        }
        if hook.asked_again && !self.is_second_round {
            self.again.push((hook, false));
        }
    }

    /// Begins the second round, in which those are asked again that another has changed the object after, or all of
    /// them.
    fn ask_again(&mut self, all: bool) {
        let again = std::mem::take(&mut self.again).into_iter();
        self.queue = again.filter(|(_, changed)| *changed || all).map(|(hook, _)| hook).collect();
    }
}

/// The failure of a webhook that had to answer.
fn failed(hook: &Hook, why: &str) -> Status {
    Status::internal(format!("failed calling webhook {:?}: {why}", hook.name))
}

/// A webhook's verdict; `None` if it gave none and need not.
fn verdict(hook: &Hook, uid: &str, answer: Answered) -> Result<Option<Verdict>, Status> {
    let answer = answer.map_err(|why| format!("failed to call webhook: {why}"));
    match answer.and_then(|value| review::answer(hook, uid, &value)) {
        Ok(verdict) => Ok(Some(verdict)),
        Err(why) if hook.must_answer => Err(failed(hook, &why)),
        Err(_) => Ok(None),
    }
}

impl Deciding<'_> {
    /// Whether webhooks or policies may have to be asked about objects of a kind.
    pub(in crate::apiserver) fn consults_about(&self, kind: Kind) -> bool {
        let somebody = !self.hooks.is_empty() || !self.policies.is_empty();
        somebody && !EXEMPT.contains(&kind)
    }

    /// Has policies, and then the webhooks, change an object that is new or replaces `old`. `accept` makes an object of
    /// what they return.
    pub(in crate::apiserver) fn consult_mutating(
        &mut self,
        write: &Write,
        (operation, subresource): (Operation, &str),
        object: &mut Object,
        old: Option<&Object>,
        accept: &dyn Fn(&Deciding<'_>, Value) -> Result<Object, Status>,
    ) -> Result<(), Decision> {
        if !self.consults_about(object.kind()) {
            return Ok(());
        }
        if self.hooks.is_empty() && self.policies.mutating.is_empty() {
            return Ok(());
        }
        let about = (operation, subresource);
        let mut held = write.hooks.borrow_mut();
        let progress = held.get_or_insert_default();
        progress.begin(old.map_or(Revision(0), Object::rv), self.hooks);
        match &progress.object {
            Some(made) => *object = made.clone(),
            None => {
                progress.stamp = (object.meta().uid.clone(), object.meta().creation_timestamp.clone());
                progress.policies = self.apply_mutating_policies(write, about, object, old, accept, None)?;
                progress.object = Some(object.clone());
            }
        }
        if progress.mutated {
            return Ok(());
        }
        if let Some(pending) = progress.pending.last().cloned() {
            let answer = progress.answers.last().cloned().expect("what is pending has been answered");
            let verdict = verdict(&pending.hook, &pending.uid, answer).map_err(Decision::refuse)?;
            let changed = self.take_patch(write, &pending, verdict.as_ref(), object, accept)?;
            (progress.pending, progress.answers) = (Vec::new(), Vec::new());
            progress.warnings.extend(verdict.into_iter().flat_map(|verdict| verdict.warnings));
            progress.heard(pending.hook, changed);
            progress.object = Some(object.clone());
        }
        loop {
            while self.runs(MUTATING)
                && let Some(hook) = progress.queue.front().cloned()
            {
                let asked = self.question(write, &hook, about, (Some(object), old))?;
                progress.queue.pop_front();
                if let Some((call, pending)) = asked {
                    progress.pending = vec![pending];
                    progress.object = Some(object.clone());
                    return Err(Decision::Consult(vec![call]));
                }
            }
            if progress.is_second_round || !(progress.changed || progress.policies.has_applied) {
                break;
            }
            progress.is_second_round = true;
            let before = object.clone();
            self.change_again(write, about, object, old, accept, &progress.policies)?;
            progress.ask_again(*object != before);
        }
        if about == CREATE {
            (object.meta_mut().uid, object.meta_mut().creation_timestamp) = progress.stamp.clone();
            self.set_own_fields(write, object);
        }
        progress.mutated = true;
        progress.object = Some(object.clone());
        Ok(())
    }

    /// What comes before the webhooks, a second time: the plug-ins of this build, which see what policies and webhooks
    /// have added, and the policies that ask for it.
    fn change_again(
        &mut self,
        write: &Write,
        about: (Operation, &str),
        object: &mut Object,
        old: Option<&Object>,
        accept: &dyn Fn(&Deciding<'_>, Value) -> Result<Object, Status>,
        policies: &Round,
    ) -> Result<(), Decision> {
        if about == CREATE && object.kind().built_in().is_some() {
            self.mutate(write, object)?;
        }
        self.apply_mutating_policies(write, about, object, old, accept, Some(&policies.again))?;
        Ok(())
    }

    /// Applies a webhook's patch, in the version in which it was asked; returns whether it changed the object.
    fn take_patch(
        &mut self,
        write: &Write,
        Pending { hook, version, .. }: &Pending,
        verdict: Option<&Verdict>,
        object: &mut Object,
        accept: &dyn Fn(&Deciding<'_>, Value) -> Result<Object, Status>,
    ) -> Result<bool, Decision> {
        let Some(verdict) = verdict else { return Ok(false) };
        verdict.allowed.clone().map_err(Decision::refuse)?;
        let Some(operations) = verdict.patch.clone() else { return Ok(false) };
        let wrong = |status: Status| Decision::refuse(failed(hook, &status.message));
        let own = object.info().version.clone();
        let asked = self.shown_to(write, object, version)?;
        let value = patch::apply(&asked, &Patch::Json(operations)).map_err(wrong)?;
        let made = accept(self, value).map_err(wrong)?;
        let mut made = self.shown_to(write, &made, &own)?;
        made.set_rv(object.rv());
        if (made.kind(), made.name(), made.namespace()) != (object.kind(), object.name(), object.namespace()) {
            let why = failed(hook, "the name, namespace and kind of an object cannot be changed by a patch");
            return Err(Decision::refuse(why));
        }
        let changed = made != *object;
        *object = made;
        Ok(changed)
    }

    /// Asks the policies, and then the webhooks that may refuse an object; without `new`, a delete.
    pub(in crate::apiserver) fn consult_validating(
        &mut self,
        write: &Write,
        (operation, subresource): (Operation, &str),
        new: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<(), Decision> {
        let about = new.or(old).expect("a write is about an object");
        if !self.consults_about(about.kind()) {
            return Ok(());
        }
        let mut held = write.hooks.borrow_mut();
        let progress = held.get_or_insert_default();
        progress.begin(old.map_or(Revision(0), Object::rv), self.hooks);
        if progress.validated {
            return Ok(());
        }
        if progress.pending.is_empty() {
            self.apply_policies(write, (operation, subresource), new, old, &mut progress.warnings)?;
            // Nothing is left to change of what is deleted: all are asked alike.
            let changing = self.hooks.mutating.iter().filter(|_| new.is_none() && self.runs(MUTATING));
            let refusing = self.hooks.validating.iter().filter(|_| self.runs(VALIDATING));
            let hooks: Vec<Rc<Hook>> = changing.chain(refusing).cloned().collect();
            let (mut calls, mut asked) = (Vec::new(), Vec::new());
            for hook in &hooks {
                if let Some((call, pending)) = self.question(write, hook, (operation, subresource), (new, old))? {
                    asked.push(pending);
                    calls.push(call);
                }
            }
            progress.pending = asked;
            if !calls.is_empty() {
                return Err(Decision::Consult(calls));
            }
        }
        let (pending, answers) = (std::mem::take(&mut progress.pending), std::mem::take(&mut progress.answers));
        assert_eq!(pending.len(), answers.len(), "each question has an answer");
        progress.validated = true;
        for (Pending { hook, uid, .. }, answer) in pending.into_iter().zip(answers) {
            let Some(verdict) = verdict(&hook, &uid, answer).map_err(Decision::refuse)? else { continue };
            progress.warnings.extend(verdict.warnings);
            verdict.allowed.map_err(Decision::refuse)?;
        }
        Ok(())
    }

    /// A custom object in the version that a webhook is asked about; any other object as it is.
    fn shown_to(&mut self, write: &Write, object: &Object, version: &str) -> Result<Object, Decision> {
        match self.customs.of(object.kind()).cloned() {
            // A Scale is the same for every version.
            Some(custom) if custom.is_of(object) => self.in_version(write, &custom, object, version),
            Some(_) | None => Ok(object.clone()),
        }
    }

    /// The question to a webhook, if it is to be asked about a request.
    fn question(
        &mut self,
        write: &Write,
        hook: &Rc<Hook>,
        (operation, subresource): (Operation, &str),
        (new, old): (Option<&Object>, Option<&Object>),
    ) -> Result<Option<(Consultation, Pending)>, Decision> {
        let about = new.or(old).expect("a write is about an object");
        let info = self.info(about.kind());
        let version = match subresource {
            "scale" => requested(&write.request).unwrap_or(&info.version).to_owned(),
            _ => about.info().version.to_string(),
        };
        let info = info.in_version(&version);
        let asked = Asked { operation, of: &info, subresource, name: about.name() };
        let Some(version) = hook.matching.version_for(&asked) else { return Ok(None) };
        if !self.selects(write, &hook.matching, new, old) {
            return Ok(None);
        }
        let in_version = |deciding: &mut Self, object: Option<&Object>| {
            object.map(|object| deciding.shown_to(write, object, &version)).transpose()
        };
        let (new, old) = (in_version(self, new)?, in_version(self, old)?);
        let request = review::request(write, &asked, &version, (new.as_ref(), old.as_ref()));
        match meets_conditions(hook, &request) {
            Ok(true) => {}
            Err(why) if hook.must_answer => {
                return Err(Decision::refuse(Status::forbidden(&info, about.name(), &why)));
            }
            Ok(false) | Err(_) => return Ok(None),
        }
        if write.request.call.is_dry_run() && !hook.takes_dry_runs {
            let why = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(Decision::refuse(Status::bad_request(why)));
        }
        let uid = self.rng.uuid();
        let body = review::question(hook, request, &uid);
        let (callee, ca) = (hook.callee.clone(), hook.ca.clone());
        let call = Consultation { callee, ca, timeout: hook.timeout, body };
        Ok(Some((call, Pending { hook: Rc::clone(hook), uid, version })))
    }
}

/// Whether the `matchConditions` of a webhook hold of a request.
fn meets_conditions(hook: &Hook, request: &Value) -> Result<bool, String> {
    if hook.conditions.is_empty() {
        return Ok(true);
    }
    let dynamic = |json| skeg_cel::Value::of(json, &skeg_cel::Type::Dyn);
    let variables = [
        ("object", dynamic(&request["object"])),
        ("oldObject", dynamic(&request["oldObject"])),
        ("request", cel::request_value(request)),
    ];
    let mut budget = limits::CEL_CONDITIONS;
    conditions_hold(&hook.conditions, &cel::environment(), &variables.into(), &mut budget)
}
