//! Which replicas may lack the end of their log without any sign of it.
//!
//! Where an acknowledgement does not rest on a sync, a machine that loses its power or is started anew takes the newest
//! records with it, and what is left looks whole. A small file beside the log says under which run of the machine the
//! log is written, and with which durability; it is durable before the first record is. At the next start it tells
//! whether anything can be missing. The replicas of such a directory are *uncertain* until they are members of their
//! group again (they have learned from its primary, or lead it), over any number of starts. A server that is stopped
//! in order closes its log, and the file says that everything in it is synced.
//!
//! ```text
//! {"crc":..,"magic":..,"boot_id":"..","durability":"os","uncertain":["1.0","1.3"],"forgiven":{"1.3":[4096,9000]}}
//! ```
//!
//! Where every acknowledgement rests on a sync, what a power loss may have left anything of was not acknowledged. When
//! the log is opened, holes there are mended for every replica that is opened with it. One that its disk refuses then
//! comes later, after another start perhaps, when the log tells no longer what was durable when: the file keeps for it
//! where it may lack something and has lost nothing.

use super::Durability;
use bytes::Bytes;
use dsn_core::disk::{Disk, read_file, write_file_durable};
use dsn_core::planted;
use dsn_rpc::gpid::Gpid;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const MAGIC: u32 = 0x7a11_1065;

/// What the file calls a durability that survives everything.
const SYNCED: &str = name(Durability::GroupSync);

/// The file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    crc: u32,
    magic: u32,
    /// Empty when the system does not tell: no run is the same as that.
    boot_id: String,
    /// The weakest durability of records that may not be synced.
    durability: String,
    uncertain: Vec<String>,
    /// Positions of the log, as [`Tails::forgiven`] has them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    forgiven: BTreeMap<String, (u64, u64)>,
}

impl Note {
    fn new(
        boot_id: &str,
        durability: &str,
        uncertain: &BTreeSet<Gpid>,
        forgiven: &Forgiven,
    ) -> Self {
        let mut note = Self {
            crc: 0,
            magic: MAGIC,
            boot_id: boot_id.to_owned(),
            durability: durability.to_owned(),
            uncertain: uncertain.iter().map(Gpid::to_string).collect(),
            forgiven: forgiven
                .iter()
                .map(|(gpid, range)| (gpid.to_string(), (range.start, range.end)))
                .collect(),
        };
        note.crc = note.checksum();
        note
    }

    fn checksum(&self) -> u32 {
        let Self { magic, boot_id, durability, uncertain, forgiven, .. } = self;
        let mut text = format!("{magic} {boot_id} {durability} {}", uncertain.join(" "));
        for (gpid, (from, to)) in forgiven {
            text.push_str(&format!(" {gpid}: {from}..{to}"));
        }
        crc32c::crc32c(text.as_bytes())
    }

    /// `None` for content that is none of ours.
    fn decode(content: &[u8]) -> Option<Self> {
        let note: Self = serde_json::from_slice(content).ok()?;
        (note.magic == MAGIC && note.crc == note.checksum()).then_some(note)
    }

    /// Whether everything that was acknowledged since it was written is there in this run of the machine.
    fn holds_under(&self, boot_id: &str) -> bool {
        let same_run = !boot_id.is_empty() && self.boot_id == boot_id;
        same_run || self.durability == SYNCED
    }
}

const fn name(durability: Durability) -> &'static str {
    match durability {
        Durability::Os => "os",
        Durability::GroupSync => "group_sync",
        Durability::IntervalSync => "interval_sync",
    }
}

/// Where nothing was acknowledged, by the replicas that have yet to find out.
type Forgiven = BTreeMap<Gpid, Range<u64>>;

/// See the module's header. One for each log.
#[derive(Debug)]
pub struct Tails {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    boot_id: String,
    durability: Durability,
    uncertain: Mutex<BTreeSet<Gpid>>,
    forgiven: Mutex<Forgiven>,
    /// What a power loss before the last opening of the log may have left anything of.
    tail: Mutex<Option<Range<u64>>>,
    /// Another one writes the file now.
    retired: AtomicBool,
    /// What the file says. Held by whoever writes it.
    written: Mutex<Note>,
}

impl Tails {
    /// Reads the file at `path` and makes it say how the log is written from now on; before the log is opened.
    /// `replicas` are all that the log may have records of. Blocks.
    ///
    /// # Errors
    /// Of the file system: nothing may be written to the log then.
    pub fn open(
        disk: &Arc<dyn Disk>,
        path: &Path,
        durability: Durability,
        replicas: &BTreeSet<Gpid>,
    ) -> io::Result<Self> {
        let boot_id = disk.boot_id().unwrap_or_else(|error| {
            tracing::warn!(%error, "the system does not tell whether the machine was started anew");
            String::new()
        });
        let before = match read_file(&**disk, path) {
            Ok(content) => Note::decode(&content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let kept = before.as_ref().is_some_and(|note| note.holds_under(&boot_id));
        let mut uncertain = replicas.clone();
        if kept {
            let said = before.iter().flat_map(|note| &note.uncertain);
            let said: BTreeSet<Gpid> = said.filter_map(|text| Gpid::parse(text)).collect();
            uncertain.retain(|gpid| said.contains(gpid));
        } else if !replicas.is_empty() {
            warn(path, before.as_ref());
        }
        // Until the log has been opened, which syncs it, it may hold records of a weaker durability.
        let was_synced = before.as_ref().is_some_and(|note| note.durability == SYNCED);
        let weaker = kept && !was_synced && durability == Durability::GroupSync;
        let weakest = if weaker { Durability::Os } else { durability };
        let forgiven = before.iter().flat_map(|note| &note.forgiven);
        let forgiven: Forgiven = forgiven
            .filter_map(|(text, (from, to))| Some((Gpid::parse(text)?, *from..*to)))
            .collect();
        let note = Note::new(&boot_id, name(weakest), &uncertain, &forgiven);
        if before.as_ref() != Some(&note) {
            write(&**disk, path, &note)?;
        }
        Ok(Self {
            disk: disk.clone(),
            path: path.to_owned(),
            boot_id,
            durability,
            uncertain: Mutex::new(uncertain),
            forgiven: Mutex::new(forgiven),
            tail: Mutex::new(None),
            retired: AtomicBool::new(false),
            written: Mutex::new(note),
        })
    }

    /// The log has been read: a power loss may have left anything of what is in `tail`, and nothing that is left begins
    /// at position `end` or behind it.
    pub fn read(&self, tail: Option<Range<u64>>, end: u64) {
        // A footer may be written there, which tells of records before it; what comes after is written from now on.
        let end = end + 1;
        let mut forgiven = self.forgiven.lock();
        forgiven.values_mut().for_each(|range| range.end = range.end.min(end));
        forgiven.retain(|_, range| !range.is_empty());
        *self.tail.lock() = tail.map(|tail| tail.start..end);
    }

    /// Where a replica that is opened with the log has lost nothing, whatever it lacks.
    #[must_use]
    pub fn torn(&self, gpid: Gpid) -> Vec<Range<u64>> {
        self.tail.lock().clone().into_iter().chain(self.forgiven(gpid)).collect()
    }

    /// Where a replica that has not been opened since a power loss has lost nothing, whatever it lacks.
    #[must_use]
    pub fn forgiven(&self, gpid: Gpid) -> Option<Range<u64>> {
        self.forgiven.lock().get(&gpid).cloned()
    }

    /// Of all replicas, `left` have not been opened with the log; they must find what is
    /// [forgiven](Tails::forgiven) them after any number of starts. Before the log says that it is durable. Blocks.
    ///
    /// # Errors
    /// Of the file system: nothing may be written to the log.
    pub fn keep_for(&self, left: &BTreeSet<Gpid>) -> io::Result<()> {
        let tail = self.tail.lock().clone();
        if let Some(tail) = tail {
            let mut forgiven = self.forgiven.lock();
            for gpid in left {
                // One that was left before has written nothing since.
                forgiven.entry(*gpid).or_insert_with(|| tail.clone());
            }
        }
        self.save(None)?;
        // The others are mended when the log is open, and not before: see `opened`.
        self.forgiven.lock().retain(|gpid, _| left.contains(gpid));
        Ok(())
    }

    /// A replica has been opened, and lacks nothing. Before it writes to the log. Blocks.
    ///
    /// # Errors
    /// Of the file system: it may not be used.
    pub fn found_whole(&self, gpid: Gpid) -> io::Result<()> {
        let Some(torn) = self.forgiven.lock().remove(&gpid) else { return Ok(()) };
        self.save(None).inspect_err(|_| self.forgiven.lock().extend([(gpid, torn)]))
    }

    /// The log is opened anew: whoever is late with this one changes the file no more.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// The log has been opened: everything that it held before is synced, whatever its durability was. Blocks.
    ///
    /// # Errors
    /// Of the file system.
    pub fn opened(&self) -> io::Result<()> {
        self.save(Some(self.durability))
    }

    /// The log has been closed: everything that it ever took is synced, and it takes nothing any more. Blocks.
    ///
    /// # Errors
    /// Of the file system: after a start of the machine its replicas count as uncertain.
    pub fn closed(&self) -> io::Result<()> {
        self.save(Some(Durability::GroupSync))
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the end of a replica's log may be missing.
    #[must_use]
    pub fn is_uncertain(&self, gpid: Gpid) -> bool {
        self.uncertain.lock().contains(&gpid) && !planted::has("lost_tail_trusted")
    }

    /// A replica has everything that its group has, or is a new one. Blocks.
    ///
    /// # Errors
    /// Of the file system: the replica counts as uncertain still.
    pub fn settle(&self, gpid: Gpid) -> io::Result<()> {
        let torn = self.forgiven.lock().remove(&gpid);
        let was_uncertain = self.uncertain.lock().remove(&gpid);
        if !was_uncertain && torn.is_none() {
            return Ok(());
        }
        self.save(Some(self.durability)).inspect_err(|_| {
            if was_uncertain {
                self.uncertain.lock().insert(gpid);
            }
            self.forgiven.lock().extend(torn.map(|torn| (gpid, torn)));
        })
    }

    /// Writes the file; one write serves whoever waited for the one before it.
    fn save(&self, durability: Option<Durability>) -> io::Result<()> {
        let mut written = self.written.lock();
        if self.retired.load(Ordering::Acquire) {
            return Err(io::Error::other("the log is opened anew"));
        }
        let durability = durability.map_or(written.durability.clone(), |it| name(it).to_owned());
        let (uncertain, forgiven) = (self.uncertain.lock().clone(), self.forgiven.lock().clone());
        let note = Note::new(&self.boot_id, &durability, &uncertain, &forgiven);
        if *written != note {
            write(&*self.disk, &self.path, &note)?;
            *written = note;
        }
        Ok(())
    }
}

fn write(disk: &dyn Disk, path: &Path, note: &Note) -> io::Result<()> {
    let json = serde_json::to_vec(note)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    write_file_durable(disk, path, Bytes::from(json))
}

/// Tells the operator.
fn warn(path: &Path, before: Option<&Note>) {
    let path = path.display();
    match before {
        Some(Note { durability, .. }) => tracing::warn!(
            %path,
            log_durability = durability,
            "the machine was started anew since the mutation log was written, which need not have been synced: the \
             ends of its replicas' logs may be missing, until they are members of their groups again"
        ),
        None => tracing::warn!(
            %path,
            "nothing tells under which run of the machine the mutation log was written: the ends of its replicas' logs \
             may be missing, until they are members of their groups again"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::mem_disk::{Crash, MemDisk};

    const PATH: &str = "/data/.log-info";
    const NOBODY: [i32; 0] = [];
    const POWER: Crash = Crash::PowerLoss(1);

    fn gpids(indices: &[i32]) -> BTreeSet<Gpid> {
        indices.iter().map(|index| Gpid::new(1, *index)).collect()
    }

    fn empty_disk() -> MemDisk {
        let disk = MemDisk::new();
        crate::dirs::create_dir_durable(&disk, Path::new("/data")).unwrap();
        disk
    }

    fn open(disk: &MemDisk, durability: Durability, replicas: &[i32]) -> Tails {
        Tails::open(&disk.shared(), Path::new(PATH), durability, &gpids(replicas)).unwrap()
    }

    fn uncertain(tails: &Tails) -> Vec<i32> {
        tails.uncertain.lock().iter().map(|gpid| gpid.partition_index).collect()
    }

    /// Starts a server on what a crash has left; its log is opened as well.
    fn start(disk: &mut MemDisk, crash: Crash, durability: Durability) -> Vec<i32> {
        *disk = disk.restart(crash);
        let tails = open(disk, durability, &[0, 1]);
        tails.opened().unwrap();
        uncertain(&tails)
    }

    #[test]
    fn only_a_machine_that_was_started_anew_makes_unsynced_logs_uncertain() {
        use Durability::{GroupSync, IntervalSync, Os};
        for (durability, after_power_loss) in
            [(Os, vec![0, 1]), (IntervalSync, vec![0, 1]), (GroupSync, vec![])]
        {
            let mut disk = empty_disk();
            open(&disk, durability, &[]).opened().unwrap();
            for _ in 0..3 {
                assert_eq!(start(&mut disk, Crash::Kill, durability), NOBODY, "{durability:?}");
            }
            assert_eq!(start(&mut disk, POWER, durability), after_power_loss, "{durability:?}");
        }
    }

    #[test]
    fn a_replica_stays_uncertain_over_restarts_until_it_is_settled() {
        let mut disk = empty_disk();
        open(&disk, Durability::Os, &[]);
        assert_eq!(start(&mut disk, POWER, Durability::Os), [0, 1]);
        assert_eq!(start(&mut disk, Crash::Kill, Durability::Os), [0, 1], "a second restart");
        assert_eq!(start(&mut disk, Crash::Kill, Durability::GroupSync), [0, 1]);
        assert_eq!(start(&mut disk, POWER, Durability::GroupSync), [0, 1]);
        let tails = open(&disk, Durability::GroupSync, &[0, 1]);
        disk.stop_at(disk.steps());
        tails.settle(Gpid::new(1, 0)).unwrap_err();
        assert!(tails.is_uncertain(Gpid::new(1, 0)), "nobody would know after a restart");
        disk.stop_at(u64::MAX);
        tails.settle(Gpid::new(1, 0)).unwrap();
        assert!(!tails.is_uncertain(Gpid::new(1, 0)) && tails.is_uncertain(Gpid::new(1, 1)));
        assert_eq!(start(&mut disk, POWER, Durability::GroupSync), [1], "that is durable");
        disk = disk.restart(Crash::Kill);
        assert_eq!(uncertain(&open(&disk, Durability::GroupSync, &[0])), NOBODY, "it is gone");
    }

    #[test]
    fn what_counts_is_the_durability_under_which_the_log_was_written() {
        use Durability::{GroupSync, Os};
        let mut disk = empty_disk();
        open(&disk, Os, &[]).opened().unwrap();
        // The log was not opened under the new durability: nothing has synced it.
        drop(open(&disk, GroupSync, &[0, 1]));
        assert_eq!(start(&mut disk, POWER, GroupSync), [0, 1]);

        let mut disk = empty_disk();
        open(&disk, Os, &[]).opened().unwrap();
        assert_eq!(start(&mut disk, Crash::Kill, GroupSync), NOBODY);
        assert_eq!(start(&mut disk, POWER, Os), NOBODY, "all of it was written with group_sync");
        assert_eq!(start(&mut disk, POWER, GroupSync), [0, 1], "that was not");
    }

    #[test]
    fn a_log_that_was_closed_has_lost_nothing() {
        use Durability::Os;
        let mut disk = empty_disk();
        open(&disk, Os, &[]).opened().unwrap();
        for _ in 0..2 {
            let tails = open(&disk, Os, &[0, 1]);
            tails.opened().unwrap();
            tails.closed().unwrap();
            assert_eq!(start(&mut disk, POWER, Os), NOBODY, "it was closed");
        }
        assert_eq!(start(&mut disk, POWER, Os), [0, 1], "it was not closed this time");
        open(&disk, Os, &[0, 1]).closed().unwrap();
        assert_eq!(start(&mut disk, POWER, Os), [0, 1], "what was lost before stays lost");
    }

    #[test]
    fn what_is_forgiven_is_remembered_until_the_replica_is_mended() {
        let gpid = |index| Gpid::new(1, index);
        let told = |disk: &MemDisk| -> Vec<_> {
            let tails = open(disk, Durability::GroupSync, &[0, 1]);
            (0..2).map(|index| tails.forgiven(gpid(index))).collect()
        };
        let mut disk = empty_disk();
        // What 1 is opened with, and what is told after a start that ends before the log is open, and after it is.
        let mut start = |tail: Range<u64>, left: &[i32]| {
            disk = disk.restart(POWER);
            let tails = open(&disk, Durability::GroupSync, &[0, 1]);
            tails.read(Some(tail.clone()), tail.end);
            let torn = tails.torn(gpid(1));
            tails.keep_for(&gpids(left)).unwrap();
            let before = told(&disk.restart(POWER));
            tails.opened().unwrap();
            (torn, before, told(&disk.restart(POWER)))
        };
        let (none, first) = (vec![None, None], vec![None, Some(10..21)]);
        let torn: Vec<Range<u64>> = std::iter::once(10..21).collect();
        assert_eq!(
            start(10..20, &[]),
            (torn.clone(), none.clone(), none.clone()),
            "nobody is left"
        );
        assert_eq!(start(10..20, &[1]), (torn, first.clone(), first.clone()));
        let later = vec![30..41, 10..21];
        assert_eq!(start(30..40, &[1]), (later, first.clone(), first.clone()), "it wrote nothing");
        let last = vec![38..40, 10..21];
        assert_eq!(start(38..39, &[]), (last, first, none.clone()), "mended when the log is open");
        start(10..20, &[0, 1]);
        let clipped = vec![Some(10..16), Some(10..16)];
        let cut = start(15..15, &[0, 1]);
        assert_eq!(
            cut,
            (vec![15..16, 10..16], clipped.clone(), clipped),
            "used again from there on"
        );
        let tails = open(&disk, Durability::GroupSync, &[0, 1]);
        disk.stop_at(disk.steps());
        tails.found_whole(gpid(0)).unwrap_err();
        tails.settle(gpid(1)).unwrap_err();
        disk.stop_at(u64::MAX);
        tails.found_whole(gpid(0)).unwrap();
        assert_eq!(told(&disk.restart(POWER)), [None, Some(10..16)], "one may write from now on");
        tails.settle(gpid(1)).unwrap();
        assert_eq!(told(&disk.restart(POWER)), none, "another one was made in its place");
        tails.retire();
        tails.opened().unwrap_err();
    }

    #[test]
    fn a_log_of_which_nothing_is_known_is_uncertain() {
        let disk = empty_disk();
        assert_eq!(uncertain(&open(&disk, Durability::GroupSync, &[0])), [0], "no file");
        disk.corrupt(Path::new(PATH), |content| content[20] ^= 1);
        assert_eq!(uncertain(&open(&disk, Durability::GroupSync, &[0, 1])), [0, 1], "damaged");
        let note =
            Note { boot_id: String::new(), ..Note::new("", "os", &gpids(&[]), &Forgiven::new()) };
        assert!(!note.holds_under(""), "no run is known to be the same as an unknown one");
    }

    #[test]
    fn no_crash_at_any_step_makes_a_lost_tail_certain() {
        for step in 0.. {
            let disk = empty_disk();
            open(&disk, Durability::Os, &[]).opened().unwrap();
            let disk = disk.restart(POWER);
            disk.stop_at(step);
            let path = Path::new(PATH);
            let opened = Tails::open(&disk.shared(), path, Durability::GroupSync, &gpids(&[0, 1]));
            let done = opened.is_ok_and(|tails| tails.opened().is_ok());
            for crash in [Crash::Kill, Crash::PowerLoss(step)] {
                let disk = disk.restart(crash);
                assert_eq!(uncertain(&open(&disk, Durability::GroupSync, &[0, 1])), [0, 1]);
            }
            if done {
                assert!(step > 2, "there were steps");
                return;
            }
        }
    }
}
