//! The sections `[replication]` and `[meta_server]`, with Pegasus's names and defaults.

use std::time::Duration;

use dsn_core::config::{ConfigSchema, Size};

dsn_core::choice! {
    /// How much the meta server does of itself.
    pub enum FunctionLevel {
        /// Nothing but answering queries.
        Stopped = "stopped" | "fl_stopped",
        /// Changes of tables only.
        Blind = "blind" | "fl_blind",
        /// No changes of membership but taking dead primaries out.
        Freezed = "freezed" | "fl_freezed",
        /// Repairs partitions.
        Steady = "steady" | "fl_steady",
        /// Repairs, balances, and deletes what is left over.
        Lively = "lively" | "fl_lively",
    }
}

dsn_core::choice! {
    /// What the acknowledgement of a write rests on.
    pub enum LogDurability {
        /// The page cache.
        Os = "os",
        /// A sync, shared with other writes.
        GroupSync = "group_sync",
        /// The page cache, synced now and then.
        IntervalSync = "interval_sync",
    }
}

dsn_core::options! {
    /// Replication groups, their members and the failure detector between replica servers and meta server.
    pub section ReplicationOptions at "replication" {
        /// Name of this cluster.
        cluster_name: String = "";
        /// Seconds between two looks at leases and silent servers.
        fd_check_interval_seconds: u32 = 2, in 1..=3_600;
        /// Seconds between two signs of life of a replica server.
        fd_beacon_interval_seconds: u32 = 3, in 1..=3_600;
        /// Seconds after its last acknowledged sign of life at which a replica server stops serving.
        fd_lease_seconds: u32 = 20, in 1..=86_400;
        /// Seconds after a server's last sign of life at which the meta server takes it for dead. Must be longer
        /// than the lease, by more than clocks may drift.
        fd_grace_seconds: u32 = 22, in 1..=86_400;
        /// Milliseconds between two reports of a replica server about everything it holds.
        config_sync_interval_ms: u32 = 30_000, in 100..=3_600_000;
        /// Milliseconds between two rounds in which the meta server looks at every partition.
        lb_interval_ms: u32 = 10_000, in 100..=3_600_000;
        /// Seconds after which a sync of the mutation log that is not done counts as failed, if `log_durability` asks
        /// for syncs: the data directory is shut, and its replicas leave their groups.
        log_sync_timeout_seconds: u32 = 30, in 1..=3_600;
        /// Fewest members that a group must have to accept writes; 0: one of two, else more than half.
        mutation_2pc_min_replica_count: u32 = 2, in 0..=16;
        /// Milliseconds that a member may take to acknowledge a write before it leaves the group. One whose answers
        /// took much less so far is given less: eight times as long as they take, deviations included, ...
        prepare_timeout_ms_for_secondaries: u32 = 3_000, in 10..=3_600_000;
        /// ... but at least this. A group of two always waits for the longer time.
        prepare_timeout_min_ms_for_secondaries: u32 = 500, in 10..=3_600_000;
        /// Milliseconds after which what a member has not acknowledged is sent again.
        prepare_resend_ms: u32 = 500, in 1..=3_600_000;
        /// Replicas of a server that copy a checkpoint at a time; others wait for their turn.
        learn_app_max_concurrent_count: u32 = 5, in 1..=1_000;
        /// Milliseconds without any progress after which a learner is given up.
        learn_timeout_ms: u32 = 60_000, in 100..=86_400_000;
        /// Milliseconds between two looks of a primary at a member that has nothing to do.
        member_check_interval_ms: u32 = 10_000, in 10..=3_600_000;
        /// Mutations of a partition that may be under way; later writes gather into larger ones.
        staleness_for_commit: u32 = 20, in 1..=4_000;
        /// Whether a server that starts leaves clients without an answer until an operator lets them in
        /// (`replica.deny-client false`).
        deny_client_on_start: bool = false;
        /// Whether every write is a mutation of its own.
        batch_write_disabled: bool = false;
        /// Largest write a client may send; 0 for no limit.
        max_allowed_write_size: Size = Size::mib(1);
        /// Bytes of writes of one partition that may wait for their turn.
        max_queued_write_bytes: Size = Size::mib(64), in Size::mib(1)..=Size::gib(1);
        /// Seconds between two checkpoints of a replica (the original: 300).
        checkpoint_interval_seconds: u32 = 300, in 1..=86_400;
        /// Hours after which a replica writes out what it has in memory and makes a checkpoint of it, if none came
        /// about otherwise; drawn between half of this and this, so that replicas do not do it all at once.
        checkpoint_max_interval_hours: u32 = 2, in 1..=8_760;
        /// Milliseconds after which a partition that nobody writes to gets an empty write, by which its replicas
        /// learn the time and compaction what has expired.
        group_check_interval_ms: u32 = 100_000, in 100..=3_600_000;
        /// Whether there are no such empty writes.
        empty_write_disabled: bool = false;
        /// Seconds between two looks at how full the disks are.
        disk_stat_interval_seconds: u32 = 10, in 1..=3_600;
        /// Percent of a disk that must be free. Below, it takes no new replicas. 0 turns this off.
        disk_min_available_space_ratio: u32 = 10, in 0..=100;
        /// Whether the replicas of such a disk refuse the writes of clients.
        reject_write_when_disk_insufficient: bool = true;
        /// Seconds that the directory of a damaged replica (`.err`) is kept, once another has taken its place.
        gc_disk_error_replica_interval_seconds: u64 = 604_800, in 0..=315_360_000;
        /// Seconds that the directory of a replica is kept that was replaced or is no longer wanted (`.gar`).
        gc_disk_garbage_replica_interval_seconds: u64 = 86_400, in 0..=315_360_000;
        /// What the acknowledgement of a write rests on. `os`: the log was written (survives the end of the process);
        /// `group_sync`: it was synced (survives a power loss); `interval_sync`: like `os`, and synced periodically.
        log_durability: LogDurability = LogDurability::Os;
        /// Milliseconds between two syncs of the log with `interval_sync`.
        log_sync_interval_ms: u32 = 1_000, in 1..=3_600_000;
        /// Size of a file of the mutation log.
        log_private_file_size_mb: u32 = 32, in 1..=4_096;
        /// Files of the mutation log above which the replicas that hold the oldest are made to write a checkpoint.
        log_shared_file_count_limit: u32 = 100, in 1..=100_000;
        /// Seconds that files which no replica needs for its own recovery are kept for others to learn from ...
        log_private_reserve_max_time_seconds: u32 = 36_000, in 0..=31_536_000;
        /// ... while all files of the log together are not larger than this.
        log_private_reserve_max_size_mb: u32 = 1_000, in 0..=1_048_576;
    }
}

dsn_core::options! {
    /// The meta server. Replica servers and clients read `server_list` as well.
    pub section MetaServerOptions at "meta_server" {
        /// The meta servers of the cluster, each `host:port`.
        server_list: Vec<String> = Vec::new();
        /// Where the state is kept: `local` is the embedded store of a single meta server.
        meta_state_service_type: String = "local";
        /// How much the meta server does after its start.
        meta_function_level_on_start: FunctionLevel = FunctionLevel::Steady;
        /// With fewer replica servers alive, membership is not changed (`freezed`).
        min_live_node_count_for_unfreeze: u32 = 3, in 0..=10_000;
        /// With less than this share of the known replica servers alive, in percent, membership is not changed.
        node_live_percentage_threshold_for_update: u32 = 65, in 0..=100;
        /// Milliseconds that a lost member is waited for before its data is copied to another server.
        replica_assign_delay_ms_for_dropouts: u64 = 600_000;
        /// Seconds that members of a group are waited for while those that are there may lack the end of their logs:
        /// their machines were started anew, and `log_durability` is not `group_sync`. Then the one that has most goes
        /// on, and what it lacks is lost. 0: at once.
        uncertain_log_wait_seconds: u32 = 300, in 0..=86_400;
        /// Copies of former members that are kept beside a complete group.
        max_reserved_dropped_replicas: u32 = 1, in 0..=16;
        /// Most replicas that a table may ask for.
        max_allowed_replica_count: u32 = 5, in 1..=16;
        /// Fewest replicas that a table may ask for.
        min_allowed_replica_count: u32 = 1, in 1..=16;
        /// Most partitions that a table may ask for.
        max_allowed_partition_count: u32 = 65_536, in 1..=1_048_576;
        /// Seconds that a dropped table can be recalled, unless the drop says otherwise.
        hold_seconds_for_dropped_app: u64 = 604_800;
        /// A replica server that runs shorter than this before it starts again, in seconds, is unstable.
        stable_rs_min_running_seconds: u32 = 600, in 0..=86_400;
        /// Whether a replica server is taken for dead when its host says that its process has ended, before its grace
        /// is over. To be turned off where something between the servers answers in the place of others: a firewall
        /// that rejects instead of dropping, a proxy (`docs/failure-detection.md`).
        fast_failover_enabled: bool = true;
        /// After so many unstable starts in a row, a replica server is given no further replicas while there are
        /// others. 0 turns this off.
        max_succssive_unstable_restart: u32 = 5, in 0..=1_000;
    }
}

dsn_core::options! {
    /// Copying of files between replica servers.
    pub section NfsOptions at "nfs" {
        /// MiB per second that learners write to a disk, all together; 0 for no limit.
        max_copy_rate_megabytes_per_disk: u32 = 0, in 0..=1_048_576;
        /// MiB per second that is read from a disk for learners, all together; 0 for no limit.
        max_send_rate_megabytes_per_disk: u32 = 0, in 0..=1_048_576;
    }
}

/// The sections of this crate.
pub fn schema() -> ConfigSchema {
    ConfigSchema::new()
        .section::<ReplicationOptions>()
        .section::<MetaServerOptions>()
        .section::<NfsOptions>()
}

/// Fewest members with which a group of a table with `copies` takes writes: `configured`
/// (`mutation_2pc_min_replica_count`), or more than half of them when that is 0 (of two, one), but no more than there
/// are.
pub(crate) fn min_members(configured: u32, copies: i32) -> u32 {
    let copies = u32::try_from(copies).unwrap_or(1).max(1);
    let wanted = match configured {
        0 if copies <= 2 => 1,
        0 => copies / 2 + 1,
        fixed => fixed,
    };
    wanted.min(copies)
}

/// A number of seconds as a duration.
pub(crate) fn seconds(value: u32) -> Duration {
    Duration::from_secs(u64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sections_are_well_formed() {
        assert_eq!(schema().problems(), Vec::<String>::new());
        let options = MetaServerOptions::default();
        assert_eq!(options.meta_function_level_on_start, FunctionLevel::Steady);
        assert_eq!(options.max_allowed_replica_count, 5);
    }
}
