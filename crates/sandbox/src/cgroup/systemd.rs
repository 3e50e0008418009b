//! Cgroups that systemd makes: a transient scope for each container.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::dbus::{Body, CallError, Connection, Value};
use super::driver::Unit;
use super::error::{Error, Result};
use super::paths;

/// How long systemd may take to start a unit once it has accepted it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The errors of systemd that are no failure.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// Starts a unit with a process in it and these limits, and waits until the process is in `path`,
/// the unit's cgroup.
pub(super) fn start(
    unit: &Unit,
    id: &str,
    pid: i32,
    limits: &[(&'static str, Value)],
    path: &Path,
) -> Result<()> {
    let mut properties = vec![
        (
            "Description",
            Value::String(format!("container {id} of husk")),
        ),
        ("DefaultDependencies", Value::Bool(false)),
        ("MemoryAccounting", Value::Bool(true)),
        ("CPUAccounting", Value::Bool(true)),
        ("IOAccounting", Value::Bool(true)),
        ("TasksAccounting", Value::Bool(true)),
        ("Slice", Value::String(unit.slice.clone())),
        // systemd makes no cgroups below it, and leaves those alone that others make.
        ("Delegate", Value::Bool(true)),
        // One whose processes were killed for want of memory has failed: it must not stay for that.
        ("CollectMode", Value::String("inactive-or-failed".into())),
        ("PIDs", Value::U32s(vec![pid.unsigned_abs()])),
    ];
    properties.extend(limits.iter().cloned());
    let body = Body::default()
        .string(&unit.name)
        .string("replace")
        .properties(&properties);
    let body = body.no_units();
    let mut connection = connect()?;
    let action = format!("start the unit {} in {}", unit.name, unit.slice);
    match connection.call("StartTransientUnit", &body) {
        // A failed unit of that name stays loaded until it is reset.
        Err(CallError::Refused(name, _)) if name == UNIT_EXISTS => {
            reset_failed(&mut connection, &unit.name)?;
            connection
                .call("StartTransientUnit", &body)
                .map_err(refused(&action))?;
        }
        started => started.map_err(refused(&action))?,
    }
    wait_for(pid, path, &unit.name)
}

/// Tells systemd the new limits of a unit, until it is stopped.
pub(super) fn set(unit: &str, limits: &[(&'static str, Value)]) -> Result<()> {
    if limits.is_empty() {
        return Ok(());
    }
    let body = Body::default().string(unit).bool(true).properties(limits);
    let action = format!("change the limits of the unit {unit}");
    connect()?
        .call("SetUnitProperties", &body)
        .map_err(refused(&action))
}

/// Whether systemd runs this node; see sd_booted(3).
pub(super) fn booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Whether a cgroup is where systemd keeps a scope; others do not make any there.
pub(super) fn is_scope(path: &Path) -> bool {
    let in_slice = path.parent().is_some_and(|slice| {
        slice == Path::new("/") || slice.extension().is_some_and(|it| it == "slice")
    });
    booted() && in_slice && path.extension().is_some_and(|it| it == "scope")
}

/// Stops a unit; one that systemd does not know is no error.
pub(super) fn stop(unit: &str) -> Result<()> {
    let body = Body::default().string(unit).string("replace");
    match connect()?.call("StopUnit", &body) {
        Err(CallError::Refused(name, _)) if name == NO_SUCH_UNIT => Ok(()),
        stopped => stopped.map_err(refused(&format!("stop the unit {unit}"))),
    }
}

/// Resets a unit that has failed: until then it stays loaded, and its name is taken.
fn reset_failed(connection: &mut Connection, unit: &str) -> Result<()> {
    match connection.call("ResetFailedUnit", &Body::default().string(unit)) {
        Err(CallError::Refused(name, _)) if name == NO_SUCH_UNIT => Ok(()),
        reset => reset.map_err(refused(&format!("reset the unit {unit}"))),
    }
}

fn connect() -> Result<Connection> {
    Connection::open().map_err(|error| {
        Error::Systemd(format!(
            "cannot reach systemd over D-Bus: {error}. Is it running (systemctl status dbus), and \
             its socket visible to the shim? Without systemd, set SystemdCgroup = false"
        ))
    })
}

fn refused(action: &str) -> impl FnOnce(CallError) -> Error {
    let action = action.to_owned();
    move |error| match error {
        CallError::Refused(name, text) => {
            Error::Systemd(format!("systemd did not {action}: {text} ({name})"))
        }
        CallError::Failed(error) => {
            Error::Systemd(format!("cannot ask systemd to {action}: {error}"))
        }
    }
}

/// systemd answers before the unit is started; its processes are moved last, after the limits.
fn wait_for(pid: i32, path: &Path, unit: &str) -> Result<()> {
    let membership = format!("/proc/{pid}/cgroup");
    let membership = Path::new(&membership);
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        let text = std::fs::read(membership).map_err(Error::file("read", membership))?;
        if paths::parse_membership(&text)
            .get("")
            .is_some_and(|now| now == path)
        {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::Systemd(format!(
                "systemd did not put process {pid} into {} within {} s: see systemctl status \
                 {unit} and journalctl -u {unit}",
                path.display(),
                PATIENCE.as_secs()
            )));
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
