//! Where measuring happens: bundles on a tmpfs, a network namespace, the events of the shims.
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, Result};
use husk_engine::netns;
use husk_engine::shim::Events;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use oci_spec::runtime::Spec;

use crate::candidate::program;

/// The programs that containers run, all of them busybox.
const APPLETS: [&str; 2] = ["true", "sleep"];

/// What is mounted on in a container's root.
const MOUNT_POINTS: [&str; 3] = ["dev", "proc", "sys"];

/// A place for one run; removed when dropped.
pub(crate) struct Bed {
    directory: PathBuf,
    events: Events,
}

impl Bed {
    /// Makes it.
    ///
    /// # Errors
    /// Without root or a busybox.
    pub(crate) async fn make() -> Result<Self> {
        // Each pod takes a few descriptors, and there may be hundreds.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        let directory = PathBuf::from(format!("/run/{}", tag()));
        fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        let made = furnish(&directory).await;
        match made {
            Ok(events) => Ok(Self { directory, events }),
            Err(error) => {
                clear(&directory);
                Err(error)
            }
        }
    }

    /// Where the shims publish to.
    pub(crate) fn events(&self) -> &str {
        self.events.address()
    }

    /// A network namespace for all sandboxes, as CNI would have made one for each.
    pub(crate) fn network(&self) -> PathBuf {
        network(&self.directory)
    }

    /// A file of this name for whatever a measure needs.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The bundle of a container or a sandbox.
    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        self.directory.join("bundles").join(id)
    }

    /// Makes a bundle with a root of its own, and this spec unless the shim makes the sandbox.
    pub(crate) fn write_bundle(&self, id: &str, spec: Option<&Spec>) -> Result<PathBuf> {
        let bundle = self.bundle(id);
        let root = bundle.join("rootfs");
        let made = write_root(&root, &self.directory.join("busybox"));
        made.with_context(|| format!("make the root {}", root.display()))?;
        if let Some(spec) = spec {
            let config = bundle.join("config.json");
            spec.save(&config)
                .with_context(|| format!("write {}", config.display()))?;
        }
        Ok(bundle)
    }

    /// Removes a bundle.
    pub(crate) fn remove_bundle(&self, id: &str) -> Result<()> {
        let bundle = self.bundle(id);
        fs::remove_dir_all(&bundle).with_context(|| format!("remove {}", bundle.display()))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        clear(&self.directory);
    }
}

/// What files and cgroups of this run are named after.
pub(crate) fn tag() -> String {
    format!("husk-bench-{}", process::id())
}

async fn furnish(directory: &Path) -> Result<Events> {
    let options = Some("mode=755");
    mount(
        Some("tmpfs"),
        directory,
        Some("tmpfs"),
        MsFlags::empty(),
        options,
    )
    .with_context(|| format!("mount a tmpfs at {}", directory.display()))?;
    let busybox = program("busybox")
        .context("containers run busybox: install busybox-static, linked to no library")?;
    fs::copy(&busybox, directory.join("busybox"))
        .with_context(|| format!("copy {}", busybox.display()))?;
    netns::create(&network(directory)).context("make a network namespace")?;
    let (events, mut happened) = Events::serve(directory).await?;
    // Someone must listen; what happened is learned from the answers.
    tokio::spawn(async move { while happened.recv().await.is_some() {} });
    Ok(events)
}

fn network(directory: &Path) -> PathBuf {
    directory.join("netns")
}

/// A link, not a copy: all roots are on one tmpfs, as layers are on one disk.
fn write_root(root: &Path, busybox: &Path) -> io::Result<()> {
    let bin = root.join("bin");
    fs::create_dir_all(&bin)?;
    for name in MOUNT_POINTS {
        fs::create_dir(root.join(name))?;
    }
    fs::hard_link(busybox, bin.join("busybox"))?;
    for applet in APPLETS {
        symlink("busybox", bin.join(applet))?;
    }
    Ok(())
}

fn clear(directory: &Path) {
    if let Err(error) = netns::remove(&network(directory)) {
        log::warn!("the network namespace of {}: {error}", directory.display());
    }
    // What is still mounted below goes with it.
    let unmounted = umount2(directory, MntFlags::MNT_DETACH).map_err(io::Error::from);
    if let Err(error) = unmounted.and_then(|()| fs::remove_dir(directory)) {
        log::warn!("{} is left behind: {error}", directory.display());
    }
}
