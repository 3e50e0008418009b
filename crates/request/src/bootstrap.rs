//! What containerd tells `start`, whichever way it says it (contract 1 and 2).
use std::io::{self, IsTerminal, Read};

use containerd_shim::bootstrap::BootstrapParams;
use containerd_shim::{Flags, StartOpts};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;

use crate::Malformed;

/// The most that is read from stdin, as containerd's own shim library does.
const MAX_INPUT: u64 = 10 << 20;

/// Reads stdin to its end; a terminal counts as empty.
///
/// # Errors
/// What read(2) says.
pub fn read_stdin() -> io::Result<Vec<u8>> {
    let stdin = std::io::stdin();
    let mut input = Vec::new();
    if !stdin.is_terminal() {
        stdin.lock().take(MAX_INPUT).read_to_end(&mut input)?;
    }
    Ok(input)
}

/// Puts together flags, environment and stdin. The runtime options are the extensions.
///
/// # Errors
/// stdin is meant for another shim, or is neither bootstrap parameters nor options.
pub fn start_opts(flags: &Flags, input: &[u8]) -> Result<StartOpts, Malformed> {
    let mut opts = match params(flags, input)? {
        Some(params) => StartOpts::from(params),
        None => StartOpts {
            id: flags.id.clone(),
            namespace: flags.namespace.clone(),
            extensions: legacy_options(input)?.into_iter().collect(),
            ..StartOpts::default()
        },
    };
    if opts.address.is_empty() {
        opts.address.clone_from(&flags.address);
    }
    if opts.ttrpc_address.is_empty() {
        opts.ttrpc_address = std::env::var("TTRPC_ADDRESS").unwrap_or_default();
    }
    opts.debug |= flags.debug;
    Ok(opts)
}

/// The bootstrap parameters of containerd 2.3 and newer, if that is what `input` is.
///
/// A legacy `Any` parses as well, with its type in place of the id: only ids that agree with the
/// flags make it bootstrap parameters (contract 2).
fn params(flags: &Flags, input: &[u8]) -> Result<Option<BootstrapParams>, Malformed> {
    let Ok(params) = BootstrapParams::parse_from_bytes(input) else {
        return Ok(None);
    };
    if params.instance_id == flags.id && params.namespace == flags.namespace {
        return Ok(Some(params));
    }
    let any_would_fill = BootstrapParams {
        instance_id: params.instance_id.clone(),
        namespace: params.namespace.clone(),
        ..BootstrapParams::default()
    };
    if params == any_would_fill {
        return Ok(None);
    }
    Err(Malformed(format!(
        "stdin describes {}/{}, but the flags say {}/{}: it is meant for another shim",
        params.namespace, params.instance_id, flags.namespace, flags.id
    )))
}

/// The runtime options that containerd up to 2.2 sends.
///
/// # Errors
/// Bytes that are no `Any`.
pub fn legacy_options(input: &[u8]) -> Result<Option<Any>, Malformed> {
    let any = Any::parse_from_bytes(input).map_err(|error| {
        Malformed(format!(
            "stdin holds neither bootstrap parameters nor runtime options: {error}"
        ))
    })?;
    Ok((!any.type_url.is_empty()).then_some(any))
}

#[cfg(test)]
mod tests {
    use containerd_shim::bootstrap::Extension;

    use super::*;

    fn flags() -> Flags {
        Flags {
            id: "pod".to_owned(),
            namespace: "k8s.io".to_owned(),
            address: "/run/c.sock".to_owned(),
            ..Flags::default()
        }
    }

    fn options() -> Any {
        Any {
            type_url: "runtimeoptions.v1.Options".to_owned(),
            value: b"\x1a\x03a=1".to_vec(),
            ..Any::default()
        }
    }

    fn params() -> BootstrapParams {
        BootstrapParams {
            instance_id: "pod".to_owned(),
            namespace: "k8s.io".to_owned(),
            containerd_ttrpc_address: "/run/other.ttrpc".to_owned(),
            socket_dir: Some("/run/s".to_owned()),
            extensions: vec![Extension {
                value: Some(options()).into(),
                ..Extension::default()
            }],
            ..BootstrapParams::default()
        }
    }

    #[test]
    fn bootstrap_parameters_carry_options_and_addresses() {
        let opts = start_opts(&flags(), &params().write_to_bytes().unwrap()).unwrap();
        assert_eq!(opts.extensions, vec![options()]);
        assert_eq!(opts.ttrpc_address, "/run/other.ttrpc");
        assert_eq!(opts.socket_dir.as_deref(), Some("/run/s"));
        assert_eq!(
            opts.address, "/run/c.sock",
            "the flag fills what is missing"
        );
    }

    #[test]
    fn a_legacy_any_is_not_taken_for_bootstrap_parameters() {
        for any in [
            options(),
            Any {
                value: Vec::new(),
                ..options()
            },
        ] {
            let opts = start_opts(&flags(), &any.write_to_bytes().unwrap()).unwrap();
            assert_eq!(opts.extensions, vec![any]);
            assert_eq!(opts.id, "pod");
            assert_eq!(opts.namespace, "k8s.io");
        }
    }

    #[test]
    fn an_empty_stdin_means_no_options() {
        let opts = start_opts(&flags(), b"").unwrap();
        assert!(opts.extensions.is_empty());
        assert_eq!(opts.id, "pod");
    }

    #[test]
    fn parameters_of_another_shim_are_refused() {
        let mut params = params();
        params.instance_id = "else".to_owned();
        let error = start_opts(&flags(), &params.write_to_bytes().unwrap()).unwrap_err();
        assert!(error.to_string().contains("another shim"), "{error}");
    }

    #[test]
    fn garbage_is_refused() {
        assert!(start_opts(&flags(), b"\xff\xfe\x01").is_err());
    }
}
