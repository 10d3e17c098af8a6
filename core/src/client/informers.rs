//! The informers that the parts of one process share: each kind is listed, watched and held once, however many parts
//! read it (client-go's `SharedInformerFactory`).

use std::rc::Rc;

use super::{Change, Index, Informer, InformerConfig, View, Views};
use crate::api::{FromServer, ToServer};
use crate::controllers::Watched;
use crate::machine::{Deadline, Now};
use crate::object::{FieldSelector, Kind, Revision, Selector};
use crate::random::{Rng, mix};

/// Shared informers with their views. Each informer is a part of the connection, counted from a first one.
#[derive(Debug)]
pub struct Informers {
    informers: Vec<Informer>,
    views: Views,
    user: Rc<str>,
    rng: Rng,
    /// When the first of them wants to act; kept, since most events move no deadline.
    next: Option<Deadline>,
}

impl Informers {
    /// An informer for each kind that is watched, with every index that is asked for.
    pub fn new(watched: impl Iterator<Item = Watched>, user: &Rc<str>, first_part: u16, mut rng: Rng) -> Informers {
        let mut kinds: Vec<(Kind, Vec<Index>)> = Vec::new();
        for w in watched {
            let at = kinds.iter().position(|(kind, _)| *kind == w.kind).unwrap_or_else(|| {
                kinds.push((w.kind, Vec::new()));
                kinds.len() - 1
            });
            let known = &mut kinds[at].1;
            known.extend(w.indexes.iter().filter(|i| !known.contains(i)).copied().collect::<Vec<_>>());
        }
        let informers =
            kinds.iter().zip(first_part..).map(|((kind, _), part)| make(*kind, part, user, &mut rng)).collect();
        let views = Views::new(kinds.iter().map(|(kind, indexes)| View::new(*kind, indexes)).collect());
        let mut all = Informers { informers, views, user: Rc::clone(user), rng, next: None };
        all.next = all.deadline();
        all
    }

    /// Adds a kind that is not watched yet, as this part of the connection, and starts.
    pub fn add(&mut self, now: Now, watched: Watched, part: u16, out: &mut Vec<ToServer>) {
        let mut informer = make(watched.kind, part, &self.user, &mut self.rng);
        self.views.add(View::new(watched.kind, watched.indexes));
        informer.handle_timeout(now, self.views.view_mut(watched.kind), out);
        self.informers.push(informer);
        self.next = self.deadline();
    }

    /// Stops an informer, counted from the first, whose kind is served no more: what it knew is gone.
    pub fn pause(&mut self, index: usize, out: &mut Vec<ToServer>, changes: &mut Vec<Change>) {
        let informer = &mut self.informers[index];
        informer.pause(self.views.view_mut(informer.kind()), out, changes);
        self.next = self.deadline();
    }

    /// Starts an informer again that was stopped.
    pub fn resume(&mut self, now: Now, index: usize, out: &mut Vec<ToServer>) {
        let informer = &mut self.informers[index];
        if informer.resume(now) {
            informer.handle_timeout(now, self.views.view_mut(informer.kind()), out);
            self.next = self.deadline();
        }
    }

    /// How many parts of the connection they take.
    pub fn parts(&self) -> u16 {
        self.informers.len() as u16
    }

    /// Their kinds, in the order of their parts.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.informers.iter().map(Informer::kind)
    }

    /// What they have learnt.
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// Hands a message to the informer of a part, counted from the first; answers its kind. Changes are pushed.
    #[inline]
    pub fn handle(
        &mut self,
        now: Now,
        part: usize,
        input: &FromServer,
        out: &mut Vec<ToServer>,
        changes: &mut Vec<Change>,
    ) -> Kind {
        let informer = &mut self.informers[part];
        let kind = informer.kind();
        informer.handle(now, input, self.views.view_mut(kind), out, changes);
        if !matches!(input, FromServer::Watch(..)) {
            self.next = self.deadline();
        }
        kind
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now, out: &mut Vec<ToServer>) {
        if self.next.is_none_or(|d| d.at > now.mono) {
            return;
        }
        for informer in &mut self.informers {
            if informer.poll_timeout().is_some_and(|d| d.at <= now.mono) {
                informer.handle_timeout(now, self.views.view_mut(informer.kind()), out);
            }
        }
        self.next = self.deadline();
    }

    /// When one of them next wants to act.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.next
    }

    /// Lists a kind again, not older than `rv`; see [`Informer::relist`].
    pub fn relist(&mut self, now: Now, kind: Kind, rv: Option<Revision>, out: &mut Vec<ToServer>) {
        let view = self.views.view_mut(kind);
        for informer in self.informers.iter_mut().filter(|i| i.kind() == kind) {
            informer.relist(now, rv, out);
            informer.handle_timeout(now, view, out);
        }
        self.next = self.deadline();
    }

    fn deadline(&self) -> Option<Deadline> {
        self.informers.iter().map(Informer::poll_timeout).fold(None, Deadline::earlier)
    }
}

/// An informer of all objects of a kind.
fn make(kind: Kind, part: u16, user: &Rc<str>, rng: &mut Rng) -> Informer {
    let config = InformerConfig {
        kind,
        namespace: Rc::from(""),
        labels: Selector::everything(),
        fields: FieldSelector::everything(),
        user: Rc::clone(user),
    };
    Informer::new(config, part, Rng::from_seed(mix(rng.next_u64(), u64::from(part))))
}
