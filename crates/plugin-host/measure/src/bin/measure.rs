//! Says what a compiled plugin costs a shim: `measure CACHE FILE [SETTINGS]`, after `compile`.
//!
//! One plugin per process, for the first call must be a first one; no compiler in the build, for it
//! would be in the memory that is measured:
//!
//! ```sh
//! cargo run --release -p husk-plugin-measure --bin measure -- /tmp/cache no-host.wasm
//! ```
//!
//! Run sync(1) before: proc(5) counts what a file has not on disk yet, such as a binary that was just
//! built, as dirty.
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use husk_plugin_host::artifact::{self, Cache};
use husk_plugin_host::subject::{Container, Pod, Question};
use husk_plugin_host::{Host, Plugin, Settings};
use husk_scope::config::{self, Mode, OnError};
use husk_scope::{Scope, Scopes};
use oci_spec::runtime::{Process, Spec};

/// How many decisions are timed.
const CALLS: usize = 2000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "measure CACHE FILE [SETTINGS]";
    let cache = Cache::new(arguments.next().ok_or(usage)?);
    let file = arguments.next().ok_or(usage)?;
    let settings = arguments.next().unwrap_or_else(|| "{}".to_owned());
    let (_, digest) = artifact::read(Path::new(&file), None)?;
    let (pod, container, process) = (Arc::new(pod()), container(), Process::default());
    settle();
    let before = memory()?;

    let started = Instant::now();
    let host = Host::new()?;
    let code = cache
        .load(&host, &digest)?
        .ok_or("it is not compiled: run `compile` first")?;
    let plugin = Plugin::new(&host, &code, digest, with(settings))?;
    let exports = plugin.exports();
    let question = if exports.decides_scopes {
        Question::ScopeContainer(&container)
    } else if exports.decides_links {
        Question::LinkContainer(&container)
    } else {
        Question::ExecStarting(&container, &process)
    };
    let first = plugin.ask(&pod, &question);
    let cold = started.elapsed();
    let after = memory()?;

    let mut took: Vec<Duration> = (0..CALLS)
        .map(|_| plugin.ask(&pod, &question).took)
        .collect();
    took.sort();
    let at = |percent: usize| {
        took.get(took.len() * percent / 100)
            .copied()
            .unwrap_or_default()
    };
    let later = memory()?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{file}: {}: load and first call {cold:.2?}, p50 {:.1?}, p99 {:.1?}, \
         Private_Dirty +{} kB after the first call, +{} kB after {CALLS} more, Pss +{} kB",
        question.name(),
        at(50),
        at(99),
        after.private_dirty.saturating_sub(before.private_dirty),
        later.private_dirty.saturating_sub(before.private_dirty),
        after.pss.saturating_sub(before.pss),
    )?;
    writeln!(out, "  answered: {:?}", first.answer)?;
    Ok(())
}

fn with(settings: String) -> Settings {
    Settings {
        config: config::Plugin {
            name: "measured".to_owned(),
            path: "measured.wasm".into(),
            sha256: None,
            mode: Mode::Enforce,
            on_error: OnError::Deny,
            deadline: Duration::from_millis(50),
            memory: 64 << 20,
            settings,
            settings_at: None,
        },
        seccomp_profiles: Arc::default(),
    }
}

/// What the process has to itself, in kB.
struct Memory {
    private_dirty: u64,
    pss: u64,
}

fn memory() -> Result<Memory, Box<dyn Error>> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let field = |name: &str| -> Result<u64, Box<dyn Error>> {
        let line = rollup
            .lines()
            .find(|line| line.starts_with(name))
            .ok_or("no such field")?;
        Ok(line.split_whitespace().nth(1).ok_or("no value")?.parse()?)
    };
    Ok(Memory {
        private_dirty: field("Private_Dirty:")?,
        pss: field("Pss:")?,
    })
}

/// The first use of the allocator, of threads and of /proc is not the plugin's.
fn settle() {
    let _ = std::thread::spawn(|| vec![1_u8; 64 * 1024].len()).join();
    let _ = memory();
}

fn pod() -> Pod {
    Pod {
        id: "pod-id".to_owned(),
        name: "shop".to_owned(),
        namespace: "default".to_owned(),
        uid: "00000000-0000-0000-0000-000000000000".to_owned(),
        cgroup_parent: "/kubepods/pod".to_owned(),
        requested: Scopes::all(&Scope::Pod),
        containers: vec!["app".to_owned()],
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

fn container() -> Container {
    Container {
        id: "app-id".to_owned(),
        name: "app".to_owned(),
        requested: Scopes::all(&Scope::Pod),
        image: "docker.io/library/busybox:1".to_owned(),
        spec: Spec::default().into(),
    }
}
