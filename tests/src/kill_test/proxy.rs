//! What stands between servers: each of them is reached through a port of this process, which forwards to where the
//! server listens, and can be told to delay what goes from one server to another, to lose it, or to end connections.
//!
//! Who has opened a connection is asked of the system: the local port leads to a socket (`/proc/net/tcp`), the socket
//! to the process that has it open. Whoever is no server of the cluster is a client.
#![expect(clippy::disallowed_methods, reason = "a test harness lives outside the runtime")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Bytes forwarded at a time.
const CHUNK: usize = 16 << 10;
/// How often a connection that carries nothing is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long connecting to a server may take.
const CONNECT: Duration = Duration::from_secs(2);

/// What happens to bytes from one member of the cluster to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// They come later by this.
    pub delay: Duration,
    /// They vanish. A connection that has lost some is ended when the link heals.
    pub cut: bool,
}

/// Somebody who opens connections: the index of a server, or a client.
type Who = Option<usize>;

#[derive(Debug, Default)]
struct Rules {
    /// By sender and receiver; all others are as good as new.
    links: Vec<((Who, Who), Link)>,
    /// Connections of an earlier generation end.
    generation: u64,
}

#[derive(Debug)]
struct Shared {
    rules: Mutex<Rules>,
    pids: Mutex<Vec<u32>>,
    stop: AtomicBool,
}

/// The ports of a cluster.
#[derive(Debug)]
pub struct Proxy {
    fronts: Vec<u16>,
    shared: Arc<Shared>,
}

impl Shared {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().expect("no thread panics with it")
    }

    fn link(&self, from: Who, to: Who) -> (Link, u64) {
        let rules = self.rules();
        let link = rules.links.iter().find(|(ends, _)| *ends == (from, to));
        (link.map_or(Link::default(), |(_, link)| *link), rules.generation)
    }

    /// The server that has opened the connection from `port`.
    fn who(&self, port: u16, front: u16) -> Who {
        let table = fs::read_to_string("/proc/net/tcp").ok()?;
        let ends = (format!("0100007F:{port:04X}"), format!("0100007F:{front:04X}"));
        let inode = table.lines().find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words.get(1)? == &ends.0 && words.get(2)? == &ends.1).then(|| words.get(9).copied())?
        })?;
        let socket = format!("socket:[{inode}]");
        let pids = self.pids.lock().expect("no thread panics with it").clone();
        pids.iter().position(|pid| {
            let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            let mut open = open.filter_map(|entry| fs::read_link(entry.path()).ok());
            open.any(|target| target.to_string_lossy() == socket)
        })
    }
}

impl Proxy {
    /// Opens a port for each server, by where it listens.
    pub fn start(backs: &[u16]) -> Self {
        let shared = Arc::new(Shared {
            rules: Mutex::default(),
            pids: Mutex::new(vec![0; backs.len()]),
            stop: AtomicBool::new(false),
        });
        let listen = |(index, back): (usize, &u16)| {
            let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
            let front = listener.local_addr().expect("bound").port();
            let (shared, back) = (shared.clone(), *back);
            std::thread::spawn(move || accept(&listener, &shared, index, front, back));
            front
        };
        let fronts = backs.iter().enumerate().map(listen).collect();
        Self { fronts, shared }
    }

    /// Where each server is reached.
    pub fn fronts(&self) -> &[u16] {
        &self.fronts
    }

    /// The process of a server.
    pub fn belongs(&self, server: usize, pid: u32) {
        self.shared.pids.lock().expect("no thread panics with it")[server] = pid;
    }

    /// Sets what happens from one server to another, one way.
    pub fn set(&self, from: usize, to: usize, link: Link) {
        let mut rules = self.shared.rules();
        rules.links.retain(|(ends, _)| *ends != (Some(from), Some(to)));
        rules.links.push(((Some(from), Some(to)), link));
    }

    /// The same for everything from and to a server, the other servers' clients included.
    pub fn set_all(&self, server: usize, link: Link) {
        for other in (0..self.fronts.len()).filter(|other| *other != server) {
            self.set(server, other, link);
            self.set(other, server, link);
        }
    }

    /// All links are good again.
    pub fn heal(&self) {
        self.shared.rules().links.clear();
    }

    /// Ends every connection there is.
    pub fn reset(&self) {
        self.shared.rules().generation += 1;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.reset();
        for front in &self.fronts {
            let _ = TcpStream::connect(("127.0.0.1", *front));
        }
    }
}

/// Takes connections to one server until the proxy is dropped. The port never refuses: only the server itself may.
fn accept(listener: &TcpListener, shared: &Arc<Shared>, to: usize, front: u16, back: u16) {
    for near in listener.incoming().flatten() {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let shared = shared.clone();
        std::thread::spawn(move || {
            let Ok(peer) = near.peer_addr() else { return };
            let from = shared.who(peer.port(), front);
            let back = SocketAddr::from(([127, 0, 0, 1], back));
            let Ok(far) = TcpStream::connect_timeout(&back, CONNECT) else { return };
            let (Ok(near2), Ok(far2)) = (near.try_clone(), far.try_clone()) else { return };
            let there = shared.clone();
            std::thread::spawn(move || forward(&there, (from, Some(to)), near2, far2));
            forward(&shared, (Some(to), from), far, near);
        });
    }
}

/// Forwards one direction of a connection until it ends.
fn forward(shared: &Shared, (from, to): (Who, Who), mut source: TcpStream, mut sink: TcpStream) {
    let (_, born) = shared.link(from, to);
    let mut lost = false;
    let mut chunk = vec![0; CHUNK];
    let _ = source.set_nodelay(true).and(sink.set_nodelay(true));
    let _ = source.set_read_timeout(Some(LOOK));
    loop {
        let read = source.read(&mut chunk);
        let (link, generation) = shared.link(from, to);
        if generation != born || (lost && !link.cut) {
            break;
        }
        let bytes = match read {
            Ok(0) => break,
            Ok(bytes) => bytes,
            Err(error) if is_timeout(&error) => continue,
            Err(_) => break,
        };
        if link.cut {
            lost = true;
            continue;
        }
        std::thread::sleep(link.delay);
        if sink.write_all(&chunk[..bytes]).is_err() {
            break;
        }
    }
    // The end of a connection is no more seen through a cut than anything else.
    while matches!(shared.link(from, to), (Link { cut: true, .. }, now) if now == born) {
        std::thread::sleep(LOOK);
    }
    let _ = source.shutdown(Shutdown::Both);
    let _ = sink.shutdown(Shutdown::Both);
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
