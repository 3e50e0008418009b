//! Finding a pod's record.
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use husk_scope::record::{FILE, Pod};

/// How many pods an error lists.
const LISTED: usize = 20;

/// The record of the pod with this id, name, or beginning of an id; of the only pod if none is
/// named. `namespace` narrows the search to one containerd namespace.
pub(super) fn find(state: &Path, namespace: Option<&str>, wanted: Option<&str>) -> Result<Pod> {
    let files = files(state, namespace)?;
    let Some(wanted) = wanted else {
        return only(&files, state);
    };
    // A broken record is an error only for who asks for it.
    let exact = files
        .iter()
        .find(|file| sandbox(file) == wanted && unique(&files, wanted));
    if let Some(file) = exact {
        return read(file);
    }
    let pods: Vec<_> = files.iter().filter_map(|file| read(file).ok()).collect();
    let stages: [&dyn Fn(&Pod) -> bool; 3] = [
        &|pod| pod.id == wanted,
        &|pod| !wanted.is_empty() && pod.name == wanted,
        &|pod| !wanted.is_empty() && pod.id.starts_with(wanted),
    ];
    for matches in stages {
        let mut found = pods.iter().filter(|pod| matches(pod));
        match (found.next(), found.next()) {
            (None, _) => {}
            (Some(pod), None) => return Ok(pod.clone()),
            (Some(_), Some(_)) => {
                let several: Vec<_> = pods.iter().filter(|pod| matches(pod)).collect();
                bail!(
                    "`{wanted}` could be any of these pods; use an id, or --namespace:\n{}",
                    list(&several)
                );
            }
        }
    }
    let all: Vec<_> = pods.iter().collect();
    match all.as_slice() {
        [] => bail!(
            "no pod `{wanted}`: husk runs none, or their records are not in {}",
            state.display()
        ),
        all => bail!("no pod `{wanted}`; there are:\n{}", list(all)),
    }
}

fn only(files: &[PathBuf], state: &Path) -> Result<Pod> {
    match files {
        [] => bail!(
            "husk runs no pod, or their records are not in {}",
            state.display()
        ),
        [one] => read(one),
        several => {
            let pods: Vec<_> = several.iter().filter_map(|file| read(file).ok()).collect();
            let pods: Vec<_> = pods.iter().collect();
            bail!("which pod? There are:\n{}", list(&pods))
        }
    }
}

/// Every record, in order of namespace and id.
fn files(state: &Path, namespace: Option<&str>) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for dir in directories(state)? {
        if namespace.is_none_or(|wanted| dir.ends_with(wanted)) {
            let records = directories(&dir)?.into_iter().map(|pod| pod.join(FILE));
            files.extend(records.filter(|file| file.exists()));
        }
    }
    Ok(files)
}

fn directories(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(
                anyhow!(error).context(format!("reading {}: run this as root", path.display()))
            );
        }
        Err(error) => return Err(anyhow!(error).context(format!("reading {}", path.display()))),
    };
    let mut paths: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    paths.sort();
    Ok(paths)
}

/// The sandbox's id, which is the name of its directory.
fn sandbox(file: &Path) -> &str {
    let dir = file.parent().and_then(Path::file_name);
    dir.and_then(|name| name.to_str()).unwrap_or_default()
}

fn unique(files: &[PathBuf], id: &str) -> bool {
    files.iter().filter(|file| sandbox(file) == id).count() == 1
}

fn read(file: &Path) -> Result<Pod> {
    let text = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is not a record of this version of husk", file.display()))
}

fn list(pods: &[&Pod]) -> String {
    let mut lines: Vec<_> = pods
        .iter()
        .take(LISTED)
        .map(|pod| {
            format!("  {}  {}  {}", pod.id, pod.namespace, pod.name)
                .trim_end()
                .to_owned()
        })
        .collect();
    if pods.len() > LISTED {
        lines.push(format!("  and {} more", pods.len() - LISTED));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (namespace, id, name) in [
            ("k8s.io", "aa11", "web"),
            ("k8s.io", "aa22", "db"),
            ("default", "bb", "web"),
            ("default", "aa22", "same id"),
            ("default", "web2", ""),
        ] {
            let pod = Pod {
                id: id.into(),
                namespace: namespace.into(),
                name: name.into(),
                ..Pod::default()
            };
            let at = dir.path().join(namespace).join(id);
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join(FILE), serde_json::to_vec(&pod).unwrap()).unwrap();
        }
        let broken = dir.path().join("default/broken");
        fs::create_dir_all(&broken).unwrap();
        fs::write(broken.join(FILE), "{").unwrap();
        dir
    }

    #[test]
    fn a_pod_is_found_by_id_name_or_beginning() {
        let state = state();
        let id = |namespace: Option<&str>, wanted: &str| {
            let pod = find(state.path(), namespace, Some(wanted)).unwrap();
            format!("{}/{}", pod.namespace, pod.id)
        };
        assert_eq!(id(None, "aa11"), "k8s.io/aa11");
        assert_eq!(id(None, "db"), "k8s.io/aa22");
        assert_eq!(id(None, "aa1"), "k8s.io/aa11");
        assert_eq!(id(None, "b"), "default/bb");
        assert_eq!(id(Some("default"), "web"), "default/bb");
        assert_eq!(id(Some("k8s.io"), "aa22"), "k8s.io/aa22");
        assert_eq!(id(None, "web2"), "default/web2");
    }

    #[test]
    fn what_is_not_one_pod_lists_the_candidates() {
        let state = state();
        let text =
            |wanted: Option<&str>| format!("{:#}", find(state.path(), None, wanted).unwrap_err());
        assert_eq!(
            text(Some("web")),
            "`web` could be any of these pods; use an id, or --namespace:\n  \
             bb  default  web\n  aa11  k8s.io  web"
        );
        assert!(text(Some("aa22")).contains("any of these"));
        assert!(text(Some("aa")).contains("aa11") && text(Some("aa")).contains("aa22"));
        assert!(
            text(Some("zz")).starts_with("no pod `zz`; there are:\n  aa22  default  same id\n")
        );
        assert!(text(Some("")).starts_with("no pod"));
        assert!(text(None).starts_with("which pod?"));
        assert!(text(Some("broken")).contains("is not a record of this version of husk"));
        let empty = tempfile::tempdir().unwrap();
        let nothing = find(&empty.path().join("none"), None, None)
            .unwrap_err()
            .to_string();
        assert!(nothing.starts_with("husk runs no pod"), "{nothing}");
    }
}
