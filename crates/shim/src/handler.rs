//! A handler's options, as containerd passes them to `start` and to Create.
use std::io;
use std::path::{Path, PathBuf};

use containerd_shim::api::Options as RuncOptions;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{self, CodedInputStream, Message};
use husk_scope::config::{Config, ConfigError, DEFAULT_PATH};

/// What a handler's options say.
#[derive(Debug)]
pub(crate) struct Handler {
    /// The configuration. An error is kept rather than returned, so that whoever creates the
    /// sandbox learns of it: `start` has nobody to tell but containerd's log.
    pub(crate) config: Result<Config, HandlerError>,
    /// Whether systemd makes cgroups, if the options say.
    pub(crate) systemd_cgroup: Option<bool>,
    /// Options that were given and have no effect here, for the log.
    pub(crate) ignored: Vec<&'static str>,
}

/// Why a handler's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandlerError {
    /// Options of another runtime.
    #[error(
        "the runtime handler has options of type {0}; husk takes runtimeoptions.v1.Options \
         (ConfigPath or ConfigBody) and containerd.runc.v1.Options"
    )]
    Type(String),
    /// Options that are not what their type says.
    #[error("the runtime handler's options cannot be decoded: {0}")]
    Decode(#[from] protobuf::Error),
    /// The configuration file cannot be read.
    #[error("the runtime handler's configuration {path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// `runtimeoptions.v1.Options`: what containerd sends for a runtime it does not know.
#[derive(Debug, Default, PartialEq, Eq)]
struct GenericOptions {
    config_path: String,
    config_body: String,
}

impl Handler {
    /// Reads options: the first of `options` whose type is known counts.
    #[must_use]
    pub(crate) fn read(options: &[Any]) -> Self {
        for any in options {
            match type_name(any) {
                "runtimeoptions.v1.Options" => return Self::generic(&any.value),
                "containerd.runc.v1.Options" => return Self::runc(&any.value),
                _ => {}
            }
        }
        Self::with(match options.first() {
            None => unnamed(),
            Some(any) => Err(HandlerError::Type(any.type_url.clone())),
        })
    }

    fn with(config: Result<Config, HandlerError>) -> Self {
        Self {
            config,
            systemd_cgroup: None,
            ignored: Vec::new(),
        }
    }

    fn generic(value: &[u8]) -> Self {
        Self::with(
            GenericOptions::parse(value)
                .map_err(HandlerError::from)
                .and_then(|options| options.config()),
        )
    }

    fn runc(value: &[u8]) -> Self {
        let options = match RuncOptions::parse_from_bytes(value) {
            Ok(options) => options,
            Err(error) => return Self::with(Err(error.into())),
        };
        let given = [
            ("NoPivotRoot", options.no_pivot_root),
            ("NoNewKeyring", options.no_new_keyring),
            ("IoUid", options.io_uid != 0),
            ("IoGid", options.io_gid != 0),
            ("BinaryName", !options.binary_name.is_empty()),
            ("Root", !options.root.is_empty()),
            ("CriuImagePath", !options.criu_image_path.is_empty()),
            ("CriuWorkPath", !options.criu_work_path.is_empty()),
            ("TaskApiAddress", !options.task_api_address.is_empty()),
        ];
        Self {
            // `false` is also what a client sends that does not care.
            systemd_cgroup: options.systemd_cgroup.then_some(true),
            ignored: given
                .iter()
                .filter_map(|(name, given)| given.then_some(*name))
                .collect(),
            ..Self::with(unnamed())
        }
    }
}

/// The cgroup that the shim itself shall live in, if the options name one; see [`Handler::read`].
#[must_use]
pub(crate) fn shim_cgroup(options: &[Any]) -> Option<String> {
    let known = ["runtimeoptions.v1.Options", "containerd.runc.v1.Options"];
    let any = options.iter().find(|any| known.contains(&type_name(any)))?;
    if type_name(any) != "containerd.runc.v1.Options" {
        return None;
    }
    let options = RuncOptions::parse_from_bytes(&any.value).ok()?;
    Some(options.shim_cgroup).filter(|path| !path.is_empty())
}

impl GenericOptions {
    /// By hand, because containerd-shim-protos does not have this message.
    fn parse(value: &[u8]) -> protobuf::Result<Self> {
        let mut options = Self::default();
        let mut input = CodedInputStream::from_bytes(value);
        while let Some(tag) = input.read_raw_tag_or_eof()? {
            match tag {
                // Fields 2 and 3, both length-delimited.
                0x12 => options.config_path = input.read_string()?,
                0x1a => options.config_body = input.read_string()?,
                _ => protobuf::rt::skip_field_for_tag(tag, &mut input)?,
            }
        }
        Ok(options)
    }

    fn config(&self) -> Result<Config, HandlerError> {
        if !self.config_body.is_empty() {
            Ok(Config::parse("ConfigBody", &self.config_body)?)
        } else if self.config_path.is_empty() {
            unnamed()
        } else {
            read_file(Path::new(&self.config_path), false)
        }
    }
}

/// The configuration of a handler whose options name none.
fn unnamed() -> Result<Config, HandlerError> {
    let program = std::env::args_os().next().unwrap_or_default();
    match named_by(Path::new(&program)) {
        Some(path) => read_file(&path, false),
        None => read_file(Path::new(DEFAULT_PATH), true),
    }
}

/// The configuration that the shim's own name stands for: `/etc/husk/NAME.toml` for
/// `containerd-shim-husk-NAME-v2`, which containerd runs for the type `io.containerd.husk-NAME.v2`.
///
/// containerd 2.1 cannot start the containers of a handler that has options of its own and
/// `sandboxer = "shim"`; a link to the shim gives such a handler a configuration all the same.
fn named_by(program: &Path) -> Option<PathBuf> {
    let name = program.file_name()?.to_str()?;
    let name = name
        .strip_prefix("containerd-shim-husk-")?
        .strip_suffix("-v2")?;
    Some(Path::new(DEFAULT_PATH).with_file_name(format!("{name}.toml")))
}

/// Reads a configuration file. Missing is fine only where nobody named the file.
fn read_file(path: &Path, optional: bool) -> Result<Config, HandlerError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Config::parse(&path.display().to_string(), &text)?),
        Err(error) if optional && error.kind() == io::ErrorKind::NotFound => Ok(Config::default()),
        Err(source) => Err(HandlerError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The message's name: containerd writes it bare, others put a host before it.
fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(path: &str, body: &str) -> Any {
        let mut value = Vec::new();
        for (tag, text) in [(0x0a, "type"), (0x12, path), (0x1a, body)] {
            value.extend([tag, u8::try_from(text.len()).unwrap()]);
            value.extend(text.as_bytes());
        }
        Any {
            type_url: "runtimeoptions.v1.Options".to_owned(),
            value,
            ..Any::default()
        }
    }

    fn runc(options: &RuncOptions) -> Any {
        Any {
            type_url: "containerd.runc.v1.Options".to_owned(),
            value: options.write_to_bytes().unwrap(),
            ..Any::default()
        }
    }

    #[test]
    fn generic_options_are_decoded() {
        let options = GenericOptions::parse(&generic("/a", "b = 1").value).unwrap();
        assert_eq!(options.config_path, "/a");
        assert_eq!(options.config_body, "b = 1");
        assert!(GenericOptions::parse(b"\x1a\x05a").is_err());
    }

    #[test]
    fn a_configuration_that_was_named_must_exist() {
        let handler = Handler::read(&[generic("/nonexistent/husk.toml", "")]);
        let error = handler.config.unwrap_err().to_string();
        assert!(error.contains("/nonexistent/husk.toml"), "{error}");
    }

    #[test]
    fn the_shims_name_may_stand_for_a_configuration() {
        let named = |program: &str| named_by(Path::new(program));
        let strict = Some(PathBuf::from("/etc/husk/strict.toml"));
        assert_eq!(named("/usr/bin/containerd-shim-husk-strict-v2"), strict);
        assert_eq!(named("/usr/bin/containerd-shim-husk-v2"), None);
        assert_eq!(named("husk"), None);
    }

    #[test]
    fn runc_options_keep_what_makes_sense_and_name_the_rest() {
        let options = [runc(&RuncOptions {
            systemd_cgroup: true,
            shim_cgroup: "/shims".to_owned(),
            binary_name: "crun".to_owned(),
            ..RuncOptions::default()
        })];
        let handler = Handler::read(&options);
        assert_eq!(handler.systemd_cgroup, Some(true));
        assert_eq!(shim_cgroup(&options).as_deref(), Some("/shims"));
        assert_eq!(handler.ignored, ["BinaryName"]);
        assert!(handler.config.is_ok());
    }

    #[test]
    fn options_of_another_runtime_are_an_error_for_the_sandbox() {
        let other = Any {
            type_url: "io.example.Options".to_owned(),
            ..Any::default()
        };
        let error = Handler::read(&[other]).config.unwrap_err().to_string();
        assert!(error.contains("io.example.Options"), "{error}");
    }

    #[test]
    fn an_extension_that_is_no_runtime_option_is_passed_over() {
        let other = Any {
            type_url: "containerd.io/cri.v1.PodSandboxConfig".to_owned(),
            ..Any::default()
        };
        let handler = Handler::read(&[
            other,
            runc(&RuncOptions {
                systemd_cgroup: true,
                ..RuncOptions::default()
            }),
        ]);
        assert_eq!(handler.systemd_cgroup, Some(true));
    }
}
