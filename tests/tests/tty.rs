//! A container with a terminal.
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;

use husk_tests::command::{DEADLINE, poll, wait};
use husk_tests::containerd::Containerd;
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A program on a terminal of 40 rows and 100 columns.
struct OnTerminal {
    child: Child,
    keyboard: File,
    line: OwnedFd,
    screen: Arc<Mutex<String>>,
}

impl OnTerminal {
    fn start(mut command: Command) -> Self {
        let size = Winsize {
            ws_row: 40,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None).unwrap();
        let end = || pty.slave.try_clone().unwrap();
        let child = command
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let keyboard = File::from(pty.master);
        let mut output = keyboard.try_clone().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let text = Arc::clone(&screen);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                text.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self {
            child,
            keyboard,
            line: pty.slave,
            screen,
        }
    }

    fn until_shown(&self, wanted: &str) {
        let is_shown = || self.shown().contains(wanted).then_some(());
        if poll(DEADLINE, is_shown).is_none() {
            panic!(
                "the terminal does not show `{wanted}` but {:?}",
                self.shown()
            );
        }
    }

    fn shown(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    fn write(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until a shell on it sees this size; ctr passes it on only after the start.
    fn until_sized(&mut self, rows_and_columns: &str) {
        self.write(&format!(
            "until [ \"$(stty size)\" = '{rows_and_columns}' ]; do sleep 0.1; done; echo si''zed {rows_and_columns}\n"
        ));
        self.until_shown(&format!("sized {rows_and_columns}"));
    }

    fn resize(&self, rows: u16, columns: u16) {
        let (rows, columns) = (rows.to_string(), columns.to_string());
        let mut stty = Command::new("stty");
        stty.args(["rows", &rows, "cols", &columns]);
        assert!(
            stty.stdin(self.line.try_clone().unwrap())
                .status()
                .unwrap()
                .success()
        );
        kill(
            Pid::from_raw(self.child.id().cast_signed()),
            Signal::SIGWINCH,
        )
        .unwrap();
    }

    fn end(mut self) -> i32 {
        wait(&mut self.child, DEADLINE).expect("the program ends")
    }
}

#[test]
fn a_container_has_a_terminal_of_the_clients_size() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let command = container.command(&["--rm", "--tty"], &["sh"]);
    let mut terminal = OnTerminal::start(command);
    terminal.write("tty\n");
    terminal.until_shown("/dev/pts/0");
    terminal.until_sized("40 100");
    terminal.resize(30, 90);
    terminal.until_sized("30 90");
    terminal.write("exit 7\n");
    assert_eq!(terminal.end(), 7);
}

#[test]
fn control_c_reaches_the_foreground_program() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    let script = "trap 'echo interrupted; exit 5' INT; echo rea''dy; while :; do sleep 0.1; done";
    let mut terminal =
        OnTerminal::start(container.command(&["--rm", "--tty"], &["sh", "-c", script]));
    terminal.until_shown("ready");
    terminal.write("\x03");
    terminal.until_shown("interrupted");
    assert_eq!(terminal.end(), 5);
}

#[test]
fn an_exec_has_a_terminal_of_its_own() {
    let containerd = Containerd::of_the_suite();
    let container = containerd.ctr().container();
    container.start(&["sleep", "1000000"]);
    let mut terminal = OnTerminal::start(container.exec_command(&["--tty"], &["sh"]));
    terminal.write("test -t 0 && test -t 1 && test -t 2 && echo three\" \"ends\n");
    terminal.until_shown("three ends");
    terminal.until_sized("40 100");
    terminal.write("exit 4\n");
    assert_eq!(terminal.end(), 4);
}
