//! The pod's links: what the record says, and what they have carried, which only the shim can ask.
use std::time::Duration;

use husk_engine::shim::{Shim, address_of};
use husk_scope::links::{Joined, Network, Protocol};
use husk_scope::record::{Carried, Pod};
use husk_terminal::page::{Cell, Page, Style, cell};
use serde::{Deserialize, Serialize};

use super::report::Report;
use super::units::{NOTHING, size};

/// How long the shim may take to say what was carried.
const PATIENCE: Duration = Duration::from_secs(2);

/// The version under which husk's shim answers.
const VERSION: u32 = 3;

/// A link.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Link {
    #[serde(flatten)]
    pub(super) carried: Carried,
    /// The pid of the relay that carries it; null when there is none.
    pub(super) relay: Option<i32>,
    /// What it has carried so far; null when the shim does not say.
    pub(super) counts: Option<Counts>,
}

/// What a link has carried so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    /// Connections, or senders of datagrams, now.
    pub(super) open: u32,
    /// All there have been.
    pub(super) total: u64,
    /// Those that nobody listened to, or that were too many.
    pub(super) refused: u64,
    /// Bytes the way the link leads.
    pub(super) bytes_to: u64,
    /// Bytes that came back.
    pub(super) bytes_from: u64,
}

/// What the shim says of a link.
#[derive(Deserialize)]
struct Said {
    #[serde(flatten)]
    carried: Carried,
    #[serde(flatten)]
    counts: Counts,
}

/// The links on record.
pub(super) fn of(pod: &Pod) -> Vec<Link> {
    let relays = pod.relays.iter();
    relays
        .flat_map(|relay| {
            relay.links.iter().map(|carried| Link {
                carried: carried.clone(),
                relay: relay.process.map(|process| process.pid),
                counts: None,
            })
        })
        .collect()
}

/// Asks the pod's shim what its links have carried. One that does not answer leaves that open.
pub(super) fn count(report: &mut Report, pod: &Pod) {
    if report.links.is_empty() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else { return };
    // The clock of the timeout is the runtime's: it is made inside.
    let asked = runtime.block_on(async { tokio::time::timeout(PATIENCE, ask(pod)).await });
    let Ok(Some(said)) = asked else { return };
    for link in &mut report.links {
        let same = said.iter().find(|said| said.carried == link.carried);
        link.counts = same.map(|said| said.counts);
    }
}

async fn ask(pod: &Pod) -> Option<Vec<Said>> {
    let shim = Shim::connect(&address_of(&pod.socket), VERSION)
        .await
        .ok()?;
    let info = shim.sandbox().info(&pod.id).await.ok()?;
    serde_json::from_str(info.get("links")?).ok()
}

/// The LINKS section.
pub(super) fn show(page: &mut Page, report: &Report) {
    if report.links.is_empty() {
        return;
    }
    page.title("LINKS", "single ports between networks");
    let heads = [
        "FROM",
        "TO",
        "OF",
        "OPEN",
        "ALL",
        "REFUSED",
        "SENT",
        "RECEIVED",
        "DECIDED BY",
    ];
    let mut rows = vec![
        heads
            .iter()
            .enumerate()
            .map(|(at, head)| {
                let head = cell(*head).style(Style::Title);
                if (3..8).contains(&at) {
                    head.right()
                } else {
                    head
                }
            })
            .collect::<Vec<Cell>>(),
    ];
    for link in &report.links {
        let joined = &link.carried.link;
        let count = |of: fn(&Counts) -> u64| {
            let text = link.counts.as_ref().map(|counts| of(counts).to_string());
            cell(text.unwrap_or_else(|| NOTHING.into())).right()
        };
        rows.push(vec![
            cell(format!(
                "{}:{}",
                place(&joined.from),
                port(joined, joined.port)
            )),
            cell(format!(
                "{}:{}",
                place(&joined.to),
                port(joined, joined.to_port)
            )),
            cell(&link.carried.container),
            count(|counts| u64::from(counts.open)),
            count(|counts| counts.total),
            count(|counts| counts.refused),
            size(link.counts.map(|counts| counts.bytes_to)),
            size(link.counts.map(|counts| counts.bytes_from)),
            cell(&link.carried.by).style(Style::Dim),
        ]);
    }
    page.table(&rows);
}

/// A port as it is written: TCP's by its number alone.
pub(super) fn port(link: &Joined, port: u16) -> String {
    match link.protocol {
        Protocol::Tcp => port.to_string(),
        Protocol::Udp => format!("{port}/udp"),
    }
}

pub(super) fn place(network: &Network) -> String {
    match network {
        Network::Pod => "pod".to_owned(),
        Network::Container(name) => name.clone(),
        Network::Group(name) => format!("group {name}"),
    }
}
