//! The node as `husk node` reaches it: directly, or from a container that has the node's root mounted.
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use tokio::process::Command;

/// Where a node's programs are: a container's PATH says nothing about it.
const SEARCHED: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The root of the node's files.
#[derive(Clone, Debug)]
pub(super) struct Root {
    dir: PathBuf,
    /// A process in whose mount namespace the node's files are at `/`, where this is not such a one.
    process: i32,
}

impl Root {
    pub(super) fn new(dir: PathBuf, process: i32) -> Self {
        Self { dir, process }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether this process sees the node's files where the node does.
    pub(super) fn is_own(&self) -> bool {
        self.dir == Path::new("/")
    }

    /// Where a path of the node is for this process. Links are followed as the node follows them: an absolute
    /// one leads to the node's files, not to the container's.
    ///
    /// # Errors
    /// What the kernel says of the links.
    pub(super) fn path(&self, on_node: &Path) -> Result<PathBuf> {
        if self.is_own() {
            return Ok(on_node.to_owned());
        }
        let opening = || {
            format!(
                "looking for the node's {} below {}",
                on_node.display(),
                self.dir.display()
            )
        };
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let root =
            open(&self.dir, flags | OFlag::O_DIRECTORY, Mode::empty()).with_context(opening)?;
        let how = OpenHow::new()
            .flags(flags)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        // What is not there yet will be made below what is.
        for there in on_node.ancestors() {
            match openat2(&root, there, how) {
                Ok(found) => {
                    let found = format!("/proc/self/fd/{}", found.as_raw_fd());
                    let found = std::fs::read_link(found).with_context(opening)?;
                    let rest = on_node.strip_prefix(there).unwrap_or(Path::new(""));
                    let Some(next) = rest.components().next() else {
                        return Ok(found);
                    };
                    // A link to nothing would be followed to what the container has there.
                    ensure!(
                        std::fs::symlink_metadata(found.join(next)).is_err(),
                        "{}: {next:?} is a link to what is not there",
                        on_node.display()
                    );
                    return Ok(found.join(rest));
                }
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno).with_context(opening),
            }
        }
        bail!("{}: it is no absolute path", on_node.display())
    }

    /// A program of the node, with the node's files as it will see them.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = if self.is_own() {
            Command::new(program)
        } else {
            let mut enter = Command::new("nsenter");
            enter.arg("--target").arg(self.process.to_string());
            enter.args(["--mount", "--"]).arg(program);
            enter.env("PATH", format!("{SEARCHED}:{}", path_variable()));
            enter
        };
        command.stdin(Stdio::null());
        command
    }
}

fn path_variable() -> String {
    std::env::var("PATH").unwrap_or_default()
}

/// What a command says on stdout and on stderr, and whether it succeeded.
pub(super) struct Said {
    pub(super) success: bool,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

/// # Errors
/// It cannot be run.
pub(super) async fn run(command: &mut Command) -> Result<Said> {
    let name = command.as_std().get_program().display().to_string();
    let output = command
        .output()
        .await
        .with_context(|| format!("running {name}"))?;
    Ok(Said {
        success: output.status.success(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_where_they_lead_on_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().canonicalize().unwrap();
        fs::create_dir_all(host.join("data/lib")).unwrap();
        symlink("/data", host.join("var")).unwrap();
        symlink("../../../../etc", host.join("data/up")).unwrap();
        let root = Root::new(host.clone(), 1);
        let path = |path: &str| root.path(Path::new(path)).unwrap();
        assert_eq!(path("/var/lib/husk/node"), host.join("data/lib/husk/node"));
        assert_eq!(path("/data/lib"), host.join("data/lib"));
        let dangling = root.path(Path::new("/var/up/passwd")).unwrap_err();
        assert!(dangling.to_string().contains("not there"), "{dangling}");
        // `..` does not lead out of it.
        fs::create_dir(host.join("etc")).unwrap();
        assert_eq!(path("/var/up/passwd"), host.join("etc/passwd"));
    }
}
