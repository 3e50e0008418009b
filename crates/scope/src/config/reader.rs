//! A TOML document with positions: every complaint says where, and what would be right.
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// What is wrong with a configuration, where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {problem}")]
pub struct ConfigError {
    /// The file's name, as the caller gave it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: Box<Problem>,
}

/// What can be wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is not TOML.
    #[error("{0}")]
    Syntax(String),
    /// A key that is not one.
    #[error("`{key}` is not a key of {table}{}", hint(.nearest, .valid))]
    UnknownKey {
        /// The key.
        key: String,
        /// The table it is in.
        table: String,
        /// The valid key that looks most like it, if one does.
        nearest: Option<String>,
        /// Every valid key.
        valid: Vec<String>,
    },
    /// A value that is not one of those a key takes.
    #[error("`{value}` is not {what}{}", hint(.nearest, .valid))]
    UnknownValue {
        /// The value.
        value: String,
        /// What it should be.
        what: &'static str,
        /// The valid value that looks most like it, if one does.
        nearest: Option<String>,
        /// Every valid value.
        valid: Vec<String>,
    },
    /// A value of the wrong type.
    #[error("`{key}` is {found}; it must be {wanted}")]
    WrongType {
        /// The key.
        key: String,
        /// What it is.
        found: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// A value that reads well and makes no sense.
    #[error("{0}")]
    Senseless(String),
}

fn hint(nearest: &Option<String>, valid: &[String]) -> impl fmt::Display {
    match nearest {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None => format!("; use one of {}", valid.join(", ")),
    }
}

/// The candidate that looks most like `word`, if one is near enough to have been meant.
fn nearest(word: &str, candidates: &[&str]) -> Option<String> {
    candidates
        .iter()
        .map(|candidate| {
            let likeness = strsim::normalized_damerau_levenshtein(word, candidate);
            (likeness, candidate)
        })
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| (*candidate).to_owned())
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// The text that is read, to turn offsets into lines.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

/// A table of the document and how errors call it.
pub(super) struct Table<'a> {
    source: Source<'a>,
    name: String,
    entries: &'a DeTable<'a>,
}

/// A key's value and how errors call it.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    source: Source<'a>,
    pub(super) key: &'a str,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Source<'a> {
    /// Parses the text.
    pub(super) fn parse(self) -> Result<DeTable<'a>, ConfigError> {
        match DeTable::parse(self.text) {
            Ok(table) => Ok(table.into_inner()),
            Err(error) => {
                let span = error.span().unwrap_or_default();
                Err(self.error(&span, Problem::Syntax(error.message().to_owned())))
            }
        }
    }

    fn error(self, span: &Range<usize>, problem: Problem) -> ConfigError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let in_line = before.get(line_start..).unwrap_or_default();
        ConfigError {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: in_line.chars().count() + 1,
            problem: Box::new(problem),
        }
    }
}

impl<'a> Table<'a> {
    /// The document itself.
    pub(super) fn root(source: Source<'a>, entries: &'a DeTable<'a>) -> Self {
        Self {
            source,
            name: "the configuration".to_owned(),
            entries,
        }
    }

    /// Every key with its value.
    pub(super) fn entries(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let source = self.source;
        self.entries.iter().map(move |(key, value)| Value {
            source,
            key: key.get_ref(),
            value,
        })
    }

    /// Refuses keys that are not among `valid`.
    pub(super) fn only(&self, valid: &[&str]) -> Result<(), ConfigError> {
        for (key, _) in self.entries {
            let word: &str = key.get_ref();
            if !valid.contains(&word) {
                let problem = Problem::UnknownKey {
                    key: word.to_owned(),
                    table: self.name.clone(),
                    nearest: nearest(word, valid),
                    valid: owned(valid),
                };
                return Err(self.source.error(&key.span(), problem));
            }
        }
        Ok(())
    }

    /// The value of a key, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<Value<'a>> {
        self.entries().find(|value| value.key == key)
    }
}

impl<'a> Value<'a> {
    /// The table it must be, called `[name]` in errors.
    pub(super) fn table(self, name: String) -> Result<Table<'a>, ConfigError> {
        match self.value.get_ref() {
            DeValue::Table(entries) => Ok(Table {
                source: self.source,
                name: format!("[{name}]"),
                entries,
            }),
            _ => Err(self.wrong_type("a table")),
        }
    }

    /// The string it must be.
    pub(super) fn string(self, wanted: &'static str) -> Result<&'a str, ConfigError> {
        match self.value.get_ref() {
            DeValue::String(string) => Ok(string),
            _ => Err(self.wrong_type(wanted)),
        }
    }

    /// The whole number of this range that it must be; `wanted` says so in words.
    pub(super) fn whole(
        self,
        valid: RangeInclusive<u32>,
        wanted: &'static str,
    ) -> Result<u32, ConfigError> {
        let DeValue::Integer(integer) = self.value.get_ref() else {
            return Err(self.wrong_type(wanted));
        };
        let number = u32::from_str_radix(integer.as_str(), integer.radix());
        let number = number.ok().filter(|number| valid.contains(number));
        number.ok_or_else(|| self.senseless(format!("`{integer}` is not {wanted}")))
    }

    /// The port that it must be.
    pub(super) fn port(self) -> Result<u16, ConfigError> {
        let wanted = "a port, from 1 to 65535";
        let port = self.whole(1..=u16::MAX.into(), wanted)?;
        u16::try_from(port).map_err(|_| self.wrong_type(wanted))
    }

    /// The answer to a question of yes or no.
    pub(super) fn boolean(self) -> Result<bool, ConfigError> {
        match self.value.get_ref() {
            DeValue::Boolean(boolean) => Ok(*boolean),
            _ => Err(self.wrong_type("true or false")),
        }
    }

    /// The number above 0 that it must be.
    pub(super) fn number(self) -> Result<u32, ConfigError> {
        self.whole(1..=u32::MAX, "a number from 1 to 4294967295")
    }

    /// The value as JSON; what JSON has no word for (a date, a number that is not finite) is refused.
    pub(super) fn json(self) -> Result<serde_json::Value, ConfigError> {
        let refused = || self.wrong_type("something that JSON can express");
        Ok(match self.value.get_ref() {
            DeValue::String(string) => serde_json::Value::String(string.to_string()),
            DeValue::Boolean(boolean) => serde_json::Value::Bool(*boolean),
            DeValue::Integer(integer) => {
                let number = i64::from_str_radix(integer.as_str(), integer.radix());
                number.map_err(|_| refused())?.into()
            }
            DeValue::Float(float) => {
                let number = float.as_str().parse::<f64>().ok();
                let number = number.and_then(serde_json::Number::from_f64);
                serde_json::Value::Number(number.ok_or_else(refused)?)
            }
            DeValue::Array(elements) => {
                let elements = elements.iter().map(|value| Self { value, ..self }.json());
                serde_json::Value::Array(elements.collect::<Result<_, _>>()?)
            }
            DeValue::Table(entries) => {
                let entries = entries.iter().map(|(key, value)| {
                    let key = key.get_ref();
                    Ok((
                        key.to_string(),
                        Value {
                            source: self.source,
                            key,
                            value,
                        }
                        .json()?,
                    ))
                });
                serde_json::Value::Object(entries.collect::<Result<_, ConfigError>>()?)
            }
            DeValue::Datetime(_) => return Err(refused()),
        })
    }

    /// The elements of the array it must be.
    pub(super) fn array(
        self,
        wanted: &'static str,
    ) -> Result<impl Iterator<Item = Self> + use<'a>, ConfigError> {
        match self.value.get_ref() {
            DeValue::Array(elements) => {
                let elements: &'a DeArray<'a> = elements;
                Ok(elements.iter().map(move |value| Self { value, ..self }))
            }
            _ => Err(self.wrong_type(wanted)),
        }
    }

    /// The thing that the string names, out of those that `valid` lists.
    pub(super) fn one_of<T: FromStr>(
        self,
        what: &'static str,
        valid: &[&str],
    ) -> Result<T, ConfigError> {
        let word = self.string(what)?;
        word.parse().map_err(|_| {
            self.error(Problem::UnknownValue {
                value: word.to_owned(),
                what,
                nearest: nearest(word, valid),
                valid: owned(valid),
            })
        })
    }

    /// Where it stands, as `FILE:LINE`, for those who find fault with it later.
    pub(super) fn place(self) -> String {
        let ConfigError { file, line, .. } = self.senseless("");
        format!("{file}:{line}")
    }

    /// A complaint that a table lacks a key.
    pub(super) fn lacks(self, key: &str) -> ConfigError {
        self.senseless(format!("[[{}]] needs the key `{key}`", self.key))
    }

    /// A complaint about what the value means.
    pub(super) fn senseless(self, message: impl Into<String>) -> ConfigError {
        self.error(Problem::Senseless(message.into()))
    }

    fn wrong_type(self, wanted: &'static str) -> ConfigError {
        let found = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.error(Problem::WrongType {
            key: self.key.to_owned(),
            found,
            wanted,
        })
    }

    fn error(self, problem: Problem) -> ConfigError {
        self.source.error(&self.value.span(), problem)
    }
}
