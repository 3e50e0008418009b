//! Runs pods without containerd and shows what a pod is made of.
#![forbid(unsafe_code)]

mod inspect;

use clap::Parser;

#[derive(Parser)]
#[command(name = "husk", version, about)]
enum Husk {
    Inspect(inspect::InspectArgs),
}

fn main() -> anyhow::Result<()> {
    match Husk::parse() {
        Husk::Inspect(args) => inspect::run(args),
    }
}
