//! CNI: plugins, programs of the node's, that make the interface of a network namespace; see the Container
//! Network Interface Specification 1.1, sections 2 to 5.
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

use super::{Cni, NetworkError, Published};

/// The name of the interface in the pod.
const INTERFACE: &str = "eth0";
/// What the last ADD answered, in the pod's directory of state: DEL is told.
const RESULT: &str = "cni.json";
/// The list as it was when the plugins were added: the node's may change.
const LIST: &str = "cni.conflist";
const INSTALL: &str = "install CNI plugins and write a list for them (apt-get install containernetworking-plugins; \
     examples are in its documentation)";

/// The first list in a directory, as containerd has it.
pub(super) fn find(lists: &Path, programs: &Path) -> Result<Cni, NetworkError> {
    let missing = |program: String| NetworkError::Missing {
        network: "cni",
        program,
        fix: INSTALL,
    };
    let mut found: Vec<PathBuf> = match fs::read_dir(lists) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            return Err(NetworkError::io(format!("read {}", lists.display()))(error));
        }
    };
    found.retain(|path| path.extension().is_some_and(|it| it == "conflist"));
    found.sort();
    let list = found
        .into_iter()
        .next()
        .ok_or_else(|| missing(format!("a file *.conflist in {}", lists.display())))?;
    let cni = Cni {
        list,
        programs: programs.to_owned(),
    };
    // Said before anything is made.
    for plugin in &List::read(&cni.list)?.plugins {
        let program = program_of(plugin, &cni.list)?;
        if !programs.join(program).is_file() {
            return Err(missing(format!(
                "{}, which {} names",
                programs.join(program).display(),
                cni.list.display()
            )));
        }
    }
    Ok(cni)
}

/// What a list says.
struct List {
    name: Value,
    version: Value,
    plugins: Vec<Map<String, Value>>,
}

impl List {
    fn read(path: &Path) -> Result<Self, NetworkError> {
        let text = fs::read(path).map_err(NetworkError::io(format!("read {}", path.display())))?;
        let broken = |why: &str| broken(path, why);
        let list: Value =
            serde_json::from_slice(&text).map_err(|error| broken(&error.to_string()))?;
        let plugins = list.get("plugins").and_then(Value::as_array);
        let plugins = plugins
            .filter(|plugins| !plugins.is_empty())
            .ok_or_else(|| broken("it has no `plugins`"))?;
        let plugins = plugins
            .iter()
            .map(|plugin| plugin.as_object().cloned())
            .collect::<Option<_>>()
            .ok_or_else(|| broken("one of its `plugins` is no object"))?;
        let name = list.get("name").filter(|name| name.is_string());
        Ok(Self {
            name: name.ok_or_else(|| broken("it has no `name`"))?.clone(),
            version: list.get("cniVersion").cloned().unwrap_or(json!("0.2.0")),
            plugins,
        })
    }

    /// What a plugin gets on its standard input.
    fn request(
        &self,
        plugin: &Map<String, Value>,
        published: &[Published],
        previous: Option<&Value>,
    ) -> Vec<u8> {
        let mut request = plugin.clone();
        request.insert("name".to_owned(), self.name.clone());
        request.insert("cniVersion".to_owned(), self.version.clone());
        // What a plugin says it can do, and nothing else, is it told.
        let can = |what: &str| {
            let capabilities = plugin.get("capabilities");
            let value = capabilities.and_then(|capabilities| capabilities.get(what));
            value == Some(&Value::Bool(true))
        };
        request.remove("capabilities");
        if can("portMappings") && !published.is_empty() {
            let mappings: Vec<_> = published.iter().map(mapping).collect();
            request.insert(
                "runtimeConfig".to_owned(),
                json!({"portMappings": mappings}),
            );
        }
        if let Some(previous) = previous {
            request.insert("prevResult".to_owned(), previous.clone());
        }
        Value::Object(request).to_string().into_bytes()
    }

    fn leads_ports(&self) -> bool {
        self.plugins.iter().any(|plugin| {
            let capabilities = plugin.get("capabilities");
            capabilities.is_some_and(|it| it.get("portMappings") == Some(&Value::Bool(true)))
        })
    }
}

fn mapping(port: &Published) -> Value {
    let mut mapping = Map::new();
    mapping.insert("hostPort".to_owned(), json!(port.node));
    mapping.insert("containerPort".to_owned(), json!(port.pod));
    mapping.insert("protocol".to_owned(), json!(port.protocol.name()));
    if let Some(address) = port.address {
        mapping.insert("hostIP".to_owned(), json!(address));
    }
    Value::Object(mapping)
}

fn broken(path: &Path, why: &str) -> NetworkError {
    NetworkError::Senseless(format!("the CNI list {}: {why}", path.display()))
}

fn program_of<'a>(plugin: &'a Map<String, Value>, path: &Path) -> Result<&'a str, NetworkError> {
    let name = plugin.get("type").and_then(Value::as_str);
    // It is the name of a program, and no path.
    name.filter(|name| !name.is_empty() && !name.contains('/'))
        .ok_or_else(|| broken(path, "a plugin has no `type`, the name of its program"))
}

/// Adds a pod, plugin by plugin. What was added before one of them failed is deleted.
pub(super) fn add(
    cni: &Cni,
    id: &str,
    netns: &Path,
    dir: &Path,
    published: &[Published],
) -> Result<(), NetworkError> {
    let list = List::read(&cni.list)?;
    if !published.is_empty() && !list.leads_ports() {
        return Err(NetworkError::Senseless(format!(
            "no plugin of {} leads ports of the node to a pod: add portmap, with the capability \
             portMappings, or publish none",
            cni.list.display()
        )));
    }
    // First what deleting needs: this process may be killed at any moment.
    let kept =
        json!({"list": fs::read_to_string(&cni.list).unwrap_or_default(), "ports": published});
    write(&dir.join(LIST), kept.to_string().as_bytes())?;
    let mut result = None;
    for plugin in &list.plugins {
        let request = list.request(plugin, published, result.as_ref());
        match call(cni, plugin, "ADD", id, netns, &request) {
            Ok(answer) => result = Some(answer),
            Err(error) => {
                let undone = delete(cni, id, netns, dir);
                return Err(match undone {
                    Ok(()) => error,
                    Err(undoing) => NetworkError::Senseless(format!("{error} (and {undoing})")),
                });
            }
        }
        if let Some(result) = &result {
            write(&dir.join(RESULT), result.to_string().as_bytes())?;
        }
    }
    Ok(())
}

/// Deletes a pod, in the opposite order; all plugins are asked, whatever one of them says.
pub(super) fn delete(cni: &Cni, id: &str, netns: &Path, dir: &Path) -> Result<(), NetworkError> {
    let kept = match fs::read(dir.join(LIST)) {
        // Nothing was added.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        kept => kept.map_err(NetworkError::io("read what was added by CNI"))?,
    };
    let kept: Value = serde_json::from_slice(&kept)
        .map_err(|error| broken(&dir.join(LIST), &error.to_string()))?;
    let text = kept.get("list").and_then(Value::as_str).unwrap_or_default();
    let copy = dir.join("cni.list");
    write(&copy, text.as_bytes())?;
    let list = List::read(&copy)?;
    let ports = kept.get("ports").cloned().unwrap_or_default();
    let published: Vec<Published> = serde_json::from_value(ports).unwrap_or_default();
    let result = fs::read(dir.join(RESULT))
        .ok()
        .and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let mut first = Ok(());
    for plugin in list.plugins.iter().rev() {
        let request = list.request(plugin, &published, result.as_ref());
        let deleted = call(cni, plugin, "DEL", id, netns, &request).map(drop);
        if first.is_ok() {
            first = deleted;
        }
    }
    first
}

fn call(
    cni: &Cni,
    plugin: &Map<String, Value>,
    command: &str,
    id: &str,
    netns: &Path,
    request: &[u8],
) -> Result<Value, NetworkError> {
    let program = program_of(plugin, &cni.list)?;
    let doing = || NetworkError::io(format!("run the CNI plugin {program}"));
    let mut child = Command::new(cni.programs.join(program))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", id)
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", INTERFACE)
        .env("CNI_PATH", &cni.programs)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(doing())?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read it says why, or not.
        let _ = stdin.write_all(request);
    }
    let output = child.wait_with_output().map_err(doing())?;
    let answer = serde_json::from_slice::<Value>(&output.stdout);
    if output.status.success() {
        return Ok(answer.unwrap_or(Value::Null));
    }
    let said = answer.ok().and_then(|answer| {
        let text = |key| answer.get(key).and_then(Value::as_str).map(str::to_owned);
        let words: Vec<_> = [text("msg"), text("details")]
            .into_iter()
            .flatten()
            .collect();
        (!words.is_empty()).then(|| words.join(": "))
    });
    Err(NetworkError::Failed {
        program: format!("the CNI plugin {program}"),
        what: match command {
            "ADD" => format!("add pod {id}"),
            _ => format!("delete pod {id}"),
        },
        reason: said.unwrap_or_else(|| {
            let stderr = String::from_utf8_lossy(&output.stderr);
            format!("{} {}", output.status, stderr.trim())
        }),
    })
}

/// Whoever reads it finds all of it, or what was there before.
fn write(path: &Path, text: &[u8]) -> Result<(), NetworkError> {
    let new = path.with_extension("new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, path))
        .map_err(NetworkError::io(format!("write {}", path.display())))
}
