//! An image has the same files with husk as with containerd: layers in every dialect of tar, odd
//! ones too, unpacked by both and compared entry by entry.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, process::Command};

use husk_engine::image::{Image, Pull, Quiet, Source, Store};
use husk_tests::command::run;
use husk_tests::containerd::Containerd;
use husk_tests::image;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sha2::{Digest as _, Sha256};

use self::archive::{Archive, Dialect, Entry, Numbers, Rng};

mod archive;

/// How many images are made up.
const MADE_UP: u64 = 300;

/// A file capability whose value holds a newline, as that of CAP_DAC_OVERRIDE and CAP_FOWNER does.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// containerd and husk beside it, each with a store of its own.
struct Both<'a> {
    containerd: &'a Containerd,
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    store: Store,
    since: i64,
}

/// What became of an image: its files, or why not.
type Unpacked = Result<BTreeMap<String, String>, String>;

impl<'a> Both<'a> {
    fn new(containerd: &'a Containerd) -> Self {
        let dir = tempfile::tempdir_in(&containerd.lab().run).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Self {
            containerd,
            store: Store::open(dir.path().join("store")).unwrap(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap(),
            since: i64::try_from(now.as_secs()).unwrap() - 1,
            dir,
        }
    }

    fn unpack(&self, name: &str, layers: &[Vec<u8>]) -> (Unpacked, Unpacked) {
        let archive = self.dir.path().join("image.tar");
        image::archive_of(&archive, name, layers).unwrap();
        let by_containerd = self.by_containerd(&archive, name);
        let by_husk = self.by_husk(&archive);
        fs::remove_file(&archive).unwrap();
        (by_containerd, by_husk)
    }

    fn by_containerd(&self, archive: &Path, name: &str) -> Unpacked {
        let ctr = self.containerd.ctr();
        let at = self.dir.path().join("containerd");
        fs::create_dir_all(&at).unwrap();
        let (archive, place) = (archive.to_str().unwrap(), at.to_str().unwrap());
        let imported = ctr.run(&["images", "import", archive]);
        let unpacked = if imported.code == 0 {
            let _ = ctr.run(&["images", "mount", name, place]).ok();
            let tree = self.tree(&at);
            let _ = ctr.run(&["images", "unmount", "--rm", place]).ok();
            Ok(tree)
        } else {
            Err(imported.stderr.trim().to_owned())
        };
        ctr.run(&["images", "rm", "--sync", name]);
        unpacked
    }

    fn by_husk(&self, archive: &Path) -> Unpacked {
        let source = Source::Archive {
            path: archive.to_owned(),
            name: None,
        };
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap();
        let rootfs = self.runtime.block_on(async {
            let image: Image = self.store.get(&source, Pull::Never, &Quiet).await?;
            self.store.rootfs(&image, dir.path()).await
        });
        let rootfs = rootfs.map_err(|error| error.to_string())?;
        let at = self.dir.path().join("husk");
        fs::create_dir_all(&at).unwrap();
        let [part] = rootfs.mounts.as_slice() else {
            panic!("{rootfs:?}");
        };
        assert_eq!(part.kind, "overlay", "{part:?}");
        let data = part.options.join(",");
        let kind = Some("overlay");
        mount(kind, &at, kind, MsFlags::empty(), Some(data.as_str())).unwrap();
        let tree = self.tree(&at);
        // A program that another test starts just now has what is open here until it executes.
        umount2(&at, MntFlags::MNT_DETACH).unwrap();
        Ok(tree)
    }

    /// A line for each file, with everything that a program in the container can see of it.
    fn tree(&self, root: &Path) -> BTreeMap<String, String> {
        let mut lines = BTreeMap::new();
        self.walk(root, root, &mut lines);
        lines
    }

    fn walk(&self, root: &Path, path: &Path, lines: &mut BTreeMap<String, String>) {
        // overlayfs lists a mark in a directory that only one layer has, and says that there is nothing.
        let meta = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            meta => meta.unwrap(),
        };
        let kind = meta.file_type();
        let mut line = if kind.is_dir() {
            "dir".to_owned()
        } else if kind.is_symlink() {
            format!("-> {:?}", fs::read_link(path).unwrap())
        } else if kind.is_file() {
            // Sparse files are larger than a test should read: their data is at the beginning.
            use std::io::Read as _;
            let mut bytes = Vec::new();
            let file = fs::File::open(path).unwrap();
            file.take(1 << 20).read_to_end(&mut bytes).unwrap();
            let digest = image::hex(&Sha256::digest(&bytes));
            format!("file {} {} x{}", meta.size(), &digest[..16], meta.nlink())
        } else if kind.is_fifo() {
            "fifo".to_owned()
        } else {
            format!("device {:?} {:x}", kind.is_block_device(), meta.rdev())
        };
        write!(
            line,
            " {:o} {}:{}",
            meta.mode() & 0o7777,
            meta.uid(),
            meta.gid()
        )
        .unwrap();
        // A directory that something was put into later has the time of that.
        if meta.mtime() >= self.since {
            line += " @now";
        } else {
            write!(line, " @{}.{:09}", meta.mtime(), meta.mtime_nsec()).unwrap();
        }
        let mut names: Vec<_> = xattr::list(path).unwrap().collect();
        names.sort();
        for name in names {
            let value = xattr::get(path, &name).unwrap().unwrap_or_default();
            write!(line, " {}={}", name.display(), image::hex(&value)).unwrap();
        }
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
        lines.insert(name.escape_ascii().to_string(), line);
        if kind.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                self.walk(root, &entry.unwrap().path(), lines);
            }
        }
    }
}

/// Compares; answers whether containerd took the image.
#[track_caller]
fn same(both: &Both<'_>, name: &str, layers: &[Vec<u8>]) -> bool {
    let keep = || {
        for (number, layer) in layers.iter().enumerate() {
            let kept = std::env::temp_dir().join(format!("husk-layer-{number}.tar"));
            fs::write(&kept, layer).unwrap();
            eprintln!("kept {}", kept.display());
        }
    };
    match both.unpack(name, layers) {
        (Ok(by_containerd), Ok(by_husk)) => {
            if by_containerd != by_husk {
                keep();
            }
            let differ: Vec<_> = by_containerd
                .keys()
                .chain(by_husk.keys())
                .filter(|key| by_containerd.get(*key) != by_husk.get(*key))
                .map(|key| {
                    let (right, wrong) = (by_containerd.get(key), by_husk.get(key));
                    format!("{key}:\n  containerd {right:?}\n  husk       {wrong:?}")
                })
                .collect();
            assert!(differ.is_empty(), "{name}: {}", differ.join("\n"));
            true
        }
        (Ok(_), Err(refused)) => {
            let on_purpose = ON_PURPOSE.iter().any(|reason| refused.contains(reason));
            if !on_purpose {
                keep();
            }
            assert!(
                on_purpose,
                "{name}: containerd takes it, husk does not: {refused}"
            );
            true
        }
        // Neither has files of it; what husk takes beyond is none of containerd's business.
        (Err(_), _) => false,
    }
}

/// What husk refuses, and containerd takes.
const ON_PURPOSE: [&str; 2] = [
    // It would delete what the layers below have, and nobody could see it.
    "overlayfs' mark for a deleted file",
    // The kernel would cut it to 32 bits.
    "an owner that is no 32-bit id",
];

fn file<'a>(name: &'a [u8], content: &'a [u8]) -> Entry<'a> {
    Entry {
        name,
        content,
        ..Entry::default()
    }
}

fn dir(name: &[u8], mode: u64, owner: (u64, u64)) -> Entry<'_> {
    Entry {
        name,
        kind: b'5',
        mode,
        owner,
        ..Entry::default()
    }
}

#[test]
fn a_value_of_a_pax_record_may_hold_anything() {
    let containerd = Containerd::of_the_suite();
    let both = Both::new(&containerd);
    let mut archive = Archive::new(Dialect::Pax);
    archive.pax(&[(b"SCHILY.xattr.security.capability", CAPABILITY)]);
    archive.add(&file(b"ping", b"an ELF"));
    archive.add(&file(b"right", b"right"));
    archive.add(&file(b"other", b"other"));
    archive.pax(&[(b"comment", b"x\n17 linkpath=other")]);
    archive.add(&Entry {
        name: b"link",
        kind: b'1',
        link: b"right",
        ..Entry::default()
    });
    archive.pax(&[(b"comment", b"x\n17 path=elsewhere\n")]);
    archive.add(&file(b"here", b"here"));
    let layers = [archive.done()];
    assert!(same(&both, "husk.test/pax:1", &layers));
    let tree = both.unpack("husk.test/pax:1", &layers).1.unwrap();
    assert!(tree["ping"].contains(&image::hex(CAPABILITY)), "{tree:?}");
    assert!(tree["right"].contains(" x2 "), "{tree:?}");
    assert!(tree["other"].contains(" x1 "), "{tree:?}");
    assert!(tree.contains_key("here"), "{tree:?}");
}

#[test]
fn a_directory_that_a_layer_does_not_list_stays_as_it_is() {
    let containerd = Containerd::of_the_suite();
    let both = Both::new(&containerd);
    let mut below = Archive::new(Dialect::Gnu);
    below.add(&dir(b"tmp/", 0o1777, (0, 0)));
    below.add(&dir(b"srv/", 0o711, (7, 7)));
    below.add(&dir(b"srv/app/", 0o750, (33, 34)));
    below.add(&Entry {
        name: b"app",
        kind: b'2',
        link: b"srv/app",
        ..Entry::default()
    });
    let mut between = Archive::new(Dialect::Gnu);
    between.add(&dir(b"srv/app/", 0o2770, (35, 36)));
    let mut above = Archive::new(Dialect::Gnu);
    above.add(&file(b"tmp/foo", b"1"));
    above.add(&file(b"srv/app/bar", b"2"));
    above.add(&file(b"new/dir/x", b"3"));
    let layers = [below.done(), between.done(), above.done()];
    assert!(same(&both, "husk.test/dirs:1", &layers));
    let tree = both.unpack("husk.test/dirs:1", &layers).1.unwrap();
    for (name, line) in [
        ("tmp", "dir 1777 0:0"),
        ("srv", "dir 711 7:7"),
        ("srv/app", "dir 2770 35:36"),
        ("new/dir", "dir 755 0:0"),
    ] {
        assert!(tree[name].starts_with(line), "{name}: {}", tree[name]);
    }
}

#[test]
fn layers_in_every_dialect_of_tar_are_unpacked_as_containerd_does() {
    let containerd = Containerd::of_the_suite();
    let both = Both::new(&containerd);
    let mut taken = 0;
    for seed in 1..=MADE_UP {
        let mut rng = Rng::new(seed);
        let layers: Vec<_> = (0..1 + rng.below(3))
            .map(|below| made_up(&mut rng, below > 0))
            .collect();
        taken += u64::from(same(&both, &format!("husk.test/made-up:{seed}"), &layers));
    }
    assert!(
        taken * 2 > MADE_UP,
        "containerd takes only {taken} of {MADE_UP}: they prove little"
    );
}

#[test]
fn what_gnu_tar_writes_is_unpacked_as_containerd_does() {
    let containerd = Containerd::of_the_suite();
    let both = Both::new(&containerd);
    let from = tempfile::tempdir_in(both.dir.path()).unwrap();
    let at = |name: &str| from.path().join(name);
    fs::create_dir_all(at("deep").join("d".repeat(90)).join("e".repeat(90))).unwrap();
    let long = at("deep")
        .join("d".repeat(90))
        .join("e".repeat(90))
        .join("f".repeat(120));
    fs::write(long, b"long").unwrap();
    fs::write(at("two\nlines and spaces"), b"odd").unwrap();
    fs::write(at("old"), b"x").unwrap();
    let mut touch = Command::new("touch");
    let _ = run(touch.args(["-d", "1960-01-01 00:00:00.5"]).arg(at("old"))).ok();
    std::os::unix::fs::symlink("l".repeat(150), at("link")).unwrap();
    fs::hard_link(at("old"), at("same")).unwrap();
    let sparse = fs::File::create(at("sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    for offset in [0_u64, 70_000, 900_000, 3 << 20] {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", offset).unwrap();
    }
    std::os::unix::fs::chown(at("old"), Some(3_000_000), Some(4_000_000)).unwrap();
    let formats: [&[&str]; 7] = [
        &["--format=gnu"],
        &["--format=pax"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
        &[
            "--format=ustar",
            "--exclude=link",
            "--exclude=deep",
            "--exclude=old",
            "--exclude=same",
        ],
        &[
            "--format=v7",
            "--exclude=link",
            "--exclude=deep",
            "--exclude=old",
            "--exclude=same",
        ],
    ];
    for (number, format) in formats.into_iter().enumerate() {
        let out = both.dir.path().join("layer.tar");
        let _ = run(Command::new("tar")
            .args(format)
            .arg("--numeric-owner")
            .arg("-cf")
            .arg(&out)
            .arg("-C")
            .arg(from.path())
            .arg("."))
        .ok();
        let layer = fs::read(&out).unwrap();
        let taken = same(&both, &format!("husk.test/gnu:{number}"), &[layer]);
        assert!(taken, "{format:?}");
    }
}

/// A layer of odd entries, of names few enough to meet one another.
///
/// Only one with layers below has marks of deletion: those of the lowest containerd applies to that
/// layer itself, where the OCI image specification (`layer.md`) says that they never do.
fn made_up(rng: &mut Rng, marks: bool) -> Vec<u8> {
    const NAMES: [&[u8]; 24] = [
        b"a",
        b"b",
        b"a/b",
        b"a/c/d",
        b"./a",
        b"/b",
        b"a//c",
        b"dir/",
        b"dir/x",
        b"dir/sub/y",
        b"l",
        b"l/x",
        b"l2",
        b"l2/y/z",
        b"up/../b",
        b"../../out",
        b"with space",
        b"two\nlines",
        b"\xff\xfe",
        b"dir/.wh.x",
        b"dir/.wh..wh..opq",
        b".wh.a",
        b"./",
        b"dir/sub",
    ];
    const LINKS: [&[u8]; 10] = [
        b"a",
        b"/dir",
        b"dir",
        b"../..",
        b"b",
        b"missing",
        b"/missing/deep",
        b"dir/x",
        b"./b",
        b"l",
    ];
    const KINDS: [u8; 14] = *b"00000555122346";
    let dialect = *rng.of(&[
        Dialect::V7,
        Dialect::Ustar,
        Dialect::Pax,
        Dialect::Gnu,
        Dialect::Star,
    ]);
    let mut archive = Archive::new(dialect);
    let mut files: Vec<Vec<u8>> = Vec::new();
    for _ in 0..1 + rng.below(6) {
        archive.numbers = *rng.of(&[
            Numbers::Octal,
            Numbers::Octal,
            Numbers::Spaces,
            Numbers::Binary,
        ]);
        let length = *rng.of(&[99, 100, 101, 155, 200, 255]);
        let long = rng.bytes(length);
        let length = *rng.of(&[0, 1, 5, 511, 512, 513, 3000]);
        let content = rng.bytes(length);
        let mut kind = *rng.of(&KINDS);
        if kind == b'1' && files.is_empty() {
            kind = b'0';
        }
        let name = if rng.below(8) == 0 {
            long.as_slice()
        } else {
            *rng.of(&NAMES)
        };
        // What a hard link leads to must be there.
        let target = match kind {
            b'1' => rng.of(&files).clone(),
            _ => rng.of(&LINKS).to_vec(),
        };
        let is_mark = name.windows(4).any(|part| part == b".wh.");
        let name = if is_mark && !marks { b"b" } else { name };
        let mut entry = Entry {
            name,
            kind,
            link: match kind {
                b'1' | b'2' => &target,
                _ => b"",
            },
            mode: *rng.of(&[0o644, 0o755, 0o4755, 0o1777, 0, 0o100_644, 0o2750]),
            owner: (
                *rng.of(&[0, 33, 65_534, 2_097_152, 4_294_967_294]),
                rng.below(1000),
            ),
            mtime: *rng.of(&[0, 1, 1_500_000_000, 8_589_934_592]),
            device: (rng.below(9), rng.below(300)),
            content: if kind == b'0' { &content } else { b"" },
            ..Entry::default()
        };
        if dialect == Dialect::V7 && kind == b'0' && rng.below(2) == 0 {
            entry.kind = 0;
        }
        if matches!(dialect, Dialect::Pax | Dialect::Ustar | Dialect::Star) && rng.below(3) == 0 {
            let mut records: Vec<(&[u8], &[u8])> = Vec::new();
            for _ in 0..1 + rng.below(3) {
                records.push(*rng.of::<(&[u8], &[u8])>(&[
                    (b"comment", b"\n12 path=a\n"),
                    (b"comment", b"x\n17 linkpath=other"),
                    (b"path", b"dir/renamed"),
                    (b"path", b""),
                    (b"linkpath", b"b"),
                    (b"mtime", b"1400000000.123456789"),
                    (b"mtime", b"-7.5"),
                    (b"uid", b"77"),
                    (b"gid", b""),
                    (b"SCHILY.xattr.user.colour", b"a\nb"),
                    (b"SCHILY.xattr.security.capability", CAPABILITY),
                    (b"SCHILY.xattr.trusted.mine", b"no"),
                    (b"uname", b"somebody"),
                ]));
            }
            archive.pax(&records);
        }
        if rng.below(25) == 0 {
            archive.global(&[(b"comment", b"of all")]);
        }
        archive.add(&entry);
        if kind == b'0' && name.len() < 100 {
            files.push(name.to_vec());
        }
    }
    archive.done()
}
