//! Probes and hooks.
use std::time::Duration;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Translation, unknown};
use crate::manifest::pod::{Action, Probe};

/// What a hook and a probe can do, of which one is said.
#[derive(Default)]
struct Actions {
    exec: Option<v1::ExecAction>,
    http: Option<v1::HTTPGetAction>,
    tcp: Option<v1::TCPSocketAction>,
    sleep: Option<v1::SleepAction>,
}

impl Translation<'_> {
    pub(super) fn hook(
        &mut self,
        path: &str,
        hook: Option<v1::LifecycleHandler>,
        ports: &[v1::ContainerPort],
    ) -> Option<Action> {
        let hook = hook?;
        let actions = Actions {
            exec: hook.exec,
            http: hook.http_get,
            tcp: hook.tcp_socket,
            sleep: hook.sleep,
        };
        self.action(path, actions, ports)
    }

    /// `successes` is whether more than one success may be asked for.
    pub(super) fn probe(
        &mut self,
        path: &str,
        probe: Option<v1::Probe>,
        ports: &[v1::ContainerPort],
        successes: bool,
    ) -> Option<Probe> {
        let probe = probe?;
        let actions = Actions {
            exec: probe.exec,
            http: probe.http_get,
            tcp: probe.tcp_socket,
            sleep: None,
        };
        let action = self.action(path, actions, ports);
        // As an API server has it, 0 is what is not set.
        let mut number = |field: &str, value: Option<i32>, default: u32| {
            let found = u32::try_from(value.unwrap_or_default());
            let found = found.map_err(|_| String::from("cannot be negative"));
            match self.problems.or_default(&format!("{path}.{field}"), found) {
                0 => default,
                found => found,
            }
        };
        let grace = probe.termination_grace_period_seconds.map(|grace| {
            let found = u64::try_from(grace).ok().filter(|grace| *grace > 0);
            found.ok_or_else(|| format!("must be above 0, and is {grace}"))
        });
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let probe = Probe {
            delay: seconds(number(
                "initialDelaySeconds",
                probe.initial_delay_seconds,
                0,
            )),
            period: seconds(number("periodSeconds", probe.period_seconds, 10)),
            timeout: seconds(number("timeoutSeconds", probe.timeout_seconds, 1)),
            failures: number("failureThreshold", probe.failure_threshold, 3),
            successes: number("successThreshold", probe.success_threshold, 1),
            grace: grace.map(|grace| {
                let path = format!("{path}.terminationGracePeriodSeconds");
                Duration::from_secs(self.problems.or_default(&path, grace))
            }),
            action: action?,
        };
        if probe.successes > 1 && !successes {
            self.problems
                .add(&format!("{path}.successThreshold"), "must be 1 here");
        }
        Some(probe)
    }

    fn action(
        &mut self,
        path: &str,
        actions: Actions,
        ports: &[v1::ContainerPort],
    ) -> Option<Action> {
        let Actions {
            exec,
            http,
            tcp,
            sleep,
        } = actions;
        match (exec, http, tcp, sleep) {
            (Some(exec), None, None, None) => {
                let command = exec.command.unwrap_or_default();
                if command.is_empty() {
                    self.problems
                        .add(&format!("{path}.exec.command"), "missing");
                }
                Some(Action::Exec(command))
            }
            (None, Some(http), None, None) => {
                let path = format!("{path}.httpGet");
                match http.scheme.as_deref() {
                    None | Some("HTTP" | "") => {}
                    Some("HTTPS") => self.problems.add(
                        &format!("{path}.scheme"),
                        "HTTPS is not supported by husk run",
                    ),
                    Some(other) => self.problems.add(&format!("{path}.scheme"), unknown(other)),
                }
                let headers = http.http_headers.unwrap_or_default();
                let headers: Vec<_> = headers.into_iter().map(|it| (it.name, it.value)).collect();
                let page = http.path.unwrap_or_default();
                let line = |text: &str| text.contains(|c: char| c.is_control());
                if line(&page)
                    || headers
                        .iter()
                        .any(|(name, value)| line(name) || line(value))
                {
                    self.problems
                        .add(&path, "a line break in the path or in a header");
                }
                Some(Action::Http {
                    host: http.host.filter(|host| !host.is_empty()),
                    port: self.port(&format!("{path}.port"), &http.port, ports),
                    path: if page.starts_with('/') {
                        page
                    } else {
                        format!("/{page}")
                    },
                    headers,
                })
            }
            (None, None, Some(tcp), None) => Some(Action::Tcp {
                host: tcp.host.filter(|host| !host.is_empty()),
                port: self.port(&format!("{path}.tcpSocket.port"), &tcp.port, ports),
            }),
            (None, None, None, Some(sleep)) => {
                let seconds = u64::try_from(sleep.seconds);
                let seconds = seconds.map_err(|_| String::from("cannot be negative"));
                let path = format!("{path}.sleep.seconds");
                let seconds = self.problems.or_default(&path, seconds);
                Some(Action::Sleep(Duration::from_secs(seconds)))
            }
            _ => {
                self.problems
                    .add(path, "must have one of exec, httpGet and tcpSocket");
                None
            }
        }
    }

    /// The number of a port, or that of the container's port of this name.
    fn port(&mut self, path: &str, port: &IntOrString, ports: &[v1::ContainerPort]) -> u16 {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => ports
                .iter()
                .find(|port| port.name.as_ref() == Some(name))
                .map(|port| port.container_port)
                .or_else(|| name.parse().ok()),
        };
        let found = number
            .and_then(|number| u16::try_from(number).ok())
            .filter(|number| *number > 0);
        let reason = || match port {
            IntOrString::Int(number) => format!("{number} is no port: 1 to 65535"),
            IntOrString::String(name) => format!("the container has no port named `{name}`"),
        };
        self.problems.or_default(path, found.ok_or_else(reason))
    }
}
