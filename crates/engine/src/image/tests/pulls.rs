//! Images from a registry.
use std::fs;
use std::sync::Mutex;

use super::build::{Blobs, Tar};
use super::scratch::Scratch;
use super::server::{Mood, Server};
use crate::image::registry::Registry;
use crate::image::{Content, Image, ImageError, Progress, Pull, Quiet, Source, Step, Store};
use oci_client::secrets::RegistryAuth;
use serde_json::json;

fn store() -> (Scratch, Store) {
    let dir = Scratch::new();
    let store = Store::open(dir.path().join("images")).unwrap();
    (dir, store)
}

/// An image of two layers, for amd64 in an index with another.
fn demo(mood: Mood) -> Server {
    let mut blobs = Blobs::default();
    let top = Tar::new().file("hello", b"hi").done();
    let base = Tar::new()
        .dir("etc/")
        .file("etc/motd", &[b'm'; 3000])
        .done();
    let image = blobs.image(&[base, top]);
    let other = blobs.image(&[Tar::new().file("other", b"").done()]);
    let index = blobs.index(&[("s390x", &other), ("amd64", &image), ("arm64", &image)]);
    let nothing = blobs.index(&[("s390x", &other)]);
    Server::start(
        &blobs,
        &[("v1", &index), ("one", &image), ("far", &nothing)],
        mood,
    )
}

async fn get(store: &Store, name: &str, pull: Pull) -> Result<Image, ImageError> {
    store.get(&Source::parse(name).unwrap(), pull, &Quiet).await
}

#[derive(Default)]
struct Record(Mutex<Vec<String>>);

impl Progress for Record {
    fn step(&self, step: &Step<'_>) {
        let line = match *step {
            Step::Resolving { .. } => "resolving".into(),
            Step::Downloading { done, total, .. } if done < total => return,
            Step::Downloading { total, .. } => format!("downloaded {}", total > 0),
            Step::Unpacking { .. } => "unpacking".into(),
            Step::Ready { .. } => "ready".into(),
        };
        self.0.lock().unwrap().push(line);
    }
}

#[tokio::test]
async fn an_index_leads_to_the_image_for_this_machine() {
    let (_dir, store) = store();
    let server = demo(Mood::Good);
    let source = Source::parse(&server.name("team/app:v1")).unwrap();
    let record = Record::default();
    let image = store.get(&source, Pull::default(), &record).await.unwrap();
    assert_eq!(image.reference, server.name("team/app:v1"));
    assert_eq!(image.config.entrypoint, ["/bin/busybox"]);
    assert_eq!(image.config.cmd, ["httpd", "-f"]);
    assert_eq!(image.config.env, ["A=1"]);
    assert_eq!(
        (image.config.user.as_str(), image.config.workdir.as_str()),
        ("web", "/srv")
    );
    assert_eq!(image.config.volumes, ["/cache", "/data"]);
    assert_eq!(image.config.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(image.config.labels["k"], "v");
    let Content::Layers(layers) = &image.content else {
        panic!("{image:?}")
    };
    assert_eq!(
        fs::read_to_string(store.layer(&layers[1]).join("hello")).unwrap(),
        "hi"
    );
    let steps = record.0.into_inner().unwrap();
    let expected = [
        "resolving",
        "downloaded true",
        "downloaded true",
        "unpacking",
        "unpacking",
        "ready",
    ];
    assert_eq!(steps, expected);
}

#[tokio::test]
async fn the_policy_says_when_the_registry_is_asked() {
    let (_dir, store) = store();
    let server = demo(Mood::Good);
    let name = server.name("app:v1");
    let error = get(&store, &name, Pull::Never).await.unwrap_err();
    assert!(matches!(error, ImageError::NotPresent { .. }), "{error}");
    assert_eq!(server.asked(), [""; 0]);
    let image = get(&store, &name, Pull::IfNotPresent).await.unwrap();
    assert!(!server.asked().is_empty());
    assert_eq!(get(&store, &name, Pull::IfNotPresent).await.unwrap(), image);
    assert_eq!(get(&store, &name, Pull::Never).await.unwrap(), image);
    assert_eq!(server.asked(), [""; 0]);
    assert_eq!(get(&store, &name, Pull::Always).await.unwrap(), image);
    let asked = server.asked();
    assert!(
        asked.iter().any(|path| path.ends_with("/manifests/v1")),
        "{asked:?}"
    );
    assert!(
        !asked.iter().any(|path| path.contains("/blobs/")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn an_image_is_found_by_its_digest() {
    let (_dir, store) = store();
    let server = demo(Mood::Good);
    let image = get(&store, &server.name("app:one"), Pull::default())
        .await
        .unwrap();
    let by_digest = server.name(&format!("app@{}", image.digest));
    assert_eq!(
        get(&store, &by_digest, Pull::default())
            .await
            .unwrap()
            .digest,
        image.digest
    );
}

#[tokio::test]
async fn dockers_media_types_are_known() {
    let (_dir, store) = store();
    let mut blobs = Blobs::default();
    let tar = Tar::new().file("f", b"x").done();
    let layer = blobs.add("application/vnd.docker.image.rootfs.diff.tar", tar.clone());
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Env": null, "Labels": null},
        "rootfs": {"type": "layers", "diff_ids": [crate::image::blobs::digest(&tar)]},
    });
    let config = blobs.document("application/vnd.docker.container.image.v1+json", &config);
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
    let manifest = blobs.document(kind, &manifest);
    let server = Server::start(&blobs, &[("d", &manifest)], Mood::Good);
    let image = get(&store, &server.name("app:d"), Pull::default())
        .await
        .unwrap();
    assert_eq!(image.config, crate::image::Config::default());
}

#[tokio::test]
async fn what_the_registry_answers_is_in_the_error() {
    for (mood, tag, parts) in [
        (
            Mood::Good,
            "gone",
            &["manifest unknown", "check the name and the tag"][..],
        ),
        (
            Mood::Good,
            "far",
            &["not built for linux/amd64", "it has linux/s390x"],
        ),
        (
            Mood::Broken,
            "v1",
            &["HTTP 500 out of order", "try again later"],
        ),
        (Mood::Closed, "v1", &["401 Unauthorized", "docker login"]),
        (Mood::Alters, "v1", &["what came has the digest", "altered"]),
        (Mood::Truncates, "v1", &["bytes came", "try again"]),
        (Mood::Adds, "v1", &["more came than"]),
    ] {
        let (dir, store) = store();
        let server = demo(mood);
        let name = server.name(&format!("app:{tag}"));
        let text = get(&store, &name, Pull::default())
            .await
            .unwrap_err()
            .to_string();
        assert!(text.contains(&name), "{mood:?}: {text}");
        for part in parts {
            assert!(text.contains(part), "{mood:?}: no `{part}` in: {text}");
        }
        let images = dir.path().join("images");
        assert_eq!(
            fs::read_dir(images.join("tmp")).unwrap().count(),
            0,
            "{mood:?}"
        );
        assert_eq!(
            fs::read_dir(images.join("layers")).unwrap().count(),
            0,
            "{mood:?}"
        );
        assert!(!images.join("references").exists(), "{mood:?}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_tried_again() {
    let (_dir, store) = store();
    let server = demo(Mood::Stumbles);
    get(&store, &server.name("app:one"), Pull::default())
        .await
        .unwrap();
    let mut blobs = server.asked();
    blobs.retain(|path| path.contains("/blobs/"));
    assert_eq!(blobs.len(), 6, "{blobs:?}");
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named() {
    let (_dir, store) = store();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = get(&store, &format!("{free}/app:v1"), Pull::default())
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("registry {free}")), "{text}");
    assert!(text.contains("Connection refused"), "{text}");
    assert!(
        text.contains("check the name of the registry and the network"),
        "{text}"
    );
}

#[tokio::test]
async fn logins_and_tokens_are_sent() {
    let login = RegistryAuth::Basic("user".into(), "password".into());
    for (mood, auth) in [
        (Mood::Basic, login),
        (Mood::Bearer, RegistryAuth::Anonymous),
    ] {
        let (_dir, store) = store();
        let server = demo(mood);
        let reference = server.name("app:v1").parse().unwrap();
        let registry = Registry::of(&reference, auth).unwrap();
        let digest = registry.pull(&store.blobs, &Quiet).await.unwrap();
        assert!(
            store.assemble("app", &digest).unwrap().is_some(),
            "{mood:?}"
        );
    }
}

#[tokio::test]
async fn two_that_want_one_image_download_it_once() {
    let dir = Scratch::new();
    let server = demo(Mood::Slow);
    let name = server.name("app:v1");
    let pulls: Vec<_> = (0..4)
        .map(|_| {
            let (path, name) = (dir.path().to_owned(), name.clone());
            // A store of its own each, as another process would have.
            tokio::spawn(async move {
                let store = Store::open(path).unwrap();
                get(&store, &name, Pull::default()).await.unwrap()
            })
        })
        .collect();
    let mut images = Vec::new();
    for pull in pulls {
        images.push(pull.await.unwrap());
    }
    images.dedup();
    assert_eq!(images.len(), 1);
    let mut blobs = server.asked();
    blobs.retain(|path| path.contains("/blobs/"));
    assert_eq!(blobs.len(), 3, "{blobs:?}");
}

#[tokio::test]
async fn what_a_killed_pull_left_is_removed_and_the_rest_is_used() {
    let (dir, store) = store();
    let server = demo(Mood::Good);
    let image = get(&store, &server.name("app:one"), Pull::default())
        .await
        .unwrap();
    let Content::Layers(layers) = &image.content else {
        panic!("{image:?}")
    };
    // As if killed after the first blob, in the middle of the second and of a layer.
    let images = dir.path().join("images");
    fs::remove_file(&layers[1].blob).unwrap();
    fs::remove_dir_all(store.layer(&layers[1])).unwrap();
    fs::remove_dir_all(images.join("references")).unwrap();
    fs::write(images.join("tmp/half"), b"half").unwrap();
    fs::create_dir_all(images.join("tmp/layer/root/etc")).unwrap();
    server.asked();
    let store = Store::open(&images).unwrap();
    assert_eq!(fs::read_dir(images.join("tmp")).unwrap().count(), 0);
    assert_eq!(
        get(&store, &server.name("app:one"), Pull::default())
            .await
            .unwrap(),
        image
    );
    let mut blobs = server.asked();
    blobs.retain(|path| path.contains("/blobs/"));
    assert_eq!(blobs.len(), 1, "{blobs:?}");
}
