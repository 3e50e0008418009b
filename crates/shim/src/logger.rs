//! The log: one logfmt line per event, into the fifo `log` of the bundle (contract 7).
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::fcntl::OFlag;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The most a line may have: PIPE_BUF, up to which pipe(7) never writes a part of it.
const MAX_LINE: usize = 4096;

/// Writes lines, and drops them while nobody reads.
struct Logger {
    output: File,
    /// What ends every line: which pod it is about.
    fields: String,
    /// Lines lost since the last one written.
    dropped: AtomicU64,
}

/// Sends this process's log, and its panics, to the fifo at `path`.
///
/// The fifo is opened for reading as well, so that opening it does not wait for a reader and
/// writing without one is no error; when it is full, lines are dropped and counted.
///
/// # Errors
/// There is no such fifo. Then nothing is logged.
pub(crate) fn init(path: &Path, namespace: &str, id: &str, debug: bool) -> io::Result<()> {
    let output = OpenOptions::new()
        .read(true)
        .append(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    let logger = Logger {
        output,
        fields: format!(" namespace={} id={}", quoted(namespace), quoted(id)),
        dropped: AtomicU64::new(0),
    };
    log::set_boxed_logger(Box::new(logger)).map_err(io::Error::other)?;
    log::set_max_level(if debug {
        LevelFilter::Debug
    } else {
        LevelFilter::Info
    });
    log_panics();
    Ok(())
}

/// A daemon's stderr is /dev/null: without this a panic would leave no trace.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        log::error!("{panic}");
    }));
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let line = line(
            OffsetDateTime::now_utc(),
            record.level(),
            &record.args().to_string(),
            dropped,
            &self.fields,
        );
        if (&self.output).write_all(line.as_bytes()).is_err() {
            self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// A line as containerd's own shims write it; an overlong message loses its end.
fn line(now: OffsetDateTime, level: Level, message: &str, dropped: u64, fields: &str) -> String {
    let level = match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let mut end = fields.to_owned();
    if dropped > 0 {
        // Writing to a String cannot fail.
        let _ = write!(end, " dropped={dropped}");
    }
    end.push('\n');
    let time = now.format(&Rfc3339).unwrap_or_default();
    let mut line = format!("time=\"{time}\" level={level} msg={}", quoted(message));
    let room = MAX_LINE.saturating_sub(end.len());
    if line.len() > room {
        let mut cut = room.saturating_sub(1);
        while !line.is_char_boundary(cut) {
            cut -= 1;
        }
        line.truncate(cut);
        // Half an escape would take the closing quote with it.
        line.truncate(line.trim_end_matches('\\').len());
        line.push('"');
    }
    line + &end
}

/// A logfmt value: in quotes, with what would end the value or the line escaped.
fn quoted(value: &str) -> String {
    format!("{value:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_logfmt() {
        let line = line(
            OffsetDateTime::UNIX_EPOCH,
            Level::Warn,
            "say \"hi\"\nthen go",
            2,
            " id=\"a\"",
        );
        assert_eq!(
            line,
            "time=\"1970-01-01T00:00:00Z\" level=warning msg=\"say \\\"hi\\\"\\nthen go\" \
             id=\"a\" dropped=2\n"
        );
    }

    #[test]
    fn a_line_is_never_longer_than_a_pipe_writes_at_once() {
        let line = line(
            OffsetDateTime::UNIX_EPOCH,
            Level::Info,
            &"ä".repeat(MAX_LINE),
            0,
            " id=\"a\"",
        );
        assert!(line.len() <= MAX_LINE);
        assert!(line.ends_with("ä\" id=\"a\"\n"), "{line}");
    }

    #[test]
    fn a_fifo_without_a_reader_neither_blocks_nor_fails() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let open = |flags| {
            OpenOptions::new()
                .read(true)
                .append(true)
                .custom_flags(flags)
                .open(&path)
        };
        let logger = Logger {
            output: open(OFlag::O_NONBLOCK.bits()).unwrap(),
            fields: String::new(),
            dropped: AtomicU64::new(0),
        };
        log::set_max_level(LevelFilter::Info);
        let record = |text: &std::fmt::Arguments<'_>| {
            logger.log(&Record::builder().level(Level::Info).args(*text).build());
        };
        for _ in 0..100 {
            record(&format_args!("{}", "x".repeat(2000)));
        }
        let dropped = logger.dropped.load(Ordering::Relaxed);
        assert!(dropped > 0, "a pipe of 64 KiB holds no 100 such lines");

        // A reader comes: it finds the first lines whole, and then how many were lost.
        let mut first = vec![0; 40 * 4096];
        let read = nix::unistd::read(open(OFlag::O_NONBLOCK.bits()).unwrap(), &mut first).unwrap();
        let text = String::from_utf8(first[..read].to_vec()).unwrap();
        assert!(text.lines().all(|line| line.starts_with("time=")));
        record(&format_args!("back"));
        let read = nix::unistd::read(open(OFlag::O_NONBLOCK.bits()).unwrap(), &mut first).unwrap();
        let text = String::from_utf8(first[..read].to_vec()).unwrap();
        assert!(
            text.contains(&format!("msg=\"back\" dropped={dropped}")),
            "{text}"
        );
    }
}
