//! Layers down to the files a container sees.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::build::{Blobs, Tar, busybox, write_files};
use super::scratch::Scratch;
use super::tree::tree;
use crate::image::{Image, ImageError, Pull, Quiet, Rootfs, Source, Store};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tar::EntryType;

/// A file capability whose value holds a newline.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// A store, and images made for it.
struct Room {
    dir: Scratch,
    store: Store,
}

impl Room {
    fn new() -> Self {
        let dir = Scratch::new();
        let store = Store::open(dir.path().join("images")).unwrap();
        Self { dir, store }
    }

    /// The same without overlayfs.
    fn copying() -> Self {
        let mut room = Self::new();
        room.store.overlay = Arc::new(Err("switched off".into()));
        room
    }

    async fn image(&self, tars: &[Vec<u8>]) -> Result<Image, ImageError> {
        let mut blobs = Blobs::default();
        let image = blobs.image(tars);
        let layout = self.dir.path().join("layout");
        write_files(&layout, &blobs.layout(&[image]));
        let source = Source::Layout {
            path: layout,
            name: None,
        };
        self.store.get(&source, Pull::Never, &Quiet).await
    }

    async fn rootfs(&self, image: &Image) -> Rootfs {
        self.store
            .rootfs(image, &self.dir.path().join("container"))
            .await
            .unwrap()
    }
}

/// What a shim does with the mounts; undone when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(rootfs: &Rootfs, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        for part in &rootfs.mounts {
            let (source, kind) = (Some(part.source.as_str()), Some(part.kind.as_str()));
            if part.kind == "bind" {
                assert_eq!(part.options, ["rbind", "rw"]);
                let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
                mount(source, at, None::<&str>, flags, None::<&str>).unwrap();
            } else {
                let data = part.options.join(",");
                mount(source, at, kind, MsFlags::empty(), Some(data.as_str())).unwrap();
            }
        }
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

/// The tree of one layer as it is unpacked in the store.
async fn unpacked(tar: Vec<u8>) -> BTreeMap<String, String> {
    let room = Room::new();
    let image = room.image(&[tar]).await.unwrap();
    let crate::image::Content::Layers(layers) = &image.content else {
        panic!("{image:?}")
    };
    tree(&room.store.layer(&layers[0]))
}

#[tokio::test]
async fn every_attribute_is_kept() {
    let mut owned = Tar::header("bin/su", EntryType::Regular, 0o4755);
    owned.set_uid(12);
    owned.set_gid(34);
    let mut again = Tar::header("bin/again", EntryType::Link, 0o4755);
    again.set_uid(12);
    again.set_gid(34);
    again.as_old_mut().linkname[..8].copy_from_slice(b"./bin/su");
    let mut dir = Tar::header("var/", EntryType::Directory, 0o1777);
    dir.set_mtime(1_500_000_000);
    let mut of_nobody = Tar::header("link", EntryType::Symlink, 0o777);
    of_nobody.set_uid(65534);
    of_nobody.set_mtime(77);
    of_nobody.as_old_mut().linkname[..7].copy_from_slice(b"/bin/su");
    let tar = Tar::new()
        // The root is as containerd makes it, whatever a layer says.
        .add(Tar::header("./", EntryType::Directory, 0o711), &[])
        .add(dir, &[])
        .file("var/inside", b"changes the time of var")
        .pax(&[
            ("SCHILY.xattr.security.capability", CAPABILITY),
            ("SCHILY.xattr.trusted.colour", b"blue"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("mtime", b"1600000000.25"),
        ])
        .add(owned, b"su")
        // As containerd has it: a hard link's header changes what it leads to.
        .pax(&[
            ("SCHILY.xattr.security.capability", CAPABILITY),
            ("mtime", b"1600000000.25"),
        ])
        .add(again, &[])
        .add(of_nobody, &[])
        .pax(&[("SCHILY.xattr.user.lost", b"a fifo has none")])
        .add(Tar::header("pipe", EntryType::Fifo, 0o640), &[])
        .device(EntryType::Char, "dev/null", 1, 3)
        .device(EntryType::Block, "dev/loop7", 7, 7)
        .done();
    let tree = unpacked(tar).await;
    let su = r#"file "su" x2 4755 12:34 @1600000000.250000000 security.capability="#;
    let expected = [
        ("bin/again", su),
        ("bin/su", su),
        ("dev/loop7", "block 7:7 600 0:0 @1600000000.000000000"),
        ("dev/null", "char 1:3 600 0:0 @1600000000.000000000"),
        ("link", "-> /bin/su 777 65534:0 @77.000000000"),
        ("pipe", "fifo 0:0 640 0:0 @1600000000.000000000"),
        ("var", "dir 1777 0:0 @1500000000.000000000"),
        (
            "var/inside",
            r#"file "changes the time of var" x1 644 0:0 @1600000000.000000000"#,
        ),
    ];
    for (name, line) in expected {
        match tree[name].strip_prefix(line) {
            Some("") => {}
            // The value of a capability is no text.
            Some(_) if line.ends_with("capability=") => {}
            _ => panic!("{name}: {}", tree[name]),
        }
    }
    // bin and dev are in no entry of the tar: made on the way, with no time to compare.
    for made in ["", "bin", "dev"] {
        assert!(tree[made].starts_with("dir 755 0:0 "), "{}", tree[made]);
    }
    assert_eq!(tree.len(), expected.len() + 3);
}

#[tokio::test]
async fn marks_of_deletion_become_those_of_overlayfs() {
    let tar = Tar::new()
        .dir("a/")
        .file("a/.wh.gone", b"")
        .dir("b/")
        .file("b/.wh..wh..opq", b"")
        .file("b/new", b"")
        .file("c/.wh.new", b"")
        .file("c/new", b"kept: a mark hides lower layers only")
        .file("d/new/file", b"")
        .file("d/.wh.new", b"")
        .file("e/.wh.new", b"")
        .dir("e/new/")
        .file("f/.wh.new", b"")
        .file("f/new/file", b"the directory is in no entry")
        .file(".wh..wh.plnk", b"")
        .done();
    let tree = unpacked(tar).await;
    assert!(
        tree["a/gone"].starts_with("char 0:0 "),
        "{}",
        tree["a/gone"]
    );
    for opaque in ["b", "d/new", "e/new", "f/new"] {
        assert!(
            tree[opaque].ends_with(" trusted.overlay.opaque=y"),
            "{opaque} {}",
            tree[opaque]
        );
    }
    assert!(tree["c/new"].contains("kept"), "{}", tree["c/new"]);
    assert!(tree.contains_key("d/new/file") && tree.contains_key("f/new/file"));
    assert!(!tree.keys().any(|name| name.contains(".wh.")), "{tree:?}");
}

#[tokio::test]
async fn nothing_is_made_outside_of_the_layer() {
    let outside = Scratch::new();
    let canary = outside.path().join("canary");
    fs::write(&canary, b"alive").unwrap();
    let out = outside.path().to_str().unwrap();
    let link = |tar: Tar, name: &str, to: &str| tar.link(EntryType::Symlink, name, to);
    let up = format!("{}{out}", "../".repeat(12));
    let refused = [
        (
            Tar::new().file("a/.wh..", b""),
            "delete a directory from inside",
        ),
        (
            Tar::new().file("a/.wh...", b""),
            "delete a directory from inside",
        ),
        (
            Tar::new().file(".wh.", b""),
            "delete a directory from inside",
        ),
        (
            Tar::new().link(EntryType::Link, "x", "../../etc/passwd"),
            "No such file",
        ),
        (Tar::new().link(EntryType::Link, "x", ".."), "to the root"),
        (
            Tar::new().link(EntryType::Link, "x", "/etc/passwd"),
            "No such file",
        ),
        (
            Tar::new().dir("d/").link(EntryType::Link, "x", "d"),
            "hard link to a directory",
        ),
        (
            Tar::new()
                .file(".wh.a", b"")
                .link(EntryType::Link, "x", "a"),
            "does not hold",
        ),
        (
            link(Tar::new(), "l", out).link(EntryType::Link, "x", "l/canary"),
            "No such file",
        ),
        (
            Tar::new().device(EntryType::Char, "null", 0, 0),
            "overlayfs' mark",
        ),
        (
            Tar::new().file("a", b"").file("a/b", b""),
            "directory is none",
        ),
        (
            Tar::new().add(Tar::header("x", EntryType::new(b'Z'), 0), &[]),
            "not supported",
        ),
        (
            link(Tar::new(), "l", "l").file("l/escape", b""),
            "Too many levels",
        ),
    ];
    for (tar, part) in refused {
        let room = Room::new();
        let text = room.image(&[tar.done()]).await.unwrap_err().to_string();
        assert!(text.contains(part), "{part}: {text}");
        let layers = room.dir.path().join("images/layers");
        assert_eq!(fs::read_dir(layers).unwrap().count(), 0, "{part}");
    }
    // What tar programs write, and what leads inside, is put inside.
    let tar = Tar::new().file("/etc/absolute", b"").dir("real/dir/");
    let tar = link(tar, "l", "/real/dir").file("l/inside", b"");
    let tar = link(tar, "up", "../../../real").file("up/.wh.gone", b"");
    let tree = unpacked(tar.done()).await;
    for name in ["etc/absolute", "real/dir/inside", "real/gone"] {
        assert!(tree.contains_key(name), "{name}: {tree:?}");
    }
    // A link out of the layer leads to a directory in it, which is made.
    for to in [out, &up] {
        let name = format!("{}/escape", out.trim_start_matches('/'));
        let tar = link(Tar::new(), "l", to).file("l/escape", b"in");
        assert!(unpacked(tar.done()).await[&name].starts_with("file \"in\""));
    }
    for name in ["../escape", "a/../../escape"] {
        let tar = Tar::new().dir("..").file(name, b"in").done();
        assert!(unpacked(tar).await["escape"].starts_with("file \"in\""));
    }
    // A link is replaced, not followed.
    let tar = link(Tar::new(), "x", canary.to_str().unwrap())
        .file("x", b"mine")
        .done();
    assert!(unpacked(tar).await["x"].starts_with("file \"mine\""));
    assert_eq!(fs::read_to_string(&canary).unwrap(), "alive");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

/// Three layers that add, replace and delete in every way.
fn three_layers() -> [Vec<u8>; 3] {
    let one = Tar::new()
        .dir("keep/")
        .file("keep/a", b"1")
        .dir("drop/")
        .file("drop/a", b"1")
        .dir("drop/sub/")
        .file("drop/sub/b", b"1")
        .dir("hide/")
        .file("hide/a", b"1")
        .file("swap", b"a file")
        .dir("turn/")
        .file("turn/a", b"1")
        .dir("late/")
        .file("late/old", b"1")
        .dir("late/sub/")
        .file("late/sub/old", b"1")
        .dir("keep/late/")
        .file("keep/late/old", b"1")
        .file("fresh", b"1");
    let two = Tar::new()
        .dir("keep/")
        .file("keep/b", b"2")
        .file(".wh.drop", b"")
        .dir("hide/")
        .file("hide/.wh..wh..opq", b"")
        .file("hide/b", b"2")
        .dir("swap/")
        .file("swap/now", b"a directory")
        .file("turn", b"a file")
        .dir("late/")
        .file("late/new", b"2")
        .file("late/.wh..wh..opq", b"")
        .dir("keep/late/")
        .file("keep/late/new", b"2")
        .file("keep/.wh.late", b"")
        .file("fresh", b"2")
        .file(".wh.fresh", b"");
    let three = Tar::new()
        .add(Tar::header("./", EntryType::Directory, 0o751), &[])
        .dir("drop/")
        .file("drop/c", b"3")
        .dir("keep/")
        .file("keep/.wh.a", b"")
        .link(EntryType::Symlink, "turn", "keep/b");
    [one.done(), two.done(), three.done()]
}

#[tokio::test]
async fn an_overlay_and_a_copy_are_the_same() {
    let mut trees = Vec::new();
    for room in [Room::new(), Room::copying()] {
        let image = room.image(&three_layers()).await.unwrap();
        let rootfs = room.rootfs(&image).await;
        let at = room.dir.path().join("mounted");
        let _mounted = Mounted::new(&rootfs, &at);
        trees.push((rootfs.mounts[0].kind.clone(), tree(&at)));
    }
    let (kinds, trees): (Vec<_>, Vec<_>) = trees.into_iter().unzip();
    assert_eq!(kinds, ["overlay", "bind"]);
    let names: Vec<_> = trees[0].keys().map(String::as_str).collect();
    let expected = "|drop|drop/c|fresh|hide|hide/b|keep|keep/b|keep/late|keep/late/new|late|late/new\
         |swap|swap/now|turn";
    assert_eq!(names.join("|"), expected);
    let strip = |tree: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        // The mark is overlayfs' own business, and a copy's directory changes as files go.
        let own = |line: &String| {
            let line = line.replace(" trusted.overlay.opaque=y", "");
            let dir = line.starts_with("dir ");
            if dir {
                line.split(" @").next().unwrap_or_default().to_owned()
            } else {
                line
            }
        };
        tree.iter()
            .map(|(name, line)| (name.clone(), own(line)))
            .collect()
    };
    assert_eq!(strip(&trees[0]), strip(&trees[1]));
}

#[tokio::test]
async fn a_program_of_the_image_runs_and_what_it_writes_stays_out_of_the_store() {
    for room in [Room::new(), Room::copying()] {
        let image = room.image(&[busybox()]).await.unwrap();
        let rootfs = room.rootfs(&image).await;
        assert_eq!(rootfs.user("web").unwrap().additional_gids, [4]);
        let at = room.dir.path().join("mounted");
        let mounted = Mounted::new(&rootfs, &at);
        let output = Command::new("chroot")
            .arg(&at)
            .args([
                "/bin/sh",
                "-c",
                "echo changed > /etc/passwd; echo new > /new; cat /etc/passwd",
            ])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "changed\n",
            "{output:?}"
        );
        drop(mounted);
        let other = room
            .store
            .rootfs(&image, &room.dir.path().join("other"))
            .await
            .unwrap();
        assert!(other.passwd.contains("web"), "{}", other.passwd);
    }
}

#[tokio::test]
async fn a_folder_is_never_written() {
    let folder = Scratch::new();
    // A colon, which overlayfs would take for the end of the path.
    let root = folder.path().join("a:b");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/passwd"), "me:x:5:6::/home/me:\n").unwrap();
    let before = tree(&root);
    let room = Room::new();
    let image = room
        .store
        .get(&Source::Folder(root.clone()), Pull::Always, &Quiet)
        .await
        .unwrap();
    let rootfs = room.rootfs(&image).await;
    assert_eq!(rootfs.mounts[0].kind, "overlay");
    assert_eq!(rootfs.user("me").unwrap().home, "/home/me");
    let at = room.dir.path().join("mounted");
    let mounted = Mounted::new(&rootfs, &at);
    fs::write(at.join("etc/passwd"), b"").unwrap();
    fs::remove_dir_all(at.join("etc")).unwrap();
    drop(mounted);
    assert_eq!(tree(&root), before);
    // And without overlayfs: a directory that overlayfs cannot have writes in is a copy.
    let odd = room.dir.path().join("odd,name");
    let rootfs = room.store.rootfs(&image, &odd).await.unwrap();
    assert_eq!(rootfs.mounts[0].kind, "bind");
    assert_eq!(tree(Path::new(&rootfs.mounts[0].source)), before);
    fs::write(Path::new(&rootfs.mounts[0].source).join("etc/passwd"), b"").unwrap();
    assert_eq!(tree(&root), before);
}

#[tokio::test]
async fn a_hundred_layers_fit_into_one_page_of_options() {
    let room = Room::new();
    let mut tars: Vec<_> = (0..100_u8)
        .map(|number| {
            Tar::new()
                .file("which", &[number])
                .file(&format!("{number}"), b"")
                .done()
        })
        .collect();
    // The same layer twice, which overlayfs refuses as such.
    tars.push(tars[0].clone());
    let image = room.image(&tars).await.unwrap();
    let rootfs = room.rootfs(&image).await;
    assert_eq!(rootfs.mounts[0].kind, "overlay");
    assert!(rootfs.mounts[0].options.join(",").len() < 4096);
    let at = room.dir.path().join("mounted");
    let _mounted = Mounted::new(&rootfs, &at);
    assert_eq!(fs::read(at.join("which")).unwrap(), [0]);
    assert_eq!(fs::read_dir(&at).unwrap().count(), 101);
}
