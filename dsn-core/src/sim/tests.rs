//! The simulator about itself: replay, independence of decisions, what faults do to a small service.
//!
//! The service: every node echoes what it receives and notes it in a file; every node but the first keeps calling the
//! first, reconnecting when a connection fails.

use super::*;
use crate::app::{AppError, AppHost, ServiceApp};
use crate::disk::{File, OpenMode, SyncMode};
use crate::driver::{IoEvent, Sock};
use crate::exec::{Addr, Ctx, Resident};
use std::cell::RefCell;
use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

crate::task_codes! {
    CODES;
    LPC_ECHO: Compute, Common, "THREAD_POOL_DEFAULT";
    LPC_ECHO_SYNC: Blocking, Common, "THREAD_POOL_PLOG";
}

const PORT: u16 = 100;

/// What clients have seen, shared with the test.
#[derive(Default, Debug)]
struct Seen {
    answers: u64,
    failures: u64,
    times: Vec<(u16, Duration)>,
}

struct Server {
    me: Addr<Self>,
    listener: Sock,
    /// Connections, and what each is still to be sent.
    streams: Vec<(Sock, Vec<u8>)>,
    file: Arc<dyn File>,
    written: u64,
}

impl Resident for Server {
    fn on_io(&mut self, ctx: &mut Ctx<'_>, event: IoEvent, token: u64) {
        if event.sock == self.listener {
            while let Ok(accepted) = ctx.accept(self.listener) {
                let sock = ctx.adopt(accepted).unwrap();
                ctx.attach(sock, self.me, 1);
                self.streams.push((sock, Vec::new()));
            }
            return;
        }
        assert_eq!(token, 1);
        let mut buf = [0; 512];
        loop {
            match ctx.read(event.sock, &mut buf) {
                Ok(0) => return self.drop_stream(ctx, event.sock),
                Ok(count) => {
                    let noted = self.file.write_at(self.written, &[buf[..count].to_vec().into()]);
                    if noted.is_ok() {
                        self.written += count as u64;
                    }
                    if let Some((_, out)) = self.streams.iter_mut().find(|s| s.0 == event.sock) {
                        out.extend_from_slice(&buf[..count]);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.flush(ctx, event.sock);
                }
                Err(_) => return self.drop_stream(ctx, event.sock),
            }
        }
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_>) {
        for (sock, _) in self.streams.drain(..) {
            ctx.close_socket(sock);
        }
        ctx.close_socket(self.listener);
    }
}

impl Server {
    fn drop_stream(&mut self, ctx: &mut Ctx<'_>, sock: Sock) {
        self.streams.retain(|(known, _)| *known != sock);
        ctx.close_socket(sock);
    }

    fn flush(&mut self, ctx: &mut Ctx<'_>, sock: Sock) {
        let Some((_, out)) = self.streams.iter_mut().find(|s| s.0 == sock) else { return };
        while !out.is_empty() {
            match ctx.writev(sock, &[IoSlice::new(out)]) {
                Ok(count) => drop(out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.drop_stream(ctx, sock),
            }
        }
    }

    fn sync(&mut self, ctx: &mut Ctx<'_>) {
        let file = self.file.clone();
        let me = self.me;
        ctx.offload(
            &LPC_ECHO_SYNC,
            move |_| file.sync(SyncMode::Data).is_ok(),
            me,
            |server, done, ctx| {
                ctx.trace(u64::from(done));
                let me = server.me;
                ctx.after(me, &LPC_ECHO, Duration::from_millis(20), Self::sync);
            },
        );
    }
}

struct Caller {
    me: Addr<Self>,
    node: u16,
    server: SocketAddr,
    sock: Option<Sock>,
    waiting: usize,
    seen: Rc<RefCell<Seen>>,
}

impl Caller {
    fn connect(&mut self, ctx: &mut Ctx<'_>) {
        if let Ok(sock) = ctx.connect(self.server) {
            ctx.attach(sock, self.me, 0);
            self.sock = Some(sock);
        }
    }

    fn fail(&mut self, ctx: &mut Ctx<'_>) {
        self.seen.borrow_mut().failures += 1;
        if let Some(sock) = self.sock.take() {
            ctx.close_socket(sock);
        }
        self.waiting = 0;
    }

    fn tick(&mut self, ctx: &mut Ctx<'_>) {
        match self.sock {
            None => self.connect(ctx),
            Some(sock) if self.waiting == 0 => {
                match ctx.writev(sock, &[IoSlice::new(b"hello there")]) {
                    Ok(count) => self.waiting = count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => self.fail(ctx),
                }
            }
            Some(_) => {}
        }
    }
}

impl Resident for Caller {
    fn on_io(&mut self, ctx: &mut Ctx<'_>, event: IoEvent, _: u64) {
        if event.writable
            && ctx.connect_result(event.sock).is_err_and(|e| e.kind() != ErrorKind::WouldBlock)
        {
            return self.fail(ctx);
        }
        let mut buf = [0; 64];
        loop {
            match ctx.read(event.sock, &mut buf) {
                Ok(0) => return self.fail(ctx),
                Ok(count) => {
                    self.waiting -= count;
                    if self.waiting == 0 {
                        let mut seen = self.seen.borrow_mut();
                        seen.answers += 1;
                        seen.times.push((self.node, Duration::from_nanos(ctx.now().nanos())));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.fail(ctx),
            }
        }
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(sock) = self.sock.take() {
            ctx.close_socket(sock);
        }
    }
}

struct Echo {
    node: u16,
    seen: Rc<RefCell<Seen>>,
}

fn ip(node: u16) -> std::net::IpAddr {
    [10, 0, 0, node as u8 + 1].into()
}

impl ServiceApp for Echo {
    fn start(&mut self, ctx: &mut Ctx<'_>, _: Addr<AppHost>) -> Result<(), AppError> {
        if self.node == 0 {
            let file = ctx.disk().open(Path::new("/notes"), OpenMode::ReadWrite)?;
            let written = file.len()?;
            let listener = ctx.listen(SocketAddr::new(ip(0), PORT))?;
            let server = ctx.spawn_here(|ctx, me| {
                ctx.attach(listener, me, 0);
                Server { me, listener, streams: Vec::new(), file, written }
            });
            ctx.after(server, &LPC_ECHO, Duration::from_millis(1), Server::sync);
        } else {
            let (node, seen) = (self.node, self.seen.clone());
            let caller = ctx.spawn_here(|_, me| Caller {
                me,
                node,
                server: SocketAddr::new(ip(0), PORT),
                sock: None,
                waiting: 0,
                seen,
            });
            ctx.every(caller, &LPC_ECHO, Duration::from_millis(10), Caller::tick);
        }
        Ok(())
    }
}

fn world(seed: u64, options: SimOptions) -> (Sim, Vec<NodeId>, Rc<RefCell<Seen>>) {
    crate::code::register(CODES);
    let seen: Rc<RefCell<Seen>> = Rc::default();
    let mut sim = Sim::new(seed, options);
    let ids = (0..3)
        .map(|node| {
            let seen = seen.clone();
            let id = sim.add_node(NodeSpec::new(&format!("n{node}"), ip(node), 2, move || {
                Box::new(Echo { node, seen: seen.clone() })
            }));
            sim.start(id).unwrap();
            id
        })
        .collect();
    (sim, ids, seen)
}

fn logged() -> SimOptions {
    SimOptions { step_log: true, ..SimOptions::default() }
}

#[test]
fn a_service_runs_and_ends_cleanly() {
    let (mut sim, _, seen) = world(1, SimOptions::default());
    assert_eq!(sim.run_for(Duration::from_secs(10)), Outcome::TimedOut);
    sim.finish(Duration::from_secs(5)).unwrap();
    let seen = seen.borrow();
    // Two callers, one call per 10 to 20 ms each.
    assert!((900..2000).contains(&seen.answers), "{}", seen.answers);
    assert_eq!(seen.failures, 0);
}

/// A run with a bit of everything, by hand.
fn rough(seed: u64, with_reset: bool) -> (Sim, Rc<RefCell<Seen>>) {
    let (mut sim, ids, seen) = world(seed, logged());
    let (server, one, two) = (ids[0], ids[1], ids[2]);
    if with_reset {
        sim.at(Duration::from_millis(2_500), move |sim| {
            assert!(sim.reset_connections(server, one, 100) > 0);
        });
    }
    sim.at(Duration::from_secs(3), move |sim| {
        let cut = sim.partition(&[server], &[two]);
        sim.after(Duration::from_secs(2), move |sim| sim.mend(cut));
    });
    sim.at(Duration::from_secs(6), move |sim| {
        sim.crash_after(server, 5, true, Some(Duration::from_secs(1)));
    });
    sim.at(Duration::from_secs(9), move |sim| sim.pause(server));
    sim.at(Duration::from_secs(10), move |sim| sim.resume(server));
    sim.at(Duration::from_secs(11), move |sim| {
        sim.kill(server);
        sim.restart_after(server, Duration::from_millis(300));
    });
    sim.run_for(Duration::from_secs(15));
    (sim, seen)
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..10 {
        println!("seed {seed}");
        let (left, seen) = rough(seed, true);
        let (right, _) = rough(seed, true);
        let difference = first_difference(&left.step_log(), &right.step_log());
        assert!(difference.is_none(), "{}", difference.unwrap());
        assert_eq!(left.trace_hash(), right.trace_hash());
        assert_eq!(left.violation(), None);
        let seen = seen.borrow();
        assert!(seen.failures > 2, "faults were felt: {} failures", seen.failures);
        let last = seen.times.iter().filter(|(_, at)| at.as_secs() > 13).count();
        assert!(last > 50, "both recovered: {last} answers in the last seconds");
    }
    assert_ne!(rough(1, true).0.trace_hash(), rough(2, true).0.trace_hash());
}

#[test]
fn taking_one_fault_away_moves_nothing_that_does_not_depend_on_it() {
    let others = |with_reset| {
        let (_, seen) = rough(7, with_reset);
        let times = seen.borrow().times.clone();
        let of = |node| -> Vec<Duration> {
            times.iter().filter(|(n, at)| *n == node && at.as_secs() < 7).map(|t| t.1).collect()
        };
        (of(1), of(2))
    };
    let (with, without) = (others(true), others(false));
    assert_ne!(with.0, without.0, "node 1 lost its connection");
    let same = with.1.iter().zip(&without.1).take_while(|(a, b)| a == b).count();
    // They share a server, whose queue may shift an answer; most stay where they were.
    let close = with.1.iter().filter(|at| without.1.contains(at)).count();
    assert!(same > 50 && close * 10 > with.1.len() * 5, "{same} {close} of {}", with.1.len());
}

#[test]
fn speed_of_a_small_cluster() {
    let (mut sim, _, seen) = world(1, SimOptions::default());
    sim.run_for(Duration::from_secs(200));
    assert!(seen.borrow().answers > 10_000);
    println!("{} steps for 200 s", sim.steps());
}
