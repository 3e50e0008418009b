//! Who decided what, put together from single decisions.
use std::collections::BTreeMap;

use husk_scope::{Kind, Scope};

use super::model::Decider;

/// What stands for nobody's decision.
const REQUEST: &str = "request";

/// One decision on a namespace.
pub(crate) struct Decided<'a> {
    pub(crate) kind: Kind,
    pub(crate) container: &'a str,
    pub(crate) requested: &'a Scope,
    pub(crate) planned: &'a Scope,
}

/// Decisions being collected.
#[derive(Default)]
pub(crate) struct Deciders(Vec<Said>);

/// What one of them said: of which kind and what, and of whom.
#[derive(Default)]
struct Said {
    name: String,
    scopes: BTreeMap<(Kind, String), Vec<String>>,
    links: Vec<String>,
}

impl Deciders {
    /// Who decided: a number, none where it is as requested.
    pub(crate) fn scopes(&mut self, by: &str, decided: &Decided<'_>) -> Option<usize> {
        let at = self.at(by)?;
        let what = if decided.requested == decided.planned {
            format!("{}, as requested", decided.planned)
        } else {
            format!("{} → {}", decided.requested, decided.planned)
        };
        let said = &mut self.0.get_mut(at)?.scopes;
        let of = said.entry((decided.kind, what)).or_default();
        of.push(decided.container.to_owned());
        Some(at)
    }

    /// Who decided a link, in words.
    pub(crate) fn links(&mut self, by: &str, link: String) {
        if let Some(said) = self.at(by).and_then(|at| self.0.get_mut(at)) {
            said.links.push(link);
        }
    }

    fn at(&mut self, by: &str) -> Option<usize> {
        if by == REQUEST {
            return None;
        }
        let known = self.0.iter().position(|said| said.name == by);
        Some(known.unwrap_or_else(|| {
            self.0.push(Said {
                name: by.to_owned(),
                ..Said::default()
            });
            self.0.len() - 1
        }))
    }

    /// All of them, in the order in which they came.
    pub(crate) fn done(self) -> Vec<Decider> {
        self.0.into_iter().map(Said::done).collect()
    }
}

impl Said {
    fn done(self) -> Decider {
        let scopes = self.scopes.into_iter().map(|((kind, what), containers)| {
            format!("{kind} of {}: {what}", containers.join(", "))
        });
        let mut said: Vec<_> = scopes.collect();
        if !self.links.is_empty() {
            said.push(format!("links {}", self.links.join(", ")));
        }
        Decider {
            name: self.name,
            said,
        }
    }
}
