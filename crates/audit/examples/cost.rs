//! What a line of the audit record costs the shim that writes it: processor time, all of it.
//!
//! ```sh
//! cargo run --release -p husk-audit --example cost -- /var/tmp/record
//! ```
//!
//! First the write alone, of a line that is ready; then all that a shim does for a line: alone, in
//! lots of five as a chain of five plugins gives them, and with each line its own writer, as a pod that
//! is asked about once. Then what it costs to keep a question, which is compressed, and to find that it
//! is there. Leave a minute between two runs: ext4 looks long for the place of a new file where many
//! were just removed.
use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use husk_audit::{Questions, Writer};
use husk_scope::audit::{Answer, Line, Pod};
use husk_scope::config::Audit;
use nix::time::{ClockId, clock_gettime};
use oci_spec::runtime::Spec;

/// How many lines, or questions, are written for each figure.
const LINES: u32 = 5_000;

fn main() -> Result<(), Box<dyn Error>> {
    let dir: PathBuf = std::env::args().nth(1).ok_or("usage: cost DIR")?.into();
    let settings = Audit {
        dir: dir.clone(),
        ..Audit::default()
    };
    let json = line().to_json()?;
    fs::create_dir_all(&dir)?;
    let mut plain = OpenOptions::new()
        .append(true)
        .create(true)
        .open(dir.join("plain"))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "a line of {} bytes", json.len())?;
    let writer = Writer::new(&settings);
    let figures = [
        (
            "the write alone",
            per_line(1, || Ok(plain.write_all(&json)?))?,
        ),
        ("a line", per_line(1, || Ok(writer.append(&mut [line()])?))?),
        (
            "five at once",
            per_line(5, || Ok(writer.append(&mut [(); 5].map(|()| line()))?))?,
        ),
        (
            "a writer's first",
            per_line(1, || Ok(Writer::new(&settings).append(&mut [line()])?))?,
        ),
    ];
    for (what, cost) in figures {
        writeln!(out, "{what}: {:.1} µs", cost.as_secs_f64() * 1e6)?;
    }
    let questions = Questions::new(&dir, 1 << 30);
    let mut number = 0_u32;
    let new = per_line(1, || {
        number += 1;
        let json = serde_json::to_vec(&serde_json::to_value(Spec::default())?)?;
        Ok(questions.keep(&format!("{number:064x}"), &json, false)?)
    })?;
    let again = per_line(1, || {
        let json = serde_json::to_vec(&serde_json::to_value(Spec::default())?)?;
        Ok(questions.keep(&format!("{number:064x}"), &json, false)?)
    })?;
    writeln!(
        out,
        "a question of {} bytes: {:.1} µs",
        serde_json::to_vec(&Spec::default())?.len(),
        new.as_secs_f64() * 1e6
    )?;
    writeln!(out, "the same again: {:.1} µs", again.as_secs_f64() * 1e6)?;
    fs::remove_dir_all(&dir)?;
    Ok(())
}

/// The processor time of a line, where each call writes so many.
fn per_line(
    lines: u32,
    mut write: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<Duration, Box<dyn Error>> {
    let begun = used()?;
    for _ in 0..LINES / lines {
        write()?;
    }
    Ok((used()? - begun) / LINES)
}

/// The processor time of this process, the kernel's part with it.
fn used() -> Result<Duration, Box<dyn Error>> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

fn line() -> Line {
    let digest = "0123456789abcdef".repeat(4);
    Line {
        pod: Pod {
            namespace: "default".into(),
            name: "web-6d4cf56db6-x2x7k".into(),
            uid: "00000000-0000-0000-0000-000000000000".into(),
            id: digest.clone(),
        },
        container: Some("app".into()),
        event: "scope-container".into(),
        plugin: Some("pid-group".into()),
        digest: digest.clone(),
        answer: Answer::Scopes,
        decided: Some("pid=POD".into()),
        counted: true,
        micros: 100,
        input: digest,
        ..Line::default()
    }
}
