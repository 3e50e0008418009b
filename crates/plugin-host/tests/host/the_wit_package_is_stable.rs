//! Whoever built a plugin for a released version can go on using it: today's package of the same
//! version holds all that its frozen copy holds, unchanged.
//!
//! What may be added is told in `wit/README.md`: functions of imported interfaces, interfaces and
//! worlds. A type and an exported interface are fixed.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use wit_parser::{
    Function, Handle, Interface, Resolve, Stability, Type, TypeDef, TypeDefKind, World, WorldItem,
};

/// The interfaces that plugins export: a further function there is one that older plugins lack.
const EXPORTED: [&str; 4] = ["configurable", "lifecycle", "linking", "scoping"];

/// Today's version, and those that were released before.
const TODAY: &str = "0.1.1";
const FROZEN: [(&str, usize); 2] = [("0.1.0", 100), ("0.1.1", 110)];

/// What a package holds, each item by its path, as text without its documentation.
type Items = BTreeMap<String, String>;

#[test]
fn today_holds_what_is_frozen() {
    let today = read(&wit(TODAY));
    for (version, least) in FROZEN {
        let frozen = read(&wit(&format!("frozen/{version}")));
        assert_eq!(breaking(&frozen, &today), Vec::<String>::new(), "{version}");
        assert!(
            frozen.len() > least,
            "only {} items: is the frozen copy of {version} read whole?",
            frozen.len()
        );
    }
}

#[test]
fn what_came_later_says_since_when() {
    let mut versions = FROZEN.iter().map(|(version, _)| *version);
    let mut before = read(&wit(&format!("frozen/{}", versions.next().unwrap())));
    for version in versions {
        let dir = wit(&format!("frozen/{version}"));
        let since = since(&dir);
        let after = read(&dir);
        for item in after.keys().filter(|item| !before.contains_key(*item)) {
            // What an interface holds is as old as that, or says so itself.
            let owner = item.split('.').next().unwrap();
            let said = since.get(item).or_else(|| since.get(owner));
            assert_eq!(said.map(String::as_str), Some(version), "{item}");
        }
        before = after;
    }
}

/// Since which version there is an item, where it says so.
fn since(dir: &Path) -> BTreeMap<String, String> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(dir).expect("the package parses");
    let version = |stability: &Stability| match stability {
        Stability::Stable { since, .. } => Some(since.to_string()),
        _ => None,
    };
    let mut items = BTreeMap::new();
    for (name, id) in &resolve.packages[package].interfaces {
        let interface = &resolve.interfaces[*id];
        items.extend(version(&interface.stability).map(|since| (name.clone(), since)));
        for (function, signature) in &interface.functions {
            let since = version(&signature.stability);
            items.extend(since.map(|since| (format!("{name}.{function}"), since)));
        }
    }
    for (name, id) in &resolve.packages[package].worlds {
        let since = version(&resolve.worlds[*id].stability);
        items.extend(since.map(|since| (format!("world {name}"), since)));
    }
    items
}

#[test]
fn every_item_is_documented() {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit(TODAY)).expect("the package parses");
    let mut bare = Vec::new();
    for (name, id) in &resolve.packages[package].interfaces {
        let interface = &resolve.interfaces[*id];
        let functions = interface.functions.values();
        bare.extend(interface.docs.contents.is_none().then(|| name.clone()));
        bare.extend(
            functions
                .filter(|function| function.docs.contents.is_none())
                .map(|function| format!("{name}.{}", function.name)),
        );
        for (type_name, ty) in &interface.types {
            bare.extend(
                undocumented(&resolve.types[*ty]).map(|item| format!("{name}.{type_name}{item}")),
            );
        }
    }
    for (name, id) in &resolve.packages[package].worlds {
        bare.extend(
            resolve.worlds[*id]
                .docs
                .contents
                .is_none()
                .then(|| name.clone()),
        );
    }
    assert_eq!(bare, Vec::<String>::new());
}

#[test]
fn what_breaks_a_plugin_is_seen() {
    let base = "interface pod { /// .
        id: func() -> string; }
        interface scoping { record denial { reason: string } scope: func() -> result<_, denial>; }
        world policy { import pod; export scoping; }";
    let broken = [
        ("a getter gone", base.replace("id: func() -> string;", "")),
        (
            "another answer",
            base.replace("id: func() -> string", "id: func() -> u32"),
        ),
        (
            "another question",
            base.replace("id: func()", "id: func(of: u32)"),
        ),
        (
            "a further field",
            base.replace("{ reason: string }", "{ reason: string, code: u32 }"),
        ),
        (
            "a further export",
            base.replace("scope: func()", "more: func(); scope: func()"),
        ),
        ("an import gone", base.replace("import pod;", "")),
        (
            "a further import",
            base.replace("import pod;", "import pod; import extra: func();"),
        ),
    ];
    let frozen = parse(base);
    for (what, text) in broken {
        assert_ne!(
            breaking(&frozen, &parse(&text)),
            Vec::<String>::new(),
            "{what}"
        );
    }
    let wider = base.replace(
        "id: func() -> string;",
        "id: func() -> string; uid: func() -> string;",
    );
    assert_eq!(
        breaking(&frozen, &parse(&wider)),
        Vec::<String>::new(),
        "a further getter"
    );
    let interface = format!("{base} interface linking {{ link: func(); }}");
    assert_eq!(
        breaking(&frozen, &parse(&interface)),
        Vec::<String>::new(),
        "a further interface that plugins may export"
    );
    let documented = base.replace("/// .", "/// The pod's id.");
    assert_eq!(breaking(&frozen, &parse(&documented)), Vec::<String>::new());
}

fn wit(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../wit")
        .join(version)
}

/// What of `frozen` is not the same in `today`, and what `today` asks beyond it.
fn breaking(frozen: &Items, today: &Items) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, shape) in frozen {
        match today.get(path) {
            None => problems.push(format!("{path} is gone; it was {shape}")),
            Some(now) if now != shape => problems.push(format!("{path} was {shape}, is {now}")),
            Some(_) => {}
        }
    }
    for path in today.keys().filter(|path| !frozen.contains_key(*path)) {
        let interface = path.split('.').next().unwrap_or_default();
        let is_there = frozen.contains_key(interface);
        if is_there && EXPORTED.contains(&interface) {
            problems.push(format!("{path} is new in an interface that plugins export"));
        }
    }
    problems
}

fn read(dir: &Path) -> Items {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(dir).expect("the package parses");
    items(&resolve, package)
}

fn parse(text: &str) -> Items {
    let mut resolve = Resolve::default();
    let package = resolve
        .push_str("test.wit", &format!("package husk:plugin@0.1.0;\n{text}"))
        .expect("the text parses");
    items(&resolve, package)
}

fn items(resolve: &Resolve, package: wit_parser::PackageId) -> Items {
    let package = &resolve.packages[package];
    let mut items = Items::new();
    for (name, id) in &package.interfaces {
        add_interface(resolve, name, &resolve.interfaces[*id], &mut items);
    }
    for (name, id) in &package.worlds {
        items.insert(
            format!("world {name}"),
            world(resolve, &resolve.worlds[*id]),
        );
    }
    items
}

fn add_interface(resolve: &Resolve, name: &str, interface: &Interface, items: &mut Items) {
    items.insert(name.to_owned(), "an interface".to_owned());
    for (function, signature) in &interface.functions {
        items.insert(
            format!("{name}.{function}"),
            self::signature(resolve, signature),
        );
    }
    for (type_name, id) in &interface.types {
        items.insert(
            format!("{name}.{type_name}"),
            definition(resolve, &resolve.types[*id]),
        );
    }
}

/// What a world imports and exports: all of it counts, for a host serves the whole world.
fn world(resolve: &Resolve, world: &World) -> String {
    let list = |items: &wit_parser::IndexMap<wit_parser::WorldKey, WorldItem>| {
        let mut names: Vec<String> = items
            .iter()
            .map(|(key, item)| match item {
                WorldItem::Function(function) => {
                    format!("{} {}", function.name, signature(resolve, function))
                }
                // The version is the package's, and the same for all.
                _ => resolve
                    .name_world_key(key)
                    .split('@')
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            })
            .collect();
        names.sort();
        names.join(", ")
    };
    format!(
        "imports [{}], exports [{}]",
        list(&world.imports),
        list(&world.exports)
    )
}

fn signature(resolve: &Resolve, function: &Function) -> String {
    let mut text = String::from("func(");
    for parameter in &function.params {
        let _ = write!(
            text,
            "{}: {}, ",
            parameter.name,
            type_name(resolve, &parameter.ty)
        );
    }
    let result = function.result.as_ref();
    let result = result.map_or_else(|| "()".to_owned(), |ty| type_name(resolve, ty));
    let _ = write!(text, ") -> {result}");
    text
}

/// A type where it is used: named ones by their name, for they are items themselves.
fn type_name(resolve: &Resolve, ty: &Type) -> String {
    match ty {
        Type::Id(id) => {
            let ty = &resolve.types[*id];
            ty.name.clone().unwrap_or_else(|| definition(resolve, ty))
        }
        plain => format!("{plain:?}").to_lowercase(),
    }
}

fn definition(resolve: &Resolve, ty: &TypeDef) -> String {
    let of = |ty: &Type| type_name(resolve, ty);
    let maybe = |ty: &Option<Type>| ty.as_ref().map_or_else(|| "_".to_owned(), of);
    match &ty.kind {
        TypeDefKind::Record(record) => {
            let fields = record
                .fields
                .iter()
                .map(|field| format!("{}: {}", field.name, of(&field.ty)));
            format!("record {{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        TypeDefKind::Variant(variant) => {
            let cases = variant
                .cases
                .iter()
                .map(|case| format!("{}({})", case.name, maybe(&case.ty)));
            format!("variant {{{}}}", cases.collect::<Vec<_>>().join(", "))
        }
        TypeDefKind::Enum(cases) => {
            let cases = cases.cases.iter().map(|case| case.name.clone());
            format!("enum {{{}}}", cases.collect::<Vec<_>>().join(", "))
        }
        TypeDefKind::Flags(flags) => {
            let flags = flags.flags.iter().map(|flag| flag.name.clone());
            format!("flags {{{}}}", flags.collect::<Vec<_>>().join(", "))
        }
        TypeDefKind::Tuple(tuple) => {
            let types = tuple.types.iter().map(of);
            format!("tuple<{}>", types.collect::<Vec<_>>().join(", "))
        }
        TypeDefKind::Option(ty) => format!("option<{}>", of(ty)),
        TypeDefKind::List(ty) => format!("list<{}>", of(ty)),
        TypeDefKind::Result(result) => {
            format!("result<{}, {}>", maybe(&result.ok), maybe(&result.err))
        }
        TypeDefKind::Handle(Handle::Own(id) | Handle::Borrow(id)) => {
            format!("handle {:?}", resolve.types[*id].name)
        }
        TypeDefKind::Type(ty) => format!("= {}", of(ty)),
        other => panic!(
            "the package uses a {}, which this test cannot compare",
            other.as_str()
        ),
    }
}

/// The parts of a type that have no documentation, as paths from it.
fn undocumented(ty: &TypeDef) -> impl Iterator<Item = String> {
    let bare = |docs: &wit_parser::Docs| docs.contents.is_none();
    let parts: Vec<String> = match &ty.kind {
        TypeDefKind::Record(record) => {
            let fields = record.fields.iter().filter(|field| bare(&field.docs));
            fields.map(|field| format!(".{}", field.name)).collect()
        }
        TypeDefKind::Variant(variant) => {
            let cases = variant.cases.iter().filter(|case| bare(&case.docs));
            cases.map(|case| format!(".{}", case.name)).collect()
        }
        TypeDefKind::Enum(cases) => {
            let cases = cases.cases.iter().filter(|case| bare(&case.docs));
            cases.map(|case| format!(".{}", case.name)).collect()
        }
        // A `use` is documented where it comes from.
        TypeDefKind::Type(_) => return Vec::new().into_iter(),
        _ => Vec::new(),
    };
    let own = bare(&ty.docs).then(String::new);
    own.into_iter().chain(parts).collect::<Vec<_>>().into_iter()
}
