//! A rule's condition: parsed, looked through for words that are none, and evaluated.
use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr};
use cel::parser::PrattParser;
use cel::{Context, Value};

use crate::facts;
use crate::settings::{On, Rule};

/// A condition that is about what its rule is about.
pub(crate) struct Expression {
    condition: IdedExpr,
    uses: Uses,
}

/// What an expression asks of its subject, so that nothing else is asked of the host.
#[derive(Default)]
pub(crate) struct Uses {
    /// Variable and field.
    pub(crate) fields: BTreeSet<(&'static str, &'static str)>,
}

/// A word that is none, and why.
struct Mistake {
    word: String,
    what: String,
}

impl Expression {
    /// # Errors
    /// Where and why it is none; a word that does not exist.
    pub(crate) fn parse(rule: &Rule) -> Result<Self, String> {
        let condition = PrattParser::new()
            .parse(&rule.condition)
            .map_err(|errors| match errors.errors.first() {
                Some(first) => format!("line {}, column {}: {}", first.pos.0, first.pos.1, first.msg),
                None => errors.to_string(),
            })?;
        let mut search = Search {
            on: rule.on,
            uses: Uses::default(),
            bound: Vec::new(),
        };
        search
            .look(&condition)
            .map_err(|Mistake { word, what }| format!("{}{what}", place(&rule.condition, &word)))?;
        let uses = search.uses;
        Ok(Self { condition, uses })
    }

    /// Whether it is true of the subject of this call.
    ///
    /// # Errors
    /// Why it has no answer, or another than true and false.
    pub(crate) fn holds(&self) -> Result<bool, String> {
        let mut context = Context::default();
        facts::add(&mut context, &self.uses)?;
        match context.resolve(&self.condition) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!(
                "its condition is {}, where true or false is expected",
                other.type_of()
            )),
            Err(error) => Err(format!("its condition cannot be evaluated: {error}")),
        }
    }
}

/// Where a word stands for the first time.
fn place(source: &str, word: &str) -> String {
    let is_of_words = |it: Option<char>| it.is_some_and(|it| it.is_alphanumeric() || it == '_');
    let is_whole = |at: &usize| {
        let (before, after) = (source.get(..*at), source.get(at + word.len()..));
        !is_of_words(before.and_then(|it| it.chars().next_back()))
            && !is_of_words(after.and_then(|it| it.chars().next()))
    };
    let mut found = source.match_indices(word).map(|(at, _)| at).filter(is_whole);
    let Some(before) = found.next().and_then(|at| source.get(..at)) else {
        return String::new();
    };
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|it| *it != '\n').count() + 1;
    format!("line {line}, column {column}: ")
}

/// A walk through an expression.
struct Search {
    on: On,
    uses: Uses,
    /// Variables of macros such as `exists`.
    bound: Vec<String>,
}

impl Search {
    fn look(&mut self, at: &IdedExpr) -> Result<(), Mistake> {
        match &at.expr {
            Expr::Ident(name) if self.bound.contains(name) => Ok(()),
            Expr::Ident(name) => self.use_all(name).map_err(about(name)),
            Expr::Select(select) => match &select.operand.expr {
                Expr::Ident(name) if !self.bound.contains(name) => {
                    facts::variable(self.on, name).map_err(about(name))?;
                    self.use_field(name, &select.field)
                        .map_err(about(&select.field))
                }
                inner => {
                    check_kind(inner, &select.field).map_err(about(&select.field))?;
                    self.look(&select.operand)
                }
            },
            Expr::Call(call) => self.look_at_call(call),
            Expr::Comprehension(it) => {
                self.look(&it.iter_range)?;
                let before = self.bound.len();
                self.bound
                    .extend([it.iter_var.clone(), it.accu_var.clone()]);
                self.bound.extend(it.iter_var2.clone());
                for part in [&it.accu_init, &it.loop_cond, &it.loop_step, &it.result] {
                    self.look(part)?;
                }
                self.bound.truncate(before);
                Ok(())
            }
            Expr::List(list) => list.elements.iter().try_for_each(|it| self.look(it)),
            Expr::Map(map) => self.look_at_entries(map.entries.iter().map(|it| &it.expr)),
            Expr::Struct(it) => self.look_at_entries(it.entries.iter().map(|it| &it.expr)),
            Expr::Literal(_) | Expr::Unspecified => Ok(()),
        }
    }

    fn look_at_entries<'a>(
        &mut self,
        mut entries: impl Iterator<Item = &'a EntryExpr>,
    ) -> Result<(), Mistake> {
        entries.try_for_each(|entry| match entry {
            EntryExpr::StructField(field) => self.look(&field.value),
            EntryExpr::MapEntry(entry) => {
                self.look(&entry.key)?;
                self.look(&entry.value)
            }
        })
    }

    fn look_at_call(&mut self, call: &CallExpr) -> Result<(), Mistake> {
        let name = &call.func_name;
        match call.target.as_deref().map(|target| (target, &target.expr)) {
            Some((_, Expr::Ident(of))) if !self.bound.contains(of) => {
                let variable = facts::variable(self.on, of).map_err(about(of))?;
                if !variable.functions.contains(&name.as_str()) {
                    let functions = variable.functions.join(", ");
                    return Err(about(name)(format!(
                        "{of} has no function `{name}`; it has {functions}"
                    )));
                }
            }
            target => {
                facts::check_function(name).map_err(about(name))?;
                if let Some((target, _)) = target {
                    self.look(target)?;
                }
            }
        }
        call.args.iter().try_for_each(|it| self.look(it))
    }

    fn use_field(&mut self, variable: &str, field: &str) -> Result<(), String> {
        let variable = facts::variable(self.on, variable)?;
        let known = variable.fields.iter().find(|known| **known == field);
        let field = known.ok_or_else(|| {
            let fields = variable.fields.join(", ");
            format!("{} has no `{field}`; it has {fields}", variable.name)
        })?;
        self.uses.fields.insert((variable.name, *field));
        Ok(())
    }

    /// A variable on its own, such as in `has(…)` or `size(…)`.
    fn use_all(&mut self, variable: &str) -> Result<(), String> {
        let variable = facts::variable(self.on, variable)?;
        let fields = variable.fields.iter().map(|field| (variable.name, *field));
        self.uses.fields.extend(fields);
        Ok(())
    }
}

fn about(word: &str) -> impl Fn(String) -> Mistake {
    let word = word.to_owned();
    move |what| Mistake {
        word: word.clone(),
        what,
    }
}

/// The scopes that are asked for are by kind of namespace.
fn check_kind(of: &Expr, kind: &str) -> Result<(), String> {
    match of {
        Expr::Select(select) if select.field == facts::SCOPES => {
            let kinds = crate::effects::KINDS.map(|(name, _)| name);
            if kinds.contains(&kind) {
                return Ok(());
            }
            Err(format!(
                "there is no namespace `{kind}`; there are {}",
                kinds.join(", ")
            ))
        }
        _ => Ok(()),
    }
}
