//! The pod's links: made when both ends are there, ended when one is not, made anew when a relay dies.
//!
//! [`husk_scope::links`] says which there are to be. Each is carried by the relay of the network
//! namespace that it leads to; the relay is made with its first link and ends with its last.
//!
//! # When a relay dies
//!
//! Nothing but a fault of its own or a SIGKILL ends it while the shim lives. Its sockets close with it:
//! connections are reset, and the links are refused (they fail closed) until they are made anew, which
//! is tried after a tenth of a second, then after twice as long each time, up to [`LONGEST_WAIT`]. The
//! pod goes on meanwhile: what else its containers do does not depend on the relay. With the shim the
//! relay ends, as nobody is left who would end the links of a container that ends.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use husk_relay::protocol::{Counts, LONGEST, Limit, Order, Told, order_now};
use husk_sandbox::cgroup::Cgroup;
use husk_sandbox::job::{Job, Listen, NetworkNamespace, Port, Relay as NewRelay};
use husk_sandbox::process::{Pidfd, start_time};
use husk_scope::links::{Joined, Network, Planned, Present, Protocol, plan};
use husk_scope::record::{Carried, Process, Relay as Recorded};
use husk_scope::{Kind, Scope};
use log::{error, info, warn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch as channel;
use tokio::time::{Instant, sleep, timeout};

use super::Pod;
use super::container::{Container, Known};
use crate::background::blocking;
use crate::children;
use crate::failure::Failure;
use crate::ready::readable;
use crate::sync::lock;

const SIGKILL: i32 = 9;

/// How long to wait before a relay that has died is made anew, at first and at most.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A relay that has lived this long has not died of how it was made.
const WELL: Duration = Duration::from_secs(60);

/// How long a relay may take to say what it has carried.
const COUNTING: Duration = Duration::from_millis(500);

/// How often a relay is listened to: one that strangers have taken over must not keep the shim busy.
const PACE: Duration = Duration::from_millis(1);

/// The pod's relays.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Held while links are made or ended.
    relays: tokio::sync::Mutex<Relays>,
    /// Set while somebody tries again to make what could not be made.
    is_mending: AtomicBool,
    /// What the log has been told is not there.
    missing: Mutex<BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct Relays {
    /// By the inode of the network namespace that their links lead to.
    by_target: HashMap<u64, Relay>,
    last_link: u32,
    last_relay: u64,
    /// How many relays have died young, one after the other.
    deaths: u32,
}

#[derive(Debug)]
struct Relay {
    made: MadeAs,
    pidfd: Arc<Pidfd>,
    control: Arc<AsyncFd<OwnedFd>>,
    /// The links it carries, by number.
    carries: Numbered,
    /// And their numbers.
    numbers: HashMap<Wanted, u32>,
    /// What it told last.
    counts: channel::Receiver<(u64, Vec<Counts>)>,
    /// True once it has ended and its cgroup is removed.
    gone: channel::Receiver<bool>,
    born: Instant,
    /// Whether it took all orders: one that did not must not go on.
    obeys: bool,
}

/// What is kept of how a relay was made.
#[derive(Clone, Debug)]
struct MadeAs {
    id: String,
    to: Network,
    cgroup: Option<String>,
}

/// A link that there is to be, and between which namespaces: the same one whoever has it, for the
/// containers of one network may end one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Wanted {
    joined: Joined,
    from: u64,
    to: u64,
}

/// Whose a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    /// The container that has it; the first one, of several.
    container: String,
    /// Who decided.
    by: String,
}

/// The links that there are to be.
type AllWanted = HashMap<Wanted, Owner>;

/// Links, by the number that their relay knows them by.
type Numbered = BTreeMap<u32, (Wanted, Owner)>;

/// A link that could not be made.
struct Missing {
    /// Whose it is.
    container: String,
    failure: Failure,
}

/// What a link has carried so far.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Carries {
    #[serde(flatten)]
    carried: Carried,
    /// Connections, or senders of datagrams, now.
    open: u32,
    /// All there have been.
    total: u64,
    /// Those that nobody listened to, or that were too many.
    refused: u64,
    /// Bytes the way the link leads.
    bytes_to: u64,
    /// Bytes that came back.
    bytes_from: u64,
}

impl Pod {
    /// Whether a container that is about to be made may have its links, beside those that there are:
    /// what cannot be is refused before anything runs for it. What comes meanwhile is seen later, when
    /// the links are made.
    pub(super) fn admit_links(&self, known: &Known) -> Result<(), Failure> {
        if known.links.is_empty() && !self.may_have_links() {
            return Ok(());
        }
        let present = self.present();
        let there = present.iter().filter_map(|found| found.known.get());
        self.planned_links(there.chain([known])).map(drop)
    }

    /// Makes the links that a container that was just made has, and those that wait for it.
    ///
    /// # Errors
    /// One of its own cannot be: which, and why. That one of another cannot is tried again, and is no
    /// failure of this one: its neighbour may have taken the port on purpose.
    pub(super) async fn make_links_of(
        self: &Arc<Self>,
        container: &Container,
    ) -> Result<(), Failure> {
        let missing = self.settle_links().await?;
        if missing.is_empty() {
            return Ok(());
        }
        let name = container.known.get().map(|known| known.name.as_str());
        let is_own = |missing: &&Missing| Some(missing.container.as_str()) == name;
        if let Some(own) = missing.iter().find(is_own) {
            let Missing { container, failure } = own;
            let mut failure = failure.clone();
            failure.message = format!("a link of container {container}: {}", failure.message);
            return Err(failure);
        }
        self.links_changed();
        Ok(())
    }

    /// Makes the links that there are to be and are not, and ends those that are and are not to be.
    /// Answers with those that cannot be made.
    ///
    /// # Errors
    /// Some container's links cannot be, whatever the kernel says.
    async fn settle_links(self: &Arc<Self>) -> Result<Vec<Missing>, Failure> {
        if !self.may_have_links() {
            return Ok(Vec::new());
        }
        let mut relays = self.links.relays.lock().await;
        let present = self.present();
        let planned = self.planned_links(present.iter().filter_map(|found| found.known.get()))?;
        self.make_pods_network(&planned).await?;
        let (wanted, networks) = self.resolved(&planned, &present);
        self.end_unwanted(&mut relays, &wanted).await;
        Ok(self.begin_missing(&mut relays, wanted, &networks).await)
    }

    /// Settles links after something has ended. What cannot be is tried again.
    pub(super) fn links_changed(self: &Arc<Self>) {
        if self.may_have_links() {
            let pod = Arc::clone(self);
            tokio::spawn(async move { pod.mend_links(Duration::ZERO).await });
        }
    }

    /// Ends all links: the sandbox is undone.
    pub(super) async fn end_links(&self) {
        let mut relays = self.links.relays.lock().await;
        let ending: Vec<_> = relays.by_target.drain().map(|(_, relay)| relay).collect();
        for relay in ending {
            self.end_relay(relay).await;
        }
    }

    /// What links there are, and what they have carried.
    pub(crate) async fn carried(&self) -> Vec<Carries> {
        let asked: Vec<_> = {
            let relays = self.links.relays.lock().await;
            let relays = relays.by_target.values();
            relays
                .map(|relay| {
                    let (before, _) = *relay.counts.borrow();
                    let asked = order_now(relay.control.get_ref(), &Order::Count);
                    (
                        relay.counts.clone(),
                        before,
                        asked.is_ok(),
                        relay.carries.clone(),
                    )
                })
                .collect()
        };
        let mut all = Vec::new();
        for (mut counts, before, asked, carries) in asked {
            if asked {
                // One that does not answer is known by what it said last.
                let _ = timeout(COUNTING, counts.wait_for(|(turn, _)| *turn > before)).await;
            }
            let known: HashMap<_, _> = {
                let counts = counts.borrow();
                counts
                    .1
                    .iter()
                    .map(|counts| (counts.link, *counts))
                    .collect()
            };
            all.extend(carries.into_iter().map(|(number, link)| {
                let counts = known.get(&number).copied().unwrap_or_default();
                Carries {
                    carried: carried(&link),
                    open: counts.open,
                    total: counts.total,
                    refused: counts.refused,
                    bytes_to: counts.bytes_to,
                    bytes_from: counts.bytes_from,
                }
            }));
        }
        all
    }

    /// Whether there is anything to look at: most pods have no links.
    fn may_have_links(&self) -> bool {
        let containers = lock(&self.containers);
        let has = |container: &Arc<Container>| {
            container
                .known
                .get()
                .is_some_and(|known| !known.links.is_empty())
        };
        !lock(&self.record).relays.is_empty() || containers.values().any(has)
    }

    /// The containers that are made and have not ended, in the order in which they were made; but for
    /// those that are still in the network of a target that has ended: that is nobody's any more.
    fn present(&self) -> Vec<Arc<Container>> {
        let ids: Vec<_> = {
            let record = lock(&self.record);
            record
                .containers
                .iter()
                .map(|found| found.id.clone())
                .collect()
        };
        let pause = lock(&self.sandbox).container.clone();
        let alive: Vec<_> = ids
            .into_iter()
            .filter(|id| Some(id) != pause.as_ref())
            .filter_map(|id| self.container(&id))
            .filter(|found| found.known.get().is_some())
            .filter(|found| found.init.pidfd().is_some_and(|pidfd| lives(pidfd)))
            .collect();
        let is_with_its_target = |container: &Container| {
            let known = container.known.get();
            let network = known.map(|known| &known.plan.get(Kind::Network).scope);
            let Some(Scope::Target(name)) = network else {
                return true;
            };
            // Another container of that name has a network of its own.
            named(name, &alive).is_some_and(|target| {
                let own = network_of(container);
                own.is_some() && own == network_of(target)
            })
        };
        let present = alive.iter().filter(|found| is_with_its_target(found));
        present.cloned().collect()
    }

    fn planned_links<'a>(
        &self,
        present: impl Iterator<Item = &'a Known>,
    ) -> Result<Vec<Planned>, Failure> {
        let present: Vec<_> = present
            .map(|known| Present {
                name: &known.name,
                network: &known.plan.get(Kind::Network).scope,
                links: &known.links,
            })
            .collect();
        plan(&present, &self.scope_of_network(), &self.config()?.ceiling)
            .map_err(|error| Failure::invalid(error.to_string()))
    }

    /// Whether the pod's own network is the node's.
    fn scope_of_network(&self) -> Scope {
        let is_node = match self.pause() {
            Some(pause) => pause
                .known
                .get()
                .is_none_or(|known| known.plan.get(Kind::Network).scope == Scope::Node),
            None => {
                lock(&self.record).sandbox_api && self.shared(Kind::Network, &Scope::Pod).is_none()
            }
        };
        if is_node { Scope::Node } else { Scope::Pod }
    }

    /// Outside CRI the pod has a network of its own once somebody needs it.
    async fn make_pods_network(self: &Arc<Self>, planned: &[Planned]) -> Result<(), Failure> {
        let is_an_end = planned.iter().any(|planned| {
            planned.joined.from == Network::Pod || planned.joined.to == Network::Pod
        });
        if is_an_end && self.pause().is_none() && !lock(&self.record).sandbox_api {
            self.make_shared(&[(Kind::Network, Scope::Pod)]).await?;
        }
        Ok(())
    }

    /// The links whose namespaces are there, and these namespaces by inode.
    fn resolved(
        &self,
        planned: &[Planned],
        present: &[Arc<Container>],
    ) -> (AllWanted, HashMap<u64, NetworkNamespace>) {
        let mut known: HashMap<&Network, Option<NetworkNamespace>> = HashMap::new();
        let mut networks = HashMap::new();
        let mut wanted = AllWanted::new();
        for link in planned {
            let mut inode = |network| {
                let found = known
                    .entry(network)
                    .or_insert_with(|| self.network_namespace(network, present))
                    .as_ref()?;
                networks.insert(found.inode, found.clone());
                Some(found.inode)
            };
            if let (Some(from), Some(to)) = (inode(&link.joined.from), inode(&link.joined.to)) {
                let joined = link.joined.clone();
                let owner = Owner {
                    container: link.container.clone(),
                    by: link.by.clone(),
                };
                wanted.insert(Wanted { joined, from, to }, owner);
            }
        }
        (wanted, networks)
    }

    fn network_namespace(
        &self,
        network: &Network,
        present: &[Arc<Container>],
    ) -> Option<NetworkNamespace> {
        let (whose, path, process) = match network {
            Network::Container(name) => {
                let container = named(name, present)?;
                let pidfd = container.init.pidfd()?;
                let path = PathBuf::from(format!("/proc/{}/ns/net", pidfd.pid));
                (format!("container {name}"), path, Some(Arc::clone(pidfd)))
            }
            Network::Group(name) => {
                let path = self.shared(Kind::Network, &Scope::Group(name.clone()))?;
                (format!("group {name}"), path, None)
            }
            Network::Pod => {
                let path = self.shared(Kind::Network, &Scope::Pod)?;
                // Where it is not on record, it is by the pause container's process.
                let pause = self.pause().and_then(|pause| pause.init.pidfd().cloned());
                let process = pause.filter(|_| path.starts_with("/proc"));
                ("the pod".to_owned(), path, process)
            }
        };
        let inode = inode(&path)?;
        // Looked at last: if it lives now, the path was its own when it was read.
        if process.is_some_and(|pidfd| !lives(&pidfd)) {
            return None;
        }
        Some(NetworkNamespace { whose, path, inode })
    }

    async fn end_unwanted(&self, relays: &mut Relays, wanted: &AllWanted) {
        let mut idle = Vec::new();
        for (target, relay) in &mut relays.by_target {
            let mut unwanted = Vec::new();
            for (number, (link, owner)) in &mut relay.carries {
                match wanted.get(link) {
                    // It may be another's now.
                    Some(now) => owner.clone_from(now),
                    None => unwanted.push(*number),
                }
            }
            for number in unwanted {
                relay.drop_link(number);
            }
            if relay.carries.is_empty() || !relay.obeys {
                idle.push(*target);
            }
        }
        for target in idle {
            if let Some(relay) = relays.by_target.remove(&target) {
                self.end_relay(relay).await;
            }
        }
        self.record_links(relays);
    }

    async fn begin_missing(
        self: &Arc<Self>,
        relays: &mut Relays,
        wanted: AllWanted,
        networks: &HashMap<u64, NetworkNamespace>,
    ) -> Vec<Missing> {
        let mut groups: BTreeMap<(u64, u64), Vec<(Wanted, Owner)>> = BTreeMap::new();
        for (link, owner) in wanted {
            let is_carried = relays
                .by_target
                .get(&link.to)
                .is_some_and(|relay| relay.numbers.contains_key(&link));
            if !is_carried {
                let group = groups.entry((link.to, link.from)).or_default();
                group.push((link, owner));
            }
        }
        let mut missing = Vec::new();
        for ((target, _), mut links) in groups {
            links
                .sort_by_key(|(link, _)| (link.joined.port, link.joined.protocol == Protocol::Udp));
            let count = links.len();
            if count > 1
                && self
                    .begin(relays, target, links.clone(), networks)
                    .await
                    .is_ok()
            {
                continue;
            }
            // One by one: a port that is taken must not keep others from being linked.
            for link in links {
                let container = link.1.container.clone();
                if let Err(failure) = self.begin(relays, target, vec![link], networks).await {
                    missing.push(Missing { container, failure });
                }
            }
        }
        missing
    }

    /// Has links carried that lead to one namespace.
    async fn begin(
        self: &Arc<Self>,
        relays: &mut Relays,
        target: u64,
        links: Vec<(Wanted, Owner)>,
        networks: &HashMap<u64, NetworkNamespace>,
    ) -> Result<(), Failure> {
        let Some(network) = networks.get(&target) else {
            return Ok(());
        };
        let mut carries = Numbered::new();
        let mut listen: Vec<Listen> = Vec::new();
        for (link, owner) in links {
            relays.last_link = relays.last_link.wrapping_add(1);
            let port = link.port(relays.last_link);
            let Some(from) = networks.get(&link.from) else {
                continue;
            };
            match listen.iter_mut().find(|listen| listen.network == *from) {
                Some(listen) => listen.ports.push(port),
                None => listen.push(Listen {
                    network: from.clone(),
                    ports: vec![port],
                }),
            }
            carries.insert(relays.last_link, (link, owner));
        }
        let there = relays.by_target.get(&target);
        let control = there.map(|relay| relay.control.get_ref().as_fd().try_clone_to_owned());
        let control = control.transpose().map_err(|error| {
            Failure::internal(format!("cannot hand links to their relay: {error}"))
        })?;
        let (cgroup, driver) = self.pod_cgroup();
        relays.last_relay += 1;
        let job = NewRelay {
            id: format!("{}/{}/{}", self.namespace, self.id, relays.last_relay),
            network: network.clone(),
            listen,
            control,
            cgroup: Some(cgroup).filter(|path| !path.is_empty()),
            driver,
        };
        if there.is_some() {
            let begun = self.jobs.run(Job::Relay(job)).await;
            if let Some(relay) = relays.by_target.get_mut(&target) {
                match &begun {
                    Ok(_) => relay.add(carries),
                    // Some may have reached it before it failed.
                    Err(_) => carries.keys().for_each(|number| relay.drop_link(*number)),
                }
            }
            self.record_links(relays);
            return begun.map(drop);
        }
        let to = carries
            .values()
            .next()
            .map(|(link, _)| link.joined.to.clone());
        let made = MadeAs {
            id: job.id.clone(),
            to: to.unwrap_or(Network::Pod),
            cgroup: job.cgroups_path(),
        };
        // On record first: what is made after a crash of this shim must be found.
        self.record(|record| record.relays.push(made.recorded()));
        let relay = self.make_relay(job, made.clone(), carries).await;
        match relay {
            Ok(relay) => {
                self.watch_relay(target, &relay);
                relays.by_target.insert(target, relay.relay);
                self.record_links(relays);
                Ok(())
            }
            Err(failure) => {
                self.record(|record| record.relays.retain(|found| found.id != made.id));
                Err(failure)
            }
        }
    }

    async fn make_relay(
        &self,
        job: NewRelay,
        made: MadeAs,
        carries: Numbered,
    ) -> Result<Newborn, Failure> {
        let done = self.jobs.run(Job::Relay(job)).await?;
        let (Some(pidfd), Some(control)) = (done.process, done.control) else {
            return Err(Failure::internal("the zygote made no relay"));
        };
        // The zygote has reaped the builder: this process is the parent by now.
        let pid = std::process::id().cast_signed();
        let obeyed = order_now(&control, &Order::Obey(pid)).map_err(io::Error::from);
        let control = obeyed.and_then(|()| readable(control)).map_err(|error| {
            Failure::internal(format!(
                "cannot talk to the relay of the pod's links: {error}"
            ))
        })?;
        let (counted, counts) = channel::channel((0, Vec::new()));
        let (ended, gone) = channel::channel(false);
        let mut relay = Relay {
            made,
            pidfd: Arc::new(pidfd),
            control: Arc::new(control),
            carries: Numbered::new(),
            numbers: HashMap::new(),
            counts,
            gone,
            born: Instant::now(),
            obeys: true,
        };
        relay.add(carries);
        Ok(Newborn {
            relay,
            counted,
            ended,
        })
    }

    /// Listens to a relay, and waits for its end.
    fn watch_relay(self: &Arc<Self>, target: u64, newborn: &Newborn) {
        let Newborn {
            relay,
            counted,
            ended,
        } = newborn;
        let (pod, pidfd) = (Arc::clone(self), Arc::clone(&relay.pidfd));
        let (made, ended) = (relay.made.clone(), ended.clone());
        let listener = tokio::spawn(listen(
            Arc::clone(&relay.control),
            made.to.clone(),
            counted.clone(),
        ));
        tokio::spawn(async move {
            let how = match children::ended(&pidfd).await {
                Ok(how) => how.to_string(),
                Err(error) => format!("cannot be waited for ({error})"),
            };
            listener.abort();
            pod.children.release(pidfd.pid);
            pod.remove_cgroup_of_relay(made.cgroup.clone()).await;
            ended.send_replace(true);
            pod.relay_ended(target, &made, pidfd.pid, &how).await;
        });
    }

    /// A relay has ended: if nobody wanted it to, its links are made anew.
    async fn relay_ended(self: &Arc<Self>, target: u64, made: &MadeAs, pid: i32, how: &str) {
        let wait = {
            let mut relays = self.links.relays.lock().await;
            self.record(|record| record.relays.retain(|found| found.id != made.id));
            let is = |relay: &Relay| relay.pidfd.pid == pid;
            if !relays.by_target.get(&target).is_some_and(is) {
                return;
            }
            let lived = relays
                .by_target
                .remove(&target)
                .map(|relay| relay.born.elapsed());
            relays.deaths = match lived {
                Some(lived) if lived >= WELL => 0,
                _ => relays.deaths.saturating_add(1),
            };
            (FIRST_WAIT * 2u32.saturating_pow(relays.deaths.min(16))).min(LONGEST_WAIT)
        };
        error!(
            "the relay of the links to {}, pid {pid}, {how}: their connections are reset, and they \
             are refused until it is made anew",
            made.to
        );
        self.mend_links(wait).await;
    }

    /// Settles links after a while, and again until that succeeds.
    async fn mend_links(self: &Arc<Self>, mut wait: Duration) {
        sleep(wait).await;
        if self.mended().await || self.links.is_mending.swap(true, Ordering::SeqCst) {
            // All is well, or somebody else tries again.
            return;
        }
        loop {
            wait = (wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
            sleep(wait).await;
            if !self.mended().await {
                continue;
            }
            self.links.is_mending.store(false, Ordering::SeqCst);
            // Who failed just before that has left it to this task.
            if self.mended().await || self.links.is_mending.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Settles links; whether all that are to be are there.
    async fn mended(self: &Arc<Self>) -> bool {
        match self.settle_links().await {
            Ok(missing) => {
                let missing: BTreeSet<String> = missing
                    .iter()
                    .map(|Missing { container, failure }| {
                        format!("a link of container {container} is not there: {failure}")
                    })
                    .collect();
                // Told when it changes, not at each try.
                let before = std::mem::replace(&mut *lock(&self.links.missing), missing.clone());
                for what in missing.difference(&before) {
                    warn!("{what}");
                }
                if missing.is_empty() && !before.is_empty() {
                    info!("all links of pod {} are there again", self.id);
                }
                missing.is_empty()
            }
            Err(failure) => {
                warn!("the links of pod {} are not there: {failure}", self.id);
                false
            }
        }
    }

    async fn end_relay(&self, mut relay: Relay) {
        // ESRCH: it has ended by itself.
        let _ = relay.pidfd.signal(SIGKILL);
        // The watcher is a task of its own and goes on to its end.
        let _ = relay.gone.wait_for(|gone| *gone).await;
        self.record(|record| record.relays.retain(|found| found.id != relay.made.id));
        info!("the links to {} have ended", relay.made.to);
    }

    async fn remove_cgroup_of_relay(&self, path: Option<String>) {
        let Some(path) = path else {
            return;
        };
        let (_, driver) = self.pod_cgroup();
        let removed = blocking(move || Cgroup::named(driver, Some(&path), "relay")?.remove());
        if let Err(error) = removed.await {
            warn!("the cgroup of a relay stays: {error}");
        }
    }

    /// Writes down which relays there are and what they carry.
    fn record_links(&self, relays: &Relays) {
        let mut recorded: Vec<_> = relays.by_target.values().map(Relay::recorded).collect();
        recorded.sort_by(|a, b| a.id.cmp(&b.id));
        if lock(&self.record).relays != recorded {
            self.record(|record| record.relays = recorded);
        }
    }
}

/// A relay, and the ends by which its watchers tell of it.
struct Newborn {
    relay: Relay,
    counted: channel::Sender<(u64, Vec<Counts>)>,
    ended: channel::Sender<bool>,
}

impl MadeAs {
    fn recorded(&self) -> Recorded {
        Recorded {
            id: self.id.clone(),
            process: None,
            to: self.to.clone(),
            cgroup: self.cgroup.clone().unwrap_or_default(),
            links: Vec::new(),
        }
    }
}

impl Relay {
    fn add(&mut self, links: Numbered) {
        let numbered = |(number, (link, _)): (&u32, &(Wanted, Owner))| (link.clone(), *number);
        self.numbers.extend(links.iter().map(numbered));
        self.carries.extend(links);
    }

    fn drop_link(&mut self, number: u32) {
        if let Some((link, _)) = self.carries.remove(&number) {
            self.numbers.remove(&link);
        }
        self.obeys &= order_now(self.control.get_ref(), &Order::Drop(number)).is_ok();
    }

    fn recorded(&self) -> Recorded {
        let pid = self.pidfd.pid;
        Recorded {
            process: start_time(pid)
                .ok()
                .map(|start_time| Process { pid, start_time }),
            links: self.carries.values().map(carried).collect(),
            ..self.made.recorded()
        }
    }
}

impl Wanted {
    fn port(&self, link: u32) -> Port {
        let Joined {
            port,
            exposed,
            protocol,
            to_port,
            ..
        } = self.joined;
        Port {
            link,
            port,
            exposed,
            datagrams: protocol == Protocol::Udp,
            to_port,
        }
    }
}

fn carried((wanted, owner): &(Wanted, Owner)) -> Carried {
    Carried {
        link: wanted.joined.clone(),
        container: owner.container.clone(),
        by: owner.by.clone(),
    }
}

/// Whether a process has not ended.
fn lives(process: &Pidfd) -> bool {
    let mut fds = [PollFd::new(process.fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO) == Ok(0)
}

/// The container of this name: the last one to come, for the name may have been used before.
fn named<'a>(name: &str, containers: &'a [Arc<Container>]) -> Option<&'a Arc<Container>> {
    let is = |found: &&Arc<Container>| found.known.get().is_some_and(|known| known.name == name);
    containers.iter().rev().find(is)
}

/// The network namespace that a container is in, whoever made it.
fn network_of(container: &Container) -> Option<u64> {
    let pid = container.init.pidfd()?.pid;
    inode(&PathBuf::from(format!("/proc/{pid}/ns/net")))
}

fn inode(path: &Path) -> Option<u64> {
    Some(std::fs::metadata(path).ok()?.ino())
}

/// Takes in what a relay tells, until it is told no more.
async fn listen(
    control: Arc<AsyncFd<OwnedFd>>,
    to: Network,
    counted: channel::Sender<(u64, Vec<Counts>)>,
) {
    use std::os::fd::AsRawFd;
    let mut packet = Vec::new();
    let mut counting = Vec::new();
    loop {
        let Ok(mut ready) = control.readable().await else {
            return;
        };
        packet.resize(LONGEST, 0);
        let received = recv(control.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT);
        match received {
            Err(nix::errno::Errno::EAGAIN) => {
                ready.clear_ready();
                // Packets are rare, and long.
                packet = Vec::new();
                continue;
            }
            Ok(length) if length > 0 => {
                match Told::read(packet.get(..length).unwrap_or_default()) {
                    Some(Told::Counts { links, last }) => {
                        // More than one answer's worth is no answer.
                        if counting.len() > usize::from(u16::MAX) {
                            counting.clear();
                        }
                        counting.extend(links);
                        if last {
                            let links = std::mem::take(&mut counting);
                            counted.send_modify(|(turn, counts)| {
                                *turn += 1;
                                *counts = links;
                            });
                        }
                    }
                    Some(Told::Limit { link, limit, times }) => {
                        warn!("link {link} to {to}: {}, {times} times", what(limit));
                        sleep(Duration::from_millis(100)).await;
                    }
                    None => {}
                }
            }
            _ => return,
        }
        sleep(PACE).await;
    }
}

fn what(limit: Limit) -> String {
    match limit {
        Limit::Connections => format!(
            "more than {} connections at once; those beyond are reset",
            husk_relay::MOST_CONNECTIONS
        ),
        Limit::Senders => format!(
            "more than {} senders of datagrams at once; those that were silent longest are forgotten",
            husk_relay::MOST_SENDERS
        ),
        Limit::Resources => {
            "the relay can open no more files, see LimitNOFILE of containerd.service".to_owned()
        }
        Limit::Ports => {
            "all local ports to connect from are in use, see net.ipv4.ip_local_port_range"
                .to_owned()
        }
    }
}
