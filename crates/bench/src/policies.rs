//! The handlers that policies are measured with.
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::bed::Bed;
use crate::candidate::Candidate;

/// The plugins of the chain with their settings, which change nothing for the bench's containers:
/// what is measured is asking, not what a decision makes the shim do.
const CHAIN: [(&str, &str); 5] = [
    (
        "pid-group",
        "settings = { groups = { none = [\"nobody\", \"no-one\"] } }\n",
    ),
    ("exec-gate", "settings = { allow = [{}] }\n"),
    ("no-host", EXEMPT),
    ("restricted-oci", EXEMPT),
    ("baseline-oci", EXEMPT),
];

/// The bench's pods are of this Kubernetes namespace.
const EXEMPT: &str = "settings = { exempt-namespaces = [\"default\"] }\n";

/// Scopes that containers ask for anyway.
const STATIC: &str =
    "[scopes]\nuts = \"container\"\nipc = \"container\"\n\n[ceiling]\npid = \"pod\"\n";

/// The candidate under four handlers: without a policy, with a static configuration, with one
/// plugin, with a chain of five. `plugins` is the folder of components.
pub(crate) fn variants(bed: &Bed, candidate: &Candidate, plugins: &Path) -> Result<Vec<Candidate>> {
    let chain = CHAIN.map(|(name, settings)| table(plugins, name, settings));
    let chain = chain.into_iter().collect::<Result<Vec<_>>>()?;
    let handlers = [
        ("none", String::new()),
        ("static", STATIC.to_owned()),
        ("plugin", chain.first().cloned().unwrap_or_default()),
        ("five", chain.concat()),
    ];
    handlers
        .into_iter()
        .map(|(name, text)| {
            let path = bed.file(&format!("{}-{name}.toml", candidate.name));
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            Ok(Candidate {
                name: format!("{}-{name}", candidate.name),
                config: Some(path),
                ..candidate.clone()
            })
        })
        .collect()
}

fn table(plugins: &Path, name: &str, settings: &str) -> Result<String> {
    let path = plugins.join(format!("{name}.wasm"));
    ensure!(
        path.is_file(),
        "there is no plugin {}: `plugins/build` builds them, --plugins says where they are",
        path.display()
    );
    let path = path.canonicalize()?;
    Ok(format!(
        "[[plugin]]\nname = \"{name}\"\npath = \"{}\"\n{settings}\n",
        path.display()
    ))
}
