//! What libcontainer logs as it fails. Its errors travel between its processes as one line each,
//! without their causes: "failed to prepare rootfs". The causes are in its log.
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, PipeReader, Read, Write as _};
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Dispatch, Event, Level, Metadata, Subscriber, dispatcher};

/// How many complaints tell something: the second has the errno where the first does not.
const TELLING: usize = 2;

/// Collects what this process and those it forks log as errors from now on.
pub(crate) struct Complaints {
    reader: PipeReader,
}

impl Complaints {
    /// At most once in a process.
    ///
    /// # Errors
    /// What pipe(2) says, or that someone else collects already.
    pub(crate) fn collect() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        // A full pipe must hold nobody up: the first complaints are the causes.
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let pipe = File::from(OwnedFd::from(writer));
        dispatcher::set_global_default(Dispatch::new(Collector { pipe }))
            .map_err(io::Error::other)?;
        Ok(Self { reader })
    }

    /// The first complaints so far: what failed, and what that was part of. Those after them only
    /// repeat it.
    pub(crate) fn first(self) -> Option<String> {
        // Processes that still hang hold the pipe open: what is there is all there is.
        fcntl(&self.reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok()?;
        let mut text = Vec::new();
        let _ = File::from(OwnedFd::from(self.reader)).read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        let first: Vec<&str> = text.lines().take(TELLING).collect();
        (!first.is_empty()).then(|| first.join("; "))
    }
}

struct Collector {
    pipe: File,
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let line = format!("{}\n", line.text().replace('\n', " "));
        // Without it the error says less, that is all.
        let _ = (&self.pipe).write_all(line.as_bytes());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        // Spans are not looked at; an id must not be 0.
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event as a line: what was done, to what, and why not.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn text(&self) -> String {
        if self.fields.is_empty() {
            self.message.clone()
        } else {
            format!("{} ({})", self.message, self.fields)
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a string does not fail.
            let _ = write!(self.message, "{value:?}");
            return;
        }
        let separator = if self.fields.is_empty() { "" } else { ", " };
        let _ = write!(self.fields, "{separator}{}: {value:?}", field.name());
    }
}
