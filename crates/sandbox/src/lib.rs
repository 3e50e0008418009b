//! The privileged room: everything husk does to the kernel happens here.
//!
//! A pod's parts are made by the [`zygote`], a single-threaded process forked from the shim before
//! it has threads; each job runs in a fresh child of it, so that what a job does to its process
//! (namespaces, cwd, oom_score_adj, dumpable) dies with that child. When the child has exited, the
//! process it made is reparented to the shim, the nearest subreaper, which watches it by pidfd.
//!
//! The crate knows nothing of ttrpc, tokio or WebAssembly.

mod birth;
mod bundle;
pub mod cgroup;
mod checks;
mod console;
mod create;
pub mod daemon;
pub mod error;
mod exec;
pub mod features;
pub mod floor;
#[cfg(fuzzing)]
pub mod fuzzing;
mod holder;
pub mod hooks;
mod id_map;
mod init;
pub mod job;
pub mod lenient;
mod loopback;
mod lsm;
mod mount_api;
mod mountinfo;
mod namespaces;
mod packet;
pub mod pin;
pub mod process;
mod procfs;
mod program;
pub mod reexec;
mod relay;
mod report;
pub mod rootfs;
mod seccomp;
pub mod spawn;
mod sys;
mod sysctl;
pub mod terminal;
mod update;
mod workload;
pub mod zygote;

pub use self::init::start;
