//! The process that a container runs.
use std::path::Path;

use serde_json::{Value, json};

use super::Error;
use crate::image;
use crate::manifest::{Container, Pod};

/// What containers get whose image sets no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn process(
    pod: &Pod,
    container: &Container,
    image: &image::Config,
    user: &image::User,
    capabilities: &[String],
) -> Result<Value, Error> {
    if container.security.non_root && user.uid == 0 {
        return Err(Error::Root);
    }
    let image_dir = Path::new(if image.workdir.is_empty() {
        "/"
    } else {
        &image.workdir
    });
    Ok(json!({
        "terminal": container.tty,
        "user": {
            "uid": user.uid,
            "gid": user.gid,
            "additionalGids": groups(container, user),
        },
        "args": args(container, image)?,
        "env": env(pod, container, image, user),
        "cwd": container.working_dir.as_deref().unwrap_or(image_dir),
        "capabilities": {
            "bounding": capabilities,
            "effective": capabilities,
            "permitted": capabilities,
            // Inheritable stays empty: it would let a file grant what the container dropped
            // (CVE-2022-24769).
            "inheritable": [],
        },
        "noNewPrivileges": !container.security.privilege_escalation,
    }))
}

/// The manifest's command replaces the image's entrypoint and arguments, its args the arguments.
fn args(container: &Container, image: &image::Config) -> Result<Vec<String>, Error> {
    let mut args = if container.command.is_empty() {
        image.entrypoint.clone()
    } else {
        container.command.clone()
    };
    if !container.args.is_empty() {
        args.extend_from_slice(&container.args);
    } else if container.command.is_empty() {
        args.extend_from_slice(&image.cmd);
    }
    if args.is_empty() {
        Err(Error::NoCommand)
    } else {
        Ok(args)
    }
}

/// Later entries win: PATH and HOME, the image's, the host name, the manifest's.
fn env(pod: &Pod, container: &Container, image: &image::Config, user: &image::User) -> Vec<String> {
    let mut env: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| match env.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => value.clone_into(known),
        None => env.push((name.to_owned(), value.to_owned())),
    };
    set("PATH", PATH);
    set("HOME", &user.home);
    for variable in &image.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        set(name, value);
    }
    set("HOSTNAME", &pod.hostname);
    for (name, value) in &container.env {
        set(name, value);
    }
    env.into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

fn groups(container: &Container, user: &image::User) -> Vec<u32> {
    let mut groups = vec![user.gid];
    for group in user
        .additional_gids
        .iter()
        .chain(&container.security.groups)
    {
        if !groups.contains(group) {
            groups.push(*group);
        }
    }
    groups
}
