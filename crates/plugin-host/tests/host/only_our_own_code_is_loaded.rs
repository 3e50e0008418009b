//! The cache trusts an entry only if nobody else can have written it.
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use husk_plugin_host::Host;
use husk_plugin_host::artifact::{self, ArtifactError, Cache};

use crate::common;

struct Fixture {
    host: Host,
    cache: Cache,
    digest: String,
    dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plugin.wasm");
    fs::write(&path, common::assigns(0, 0)).unwrap();
    let (bytes, digest) = artifact::read(&path, None).unwrap();
    let cache = Cache::new(dir.path().join("cache"));
    cache
        .store(&digest, &artifact::compile(&path, &bytes).unwrap())
        .unwrap();
    Fixture {
        host: Host::new().unwrap(),
        cache,
        digest,
        dir,
    }
}

impl Fixture {
    fn load(&self) -> Result<bool, ArtifactError> {
        self.cache
            .load(&self.host, &self.digest)
            .map(|component| component.is_some())
    }
}

#[test]
fn an_own_entry_is_loaded_and_a_missing_one_is_none() {
    let fixture = fixture();
    assert!(fixture.load().unwrap());
    assert!(
        fixture
            .cache
            .load(&fixture.host, &"0".repeat(64))
            .unwrap()
            .is_none()
    );
}

#[test]
fn an_entry_that_others_may_write_is_refused() {
    let fixture = fixture();
    let entry = fixture.cache.path(&fixture.digest);
    fs::set_permissions(&entry, fs::Permissions::from_mode(0o622)).unwrap();
    assert!(matches!(
        fixture.load(),
        Err(ArtifactError::Untrusted { .. })
    ));
}

#[test]
fn an_entry_of_another_user_is_refused() {
    let fixture = fixture();
    chown(fixture.cache.path(&fixture.digest), Some(65534), None).unwrap();
    assert!(matches!(
        fixture.load(),
        Err(ArtifactError::Untrusted { .. })
    ));
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    let fixture = fixture();
    let dir = fixture.dir.path().join("cache");
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(
        fixture.load(),
        Err(ArtifactError::Untrusted { .. })
    ));
}

#[test]
fn a_symbolic_link_is_not_followed() {
    let fixture = fixture();
    let entry = fixture.cache.path(&fixture.digest);
    let elsewhere = fixture.dir.path().join("elsewhere");
    fs::rename(&entry, &elsewhere).unwrap();
    symlink(&elsewhere, &entry).unwrap();
    assert!(matches!(fixture.load(), Err(ArtifactError::Io { .. })));
}

#[test]
fn damaged_code_is_refused() {
    let fixture = fixture();
    fs::write(fixture.cache.path(&fixture.digest), b"not machine code").unwrap();
    assert!(matches!(fixture.load(), Err(ArtifactError::Refused { .. })));
}

#[test]
fn a_component_that_is_not_the_configured_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plugin.wasm");
    fs::write(&path, common::denies("no")).unwrap();
    let error = artifact::read(&path, Some(&"0".repeat(64))).unwrap_err();
    assert!(
        matches!(error, ArtifactError::WrongDigest { .. }),
        "{error}"
    );
}
