//! From what was requested to what will be: the configuration and the plugins, put together.
//!
//! The shim acts on it and `husk plan` shows it; neither decides anything by itself.
use husk_scope::config::Config;
use husk_scope::links::{self, Link, LinkError, Reach};
use husk_scope::{Assignment, Kind, Plan, PlanError, Scope, Scopes};

/// Why a sandbox cannot have the scopes that were assigned to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SandboxError {
    /// A sandbox has no such scope.
    #[error("{by} wants {kind} to be {scope} for the sandbox: {why}")]
    Impossible {
        /// The kind of namespace.
        kind: Kind,
        /// What was assigned.
        scope: Scope,
        /// Who assigned it.
        by: String,
        /// Why it cannot be.
        why: &'static str,
    },
    /// The table of scopes or the ceiling refuses it.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// What a pod asks of its sandbox, by CRI's namespace options: whether its network and ipc namespaces
/// are the pod's, as opposed to the node's, and whose its processes are. CONTAINER, which is usual,
/// leaves the sandbox without a pid namespace, and no container with the node's. The host name goes
/// with the network.
#[must_use]
pub fn sandbox_requested(network: bool, ipc: bool, user: bool, pid: Scope) -> Scopes {
    let mut scopes = Scopes::all(&Scope::Node);
    scopes[Kind::Mount] = Scope::Container;
    scopes[Kind::Pid] = pid;
    for (kind, is_pods) in [
        (Kind::Network, network),
        (Kind::Uts, network),
        (Kind::Ipc, ipc),
        (Kind::User, user),
    ] {
        if is_pods {
            scopes[kind] = Scope::Pod;
        }
    }
    scopes
}

/// The sandbox's plan, once the plugins have spoken. A sandbox has a namespace, or has not.
///
/// # Errors
/// A scope that no sandbox has, a namespace that containerd has made already, or one above the
/// ceiling.
pub fn sandbox_plan(
    config: &Config,
    requested: &Scopes,
    assigned: &[Assignment],
) -> Result<Plan, SandboxError> {
    for Assignment { kind, scope, by } in assigned {
        if requested[*kind] == *scope {
            continue;
        }
        let why = match (kind, scope) {
            (_, Scope::Container | Scope::Target(_) | Scope::Group(_)) => {
                "a sandbox's scope is POD or NODE"
            }
            (Kind::Network | Kind::User | Kind::Mount, _) => "containerd has made it already",
            (Kind::Ipc, Scope::Pod) => {
                "the pod asked for the node's, and containerd mounts the node's /dev/shm for it; \
                 assign POD to its containers instead"
            }
            _ => continue,
        };
        return Err(SandboxError::Impossible {
            kind: *kind,
            scope: scope.clone(),
            by: by.clone(),
            why,
        });
    }
    let mut ceiling = config.ceiling.clone();
    // Whose cgroup namespace a container has is said with the container, never with the sandbox.
    ceiling.leave_requests(Kind::Cgroup);
    Ok(Plan::new(requested, assigned, &ceiling)?)
}

/// The plan for the container of this name: what the configuration and the plugins assign, and what
/// `otherwise` assigns to kinds that neither of them does.
///
/// # Errors
/// See [`Plan::new`].
pub fn container_plan(
    config: &Config,
    name: &str,
    requested: &Scopes,
    by_plugins: Vec<Assignment>,
    otherwise: Vec<Assignment>,
) -> Result<Plan, PlanError> {
    let mut assigned = config.assignments(name);
    assigned.extend(by_plugins);
    for assignment in otherwise {
        if assigned.iter().all(|other| other.kind != assignment.kind) {
            assigned.push(assignment);
        }
    }
    let plan = Plan::new(requested, &assigned, &config.ceiling)?;
    Ok(plan.with_offsets(config.offsets))
}

/// The links of the container of this name: what the configuration and the plugins decide. Whether its
/// peers are there, and where their networks are, is not looked at: see [`links::plan`].
///
/// # Errors
/// A link that the ceiling does not allow, two that come in at one port, or too many.
pub fn container_links(
    config: &Config,
    name: &str,
    by_plugins: Vec<Link>,
) -> Result<Vec<Link>, LinkError> {
    if config.ceiling.links() == Reach::None
        && let Some(link) = by_plugins.first()
    {
        return Err(LinkError::AboveCeiling {
            container: name.to_owned(),
            link: Box::new(link.clone()),
        });
    }
    let mut decided = config.links(name).to_vec();
    links::add(&mut decided, by_plugins, name)?;
    Ok(decided)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(kind: Kind, scope: Scope, by: &str) -> Assignment {
        Assignment {
            kind,
            scope,
            by: by.to_owned(),
        }
    }

    #[test]
    fn a_sandbox_has_a_namespace_or_has_not() {
        let requested = sandbox_requested(true, true, false, Scope::Container);
        let config = Config::default();
        let gets = |kind, scope| {
            let plan = sandbox_plan(&config, &requested, &[by(kind, scope, "p")])?;
            Ok::<_, SandboxError>(plan.scopes())
        };
        assert_eq!(gets(Kind::Pid, Scope::Pod).unwrap()[Kind::Pid], Scope::Pod);
        assert_eq!(
            gets(Kind::Ipc, Scope::Node).unwrap()[Kind::Ipc],
            Scope::Node
        );
        let refused = gets(Kind::Ipc, Scope::Container).unwrap_err().to_string();
        assert!(refused.contains("POD or NODE"), "{refused}");
        let refused = gets(Kind::Network, Scope::Node).unwrap_err().to_string();
        assert!(refused.contains("made it already"), "{refused}");
    }

    #[test]
    fn a_sandbox_stays_below_the_ceiling() {
        let config = Config::parse("c", "[ceiling]\nipc = 'pod'").unwrap();
        let requested = sandbox_requested(true, true, false, Scope::Container);
        let wide = [by(Kind::Ipc, Scope::Node, "policy open")];
        let refused = sandbox_plan(&config, &requested, &wide).unwrap_err();
        assert!(refused.to_string().contains("policy open"), "{refused}");
    }

    #[test]
    fn what_a_pod_asks_for_stays_below_the_ceiling() {
        let toml = "[ceiling]\npid = 'pod'\ncgroup = 'pod'\nrequests = ['pid', 'cgroup']";
        let config = Config::parse("c", toml).unwrap();
        let plan = |pid| sandbox_plan(&config, &sandbox_requested(true, true, false, pid), &[]);
        let refused = plan(Scope::Node).unwrap_err().to_string();
        assert!(refused.contains("above the ceiling"), "{refused}");
        assert!(plan(Scope::Pod).is_ok());
    }

    #[test]
    fn what_nobody_assigns_may_be_assigned_otherwise() {
        let config = Config::parse("c", "[scopes]\nnetwork = 'container'").unwrap();
        let mut requested = Scopes::all(&Scope::Container);
        requested[Kind::User] = Scope::Node;
        let plugins = vec![by(Kind::Ipc, Scope::Container, "policy p")];
        let otherwise = [Kind::Network, Kind::Ipc, Kind::Uts]
            .map(|kind| by(kind, Scope::Pod, "annotation"))
            .to_vec();
        let plan = container_plan(&config, "app", &requested, plugins, otherwise).unwrap();
        let of = |kind| (plan.get(kind).scope.clone(), plan.get(kind).by.as_str());
        assert_eq!(of(Kind::Network), (Scope::Container, "configuration"));
        assert_eq!(of(Kind::Ipc), (Scope::Container, "policy p"));
        assert_eq!(of(Kind::Uts), (Scope::Pod, "annotation"));
    }
}
