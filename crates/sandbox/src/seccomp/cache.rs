//! Compiled profiles, on a file system that does not outlive the kernel they were compiled for.
//!
//! A file holds its key in full beside the program, so a name that two profiles share does no harm.
//! Only root may look into the directory. The cache may be missing, be unwritable or be removed at
//! any time: then a profile is compiled again.
use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use libseccomp::ScmpVersion;
use oci_spec::runtime::LinuxSeccomp;

use crate::error::JobError;

const DIRECTORY: &str = "/run/husk-seccomp";
/// Nodes have a handful of profiles; whoever makes up more is not to fill the memory that /run is.
const MOST: usize = 64;

/// Counts the ways in which husk has made programs: one that another version kept is not used.
const MAKER: u32 = 2;

/// All that a compiled program depends on.
pub(super) fn key(profile: &LinuxSeccomp) -> Result<Vec<u8>, JobError> {
    let version =
        ScmpVersion::current().map_or_else(|_| String::new(), |version| version.to_string());
    let mut key = format!("{MAKER} {} {version} ", std::env::consts::ARCH).into_bytes();
    serde_json::to_writer(&mut key, profile).map_err(|error| {
        JobError::failed(format!("cannot write linux.seccomp as JSON: {error}"))
    })?;
    Ok(key)
}

pub(super) fn find(key: &[u8]) -> Option<Vec<u8>> {
    find_in(Path::new(DIRECTORY), key)
}

/// Losing a program costs the time to compile it again, and nothing else: failures are not told.
pub(super) fn keep(key: &[u8], program: &[u8]) {
    let _ = keep_in(Path::new(DIRECTORY), key, program);
}

fn find_in(directory: &Path, key: &[u8]) -> Option<Vec<u8>> {
    let file = fs::read(directory.join(name(key))).ok()?;
    let (length, rest) = file.split_first_chunk()?;
    let (its, program) =
        rest.split_at_checked(usize::try_from(u64::from_ne_bytes(*length)).ok()?)?;
    (its == key && !program.is_empty()).then(|| program.to_vec())
}

fn keep_in(directory: &Path, key: &[u8], program: &[u8]) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    if fs::read_dir(directory)?.count() >= MOST {
        fs::remove_dir_all(directory)?;
        DirBuilder::new().mode(0o700).create(directory)?;
    }
    let length = u64::try_from(key.len()).map_err(io::Error::other)?;
    let name = name(key);
    let whole = directory.join(&name);
    let partial = directory.join(format!("{name}.{}", std::process::id()));
    let file = [&length.to_ne_bytes(), key, program].concat();
    fs::write(&partial, file).and_then(|()| fs::rename(&partial, whole))
}

fn name(key: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(action: &str) -> LinuxSeccomp {
        serde_json::from_value(serde_json::json!({"defaultAction": action})).unwrap()
    }

    #[test]
    fn a_program_is_found_by_its_very_profile() {
        let dir = tempfile::tempdir().unwrap();
        let (allow, kill) = (
            key(&profile("SCMP_ACT_ALLOW")).unwrap(),
            key(&profile("SCMP_ACT_KILL")).unwrap(),
        );
        assert_eq!(find_in(dir.path(), &allow), None);
        keep_in(dir.path(), &allow, b"program").unwrap();
        assert_eq!(find_in(dir.path(), &allow).unwrap(), b"program");
        assert_eq!(find_in(dir.path(), &kill), None);
    }

    #[test]
    fn a_file_of_another_profile_or_a_broken_one_is_no_program() {
        let dir = tempfile::tempdir().unwrap();
        let (allow, kill) = (
            key(&profile("SCMP_ACT_ALLOW")).unwrap(),
            key(&profile("SCMP_ACT_KILL")).unwrap(),
        );
        keep_in(dir.path(), &kill, b"program").unwrap();
        let file = dir.path().join(name(&allow));
        fs::rename(dir.path().join(name(&kill)), &file).unwrap();
        assert_eq!(find_in(dir.path(), &allow), None);
        for broken in [
            &b""[..],
            &[0xff; 8],
            &u64::MAX.to_ne_bytes(),
            b"12345678rest",
        ] {
            fs::write(&file, broken).unwrap();
            assert_eq!(find_in(dir.path(), &allow), None, "{broken:?}");
        }
    }

    #[test]
    fn the_cache_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        for number in 0..=MOST {
            keep_in(&cache, format!("key {number}").as_bytes(), b"program").unwrap();
        }
        assert!(fs::read_dir(&cache).unwrap().count() <= MOST);
        let last = format!("key {MOST}");
        assert_eq!(find_in(&cache, last.as_bytes()).unwrap(), b"program");
    }
}
