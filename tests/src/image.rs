//! The images the pods run, made here so that no registry is needed: busybox, and a pause
//! container of the same files.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};

/// The image of every container in the suite.
pub const BUSYBOX: &str = "husk.test/busybox:1";
/// The image of pause containers, the one containerd 2.1 asks for.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10";

// As the real pause does: end at SIGTERM, and reap what the pod's other containers orphan.
const PAUSE_SCRIPT: &str = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait; done";

/// Where this machine keeps a statically linked busybox.
///
/// # Errors
/// If there is none.
pub fn busybox() -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/bin"), PathBuf::from("/usr/bin")])
        .map(|dir| dir.join("busybox"))
        .find(|file| file.is_file())
        .context("find busybox on PATH; `apt-get install busybox-static` provides it")
}

/// Writes a root filesystem: busybox, a link for each of its applets, and the usual directories.
///
/// # Errors
/// If a file cannot be written, or busybox not be run.
pub fn rootfs(root: &Path) -> Result<()> {
    let busybox = busybox()?;
    for dir in ["bin", "dev", "etc", "home", "proc", "sys", "tmp", "var"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::copy(&busybox, root.join("bin/busybox"))?;
    let list = Command::new(&busybox).arg("--list").output()?;
    ensure!(list.status.success(), "{} --list failed", busybox.display());
    for applet in String::from_utf8(list.stdout)?.lines() {
        if applet != "busybox" {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
        }
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    )?;
    fs::write(
        root.join("etc/group"),
        "root:x:0:\nnobody:x:65534:\nstaff:x:50:nobody\n",
    )?;
    Ok(())
}

/// What the pause container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// A script that does all that the real pause does, in two processes.
    Reaping,
    /// One process, which sleeps: what the real pause costs.
    Small,
}

impl Pause {
    fn entrypoint(self) -> Vec<&'static str> {
        match self {
            Self::Reaping => vec!["/bin/sh", "-c", PAUSE_SCRIPT],
            Self::Small => vec!["/bin/sleep", "1000000"],
        }
    }
}

/// Writes an OCI archive with [`BUSYBOX`] and [`PAUSE`], one layer for both.
///
/// # Errors
/// If it cannot be written.
pub fn archive(out: &Path, pause: Pause) -> Result<()> {
    let root = tempfile::tempdir()?;
    rootfs(root.path())?;
    let layer = pack(root.path())?;
    let mut blobs = BTreeMap::new();
    let layer_digest = add(&mut blobs, layer);
    let mut manifests = Vec::new();
    for (name, entrypoint) in [(BUSYBOX, vec!["/bin/sh"]), (PAUSE, pause.entrypoint())] {
        manifests.push(image(&mut blobs, name, &entrypoint, &[&layer_digest]));
    }
    write(out, &manifests, &blobs).with_context(|| format!("write {}", out.display()))
}

/// Writes an OCI archive with one image of these layers, lowest first.
///
/// # Errors
/// If it cannot be written.
pub fn archive_of(out: &Path, name: &str, layers: &[Vec<u8>]) -> Result<()> {
    let mut blobs = BTreeMap::new();
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| add(&mut blobs, layer.clone()))
        .collect();
    let names: Vec<_> = layers.iter().map(String::as_str).collect();
    let image = image(&mut blobs, name, &["/bin/sh"], &names);
    write(out, &[image], &blobs).with_context(|| format!("write {}", out.display()))
}

/// Adds an image, and describes it for the index.
fn image(
    blobs: &mut BTreeMap<String, Vec<u8>>,
    name: &str,
    entrypoint: &[&str],
    layers: &[&str],
) -> serde_json::Value {
    let config = add(blobs, config(entrypoint, layers));
    let described: Vec<_> = layers
        .iter()
        .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer, blobs))
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config, blobs),
        "layers": described,
    });
    let manifest = add(blobs, manifest.to_string().into_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let mut entry = descriptor(media_type, &manifest, blobs);
    entry["annotations"] = json!({ "io.containerd.image.name": name });
    entry
}

fn config(entrypoint: &[&str], layers: &[&str]) -> Vec<u8> {
    json!({
        "architecture": match env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
        "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Entrypoint": entrypoint },
        "rootfs": { "type": "layers", "diff_ids": layers },
    })
    .to_string()
    .into_bytes()
}

fn pack(root: &Path) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(false);
    tar.mode(tar::HeaderMode::Deterministic);
    tar.append_dir_all(".", root)?;
    tar.into_inner()
}

fn add(blobs: &mut BTreeMap<String, Vec<u8>>, bytes: Vec<u8>) -> String {
    let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
    blobs.insert(digest.clone(), bytes);
    digest
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn descriptor(
    media_type: &str,
    digest: &str,
    blobs: &BTreeMap<String, Vec<u8>>,
) -> serde_json::Value {
    json!({ "mediaType": media_type, "digest": digest, "size": blobs[digest].len() })
}

fn write(
    out: &Path,
    manifests: &[serde_json::Value],
    blobs: &BTreeMap<String, Vec<u8>>,
) -> Result<()> {
    let mut tar = tar::Builder::new(fs::File::create(out)?);
    let mut put = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes)
    };
    put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    put("index.json", index.to_string().as_bytes())?;
    for (digest, bytes) in blobs {
        put(&format!("blobs/{}", digest.replace(':', "/")), bytes)?;
    }
    tar.finish()?;
    Ok(())
}
