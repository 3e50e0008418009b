//! What a shim answers to `start`.
use serde::Deserialize;

/// Where the shim listens, and which Task API it speaks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Reply {
    pub(super) version: u32,
    pub(super) address: String,
    #[serde(default = "ttrpc")]
    protocol: String,
}

fn ttrpc() -> String {
    String::from("ttrpc")
}

/// Reads the JSON of contract 3, or the bare address of shims older than containerd 1.7, which
/// speak version 2.
pub(super) fn parse(output: &str) -> Result<Reply, String> {
    let output = output.trim();
    let reply = if output.starts_with('{') {
        serde_json::from_str(output).map_err(|error| error.to_string())?
    } else {
        Reply {
            version: 2,
            address: output.to_owned(),
            protocol: ttrpc(),
        }
    };
    if !(2..=3).contains(&reply.version) {
        return Err(format!(
            "version {} is not known, only 2 and 3",
            reply.version
        ));
    }
    if reply.protocol != "ttrpc" {
        return Err(format!(
            "protocol {} is not supported, only ttrpc",
            reply.protocol
        ));
    }
    if !reply.address.starts_with("unix://") {
        return Err(String::from("it holds no unix:// address"));
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let json = r#"{"version":3,"address":"unix:///run/a.sock","protocol":"ttrpc"}"#;
        assert_eq!(parse(json).unwrap().version, 3);
        let bare = parse("unix:///run/containerd/s/abc\n").unwrap();
        assert_eq!(
            (bare.version, bare.address.as_str()),
            (2, "unix:///run/containerd/s/abc")
        );
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for bad in [
            "",
            "panic: oops",
            r#"{"version":4,"address":"unix:///a","protocol":"ttrpc"}"#,
            r#"{"version":3,"address":"unix:///a","protocol":"grpc"}"#,
            r#"{"version":3}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
