//! The images of a pod.
use std::collections::BTreeMap;
use std::path::Path;

use super::container::Loaded;
use super::{Engine, Error, Notice, Observer};
use crate::image::{Image, Progress, Pull, Source, Step, Store};
use crate::manifest::{Container, Pod, PullPolicy};

/// Brings the images of the pod, init containers' first.
pub(super) async fn load(
    engine: &Engine,
    store: &Store,
    pod: &Pod,
    observer: &dyn Observer,
) -> Result<(Vec<Loaded>, Vec<Loaded>), Error> {
    let mut known = BTreeMap::new();
    let mut loaded = (Vec::new(), Vec::new());
    for container in &pod.init_containers {
        loaded
            .0
            .push(load_one(engine, store, container, &mut known, observer).await?);
    }
    for container in &pod.containers {
        loaded
            .1
            .push(load_one(engine, store, container, &mut known, observer).await?);
    }
    Ok(loaded)
}

/// Brings the image of a container, unless another has it already.
async fn load_one(
    engine: &Engine,
    store: &Store,
    container: &Container,
    known: &mut BTreeMap<String, Image>,
    observer: &dyn Observer,
) -> Result<Loaded, Error> {
    let name = &container.image;
    if let Some(image) = known.get(name) {
        return Ok(Loaded {
            container: container.clone(),
            image: image.clone(),
        });
    }
    let failed = |source| Error::Image {
        container: container.name.clone(),
        source: Box::new(source),
    };
    let source = below(&engine.manifests, Source::parse(name).map_err(failed)?);
    let pull = match container.pull_policy {
        PullPolicy::Always => Pull::Always,
        PullPolicy::IfNotPresent => Pull::IfNotPresent,
        PullPolicy::Never => Pull::Never,
    };
    let progress = Steps {
        image: name,
        observer,
    };
    let image = store.get(&source, pull, &progress).await.map_err(failed)?;
    known.insert(name.clone(), image.clone());
    Ok(Loaded {
        container: container.clone(),
        image,
    })
}

/// The source with its path, if it is a relative one, below `dir`.
pub(super) fn below(dir: &Path, source: Source) -> Source {
    match source {
        Source::Folder(path) => Source::Folder(dir.join(path)),
        Source::Layout { path, name } => Source::Layout {
            path: dir.join(path),
            name,
        },
        Source::Archive { path, name } => Source::Archive {
            path: dir.join(path),
            name,
        },
        registry @ Source::Registry(_) => registry,
    }
}

/// Tells the observer which image a step is of.
struct Steps<'a> {
    image: &'a str,
    observer: &'a dyn Observer,
}

impl Progress for Steps<'_> {
    fn step(&self, step: &Step<'_>) {
        self.observer.notice(&Notice::Image {
            image: self.image,
            step,
        });
    }
}
