//! One set of default rules with two uses: set the missing fields, or only find out whether any is missing. The second
//! copies nothing, and tells whether a shared value has to be copied in order to set its defaults.

/// A type whose fields have defaults.
pub(in crate::object) trait Defaults {
    /// Sets the missing fields. Must be idempotent.
    fn fill(&mut self);
    /// Whether [`fill`](Self::fill) would change anything.
    fn lacks(&self) -> bool;
}

/// An optional field that counts as unset even if it is present and empty, since Go has no optional string.
pub(super) trait Unset {
    fn unset(&self) -> bool;
}

macro_rules! unset_is_none {
    ($($t:ty),*) => { $(impl Unset for Option<$t> { fn unset(&self) -> bool { self.is_none() } })* };
}
unset_is_none!(
    i32,
    i64,
    bool,
    crate::object::IntOrString,
    crate::object::LabelSelector,
    k8s_openapi::api::core::v1::PodSecurityContext,
    k8s_openapi::api::core::v1::PodSpec,
    k8s_openapi::api::core::v1::EmptyDirVolumeSource,
    k8s_openapi::api::core::v1::ResourceRequirements,
    k8s_openapi::api::core::v1::SessionAffinityConfig,
    k8s_openapi::api::core::v1::ClientIPConfig,
    k8s_openapi::api::apps::v1::DeploymentStrategy,
    k8s_openapi::api::apps::v1::RollingUpdateDeployment,
    k8s_openapi::api::apps::v1::StatefulSetUpdateStrategy,
    k8s_openapi::api::apps::v1::RollingUpdateStatefulSetStrategy,
    k8s_openapi::api::apps::v1::StatefulSetPersistentVolumeClaimRetentionPolicy,
    k8s_openapi::api::apps::v1::DaemonSetUpdateStrategy,
    k8s_openapi::api::apps::v1::RollingUpdateDaemonSet,
    k8s_openapi::api::core::v1::PersistentVolumeClaimStatus
);

impl Unset for Option<String> {
    fn unset(&self) -> bool {
        self.as_deref().is_none_or(str::is_empty)
    }
}

impl<T> Unset for Option<Vec<T>> {
    fn unset(&self) -> bool {
        self.as_ref().is_none_or(Vec::is_empty)
    }
}

/// A field whose content has defaults: iterates over the values in it, whatever container holds them.
pub(super) trait Parts {
    type Part;
    fn parts(&self) -> std::slice::Iter<'_, Self::Part>;
    fn parts_mut(&mut self) -> std::slice::IterMut<'_, Self::Part>;
}

impl<T> Parts for Vec<T> {
    type Part = T;
    fn parts(&self) -> std::slice::Iter<'_, T> {
        self.iter()
    }
    fn parts_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.iter_mut()
    }
}

impl<T> Parts for Option<Vec<T>> {
    type Part = T;
    fn parts(&self) -> std::slice::Iter<'_, T> {
        self.as_deref().unwrap_or_default().iter()
    }
    fn parts_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.as_deref_mut().unwrap_or_default().iter_mut()
    }
}

macro_rules! one_part {
    ($($t:ty),* $(,)?) => { $(
        impl Parts for Option<$t> {
            type Part = $t;
            fn parts(&self) -> std::slice::Iter<'_, $t> { self.as_slice().iter() }
            fn parts_mut(&mut self) -> std::slice::IterMut<'_, $t> { self.as_mut_slice().iter_mut() }
        }
        impl Parts for $t {
            type Part = $t;
            fn parts(&self) -> std::slice::Iter<'_, $t> { std::slice::from_ref(self).iter() }
            fn parts_mut(&mut self) -> std::slice::IterMut<'_, $t> { std::slice::from_mut(self).iter_mut() }
        }
    )* };
}
pub(super) use one_part;

/// Declares the default rules of a type:
/// - `set FIELD = VALUE;` sets a field that is unset (in Go: nil or the empty string);
/// - `set FIELD = VALUE, if CONDITION;` does so only if the condition holds;
/// - `nonzero FIELD = VALUE;` sets a field that is absent or zero (Go has no optional number there);
/// - `each FIELD;` applies the rules of every value in the field;
/// - `own FILL, LACKS;` calls a pair of functions.
///
/// Rules apply in order; a condition sees what earlier rules have set.
macro_rules! defaults {
    ($t:ty, |$v:ident| { $($rules:tt)* }) => {
        impl $crate::object::defaults::rules::Defaults for $t {
            #[allow(unused_variables)]
            fn fill(&mut self) { let $v = self; defaults!(@fill $v $($rules)*); }
            #[allow(unused_variables)]
            fn lacks(&self) -> bool { let $v = self; defaults!(@lacks $v $($rules)*); false }
        }
    };
    (@fill $v:ident) => {};
    (@lacks $v:ident) => {};
    (@fill $v:ident set $f:ident = $e:expr, if $c:expr; $($rest:tt)*) => {
        if $crate::object::defaults::rules::Unset::unset(&$v.$f) && $c { let value = $e; $v.$f = Some(value); }
        defaults!(@fill $v $($rest)*);
    };
    (@lacks $v:ident set $f:ident = $e:expr, if $c:expr; $($rest:tt)*) => {
        if $crate::object::defaults::rules::Unset::unset(&$v.$f) && $c { return true; }
        defaults!(@lacks $v $($rest)*);
    };
    (@fill $v:ident set $f:ident = $e:expr; $($rest:tt)*) => {
        defaults!(@fill $v set $f = $e, if true; $($rest)*);
    };
    (@lacks $v:ident set $f:ident = $e:expr; $($rest:tt)*) => {
        defaults!(@lacks $v set $f = $e, if true; $($rest)*);
    };
    (@fill $v:ident nonzero $f:ident = $e:expr; $($rest:tt)*) => {
        if $v.$f.is_none_or(|n| n == 0) { $v.$f = Some($e); }
        defaults!(@fill $v $($rest)*);
    };
    (@lacks $v:ident nonzero $f:ident = $e:expr; $($rest:tt)*) => {
        if $v.$f.is_none_or(|n| n == 0) { return true; }
        defaults!(@lacks $v $($rest)*);
    };
    (@fill $v:ident each $f:ident; $($rest:tt)*) => {
        for part in $crate::object::defaults::rules::Parts::parts_mut(&mut $v.$f) {
            $crate::object::defaults::rules::Defaults::fill(part);
        }
        defaults!(@fill $v $($rest)*);
    };
    (@lacks $v:ident each $f:ident; $($rest:tt)*) => {
        for part in $crate::object::defaults::rules::Parts::parts(&$v.$f) {
            if $crate::object::defaults::rules::Defaults::lacks(part) { return true; }
        }
        defaults!(@lacks $v $($rest)*);
    };
    (@fill $v:ident own $fill:path, $lacks:path; $($rest:tt)*) => {
        $fill($v);
        defaults!(@fill $v $($rest)*);
    };
    (@lacks $v:ident own $fill:path, $lacks:path; $($rest:tt)*) => {
        if $lacks($v) { return true; }
        defaults!(@lacks $v $($rest)*);
    };
}
pub(super) use defaults;
