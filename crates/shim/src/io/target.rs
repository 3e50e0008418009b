//! Where containerd wants a process's output: the schemes of contract 39.
use std::os::unix::fs::FileTypeExt;

use super::binary::Binary;
use crate::failure::Failure;

/// The stdio containerd asked a process to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stdio {
    /// A fifo; empty for none.
    pub(crate) stdin: String,
    /// A fifo or a URI; empty for none.
    pub(crate) stdout: String,
    /// A fifo or a URI; empty for none.
    pub(crate) stderr: String,
    /// Whether the process gets a terminal; stderr is then unused.
    pub(crate) terminal: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    Null,
    Fifo(String),
    File(String),
    Binary(Binary),
}

impl Target {
    /// Reads a fifo's path, or a URI with the scheme `fifo`, `file` or `binary`.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        match text.split_once("://") {
            _ if text.is_empty() => Ok(Self::Null),
            // Go's clients pass a plain file by its bare path too.
            None if is_plain_file(text) => Ok(Self::File(text.to_owned())),
            None => Ok(Self::Fifo(text.to_owned())),
            Some(("fifo", path)) => Ok(Self::Fifo(decode(path))),
            Some(("file", path)) => Ok(Self::File(decode(path))),
            Some(("binary", rest)) => Ok(Self::Binary(Binary::parse(rest))),
            Some((scheme, _)) => Err(Failure::invalid(format!(
                "stdio {text}: the scheme `{scheme}` is not known; use fifo, file or binary"
            ))),
        }
    }
}

fn is_plain_file(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && !found.file_type().is_fifo())
}

/// Decodes `%XX`; whatever is not that stays as it is.
pub(super) fn decode(text: &str) -> String {
    let mut rest = text.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((first, tail)) = rest.split_first() {
        let escaped = tail.split_at_checked(2).filter(|_| *first == b'%');
        let value = escaped.and_then(|(digits, after)| {
            let digits = std::str::from_utf8(digits).ok()?;
            Some((u8::from_str_radix(digits, 16).ok()?, after))
        });
        let (byte, after) = value.unwrap_or((*first, tail));
        decoded.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_are_told_apart() {
        let parse = |text| Target::parse(text).unwrap();
        assert_eq!(parse(""), Target::Null);
        assert_eq!(parse("/run/x-stdout"), Target::Fifo("/run/x-stdout".into()));
        assert_eq!(parse("fifo:///run/x"), Target::Fifo("/run/x".into()));
        assert_eq!(parse("file:///a%20b%zz"), Target::File("/a b%zz".into()));
        assert!(matches!(parse("binary:///bin/log?a=b"), Target::Binary(_)));
        let error = Target::parse("npipe://x").unwrap_err();
        assert!(error.message.contains("npipe"), "{error}");
    }

    #[test]
    fn a_bare_path_to_a_plain_file_is_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(Target::parse(path).unwrap(), Target::File(path.into()));
    }
}
