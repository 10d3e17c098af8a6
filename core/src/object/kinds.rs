//! The registry of kinds: which numbers custom kinds have, and what is known of every kind.
//!
//! There is one for each world of the simulator and for each process that serves: numbers enter the order of keys, so
//! two worlds of one program must not number each other's kinds. It only ever grows. That a kind is *known* here does
//! not say that it is *served*: that each API server knows for itself, by the CustomResourceDefinitions that it has
//! seen.

use std::cell::RefCell;
use std::rc::Rc;

use super::kind::{Kind, KindInfo, KindRef};

/// The kinds that a world knows. A clone is a handle of the same registry.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    custom: Rc<RefCell<Vec<Rc<KindInfo>>>>,
}

impl Kinds {
    /// What is known of a kind. Panics for a custom kind of another registry, which is a mistake of the program.
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

    /// Notes what is known of a custom kind; answers its number. A resource is known by its group, plural name and
    /// scope, and keeps its number whatever else becomes of it.
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

    /// The kind of a resource of this scope that a store has objects of; `None` for what can be no resource. A custom
    /// one of which nothing has been heard yet gets its number, and its definition will say the rest.
    pub fn stored(&self, group: &str, plural: &str, namespaced: bool) -> Option<Kind> {
        let known = self
            .custom
            .borrow()
            .iter()
            .position(|i| i.group == group && i.plural == plural && i.namespaced == namespaced);
        let (group_name, plural_name) = (group.to_owned().into(), plural.to_owned().into());
        let bare = || KindInfo { group: group_name, plural: plural_name, namespaced, ..KindInfo::custom() };
        // The group of a definition is a domain.
        let new = || group.contains('.').then(|| self.register(bare()));
        Kind::by_resource(group, plural).or(known.map(Kind::custom)).or_else(new)
    }

    /// Every kind that is known: built-in ones, then custom ones in the order in which they came.
    pub fn all(&self) -> impl Iterator<Item = Kind> + use<> {
        let custom = self.custom.borrow().len();
        Kind::all().chain((0..custom).map(Kind::custom))
    }

    /// Every kind whose objects are stored.
    pub fn all_stored(&self) -> impl Iterator<Item = Kind> + use<'_> {
        self.all().filter(|kind| self.info(*kind).verbs.stored())
    }

    fn find(&self, fits: impl Fn(&KindInfo) -> bool) -> Option<Kind> {
        // The newest first: where a resource came back in another scope, that is the one that stands.
        self.custom.borrow().iter().rposition(|info| fits(info)).map(Kind::custom)
    }

    /// Finds a kind by `apiVersion` and `kind` as a manifest gives them.
    pub fn by_api_version(&self, api_version: &str, kind: &str) -> Option<Kind> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let custom = || self.find(|i| i.kind == kind && i.is_served_in(group, version));
        Kind::by_api_version(api_version, kind).or_else(custom)
    }

    /// Finds a kind by group and plural resource name.
    pub fn by_resource(&self, group: &str, plural: &str) -> Option<Kind> {
        Kind::by_resource(group, plural).or_else(|| self.find(|i| i.plural == plural && i.group == group))
    }

    /// Finds a kind by group, version and plural resource name as a path gives them.
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
        let first = here.register(widget("v1alpha1", true));
        assert_ne!(here.register(gadget), first);
        assert_eq!(here.register(widget("v1", true)), first, "another version of the same resource");
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
