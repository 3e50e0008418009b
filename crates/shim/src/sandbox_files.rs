//! The files that a pod's containers share, which CRI leaves to the shim with `sandboxer = "shim"`
//! (contract 15): hostname, hosts, resolv.conf and /dev/shm.
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use husk_request::cri::{Dns, Ids, SandboxConfig};

/// The name of the directory that they are in.
pub(crate) const DIR: &str = "files";

/// What CRI gives a pod's /dev/shm.
const SHM_OPTIONS: &str = "mode=1777,size=67108864";

/// How much a pod may add to its files, in bytes. Containers may write to them, as to those that
/// CRI and the kubelet make on the node's disk; these are in the node's memory.
const ROOM: usize = 1 << 20;

/// The directory, and the three files.
const INODES: usize = 4;

/// The pod's files, to be written.
#[derive(Debug)]
pub(crate) struct SandboxFiles {
    /// Where each belongs in a container, and what is in it.
    contents: [(&'static str, Vec<u8>); 3],
    /// The pod's root on the node: user and group.
    owner: (Option<u32>, Option<u32>),
}

impl SandboxFiles {
    /// What a pod's files say.
    ///
    /// # Errors
    /// The node's name or files cannot be read.
    pub(crate) fn of(config: &SandboxConfig) -> io::Result<Self> {
        let hostname = if config.hostname.is_empty() {
            nix::unistd::gethostname()?.to_string_lossy().into_owned()
        } else {
            config.hostname.clone()
        };
        // The kubelet mounts its own hosts and, usually, resolv.conf: then these are not used.
        let hosts = node_file("/etc/hosts")?;
        let resolv_conf = match &config.dns {
            Some(dns) => resolv_conf(dns).into_bytes(),
            None => node_file("/etc/resolv.conf")?,
        };
        Ok(Self {
            contents: [
                ("/etc/hostname", format!("{hostname}\n").into_bytes()),
                ("/etc/hosts", hosts),
                ("/etc/resolv.conf", resolv_conf),
            ],
            owner: (
                Ids::on_the_node(&config.users, 0),
                Ids::on_the_node(&config.groups, 0),
            ),
        })
    }

    /// Mounts a small file system for them: what containers write there takes nothing from the
    /// file system that all pods' records are on.
    ///
    /// # Errors
    /// What mkdir(2) and mount(2) say.
    pub(crate) fn mount_at(&self, dir: &Path) -> io::Result<()> {
        let held: usize = self.contents.iter().map(|(_, text)| text.len()).sum();
        // tmpfs counts in pages, and begins one for the rest of each file.
        let size = held.saturating_add(ROOM);
        mount_tmpfs(
            "files",
            dir,
            &format!("mode=0755,size={size},nr_inodes={INODES}"),
        )
    }

    /// Writes them to `dir`. Answers with where each belongs in a container, and where it is.
    ///
    /// # Errors
    /// What open(2) and write(2) say.
    pub(crate) fn write(self, dir: &Path) -> io::Result<Vec<(PathBuf, PathBuf)>> {
        self.contents
            .into_iter()
            .map(|(destination, content)| {
                let destination = PathBuf::from(destination);
                let path = dir.join(destination.file_name().unwrap_or_default());
                fs::write(&path, content)?;
                fs::set_permissions(&path, Permissions::from_mode(0o644))?;
                chown(&path, self.owner.0, self.owner.1)?;
                Ok((destination, path))
            })
            .collect()
    }
}

/// A file of the node; a node without it is one with an empty one.
fn node_file(path: &str) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        content => content,
    }
}

/// See resolv.conf(5).
fn resolv_conf(dns: &Dns) -> String {
    let mut lines = Vec::new();
    if !dns.searches.is_empty() {
        lines.push(format!("search {}", dns.searches.join(" ")));
    }
    lines.extend(
        dns.servers
            .iter()
            .map(|server| format!("nameserver {server}")),
    );
    if !dns.options.is_empty() {
        lines.push(format!("options {}", dns.options.join(" ")));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

/// Mounts a tmpfs for a shared /dev/shm.
pub(crate) fn mount_shm(path: &Path) -> io::Result<()> {
    mount_tmpfs("shm", path, SHM_OPTIONS)
}

fn mount_tmpfs(name: &str, path: &Path, options: &str) -> io::Result<()> {
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(path)?;
    let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(
        Some(name),
        path,
        Some("tmpfs"),
        flags,
        Some(options),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_s_dns_becomes_resolv_conf() {
        let dir = tempfile::tempdir().unwrap();
        let config = SandboxConfig {
            hostname: "web-0".to_owned(),
            dns: Some(Dns {
                servers: vec!["10.0.0.10".to_owned(), "10.0.0.11".to_owned()],
                searches: vec!["a.svc".to_owned(), "svc".to_owned()],
                options: vec!["ndots:5".to_owned()],
            }),
            ..SandboxConfig::default()
        };
        let files = SandboxFiles::of(&config)
            .unwrap()
            .write(dir.path())
            .unwrap();
        let content = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(content("hostname"), "web-0\n");
        assert_eq!(
            content("resolv.conf"),
            "search a.svc svc\nnameserver 10.0.0.10\nnameserver 10.0.0.11\noptions ndots:5\n"
        );
        assert_eq!(
            files.first().unwrap(),
            &("/etc/hostname".into(), dir.path().join("hostname"))
        );
        let mode = fs::metadata(dir.path().join("hosts"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(
            mode & 0o777,
            0o644,
            "a container's user must be able to read it"
        );
    }

    #[test]
    fn without_dns_the_node_s_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let files = SandboxFiles::of(&SandboxConfig::default()).unwrap();
        files.write(dir.path()).unwrap();
        let node = fs::read("/etc/resolv.conf").unwrap_or_default();
        assert_eq!(fs::read(dir.path().join("resolv.conf")).unwrap(), node);
    }
}
