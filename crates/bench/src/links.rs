//! What a link costs: the same traffic by several ways, and what links cost a pod.
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use husk_engine::account::Account;
use husk_engine::netns;
use husk_node::process;
use husk_terminal::messages::say;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};

use crate::bed::Bed;
use crate::candidate::{Candidate, program};
use crate::maker::Maker;
use crate::pod::STAY;
use crate::report::Measured;
use crate::stats::{Quantity, Sample};
use crate::turns::{Rounds, in_turn};

/// How long streams are watched.
const WATCHED: Duration = Duration::from_millis(500);
/// How many round trips, and how many new connections, a round has.
const ROUND_TRIPS: usize = 5_000;
const NEW_CONNECTIONS: usize = 2_000;
/// How many connections are open at once, where there are as many descriptors, and how many of those are
/// left for other things.
const AT_ONCE: usize = 10_000;
const RESERVED: u64 = 300;
/// How much is written and read at once.
const CHUNK: usize = 128 * 1024;
/// How long a program may take to listen.
const PATIENCE: Duration = Duration::from_secs(5);

/// The container whose link is measured, where it is reached in its network, and what is behind it.
const AGENT: &str = "agent";
const LINK: &str = "127.0.0.1:3128";
const TARGET: &str = "127.0.0.1:8080";
/// Where the other ways lead to, each of its own, so that none uses up another's ports.
const DIRECT: &str = "127.0.0.1:8081";
const HAPROXY: [&str; 2] = ["127.0.0.1:3129", "127.0.0.1:8082"];
const SOCAT_PORT: u16 = 3130;
const SOCAT: [&str; 2] = ["127.0.0.1:3130", "127.0.0.1:8083"];
const VETH: [&str; 2] = ["10.253.117.1:3132", "10.253.117.1:8084"];
const VETH_ADDRESSES: [&str; 2] = ["10.253.117.1", "10.253.117.2"];

const TRAFFIC: [(&str, &str); 2] = [
    (
        "links-throughput",
        "bytes through 1 and 16 connections; CPU of both ends and all between them",
    ),
    (
        "links-latency",
        "a round trip of 64 bytes; new connections with a request and an answer",
    ),
];
const IDLE: [(&str, &str); 1] = [(
    "links-idle",
    "idle connections: private memory of what is in between",
)];

/// How many connections can be at once: both ends are in this process, and what is in between has two
/// sockets for each, too.
fn at_once() -> Result<usize> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let each = usize::try_from(limit.saturating_sub(RESERVED) / 2)?;
    Ok(each.min(AT_ONCE))
}

/// husk's shim with the handler whose pods carry the traffic.
pub(crate) fn carrier(bed: &Bed, husk: &Candidate) -> Result<Candidate> {
    configured(bed, husk, "link", &linked(AGENT))
}

/// husk's shim under three handlers: without links; with a link of each container that comes and
/// goes, so that a relay does, too; and with one of the container that stays as well, so that the
/// relay stays. Measures number their containers from 0, and there are at most so many.
pub(crate) fn variants(bed: &Bed, husk: &Candidate, most: usize) -> Result<Vec<Candidate>> {
    let apart = |name: &str| format!("[containers.{name}.scopes]\nnetwork = \"container\"\n");
    let numbers = || (0..=most).map(|number| number.to_string());
    let without: String = numbers().map(|name| apart(&name)).collect();
    let mut with: String = numbers().map(|name| linked(&name)).collect();
    let coming = configured(bed, husk, "links-first", &with)?;
    let _ = write!(with, "{}", linked("stays"));
    Ok(vec![
        configured(bed, husk, "none", &without)?,
        coming,
        configured(bed, husk, "links", &with)?,
    ])
}

/// The configuration of a container that is apart but for a link.
fn linked(name: &str) -> String {
    format!(
        "[containers.{name}.scopes]\nnetwork = \"container\"\n\
         [[containers.{name}.links]]\nto = \"pod\"\nport = 8080\nlocal = 3128\n"
    )
}

fn configured(bed: &Bed, husk: &Candidate, name: &str, text: &str) -> Result<Candidate> {
    let name = format!("{}-{name}", husk.name);
    let path = bed.file(&format!("{name}.toml"));
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(Candidate {
        name,
        config: Some(path),
        ..husk.clone()
    })
}

/// One way to the other end.
struct Way<'a> {
    /// The network that is connected from, and where to.
    from: PathBuf,
    to: SocketAddr,
    /// The other end.
    listener: TcpListener,
    /// Who is in between, and processes there that are not.
    between: Option<(&'a Account, &'a [i32])>,
}

/// The traffic by each way, in turn. The accounts are those of haproxy and of socat.
pub(crate) async fn traffic(
    maker: &Maker<'_>,
    [haproxy, socat]: [&Account; 2],
    rounds: Rounds,
) -> Result<Vec<Measured>> {
    let network = maker.bed.network();
    let mut pod = maker.make("traffic").await?;
    let agent = pod.prepare(AGENT, &STAY)?;
    pod.stay(agent).await?;
    let inits = pod.inits().to_vec();
    let init = inits.first().context("the agent has no process")?;
    let agent = PathBuf::from(format!("/proc/{init}/ns/net"));

    let mut ways = vec![
        (
            "one network",
            Way::new([&network, &network], [DIRECT; 2], None)?,
        ),
        (
            "link",
            Way::new(
                [&agent, &network],
                [LINK, TARGET],
                Some((&maker.account, &inits)),
            )?,
        ),
    ];
    let mut running = Vec::new();
    let far = maker.bed.file("veth");
    match Veth::make(&network, &far) {
        Ok(veth) => {
            let [ruled, plain] = VETH;
            let (name, to) = match lead_to(&far, ruled, plain) {
                Ok(()) => ("veth, DNAT", ruled),
                Err(error) => {
                    say(format_args!(
                        "links: a veth pair without a DNAT rule: {error:#}"
                    ));
                    ("veth", plain)
                }
            };
            ways.push((name, Way::new([&far, &network], [to, plain], None)?));
            running.push(Running::Veth(veth));
        }
        Err(error) => say(format_args!("links: without a veth pair: {error:#}")),
    }
    let haproxy_file = maker.bed.file("haproxy.cfg");
    let programs = [
        (
            "haproxy",
            haproxy,
            HAPROXY,
            vec![String::from("-f"), haproxy_file.display().to_string()],
        ),
        (
            "socat",
            socat,
            SOCAT,
            vec![
                format!(
                    "TCP-LISTEN:{},bind=127.0.0.1,reuseaddr,fork,nodelay",
                    SOCAT_PORT
                ),
                format!("TCP:{},nodelay", SOCAT[1]),
            ],
        ),
    ];
    fs::write(&haproxy_file, haproxy_configuration(at_once()?))?;
    for (name, account, addresses, arguments) in programs {
        let way = Way::new([&network, &network], addresses, Some((account, &[])))?;
        let began = carry(&network, account, name, &arguments).and_then(|child| {
            way.wait()?;
            Ok(child)
        });
        match began {
            Ok(child) => {
                running.push(Running::Program(child));
                ways.push((name, way));
            }
            Err(error) => say(format_args!("links: without {name}: {error:#}")),
        }
    }

    let named = |(name, way)| (String::from(name), way);
    let mut ways: Vec<_> = ways.into_iter().map(named).collect();
    let turn = async |way: &mut Way<'_>| way.carry();
    let mut measured = in_turn(TRAFFIC, &mut ways, rounds, turn).await?;
    // For socat they would be as many processes.
    ways.retain(|(name, _)| name != "socat");
    let once = Rounds {
        warmups: 0,
        counted: 1,
    };
    let turn = async |way: &mut Way<'_>| Ok([way.hold()?]);
    measured.extend(in_turn(IDLE, &mut ways, once, turn).await?);
    drop((ways, running));
    pod.end().await?;
    Ok(measured)
}

impl<'a> Way<'a> {
    /// From one network to another: the addresses that are connected to and listened on.
    fn new(
        [from, there]: [&Path; 2],
        [to, target]: [&str; 2],
        between: Option<(&'a Account, &'a [i32])>,
    ) -> Result<Self> {
        let listener = within(there, || {
            TcpListener::bind(target).with_context(|| format!("listen on {target}"))
        })?;
        Ok(Self {
            from: from.to_owned(),
            to: to.parse()?,
            listener,
            between,
        })
    }

    /// Waits until what is in between listens, too.
    fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.connected(1) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Both ends of so many connections.
    fn connected(&self, count: usize) -> Result<Vec<(TcpStream, TcpStream)>> {
        within(&self.from, || (0..count).map(|_| self.connect()).collect())
    }

    /// Both ends of a connection from the network of this thread.
    fn connect(&self) -> Result<(TcpStream, TcpStream)> {
        let client =
            TcpStream::connect(self.to).with_context(|| format!("connect to {}", self.to))?;
        let (served, _) = self.listener.accept()?;
        for end in [&client, &served] {
            end.set_nodelay(true)?;
        }
        Ok((client, served))
    }

    /// One round of all traffic but idle connections.
    fn carry(&self) -> Result<[Sample; 2]> {
        let before = self.used()?;
        let (one, moved) = throughput(self.connected(1)?)?;
        let (sixteen, more) = throughput(self.connected(16)?)?;
        let used = self.used()?.saturating_sub(before);
        let [p50, p99] = round_trips(self.connected(1)?)?;
        let connections = within(&self.from, || {
            let begun = Instant::now();
            for _ in 0..NEW_CONNECTIONS {
                let (mut client, mut served) = self.connect()?;
                client.write_all(b"?")?;
                served.read_exact(&mut [0])?;
                served.write_all(b"!")?;
                client.read_exact(&mut [0])?;
            }
            Ok(number(NEW_CONNECTIONS) / begun.elapsed().as_secs_f64())
        })?;
        let cpu = used.as_secs_f64() / (number(moved + more) / 1e9);
        Ok([
            vec![
                (Quantity::OneStreamGbS, one),
                (Quantity::SixteenStreamsGbS, sixteen),
                (Quantity::CpuSPerGb, cpu),
            ],
            vec![
                (Quantity::P50Us, p50.as_secs_f64() * 1e6),
                (Quantity::P99Us, p99.as_secs_f64() * 1e6),
                (Quantity::ConnectionsPerS, connections),
            ],
        ])
    }

    /// Many connections at once, and what is held for them.
    fn hold(&self) -> Result<Sample> {
        let before = self.private()?;
        let held = self.connected(at_once()?)?;
        // The last of them are settled by then.
        thread::sleep(Duration::from_millis(200));
        let after = self.private()?;
        for (mut client, mut served) in held.iter().map(|(client, served)| (client, served)) {
            client.write_all(b"?")?;
            served.read_exact(&mut [0])?;
        }
        let mut sample = vec![(Quantity::AtOnce, number(held.len()))];
        if self.between.is_some() {
            let each = number(usize::try_from(after.saturating_sub(before))?) / number(held.len());
            sample.push((Quantity::IdleBytes, each));
        }
        Ok(sample)
    }

    /// Processor time of this process and of all in between, until now.
    fn used(&self) -> Result<Duration> {
        let own = getrusage(UsageWho::RUSAGE_SELF)?;
        let mut used = Duration::ZERO;
        for time in [own.user_time(), own.system_time()] {
            used += Duration::from_secs(u64::try_from(time.tv_sec())?)
                + Duration::from_micros(u64::try_from(time.tv_usec())?);
        }
        if let Some((account, _)) = self.between {
            used += account.used()?;
        }
        Ok(used)
    }

    /// Private memory of all in between, in bytes.
    fn private(&self) -> Result<u64> {
        let Some((account, others)) = self.between else {
            return Ok(0);
        };
        let processes = account.processes()?.into_iter();
        let processes = processes.filter(|pid| !others.contains(pid));
        Ok(processes
            .filter_map(process::memory)
            .map(|memory| memory.private_dirty)
            .sum())
    }
}

/// Bytes per second in billions through all of these together, and how many bytes that were.
fn throughput(pairs: Vec<(TcpStream, TcpStream)>) -> Result<(f64, usize)> {
    let begun = Instant::now();
    let moved = thread::scope(|scope| {
        let readers = pairs.into_iter().map(|(mut client, mut served)| {
            scope.spawn(move || {
                let chunk = vec![1; CHUNK];
                while begun.elapsed() < WATCHED && client.write_all(&chunk).is_ok() {}
            });
            scope.spawn(move || {
                let (mut buffer, mut moved) = (vec![0; CHUNK], 0);
                loop {
                    match served.read(&mut buffer)? {
                        0 => return anyhow::Ok(moved),
                        length => moved += length,
                    }
                }
            })
        });
        let readers: Vec<_> = readers.collect();
        readers.into_iter().map(joined).sum::<Result<usize>>()
    })?;
    ensure!(moved > 0, "nothing came through");
    Ok((number(moved) / 1e9 / begun.elapsed().as_secs_f64(), moved))
}

/// The median of round trips, and the 99th of a hundred.
fn round_trips(pairs: Vec<(TcpStream, TcpStream)>) -> Result<[Duration; 2]> {
    let (mut client, mut served) = pairs.into_iter().next().context("there is no connection")?;
    let mut times = thread::scope(|scope| {
        scope.spawn(move || {
            let mut message = [0; 64];
            while served.read_exact(&mut message).is_ok() && served.write_all(&message).is_ok() {}
        });
        let mut message = [1; 64];
        let times = (0..ROUND_TRIPS).map(|_| {
            let begun = Instant::now();
            client.write_all(&message)?;
            client.read_exact(&mut message)?;
            Ok(begun.elapsed())
        });
        let times = times.collect::<Result<Vec<_>>>();
        drop(client);
        times
    })?;
    times.sort();
    let at = |hundredth: usize| times.get(times.len() * hundredth / 100).copied();
    Ok([at(50).unwrap_or_default(), at(99).unwrap_or_default()])
}

/// Does something in a network namespace. Sockets that it makes stay there.
fn within<T: Send>(network: &Path, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        joined(scope.spawn(|| {
            File::open(network)
                .and_then(netns::enter)
                .with_context(|| format!("enter {}", network.display()))?;
            act()
        }))
    })
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}

#[expect(clippy::cast_precision_loss, reason = "counts of less than 2^53")]
fn number(count: usize) -> f64 {
    count as f64
}

/// What is to be ended after the traffic.
#[expect(dead_code, reason = "they are kept until they are dropped")]
enum Running {
    Program(Program),
    Veth(Veth),
}

/// A program that carries connections; killed when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program in a network, charged to an account.
fn carry(network: &Path, account: &Account, name: &str, arguments: &[String]) -> Result<Program> {
    let path = program(name)?;
    let guest = account.enter()?;
    let spawned = within(network, || {
        let mut command = Command::new(&path);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
            .spawn()
            .with_context(|| format!("run {}", path.display()))
    });
    guest.leave()?;
    Ok(Program(spawned?))
}

/// As many connections as are measured, and nothing but carrying them.
fn haproxy_configuration(most: usize) -> String {
    let [from, to] = HAPROXY;
    format!(
        "global\n  maxconn {}\n  nbthread 1\n  maxpipes 32\ndefaults\n  mode tcp\n  option splice-auto\n  \
         timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         listen links\n  bind {from}\n  server target {to}\n",
        most
    )
}

/// Has connections from a network to one address lead to another, by a rule of netfilter there.
fn lead_to(network: &Path, from: &str, to: &str) -> Result<()> {
    let (address, port) = from.rsplit_once(':').context("an address has a port")?;
    let rules = format!(
        "table ip bench {{\n chain output {{\n  type nat hook output priority -100;\n  \
         ip daddr {address} tcp dport {port} dnat to {to}\n }}\n}}\n"
    );
    let nft = program("nft")?;
    within(network, || {
        let mut child = Command::new(nft)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run nft")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(rules.as_bytes()).context("write to nft")?;
        }
        let output = child.wait_with_output().context("wait for nft")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "nft: {}", said.trim());
        Ok(())
    })
}

/// A veth pair between a network and one made for it, which goes with that.
struct Veth(PathBuf);

impl Veth {
    fn make(near: &Path, far: &Path) -> Result<Self> {
        let ip = program("ip")?;
        netns::create(far)?;
        let veth = Self(far.to_owned());
        let [near_end, far_end] = ["bench0", "bench1"];
        let run = |words: &str| {
            let output = Command::new(&ip).args(words.split(' ')).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "ip {words}: {}", said.trim());
            Ok(())
        };
        let [near_address, far_address] = VETH_ADDRESSES;
        within(far, || {
            let near = near.display();
            run(&format!(
                "link add {far_end} type veth peer name {near_end} netns {near}"
            ))?;
            run(&format!("addr add {far_address}/30 dev {far_end}"))?;
            run(&format!("link set {far_end} up"))
        })?;
        within(near, || {
            run(&format!("addr add {near_address}/30 dev {near_end}"))?;
            run(&format!("link set {near_end} up"))
        })?;
        Ok(veth)
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        if let Err(error) = netns::remove(&self.0) {
            log::warn!("the network namespace {}: {error}", self.0.display());
        }
    }
}
