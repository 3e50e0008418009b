//! What a project's source exports must be in the component: what a language's tool leaves out, because
//! the world has no such interface, is a rule that nobody asks.
use std::fs;

use anyhow::{Context as _, Result, bail};

use super::{Project, Subject};
use crate::policy::describe::Description;

/// The interfaces that husk calls.
pub(super) const INTERFACES: [&str; 4] = ["scoping", "linking", "lifecycle", "configurable"];

/// The worlds of husk:plugin, smaller ones first, and which interfaces a component of them exports.
const WORLDS: [(&str, &[&str]); 9] = [
    ("policy", &["scoping"]),
    ("links", &["linking"]),
    ("hooks", &["lifecycle"]),
    ("configurable-policy", &["scoping", "configurable"]),
    ("policy-with-links", &["scoping", "linking"]),
    ("configurable-hooks", &["lifecycle", "configurable"]),
    (
        "configurable-policy-with-links",
        &["scoping", "linking", "configurable"],
    ),
    ("plugin", &["scoping", "lifecycle", "configurable"]),
    ("plugin-with-links", &INTERFACES),
];

/// The smallest world that exports all of these.
fn world(wanted: &[String]) -> &'static str {
    let has = |interfaces: &[&str]| {
        wanted
            .iter()
            .all(|name| interfaces.contains(&name.as_str()))
    };
    let found = WORLDS.iter().find(|(_, interfaces)| has(interfaces));
    found.map_or("plugin-with-links", |(world, _)| world)
}

/// Fails if the source of a project exports an interface that the component does not.
pub(super) fn complete(project: &Project, made: &Subject) -> Result<()> {
    let exported = Description::of(made)?.exports;
    let is_there = |interface: &str| {
        let name = format!("husk:plugin/{interface}@");
        exported.iter().any(|export| export.starts_with(&name))
    };
    for (extension, exports) in [
        ("js", javascript as fn(&str) -> Vec<String>),
        ("py", python),
        ("c", c),
    ] {
        for source in project.sources(extension)? {
            let text = fs::read_to_string(&source)
                .with_context(|| format!("reading {}", source.display()))?;
            let names = exports(&text);
            for name in &names {
                if is_there(name) {
                    continue;
                }
                let world = &project.world;
                let source = source.display();
                if INTERFACES.contains(&name.as_str()) {
                    bail!(
                        "{source} has `{name}`, which the world `{world}` does not export: nobody \
                         would ask it; build with `--world {better}`, or a world of the project's \
                         wit folder that exports it",
                        better = self::world(&names),
                    );
                }
                bail!(
                    "{source} exports `{name}`, which is no interface of husk:plugin: nobody would \
                     ask it; there are {}",
                    INTERFACES.join(", ")
                );
            }
        }
    }
    Ok(())
}

/// The names that a JavaScript module exports.
fn javascript(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("export ") else {
            continue;
        };
        if let Some((list, _)) = rest.strip_prefix('{').and_then(|list| list.split_once('}')) {
            let last = |item: &str| item.split_whitespace().last().map(str::to_owned);
            names.extend(list.split(',').filter_map(last));
            continue;
        }
        let mut words = rest
            .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
            .filter(|word| !word.is_empty() && *word != "async");
        if matches!(
            words.next(),
            Some("const" | "let" | "var" | "function" | "class")
        ) {
            names.extend(words.next().map(str::to_owned));
        }
    }
    names
}

/// The interfaces that a Python module has classes for.
fn python(text: &str) -> Vec<String> {
    let classes = text.lines().filter_map(|line| line.strip_prefix("class "));
    let names = classes.filter_map(|rest| rest.split(['(', ':', ' ']).next());
    let names = names.map(str::to_ascii_lowercase);
    names
        .filter(|name| INTERFACES.contains(&name.as_str()))
        .collect()
}

/// The interfaces of which a C source defines a function.
fn c(text: &str) -> Vec<String> {
    let functions = text.match_indices("exports_husk_plugin_");
    let names = functions.filter_map(|(at, prefix)| {
        let rest = text.get(at.saturating_add(prefix.len())..)?;
        INTERFACES
            .into_iter()
            .find(|interface| rest.starts_with(&format!("{interface}_")))
    });
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_source_exports_is_found() {
        let text = "export const scoping = {\n};\nexport function lifecycle() {}\n\
                    export { a as configurable, b };\nconst inner = { export: 1 };\n\
                    export async function x() {}";
        assert_eq!(
            javascript(text),
            ["scoping", "lifecycle", "configurable", "b", "x"]
        );
        let text = "class Scoping(exports.Scoping):\n    pass\nclass Rule:\n    pass\n\
                    class Lifecycle:\n    pass";
        assert_eq!(python(text), ["scoping", "lifecycle"]);
        assert_eq!(
            c("bool exports_husk_plugin_lifecycle_exec_starting(void) {}"),
            ["lifecycle"]
        );
    }

    #[test]
    fn the_smallest_world_that_will_do_is_named() {
        for (names, wanted) in [
            (&["scoping"][..], "policy"),
            (&["linking", "scoping"], "policy-with-links"),
            (
                &["linking", "configurable"],
                "configurable-policy-with-links",
            ),
            (&["lifecycle", "linking"], "plugin-with-links"),
            (&["lifecycle", "scoping"], "plugin"),
        ] {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(world(&names), wanted, "{names:?}");
        }
    }

    #[test]
    fn the_worlds_are_those_of_the_package() {
        let text = include_str!("../../../../../wit/0.1.1/plugin.wit");
        for (world, _) in WORLDS {
            assert!(text.contains(&format!("\nworld {world} {{")), "{world}");
        }
        assert_eq!(text.matches("\nworld ").count(), WORLDS.len());
    }
}
