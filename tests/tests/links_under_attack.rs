//! What hostile ends make of a link, and what a dying relay or shim makes of those that are used.
//!
//! Whatever it is, it harms no other connection, leaves nothing in the relay, and the shim answers
//! meanwhile.
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use husk_tests::command::{poll, until};
use husk_tests::containerd::Containerd;
use husk_tests::cri::{Mode, Pod};
use husk_tests::network::{connect, listen, talk, within};
use husk_tests::process::{is_alive, shims};
use nix::libc::linger;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;
use nix::unistd::Pid;

use crate::links::{LINK, PROXY, failure, relays};

in_both_modes!(
    many_connections_leave_nothing_in_the_relay,
    a_target_that_never_reads_holds_up_nobody,
    ends_and_resets_are_passed_on,
    datagrams_of_any_content_do_no_harm,
    a_thousand_links_lead_to_a_thousand_ports,
    a_port_that_is_bound_anew_is_reached_anew,
    a_network_without_free_ports_resets_and_recovers,
    a_relay_that_is_killed_under_load_is_made_anew,
    a_shim_that_is_killed_under_load_leaves_nothing
);

/// As much as a shim may take to answer while its relays are flooded, on a slow guest's one processor.
const AT_ONCE: Duration = Duration::from_secs(5);

#[track_caller]
fn answers_at_once(pod: &Pod<'_>) {
    let asked = Instant::now();
    pod.status().unwrap();
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
}

/// Descriptors of the pod's relays, and their private memory in KiB.
fn held(pod: &Pod<'_>) -> (usize, u64) {
    let of = |relay: Pid| {
        let descriptors = fs::read_dir(format!("/proc/{relay}/fd")).unwrap().count();
        let rollup = fs::read_to_string(format!("/proc/{relay}/smaps_rollup")).unwrap();
        let line = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Private_Dirty:"));
        let memory = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        (descriptors, memory.unwrap_or(0))
    };
    let each = relays(pod).into_iter().map(of);
    each.fold((0, 0), |sum: (usize, u64), one| {
        (sum.0 + one.0, sum.1 + one.1)
    })
}

/// Nothing is held that was not before; memory may have grown by what a relay keeps for next time.
#[track_caller]
fn assert_held_as(pod: &Pod<'_>, before: (usize, u64)) {
    let mut now = (0, 0);
    let same = poll(Duration::from_secs(10), || {
        now = held(pod);
        (now.0 <= before.0 && now.1 <= before.1 + 512).then_some(())
    });
    assert!(same.is_some(), "{before:?} {now:?}");
}

/// Accepts until told to end, and gives each connection to `serve` on a thread of its own.
fn serve_until(listener: &TcpListener, end: &AtomicBool, serve: impl Fn(TcpStream) + Sync) {
    listener.set_nonblocking(true).unwrap();
    thread::scope(|scope| {
        while !end.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    let serve = &serve;
                    scope.spawn(move || serve(stream));
                }
                Err(_) => thread::sleep(Duration::from_micros(200)),
            }
        }
    });
    listener.set_nonblocking(false).unwrap();
}

/// Ends what runs beside a test, however the test ends.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn many_connections_leave_nothing_in_the_relay(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    let listener = listen(proxy.pid(), PROXY);
    talk(connect(agent.pid(), LINK).unwrap(), &listener).unwrap();
    let before = held(&pod);
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = End(&end);
        scope.spawn(|| {
            listener.set_nonblocking(true).unwrap();
            while !end.load(Ordering::Relaxed) {
                if listener.accept().is_err() {
                    thread::sleep(Duration::from_micros(100));
                }
            }
            listener.set_nonblocking(false).unwrap();
        });
        let began = Instant::now();
        let mut connections = 0;
        // As many on an ordinary machine; a guest is ten times slower.
        while connections < 50_000 && began.elapsed() < Duration::from_secs(15) {
            within(agent.pid(), || {
                for _ in 0..1000 {
                    let stream = match TcpStream::connect(LINK) {
                        Ok(stream) => stream,
                        // More at once than a link carries, on one processor.
                        Err(error) if error.kind() == ErrorKind::ConnectionReset => continue,
                        Err(error) => panic!("{error}"),
                    };
                    // Ended by a reset, it keeps no port: there are not that many.
                    let at_once = linger {
                        l_onoff: 1,
                        l_linger: 0,
                    };
                    setsockopt(&stream, Linger, &at_once).unwrap();
                    connections += 1;
                }
            });
            answers_at_once(&pod);
        }
        assert!(connections > 1000, "{connections}");
        assert_held_as(&pod, before);
    });
    let mut client = connect(agent.pid(), LINK).unwrap();
    client.write_all(b"ping").unwrap();
    let mut four = [0; 4];
    // The last of the flood may still come, on one processor: they have nothing to say.
    while listener.accept().unwrap().0.read_exact(&mut four).is_err() {}
    assert_eq!(&four, b"ping");
}

fn a_target_that_never_reads_holds_up_nobody(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    let listener = listen(proxy.pid(), PROXY);
    let mut stuck = connect(agent.pid(), LINK).unwrap();
    let (never_reads, _) = listener.accept().unwrap();
    stuck
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let part = [7; 64 * 1024];
    let mut written = 0;
    while let Ok(length) = stuck.write(&part) {
        written += length;
        // Buffers of two connections and a pipe; without back-pressure it would never end.
        assert!(
            written < 64 << 20,
            "the relay takes {written} bytes that nobody reads"
        );
    }
    let began = Instant::now();
    for _ in 0..100 {
        talk(connect(agent.pid(), LINK).unwrap(), &listener).unwrap();
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    answers_at_once(&pod);
    drop(never_reads);
}

fn ends_and_resets_are_passed_on(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    let listener = listen(proxy.pid(), PROXY);

    let mut client = connect(agent.pid(), LINK).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"all there is").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    server.read_to_string(&mut said).unwrap();
    assert_eq!(said, "all there is");
    server.write_all(b"thanks").unwrap();
    drop(server);
    said.clear();
    client.read_to_string(&mut said).unwrap();
    assert_eq!(said, "thanks", "the other half was open");

    let mut client = connect(agent.pid(), LINK).unwrap();
    let (server, _) = listener.accept().unwrap();
    client.write_all(b"unread").unwrap();
    until("it has come", || {
        server.peek(&mut [0; 6]).is_ok_and(|length| length == 6)
    });
    // Closed with something unread, a connection is reset: tcp(7).
    drop(server);
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

fn datagrams_of_any_content_do_no_harm(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    let before = relays(&pod);
    // More senders than a link has room for, first to nobody, then to a server that never reads.
    let mut server = None;
    for _ in 0..2 {
        within(agent.pid(), || {
            let mut random: u32 = 1;
            for _ in 0..1500 {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                for _ in 0..4 {
                    // A generator of Marsaglia's: what matters is that lengths and bytes differ.
                    random ^= random << 13;
                    random ^= random >> 17;
                    random ^= random << 5;
                    let length = usize::try_from(random % 1600).unwrap();
                    let bytes: Vec<u8> =
                        (0..length).map(|at| random.to_ne_bytes()[at % 4]).collect();
                    let _ = socket.send_to(&bytes, "127.0.0.1:53");
                }
            }
        });
        answers_at_once(&pod);
        server.get_or_insert_with(|| {
            within(proxy.pid(), || UdpSocket::bind("127.0.0.1:5353")).unwrap()
        });
    }
    let server = server.unwrap();
    server.set_nonblocking(true).unwrap();
    let client = within(agent.pid(), || UdpSocket::bind("127.0.0.1:0")).unwrap();
    client
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    until("a question is answered", || {
        let _ = client.send_to(b"question", "127.0.0.1:53");
        let mut buffer = [0; 2000];
        while let Ok((length, from)) = server.recv_from(&mut buffer) {
            if &buffer[..length] == b"question" {
                server.send_to(b"answer", from).unwrap();
            }
        }
        client
            .recv(&mut buffer)
            .is_ok_and(|length| &buffer[..length] == b"answer")
    });
    assert_eq!(relays(&pod), before, "the same relays");
}

fn a_thousand_links_lead_to_a_thousand_ports(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links-thousand", mode).run();
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    answers_at_once(&pod);
    for at in [0, 1, 499, 998, 999] {
        let listener = listen(proxy.pid(), ("127.0.0.1", 20000 + at));
        let client = connect(agent.pid(), ("127.0.0.1", 10000 + at)).unwrap();
        talk(client, &listener).unwrap();
    }
    let kind = failure(agent.pid(), "127.0.0.1:11000");
    assert_eq!(kind, ErrorKind::ConnectionRefused);
}

fn a_port_that_is_bound_anew_is_reached_anew(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    for _ in 0..30 {
        let listener = listen(proxy.pid(), PROXY);
        talk(connect(agent.pid(), LINK).unwrap(), &listener).unwrap();
        drop(listener);
        assert_eq!(failure(agent.pid(), LINK), ErrorKind::ConnectionReset);
    }
}

fn a_network_without_free_ports_resets_and_recovers(mode: Mode) {
    const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    let listener = listen(proxy.pid(), PROXY);
    let usual = within(proxy.pid(), || fs::read_to_string(RANGE)).unwrap();
    within(proxy.pid(), || fs::write(RANGE, "40000 40009")).unwrap();
    let mut held = Vec::new();
    let refused = poll(Duration::from_secs(20), || {
        // The reset may be there before the connection is told.
        let Ok(mut client) = connect(agent.pid(), LINK) else {
            return Some(());
        };
        client
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let kind = client.read(&mut [0]).unwrap_err().kind();
        held.push(client);
        (kind == ErrorKind::ConnectionReset).then_some(())
    });
    assert!(refused.is_some(), "{} connections by ten ports", held.len());
    answers_at_once(&pod);
    within(proxy.pid(), || fs::write(RANGE, usual)).unwrap();
    // Those that were made wait to be accepted first.
    listener.set_nonblocking(true).unwrap();
    while listener.accept().is_ok() {}
    listener.set_nonblocking(false).unwrap();
    talk(connect(agent.pid(), LINK).unwrap(), &listener).unwrap();
}

/// Has connections carry as much as they can while something is done.
fn under_load(proxy: Pid, agent: Pid, done: impl FnOnce()) {
    let listener = listen(proxy, PROXY);
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = End(&end);
        scope.spawn(|| {
            serve_until(&listener, &end, |mut stream| {
                let mut part = [0; 64 * 1024];
                while stream.read(&mut part).is_ok_and(|length| length > 0) {}
            });
        });
        let mut clients: Vec<_> = (0..4).map(|_| connect(agent, LINK).unwrap()).collect();
        for client in &mut clients {
            let mut client = client.try_clone().unwrap();
            client
                .set_write_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            scope.spawn(move || while client.write_all(&[7; 64 * 1024]).is_ok() {});
        }
        thread::sleep(Duration::from_millis(200));
        done();
        for client in clients {
            let _ = client.shutdown(Shutdown::Both);
        }
    });
}

fn a_relay_that_is_killed_under_load_is_made_anew(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    for _ in 0..2 {
        let before = relays(&pod);
        under_load(proxy.pid(), agent.pid(), || {
            answers_at_once(&pod);
            for relay in &before {
                kill(*relay, Signal::SIGKILL).unwrap();
            }
            answers_at_once(&pod);
        });
        until("the relays are made anew", || {
            let now = relays(&pod);
            let new = |relay: &Pid| is_alive(*relay) && !before.contains(relay);
            now.len() == before.len() && now.iter().all(new)
        });
        let listener = listen(proxy.pid(), PROXY);
        talk(connect(agent.pid(), LINK).unwrap(), &listener).unwrap();
    }
}

/// The drop of the pod counts what is left.
fn a_shim_that_is_killed_under_load_leaves_nothing(mode: Mode) {
    let containerd = Containerd::of_the_suite();
    let cri = containerd.cri();
    let pod = cri.pod_of("links", mode).run();
    let (proxy, agent) = (pod.sleeper("proxy"), pod.sleeper("agent"));
    let relays = relays(&pod);
    under_load(proxy.pid(), agent.pid(), || {
        for shim in shims(&pod.ids()) {
            kill(shim, Signal::SIGKILL).unwrap();
        }
        until("the relays have ended", || {
            relays.iter().all(|relay| !is_alive(*relay))
        });
    });
}
