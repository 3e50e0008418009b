//! Images from OCI layouts on disk.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::build::{Blobs, Tar, archive, gzip, named, write_files};
use super::scratch::Scratch;
use crate::image::{Content, Image, ImageError, Pull, Quiet, Source, Store};
use serde_json::json;

async fn get(dir: &Path, source: &str) -> Result<Image, ImageError> {
    let store = Store::open(dir.join("images")).unwrap();
    store
        .get(&Source::parse(source).unwrap(), Pull::Never, &Quiet)
        .await
}

fn two_images() -> BTreeMap<String, Vec<u8>> {
    let mut blobs = Blobs::default();
    let one = blobs.image(&[Tar::new().file("one", b"").done()]);
    let two = blobs.image(&[Tar::new().file("two", b"").done()]);
    let other = blobs.index(&[("amd64", &two)]);
    blobs.layout(&[named(&one, "v1"), named(&other, "v2")])
}

fn first_file(dir: &Path, image: &Image) -> String {
    let Content::Layers(layers) = &image.content else {
        panic!("{image:?}")
    };
    let layer = Store::open(dir.join("images")).unwrap().layer(&layers[0]);
    let name = fs::read_dir(layer)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .file_name();
    name.into_string().unwrap()
}

#[tokio::test]
async fn a_layout_is_read_from_a_directory_or_a_tar() {
    let dir = Scratch::new();
    let layout = dir.path().join("layout");
    let tar = dir.path().join("layout.tar");
    write_files(&layout, &two_images());
    fs::write(&tar, archive(&two_images())).unwrap();
    for (name, file) in [("v1", "one"), ("v2", "two")] {
        let from_dir = get(dir.path(), &format!("oci:{}:{name}", layout.display()))
            .await
            .unwrap();
        assert_eq!(first_file(dir.path(), &from_dir), file);
        let other = Scratch::new();
        let from_tar = format!("oci-archive:{}:{name}", tar.display());
        let from_tar = get(other.path(), &from_tar).await.unwrap();
        assert_eq!(first_file(other.path(), &from_tar), file);
        assert_eq!(from_dir.digest, from_tar.digest);
    }
}

#[tokio::test]
async fn a_name_is_needed_only_among_several() {
    let dir = Scratch::new();
    let layout = dir.path().join("layout");
    write_files(&layout, &two_images());
    let source = format!("oci:{}", layout.display());
    let text = get(dir.path(), &source).await.unwrap_err().to_string();
    assert!(text.contains("add one of :v1, :v2"), "{text}");
    let text = get(dir.path(), &format!("{source}:v3"))
        .await
        .unwrap_err()
        .to_string();
    assert!(text.contains("only: v1, :v2"), "{text}");
    let mut blobs = Blobs::default();
    let image = blobs.image(&[Tar::new().file("alone", b"").done()]);
    let alone = dir.path().join("alone");
    write_files(
        &alone,
        &blobs.layout(&[named(&image, "one"), named(&image, "other")]),
    );
    let image = get(dir.path(), &format!("oci:{}", alone.display()))
        .await
        .unwrap();
    assert_eq!(first_file(dir.path(), &image), "alone");
}

#[tokio::test]
async fn layers_may_be_plain_or_zstd() {
    let mut blobs = Blobs::default();
    let tar = Tar::new().file("squeezed", &[b'z'; 100_000]).done();
    let zstd = ruzstd::encoding::compress_to_vec(
        tar.as_slice(),
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    let plain = Tar::new().file("plain", b"").done();
    let diff_ids = [&tar, &plain].map(|tar| crate::image::blobs::digest(tar));
    let layers = [
        ("application/vnd.oci.image.layer.v1.tar+zstd", zstd),
        ("tar", plain),
    ];
    let layers = layers.map(|(media_type, bytes)| blobs.add(media_type, bytes));
    let image = blobs.image_of(layers.into(), &diff_ids);
    let dir = Scratch::new();
    write_files(dir.path(), &blobs.layout(&[image]));
    let image = get(dir.path(), &format!("oci:{}", dir.path().display()))
        .await
        .unwrap();
    assert_eq!(first_file(dir.path(), &image), "squeezed");
}

#[tokio::test]
async fn what_is_no_layout_says_so() {
    let dir = Scratch::new();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("text"), b"hello").unwrap();
    fs::write(path("packed"), gzip(&archive(&two_images()))).unwrap();
    fs::write(path("empty.tar"), Tar::new().done()).unwrap();
    fs::create_dir(path("empty")).unwrap();
    for (source, part) in [
        (
            format!("oci:{}", path("empty").display()),
            "is it an OCI image layout?",
        ),
        (
            format!("oci:{}", path("gone").display()),
            "is it an OCI image layout?",
        ),
        (
            format!("oci-archive:{}", path("empty.tar").display()),
            "is it an OCI image layout?",
        ),
        (
            format!("oci-archive:{}", path("packed").display()),
            "gunzip it first",
        ),
        (format!("oci-archive:{}", path("text").display()), "text"),
        (
            format!("oci-archive:{}", path("gone.tar").display()),
            "No such file",
        ),
        (
            format!("rootfs:{}", path("text").display()),
            "not a directory",
        ),
        (format!("rootfs:{}", path("gone").display()), "No such file"),
    ] {
        let text = get(dir.path(), &source).await.unwrap_err().to_string();
        assert!(
            text.contains(&source) && text.contains(part),
            "{source}: {text}"
        );
    }
}

#[tokio::test]
async fn a_broken_layout_is_refused() {
    let mut blobs = Blobs::default();
    let tar = Tar::new().file("f", b"").done();
    let layer = blobs.add("application/vnd.oci.image.layer.v1.tar", tar.clone());
    let diff_id = crate::image::blobs::digest(&tar);
    let wrong = format!("sha256:{}", "0".repeat(64));
    let good = blobs.image_of(vec![layer.clone()], std::slice::from_ref(&diff_id));
    let more = blobs.image_of(vec![layer.clone()], &[diff_id.clone(), diff_id.clone()]);
    let other = blobs.image_of(vec![layer.clone()], &[wrong]);
    let escape = blobs.image_of(vec![layer.clone()], &["sha256:../../../etc".into()]);
    let artifact = blobs.document("application/json", &json!({"hello": 1}));
    let zstd_layer = blobs.add("zstd", b"\x28\xb5\x2f\xfdrest".to_vec());
    let zstd = blobs.image_of(vec![zstd_layer], std::slice::from_ref(&diff_id));
    for (entry, part) in [
        (more, "2 layers, but the manifest has 1"),
        (other, "the image was built wrong"),
        (escape, "only sha256 is supported"),
        (artifact, "neither `manifests` nor `layers`"),
        (zstd, "reading"),
    ] {
        let dir = Scratch::new();
        write_files(dir.path(), &blobs.layout(&[entry]));
        let source = format!("oci:{}", dir.path().display());
        let text = get(dir.path(), &source).await.unwrap_err().to_string();
        assert!(text.contains(part), "{part}: {text}");
    }
    // A blob that is not what its name says.
    let dir = Scratch::new();
    let mut files = blobs.layout(&[good]);
    let name = format!(
        "blobs/{}",
        layer["digest"].as_str().unwrap().replace(':', "/")
    );
    files.get_mut(&name).unwrap()[0] ^= 1;
    write_files(dir.path(), &files);
    let source = format!("oci:{}", dir.path().display());
    let text = get(dir.path(), &source).await.unwrap_err().to_string();
    assert!(text.contains("what came has the digest"), "{text}");
}
