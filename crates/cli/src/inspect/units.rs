//! How names, sizes and times are written.
use std::time::Duration;

use super::report::{Container, Report};
use husk_terminal::page::{Cell, cell, cut};

/// The longest name of a container that is shown in full.
pub(super) const NAME: usize = 20;

/// What stands where there is nothing to say.
pub(super) const NOTHING: &str = "–";

/// The name of a container as the page shows it everywhere.
pub(super) fn label(container: &Container, report: &Report) -> String {
    let name = short_name(&container.name);
    if container.is_sandbox && report.containers.len() > 1 {
        return format!("{name} (sandbox)");
    }
    name
}

/// An id as name is shortened as ids are, any other to [`NAME`].
pub(super) fn short_name(name: &str) -> String {
    if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return short_id(name);
    }
    cut(name, NAME)
}

/// As many digits of an id as people read aloud.
pub(super) fn short_id(id: &str) -> String {
    id.chars().take(12).collect()
}

/// The end of a path says more than its beginning.
pub(super) fn short_path(path: &str) -> String {
    let length = path.chars().count();
    if length <= 2 * NAME {
        return path.to_owned();
    }
    let end: String = path.chars().skip(length - 2 * NAME + 1).collect();
    format!("…{end}")
}

/// A number, if there is one.
pub(super) fn number<T: ToString>(value: Option<T>) -> Cell {
    maybe(value.map(|value| value.to_string()))
}

/// A text on the right, if there is one.
pub(super) fn maybe(text: Option<String>) -> Cell {
    cell(text.unwrap_or_else(|| NOTHING.into())).right()
}

/// A number of bytes, if there is one.
pub(super) fn size(bytes: Option<u64>) -> Cell {
    maybe(bytes.map(bytes_text))
}

/// A number of bytes in the largest unit that leaves a whole number.
pub(super) fn bytes_text(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in units {
        if bytes >> shift > 0 {
            let tenths = (u128::from(bytes) * 10) >> shift;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// Processor time: hundredths matter while it is short.
pub(super) fn cpu_time(time: Duration) -> String {
    if time.as_secs() >= 60 {
        duration(time.as_secs())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

/// The two units that matter.
pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A count with its noun.
pub(super) fn plural(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_at_a_glance() {
        let sizes = [0, 1023, 1024, 1536, 268_435_456, 5 << 30].map(bytes_text);
        assert_eq!(
            sizes,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.5 KiB",
                "256.0 MiB",
                "5.0 GiB"
            ]
        );
        let times = [5, 65, 3725, 90_000].map(duration);
        assert_eq!(times, ["5 s", "1 min", "1 h 2 min", "1 d 1 h"]);
        assert_eq!(cpu_time(Duration::from_millis(1234)), "1.23 s");
        assert_eq!(short_name(&"ab".repeat(32)), "abababababab");
        assert_eq!(
            short_path(&format!("/{}/pod", "x".repeat(60)))
                .chars()
                .count(),
            40
        );
    }
}
