//! Which replicas this server holds: partition to owner and read gate, readable cheaply from every worker.
//!
//! Copy on write: the map changes when a replica opens or closes and is read for every request. Each worker keeps the
//! map it saw last and looks at one number to know whether it is still the newest.

use crate::gate::ReadGate;
use dsn_core::command::{CommandReply, Commands};
use dsn_core::exec::{Addr, Ctx, Resident};
use dsn_core::hash::DetHashMap;
use dsn_rpc::gpid::Gpid;
use parking_lot::{Mutex, RwLock};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Where a replica is.
pub struct Placed<H> {
    /// Its owner.
    pub host: Addr<H>,
    /// Its gate.
    pub gate: Arc<ReadGate>,
}

impl<H> Clone for Placed<H> {
    fn clone(&self) -> Self {
        Self { host: self.host, gate: self.gate.clone() }
    }
}

type Map<H> = DetHashMap<Gpid, Placed<H>>;

struct Shared<H> {
    map: RwLock<Arc<Map<H>>>,
    version: AtomicU64,
    /// Clients are left without an answer.
    denies: AtomicBool,
}

/// The table of one server. Clones share it. `H` is the resident that owns a replica.
pub struct Placement<H> {
    shared: Arc<Shared<H>>,
}

impl<H> Clone for Placement<H> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<H> Default for Placement<H> {
    fn default() -> Self {
        let map = RwLock::new(Arc::new(Map::default()));
        Self {
            shared: Arc::new(Shared {
                map,
                version: AtomicU64::new(1),
                denies: AtomicBool::new(false),
            }),
        }
    }
}

impl<H> fmt::Debug for Placement<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placement").field("replicas", &self.shared.map.read().len()).finish()
    }
}

/// The map a worker saw last.
struct Seen<H> {
    version: u64,
    map: Option<Arc<Map<H>>>,
}

impl<H> Default for Seen<H> {
    fn default() -> Self {
        Self { version: 0, map: None }
    }
}

impl<H: Resident> Placement<H> {
    /// Adds or replaces a replica.
    pub fn insert(&self, gpid: Gpid, placed: Placed<H>) {
        self.change(|map| {
            map.insert(gpid, placed);
        });
    }

    /// Takes a replica out.
    pub fn remove(&self, gpid: Gpid) {
        self.change(|map| {
            map.remove(&gpid);
        });
    }

    fn change(&self, f: impl FnOnce(&mut Map<H>)) {
        let mut guard = self.shared.map.write();
        let mut map = Map::clone(&guard);
        f(&mut map);
        *guard = Arc::new(map);
        self.shared.version.fetch_add(1, Ordering::Release);
    }

    /// From now on clients of this server are left without an answer, whatever they ask for, or not any more.
    pub fn deny_clients(&self, deny: bool) {
        self.shared.denies.store(deny, Ordering::Release);
    }

    /// Whether clients are left without an answer.
    #[inline]
    pub fn denies_clients(&self) -> bool {
        self.shared.denies.load(Ordering::Acquire)
    }

    /// Adds the command `replica.deny-client`, which shows and changes that.
    pub fn add_command(&self, commands: &Commands) {
        let placement = self.clone();
        let help = "Leaves clients of this server without an answer, reads and writes, or shows whether it does.";
        commands.add("replica.deny-client", "[true | false]", help, move |call| {
            CommandReply::done(match call.argument(0) {
                None => placement.denies_clients().to_string(),
                Some(word) => match word.parse() {
                    Ok(deny) => {
                        tracing::warn!(deny, "clients are denied, by command");
                        placement.deny_clients(deny);
                        "OK".to_owned()
                    }
                    Err(_) => format!("ERR: neither true nor false: {word}"),
                },
            })
        });
    }

    /// Every replica, in order.
    pub fn all(&self) -> Vec<(Gpid, Placed<H>)> {
        let map = self.shared.map.read().clone();
        let mut all: Vec<_> = map.iter().map(|(gpid, placed)| (*gpid, placed.clone())).collect();
        all.sort_by_key(|(gpid, _)| (gpid.app_id, gpid.partition_index));
        all
    }

    /// Does `f` with every replica, in no particular order.
    pub fn for_each(&self, mut f: impl FnMut(Gpid, &Placed<H>)) {
        let map = self.shared.map.read().clone();
        map.iter().for_each(|(gpid, placed)| f(*gpid, placed));
    }

    /// Looks a replica up, through this worker's copy.
    #[inline]
    pub fn get(&self, ctx: &mut Ctx<'_>, gpid: Gpid) -> Option<Placed<H>> {
        let version = self.shared.version.load(Ordering::Acquire);
        let seen = ctx.local::<Seen<H>>();
        if seen.version != version {
            // Read before the map: a change in between makes the next look refresh again.
            seen.version = version;
            seen.map = Some(self.shared.map.read().clone());
        }
        seen.map.as_ref()?.get(&gpid).cloned()
    }
}

/// A look at a server's replicas from outside, for whoever watches a simulation. Holds on to nothing: there is nothing
/// to see before the server has started or after its end. Clones show the same.
pub struct Watch<H>(Arc<Mutex<Weak<Shared<H>>>>);

impl<H> Clone for Watch<H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<H> Default for Watch<H> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<H> fmt::Debug for Watch<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.0.lock().strong_count()).finish()
    }
}

impl<H: Resident> Watch<H> {
    /// Shows these replicas from now on.
    pub fn show(&self, placement: &Placement<H>) {
        *self.0.lock() = Arc::downgrade(&placement.shared);
    }

    /// Does `f` with every replica, in no particular order.
    pub fn for_each(&self, f: impl FnMut(Gpid, &Placed<H>)) {
        if let Some(shared) = self.0.lock().upgrade() {
            Placement { shared }.for_each(f);
        }
    }
}
