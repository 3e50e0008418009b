//! Rules in the Common Expression Language (<https://cel.dev>), written into a handler's configuration.
//!
//! A rule says what it is about, when it holds, and what follows: a refusal, scopes, or changes to the
//! container. README.md documents the settings and the words that an expression may use, which are those
//! of the plugin package. What cannot be read or evaluated refuses: a rule never fails open.
mod effects;
mod expression;
mod facts;
mod settings;

use husk_plugin::{Answer, Assignment, Configurable, Denial, Hooks, Policy, Verdict, deny};

use crate::expression::Expression;
use crate::settings::{On, Rule, Settings};

struct Rules;

impl Policy for Rules {
    fn scope_sandbox() -> Answer {
        scopes(On::Sandbox)
    }

    fn scope_container() -> Answer {
        scopes(On::Container)
    }
}

impl Hooks for Rules {
    fn sandbox_starting() -> Verdict {
        judge(On::Sandbox)
    }

    fn container_creating() -> Verdict {
        judge(On::Container)?;
        for rule in holding(On::Container, |rule| rule.change.is_some())? {
            effects::change(&rule)?;
        }
        Ok(())
    }

    fn exec_starting() -> Verdict {
        judge(On::Exec)
    }

    fn resources_updating() -> Verdict {
        judge(On::Update)
    }
}

impl Configurable for Rules {
    fn validate_settings(settings: String) -> Result<(), String> {
        let settings: Settings = husk_plugin::parse_settings(&settings)?;
        settings.check()?;
        settings.rules.iter().try_for_each(|rule| {
            Expression::parse(rule)
                .map(drop)
                .map_err(|error| format!("rule {}: {error}", rule.name))
        })
    }
}

/// The refusals of all rules that hold.
fn judge(on: On) -> Verdict {
    let denied = holding(on, |rule| rule.deny.is_some())?;
    let reasons: Vec<String> = denied
        .into_iter()
        .map(|rule| format!("rule {}: {}", rule.name, rule.deny.unwrap_or_default()))
        .collect();
    if reasons.is_empty() {
        return Ok(());
    }
    Err(deny(reasons.join("; ")))
}

/// The scopes of all rules that hold.
fn scopes(on: On) -> Answer {
    let mut decided: Vec<(Assignment, String)> = Vec::new();
    for rule in holding(on, |rule| !rule.scopes.is_empty())? {
        for assignment in effects::assignments(&rule)? {
            let other = decided.iter().find(|(it, _)| it.kind == assignment.kind);
            match other {
                Some((it, by)) if effects::word(&it.scope) != effects::word(&assignment.scope) => {
                    return Err(deny(format!(
                        "rules {by} and {} want different scopes for {:?}",
                        rule.name, assignment.kind
                    )));
                }
                Some(_) => {}
                None => decided.push((assignment, rule.name.clone())),
            }
        }
    }
    Ok(decided.into_iter().map(|(assignment, _)| assignment).collect())
}

/// The rules about this that have such an effect, and hold.
fn holding(on: On, has_effect: fn(&Rule) -> bool) -> Result<Vec<Rule>, Denial> {
    let settings: Settings = husk_plugin::settings()?;
    let mut holding = Vec::new();
    for rule in settings.rules {
        if rule.on != on || !has_effect(&rule) {
            continue;
        }
        let holds = Expression::parse(&rule).and_then(|expression| expression.holds());
        match holds {
            Ok(true) => holding.push(rule),
            Ok(false) => {}
            Err(error) => return Err(deny(format!("rule {}: {error}", rule.name))),
        }
    }
    Ok(holding)
}

husk_plugin::policy!(Rules);
husk_plugin::hooks!(Rules);
husk_plugin::configurable!(Rules);
