//! The words of an expression: what it may ask about its subject, and how that is answered.
use std::collections::HashMap;
use std::sync::Arc;

use cel::extractors::This;
use cel::{Context, ExecutionError, Value};
use husk_plugin::{Assignment, container, pod, process, update};

use crate::effects;
use crate::expression::Uses;
use crate::settings::On;

/// The field of the scopes that are asked for.
pub(crate) const SCOPES: &str = "requested_scopes";

/// A variable, with the interface's functions without parameters as fields, and the others as functions.
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [&'static str],
    pub(crate) functions: &'static [&'static str],
}

const POD: Variable = Variable {
    name: "pod",
    fields: &["id", "name", "namespace", "uid", "cgroup_parent", SCOPES, "container_names"],
    functions: &["untrusted_label", "untrusted_annotation"],
};

const CONTAINER: Variable = Variable {
    name: "container",
    fields: &[
        "id",
        "name",
        SCOPES,
        "untrusted_image",
        "untrusted_args",
        "uid",
        "gid",
        "privileged",
        "capabilities",
        "no_new_privileges",
        "read_only_root",
        "has_seccomp",
        "memory_limit",
        "cpu_limit",
        "mounts",
        "devices",
    ],
    functions: &["untrusted_env", "untrusted_annotation", "spec"],
};

const PROCESS: Variable = Variable {
    name: "process",
    fields: &[
        "untrusted_args",
        "untrusted_directory",
        "uid",
        "gid",
        "terminal",
        "capabilities",
        "no_new_privileges",
    ],
    functions: &["untrusted_env"],
};

const UPDATE: Variable = Variable {
    name: "update",
    fields: &["memory_limit", "cpu_limit", "pids_limit"],
    functions: &["resources"],
};

/// Functions of the language; operators have names that begin with another character than a letter.
const FUNCTIONS: [&str; 13] = [
    "size", "contains", "startsWith", "endsWith", "string", "int", "uint", "double", "bytes", "bool",
    "type", "max", "min",
];

/// The variable of this name, if a rule about `on` has it.
pub(crate) fn variable(on: On, name: &str) -> Result<&'static Variable, String> {
    let there: &[&'static Variable] = match on {
        On::Sandbox => &[&POD],
        On::Container => &[&POD, &CONTAINER],
        On::Exec => &[&POD, &CONTAINER, &PROCESS],
        On::Update => &[&POD, &CONTAINER, &UPDATE],
    };
    let found = there.iter().find(|variable| variable.name == name);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = there.iter().map(|variable| variable.name).collect();
        format!("there is no `{name}` here; there is {}", names.join(", "))
    })
}

/// Refuses a function that does not exist.
pub(crate) fn check_function(name: &str) -> Result<(), String> {
    if FUNCTIONS.contains(&name) || !name.starts_with(|it: char| it.is_ascii_alphabetic()) {
        return Ok(());
    }
    Err(format!(
        "there is no function `{name}`; there are {}",
        FUNCTIONS.join(", ")
    ))
}

/// Gives an expression what it uses.
pub(crate) fn add(context: &mut Context<'_, '_>, uses: &Uses) -> Result<(), String> {
    let declared = [
        context.add_function("untrusted_label", label),
        context.add_function("untrusted_annotation", annotation),
        context.add_function("untrusted_env", env),
        context.add_function("spec", spec),
        context.add_function("resources", resources),
    ];
    for declared in declared {
        declared.map_err(|error| error.to_string())?;
    }
    for variable in [POD, CONTAINER, PROCESS, UPDATE] {
        let mut fields = HashMap::from([(NAME.to_owned(), Value::from(variable.name))]);
        for (of, field) in &uses.fields {
            if *of == variable.name {
                fields.insert((*field).to_owned(), value(of, field)?);
            }
        }
        context.add_variable_from_value(variable.name, fields);
    }
    Ok(())
}

/// The key under which a variable has its own name, for the functions that are called on it.
const NAME: &str = "";

fn value(of: &str, field: &str) -> Result<Value, String> {
    Ok(match (of, field) {
        ("pod", "id") => pod::id().into(),
        ("pod", "name") => pod::name().into(),
        ("pod", "namespace") => pod::namespace().into(),
        ("pod", "uid") => pod::uid().into(),
        ("pod", "cgroup_parent") => pod::cgroup_parent().into(),
        ("pod", SCOPES) => scopes(pod::requested_scopes()),
        ("pod", "container_names") => pod::container_names().into(),
        ("container", "id") => container::id().into(),
        ("container", "name") => container::name().into(),
        ("container", SCOPES) => scopes(container::requested_scopes()),
        ("container", "untrusted_image") => container::untrusted_image().into(),
        ("container", "untrusted_args") => container::untrusted_args().into(),
        ("container", "uid") => i64::from(container::uid()).into(),
        ("container", "gid") => i64::from(container::gid()).into(),
        ("container", "privileged") => container::privileged().into(),
        ("container", "capabilities") => container::capabilities().into(),
        ("container", "no_new_privileges") => container::no_new_privileges().into(),
        ("container", "read_only_root") => container::read_only_root().into(),
        ("container", "has_seccomp") => container::has_seccomp().into(),
        ("container", "memory_limit") => number(container::memory_limit()),
        ("container", "cpu_limit") => number(container::cpu_limit()),
        ("container", "mounts") => mounts(),
        ("container", "devices") => container::devices().into(),
        ("process", "untrusted_args") => process::untrusted_args().into(),
        ("process", "untrusted_directory") => process::untrusted_directory().into(),
        ("process", "uid") => i64::from(process::uid()).into(),
        ("process", "gid") => i64::from(process::gid()).into(),
        ("process", "terminal") => process::terminal().into(),
        ("process", "capabilities") => process::capabilities().into(),
        ("process", "no_new_privileges") => process::no_new_privileges().into(),
        ("update", "memory_limit") => update::memory_limit().map_or(Value::Null, Value::from),
        ("update", "cpu_limit") => update::cpu_limit().map_or(Value::Null, Value::from),
        ("update", "pids_limit") => update::pids_limit().map_or(Value::Null, Value::from),
        _ => return Err(format!("{of}.{field} has no value")),
    })
}

/// What is above what CEL counts to is as much as that.
fn number(value: Option<u64>) -> Value {
    let signed = |value| i64::try_from(value).unwrap_or(i64::MAX);
    value.map_or(Value::Null, |value| signed(value).into())
}

fn scopes(requested: Vec<Assignment>) -> Value {
    let words = requested.iter().filter_map(|assignment| {
        let named = effects::KINDS.iter().find(|(_, kind)| *kind == assignment.kind);
        Some((named?.0.to_owned(), effects::word(&assignment.scope)))
    });
    Value::from(words.collect::<HashMap<String, String>>())
}

fn mounts() -> Value {
    let mounts = container::mounts().into_iter().map(|mount| {
        Value::from(HashMap::<String, Value>::from([
            ("source".to_owned(), mount.source.into()),
            ("destination".to_owned(), mount.destination.into()),
            ("kind".to_owned(), mount.kind.into()),
            ("options".to_owned(), mount.options.into()),
        ]))
    });
    Value::from(mounts.collect::<Vec<Value>>())
}

type Key = Arc<String>;

fn label(This(_): This<Value>, key: Key) -> Value {
    text(pod::untrusted_label(&key))
}

fn annotation(This(this): This<Value>, key: Key) -> Value {
    if is(&this, CONTAINER.name) {
        return text(container::untrusted_annotation(&key));
    }
    text(pod::untrusted_annotation(&key))
}

fn env(This(this): This<Value>, name: Key) -> Value {
    if is(&this, PROCESS.name) {
        return text(process::untrusted_env(&name));
    }
    text(container::untrusted_env(&name))
}

fn spec(This(_): This<Value>, pointer: Key) -> Result<Value, ExecutionError> {
    json("spec", container::spec(&pointer))
}

fn resources(This(_): This<Value>, pointer: Key) -> Result<Value, ExecutionError> {
    json("resources", update::resources(&pointer))
}

fn is(this: &Value, name: &str) -> bool {
    match this {
        Value::Map(map) => map.map.get(&cel::objects::Key::from(NAME)) == Some(&Value::from(name)),
        _ => false,
    }
}

fn text(value: Option<String>) -> Value {
    value.map_or(Value::Null, Value::from)
}

fn json(function: &str, text: Option<String>) -> Result<Value, ExecutionError> {
    let Some(text) = text else {
        return Ok(Value::Null);
    };
    let read = serde_json::from_str::<serde_json::Value>(&text);
    read.map_err(|error| ExecutionError::function_error(function, error))
        .and_then(|value| {
            cel::to_value(value).map_err(|error| ExecutionError::function_error(function, error))
        })
}
