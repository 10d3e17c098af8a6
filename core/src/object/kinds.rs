//! The registry of kinds: the numbers of custom kinds, and the description of every kind.
//!
//! Each simulated world and each serving process has its own registry. Kind numbers determine the order of keys, so two
//! worlds in one program must not affect each other's numbering. The registry only grows. A kind that is *known* here
//! is not necessarily *served*: each API server decides that from the CustomResourceDefinitions that it has seen.

use std::cell::RefCell;
use std::rc::Rc;

use super::kind::{Kind, KindInfo, KindRef};

/// The kinds that a world knows. A clone is a handle to the same registry.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    custom: Rc<RefCell<Vec<Rc<KindInfo>>>>,
}

impl Kinds {
    /// The description of a kind. Panics for a custom kind of another registry, which is a bug in the caller.
    pub fn info(&self, kind: Kind) -> KindRef {
        match kind.custom_number() {
            None => KindRef::BuiltIn(kind.row()),
            Some(number) => {
                let custom = self.custom.borrow();
                let info = custom.get(number).unwrap_or_else(|| panic!("{kind} is not a kind of this world"));
                KindRef::Custom(Rc::clone(info))
            }
        }
    }

    /// Registers a custom kind, or updates its description, and returns its number. Group, plural name and scope
    /// identify a resource; it keeps its number whatever else of it changes.
    pub fn register(&self, info: KindInfo) -> Kind {
        let mut custom = self.custom.borrow_mut();
        let same = |known: &Rc<KindInfo>| {
            known.group == info.group && known.plural == info.plural && known.namespaced == info.namespaced
        };
        match custom.iter().position(same) {
            Some(number) => {
                if *custom[number] != info {
                    custom[number] = Rc::new(info);
                }
                Kind::custom(number)
            }
            None => {
                custom.push(Rc::new(info));
                Kind::custom(custom.len() - 1)
            }
        }
    }

    /// The kind of a resource that has objects in a store. Registers a custom resource whose definition has not been
    /// seen yet; the definition fills in the rest later. `None` if no resource can have this name.
    pub fn stored(&self, group: &str, plural: &str, namespaced: bool) -> Option<Kind> {
        let known = self
            .custom
            .borrow()
            .iter()
            .position(|i| i.group == group && i.plural == plural && i.namespaced == namespaced);
        let (group_name, plural_name) = (group.to_owned().into(), plural.to_owned().into());
        let bare = || KindInfo { group: group_name, plural: plural_name, namespaced, ..KindInfo::custom() };
        // The group of a CustomResourceDefinition always contains a dot.
        let new = || group.contains('.').then(|| self.register(bare()));
        Kind::by_resource(group, plural).or(known.map(Kind::custom)).or_else(new)
    }

    /// Compares the descriptions of custom kinds, in the order of their numbers, with those that were known, and makes
    /// them known. Whether there was a change.
    pub fn take_changes(&self, known: &mut Vec<Rc<KindInfo>>) -> bool {
        let custom = self.custom.borrow();
        let same = known.len() == custom.len() && known.iter().zip(&*custom).all(|(a, b)| Rc::ptr_eq(a, b));
        if !same {
            known.clone_from(&custom);
        }
        !same
    }

    /// Every known kind: built-in kinds, then custom ones in order of registration.
    pub fn all(&self) -> impl Iterator<Item = Kind> + use<> {
        let custom = self.custom.borrow().len();
        Kind::all().chain((0..custom).map(Kind::custom))
    }

    /// Every known kind whose objects are stored.
    pub fn all_stored(&self) -> impl Iterator<Item = Kind> + use<'_> {
        self.all().filter(|kind| self.info(*kind).verbs.stored())
    }

    fn find(&self, fits: impl Fn(&KindInfo) -> bool) -> Option<Kind> {
        // Newest first: if a definition was deleted and made again with another scope, the later kind is in use.
        self.custom.borrow().iter().rposition(|info| fits(info)).map(Kind::custom)
    }

    /// Finds a kind by a manifest's `apiVersion` and `kind`.
    pub fn by_api_version(&self, api_version: &str, kind: &str) -> Option<Kind> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let custom = || self.find(|i| i.kind == kind && i.is_served_in(group, version));
        Kind::by_api_version(api_version, kind).or_else(custom)
    }

    /// Finds a kind by group and plural resource name.
    pub fn by_resource(&self, group: &str, plural: &str) -> Option<Kind> {
        Kind::by_resource(group, plural).or_else(|| self.find(|i| i.plural == plural && i.group == group))
    }

    /// Finds a kind by the group, version and plural resource name of a URL path.
    pub fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<Kind> {
        let custom = || self.find(|i| i.plural == plural && i.is_served_in(group, version));
        Kind::by_path(group, version, plural).or_else(custom)
    }
}

#[cfg(test)]
mod tests {
    use super::Kinds;
    use crate::object::{Kind, KindInfo, Verbs};

    fn widget(version: &str, namespaced: bool) -> KindInfo {
        KindInfo {
            group: "example.com".into(),
            version: version.to_owned().into(),
            kind: "Widget".into(),
            plural: "widgets".into(),
            namespaced,
            ..KindInfo::custom()
        }
    }

    #[test]
    fn a_resource_keeps_its_number_and_worlds_do_not_share_them() {
        let (here, there) = (Kinds::default(), Kinds::default());
        let gadget = KindInfo { kind: "Gadget".into(), plural: "gadgets".into(), ..widget("v1", true) };
        let (first, mut known) = (here.register(widget("v1alpha1", true)), Vec::new());
        assert!(here.take_changes(&mut known) && !here.take_changes(&mut known));
        assert_ne!(here.register(gadget), first);
        assert_eq!(here.register(widget("v1", true)), first, "another version of the same resource");
        assert!(here.take_changes(&mut known) && known[0].version == "v1");
        assert_eq!(here.info(first).api_version(), "example.com/v1");
        assert_ne!(here.register(widget("v1", false)), first, "another scope is another resource");
        assert_eq!(
            here.by_path("example.com", "v1", "gadgets").map(|k| here.info(k).kind.to_string()),
            Some("Gadget".into())
        );
        assert_eq!(here.by_api_version("v1", "Pod"), Some(Kind::POD));
        assert_eq!(here.info(first).verbs, Verbs::All);
        assert_eq!(there.by_resource("example.com", "widgets"), None);
        assert_eq!(there.all().count(), Kind::all().count());
        assert_eq!(here.all().count(), Kind::all().count() + 3);
    }
}
