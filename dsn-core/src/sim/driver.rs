//! The seam of one simulated worker: every call goes to the shared world.

use super::world::World;
use crate::driver::{Accepted, Driver, IoEvent, Park, Sock};
use crate::exec::BlockingJob;
use crate::node::Node;
use crate::time::{Mono, Wall};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};

/// The driver of one worker of one process.
pub(super) struct SimDriver {
    world: Rc<RefCell<World>>,
    node: u16,
    worker: u16,
    of: Weak<Node>,
}

impl SimDriver {
    pub(super) fn new(world: Rc<RefCell<World>>, node: u16, worker: u16, of: &Arc<Node>) -> Self {
        Self { world, node, worker, of: Arc::downgrade(of) }
    }

    /// The world, with the time of a system call charged.
    fn call<R>(&self, f: impl FnOnce(&mut World, u16, u16) -> R) -> R {
        let mut world = self.world.borrow_mut();
        world.charge_syscall(self.node, self.worker);
        f(&mut world, self.node, self.worker)
    }

    /// An error when the process has died in the middle of this turn: nothing it does is seen any more.
    fn alive(&self) -> io::Result<()> {
        if self.world.borrow().nodes[usize::from(self.node)].disk.is_crashed() {
            return Err(io::Error::other("the simulated process has ended"));
        }
        Ok(())
    }
}

impl Driver for SimDriver {
    fn now(&self) -> Mono {
        let mut world = self.world.borrow_mut();
        world.charge_event(self.node, self.worker);
        let at = world.local();
        world.nodes[usize::from(self.node)].clock.mono(at)
    }

    fn wall(&self) -> Wall {
        let world = self.world.borrow();
        world.nodes[usize::from(self.node)].clock.wall(world.local())
    }

    fn poll(&mut self, _park: Park, events: &mut Vec<IoEvent>) -> io::Result<()> {
        // Waiting is the simulation's: it gives the worker a turn when there is something to do.
        self.world.borrow_mut().poll(self.node, self.worker, events);
        Ok(())
    }

    fn listen(&mut self, addr: SocketAddr) -> io::Result<Sock> {
        self.alive()?;
        self.call(|world, node, worker| world.listen(node, worker, addr))
    }

    fn local_addr(&self, sock: Sock) -> io::Result<SocketAddr> {
        self.world.borrow().local_addr(self.node, self.worker, sock)
    }

    fn accept(&mut self, listener: Sock) -> io::Result<Accepted> {
        self.alive()?;
        self.call(|world, node, worker| world.accept(node, worker, listener))
    }

    fn adopt(&mut self, accepted: Accepted) -> io::Result<Sock> {
        self.call(|world, node, worker| world.adopt(node, worker, accepted))
    }

    fn connect(&mut self, addr: SocketAddr) -> io::Result<Sock> {
        self.alive()?;
        self.call(|world, node, worker| world.connect(node, worker, addr))
    }

    fn connect_result(&mut self, sock: Sock) -> io::Result<()> {
        self.call(|world, node, worker| world.connect_result(node, worker, sock))
    }

    fn read(&mut self, sock: Sock, buf: &mut [u8]) -> io::Result<usize> {
        self.call(|world, node, worker| world.read(node, worker, sock, buf))
    }

    fn writev(&mut self, sock: Sock, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.alive()?;
        self.call(|world, node, worker| world.writev(node, worker, sock, bufs))
    }

    fn finish_writing(&mut self, sock: Sock) -> io::Result<()> {
        self.alive()?;
        self.call(|world, node, worker| world.finish_writing(node, worker, sock))
    }

    fn close(&mut self, sock: Sock) {
        if self.alive().is_ok() {
            self.call(|world, node, worker| world.close(node, worker, sock));
        }
    }

    fn offload(&mut self, job: BlockingJob) {
        if self.alive().is_ok()
            && let Some(of) = self.of.upgrade()
        {
            self.world.borrow_mut().offload(self.node, &of, job);
        }
    }
}
