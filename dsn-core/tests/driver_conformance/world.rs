//! The node that cases run on, natively or simulated, and steps that many of them take.

use crossbeam::channel::{Receiver, Sender, unbounded};
use dsn_core::app::{AppError, AppHost, NativeNode, ServiceApp};
use dsn_core::disk::Disk;
use dsn_core::driver::native::{NativeClock, OsDisk};
use dsn_core::driver::{Accepted, IoEvent, Sock};
use dsn_core::exec::{Addr, Ctx, Place, Resident, WorkerConfig, WorkerId};
use dsn_core::node::{Node, NodeParts};
use dsn_core::sim::{NodeId, NodeSpec, Sim, SimOptions};
use dsn_core::stage::StagePlan;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

dsn_core::task_codes! {
    /// Codes of the cases.
    pub CODES;
    /// A step of a case.
    pub LPC_CASE: Compute, Common, "THREAD_POOL_DEFAULT";
    /// A job of a case.
    pub LPC_CASE_JOB: Blocking, Common, "THREAD_POOL_SCAN";
    /// A job of a case on a pool of one thread.
    pub LPC_CASE_JOB_ALONE: Blocking, Common, "THREAD_POOL_PLOG";
}

/// Seeds of each simulated case, each run twice.
const SEEDS: u64 = 6;
/// How long a case waits for anything, in real or virtual time.
const LIMIT: Duration = Duration::from_secs(20);
/// How long a case waits between two looks.
const LOOK: Duration = Duration::from_micros(200);
/// Sockets that a case may have open on one worker.
const SOCKETS_MAX: u32 = 64;
const WORKERS: u16 = 2;

/// Notes the events of sockets; one on each worker.
pub struct Probe {
    events: Sender<IoEvent>,
}

impl Resident for Probe {
    fn on_io(&mut self, _: &mut Ctx<'_>, event: IoEvent, _: u64) {
        let _ = self.events.send(event);
    }
}

struct Probes {
    events: Vec<Sender<IoEvent>>,
    tell: Sender<Addr<Probe>>,
}

impl ServiceApp for Probes {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        for (index, events) in self.events.drain(..).enumerate() {
            let place = Place::Worker(WorkerId(index as u16));
            let probe = ctx.spawn(place, &LPC_CASE, |_, _| Probe { events });
            let _ = self.tell.send(probe);
        }
        Ok(())
    }
}

enum Inner {
    Native { node: NativeNode, dir: PathBuf },
    Simulated { sim: Box<Sim>, id: NodeId },
}

/// What a case acts on.
pub struct World {
    inner: Inner,
    /// The resident of each worker to which sockets are attached.
    pub probes: Vec<Addr<Probe>>,
    events: Vec<Receiver<IoEvent>>,
    pending: Vec<Vec<IoEvent>>,
    /// The loopback address of the case. Natively no two cases share one, so that none takes another's port.
    pub ip: Ipv4Addr,
    /// Residents that the case has lost on purpose.
    pub lost: u64,
}

/// Which readiness a case waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    Read,
    Write,
}

/// Runs a case on a real node.
pub fn native(name: &str, case: fn(&mut World)) {
    dsn_core::code::register(CODES);
    let dir = std::env::temp_dir().join(format!("dsn-conformance-{name}-{}", std::process::id()));
    let _ = OsDisk.remove_dir_all(&dir);
    OsDisk.create_dir_all(&dir).unwrap();
    let (app, senders) = app();
    let plan = StagePlan::auto(usize::from(WORKERS));
    let pools = plan.pools.clone();
    let node = Node::new(NodeParts {
        name: name.to_owned(),
        role: "case".to_owned(),
        config: None,
        plan,
        worker: WorkerConfig::default(),
        codes: Vec::new(),
        disk: Arc::new(OsDisk),
        seed: 1,
    });
    let factory = Box::new(move || -> Box<dyn ServiceApp> { Box::new(app) });
    let node = NativeNode::start(node.unwrap(), &pools, NativeClock::start(), factory).unwrap();
    let mut world = World::new(Inner::Native { node, dir: dir.clone() }, senders);
    case(&mut world);
    world.close_sockets();
    let World { inner: Inner::Native { node, .. }, lost, .. } = world else { unreachable!() };
    assert_eq!(node.node().poisoned(), lost, "residents lost: {:?}", node.node().first_poisoned());
    assert!(node.shutdown(LIMIT), "an orderly end");
    OsDisk.remove_dir_all(&dir).unwrap();
}

/// Runs a case on a simulated node, each seed twice.
pub fn simulated(case: fn(&mut World)) {
    dsn_core::code::register(CODES);
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let run = || simulate(seed, case);
        assert_eq!(run(), run(), "two runs of one seed are the same run");
    }
}

/// Runs a case with a seed; the hash of everything that happened.
fn simulate(seed: u64, case: fn(&mut World)) -> u64 {
    let options = SimOptions { poison_is_violation: false, ..SimOptions::default() };
    let mut sim = Box::new(Sim::new(seed, options));
    let (app, channels) = app();
    let app = std::cell::RefCell::new(Some(app));
    let make = move || -> Box<dyn ServiceApp> { Box::new(app.borrow_mut().take().unwrap()) };
    let spec = NodeSpec::new("case", [10, 0, 0, 1].into(), usize::from(WORKERS), make);
    let id = sim.add_node(spec);
    sim.start(id).unwrap();
    sim.disk(id).create_dir_all(Path::new("/case")).unwrap();
    let mut world = World::new(Inner::Simulated { sim, id }, channels);
    case(&mut world);
    world.close_sockets();
    let World { inner: Inner::Simulated { mut sim, id }, lost, .. } = world else { unreachable!() };
    let node = sim.node(id).unwrap();
    assert_eq!(node.poisoned(), lost, "residents lost: {:?}", node.first_poisoned());
    sim.finish(LIMIT).unwrap();
    sim.trace_hash()
}

/// A loopback address that follows from a path.
fn own_loopback(path: &Path) -> Ipv4Addr {
    let hash = dsn_core::hash::fnv1a64(path.as_os_str().as_encoded_bytes()).to_le_bytes();
    Ipv4Addr::new(127, hash[0], hash[1], hash[2].clamp(1, 254))
}

struct Channels {
    events: Vec<Receiver<IoEvent>>,
    told: Receiver<Addr<Probe>>,
}

fn app() -> (Probes, Channels) {
    let (tell, told) = unbounded();
    let (senders, events) = (0..WORKERS).map(|_| unbounded()).unzip();
    (Probes { events: senders, tell }, Channels { events, told })
}

impl World {
    fn new(inner: Inner, channels: Channels) -> Self {
        let probes = (0..WORKERS).map(|_| channels.told.recv().unwrap()).collect();
        let pending = channels.events.iter().map(|_| Vec::new()).collect();
        let ip = match &inner {
            Inner::Native { dir, .. } => own_loopback(dir),
            Inner::Simulated { .. } => Ipv4Addr::LOCALHOST,
        };
        Self { inner, probes, events: channels.events, pending, ip, lost: 0 }
    }

    /// Runs `f` as an event on a worker and gives its result.
    pub fn on<R: Send + 'static>(
        &mut self,
        worker: u16,
        f: impl FnOnce(&mut Ctx<'_>) -> R + Send + 'static,
    ) -> R {
        match &mut self.inner {
            Inner::Native { node, .. } => {
                let (tell, told) = unbounded();
                let run = move |ctx: &mut Ctx<'_>| {
                    let _ = tell.send(f(ctx));
                };
                node.handle().run(WorkerId(worker), &LPC_CASE, run).unwrap();
                told.recv_timeout(LIMIT).expect("the step runs and does not panic")
            }
            Inner::Simulated { sim, id } => {
                sim.enter(*id, WorkerId(worker), &LPC_CASE, f).expect("the node runs")
            }
        }
    }

    /// Lets time pass.
    #[expect(clippy::disallowed_methods, reason = "the test's own thread waits")]
    pub fn pass(&mut self, time: Duration) {
        match &mut self.inner {
            Inner::Native { .. } => std::thread::sleep(time),
            Inner::Simulated { sim, .. } => {
                sim.run_for(time);
                assert_eq!(sim.violation(), None);
            }
        }
    }

    /// Waits until `look` finds what the case needs.
    pub fn wait<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        for _ in 0..LIMIT.as_micros() / LOOK.as_micros() {
            if let Some(found) = look(self) {
                return found;
            }
            self.pass(LOOK);
        }
        panic!("waited {LIMIT:?} in vain for {what}");
    }

    /// Waits for a message.
    pub fn receive<T>(&mut self, what: &str, from: &Receiver<T>) -> T {
        self.wait(what, |_| from.try_recv().ok())
    }

    /// Whether time is virtual.
    pub fn is_simulated(&self) -> bool {
        matches!(self.inner, Inner::Simulated { .. })
    }

    /// The node.
    pub fn node(&self) -> Arc<Node> {
        match &self.inner {
            Inner::Native { node, .. } => node.node().clone(),
            Inner::Simulated { sim, id } => sim.node(*id).unwrap().clone(),
        }
    }

    /// The node's files, and a folder in them for the case.
    pub fn disk(&self) -> (Arc<dyn Disk>, PathBuf) {
        match &self.inner {
            Inner::Native { dir, .. } => (Arc::new(OsDisk), dir.clone()),
            Inner::Simulated { sim, id } => (Arc::new(sim.disk(*id)), PathBuf::from("/case")),
        }
    }

    /// Waits for an event of a socket that has not been waited for before. What an edge-triggered poll does not report
    /// is not seen here.
    pub fn event(&mut self, worker: u16, sock: Sock, ready: Ready) {
        let index = usize::from(worker);
        self.wait(&format!("{ready:?} of {sock:?} on worker {worker}"), |world| {
            world.pending[index].extend(world.events[index].try_iter());
            let fits = |event: &IoEvent| {
                let flag = if ready == Ready::Read { event.readable } else { event.writable };
                event.sock == sock && flag
            };
            let found = world.pending[index].iter().position(fits)?;
            world.pending[index].remove(found);
            Some(())
        });
    }

    /// Forgets events that have come so far.
    pub fn forget_events(&mut self) {
        for (pending, events) in self.pending.iter_mut().zip(&self.events) {
            pending.clear();
            events.try_iter().for_each(drop);
        }
    }

    /// Events that came, of any socket of a worker.
    pub fn events_so_far(&mut self, worker: u16) -> Vec<IoEvent> {
        let index = usize::from(worker);
        self.pending[index].extend(self.events[index].try_iter());
        std::mem::take(&mut self.pending[index])
    }

    fn close_sockets(&mut self) {
        for worker in 0..WORKERS {
            self.on(worker, |ctx| (0..SOCKETS_MAX).for_each(|n| ctx.close_socket(Sock(n))));
        }
    }
}

/// Steps with sockets.
impl World {
    /// Listens on a free loopback port.
    pub fn listen(&mut self, worker: u16) -> (Sock, SocketAddr) {
        let (probe, any_port) = (self.probes[usize::from(worker)], SocketAddr::from((self.ip, 0)));
        self.on(worker, move |ctx| {
            let sock = ctx.listen(any_port).unwrap();
            ctx.attach(sock, probe, 0);
            (sock, ctx.local_addr(sock).unwrap())
        })
    }

    /// Begins to connect.
    pub fn start_connect(&mut self, worker: u16, to: SocketAddr) -> Sock {
        let probe = self.probes[usize::from(worker)];
        self.on(worker, move |ctx| {
            let sock = ctx.connect(to).unwrap();
            ctx.attach(sock, probe, 0);
            sock
        })
    }

    /// Waits for the outcome of a connect.
    pub fn connected(&mut self, worker: u16, sock: Sock) -> io::Result<()> {
        loop {
            self.event(worker, sock, Ready::Write);
            match self.on(worker, move |ctx| ctx.connect_result(sock)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
    }

    /// Takes the next connection of a listener.
    pub fn accept(&mut self, worker: u16, listener: Sock) -> Accepted {
        loop {
            match self.on(worker, move |ctx| ctx.accept(listener)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.event(worker, listener, Ready::Read);
                }
                outcome => return outcome.unwrap(),
            }
        }
    }

    /// Makes an accepted connection a worker's.
    pub fn adopt(&mut self, worker: u16, accepted: Accepted) -> Sock {
        let probe = self.probes[usize::from(worker)];
        self.on(worker, move |ctx| {
            let sock = ctx.adopt(accepted).unwrap();
            ctx.attach(sock, probe, 0);
            sock
        })
    }

    /// A connection between two workers; the listener is closed again.
    pub fn pair(&mut self, client: u16, server: u16) -> (Sock, Sock) {
        let (listener, addr) = self.listen(server);
        let near = self.start_connect(client, addr);
        let accepted = self.accept(server, listener);
        let far = self.adopt(server, accepted);
        self.connected(client, near).unwrap();
        self.on(server, move |ctx| ctx.close_socket(listener));
        (near, far)
    }

    /// One read, after waiting as long as it would block.
    pub fn read(&mut self, worker: u16, sock: Sock, room: usize) -> io::Result<Vec<u8>> {
        loop {
            let outcome = self.on(worker, move |ctx| {
                let mut buf = vec![0; room];
                ctx.read(sock, &mut buf).map(|count| buf[..count].to_vec())
            });
            match outcome {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.event(worker, sock, Ready::Read);
                }
                outcome => return outcome,
            }
        }
    }

    /// Exactly so many bytes.
    pub fn read_exact(&mut self, worker: u16, sock: Sock, count: usize) -> Vec<u8> {
        let mut data = Vec::new();
        while data.len() < count {
            let piece = self.read(worker, sock, (count - data.len()).min(100_000)).unwrap();
            assert!(!piece.is_empty(), "the stream ended after {} of {count} bytes", data.len());
            data.extend(piece);
        }
        data
    }

    /// Everything up to the end of the stream, or to an error.
    pub fn read_to_end(&mut self, worker: u16, sock: Sock) -> (Vec<u8>, io::Result<()>) {
        let mut data = Vec::new();
        loop {
            match self.read(worker, sock, 4096) {
                Ok(piece) if piece.is_empty() => return (data, Ok(())),
                Ok(piece) => data.extend(piece),
                Err(error) => return (data, Err(error)),
            }
        }
    }

    /// One write.
    pub fn write(&mut self, worker: u16, sock: Sock, data: &[u8]) -> io::Result<usize> {
        let data = data.to_vec();
        self.on(worker, move |ctx| ctx.writev(sock, &[IoSlice::new(&data)]))
    }

    /// Writes everything, waiting for room where there is none.
    pub fn write_all(&mut self, worker: u16, sock: Sock, mut data: &[u8]) {
        while !data.is_empty() {
            match self.write(worker, sock, data) {
                Ok(count) => data = &data[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.event(worker, sock, Ready::Write);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Closes a socket.
    pub fn close(&mut self, worker: u16, sock: Sock) {
        self.on(worker, move |ctx| ctx.close_socket(sock));
    }
}
