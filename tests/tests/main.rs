//! What husk does, one file for each behaviour; see the list below.
//!
//! These scenarios need a lab: `tests/run` makes one.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    missing_docs,
    reason = "tests fail by panicking; each is a sentence"
)]

/// Makes each scenario a test twice: of a pod with a pause container, and of one whose sandbox the
/// shim makes.
macro_rules! in_both_modes {
    ($($scenario:ident),+ $(,)?) => {
        mod podsandbox {
            $(#[test]
            fn $scenario() {
                super::$scenario(husk_tests::cri::Mode::Podsandbox);
            })+
        }
        mod sandbox_api {
            $(#[test]
            fn $scenario() {
                super::$scenario(husk_tests::cri::Mode::SandboxApi);
            })+
        }
    };
}

mod a_joining_process_shows_nothing;
mod bad_input;
mod cgroup_drivers;
mod configuration_errors;
mod containerd_restart;
mod cve_2019_16884;
mod cve_2019_5736;
mod cve_2020_15257;
mod cve_2021_30465;
mod cve_2022_29162;
mod cve_2023_27561;
mod cve_2023_28642;
mod cve_2024_21626;
mod cve_2024_45310;
mod cve_2025_23266;
mod cve_2025_27612;
mod cve_2025_31133;
mod cve_2025_52565;
mod cve_2025_52881;
mod cve_2025_54867;
mod cve_2025_62161;
mod cve_2025_62596;
mod cve_2026_41579;
mod delete_is_idempotent;
mod events_order;
mod exec;
mod hooks;
mod hostile_plugins;
mod id_mapped_mounts;
mod ids_of_containers;
mod inspect;
mod installed;
mod io;
mod kill;
mod killed_at_any_moment;
mod layers;
mod like_its_peers;
mod limits;
mod link_rules;
mod links;
mod links_by_policy;
mod links_under_attack;
mod node_kept_in_step;
mod nothing_grows;
mod one_shim_per_pod;
mod oom;
mod pause;
mod pod_by_annotation;
mod pod_dev_shm;
mod pod_files_are_bounded;
mod pod_host_namespaces;
mod pod_outlives_its_first;
mod pod_share_process_namespace;
mod pod_shares_namespaces;
mod pod_sysctls_and_hostname;
mod pod_target_pid;
mod pod_user_namespace;
mod policies;
mod policies_of_pods;
mod protocol;
mod rules;
mod run_and_exit;
mod runtime_path;
mod sandbox_api;
mod scopes_from_configuration;
mod security_context;
mod shim_killed;
mod slow_unmount;
mod stats;
mod the_agents_pod;
mod the_articles_pod;
mod the_holder_shows_nothing;
mod tty;
mod update;
mod user_namespaces;
