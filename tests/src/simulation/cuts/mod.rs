//! Every place where a server can die: fixed stories are told once for each change of a disk, and cut right after it.
//!
//! One story has one replica server: it makes tables, writes until the log changes its files, lets checkpoints be made
//! and log files be given back, drops a table, stops the server in an orderly way and starts it again. The other has a
//! group of three: a member is away and is fed from the log, is away again and copies a checkpoint, and once more with
//! an empty disk; then the primary is killed while writes are under way, so that a secondary takes over.
//!
//! One run without a cut counts the changes of each disk; then the story is told again for each of them, the server
//! dies there (its process, or the power with it), comes back half a second later, and the story goes on. The story of
//! one server is told a second time for each change, with another death a few changes later, mostly while the server
//! recovers. That of the group is told once for each: in turn so, with nothing more, or with the death of all its
//! servers, for what one of them loses the others would have. In the end everything acknowledged must be there, every
//! table must be what it was said to be, every group must be whole and its members equal, and nothing may have been
//! put aside; and who dies as a member must have its replica on its disk.

mod story;
mod teller;

pub use story::Scene;

use super::members::{self, Members};
use super::shape::{
    HEAL_LIMIT, STOP_LIMIT, Servers, Shape, add_servers, client_ip, durability, quarantined,
    register_codes,
};
use super::{LOOK_INTERVAL, become_whole};
use dsn_core::sim::{NodeId, NodeSpec, Outcome, Sim, StepKind};
use dsn_replication::options::LogDurability;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use story::{Act, Part, Story};
use teller::{CODES, TellerApp, Told};

/// From a death to the next start.
const DOWN: Duration = Duration::from_millis(500);
/// Seeds of the stories, at least one for each durability, see [`durability`]. What a power loss leaves differs by
/// seed.
const SEEDS: [u64; 3] = [2, 3, 5];

/// Where a server dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The meta server.
    Meta,
    /// The only replica server.
    Replica,
    /// Of a group: who is primary when the first member is lost.
    Source,
    /// The member that is lost and learned again.
    Learner,
    /// The other one.
    Secondary,
}

impl Victim {
    /// Of the story of one server.
    pub const ALONE: [Self; 2] = [Self::Meta, Self::Replica];
    /// Of the story of a group.
    pub const GROUP: [Self; 3] = [Self::Source, Self::Learner, Self::Secondary];

    fn story(self) -> Story {
        match self {
            Self::Meta | Self::Replica => Story::Alone,
            Self::Source | Self::Learner | Self::Secondary => Story::Group,
        }
    }
}

/// What follows a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It comes back.
    Nothing,
    /// It dies again after so many changes of its recovery.
    Again(u64),
    /// All replica servers die with it: nobody has in memory what it loses.
    All,
}

/// One telling of a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Seed of the telling; says what acknowledgements rest on.
    pub seed: u64,
    /// Who dies, and thereby which story.
    pub victim: Victim,
    /// After which change of its disk; of a group, since its first member is lost.
    pub step: u64,
    /// Whether the power fails with it.
    pub power: bool,
    /// And what then.
    pub then: Then,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, victim, step, power, then } = self;
        let how = if *power { "power" } else { "kill" };
        write!(f, "seed {seed}, {victim:?}, {how} after change {step}")?;
        match then {
            Then::Nothing => Ok(()),
            Then::Again(steps) => write!(f, ", again after {steps} more"),
            Then::All => write!(f, ", the others with it"),
        }
    }
}

/// A change of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What was being told.
    pub scene: Scene,
    /// What it was.
    pub kind: StepKind,
    /// Of what.
    pub path: String,
}

/// Who is going to die.
struct Doom {
    id: NodeId,
    power: bool,
    /// After which change of its disk, counted from the first ever; nothing when there is no more to come.
    at: Option<u64>,
    then: Then,
    /// How often it has died already.
    deaths: u32,
}

struct Stage {
    sim: Sim,
    servers: Servers,
    shape: Shape,
    story: Story,
    told: Arc<Told>,
    /// Of a group: source, learner and secondary, once they are cast.
    cast: Option<[NodeId; 3]>,
    /// Who was lost and has not come back.
    lost: Option<NodeId>,
    /// Whose changes are looked at, and how many there were when each scene began.
    watched: Option<Victim>,
    scenes: Vec<(Scene, u64)>,
    cut: Option<Cut>,
    doom: Option<Doom>,
}

impl Stage {
    fn new(seed: u64, story: Story) -> Self {
        register_codes();
        dsn_core::code::register(CODES);
        let scenario = story.scenario(seed);
        let mut sim = Sim::new(seed, scenario.options());
        let servers = add_servers(&mut sim, &scenario);
        sim.add_checker(Box::new(Members::new(&servers, servers.contents.clone(), false)));
        let shape = Shape::of(&scenario);
        let metas = shape.meta_addresses();
        let told = Arc::new(Told::default());
        let (shared, table) = (told.clone(), (shape.partitions, shape.copies));
        sim.add_node(NodeSpec::new("client0", client_ip(0), 1, move || {
            let (metas, told) = (metas.clone(), shared.clone());
            Box::new(TellerApp { metas, told, story, shape: table })
        }));
        Self {
            sim,
            servers,
            shape,
            story,
            told,
            cast: None,
            lost: None,
            watched: None,
            scenes: Vec::new(),
            cut: None,
            doom: None,
        }
    }

    /// The server of a victim, once it is known.
    fn node(&self, victim: Victim) -> Option<NodeId> {
        match victim {
            Victim::Meta => self.servers.metas.first().copied(),
            Victim::Replica => self.servers.replicas.first().copied(),
            Victim::Source => self.cast.map(|cast| cast[0]),
            Victim::Learner => self.cast.map(|cast| cast[1]),
            Victim::Secondary => self.cast.map(|cast| cast[2]),
        }
    }

    /// From now on the changes of disks count, if it is known whose.
    fn count(&mut self) {
        if let Some(id) = self.watched.and_then(|victim| self.node(victim)) {
            self.sim.disk(id).log_steps();
        }
        let Some(Cut { victim, step, power, then, .. }) = self.cut else { return };
        if let Some(id) = self.node(victim) {
            let at = Some(self.sim.disk(id).steps() + step);
            self.doom = Some(Doom { id, power, at, then, deaths: 0 });
            match self.sim.is_up(id) {
                true => self.sim.crash_after(id, step, power, Some(DOWN)),
                false => self.arm(id),
            }
        }
    }

    /// A server has died, or is to be started: what has come of it already, and what is to come.
    fn arm(&mut self, id: NodeId) {
        let Some(doom) = self.doom.as_mut().filter(|doom| doom.id == id) else { return };
        let (deaths, steps) = (self.sim.deaths(id), self.sim.disk(id).steps());
        let (power, mut then) = (doom.power, Then::Nothing);
        if deaths > doom.deaths {
            doom.deaths = deaths;
            then = std::mem::replace(&mut doom.then, Then::Nothing);
            doom.at = if let Then::Again(more) = then { Some(steps + more) } else { None };
        }
        if let Some(at) = doom.at {
            self.sim.crash_next_after(id, at.saturating_sub(steps), power, Some(DOWN));
        }
        if then == Then::All {
            self.others_die(power);
        }
    }

    /// Whether a server's disk has the first partition of the first table. What one of several lost would not show
    /// otherwise: it learns it again.
    fn has_replica(&self, id: NodeId) -> bool {
        let names = |dir: String| self.sim.disk(id).names(Path::new(&dir));
        self.servers.replica_dirs().flat_map(names).any(|name| name == "1.0.pegasus")
    }

    /// So do the others that run.
    fn others_die(&mut self, power: bool) {
        for id in self.servers.replicas.clone() {
            if self.sim.is_up(id) {
                match power {
                    true => self.sim.power_off(id),
                    false => self.sim.kill(id),
                }
                self.sim.restart_after(id, DOWN);
            }
        }
    }

    /// Tells the story to its end.
    fn tell(&mut self) {
        if self.story == Story::Alone {
            self.count();
        }
        for id in self.sim.node_ids() {
            if let Err(error) = self.sim.start(id)
                && self.doom.as_ref().is_none_or(|doom| doom.id != id)
            {
                let name = self.sim.name(id).to_owned();
                return self.sim.violate("start", format!("{name}: {error}"));
            }
        }
        let acts = self.story.acts();
        loop {
            let Self { sim, servers, shape, told, doom, .. } = self;
            // As long as there is another death to arm.
            let mortal = doom.as_ref().filter(|doom| doom.at.is_some());
            let mortal = mortal.map(|doom| (doom.id, doom.deaths));
            let has_died =
                |sim: &Sim| mortal.filter(|(id, deaths)| sim.deaths(*id) > *deaths).map(|it| it.0);
            let server =
                mortal.and_then(|(id, _)| servers.replicas.iter().position(|it| *it == id));
            let (mut looked, mut was_member) = (Duration::ZERO, false);
            let due = |sim: &mut Sim| {
                let died = has_died(sim).is_some();
                if !died && let Some(server) = server {
                    was_member = members::is_member(servers, server);
                }
                let done = told.done.load(Ordering::Relaxed);
                let asked = told.asked.load(Ordering::Relaxed) > done;
                died || told.finished.load(Ordering::Relaxed)
                    || asked && may_come(sim, servers, shape, acts[done], &mut looked)
            };
            let outcome = sim.run_until(HEAL_LIMIT, due);
            if outcome == Outcome::Violated {
                return;
            }
            if let Some(id) = has_died(sim) {
                if was_member && !self.has_replica(id) {
                    let text = "a member that died has no replica on its disk any more";
                    return self.sim.violate("durability", text.to_owned());
                }
                self.arm(id);
            } else if self.told.finished.load(Ordering::Relaxed) {
                return;
            } else if outcome == Outcome::Reached {
                self.act(acts[self.told.done.load(Ordering::Relaxed)]);
                self.told.done.fetch_add(1, Ordering::Relaxed);
            } else {
                let acked = self.told.acked.load(Ordering::Relaxed);
                let group = members::describe(&self.sim, &self.servers, 0);
                let text =
                    format!("the story stands still after {acked} acknowledged steps: {group}");
                return self.sim.violate("liveness", text);
            }
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Restart => self.restart_replicas(),
            Act::Begin(scene) => self.begin(scene),
            Act::Lose(part) => self.lose(part),
            Act::Return | Act::ReturnEmpty => {
                if let Some(id) = self.lost.take() {
                    if act == Act::ReturnEmpty {
                        self.sim.replace_disk(id);
                    }
                    self.arm(id);
                    self.sim.restart_after(id, Duration::ZERO);
                }
            }
            Act::Led | Act::Whole => {}
        }
    }

    /// The parts are given out when the first scene of a group begins: it is whole then.
    fn begin(&mut self, scene: Scene) {
        if self.cast.is_none() {
            let source = members::primary(&self.sim, &self.servers, 0);
            let mut others = self.servers.replicas.iter().filter(|id| Some(**id) != source);
            if let (Some(source), Some(secondary), Some(learner)) =
                (source, others.next(), others.next())
            {
                self.cast = Some([source, *learner, *secondary]);
                self.count();
            }
        }
        if let Some(id) = self.watched.and_then(|victim| self.node(victim)) {
            self.scenes.push((scene, self.sim.disk(id).step_log().len() as u64));
        }
    }

    /// A server that has just died by a cut and would come back stays away as well.
    fn lose(&mut self, part: Part) {
        self.lost = match part {
            Part::Learner => self.node(Victim::Learner),
            Part::Leader => members::primary(&self.sim, &self.servers, 0),
        };
        if let Some(id) = self.lost {
            self.sim.kill(id);
            self.sim.stop(id);
        }
    }

    /// An orderly stop and a start. A cut that has not come yet comes after it.
    fn restart_replicas(&mut self) {
        for id in self.servers.replicas.clone() {
            self.sim.stop(id);
            let stopped = |sim: &mut Sim| !sim.is_up(id);
            if self.sim.run_until(STOP_LIMIT, stopped) != Outcome::Reached {
                return self.sim.violate("shutdown", "the replica server does not stop".to_owned());
            }
            self.arm(id);
            self.sim.restart_after(id, Duration::from_millis(100));
        }
    }

    fn judge(&mut self) -> Option<String> {
        if let Some(wrong) = self.told.wrong.lock().expect("one thread").take() {
            return Some(format!("durability: {wrong}"));
        }
        let aside = quarantined(&self.sim, &self.servers);
        if !aside.is_empty() {
            return Some(format!("quarantine: put aside though nothing was damaged: {aside:?}"));
        }
        let Self { sim, servers, shape, .. } = self;
        if sim.violation().is_none() {
            become_whole(sim, servers, shape);
        }
        if sim.violation().is_none() && sim.finish(STOP_LIMIT).is_ok() {
            let alike = members::compare_images(sim, servers, false);
            if let Err(text) = alike.and_then(|_| members::compare_places(sim, servers)) {
                sim.violate("divergence", text);
            }
        }
        sim.violation().map(ToString::to_string)
    }
}

/// Whether what an act waits for is so.
fn may_come(sim: &Sim, servers: &Servers, shape: &Shape, act: Act, looked: &mut Duration) -> bool {
    let waits = matches!(act, Act::Lose(_) | Act::Led | Act::Whole);
    if !waits || sim.now() < *looked + LOOK_INTERVAL {
        return !waits;
    }
    *looked = sim.now();
    match act {
        Act::Whole => members::incomplete(sim, servers, shape).is_empty(),
        // Who is left alone is waited for: its group would stand still for as long as it is away.
        Act::Lose(_) => members::followed(sim, servers, 0) == shape.copies as usize,
        _ => members::primary(sim, servers, 0).is_some(),
    }
}

/// How the story went with a cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    /// What went wrong: who says so, and what.
    pub wrong: Option<String>,
    /// Whether the server died where it should.
    pub died: bool,
    /// Hash of all that happened.
    pub trace_hash: u64,
}

/// Tells the story once with this cut.
pub fn run(cut: &Cut) -> Telling {
    let mut stage = Stage::new(cut.seed, cut.victim.story());
    stage.cut = Some(*cut);
    stage.tell();
    let wrong = stage.judge();
    let died = stage.doom.is_some_and(|doom| stage.sim.deaths(doom.id) > 0);
    Telling { wrong, died, trace_hash: stage.sim.trace_hash() }
}

/// The changes of a disk in the story without a cut that a victim can die after.
///
/// # Errors
/// When that goes wrong already.
pub fn changes(seed: u64, victim: Victim) -> Result<Vec<Change>, String> {
    let mut stage = Stage::new(seed, victim.story());
    stage.watched = Some(victim);
    stage.tell();
    let log = stage.node(victim).map(|id| stage.sim.disk(id).step_log()).unwrap_or_default();
    let scenes = std::mem::take(&mut stage.scenes);
    let scene_of = |index: u64| {
        let begun = scenes.iter().take_while(|(_, from)| *from <= index);
        begun.last().map_or(Scene::First, |(scene, _)| *scene)
    };
    let change = |(index, (kind, path))| Change { scene: scene_of(index), kind, path };
    stage.judge().map_or_else(|| Ok((0..).zip(log).map(change).collect()), Err)
}

/// Every cut of every story.
///
/// # Errors
/// When a story without a cut goes wrong.
pub fn all() -> Result<Vec<Cut>, String> {
    let mut cuts = Vec::new();
    for victims in [&Victim::ALONE[..], &Victim::GROUP] {
        for seed in SEEDS {
            for victim in victims {
                let steps = changes(seed, *victim)?.len() as u64;
                for power in [false, true] {
                    // What `os` promises ends with the power.
                    if power && *victim != Victim::Meta && durability(seed) == LogDurability::Os {
                        continue;
                    }
                    cuts.extend((1..=steps).flat_map(|step| cuts_at(seed, *victim, step, power)));
                }
            }
        }
    }
    Ok(cuts)
}

/// How the story is told of one change of a disk and one kind of death.
fn cuts_at(seed: u64, victim: Victim, step: u64, power: bool) -> Vec<Cut> {
    let all = [Then::Nothing, Then::Again(1 + step * 7 % 25), Then::All];
    // Seeds differ in whose turn it is.
    let turn = (step + seed / 2) as usize;
    let then = match (victim.story(), power) {
        (Story::Alone, _) => &all[..2],
        (Story::Group, false) => &all[turn % 3..][..1],
        (Story::Group, true) => &all[1 + turn % 2..][..1],
    };
    then.iter().map(|then| Cut { seed, victim, step, power, then: *then }).collect()
}
