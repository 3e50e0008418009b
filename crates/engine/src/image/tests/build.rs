//! Builds layers and images.
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tar::{EntryType, Header};

use crate::image::blobs;

/// A layer's tar, entry by entry; names are written as they are given, whatever they are.
pub(super) struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub(super) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(super) fn header(name: &str, kind: EntryType, mode: u32) -> Header {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_600_000_000);
        header.set_size(0);
        header
    }

    pub(super) fn add(mut self, mut header: Header, content: &[u8]) -> Self {
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub(super) fn file(self, name: &str, content: &[u8]) -> Self {
        self.add(Self::header(name, EntryType::Regular, 0o644), content)
    }

    pub(super) fn program(self, name: &str, content: &[u8]) -> Self {
        self.add(Self::header(name, EntryType::Regular, 0o755), content)
    }

    pub(super) fn dir(self, name: &str) -> Self {
        self.add(Self::header(name, EntryType::Directory, 0o755), &[])
    }

    pub(super) fn link(self, kind: EntryType, name: &str, target: &str) -> Self {
        let mut header = Self::header(name, kind, 0o777);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.add(header, &[])
    }

    pub(super) fn device(self, kind: EntryType, name: &str, major: u32, minor: u32) -> Self {
        let mut header = Self::header(name, kind, 0o600);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.add(header, &[])
    }

    pub(super) fn pax(mut self, pairs: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(pairs.iter().copied()).unwrap();
        self
    }

    pub(super) fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// A layer with the machine's busybox, and users.
pub(super) fn busybox() -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").expect("the package busybox-static");
    Tar::new()
        .dir("./")
        .dir("bin/")
        .program("bin/busybox", &busybox)
        .link(EntryType::Link, "bin/sh", "bin/busybox")
        .link(EntryType::Symlink, "bin/cat", "busybox")
        .dir("etc/")
        .file(
            "etc/passwd",
            b"root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:\n",
        )
        .file("etc/group", b"root:x:0:\nweb:x:33:\nlog:x:4:web\n")
        .done()
}

/// Documents and layers by digest, and what leads to them.
#[derive(Clone, Default)]
pub(super) struct Blobs {
    pub(super) by_digest: BTreeMap<String, Vec<u8>>,
}

impl Blobs {
    /// Adds bytes and describes them.
    pub(super) fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = blobs::digest(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        self.by_digest.insert(digest, bytes);
        descriptor
    }

    pub(super) fn document(&mut self, media_type: &str, document: &Value) -> Value {
        self.add(media_type, serde_json::to_vec(document).unwrap())
    }

    /// Adds an image of these tars, and describes its manifest.
    pub(super) fn image(&mut self, tars: &[Vec<u8>]) -> Value {
        let layer_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        let layers: Vec<_> = tars
            .iter()
            .map(|tar| self.add(layer_type, gzip(tar)))
            .collect();
        let diff_ids: Vec<_> = tars.iter().map(|tar| blobs::digest(tar)).collect();
        self.image_of(layers, &diff_ids)
    }

    /// Adds an image of layers that are there already.
    pub(super) fn image_of(&mut self, layers: Vec<Value>, diff_ids: &[String]) -> Value {
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": {
                "Entrypoint": ["/bin/busybox"], "Cmd": ["httpd", "-f"], "Env": ["A=1"],
                "User": "web", "WorkingDir": "/srv", "Volumes": {"/data": {}, "/cache": {}},
                "StopSignal": "SIGINT", "Labels": {"k": "v"}, "ExposedPorts": null,
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = self.document("application/vnd.oci.image.config.v1+json", &config);
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers,
        });
        self.document(manifest_type, &manifest)
    }

    /// Adds an index, each entry for an architecture.
    pub(super) fn index(&mut self, entries: &[(&str, &Value)]) -> Value {
        let entries: Vec<_> = entries
            .iter()
            .map(|(architecture, descriptor)| {
                let mut entry = (*descriptor).clone();
                entry["platform"] = json!({"os": "linux", "architecture": architecture});
                entry
            })
            .collect();
        let index_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": index_type, "manifests": entries});
        self.document(index_type, &index)
    }

    /// The files of an OCI layout whose index has these entries.
    pub(super) fn layout(&self, entries: &[Value]) -> BTreeMap<String, Vec<u8>> {
        let index = json!({"schemaVersion": 2, "manifests": entries});
        let mut files: BTreeMap<_, _> = self
            .by_digest
            .iter()
            .map(|(digest, bytes)| (format!("blobs/{}", digest.replace(':', "/")), bytes.clone()))
            .collect();
        files.insert(
            "oci-layout".into(),
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        );
        files.insert("index.json".into(), serde_json::to_vec(&index).unwrap());
        files
    }
}

/// An index entry with a name.
pub(super) fn named(descriptor: &Value, name: &str) -> Value {
    let mut entry = descriptor.clone();
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    entry
}

pub(super) fn write_files(dir: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

pub(super) fn archive(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    files
        .iter()
        .fold(Tar::new(), |tar, (name, bytes)| tar.file(name, bytes))
        .done()
}
