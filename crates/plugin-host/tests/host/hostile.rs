//! Components made to harm the host, in WAT. The suite runs the same in a shim.
//!
//! Each is a pair of hooks that admits everything, except the container whose name begins with the
//! letter that it was made for: so a pod can have all of them, and be harmed by one at a time.
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The hostile components: the letter of the container that each is about, what it does, and the
/// words of the denial, all of which must be there.
pub(crate) fn all() -> Vec<(char, &'static str, Vec<u8>, &'static [&'static str])> {
    let memory: &[_] = &["the memory limit of 64 MiB"];
    let edits: &[_] = &["the limit of 128 KiB for all edits"];
    let crossing: &[_] = &["the limit of 1 MiB for what one call passes or answers"];
    let times_up: &[_] = &["no answer within"];
    vec![
        // The memories are there before the first question; nobody's container is spared.
        ('m', "sixteen-memories", sixteen_memories(), memory),
        ('g', "grows", hooks('g', "", GROWS), memory),
        ('t', "tables", hooks('t', TABLE, TABLES), memory),
        (
            'e',
            "edits",
            hooks('e', "", &edits_of("set-env", 1_000_000)),
            // One edit of this size is too much already.
            edits,
        ),
        (
            'a',
            "annotations",
            hooks('a', "", &edits_of("set-annotation", 1000)),
            edits,
        ),
        ('s', "small-edits", hooks('s', "", SMALL_EDITS), edits),
        ('o', "mount-options", hooks('o', "", MOUNT_OPTIONS), edits),
        ('l', "log-lines", hooks('l', "", LOG_LINES), &["flooded"]),
        ('h', "huge-line", hooks('h', "", HUGE_LINE), crossing),
        ('r', "huge-reason", hooks('r', "", HUGE_REASON), &["xxxx"]),
        ('b', "huger-reason", hooks('b', "", HUGER_REASON), crossing),
        ('w', "wide-types", wide_types(), crossing),
        (
            'd',
            "deep-recursion",
            hooks('d', RECURSION, "(call $deep)"),
            &["call stack"],
        ),
        (
            'n',
            "never-ends",
            hooks('n', "", "(loop $l (br $l))"),
            times_up,
        ),
    ]
}

/// Grows its memory for ever, and writes to all of it.
const GROWS: &str = "(local $at i32)
    (loop $l
        (local.set $at (i32.mul (memory.grow (i32.const 16)) (i32.const 65536)))
        (memory.fill (local.get $at) (i32.const 1) (i32.const 1048576))
        (br $l))";

const TABLE: &str = "(table $t 0 funcref)";

/// Grows a table for ever.
const TABLES: &str = "(loop $l
    (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 65536)) (i32.const -1))))
    (unreachable)";

/// Hooks that annotate every container so many times, with values of this many bytes.
pub(crate) fn edits(times: usize, bytes: usize) -> Vec<u8> {
    let body = edits_of("set-annotation", bytes).replace("10000)", &format!("{times})"));
    hooks('x', "", &body)
}

/// Ten thousand edits whose second word has this many bytes.
fn edits_of(function: &str, bytes: usize) -> String {
    format!(
        r#"(local $i i32)
        (memory.fill (i32.const 65536) (i32.const 120) (i32.const 1000000))
        (loop $l
            ;; Four letters, each time others: a digit of $i each, from `a` on.
            (i32.store (i32.const 1024) (i32.add (i32.const 0x61616161)
                (i32.or
                    (i32.or (i32.and (local.get $i) (i32.const 15))
                        (i32.and (i32.shl (local.get $i) (i32.const 4)) (i32.const 0xf00)))
                    (i32.or (i32.and (i32.shl (local.get $i) (i32.const 8)) (i32.const 0xf0000))
                        (i32.and (i32.shl (local.get $i) (i32.const 12)) (i32.const 0xf000000))))))
            (call ${function} (i32.const 1024) (i32.const 4) (i32.const 65536) (i32.const {bytes}))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $i) (i32.const 10000))))"#
    )
}

/// A million edits that have no words.
const SMALL_EDITS: &str = "(local $i i32)
    (loop $l
        (call $set-no-new-privileges)
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get $i) (i32.const 1000000))))";

/// Mounts with twenty thousand empty options each.
const MOUNT_OPTIONS: &str = r#"(local $i i32)
    (i32.store8 (i32.const 1024) (i32.const 47))
    (memory.fill (i32.const 65536) (i32.const 0) (i32.const 160000))
    (loop $l
        (call $add-mount (i32.const 1024) (i32.const 1) (i32.const 1024) (i32.const 1)
            (i32.const 1024) (i32.const 0) (i32.const 65536) (i32.const 20000))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get $i) (i32.const 1000))))"#;

/// A million lines, then a refusal.
const LOG_LINES: &str = r#"(local $i i32)
    (loop $l
        (call $log (i32.const 3) (i32.const 65536) (i32.const 100))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get $i) (i32.const 1000000))))
    (i32.store (i32.const 1024) (i32.const 0x6f6f6c66))
    (i32.store (i32.const 1028) (i32.const 0x00646564))
    (call $refuse (i32.const 1024) (i32.const 7))"#;

const HUGE_LINE: &str = "(call $log (i32.const 3) (i32.const 65536) (i32.const 1100000))";

/// As long as may cross, and kept in part.
const HUGE_REASON: &str = "(memory.fill (i32.const 65536) (i32.const 120) (i32.const 1000000))
    (call $refuse (i32.const 65536) (i32.const 1000000))";

const HUGER_REASON: &str = "(memory.fill (i32.const 65536) (i32.const 120) (i32.const 1100000))
    (call $refuse (i32.const 65536) (i32.const 1100000))";

const RECURSION: &str = "(func $deep (call $deep) (call $deep))";

/// Where the WIT package is.
fn wit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|dir| dir.join("wit/0.1.1"))
        .find(|wit| wit.is_dir())
        .expect("the WIT package is in the repository")
}

/// The functions of the host that the bodies call, with their types after lowering.
const IMPORTS: [(&str, &str, &str); 6] = [
    ("host", "log", "(param i32 i32 i32)"),
    ("container", "name", "(param i32)"),
    ("edit", "set-env", "(param i32 i32 i32 i32)"),
    ("edit", "set-annotation", "(param i32 i32 i32 i32)"),
    ("edit", "set-no-new-privileges", ""),
    (
        "edit",
        "add-mount",
        "(param i32 i32 i32 i32 i32 i32 i32 i32)",
    ),
];

/// Hooks that do this when a container is made whose name begins with the letter, and admit
/// everything else. A body that ends by itself admits too.
fn hooks(letter: char, prelude: &str, body: &str) -> Vec<u8> {
    encode("", "", &module(letter, prelude, body))
}

fn module(letter: char, prelude: &str, body: &str) -> String {
    let mut module = String::from("(module\n");
    for (interface, name, parameters) in IMPORTS {
        let _ = writeln!(
            module,
            r#"(import "husk:plugin/{interface}@0.1.1" "{name}" (func ${name} {parameters}))"#
        );
    }
    let letter = u32::from(letter);
    let _ = write!(
        module,
        r#"{prelude}
        (memory (export "memory") 20)
        (global $next (mut i32) (i32.const 2048))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (global.get $next))
            (global.set $next (i32.add (local.get $at)
                (i32.and (i32.add (local.get 3) (i32.const 15)) (i32.const -16))))
            (local.get $at))
        ;; The answer is at 0: first whether it is a refusal, then the reason's place and length.
        (func $refuse (param i32 i32)
            (i32.store (i32.const 0) (i32.const 1))
            (i32.store (i32.const 4) (local.get 0))
            (i32.store (i32.const 8) (local.get 1)))
        (func $harm {body})
        (func (export "husk:plugin/lifecycle@0.1.1#container-creating") (result i32)
            (call $name (i32.const 16))
            (if (i32.eq (i32.load8_u (i32.load (i32.const 16))) (i32.const {letter}))
                (then (call $harm)))
            (i32.const 0))
        "#
    );
    for name in ["sandbox-starting", "exec-starting", "resources-updating"] {
        let _ = writeln!(
            module,
            r#"(func (export "husk:plugin/lifecycle@0.1.1#{name}") (result i32) (i32.const 0))"#
        );
    }
    for name in [
        "sandbox-started",
        "sandbox-stopped",
        "container-started",
        "container-exited",
        "container-oom",
    ] {
        let _ = writeln!(
            module,
            r#"(func (export "husk:plugin/lifecycle@0.1.1#{name}"))"#
        );
    }
    module.push(')');
    module
}

/// A component of the world `hooks` around a module; with further imports, declared in a package.
fn encode(package: &str, import: &str, module: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (_, _) = resolve.push_dir(wit()).expect("the WIT package parses");
    let world = format!(
        "package test:hostile;\n{package}\nworld hostile {{ include husk:plugin/hooks@0.1.1; {import} }}"
    );
    let package = resolve
        .push_str("hostile.wit", &world)
        .expect("the world parses");
    let world = resolve.select_world(&[package], None).unwrap();
    let mut bytes = wat::parse_str(module).expect("the module parses");
    embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default()
        .module(&bytes)
        .unwrap()
        .encode()
        .expect("a component")
}

/// Sixteen instances of a module with a memory of 64 MiB each, which it fills.
fn sixteen_memories() -> Vec<u8> {
    let hog = r#"(module (memory 1024)
        (func $fill (memory.fill (i32.const 0) (i32.const 1) (i32.const 67108864)))
        (start $fill))"#;
    with_instances(hooks('m', "", ""), hog, 16)
}

/// A component and so many more instances of a module of its own.
pub(crate) fn with_instances(mut component: Vec<u8>, module: &str, count: u8) -> Vec<u8> {
    // A component's sections may come in any order: what is appended is one more of its modules.
    let index = modules(&component);
    let module = wat::parse_str(module).unwrap();
    section(&mut component, 1, &module);
    let mut instances = vec![count];
    for _ in 0..count {
        // Instantiate, which module, no arguments.
        instances.extend([0, index, 0]);
    }
    section(&mut component, 2, &instances);
    component
}

/// How many modules a component itself has.
fn modules(component: &[u8]) -> u8 {
    let mut at = 8;
    let mut count = 0;
    while let Some(id) = component.get(at) {
        count += u8::from(*id == 1);
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            at += 1;
            length |= usize::from(component[at] & 0x7f) << shift;
            shift += 7;
            if component[at] < 0x80 {
                break;
            }
        }
        at += 1 + length;
    }
    count
}

fn section(component: &mut Vec<u8>, id: u8, content: &[u8]) {
    component.push(id);
    let mut length = content.len();
    while length >= 0x80 {
        component.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    component.push(u8::try_from(length).unwrap());
    component.extend(content);
}

/// Asks a function that is not granted, and whose answer has a type of 65,536 fields.
fn wide_types() -> Vec<u8> {
    let mut package = String::from("interface wide {\n  record r0 { a: u8, b: u8 }\n");
    for level in 1..16 {
        let inner = level - 1;
        let _ = writeln!(package, "  record r{level} {{ a: r{inner}, b: r{inner} }}");
    }
    package.push_str("  all: func() -> r15;\n}\n");
    let import = r#"(import "test:hostile/wide" "all" (func $all (param i32)))"#;
    encode(
        &package,
        "import wide;",
        &module('w', import, "(call $all (i32.const 65536))"),
    )
}
