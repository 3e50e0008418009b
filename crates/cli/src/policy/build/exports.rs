//! What a project's source exports must be in the component: what a language's tool leaves out, because
//! the world has no such interface, is a rule that nobody asks.
use std::fs;

use anyhow::{Context as _, Result, bail};

use super::{Project, Subject};
use crate::policy::describe::Description;

/// The interfaces that husk calls.
pub(super) const INTERFACES: [&str; 3] = ["scoping", "lifecycle", "configurable"];

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
            for name in exports(&text) {
                if is_there(&name) {
                    continue;
                }
                let world = &project.world;
                let source = source.display();
                if INTERFACES.contains(&name.as_str()) {
                    bail!(
                        "{source} has `{name}`, which the world `{world}` does not export: nobody \
                         would ask it; build with `--world plugin`, or a world of {project_wit} that \
                         exports it",
                        project_wit = super::WIT,
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
}
