//! `deletecollection`: deletes every matching object by a separate write.

use std::rc::Rc;

use super::list::{Read, ReadKind, select};
use super::write::{Origin, Write};
use super::{ApiServer, ConnId, Out, reply};
use crate::api::{Call, DeleteOptions, Fence, ListOptions, Reason, ReqId, Request, Response, Status};
use crate::auth::User;
use crate::machine::Now;
use crate::object::{Kind, ObjectKey, Revision, Verbs};

/// What must be deleted, and how.
#[derive(Debug)]
pub(super) struct Victims {
    pub(super) kind: Kind,
    namespace: Rc<str>,
    pub(super) list: ListOptions,
    options: DeleteOptions,
    user: Rc<str>,
    identity: Option<Rc<User>>,
    version: Option<Rc<str>>,
    fence: Option<Fence>,
}

/// A `deletecollection` in progress.
#[derive(Debug)]
pub(super) struct Collection {
    conn: ConnId,
    id: ReqId,
    left: usize,
    rv: Revision,
    error: Option<Status>,
}

impl ApiServer {
    pub(super) fn delete_collection(
        &mut self,
        now: Now,
        conn: ConnId,
        id: ReqId,
        request: Box<Request>,
        out: &mut Vec<Out>,
    ) {
        let Request {
            user,
            identity,
            version,
            fence,
            call: Call::DeleteCollection { kind, namespace, list, options },
            ..
        } = *request
        else {
            unreachable!("not a deletecollection")
        };
        let of = self.config.kinds.info(kind);
        if of.verbs != Verbs::All {
            return reply(conn, id, Err(Status::method_not_allowed(&of, "deletecollection")), out);
        }
        let victims = Box::new(Victims { kind, namespace, list, options, user, identity, version, fence });
        self.read(now, Read { conn, id, what: ReadKind::Victims(victims) }, out);
    }

    /// Deletes the objects that match now; the cache must be as fresh as the request requires.
    pub(super) fn victims_chosen(&mut self, now: Now, conn: ConnId, id: ReqId, victims: Victims, out: &mut Vec<Out>) {
        let Victims { kind, namespace, list, options, user, identity, version, fence } = victims;
        let mut chosen: Vec<(ObjectKey, Rc<str>)> = Vec::new();
        select(&self.cache, kind, &namespace, &list, |key, object| {
            chosen.push((key.clone(), Rc::from(object.uid())));
            list.limit == 0 || chosen.len() < list.limit
        });
        if chosen.is_empty() {
            return reply(conn, id, Ok(Response::Done { rv: Revision(0) }), out);
        }
        let collection = self.next_task();
        let left = chosen.len();
        self.collections.insert(collection, Collection { conn, id, left, rv: Revision(0), error: None });
        for (key, uid) in chosen {
            let mut options = options.clone();
            // The UID makes sure that a new object with the same name is not deleted.
            options.precondition.uid.get_or_insert(uid);
            let (user, identity, version, fence) = (Rc::clone(&user), identity.clone(), version.clone(), fence.clone());
            let call = Call::Delete { key, options };
            let request = Request { user, identity, field_manager: None, version, minded: Vec::new(), fence, call };
            self.write(now, Write::new(Origin::Collection(collection), Box::new(request)), out);
        }
    }

    /// Handles the result of one of the deletes.
    pub(super) fn collection_answer(
        &mut self,
        _now: Now,
        collection: u64,
        result: Result<Response, Status>,
        out: &mut Vec<Out>,
    ) {
        let state = self.collections.get_mut(&collection).expect("a collection lives as long as its deletes");
        state.left -= 1;
        match result {
            Ok(Response::Object(object)) => state.rv = state.rv.max(object.rv()),
            Ok(_) => {}
            // Another client has deleted it.
            Err(status) if status.reason == Reason::NotFound => {}
            Err(status) => drop(state.error.get_or_insert(status)),
        }
        if state.left == 0 {
            let Collection { conn, id, rv, error, .. } =
                self.collections.remove(&collection).expect("it was just there");
            reply(conn, id, error.map_or(Ok(Response::Done { rv }), Err), out);
        }
    }
}
