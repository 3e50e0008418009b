//! Lines for journald, by its native protocol: see systemd.journal-fields(7) and
//! <https://systemd.io/JOURNAL_NATIVE_PROTOCOL>.
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use husk_scope::audit::Line;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Priorities of syslog(3): a refusal that counts is worth a look.
const WARNING: &str = "4";
const INFO: &str = "6";

/// journald, as far as a line is sent there.
#[derive(Debug)]
pub(crate) struct Journal {
    socket: PathBuf,
    /// Made at the first line.
    own: OnceLock<UnixDatagram>,
}

impl Journal {
    /// The node's.
    pub(crate) fn of_the_node() -> Self {
        Self::at(Path::new(SOCKET))
    }

    fn at(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            own: OnceLock::new(),
        }
    }

    /// Sends a line. Does not wait for a journal that is slow: what it has no room for is an error.
    ///
    /// # Errors
    /// Nobody listens, or there is no room.
    pub(crate) fn send(&self, line: &Line) -> io::Result<()> {
        let own = match self.own.get() {
            Some(own) => own,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                self.own.get_or_init(|| socket)
            }
        };
        own.send_to(&datagram(line)?, &self.socket).map(drop)
    }
}

fn datagram(line: &Line) -> io::Result<Vec<u8>> {
    let json = line.to_json()?;
    // What is sent is what is on record, as long as it is there.
    let line: Line = serde_json::from_slice(&json)?;
    let refused = line.answer.refuses() && line.counted;
    let mut fields = Vec::with_capacity(json.len().saturating_mul(2));
    field(&mut fields, "MESSAGE", &line.to_string());
    field(
        &mut fields,
        "PRIORITY",
        if refused { WARNING } else { INFO },
    );
    field(&mut fields, "SYSLOG_IDENTIFIER", "husk");
    field(&mut fields, "HUSK_NAMESPACE", &line.pod.namespace);
    field(&mut fields, "HUSK_POD", &line.pod.name);
    field(&mut fields, "HUSK_POD_UID", &line.pod.uid);
    field(&mut fields, "HUSK_POD_ID", &line.pod.id);
    field(&mut fields, "HUSK_EVENT", &line.event);
    field(&mut fields, "HUSK_ANSWER", line.answer.name());
    if let Some(container) = &line.container {
        field(&mut fields, "HUSK_CONTAINER", container);
    }
    if let Some(plugin) = &line.plugin {
        field(&mut fields, "HUSK_PLUGIN", plugin);
    }
    let json = String::from_utf8_lossy(&json);
    field(&mut fields, "HUSK_AUDIT", json.trim_end());
    Ok(fields)
}

/// A field; a value of several lines comes with its length.
fn field(fields: &mut Vec<u8>, name: &str, value: &str) {
    fields.extend(name.as_bytes());
    if value.contains('\n') {
        let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
        fields.push(b'\n');
        fields.extend(length.to_le_bytes());
    } else {
        fields.push(b'=');
    }
    fields.extend(value.as_bytes());
    fields.push(b'\n');
}

#[cfg(test)]
mod tests {
    use husk_scope::audit::{Answer, Pod};

    use super::*;

    fn line(container: &str) -> Line {
        Line {
            pod: Pod {
                name: "web".into(),
                ..Pod::default()
            },
            container: Some(container.into()),
            event: "container-creating".into(),
            plugin: Some("gate".into()),
            answer: Answer::Denied,
            reason: Some("no".into()),
            counted: true,
            ..Line::default()
        }
    }

    #[test]
    fn a_line_comes_as_fields_and_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let journald = UnixDatagram::bind(&socket).unwrap();
        let journal = Journal::at(&socket);
        let line = line("app");
        journal.send(&line).unwrap();
        let mut datagram = vec![0; 1 << 16];
        let read = journald.recv(&mut datagram).unwrap();
        let text = String::from_utf8(datagram[..read].to_vec()).unwrap();
        let field = |name: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        };
        assert_eq!(
            field("MESSAGE"),
            Some("web app container-creating: gate denied: no")
        );
        assert_eq!(field("PRIORITY"), Some("4"));
        assert_eq!(field("HUSK_CONTAINER"), Some("app"));
        let json: Line = serde_json::from_str(field("HUSK_AUDIT").unwrap()).unwrap();
        assert_eq!(json, line);
    }

    #[test]
    fn a_name_of_several_lines_makes_no_fields_of_its_own() {
        let bytes = datagram(&line("app\nPRIORITY=0")).unwrap();
        let value = b"app\nPRIORITY=0";
        let mut expected = b"HUSK_CONTAINER\n".to_vec();
        expected.extend(14_u64.to_le_bytes());
        expected.extend(value);
        assert!(bytes.windows(expected.len()).any(|part| part == expected));
    }

    #[test]
    fn a_journal_that_is_not_there_or_does_not_read_is_an_error_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let journal = Journal::at(&socket);
        let refused = journal.send(&line("app")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        let _silent = UnixDatagram::bind(&socket).unwrap();
        let full = (0..100_000).find_map(|_| journal.send(&line("app")).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
    }
}
