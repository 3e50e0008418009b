//! The most that may be granted.
use crate::links::Reach;
use crate::{Kind, PerKind, Scope, Width};

/// The widest scope that may be granted, kind by kind; set by the handler's configuration.
///
/// It bounds what is *assigned*, by the configuration itself or by a policy. What containerd
/// *requested* it bounds only for the kinds that say so, because a spec without an entry already
/// requests NODE: most ask that of the time and the user namespace. The default bounds nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ceiling {
    kinds: PerKind<Limit>,
    links: Reach,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Limit {
    widest: Option<Width>,
    requests: bool,
}

impl Ceiling {
    /// Bounds assignments of this kind to `widest`.
    pub fn set(&mut self, kind: Kind, widest: Width) {
        self.kinds[kind].widest = Some(widest);
    }

    /// Bounds what containerd requests of this kind too.
    pub fn bind_requests(&mut self, kind: Kind) {
        self.kinds[kind].requests = true;
    }

    /// Leaves requests of this kind alone: for a subject that does not say whose it is.
    pub fn leave_requests(&mut self, kind: Kind) {
        self.kinds[kind].requests = false;
    }

    /// The widest scope that an assignment may grant; `None` for any.
    #[must_use]
    pub fn widest(&self, kind: Kind) -> Option<Width> {
        self.kinds[kind].widest
    }

    /// Bounds links.
    pub fn set_links(&mut self, reach: Reach) {
        self.links = reach;
    }

    /// How far links may reach.
    #[must_use]
    pub fn links(&self) -> Reach {
        self.links
    }

    /// The ceiling this assignment is above, if it is.
    pub(crate) fn exceeded_by(&self, kind: Kind, scope: &Scope) -> Option<Width> {
        self.kinds[kind]
            .widest
            .filter(|widest| scope.width() > *widest)
    }

    /// The ceiling this request is above, if requests of this kind are bounded and it is.
    pub(crate) fn exceeded_by_request(&self, kind: Kind, scope: &Scope) -> Option<Width> {
        self.exceeded_by(kind, scope)
            .filter(|_| self.kinds[kind].requests)
    }
}
