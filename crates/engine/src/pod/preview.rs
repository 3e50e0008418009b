//! A pod's specs as a run would write them, with nothing made.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::container::container_id;
use super::load::below;
use super::run::node_name;
use super::{Error, Paths};
use crate::cgroup;
use crate::image::{Config, Content, Image, Rootfs, Source, Store, User};
use crate::manifest::{Container, Pod, Volume};
use crate::spec::{self, VolumeBind};

/// The id that stands for the one that a run makes up.
const ID: &str = "planned";

/// Stands for the command of an image that is not known.
const UNKNOWN: &str = "(what the image runs)";

/// A container that would be made.
#[derive(Clone, Debug)]
pub struct Preview {
    /// Its name in the pod.
    pub name: String,
    /// The id it would have, but for the pod's part of it.
    pub id: String,
    /// Whether the spec lacks what the image says: its command, environment, user and directory.
    /// An image is not fetched to be looked at.
    pub without_image: bool,
    /// Whether it ends before the next one is made: an init container that is no sidecar.
    pub passes: bool,
    /// What the shim would be told.
    pub spec: Spec,
}

/// The pod's containers, those that run first first, as a shim with the Sandbox API would be told of
/// them. `manifests` is the directory below which an image's relative path is. Also answers with
/// the sandbox's id and cgroup.
///
/// # Errors
/// A spec that cannot be written.
pub fn preview(
    paths: &Paths,
    manifests: &Path,
    pod: &Pod,
) -> Result<(String, String, Vec<Preview>), Error> {
    let mut pod = pod.clone();
    if pod.host_network {
        pod.hostname = node_name()?;
    }
    let sandbox = spec::Sandbox {
        id: ID.to_owned(),
        pid: 0,
        cgroup: cgroup::of_pod(ID),
        // The pod's files and /dev/shm are the shim's.
        files: BTreeMap::new(),
        shm: None,
    };
    let inits = pod.init_containers.iter();
    let inits = inits.map(|container| (container, !container.sidecar));
    let containers = pod.containers.iter().map(|container| (container, false));
    let previews = inits
        .chain(containers)
        .map(|(container, passes)| {
            let preview = one(paths, manifests, &pod, container, &sandbox);
            preview.map(|preview| Preview { passes, ..preview })
        })
        .collect::<Result<_, _>>()?;
    Ok((sandbox.id, sandbox.cgroup, previews))
}

fn one(
    paths: &Paths,
    manifests: &Path,
    pod: &Pod,
    container: &Container,
    sandbox: &spec::Sandbox,
) -> Result<Preview, Error> {
    let name = container.name.clone();
    let image = image(paths, manifests, container)?;
    let without_image = image.is_none();
    let image = image.unwrap_or_else(|| Image {
        reference: container.image.clone(),
        digest: String::new(),
        config: Config {
            entrypoint: vec![UNKNOWN.to_owned()],
            ..Config::default()
        },
        content: Content::Folder(PathBuf::new()),
    });
    let (user, user_unknown) = user(container, &image);
    let spec = spec::container(
        pod,
        container,
        &image,
        &user,
        sandbox,
        &volumes(paths, pod, container),
    )
    .map_err(|source| Error::Spec {
        container: name.clone(),
        source,
    })?;
    Ok(Preview {
        id: container_id(&sandbox.id, &name),
        name,
        without_image: without_image || user_unknown,
        passes: false,
        spec,
    })
}

fn image(paths: &Paths, manifests: &Path, container: &Container) -> Result<Option<Image>, Error> {
    let failed = |source| Error::Image {
        container: container.name.clone(),
        source: Box::new(source),
    };
    let source = below(manifests, Source::parse(&container.image).map_err(failed)?);
    Store::find(&paths.images(), &source).map_err(failed)
}

/// Whom it would run as, and whether the image had to be asked: a name is looked up in the image,
/// which is not unpacked here.
fn user(container: &Container, image: &Image) -> (User, bool) {
    let nobody_is_known = Rootfs {
        mounts: Vec::new(),
        passwd: String::new(),
        group: String::new(),
    };
    let wanted = match container.security.user {
        Some(uid) => uid.to_string(),
        None => image.config.user.clone(),
    };
    let found = nobody_is_known.user(&wanted);
    let unknown = found.is_err();
    let mut user = found.unwrap_or_default();
    if let Some(gid) = container.security.group {
        user.gid = gid;
    }
    (user, unknown)
}

/// Where the volumes would be.
fn volumes(paths: &Paths, pod: &Pod, container: &Container) -> Vec<VolumeBind> {
    let dir = paths.data_of(ID).join("volumes");
    let bind = |wanted: &crate::manifest::VolumeMount| {
        let volume = match pod.volumes.get(&wanted.volume)? {
            Volume::EmptyDir(_) | Volume::Files { .. } => dir.join(&wanted.volume),
            Volume::HostPath { path, .. } => path.clone(),
        };
        Some(VolumeBind {
            source: match &wanted.sub_path {
                Some(path) => volume.join(path),
                None => volume,
            },
            destination: wanted.path.clone(),
            read_only: wanted.read_only,
            recursive_read_only: wanted.recursive_read_only,
            propagation: wanted.propagation,
        })
    };
    container.mounts.iter().filter_map(bind).collect()
}
