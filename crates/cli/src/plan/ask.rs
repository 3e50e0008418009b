//! Puts the shim's questions, in the shim's order.
use std::sync::Arc;

use husk_engine::manifest;
use husk_engine::pod::Preview;
use husk_plugin_host::subject::{self, Question};
use husk_plugin_host::{Chain, Outcome, decide};
use husk_scope::config::Config;
use husk_scope::{Kind, Plan, Scope, requested};
use oci_spec::runtime::Spec;

use super::links::{Links, PlannedLink};
use super::report::{Part, Report};
use super::view::View;

/// Where CRI, and the engine, say which image a container is of.
const IMAGE: &str = "io.kubernetes.cri.image-name";

/// Why there is no plan.
type Denied = String;

/// Asks about the sandbox, and about each container if the sandbox may be.
pub(super) fn ask(
    config: &Config,
    pod: &manifest::Pod,
    id: String,
    cgroup: String,
    containers: Vec<Preview>,
    loaded: Outcome<Chain>,
) -> Report {
    let wanted = decide::sandbox_requested(
        !pod.host_network,
        !pod.host_ipc,
        false,
        match (pod.host_pid, pod.share_process_namespace) {
            (true, _) => Scope::Node,
            (false, true) => Scope::Pod,
            (false, false) => Scope::Container,
        },
    );
    let mut facts = subject::Pod {
        id,
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        uid: pod.uid.clone(),
        cgroup_parent: cgroup,
        requested: wanted.clone(),
        containers: Vec::new(),
        labels: pod.labels.clone(),
        annotations: pod.annotations.clone(),
    };
    let plugins = config.plugins.iter().map(|plugin| plugin.name.clone());
    let mut report = Report {
        pod: pod.name.clone(),
        namespace: pod.namespace.clone(),
        denied: false,
        plugins: plugins.collect(),
        sandbox: Part::new("sandbox", wanted),
        containers: Vec::new(),
    };
    let chain = match sandbox(config, &facts, loaded, &mut report.sandbox) {
        Ok((chain, plan)) => {
            let view = View::new(plan.scopes(), pod.hostname.clone(), config.users);
            report.sandbox.plan = Some(plan);
            Some((chain, view))
        }
        Err(denied) => {
            report.sandbox.denied = Some(denied);
            None
        }
    };
    if let Some((chain, mut view)) = chain {
        let mut links = Links::new(&containers);
        for preview in containers {
            let part = container(config, &facts, &chain, &mut view, &mut links, preview);
            if part.denied.is_none() {
                facts.containers.push(part.name.clone());
            }
            report.containers.push(part);
        }
    }
    let refused = |part: &Part| part.denied.is_some();
    report.denied = refused(&report.sandbox) || report.containers.iter().any(refused);
    report
}

/// Keeps what the plugins said; gives the result.
fn settle<T>(part: &mut Part, outcome: Outcome<T>) -> Result<T, Denied> {
    part.decisions.extend(outcome.decisions);
    let lines = outcome.log.into_iter();
    part.log
        .extend(lines.map(|(plugin, _, line)| (plugin, line)));
    outcome.result.map_err(|denied| denied.to_string())
}

fn sandbox(
    config: &Config,
    facts: &subject::Pod,
    loaded: Outcome<Chain>,
    part: &mut Part,
) -> Result<(Chain, Plan), Denied> {
    let pod = Arc::new(facts.clone());
    let chain = settle(part, loaded)?;
    settle(part, chain.validate_settings(&pod))?;
    settle(part, chain.notify(&pod, &Question::SandboxStarting))?;
    let assigned = settle(part, chain.scopes(&pod, None))?;
    let plan = decide::sandbox_plan(config, &part.requested, &assigned);
    Ok((chain, plan.map_err(|error| error.to_string())?))
}

fn container(
    config: &Config,
    facts: &subject::Pod,
    chain: &Chain,
    view: &mut View,
    links: &mut Links,
    preview: Preview,
) -> Part {
    let mut part = Part::new(preview.name.clone(), facts.requested.clone());
    part.without_image = preview.without_image;
    match plan(config, facts, chain, view, links, preview, &mut part) {
        Ok((plan, links)) => {
            part.plan = Some(plan);
            part.links = links;
        }
        Err(denied) => part.denied = Some(denied),
    }
    part
}

fn plan(
    config: &Config,
    facts: &subject::Pod,
    chain: &Chain,
    view: &mut View,
    links: &mut Links,
    preview: Preview,
    part: &mut Part,
) -> Result<(Plan, Vec<PlannedLink>), Denied> {
    let pod = Arc::new(facts.clone());
    let Preview { name, id, spec, .. } = preview;
    let wanted = requested(&spec, view).map_err(|error| error.to_string())?;
    part.requested.clone_from(&wanted);
    let annotations = spec.annotations().as_ref();
    let image = annotations.and_then(|annotations| annotations.get(IMAGE));
    let container = subject::Container {
        id,
        name: name.clone(),
        requested: wanted.clone(),
        image: image.cloned().unwrap_or_default(),
        spec: spec.into(),
    };
    let by_plugins = settle(part, chain.scopes(&pod, Some(&container)))?;
    let plan = decide::container_plan(config, &name, &wanted, by_plugins, Vec::new())
        .map_err(|error| error.to_string())?;
    let by_plugins = settle(part, chain.links(&pod, &container))?;
    let decided = decide::container_links(config, &name, by_plugins);
    let decided = decided.map_err(|error| error.to_string())?;
    let spec = settle(part, chain.container_creating(&pod, &container))?;
    let mut spec = Spec::clone(&spec);
    plan.edit(&mut spec, view)
        .map_err(|error| error.to_string())?;
    view.add(&name, &plan, &spec);
    let network = &plan.get(Kind::Network).scope;
    let links = links.add(&name, network, decided, &view.network(), &config.ceiling);
    Ok((plan, links.map_err(|error| error.to_string())?))
}
