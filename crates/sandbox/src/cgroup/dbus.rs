//! As much D-Bus as it takes to call methods of systemd; see the D-Bus specification.
//!
//! Messages are written and read in little-endian order. Of a reply, only whether it is an error
//! is of interest.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The system bus, at its well-known address.
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// systemd itself, for root, on machines without a bus.
const SYSTEMD: &str = "/run/systemd/private";

/// How long systemd may take to answer: it may be busy starting a node's pods.
const PATIENCE: Duration = Duration::from_secs(30);

/// The largest message the specification allows.
const LARGEST: u32 = 128 << 20;

/// A value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// `b`
    Bool(bool),
    /// `t`
    U64(u64),
    /// `s`
    String(String),
    /// `ay`
    Bytes(Vec<u8>),
    /// `au`
    U32s(Vec<u32>),
}

/// Why a call failed.
#[derive(Debug)]
pub(super) enum CallError {
    /// systemd refused: the name of the error and its message.
    Refused(String, String),
    /// It could not be asked.
    Failed(io::Error),
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// A connection to systemd.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    serial: u32,
}

impl Connection {
    /// Connects by the system bus, or to systemd itself where there is no bus.
    pub(super) fn open() -> io::Result<Self> {
        match Self::connect(SYSTEM_BUS) {
            Ok(mut connection) => {
                // A bus wants to be greeted before anything else; systemd itself does not.
                let bus = Target {
                    name: BUS,
                    path: "/org/freedesktop/DBus",
                    interface: BUS,
                };
                connection
                    .call_on(&bus, "Hello", &Body::default())
                    .map_err(|error| match error {
                        CallError::Failed(error) => error,
                        CallError::Refused(name, text) => {
                            io::Error::other(format!("{name}: {text}"))
                        }
                    })?;
                Ok(connection)
            }
            Err(bus) => Self::connect(SYSTEMD).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("{SYSTEM_BUS}: {bus}; {SYSTEMD}: {error}"),
                )
            }),
        }
    }

    fn connect(path: &str) -> io::Result<Self> {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let uid = nix::unistd::geteuid().to_string();
        let uid: String = uid.bytes().map(|digit| format!("{digit:02x}")).collect();
        stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
        let answer = line(&mut stream)?;
        if !answer.starts_with("OK ") {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, answer));
        }
        stream.write_all(b"BEGIN\r\n")?;
        Ok(Self { stream, serial: 0 })
    }

    /// Calls a method of systemd's manager and waits for its answer.
    pub(super) fn call(&mut self, method: &str, body: &Body) -> Result<(), CallError> {
        let manager = Target {
            name: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
        };
        self.call_on(&manager, method, body)
    }

    fn call_on(&mut self, target: &Target, method: &str, body: &Body) -> Result<(), CallError> {
        self.serial += 1;
        self.stream
            .write_all(&encode(self.serial, target, method, body)?)?;
        loop {
            let reply = Message::read(&mut self.stream)?;
            // Signals, such as that a name was acquired, come in between.
            if reply.reply_to == Some(self.serial) {
                return match reply.error {
                    Some(name) => Err(CallError::Refused(name, reply.text)),
                    None => Ok(()),
                };
            }
        }
    }
}

const BUS: &str = "org.freedesktop.DBus";

/// Whom a call is for.
struct Target {
    name: &'static str,
    path: &'static str,
    interface: &'static str,
}

fn line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    // Not a byte more: what follows is in another form.
    while !line.ends_with(b"\r\n") && line.len() < 1024 {
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// Arguments, with their signature.
#[derive(Debug, Default)]
pub(super) struct Body {
    signature: String,
    bytes: Vec<u8>,
}

impl Body {
    /// Appends a string.
    pub(super) fn string(mut self, text: &str) -> Self {
        self.signature.push('s');
        put_string(&mut self.bytes, text);
        self
    }

    /// Appends a truth value.
    pub(super) fn bool(mut self, value: bool) -> Self {
        self.signature.push('b');
        put_u32(&mut self.bytes, u32::from(value));
        self
    }

    /// Appends properties, `a(sv)`.
    pub(super) fn properties(mut self, properties: &[(&str, Value)]) -> Self {
        self.signature.push_str("a(sv)");
        put_array(&mut self.bytes, 8, |bytes| {
            for (name, value) in properties {
                align(bytes, 8);
                put_string(bytes, name);
                put_variant(bytes, value);
            }
        });
        self
    }

    /// Appends the properties of no other units, an empty `a(sa(sv))`.
    pub(super) fn no_units(mut self) -> Self {
        self.signature.push_str("a(sa(sv))");
        put_array(&mut self.bytes, 8, |_| {});
        self
    }
}

fn align(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn put_u32(bytes: &mut Vec<u8>, value: u32) {
    align(bytes, 4);
    bytes.extend(value.to_le_bytes());
}

/// Lengths fit: what is sent is made of names and numbers, far below the largest message.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn put_string(bytes: &mut Vec<u8>, text: &str) {
    put_u32(bytes, length(text.len()));
    bytes.extend(text.bytes());
    bytes.push(0);
}

fn put_signature(bytes: &mut Vec<u8>, signature: &str) {
    bytes.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
    bytes.extend(signature.bytes());
    bytes.push(0);
}

/// An array's length does not count the padding before its first element.
fn put_array(bytes: &mut Vec<u8>, element: usize, fill: impl FnOnce(&mut Vec<u8>)) {
    put_u32(bytes, 0);
    let at = bytes.len() - 4;
    align(bytes, element);
    let start = bytes.len();
    fill(bytes);
    let filled = length(bytes.len() - start).to_le_bytes();
    if let Some(field) = bytes.get_mut(at..at + 4) {
        field.copy_from_slice(&filled);
    }
}

fn put_variant(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Bool(value) => {
            put_signature(bytes, "b");
            put_u32(bytes, u32::from(*value));
        }
        Value::U64(value) => {
            put_signature(bytes, "t");
            align(bytes, 8);
            bytes.extend(value.to_le_bytes());
        }
        Value::String(text) => {
            put_signature(bytes, "s");
            put_string(bytes, text);
        }
        Value::Bytes(values) => {
            put_signature(bytes, "ay");
            put_array(bytes, 1, |bytes| bytes.extend(values));
        }
        Value::U32s(values) => {
            put_signature(bytes, "au");
            put_array(bytes, 4, |bytes| {
                values.iter().for_each(|value| put_u32(bytes, *value))
            });
        }
    }
}

// Header fields, by the numbers of the specification.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

fn encode(serial: u32, target: &Target, method: &str, body: &Body) -> io::Result<Vec<u8>> {
    const METHOD_CALL: u8 = 1;
    const NO_FLAGS: u8 = 0;
    const VERSION: u8 = 1;
    let mut bytes = vec![b'l', METHOD_CALL, NO_FLAGS, VERSION];
    put_u32(&mut bytes, length(body.bytes.len()));
    put_u32(&mut bytes, serial);
    put_array(&mut bytes, 8, |bytes| {
        for (field, kind, text) in [
            (PATH, "o", target.path),
            (INTERFACE, "s", target.interface),
            (MEMBER, "s", method),
            (DESTINATION, "s", target.name),
        ] {
            align(bytes, 8);
            bytes.push(field);
            put_signature(bytes, kind);
            put_string(bytes, text);
        }
        if !body.signature.is_empty() {
            align(bytes, 8);
            bytes.push(SIGNATURE);
            put_signature(bytes, "g");
            put_signature(bytes, &body.signature);
        }
    });
    align(&mut bytes, 8);
    bytes.extend(&body.bytes);
    if bytes.len() > LARGEST as usize {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the message is too large",
        ));
    }
    Ok(bytes)
}

/// What is of interest in a message that was received.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    /// The serial of the call it answers.
    reply_to: Option<u32>,
    /// The name of the error it is.
    error: Option<String>,
    /// The message of the error.
    text: String,
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed D-Bus message")
}

impl Message {
    fn read(stream: &mut impl Read) -> io::Result<Self> {
        let mut fixed = [0; 16];
        stream.read_exact(&mut fixed)?;
        let mut head = Reader {
            bytes: &fixed,
            at: 0,
        };
        if head.take(4)?.first() != Some(&b'l') {
            return Err(malformed());
        }
        let (body, _serial, fields) = (head.u32()?, head.u32()?, head.u32()?);
        let padded = fields.checked_next_multiple_of(8).ok_or_else(malformed)?;
        let rest = padded
            .checked_add(body)
            .filter(|rest| *rest <= LARGEST)
            .ok_or_else(malformed)?;
        let mut bytes = vec![0; rest as usize];
        stream.read_exact(&mut bytes)?;
        let (header, body) = bytes
            .split_at_checked(padded as usize)
            .ok_or_else(malformed)?;
        let header = header.get(..fields as usize).ok_or_else(malformed)?;
        Self::parse(header, body)
    }

    fn parse(header: &[u8], body: &[u8]) -> io::Result<Self> {
        let mut message = Self::default();
        let mut has_text = false;
        // The header's fields start at byte 16 of the message: aligned as if at 0.
        let mut reader = Reader {
            bytes: header,
            at: 0,
        };
        while reader.at < header.len() {
            reader.align(8);
            let field = reader.byte()?;
            let kind = reader.signature()?;
            match (field, kind.as_str()) {
                (REPLY_SERIAL, "u") => message.reply_to = Some(reader.u32()?),
                (ERROR_NAME, "s") => message.error = Some(reader.string()?),
                (SIGNATURE, "g") => has_text = reader.signature()?.starts_with('s'),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.u32()?),
                (_, "s" | "o") => drop(reader.string()?),
                _ => return Err(malformed()),
            }
        }
        if has_text {
            message.text = Reader { bytes: body, at: 0 }.string()?;
        }
        Ok(message)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let end = self.at.checked_add(count).ok_or_else(malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(malformed)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> io::Result<u8> {
        self.take(1)?.first().copied().ok_or_else(malformed)
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.align(4);
        let bytes = self.take(4)?.try_into().map_err(|_| malformed())?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn string(&mut self) -> io::Result<String> {
        let count = self.u32()? as usize;
        self.text(count)
    }

    fn signature(&mut self) -> io::Result<String> {
        let count = usize::from(self.byte()?);
        self.text(count)
    }

    fn text(&mut self, count: usize) -> io::Result<String> {
        let text = String::from_utf8_lossy(self.take(count)?).into_owned();
        self.take(1)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn properties_are_laid_out_as_specified() {
        let body = Body::default()
            .string("a")
            .properties(&[("B", Value::U64(7)), ("C", Value::Bytes(vec![1, 2]))]);
        assert_eq!(body.signature, "sa(sv)");
        #[rustfmt::skip]
        let expected = [
            1, 0, 0, 0, b'a', 0, 0, 0,        // string, padding
            42, 0, 0, 0, 0, 0, 0, 0,          // array: length without the padding, padding
            1, 0, 0, 0, b'B', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0, // name, signature, padding
            7, 0, 0, 0, 0, 0, 0, 0,           // value
            1, 0, 0, 0, b'C', 0, 2, b'a', b'y', 0, 0, 0, 2, 0, 0, 0, 1, 2,
        ];
        assert_eq!(body.bytes, expected);
    }

    #[test]
    fn a_call_reads_back_as_a_message_of_no_interest() {
        let target = Target {
            name: "n",
            path: "/p",
            interface: "i",
        };
        let bytes = encode(3, &target, "M", &Body::default().string("hello")).unwrap();
        let message = Message::read(&mut bytes.as_slice()).unwrap();
        assert_eq!(
            message,
            Message {
                text: "hello".into(),
                ..Message::default()
            }
        );
    }

    #[test]
    fn an_error_is_told_by_name_and_text() {
        let mut header = vec![REPLY_SERIAL, 1, b'u', 0, 9, 0, 0, 0];
        header.extend([ERROR_NAME, 1, b's', 0, 3, 0, 0, 0]);
        header.extend(b"a.b\0\0\0\0\0");
        header.extend([SIGNATURE, 1, b'g', 0, 1, b's', 0]);
        let message = Message::parse(&header, b"\x02\0\0\0no\0").unwrap();
        assert_eq!(
            message,
            Message {
                reply_to: Some(9),
                error: Some("a.b".into()),
                text: "no".into()
            }
        );
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            // Errors are fine, panics are not.
            drop(Message::read(&mut bytes.as_slice()));
            drop(Message::parse(&bytes, &bytes));
        }
    }
}
