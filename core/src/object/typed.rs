//! Macros that define how each kind with a typed form is split into parts. Each file of [`strategy`](super::strategy)
//! has one line of them per kind.

macro_rules! resource {
    ($variant:ident $whole:ty, $konst:ident, $hold_spec:ident $spec:ty, $hold_status:ident $status:ty,
        |$w:ident| $($rest:tt)*) => {
        resource!({ type Renewal = (); }
            $variant $whole, $konst, $hold_spec $spec, $hold_status $status, |$w| $($rest)*);
    };
    ({ $($renewal:tt)* } $variant:ident $whole:ty, $konst:ident,
        $hold_spec:ident $spec:ty, $hold_status:ident $status:ty,
        |$w:ident| $split:expr, |$meta:ident, $s:ident, $st:ident| $join:expr) => {
        impl Resource for $whole {
            const KIND: Kind = Kind::$konst;
            type Spec = $spec;
            type Status = $status;
            type SpecPart = $hold_spec<$spec>;
            type StatusPart = $hold_status<$status>;
            $($renewal)*
            #[allow(unused_mut)]
            fn split(self) -> (ObjectMeta, $spec, $status) {
                let mut $w = self;
                $split
            }
            fn join($meta: ObjectMeta, $s: &$spec, $st: &$status) -> Self {
                $join
            }
            fn from_object(object: &Object) -> Option<&Obj<Self>> {
                match object {
                    Object::$variant(o) => Some(o),
                    _ => None,
                }
            }
            fn from_object_mut(object: &mut Object) -> Option<&mut Obj<Self>> {
                match object {
                    Object::$variant(o) => Some(o),
                    _ => None,
                }
            }
            fn into_object(obj: Obj<Self>) -> Object {
                Object::$variant(obj)
            }
        }
    };
}

/// A kind whose spec and status are k8s-openapi's own types.
macro_rules! spec_and_status {
    ($variant:ident $whole:ty, $konst:ident, $spec:ty, $status:ty) => {
        resource!($variant $whole, $konst, Rc $spec, Rc $status,
            |w| (w.metadata, Option::<$spec>::from(w.spec).unwrap_or_default(), w.status.unwrap_or_default()),
            |meta, spec, status| Self {
                metadata: meta,
                spec: spec.clone().into(),
                status: (*status != Default::default()).then(|| status.clone()),
            });
    };
}

/// A kind without spec and status: its whole type, with empty metadata, is held as the spec.
macro_rules! flat {
    ($variant:ident $whole:ty, $konst:ident) => {
        resource!($variant $whole, $konst, Rc $whole, Inline (),
            |w| { let meta = std::mem::take(&mut w.metadata); (meta, w, ()) },
            |meta, spec, _status| { let mut w = spec.clone(); w.metadata = meta; w });
    };
}

/// A kind whose spec contains a pod template, with a shared pod spec.
macro_rules! templated {
    ($variant:ident $whole:ty, $konst:ident, $spec:ty, $status:ty) => {
        resource!($variant $whole, $konst, Rc Templated<$spec>, Rc $status,
            |w| (w.metadata, Templated::new(Option::from(w.spec).unwrap_or_default()), w.status.unwrap_or_default()),
            |meta, spec, status| Self {
                metadata: meta,
                spec: spec.to_whole().into(),
                status: (*status != Default::default()).then(|| status.clone()),
            });
    };
}

/// The rules of a kind with a pod template.
macro_rules! pod_template {
    () => {
        fn pod_spec(object: &Obj<Self>) -> Option<&SharedPodSpec> {
            Some(&object.spec.pod)
        }

        fn set_pod_spec(object: &mut Obj<Self>, spec: SharedPodSpec) {
            object.spec_mut().pod = spec;
        }
    };
}

/// The rules of a kind whose `spec.replicas` is the desired number, one where it is absent.
macro_rules! replicated {
    () => {
        fn replicas(object: &Obj<Self>) -> Option<i32> {
            Some(object.spec.replicas.unwrap_or(1))
        }

        fn set_replicas(object: &mut Obj<Self>, replicas: i32) {
            object.spec_mut().replicas = Some(replicas);
        }
    };
}
