//! What happens to a pod, told on the terminal.
use std::collections::HashMap;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _, stderr, stdout};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use husk_engine::image::Step;
use husk_engine::pod::{Notice, Observer};
use tokio::sync::mpsc;

use crate::tail::{self, Tail};
use husk_terminal::messages::say;
use husk_terminal::{coloured, wants_colour};

/// How often a progress line is redrawn.
const REDRAW: Duration = Duration::from_millis(100);

/// Erases the line that the cursor is in: ECMA-48 EL.
const ERASE: &str = "\r\x1b[2K";

/// A log to be followed, or why it cannot be.
pub(crate) type Log = io::Result<Arc<Mutex<Tail>>>;

/// Tells what happens to a pod on stderr, and names the logs to be followed.
pub(crate) struct Printer {
    names: Vec<String>,
    /// Where the logs go; `None` follows none.
    logs: Option<mpsc::UnboundedSender<Log>>,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    followed: HashMap<String, Arc<Mutex<Tail>>>,
    /// Bytes here and in all, by layer.
    layers: HashMap<String, (u64, u64)>,
    drawn: Option<Instant>,
}

impl Printer {
    /// `names` are the pod's containers.
    pub(crate) fn new(names: Vec<String>, logs: Option<mpsc::UnboundedSender<Log>>) -> Self {
        Self {
            names,
            logs,
            progress: Mutex::default(),
        }
    }

    /// The beginning of each line of a container's log.
    fn prefix(&self, container: &str, colour: bool) -> String {
        let width = self.names.iter().map(String::len).max().unwrap_or_default();
        let index = self
            .names
            .iter()
            .position(|name| name == container)
            .unwrap_or_default();
        coloured(&format!("{container:width$} | "), index, colour)
    }

    fn about(&self, container: &str, text: impl Display) {
        let prefix = self.prefix(container, wants_colour(stderr().is_terminal()));
        say(format_args!("{prefix}{text}"));
    }

    fn follow(&self, container: &str, log: &Path) {
        let Some(logs) = &self.logs else { return };
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.followed.contains_key(container) {
            return;
        }
        let prefix = self.prefix(container, wants_colour(stdout().is_terminal()));
        let tail = Tail::open(log, prefix).map(|tail| Arc::new(Mutex::new(tail)));
        if let Ok(tail) = &tail {
            progress
                .followed
                .insert(container.to_owned(), Arc::clone(tail));
        }
        // The follower ends after the pod has.
        let _ = logs.send(tail);
    }

    /// Prints the rest of a container's log, before anything is said or done about its end.
    fn finish(&self, container: &str) {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = progress.followed.get(container) {
            // The follower meets the same error and tells of it.
            let _ = tail::lock(log).print(true);
        }
    }

    /// One line that is drawn over on a terminal; elsewhere only beginning and end are told.
    fn image(&self, image: &str, step: Step<'_>) {
        let terminal = stderr().is_terminal();
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let text = match step {
            Step::Resolving { reference } => format!("resolving {reference}"),
            Step::Downloading { layer, done, total } => {
                progress.layers.insert(layer.to_owned(), (done, total));
                let sum = |part: fn(&(u64, u64)) -> u64| progress.layers.values().map(part).sum();
                let (done, total): (u64, u64) = (sum(|layer| layer.0), sum(|layer| layer.1));
                format!("downloading {} of {}", megabytes(done), megabytes(total))
            }
            Step::Unpacking { .. } => String::from("unpacking"),
            Step::Ready { .. } => {
                let many = !progress.layers.is_empty();
                progress.layers.clear();
                if terminal {
                    let _ = write!(stderr(), "{ERASE}");
                }
                if many || !terminal {
                    say(format_args!("image {image}: ready"));
                }
                return;
            }
        };
        let due = progress.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW);
        if terminal && due {
            progress.drawn = Some(Instant::now());
            // That nobody sees the progress is no reason to stop.
            let _ = write!(stderr(), "{ERASE}image {image}: {text}");
        } else if matches!(step, Step::Resolving { .. }) && !terminal {
            say(format_args!("image {image}: {text}"));
        }
    }
}

impl Observer for Printer {
    fn notice(&self, notice: &Notice<'_>) {
        match *notice {
            Notice::Image { image, step } => self.image(image, *step),
            Notice::Sandbox { record } => {
                let way = if record.sandbox_api {
                    "the Sandbox API"
                } else {
                    "a pause container"
                };
                log::debug!(
                    "pod {} ({}) by {way} of {}",
                    record.name,
                    record.id,
                    record.address
                );
            }
            Notice::Started { container, log } => {
                self.about(container, "started");
                self.follow(container, log);
            }
            Notice::Exited {
                container,
                code,
                out_of_memory,
            } => {
                self.finish(container);
                if out_of_memory {
                    self.about(container, "killed: it used more memory than its limit");
                } else {
                    self.about(container, format_args!("exited with status {code}"));
                }
            }
            Notice::Readiness { container, reason } => match reason {
                None => self.about(container, format_args!("is ready")),
                Some(reason) => self.about(container, format_args!("is not ready: {reason}")),
            },
            Notice::Unwell { container, reason } => {
                self.about(container, format_args!("is stopped: {reason}"));
            }
            Notice::HookFailed { container, reason } => {
                self.about(container, format_args!("its preStop hook failed: {reason}"));
            }
            Notice::Restarting { container, after } => {
                self.about(
                    container,
                    format_args!("starts again in {} s", after.as_secs()),
                );
            }
            Notice::Ready { record } => log::debug!("pod {} runs", record.name),
            Notice::Stopping { grace } => {
                say(format_args!("stopping, at most {} s", grace.as_secs()));
            }
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}
