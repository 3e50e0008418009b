//! Where `husk` keeps pods and images.
use std::path::PathBuf;

use husk_engine::pod::Paths;

/// Options of every command.
#[derive(clap::Args)]
pub(crate) struct PathArgs {
    /// Directory of the pods' records and sockets
    #[arg(
        long,
        global = true,
        default_value = "/run/husk-engine",
        value_name = "DIR"
    )]
    root: PathBuf,
    /// Directory of images, logs, volumes and what containers write
    #[arg(
        long,
        global = true,
        default_value = "/var/lib/husk",
        value_name = "DIR"
    )]
    data: PathBuf,
}

impl PathArgs {
    pub(crate) fn paths(self) -> Paths {
        Paths {
            state: self.root,
            data: self.data,
        }
    }
}
