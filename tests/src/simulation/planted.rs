//! Bugs planted on purpose, and the hunt for them: each must be found by what continuous integration runs anyway.
//!
//! The places in the code are [`dsn_core::planted::has`]; this is their list. A hunt tries the ordinary seeds from 0
//! on, or the cuts, until one shows a violation; without the bug, the same run must show none.

/// Where a bug is looked for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hunt {
    /// The seeds, from 0 on.
    Seeds,
    /// The cuts, see [`super::cuts`].
    Cuts,
    /// The seeds of groups, from 0 on.
    Groups,
    /// The seeds of a group of protocol cores, see [`dsn_replication::testing::group`].
    Cores,
}

/// A planted bug.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// As the code asks for it.
    pub name: &'static str,
    /// What goes wrong.
    pub what: &'static str,
    /// Where it is looked for first.
    pub hunt: Hunt,
}

const fn seeds(name: &'static str, what: &'static str) -> Bug {
    Bug { name, what, hunt: Hunt::Seeds }
}

const fn cuts(name: &'static str, what: &'static str) -> Bug {
    Bug { name, what, hunt: Hunt::Cuts }
}

const fn groups(name: &'static str, what: &'static str) -> Bug {
    Bug { name, what, hunt: Hunt::Groups }
}

const fn cores(name: &'static str, what: &'static str) -> Bug {
    Bug { name, what, hunt: Hunt::Cores }
}

/// All of them.
pub const BUGS: [Bug; 34] = [
    seeds("ack_before_log", "a write is acknowledged before it is written to the log"),
    seeds("ack_before_sync", "with group_sync, a write is acknowledged before the log is synced"),
    seeds("append_error_ignored", "a write is acknowledged though the log could not be written"),
    seeds("sync_error_ignored", "with group_sync, a write is acknowledged though the sync failed"),
    seeds("log_crc_skipped", "a record of the log is applied whatever its checksum says"),
    seeds("image_crc_skipped", "the engine's image is loaded whatever its checksum says"),
    seeds("torn_tail_accepted", "the torn record at the end of the log is taken for a good one"),
    seeds("replay_skips_last_segment", "the newest file of the log is not read after a restart"),
    seeds("undecided_dropped", "logged mutations not known to be decided are dropped by a restart"),
    seeds("log_collected_early", "files of the log are removed while a replica still needs them"),
    seeds("checkpoint_not_written", "a checkpoint is said to be there and was not written"),
    seeds("applied_out_of_order", "two committed mutations are applied in the wrong order"),
    seeds("read_without_gate", "a replica answers reads whatever its role and its lease"),
    seeds("increment_not_atomic", "an increment does not see the write before it in its batch"),
    seeds("expired_record_served", "a record is served after its time to live"),
    seeds("client_repeats_writes", "the client repeats writes whose outcome is unknown"),
    seeds("meta_acks_before_sync", "the meta server answers before its log is synced"),
    cuts("rename_without_dir_sync", "a file is replaced without syncing its directory"),
    cuts("engine_made_in_place", "a new engine is made in its final place, file by file"),
    cores("member_acks_before_log", "a member acknowledges what is not in its log yet"),
    cores("ballot_ignored", "a member takes prepares of a primary that was replaced"),
    cores("commit_without_a_member", "a write is committed though one member lacks it"),
    cores("candidate_not_waited_for", "nobody waits for a learner that is being made a member"),
    cores("evicted_before_the_answer", "a late member is left out before the meta server agrees"),
    cores("learner_promoted_early", "a learner becomes a member before it has caught up"),
    cores("learner_keeps_undecided", "a learner keeps what it has beyond the commit point"),
    cores("reconciliation_forgotten", "a new primary forgets what is not known to be decided"),
    cores("timestamp_changed", "a new primary gives what it proposes again a new time stamp"),
    cores("tail_not_truncated", "a member keeps what it has beyond its new primary's last decree"),
    groups("read_without_lease", "a primary serves reads after its lease"),
    groups("read_before_takeover", "a new primary serves reads before it has caught up"),
    groups("ended_without_refusal", "a server is taken for dead whose port is open"),
    groups("lost_tail_trusted", "a member that lost the end of its log counts as if it had it"),
    groups("partial_copy_accepted", "a checkpoint is learned of which half is missing"),
];

#[cfg(feature = "planted")]
mod hunting {
    use super::super::{cuts, draw, draw_group, run, shrink_failure};
    use super::{Bug, Hunt};
    use dsn_core::planted;
    use dsn_core::sim::Scenario;
    use dsn_replication::testing::group;

    /// Seeds that a hunt tries.
    pub const SEEDS_MAX: u64 = 200;
    /// The same for groups of cores, and steps of each.
    const CORE_SEEDS_MAX: u64 = 20_000;
    const CORE_STEPS: usize = 4_000;

    /// How a bug was found.
    #[derive(Clone, Debug)]
    pub struct Catch {
        /// What saw it: a checker, or the simulation's own `panic`, `leak`, `livelock`, `shutdown`.
        pub by: String,
        /// The seed or cut.
        pub case: String,
        /// Runs until then.
        pub runs: usize,
        /// What was seen.
        pub text: String,
    }

    /// Looks for a bug; nothing when it gets away.
    ///
    /// # Errors
    /// When a run that shows the bug fails without it as well, or the stories without a cut do.
    pub fn hunt(bug: &Bug) -> Result<Option<Catch>, String> {
        let mut runs = 0;
        let order: &[Way] = match bug.hunt {
            Hunt::Seeds => &[by_seeds, by_cuts],
            Hunt::Cuts => &[by_cuts, by_seeds],
            Hunt::Groups => &[by_groups],
            Hunt::Cores => &[by_cores, by_groups],
        };
        for way in order {
            if let Some(catch) = way(bug, &mut runs)? {
                return Ok(Some(catch));
            }
        }
        Ok(None)
    }

    type Way = fn(&Bug, &mut usize) -> Result<Option<Catch>, String>;

    fn by_seeds(bug: &Bug, runs: &mut usize) -> Result<Option<Catch>, String> {
        by_scenarios(bug, runs, "seed", draw)
    }

    fn by_groups(bug: &Bug, runs: &mut usize) -> Result<Option<Catch>, String> {
        by_scenarios(bug, runs, "group seed", draw_group)
    }

    fn by_scenarios(
        bug: &Bug,
        runs: &mut usize,
        kind: &str,
        draw: fn(u64) -> Scenario,
    ) -> Result<Option<Catch>, String> {
        for seed in 0..SEEDS_MAX {
            *runs += 1;
            let scenario = draw(seed);
            planted::plant(Some(bug.name));
            let violation = run(&scenario, false).report.violation;
            planted::plant(None);
            let Some(violation) = violation else { continue };
            if let Some(without) = run(&scenario, false).report.violation {
                return Err(format!("{kind} {seed} fails without a planted bug: {without}"));
            }
            let (by, case, text) =
                (violation.by.clone(), format!("{kind} {seed}"), violation.to_string());
            return Ok(Some(Catch { by, case, runs: *runs, text }));
        }
        Ok(None)
    }

    /// A group seed that a planted bug fails at is made smaller: what is left must still fail, be smaller, come back
    /// from its file, and hold without the bug. Returns a sentence about it.
    ///
    /// # Errors
    /// What of that is not so.
    pub fn shrink_a_catch() -> Result<String, String> {
        let planted_run = |scenario: &Scenario| {
            planted::plant(Some(SHRUNK_BUG));
            let report = run(scenario, false).report;
            planted::plant(None);
            report.violation.map(|violation| (violation.by, report.steps))
        };
        let caught = (0..SEEDS_MAX).map(draw_group).find_map(|scenario| {
            let (by, steps) = planted_run(&scenario)?;
            Some((scenario, by, steps))
        });
        let (scenario, by, steps) = caught.ok_or(format!("{SHRUNK_BUG} got away"))?;
        planted::plant(Some(SHRUNK_BUG));
        let small = shrink_failure(&scenario, &by, steps, SHRINK_RUNS);
        planted::plant(None);
        let (runs, small) = (small.runs, small.scenario);
        let file = Scenario::from_toml(&small.to_toml()).map_err(|error| error.to_string())?;
        let size = |s: &Scenario| (s.faults.len(), s.knobs.len(), s.duration_ms);
        let (before, after) = (size(&scenario), size(&small));
        if file != small {
            return Err(format!("another scenario came back from its file:\n{small}"));
        }
        if planted_run(&file).is_none_or(|(other, _)| other != by) {
            return Err(format!("what was shrunk does not fail by {by} any more:\n{small}"));
        }
        if after.0 >= before.0 || after.1 > before.1 || after.2 > before.2 {
            return Err(format!("{before:?} was not made smaller: {after:?}"));
        }
        if let Some(without) = run(&small, false).report.violation {
            return Err(format!("what was shrunk fails without the bug: {without}\n{small}"));
        }
        Ok(format!(
            "shrunk in {runs} runs: seed {} with {SHRUNK_BUG}, from {} faults, {} knobs and {} ms to {} faults, {} \
             knobs and {} ms",
            small.seed, before.0, before.1, before.2, after.0, after.1, after.2
        ))
    }

    /// The bug that shrinking is tried on, and runs that it may take.
    const SHRUNK_BUG: &str = "read_without_lease";
    const SHRINK_RUNS: usize = 150;

    /// A group of cores ends with a panic when something does not hold.
    fn by_cores(bug: &Bug, runs: &mut usize) -> Result<Option<Catch>, String> {
        for seed in 0..CORE_SEEDS_MAX {
            *runs += 1;
            planted::plant(Some(bug.name));
            let outcome = std::panic::catch_unwind(|| group::run(seed, CORE_STEPS));
            planted::plant(None);
            let Err(panic) = outcome else { continue };
            let _ = group::run(seed, CORE_STEPS);
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            let text = text.lines().next().unwrap_or_default().to_owned();
            let case = format!("core seed {seed}");
            return Ok(Some(Catch { by: "cores".to_owned(), case, runs: *runs, text }));
        }
        Ok(None)
    }

    fn by_cuts(bug: &Bug, runs: &mut usize) -> Result<Option<Catch>, String> {
        for cut in cuts::all()? {
            *runs += 1;
            planted::plant(Some(bug.name));
            let told = cuts::run(&cut);
            planted::plant(None);
            let Some(text) = told.wrong else { continue };
            if let Some(without) = cuts::run(&cut).wrong {
                return Err(format!("{cut} fails without a planted bug: {without}"));
            }
            let by = text.split([':', ' ']).next().unwrap_or_default().to_owned();
            return Ok(Some(Catch { by, case: format!("cut: {cut}"), runs: *runs, text }));
        }
        Ok(None)
    }
}

#[cfg(feature = "planted")]
pub use hunting::{Catch, SEEDS_MAX, hunt, shrink_a_catch};
