//! Limits: what `linux.resources` of the OCI spec means in the files of a cgroup.
//!
//! Translating is pure: resources in, a list of writes out. Only what the resources name is
//! written, so that an update leaves the rest as it was. As with runc, 0 means "not named" for
//! everything but swap of cgroup v2, which follows from two numbers.

mod systemd;
mod v1;
mod v2;

use std::io;
use std::path::Path;

use oci_spec::runtime::{LinuxHugepageLimit, LinuxRdma};

use super::error::{Error, Result};
use super::files;

pub(super) use systemd::properties;
pub(super) use v1::writes as v1;
pub(super) use v2::{Now, writes as v2};

/// The default period of a CPU quota, in microseconds.
const PERIOD: u64 = 100_000;

/// One value for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    /// The v1 controller whose hierarchy has the file; with v2 only for messages.
    pub(super) controller: String,
    /// The file.
    pub(super) file: String,
    /// Another file, for kernels that have it instead.
    pub(super) instead: Option<(String, String)>,
    /// What to write.
    pub(super) value: String,
    /// Whether a kernel without this file does what was asked anyhow.
    pub(super) optional: bool,
}

impl Write {
    fn new(controller: &str, file: impl Into<String>, value: impl ToString) -> Self {
        Self {
            controller: controller.to_owned(),
            file: file.into(),
            instead: None,
            value: value.to_string(),
            optional: false,
        }
    }

    fn or(mut self, file: &str, value: impl ToString) -> Self {
        self.instead = Some((file.to_owned(), value.to_string()));
        self
    }

    fn optional_if(mut self, indifferent: bool) -> Self {
        self.optional = indifferent;
        self
    }
}

/// Writes limits; `dir` finds the cgroup in the hierarchy of a controller.
///
/// The kernel checks some values against each other: a memory limit against that of memory and
/// swap, a quota against that of the parent. Which must be first depends on whether they rise or
/// fall, so one that is refused is tried again after the others.
pub(super) fn apply<'a>(writes: &[Write], dir: impl Fn(&str) -> Option<&'a Path>) -> Result<()> {
    let mut refused = Vec::new();
    for write in writes {
        let Some(dir) = dir(&write.controller) else {
            if write.optional {
                continue;
            }
            return Err(no_controller(write, None));
        };
        match apply_one(write, dir) {
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::InvalidInput => {
                refused.push((write, dir));
            }
            done => done?,
        }
    }
    refused
        .into_iter()
        .try_for_each(|(write, dir)| apply_one(write, dir))
}

fn apply_one(write: &Write, dir: &Path) -> Result<()> {
    let first = files::write(&dir.join(&write.file), &write.value);
    let done = match (&first, &write.instead) {
        (Err(error), Some((file, value))) if error.is_gone() => {
            files::write(&dir.join(file), value)
        }
        _ => first,
    };
    match done {
        Err(error) if error.is_gone() && !dir.exists() => Err(error),
        Err(error) if error.is_gone() && write.optional => Ok(()),
        Err(error) if error.is_gone() => Err(no_controller(write, Some(dir))),
        done => done,
    }
}

fn no_controller(write: &Write, dir: Option<&Path>) -> Error {
    let Write {
        controller,
        file,
        value,
        ..
    } = write;
    Error::Unsupported(match dir {
        Some(dir) => format!(
            "cannot set {file} to {value:?}: {} has no such file. The kernel lacks it, or the \
             {controller} controller is not enabled in cgroup.subtree_control of the cgroup above, \
             as in one that has processes of its own",
            dir.display()
        ),
        None => format!(
            "cannot set {file} to {value:?}: no hierarchy of the {controller} controller is mounted"
        ),
    })
}

/// `max`, or the number.
fn or_max(limit: i64) -> String {
    if limit < 0 {
        "max".to_owned()
    } else {
        limit.to_string()
    }
}

/// A size such as `2MB` becomes a part of a file name: nothing else may get there.
fn page_size(size: &str) -> Result<&str> {
    let known = size.len() > 2
        && size.ends_with('B')
        && size
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"KMGB".contains(&byte));
    if known {
        return Ok(size);
    }
    Err(Error::Invalid(format!(
        "hugepageLimits: {size:?} is no page size: expected one such as 2MB or 1GB"
    )))
}

/// Writes a limit of huge pages, for those in use and, since Linux 5.7, those reserved.
fn huge_pages(
    limit: &LinuxHugepageLimit,
    file: &str,
    value: &str,
    writes: &mut Vec<Write>,
) -> Result<()> {
    let size = page_size(limit.page_size())?;
    // Where there are no huge pages there are none to use: Kubernetes asks for 0 of each size.
    let none = limit.limit() == 0;
    let in_use = Write::new("hugetlb", format!("hugetlb.{size}.{file}"), value);
    writes.push(in_use.optional_if(none));
    let reserved = Write::new("hugetlb", format!("hugetlb.{size}.rsvd.{file}"), value);
    writes.push(reserved.optional_if(true));
    Ok(())
}

/// A line of `rdma.max`.
fn rdma(device: &str, limit: &LinuxRdma) -> String {
    let mut line = device.to_owned();
    for (key, value) in [
        ("hca_handle", limit.hca_handles()),
        ("hca_object", limit.hca_objects()),
    ] {
        if let Some(value) = value {
            line.push_str(&format!(" {key}={value}"));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::Write;

    /// The files and what is written to them.
    pub(super) fn values(writes: &[Write]) -> Vec<(String, String)> {
        writes
            .iter()
            .map(|write| (write.file.clone(), write.value.clone()))
            .collect()
    }

    pub(super) fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected
            .iter()
            .map(|(file, value)| ((*file).into(), (*value).into()))
            .collect()
    }
}
