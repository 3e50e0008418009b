//! What a container is made from: its bundle, its root, its log.
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use containerd_shim_protos::api::Mount;
use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::container::{Context, Loaded};
use super::{Error, sandbox, volumes};
use crate::image::{ImageError, Rootfs, RootfsMount, User};
use crate::manifest::Container;
use crate::shim::Stdio;
use crate::spec;

impl Context {
    /// The container's bundle.
    pub(super) fn bundle(&self, id: &str) -> PathBuf {
        self.engine.paths.bundle(&self.sandbox.id, id)
    }

    /// The file with what it writes.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.engine.paths.log(&self.sandbox.id, name)
    }

    /// Both streams to one file, without a process of the engine's between (contract 39).
    /// The input, if there is to be one, ends once what holds it open is dropped.
    pub(super) fn stdio(
        &self,
        container: &Container,
        id: &str,
    ) -> Result<(Stdio, Option<File>), Error> {
        let file = format!("file://{}", self.log(&container.name).display());
        let input = self.bundle(id).join("stdin");
        let held = container.stdin.then(|| open_input(&input)).transpose()?;
        let stdio = Stdio {
            terminal: container.tty,
            stdin: match held {
                Some(_) => input.to_string_lossy().into_owned(),
                None => String::new(),
            },
            stderr: if container.tty {
                String::new()
            } else {
                file.clone()
            },
            stdout: file,
        };
        Ok((stdio, held))
    }

    /// Where its root is prepared and what it writes there is kept.
    fn layers(&self, name: &str) -> PathBuf {
        self.engine
            .paths
            .data_of(&self.sandbox.id)
            .join("layers")
            .join(name)
    }

    /// Removes what a container has written to its root.
    pub(super) fn remove_layers(&self, name: &str) -> Result<(), Error> {
        let layers = self.layers(name);
        match fs::remove_dir_all(&layers) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", layers)(error))
            }
            _ => Ok(()),
        }
    }

    /// Writes the bundle, with a fresh root; the answer is what the shim must mount for it.
    pub(super) async fn write_bundle(
        &self,
        loaded: &Loaded,
        id: &str,
    ) -> Result<Vec<Mount>, Error> {
        let Loaded { container, image } = loaded;
        let name = &container.name;
        let about_image = |source| Error::Image {
            container: name.clone(),
            source: Box::new(source),
        };
        let bundle = self.bundle(id);
        let root = bundle.join("rootfs");
        fs::create_dir_all(&root).map_err(Error::io("make", &root))?;
        self.remove_layers(name)?;
        let rootfs = self
            .store
            .rootfs(image, &self.layers(name))
            .await
            .map_err(about_image)?;
        let user = user(loaded, &rootfs).map_err(about_image)?;
        let held = bundle.join("volumes");
        let binds = volumes::binds(container, &self.volumes, &held, self.journal.as_ref())?;
        let spec = spec::container(&self.pod, container, image, &user, &self.sandbox, &binds)
            .map_err(|source| Error::Spec {
                container: name.clone(),
                source,
            })?;
        sandbox::write_spec(&spec, &bundle)?;
        Ok(rootfs.mounts.into_iter().map(mount).collect())
    }

    /// Without the Sandbox API, containerd runs `start` for every container and the shim answers
    /// with the address of the sandbox that the spec's annotation names (contract 25).
    pub(super) async fn announce(&self, name: &str, id: &str) -> Result<(), Error> {
        let Some(pod) = &self.announce_at else {
            return Ok(());
        };
        let start = sandbox::command(&self.engine, id, self.bundle(id), &self.events);
        let shim = start.run().await.map_err(Error::container(name))?;
        if shim.address() == pod {
            return Ok(());
        }
        let error = Error::NotGrouped {
            container: name.to_owned(),
            address: shim.address().to_owned(),
            pod: pod.clone(),
        };
        if let Err(undoing) = shim.task().shutdown(id).await {
            log::warn!("stopping the shim of container {name}: {undoing}");
        }
        Err(error)
    }
}

/// A fifo for the input of a container: one that nobody writes to, and that does not end.
fn open_input(path: &Path) -> Result<File, Error> {
    match mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        // A container that is started again.
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(Error::io("make the fifo", path)(errno.into())),
    }
    // For reading too: who opens a fifo for writing alone waits for a reader.
    let file = File::options().read(true).write(true).open(path);
    file.map_err(Error::io("open the fifo", path))
}

/// The manifest's user and group before the image's.
fn user(loaded: &Loaded, rootfs: &Rootfs) -> Result<User, ImageError> {
    let security = &loaded.container.security;
    let mut user = match security.user {
        Some(uid) => rootfs.user(&uid.to_string())?,
        None => rootfs.user(&loaded.image.config.user)?,
    };
    if let Some(gid) = security.group {
        user.gid = gid;
    }
    Ok(user)
}

fn mount(mount: RootfsMount) -> Mount {
    Mount {
        type_: mount.kind,
        source: mount.source,
        options: mount.options,
        ..Mount::default()
    }
}
