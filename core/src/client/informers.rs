//! Shared informers of one process: each kind is listed, watched and held once, however many parts of the process read
//! it (client-go's `SharedInformerFactory`).

use std::rc::Rc;

use super::{Change, Index, Informer, InformerConfig, View, Views};
use crate::api::{FromServer, ToServer};
use crate::machine::{Deadline, Now};
use crate::object::{FieldSelector, Kind, Revision, Selector};
use crate::random::{Rng, mix};

/// A kind that a reader uses, and the indexes that it needs.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    /// The kind.
    pub kind: Kind,
    /// Indexes to maintain.
    pub indexes: &'static [Index],
}

/// Shared informers and their views. Each informer is one part of the connection; parts are numbered from a given first
/// part.
#[derive(Debug)]
pub struct Informers {
    informers: Vec<Informer>,
    views: Views,
    user: Rc<str>,
    rng: Rng,
    /// The earliest deadline of all informers. It is cached because most events move no deadline.
    next: Option<Deadline>,
}

impl Informers {
    /// Creates one informer for each watched kind, with every index that any reader asked for.
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

    /// Adds and starts an informer for a kind that is not watched yet, using `part` of the connection.
    pub fn add(&mut self, now: Now, watched: Watched, part: u16, out: &mut Vec<ToServer>) {
        let mut informer = make(watched.kind, part, &self.user, &mut self.rng);
        self.views.add(View::new(watched.kind, watched.indexes));
        informer.handle_timeout(now, self.views.view_mut(watched.kind), out);
        self.informers.push(informer);
        self.next = self.deadline();
    }

    /// Stops the informer at `index` and clears its view because its kind is no longer served.
    pub fn pause(&mut self, index: usize, out: &mut Vec<ToServer>, changes: &mut Vec<Change>) {
        let informer = &mut self.informers[index];
        informer.pause(self.views.view_mut(informer.kind()), out, changes);
        self.next = self.deadline();
    }

    /// Restarts a stopped informer.
    pub fn resume(&mut self, now: Now, index: usize, out: &mut Vec<ToServer>) {
        let informer = &mut self.informers[index];
        if informer.resume(now) {
            informer.handle_timeout(now, self.views.view_mut(informer.kind()), out);
            self.next = self.deadline();
        }
    }

    /// How many parts of the connection the informers use.
    pub fn parts(&self) -> u16 {
        self.informers.len() as u16
    }

    /// The watched kinds, in the order of their parts.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.informers.iter().map(Informer::kind)
    }

    /// The views that the informers maintain.
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// Passes a message to the informer of a part, numbered from the first part; returns its kind and pushes the
    /// changes.
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

    /// Runs every informer whose deadline has passed.
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

    /// When `handle_timeout` is next needed.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.next
    }

    /// Relists a kind at a revision not older than `rv`; see [`Informer::relist`].
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

/// Creates an informer for all objects of a kind.
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
