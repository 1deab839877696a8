//! What happens to the servers in a round.

use super::proxy::Link;
use super::{Run, SERVERS};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long servers are down, on average.
const DOWN: Duration = Duration::from_millis(600);
/// How long a disk stays full and a slow network slow.
const TROUBLE: Duration = Duration::from_secs(4);
/// How long clients wait at a stopped server before it goes on.
const AT_THE_DOOR: Duration = Duration::from_millis(500);
/// Delay of a slow network, one way.
const SLOW: Duration = Duration::from_millis(40);
/// Times that all connections are ended in a round.
const RESETS: usize = 8;

/// A kind of round. "Server" means a replica server where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of a server.
    KillOne,
    /// Of two.
    KillTwo,
    /// Of all.
    KillAll,
    /// Of the meta server.
    KillMeta,
    /// Of all there are.
    KillEverything,
    /// Of a server that is just learning what it has missed.
    KillLearner,
    /// Of a server and the meta server, which comes back while the server is starting.
    KillMetaAtRestart,
    /// SIGSTOP of a server for longer than lease and grace; it must answer nothing stale afterwards.
    Pause,
    /// SIGSTOP of the meta server for longer than lease and grace.
    PauseMeta,
    /// A server is killed and its data directory removed while it is down.
    LoseData,
    /// A server is killed and a byte in the middle of its mutation log flips while it is down.
    CorruptLog,
    /// The same in a table file, and the others are then killed so that it has to serve.
    CorruptSst,
    /// A server's disk has no room for a while.
    FullDisk,
    /// Nothing passes between a server and all others, for longer than lease and grace.
    Cut,
    /// Nothing passes from a server to the others; what they send arrives.
    CutOneWay,
    /// Nothing passes between a server and the meta server.
    CutFromMeta,
    /// Everything between servers comes later.
    Slow,
    /// All connections end, again and again.
    Reset,
}

/// Every fault, by the name it has on the command line.
pub const FAULTS: [(&str, Fault); 18] = [
    ("one", Fault::KillOne),
    ("two", Fault::KillTwo),
    ("all", Fault::KillAll),
    ("meta", Fault::KillMeta),
    ("everything", Fault::KillEverything),
    ("learner", Fault::KillLearner),
    ("meta-at-restart", Fault::KillMetaAtRestart),
    ("pause", Fault::Pause),
    ("pause-meta", Fault::PauseMeta),
    ("lose-data", Fault::LoseData),
    ("corrupt-log", Fault::CorruptLog),
    ("corrupt-sst", Fault::CorruptSst),
    ("full-disk", Fault::FullDisk),
    ("cut", Fault::Cut),
    ("cut-one-way", Fault::CutOneWay),
    ("cut-from-meta", Fault::CutFromMeta),
    ("slow", Fault::Slow),
    ("reset", Fault::Reset),
];

/// What was done so far.
#[derive(Clone, Debug, Default)]
pub struct Count {
    /// Processes killed.
    pub kills: usize,
    /// Processes stopped and continued.
    pub pauses: usize,
    /// Directories removed and bytes flipped.
    pub damages: usize,
    /// Disks filled up.
    pub full_disks: usize,
    /// Rounds with a bad network.
    pub network: usize,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills, {} pauses, {} damages, {} full disks, {} bad networks",
            self.kills, self.pauses, self.damages, self.full_disks, self.network
        )
    }
}

/// Outcome of a round: what was done, in words.
type Struck = Result<String, String>;

impl Fault {
    /// Whether something must stand between the servers.
    pub fn needs_proxy(self) -> bool {
        use Fault::{Cut, CutFromMeta, CutOneWay, Reset, Slow};
        matches!(self, Cut | CutOneWay | CutFromMeta | Slow | Reset)
    }

    /// Does it, and undoes it.
    ///
    /// # Errors
    /// A violation.
    pub fn strike(self, run: &mut Run<'_>) -> Struck {
        let one = 1 + run.rng.index(SERVERS);
        let name = run.onebox.name(one).to_owned();
        match self {
            Self::KillOne => run.kill_and_start(&[one], &[one]),
            Self::KillTwo => {
                let others = run.others(one);
                run.kill_and_start(&others, &others)
            }
            Self::KillAll => run.kill_and_start(&[1, 2, 3], &[3, 1, 2]),
            Self::KillMeta => run.kill_and_start(&[0], &[0]),
            Self::KillEverything => run.kill_and_start(&[0, 1, 2, 3], &[2, 0, 3, 1]),
            Self::KillMetaAtRestart => run.kill_and_start(&[one, 0], &[one, 0]),
            Self::KillLearner => {
                run.kill(&[one]);
                run.pause(DOWN);
                run.onebox.start_instance(one);
                run.pause(Duration::from_millis(60));
                run.kill_and_start(&[one], &[one])?;
                Ok(format!("{name} killed, and again while it learned"))
            }
            Self::Pause => pause(run, one),
            Self::PauseMeta => {
                run.onebox.signal(0, "STOP");
                run.pause(run.lease + run.grace);
                run.onebox.signal(0, "CONT");
                run.done.pauses += 1;
                Ok("meta@1 stopped and continued".to_owned())
            }
            Self::LoseData | Self::CorruptLog => damage(run, one, self),
            Self::CorruptSst => {
                let what = damage(run, one, self)?;
                for other in run.others(one) {
                    run.wait_until_whole().map_err(|error| format!("{what}: {error}"))?;
                    run.kill_and_start(&[other], &[other])?;
                }
                Ok(what)
            }
            Self::FullDisk => full_disk(run),
            Self::Cut | Self::CutOneWay | Self::CutFromMeta | Self::Slow | Self::Reset => {
                network(run, one, self)
            }
        }
    }
}

impl Run<'_> {
    /// The other two replica servers.
    fn others(&self, one: usize) -> Vec<usize> {
        (1..=SERVERS).filter(|other| *other != one).collect()
    }

    fn kill(&mut self, victims: &[usize]) {
        for victim in victims {
            self.onebox.kill(*victim);
            self.done.kills += 1;
        }
    }

    /// Kills some and starts them again, in another order.
    fn kill_and_start(&mut self, victims: &[usize], order: &[usize]) -> Struck {
        self.kill(victims);
        self.pause(DOWN);
        for victim in order {
            self.onebox.start_instance(*victim);
        }
        let names: Vec<&str> = victims.iter().map(|victim| self.onebox.name(*victim)).collect();
        Ok(format!("{} killed", names.join(", ")))
    }
}

/// A primary is stopped until another one has taken its place; reads that wait at its door when it goes on must not be
/// answered from what it knew.
#[expect(clippy::disallowed_methods, reason = "a test harness lives outside the runtime")]
fn pause(run: &mut Run<'_>, one: usize) -> Struck {
    let readers = run.patient_readers();
    run.onebox.signal(one, "STOP");
    std::thread::sleep(run.lease + run.grace);
    std::thread::scope(|scope| {
        for (key, mut reader) in readers {
            scope.spawn(move || reader.get(key));
        }
        std::thread::sleep(AT_THE_DOOR);
        run.onebox.signal(one, "CONT");
    });
    run.done.pauses += 1;
    Ok(format!("{} stopped and continued", run.onebox.name(one)))
}

fn damage(run: &mut Run<'_>, one: usize, fault: Fault) -> Struck {
    run.kill(&[one]);
    let data = run.onebox.data(one);
    let what = match fault {
        Fault::LoseData => remove_below(&data).map(|()| "its data removed".to_owned()),
        Fault::CorruptLog => {
            flip(run, &data, |path| path.components().any(|part| part.as_os_str() == "log"))
        }
        _ => flip(run, &data, |path| path.extension().is_some_and(|suffix| suffix == "sst")),
    };
    let what = what.map_err(|error| format!("{data:?}: {error}"))?;
    run.onebox.start_instance(one);
    run.done.damages += 1;
    Ok(format!("{} killed, {what}", run.onebox.name(one)))
}

/// All files below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Removes what is in a folder.
#[expect(clippy::disallowed_methods, reason = "a test harness lives outside the runtime")]
fn remove_below(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
    }
    Ok(())
}

/// Flips one bit in the middle half of the largest of the files.
#[expect(clippy::disallowed_methods, reason = "a test harness lives outside the runtime")]
fn flip(run: &mut Run<'_>, dir: &Path, wanted: impl Fn(&Path) -> bool) -> std::io::Result<String> {
    let size = |path: &PathBuf| fs::metadata(path).map(|meta| meta.len()).unwrap_or(0);
    let largest = files(dir).into_iter().filter(|path| wanted(path)).max_by_key(size);
    let path = largest.ok_or_else(|| std::io::Error::other("there is no such file"))?;
    let mut bytes = fs::read(&path)?;
    // What was allocated and not written yet has nothing to lose.
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    let at = used / 4 + run.rng.index(used / 2 + 1);
    bytes[at] ^= 1 << run.rng.index(8);
    fs::write(&path, bytes)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(format!("byte {at} of {used} of {name} flipped"))
}

fn full_disk(run: &mut Run<'_>) -> Struck {
    let disk = run.onebox.small_disk().ok_or("there is no small disk")?;
    let bytes = disk.fill().map_err(|error| format!("filling the disk: {error}"))?;
    run.pause(TROUBLE);
    if let Some(disk) = run.onebox.small_disk() {
        disk.free();
    }
    run.done.full_disks += 1;
    Ok(format!("{} had no room, {bytes} bytes were taken", run.onebox.name(SERVERS)))
}

fn network(run: &mut Run<'_>, one: usize, fault: Fault) -> Struck {
    let name = run.onebox.name(one).to_owned();
    let cut = Link { cut: true, delay: Duration::ZERO };
    let long = run.lease + run.grace;
    let proxy = run.onebox.proxy().ok_or("nothing stands between the servers")?;
    let what = match fault {
        Fault::Cut => {
            proxy.set_all(one, cut);
            "cut off"
        }
        Fault::CutOneWay => {
            (0..=SERVERS)
                .filter(|other| *other != one)
                .for_each(|other| proxy.set(one, other, cut));
            "not heard"
        }
        Fault::CutFromMeta => {
            proxy.set(one, 0, cut);
            proxy.set(0, one, cut);
            "cut off from meta@1"
        }
        Fault::Slow => {
            let slow = Link { cut: false, delay: SLOW };
            (0..=SERVERS).for_each(|server| proxy.set_all(server, slow));
            "and all others far away"
        }
        _ => {
            for _ in 0..RESETS {
                if let Some(proxy) = run.onebox.proxy() {
                    proxy.reset();
                }
                run.pause(TROUBLE / RESETS as u32);
            }
            "and all others with lost connections"
        }
    };
    match fault {
        Fault::Reset => {}
        Fault::Slow => run.pause(TROUBLE),
        _ => run.pause(long),
    }
    if let Some(proxy) = run.onebox.proxy() {
        proxy.heal();
    }
    run.done.network += 1;
    Ok(format!("{name} {what}"))
}
