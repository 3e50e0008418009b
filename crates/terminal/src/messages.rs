//! What a command itself says, on stderr.
use std::fmt::Display;
use std::io::Write as _;

use log::{LevelFilter, Log, Metadata, Record};

/// Says a line. That nobody reads stderr any more is no reason to stop.
pub fn say(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Says why `program` failed, with all causes, each once: causes are often part of what they caused.
pub fn error(program: &str, error: &anyhow::Error) {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    say(format_args!("{program}: {text}"));
}

struct Stderr {
    program: &'static str,
}

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = record.level().as_str().to_lowercase();
        say(format_args!("{}: {level}: {}", self.program, record.args()));
    }

    fn flush(&self) {}
}

/// Lets the warnings of libraries be seen, and more if asked for: debug messages for a `verbose` of
/// 1, all for more.
pub fn init(program: &'static str, verbose: u8) {
    log::set_max_level(match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    });
    // Only a second logger could fail to be set.
    let _ = log::set_boxed_logger(Box::new(Stderr { program }));
}
