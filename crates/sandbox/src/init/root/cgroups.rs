//! A mount of type `cgroup`: what the container sees of its cgroups.
//!
//! On v2 that is one filesystem. On v1 it is a tmpfs with a directory for each hierarchy; in the
//! node's cgroup namespace the container sees of each its own cgroup and what is below.
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::MsFlags;
use nix::sys::stat::Mode;
use nix::unistd::symlinkat;
use oci_spec::runtime::Mount;

use super::Making;
use super::mounts::{Refused, bind_to, check_place, new_filesystem};
use crate::cgroup::View;
use crate::mount_api::{self, Attributes, Depth, MOUNT_ATTR_RDONLY};
use crate::rootfs::options::Options;

const SOURCE: &str = "cgroup";

pub(super) fn mount(
    making: &Making<'_>,
    request: &Mount,
    options: &Options,
) -> Result<(), Refused> {
    let views = making.cgroup.views();
    match views.as_slice() {
        [view] if view.controllers.is_empty() => unified(making, request, options, view),
        _ => hierarchies(making, request, options, &views),
    }
}

fn unified(
    making: &Making<'_>,
    request: &Mount,
    options: &Options,
    view: &View<'_>,
) -> Result<(), Refused> {
    let place = making.root.make_directory(request.destination())?;
    check_place(making, &place, request, None)?;
    match new_filesystem(Path::new(SOURCE), "cgroup2", &place, options) {
        // As other runtimes do: the hierarchy may belong to another user namespace.
        Err(Errno::EPERM | Errno::EBUSY) => show(view, &place, options),
        done => Ok(done?),
    }
}

fn hierarchies(
    making: &Making<'_>,
    request: &Mount,
    options: &Options,
    views: &[View<'_>],
) -> Result<(), Refused> {
    let parent = making.root.make_directory(request.destination())?;
    check_place(making, &parent, request, None)?;
    let around = Options {
        flags: options.flags.difference(MsFlags::MS_RDONLY),
        data: making.labelled("mode=755"),
        ..Options::default()
    };
    new_filesystem(Path::new("tmpfs"), "tmpfs", &parent, &around)?;
    let parent = making.root.find(request.destination())?;
    for view in views {
        let place = making
            .root
            .make_directory(&request.destination().join(view.name))?;
        if making.in_cgroup_namespace {
            let options = Options {
                flags: options.flags,
                data: view.controllers.to_owned(),
                ..Options::default()
            };
            new_filesystem(Path::new(SOURCE), "cgroup", &place, &options)?;
        } else {
            show(view, &place, options)?;
        }
        // Where controllers are mounted together, each is also known by its own name.
        let controllers = view.controllers.split(',');
        for controller in controllers.filter(|name| !name.contains('=') && name != &view.name) {
            symlinkat(view.name, &parent, controller)?;
        }
    }
    if options.flags.contains(MsFlags::MS_RDONLY) {
        mount_api::set(
            parent.as_fd(),
            Attributes::set(MOUNT_ATTR_RDONLY),
            Depth::One,
        )?;
    }
    Ok(())
}

/// Binds the container's own cgroup.
fn show(view: &View<'_>, place: &OwnedFd, options: &Options) -> Result<(), Refused> {
    let source = open(view.dir, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    bind_to(&source, place, options)
}
