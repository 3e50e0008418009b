//! Makes a relay, the process that carries links, and the sockets that it listens on.
//!
//! A relay lives in the network namespace that its links lead to; the builder, which may, makes the
//! sockets that listen in the namespaces they lead from, and sends them to it. Strangers talk to a
//! relay, so there is nothing in it to be had: an empty root, no environment, no capabilities, one
//! descriptor, and a filter that lets it do what a relay does.
mod filter;

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use husk_relay::protocol::{Order, order};
use libcontainer::capabilities::drop_privileges;
use libcontainer::syscall::syscall::create_syscall;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    socketpair, sockopt,
};
use nix::sys::time::TimeVal;
use nix::unistd::{ForkResult, fork};

use crate::cgroup::{self, Cgroup};
use crate::error::{Doing, JobError, Leftovers};
use crate::job::{Done, Listen, NetworkNamespace, Port, Relay};
use crate::process::Pidfd;
use crate::report::Report;
use crate::{bundle, holder, sys, workload};

/// The descriptor that the relay keeps: its control socket.
const CONTROL: i32 = 3;
/// How long a relay may take to take a link.
const PATIENCE: TimeVal = TimeVal::new(2, 0);
/// Says that the relay is what it is to be.
const READY: &[u8] = b"r";

pub(crate) fn make(job: Relay, report: &Report) -> Result<Done, JobError> {
    report.step("opening network namespaces");
    let target = open(&job.network)?;
    raise_descriptor_limit()?;
    let cgroup = match job.cgroups_path() {
        Some(path) if job.control.is_none() => {
            report.step("making the relay's cgroup");
            Some(Cgroup::make(job.driver, Some(&path), "relay", None)?)
        }
        _ => None,
    };
    report.step("listening in network namespaces");
    let mut links = Vec::new();
    for listener in &job.listen {
        links.extend(listen_in(listener)?);
    }
    let relay = match job.control {
        Some(control) => Made {
            process: None,
            control,
        },
        None => {
            report.step("forking the relay");
            fork_relay(target)?
        }
    };
    let settled = settle(cgroup, &relay, &links);
    if let Err(error) = settled {
        if let Some(process) = &relay.process {
            let _ = process.kill();
        }
        return Err(error);
    }
    Ok(Done {
        // One that was there keeps its own.
        control: relay.process.is_some().then_some(relay.control),
        process: relay.process,
        ..Done::default()
    })
}

/// Undoes the job of a builder that died: the relay has ended by itself, as nobody has the other end of
/// its control socket.
pub(crate) fn undo_orphaned(job: &Relay) -> Leftovers {
    let mut left = Leftovers::default();
    if let Some(path) = job.cgroups_path() {
        let removed =
            Cgroup::named(job.driver, Some(&path), "relay").and_then(|cgroup| cgroup.remove());
        left.note(removed, || format!("remove the relay's cgroup {path}"));
    }
    left
}

struct Made {
    /// None for a relay that was there before.
    process: Option<Pidfd>,
    control: OwnedFd,
}

/// Opens a network namespace that is still the one that was meant, and not the node's.
fn open(network: &NetworkNamespace) -> Result<File, JobError> {
    let NetworkNamespace { whose, path, inode } = network;
    let file = File::open(path).doing(|| format!("open the network namespace of {whose}"))?;
    let found = file
        .metadata()
        .doing(|| format!("look at the network namespace of {whose}"))?;
    let own = std::fs::metadata("/proc/self/ns/net").doing(|| "look at the node's network")?;
    if (found.dev(), found.ino()) == (own.dev(), own.ino()) {
        return Err(JobError::invalid(format!(
            "{whose} is on the node's network, and no link leads there or comes from there"
        )));
    }
    if found.ino() != *inode {
        return Err(JobError::not_found(format!(
            "the network namespace of {whose} is gone: it has ended meanwhile"
        )));
    }
    Ok(file)
}

/// A link needs two descriptors, and each connection two more: as many as the node grants.
fn raise_descriptor_limit() -> Result<(), JobError> {
    let what = || "raise the limit of open files";
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).doing(what)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).doing(what)
}

/// Joins a network namespace and makes there what its links need. The builder stays in it.
fn listen_in(listener: &Listen) -> Result<Vec<Order>, JobError> {
    let Listen { network, ports } = listener;
    let whose = &network.whose;
    setns(open(network)?, CloneFlags::CLONE_NEWNET)
        .doing(|| format!("join the network namespace of {whose}"))?;
    ports
        .iter()
        .map(|port| {
            Ok(Order::Carry {
                link: port.link,
                datagrams: port.datagrams,
                port: port.to_port,
                sockets: sockets(port, whose)?,
            })
        })
        .collect()
}

/// The sockets of one link: of IPv4, and of IPv6 where the namespace has it.
fn sockets(port: &Port, whose: &str) -> Result<Vec<OwnedFd>, JobError> {
    let addresses: [IpAddr; 2] = if port.exposed {
        [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
    } else {
        [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
    };
    let mut sockets = Vec::new();
    for address in addresses {
        match listening(SocketAddr::new(address, port.port), port.datagrams) {
            Ok(socket) => sockets.push(socket),
            Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) if address.is_ipv6() => {}
            Err(errno) => return Err(cannot_listen(port, whose, address, errno)),
        }
    }
    Ok(sockets)
}

fn cannot_listen(port: &Port, whose: &str, address: IpAddr, errno: Errno) -> JobError {
    let protocol = if port.datagrams { "udp" } else { "tcp" };
    let what = format!(
        "listen on {protocol} port {} of {address} in the network of {whose}",
        port.port
    );
    let mut error = JobError::from_errno(errno, what);
    if errno == Errno::EADDRINUSE {
        error.message.push_str(
            "; a program there has the port: let it use another one, or give the link another",
        );
    }
    error
}

fn listening(address: SocketAddr, datagrams: bool) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv6() {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    let kind = if datagrams {
        SockType::Datagram
    } else {
        SockType::Stream
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, kind, flags, None)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    if !datagrams {
        // Connections of an earlier relay may still be in TIME_WAIT. Of datagrams it would let others
        // have the port, too.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    if !datagrams {
        listen(&socket, Backlog::MAXCONN)?;
    }
    Ok(socket)
}

/// Puts the relay into its cgroup and hands the links over.
fn settle(cgroup: Option<cgroup::New>, relay: &Made, links: &[Order]) -> Result<(), JobError> {
    if let (Some(cgroup), Some(process)) = (cgroup, &relay.process) {
        cgroup.adopt(process.pid)?;
    }
    // A relay that is there and stuck must not hold the builder for ever.
    setsockopt(&relay.control, sockopt::SendTimeout, &PATIENCE).doing(|| "talk to the relay")?;
    links
        .iter()
        .try_for_each(|link| order(&relay.control, link))
        .map_err(io::Error::from)
        .doing(|| "hand a link to the relay")
}

fn fork_relay(target: File) -> Result<Made, JobError> {
    let what = || "make the relay's socket";
    let (ours, its) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .doing(what)?;
    let (ready, ready_writer) = io::pipe().doing(|| "make a pipe")?;
    // SAFETY: a builder has one thread, so the child's memory is in no half-changed state.
    let relay = match unsafe { fork() }.doing(|| "fork")? {
        ForkResult::Child => be_the_relay(target, its, ready_writer),
        ForkResult::Parent { child } => child.as_raw(),
    };
    let process = Pidfd::open(relay).doing(|| "open a pidfd for the relay")?;
    drop((its, ready_writer));
    if let Err(error) = read_ready(ready) {
        let _ = process.kill();
        return Err(error);
    }
    Ok(Made {
        process: Some(process),
        control: ours,
    })
}

fn read_ready(mut ready: PipeReader) -> Result<(), JobError> {
    let mut answer = Vec::new();
    ready
        .read_to_end(&mut answer)
        .doing(|| "hear from the relay")?;
    if answer == READY {
        return Ok(());
    }
    Err(serde_json::from_slice(&answer).unwrap_or_else(|_| {
        JobError::failed("the relay has ended before it was ready, and did not say why")
    }))
}

/// In the relay.
fn be_the_relay(target: File, control: OwnedFd, mut ready: PipeWriter) -> ! {
    let control = match become_harmless(target, control, &ready) {
        Ok(control) => control,
        Err(error) => {
            let json = serde_json::to_vec(&error).unwrap_or_default();
            let _ = ready.write_all(&json);
            sys::exit_now(1)
        }
    };
    let said = ready.write_all(READY);
    drop(ready);
    if said.is_err() {
        sys::exit_now(1);
    }
    let ended = husk_relay::run(control);
    // The shim has asked for nothing else; what the kernel refused is the status.
    sys::exit_now(match ended {
        husk_relay::Ended::Abandoned => 0,
        husk_relay::Ended::Failed(_) => 2,
    })
}

/// Gives up all but the control socket and the right to say that it is ready.
fn become_harmless(
    target: File,
    control: OwnedFd,
    ready: &PipeWriter,
) -> Result<OwnedFd, JobError> {
    let what = || "confine the relay";
    setns(target, CloneFlags::CLONE_NEWNET).doing(|| "join the network namespace of the links")?;
    holder::leave_the_node()?;
    prctl::set_name(c"husk-relay").doing(what)?;
    workload::reset_signals();
    // A peer that has gone is an error of the call, not a death.
    sys::ignore(Signal::SIGPIPE).doing(what)?;
    let control = sys::keep_two(control, CONTROL, ready.as_raw_fd()).doing(what)?;
    drop_privileges(&bundle::no_capabilities(), &*create_syscall())
        .map_err(io::Error::other)
        .doing(what)?;
    prctl::set_no_new_privs().doing(what)?;
    // After the capabilities: a change of credentials may set it anew.
    prctl::set_dumpable(false).doing(what)?;
    filter::load().doing(|| "load the relay's system call filter")?;
    Ok(control)
}
