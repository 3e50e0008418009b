//! The network of a container, from the outside.
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;

/// Does something in the network namespace of a process. Sockets that it makes stay there.
///
/// # Panics
/// The process is gone, or `act` panics.
pub fn within<T: Send>(process: Pid, act: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/proc/{process}/ns/net")).expect("a network namespace");
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            // Only this thread's, which ends here.
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("join a network namespace");
            act()
        });
        inside.join().expect("the thread in the network namespace")
    })
}

/// Connects in the network of a process.
///
/// # Errors
/// What connect(2) says.
pub fn connect(process: Pid, address: impl ToSocketAddrs + Send) -> std::io::Result<TcpStream> {
    let stream = within(process, || TcpStream::connect(address))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

/// Listens in the network of a process.
///
/// # Panics
/// The port is taken.
#[must_use]
pub fn listen(process: Pid, address: impl ToSocketAddrs + Send) -> TcpListener {
    within(process, || TcpListener::bind(address)).expect("listen")
}

/// Whether what is written at one end comes out of the other, both ways.
///
/// # Errors
/// What the kernel says at the client's end.
///
/// # Panics
/// The listener does not get what the client wrote.
pub fn talk(mut client: TcpStream, listener: &TcpListener) -> std::io::Result<()> {
    client.write_all(b"ping")?;
    let (mut served, _) = listener.accept()?;
    let mut four = [0; 4];
    served.read_exact(&mut four).expect("what the client wrote");
    assert_eq!(&four, b"ping");
    served.write_all(b"pong").expect("an answer");
    client.read_exact(&mut four)
}
