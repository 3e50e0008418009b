//! A handler's configuration: a TOML file, checked to the last key.
use crate::plan::Ceiling;
use crate::{Assignment, Kind, Scope};

/// Where the configuration is when a handler names none.
pub const DEFAULT_PATH: &str = "/etc/husk/config.toml";

/// A handler's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The most any assignment may grant.
    pub ceiling: Ceiling,
}

/// What is wrong with a configuration, where, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {}

impl Config {
    /// Reads a configuration; `file` is its name in errors.
    ///
    /// # Errors
    /// A syntax error, an unknown key, a bad value: with file, line, column and the nearest valid key.
    pub fn parse(_file: &str, _text: &str) -> Result<Self, ConfigError> {
        todo!()
    }

    /// What the configuration assigns to the container of this name.
    #[must_use]
    pub fn assignments(&self, _container: &str) -> Vec<Assignment> {
        todo!()
    }

    /// The kinds whose POD namespace the sandbox must have beyond what was requested, because some
    /// container may be assigned POD.
    #[must_use]
    pub fn sandbox_kinds(&self) -> Vec<(Kind, Scope)> {
        todo!()
    }
}
