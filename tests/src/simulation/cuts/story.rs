//! What is told: the steps of the stories, and the clusters that they are told of.

use dsn_core::sim::Scenario;
use std::time::Duration;

pub(super) const TABLE: &str = "kept";
const GONE: &str = "gone";
/// A counter of increments that are waited for, and one of those that are not.
const COUNT: &str = "count";
pub(super) const BURST: &str = "burst";
/// Bytes of a value that fills the log.
const BIG: usize = 200_000;

/// One step of a story, made again until it is acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) enum Do {
    Make(&'static str),
    Drop(&'static str),
    /// There must be no such table.
    Missing(&'static str),
    Put(&'static str, &'static str, usize),
    Incr(&'static str),
    /// So many increments at a time, which are not waited for: the story goes on while they are under way.
    Burst(u64),
    Wait(u64),
    /// Something happens to the servers.
    Act(Act),
    /// Everything acknowledged is read.
    Read,
}

/// What happens to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// The replica servers are stopped and started.
    Restart,
    /// Something else begins.
    Begin(Scene),
    /// The server of a part is killed once all are members, and stays away.
    Lose(Part),
    /// The server that was lost is started.
    Return,
    /// The same, with an empty disk.
    ReturnEmpty,
    /// Nothing but a wait: somebody leads the group.
    Led,
    /// Nothing but a wait: every group has all its members, and they everything.
    Whole,
}

/// What a story tells at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// Of one server; or the group is not whole yet, and nobody dies.
    First,
    /// A member was away for a little while, and is fed from the log.
    ByLog,
    /// A member was away until the log did not go back so far any more, and copies a checkpoint.
    ByCheckpoint,
    /// A member has lost all that it had, and copies a checkpoint.
    FromNothing,
    /// Writes are under way at the primary, which is about to be killed.
    Burst,
    /// The primary is gone, and a secondary takes over. Nobody writes.
    Takeover,
    /// Who was primary comes back.
    Afterwards,
}

/// A server of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The member that is lost and learned again.
    Learner,
    /// Whoever leads.
    Leader,
}

/// Which story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Story {
    /// Of one replica server with one copy of everything.
    Alone,
    /// Of three members on three servers.
    Group,
}

impl Story {
    pub(super) fn steps(self) -> Vec<Do> {
        match self {
            Self::Alone => alone(),
            Self::Group => group(),
        }
    }

    pub(super) fn acts(self) -> Vec<Act> {
        let act = |step: Do| if let Do::Act(act) = step { Some(act) } else { None };
        self.steps().into_iter().filter_map(act).collect()
    }

    /// The cluster, in which nothing goes wrong by itself.
    pub(super) fn scenario(self, seed: u64) -> Scenario {
        let mut scenario = Scenario::quiet(seed, Duration::ZERO);
        let mut turn = |knobs: &[(&str, u64)]| {
            scenario.knobs.extend(knobs.iter().map(|(name, value)| ((*name).to_owned(), *value)));
        };
        turn(&[
            ("cluster.clients", 0),
            ("cluster.partitions", 2),
            ("replication.segment_mb", 1),
            ("replication.segments", 1),
            ("replication.reserve_seconds", 0),
            ("replication.checkpoint_seconds", 1),
            ("meta.lively", 1),
        ]);
        if self == Self::Group {
            turn(&[
                ("cluster.servers", 3),
                ("cluster.copies", 3),
                ("cluster.partitions", 1),
                ("cluster.workers", 1),
                ("replication.check_ms", 500),
                ("replication.sync_ms", 1_000),
                ("replication.learn_timeout_ms", 5_000),
                ("fd.lease_seconds", 5),
                ("meta.round_ms", 500),
            ]);
        }
        scenario
    }
}

fn alone() -> Vec<Do> {
    let mut story = vec![Do::Make(TABLE)];
    for half in 0..2 {
        story.extend(little());
        story.extend((0..3).flat_map(|_| much()));
        story.extend([Do::Wait(2500), Do::Make(GONE), Do::Put(GONE, "g", 0)]);
        match half {
            0 => {
                story.extend([Do::Drop(GONE), Do::Missing(GONE)]);
                story.extend([Do::Wait(500), Do::Act(Act::Restart)]);
            }
            _ => story.push(Do::Wait(1500)),
        }
        story.push(Do::Read);
    }
    story
}

fn group() -> Vec<Do> {
    let mut story = vec![Do::Make(TABLE)];
    story.extend(little());
    story.push(Do::Act(Act::Whole));

    let begin = |scene| [Act::Begin(scene), Act::Lose(Part::Learner)].map(Do::Act);
    story.extend(begin(Scene::ByLog));
    story.extend(little());
    story.push(Do::Act(Act::Return));
    story.extend(meanwhile());

    story.extend(begin(Scene::ByCheckpoint));
    story.extend(enough());
    story.push(Do::Act(Act::Return));
    story.extend(meanwhile());
    // The checkpoint that was copied makes way for another one.
    story.extend(enough());

    story.extend(begin(Scene::FromNothing));
    story.extend(little());
    story.push(Do::Act(Act::ReturnEmpty));
    story.extend(meanwhile());

    story.push(Do::Act(Act::Begin(Scene::Burst)));
    story.extend([Do::Burst(2); 8]);
    story.extend([Act::Lose(Part::Leader), Act::Begin(Scene::Takeover), Act::Led].map(Do::Act));
    story.push(Do::Act(Act::Begin(Scene::Afterwards)));
    story.extend(little());
    story.push(Do::Act(Act::Return));
    story.extend(meanwhile());
    story.push(Do::Read);
    story
}

/// Writes while a member learns, until it has learned.
fn meanwhile() -> impl Iterator<Item = Do> {
    let write = |_| [Do::Put(TABLE, "k0", 0), Do::Wait(200)];
    (0..7).flat_map(write).chain([Do::Act(Act::Whole)])
}

/// So many writes that checkpoints are made and log files given back.
fn enough() -> impl Iterator<Item = Do> {
    (0..4).flat_map(|_| much()).chain([Do::Wait(1500)])
}

/// Small writes.
fn little() -> impl Iterator<Item = Do> {
    let small = ["k0", "k1", "k2", "k3"];
    small.into_iter().flat_map(|key| [Do::Put(TABLE, key, 0), Do::Incr(COUNT)])
}

/// Nearly half of a log file.
fn much() -> [Do; 4] {
    let big = |key| Do::Put(TABLE, key, BIG);
    [big("big0"), big("big1"), Do::Put(TABLE, "k0", 0), Do::Wait(400)]
}
