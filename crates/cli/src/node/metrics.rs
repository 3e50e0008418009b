//! What `husk node` tells Prometheus.
//!
//! No label has a value that a pod's author chooses: states, plugins and handlers are the operator's, and there
//! are so many of them at most.
use std::collections::BTreeSet;
use std::path::Path;

use husk_scope::record::Status;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::decisions::Decision;
use super::pods::Pods;
use super::source::stems;
use crate::doctor::{Finding, State};

/// How many plugins are told apart; the others are one.
const PLUGINS: usize = 64;
const OTHER: &str = "other";
/// What a plugin answers; see docs/policies.md.
const ANSWERS: [&str; 6] = ["admitted", "scopes", "links", "edited", "denied", "failed"];

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge>;

pub(super) struct Metrics {
    registry: Registry,
    pods: Gauges,
    containers: Gauges,
    restarts: Counter,
    oom_kills: Counter,
    memory: Gauges,
    links: Gauge,
    decisions: Family<Labels, Counter>,
    durations: Family<Labels, Histogram>,
    plugins: BTreeSet<String>,
    configurations: Gauges,
    findings: Gauges,
    refused: Gauge,
    ready: Gauge,
    failures: Counter,
    installed_at: Gauge,
}

/// From 50 µs to 0.8 s: an answer takes less than a millisecond, a deadline ends one.
fn buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 15))
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("husk");
        let info = Gauges::default();
        info.get_or_create(&vec![("version", env!("CARGO_PKG_VERSION").to_owned())])
            .set(1);
        registry.register("build_info", "The husk that runs here", info);
        let new = Self {
            registry,
            pods: Gauges::default(),
            containers: Gauges::default(),
            restarts: Counter::default(),
            oom_kills: Counter::default(),
            memory: Gauges::default(),
            links: Gauge::default(),
            decisions: Family::default(),
            durations: Family::new_with_constructor(buckets),
            plugins: BTreeSet::new(),
            configurations: Gauges::default(),
            findings: Gauges::default(),
            refused: Gauge::default(),
            ready: Gauge::default(),
            failures: Counter::default(),
            installed_at: Gauge::default(),
        };
        new.registered()
    }

    fn registered(mut self) -> Self {
        let all = &mut self.registry;
        all.register(
            "pods",
            "Pods on record: lost is one whose shim is gone",
            self.pods.clone(),
        );
        all.register(
            "containers",
            "Containers on record, by their state",
            self.containers.clone(),
        );
        all.register(
            "container_restarts",
            "Containers that were made or started again under their names, as seen since this began",
            self.restarts.clone(),
        );
        all.register(
            "oom_kills",
            "Processes of pods that the kernel killed for want of memory, since this began",
            self.oom_kills.clone(),
        );
        all.register_with_unit(
            "private_memory",
            "Memory that only husk's own processes have",
            Unit::Bytes,
            self.memory.clone(),
        );
        all.register("links", "Links that are carried", self.links.clone());
        all.register(
            "decisions",
            "Answers of plugins, since this began",
            self.decisions.clone(),
        );
        all.register_with_unit(
            "decision",
            "How long answers of plugins took",
            Unit::Seconds,
            self.durations.clone(),
        );
        all.register(
            "handler_configuration_info",
            "The configurations of handlers that are in force",
            self.configurations.clone(),
        );
        all.register(
            "doctor_findings",
            "What husk doctor finds on this node",
            self.findings.clone(),
        );
        all.register(
            "refused_files",
            "Configurations and plugins that were not taken: what was there before is in force",
            self.refused.clone(),
        );
        all.register(
            "node_ready",
            "Whether husk is installed and husk doctor finds no error",
            self.ready.clone(),
        );
        all.register(
            "node_failures",
            "How often husk could not be installed",
            self.failures.clone(),
        );
        all.register_with_unit(
            "node_installed_timestamp",
            "When the node was last made as it is to be, since 1970",
            Unit::Seconds,
            self.installed_at.clone(),
        );
        self
    }

    pub(super) fn set_pods(&self, pods: &Pods) {
        set(&self.pods, "state", pods.states.iter());
        let states = [
            Status::Creating,
            Status::Created,
            Status::Running,
            Status::Paused,
            Status::Stopped,
        ];
        let count = |state| pods.containers.iter().filter(|it| **it == state).count();
        let containers = states.map(|it| (format!("{it:?}").to_lowercase(), count(it)));
        set(
            &self.containers,
            "state",
            containers.iter().map(|(name, count)| (name, count)),
        );
        set(&self.memory, "process", pods.memory.iter());
        self.links.set(whole(pods.links));
        self.restarts.inc_by(pods.restarts);
        self.oom_kills.inc_by(pods.oom_kills);
    }

    pub(super) fn count_decisions(&mut self, decisions: Vec<Decision>) {
        for decision in decisions {
            // Without a plugin it is the handler's own refusal.
            let plugin = decision.plugin.unwrap_or_else(|| "handler".to_owned());
            let known = self.plugins.contains(&plugin);
            let plugin = if known || self.plugins.len() < PLUGINS {
                self.plugins.insert(plugin.clone());
                plugin
            } else {
                OTHER.to_owned()
            };
            let answer = ANSWERS.into_iter().find(|it| *it == decision.answer);
            let answer = answer.unwrap_or(OTHER).to_owned();
            let seconds = std::time::Duration::from_micros(decision.micros).as_secs_f64();
            let of_plugin = vec![("plugin", plugin.clone())];
            self.durations.get_or_create(&of_plugin).observe(seconds);
            let of_answer = vec![("plugin", plugin), ("answer", answer)];
            self.decisions.get_or_create(&of_answer).inc();
        }
    }

    /// The configurations of these handlers as they are below this directory.
    pub(super) fn set_configurations(&self, dir: &Path, handlers: &[String]) {
        self.configurations.clear();
        for (handler, path) in stems(dir, "toml").unwrap_or_default() {
            if !handlers.contains(&handler) {
                continue;
            }
            if let Ok(digest) = crate::install::digest_of(&path) {
                let labels = vec![("handler", handler), ("sha256", digest)];
                self.configurations.get_or_create(&labels).set(1);
            }
        }
    }

    pub(super) fn set_findings(&self, findings: &[Finding]) {
        let states = [
            ("ok", State::Ok),
            ("warning", State::Warning),
            ("error", State::Error),
        ];
        let count = |state| findings.iter().filter(|it| it.state == state).count();
        let counts = states.map(|(name, state)| (name, count(state)));
        set(
            &self.findings,
            "state",
            counts.iter().map(|(name, count)| (name, count)),
        );
    }

    pub(super) fn set_refused(&self, count: usize) {
        self.refused.set(whole(count));
    }

    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    pub(super) fn count_failure(&self) {
        self.failures.inc();
    }

    pub(super) fn set_installed_now(&self) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        self.installed_at
            .set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    /// All of it, in the text format of OpenMetrics.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Nothing can fail where the text only grows.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn set<'a, N: ToString + 'a, C: Copy + TryInto<i64> + 'a>(
    gauges: &Gauges,
    label: &'static str,
    counts: impl Iterator<Item = (&'a N, &'a C)>,
) {
    for (name, count) in counts {
        let count = (*count).try_into().unwrap_or(i64::MAX);
        gauges
            .get_or_create(&vec![(label, name.to_string())])
            .set(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(plugin: &str, answer: &str) -> Decision {
        Decision {
            plugin: Some(plugin.to_owned()),
            answer: answer.to_owned(),
            micros: 655,
        }
    }

    #[test]
    fn labels_are_bounded_whatever_the_record_says() {
        let mut metrics = Metrics::new();
        for index in 0..1000 {
            let name = format!("p{index}\"\n}}");
            let decisions = vec![decision(&name, &format!("answer-{index}"))];
            metrics.count_decisions(decisions);
        }
        metrics.count_decisions(vec![decision("p0\"\n}", "denied")]);
        let text = metrics.text();
        let series = |line: &&str| line.starts_with("husk_decisions_total{");
        assert_eq!(text.lines().filter(series).count(), PLUGINS + 2);
        assert!(
            text.contains(r#"husk_decisions_total{plugin="other",answer="other"} 936"#),
            "{text}"
        );
        // A name cannot end its line.
        assert!(
            text.contains(r#"{plugin="p0\"\n}",answer="denied"} 1"#),
            "{text}"
        );
    }

    #[test]
    fn every_metric_of_the_dashboard_exists_and_is_documented() {
        let mut metrics = Metrics::new();
        let cgroups = crate::inspect::cgroups::Hierarchies::default();
        metrics.set_pods(&super::super::pods::Watch::default().look(&[], &cgroups));
        metrics.count_decisions(vec![decision("p", "denied")]);
        metrics.set_findings(&[]);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("husk.toml"), "").unwrap();
        metrics.set_configurations(dir.path(), &["husk".to_owned()]);
        let text = metrics.text();
        let dashboard = include_str!("../../../../charts/husk/dashboards/husk.json");
        let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
        let mut named = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
                let words = target["expr"].as_str().unwrap().split(word);
                named.extend(words.filter(|it| it.starts_with("husk_")));
            }
        }
        assert!(named.len() >= 10, "{named:?}");
        let documented = include_str!("../../../../docs/cluster.md");
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        for name in types.filter_map(|it| it.split(' ').next()) {
            let row = documented
                .lines()
                .any(|line| line.starts_with(&format!("| `{name}")));
            assert!(row, "{name} is not in docs/cluster.md");
        }
        for name in named {
            let printed = text
                .lines()
                .any(|line| line.split(['{', ' ']).next() == Some(name));
            assert!(printed, "{name} is not in\n{text}");
        }
    }
}
