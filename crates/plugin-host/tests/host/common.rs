//! Plugins written by hand, in the text format of core WebAssembly.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use husk_plugin_host::artifact::{self, Cache};
use husk_plugin_host::subject::{Container, Pod};
use husk_plugin_host::{Host, Plugin, PluginError, Settings};
use husk_scope::config::{self, Mode, OnError};
use husk_scope::{Scope, Scopes};
use oci_spec::runtime::Spec;
use wasmtime::component::Component;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Where the WIT package is.
pub(crate) fn wit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/0.1.1")
}

/// The package as it was when this version was released.
pub(crate) fn frozen(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../wit/frozen")
        .join(version)
}

/// A component of `world` around a core module.
pub(crate) fn component(world: &str, module: &str) -> Vec<u8> {
    component_of(&wit(), world, module)
}

/// The same, of the WIT package in this directory.
pub(crate) fn component_of(wit: &Path, world: &str, module: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit).expect("the WIT package parses");
    let world = resolve
        .select_world(&[package], Some(world))
        .expect("the world exists");
    let mut bytes = wat::parse_str(module).expect("the module parses");
    embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default()
        .module(&bytes)
        .unwrap()
        .encode()
        .expect("a component")
}

/// A policy whose two functions have this body; it leaves the address of a result in memory.
/// `prelude` may hold further items of the module.
pub(crate) fn policy(prelude: &str, body: &str) -> Vec<u8> {
    component(
        "policy",
        &format!(
            r#"(module
                {prelude}
                (memory (export "memory") 2)
                (global $next (mut i32) (i32.const 65536))
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                    (local $at i32)
                    (local.set $at (global.get $next))
                    (global.set $next (i32.add (global.get $next) (i32.and (i32.add (local.get 3) (i32.const 15)) (i32.const -16))))
                    (local.get $at))
                (func (export "husk:plugin/scoping@0.1.1#scope-sandbox") (result i32) {body})
                (func (export "husk:plugin/scoping@0.1.1#scope-container") (result i32) {body}))"#
        ),
    )
}

/// The bytes of `ok([{kind, scope}])` at address 0: kind and scope by their place in WIT.
pub(crate) fn assigns(kind: u8, scope: u8) -> Vec<u8> {
    // result: tag 0, then (at 4) the list's address 32 and length 1; the assignment has the kind at
    // 32, the scope's tag at 36, and its name, if any, at 40 (address 64) and 44 (length 3).
    let data = format!(
        r#"(data (i32.const 0) "\00\00\00\00\20\00\00\00\01\00\00\00")
           (data (i32.const 32) "\{kind:02x}\00\00\00\{scope:02x}\00\00\00\40\00\00\00\03\00\00\00")
           (data (i32.const 64) "web")"#
    );
    policy(&data, "(i32.const 0)")
}

/// A policy that denies everything with this reason.
pub(crate) fn denies(reason: &str) -> Vec<u8> {
    let length = u8::try_from(reason.len()).expect("a short reason");
    let data = format!(
        r#"(data (i32.const 0) "\01\00\00\00\40\00\00\00\{length:02x}\00\00\00")
           (data (i32.const 64) "{reason}")"#
    );
    policy(&data, "(i32.const 0)")
}

/// Settings with this name and the default limits.
pub(crate) fn settings(name: &str) -> Settings {
    Settings {
        config: config::Plugin {
            name: name.to_owned(),
            path: "/plugin.wasm".into(),
            sha256: None,
            mode: Mode::Enforce,
            on_error: OnError::Deny,
            deadline: Duration::from_millis(50),
            memory: 64 << 20,
            settings: "{}".to_owned(),
            settings_at: None,
        },
        seccomp_profiles: Arc::default(),
    }
}

/// The same, with settings of the plugin's own, as JSON, and time for a host that is not optimized.
pub(crate) fn settings_with(name: &str, json: &str) -> Settings {
    let mut settings = settings(name);
    json.clone_into(&mut settings.config.settings);
    settings.config.deadline = Duration::from_secs(10);
    settings
}

/// The plugins' sources.
pub(crate) fn plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins")
}

/// What `plugins/build` has built.
pub(crate) fn components() -> PathBuf {
    plugins().join("target/components")
}

/// A component of `plugins/build`, and its digest. Compiled code is kept beside it: Python's takes
/// a minute.
pub(crate) fn built(host: &Host, name: &str) -> (Component, String) {
    let path = components().join(name).with_extension("wasm");
    let (bytes, digest) = artifact::read(&path, None)
        .unwrap_or_else(|error| panic!("{error}; build it with plugins/build --all"));
    let cache = Cache::new(components().join("compiled"));
    let _lock = cache.lock(&digest).unwrap();
    let code = cache.load(host, &digest).unwrap().unwrap_or_else(|| {
        let code = artifact::compile(&path, &bytes).unwrap();
        cache.store(&digest, &code).unwrap();
        let stored = cache.load(host, &digest).unwrap();
        stored.expect("what was just stored")
    });
    (code, digest)
}

/// The plugin of a component, by way of a cache of its own.
pub(crate) fn load(
    host: &Host,
    component: &[u8],
    settings: Settings,
) -> Result<Plugin, PluginError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plugin.wasm");
    std::fs::write(&path, component).unwrap();
    let (bytes, digest) = artifact::read(&path, None).unwrap();
    let cache = Cache::new(dir.path().join("cache"));
    cache
        .store(&digest, &artifact::compile(&path, &bytes).unwrap())
        .unwrap();
    let code = cache.load(host, &digest).unwrap().expect("an entry");
    Plugin::new(host, &code, digest, settings)
}

/// A pod of two containers.
pub(crate) fn pod() -> Arc<Pod> {
    Arc::new(Pod {
        id: "s1".into(),
        name: "shop".into(),
        namespace: "default".into(),
        uid: "u1".into(),
        cgroup_parent: "/kubepods/podu1".into(),
        requested: Scopes::all(&Scope::Pod),
        containers: vec!["app".into()],
        labels: BTreeMap::from([("tier".into(), "front".into())]),
        annotations: BTreeMap::new(),
    })
}

/// A container of it.
pub(crate) fn container() -> Container {
    Container {
        id: "c1".into(),
        name: "app".into(),
        requested: Scopes::all(&Scope::Container),
        image: "docker.io/library/busybox:1".into(),
        spec: Spec::default().into(),
    }
}
