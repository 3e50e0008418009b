//! Programs, run with a deadline.
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a single step of a test may take: the guest is ten times slower than a real machine,
/// and the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// What a program said and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit status, 128 + signal when a signal ended it.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Output {
    /// The output of a program that must have succeeded.
    ///
    /// # Panics
    /// If it did not, with all that it said.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == 0, "expected success, got {self:#?}");
        self.stdout
    }
}

/// Runs a program to its end and collects its output.
///
/// # Panics
/// If it cannot be started or is not done by the [`DEADLINE`].
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    finish(command, Stdio::null(), |_| {})
}

/// Runs a program that reads this from its stdin, once it is ready, then the end of it.
///
/// # Panics
/// If it cannot be started or is not done by the [`DEADLINE`].
#[track_caller]
pub fn run_with_input(command: &mut Command, input: &str, until_ready: impl FnOnce()) -> Output {
    finish(command, Stdio::piped(), |child| {
        let mut stdin = child.stdin.take().unwrap();
        until_ready();
        stdin.write_all(input.as_bytes()).unwrap();
    })
}

#[track_caller]
fn finish(command: &mut Command, stdin: Stdio, started: impl FnOnce(&mut Child)) -> Output {
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    started(&mut child);
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let Some(code) = wait(&mut child, DEADLINE) else {
        child.kill().ok();
        child.wait().ok();
        panic!("{command:?} was not done after {DEADLINE:?}");
    };
    Output {
        code,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).ok();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for a child at most this long; `None` if it still runs then.
pub fn wait(child: &mut Child, limit: Duration) -> Option<i32> {
    let exited = poll(limit, || child.try_wait().unwrap())?;
    Some(
        exited
            .code()
            .unwrap_or_else(|| 128 + exited.signal().unwrap_or(0)),
    )
}

/// Asks again and again until there is an answer, or for at most this long.
pub fn poll<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// Waits until something is true.
///
/// # Panics
/// If it is not by the [`DEADLINE`].
#[track_caller]
pub fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    assert!(
        poll(DEADLINE, || is_true().then_some(())).is_some(),
        "waited {DEADLINE:?} in vain until {what}"
    );
}
