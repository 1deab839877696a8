//! What the client knows of the cluster: which meta server to ask, and where partitions are.

use dsn_core::hash::DetHashMap;
use dsn_core::time::Mono;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::host_port::HostPort;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::leader::NotLeading;
use crate::wire::config::QueryCfgResponse;

/// Most tables whose routes are remembered; beyond, all are forgotten and asked for again.
const TABLES_MAX: usize = 4096;
/// Most partitions a table can have.
const PARTITIONS_MAX: i32 = 1 << 20;
/// Least time between two questions for the same table.
const QUERY_INTERVAL: Duration = Duration::from_millis(50);

/// Where a table's partitions are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) app_id: i32,
    /// Higher than those of all routes learned before, from 1.
    pub(crate) stamp: u64,
    /// Ballot and primary of each partition.
    partitions: Vec<(i64, Option<SocketAddr>)>,
}

impl Route {
    /// From a meta server's answer; `None` when it does not hold together.
    pub(crate) fn from_answer(answer: &QueryCfgResponse) -> Option<Self> {
        if answer.partition_count <= 0 || answer.partition_count > PARTITIONS_MAX {
            return None;
        }
        let mut partitions = vec![(0, None); answer.partition_count as usize];
        for config in answer.partitions.iter() {
            let index = usize::try_from(config.pid.partition_index).ok()?;
            let slot = partitions.get_mut(index)?;
            *slot = (config.ballot, config.primary.socket_addr().map(SocketAddr::from));
        }
        Some(Self { app_id: answer.app_id, stamp: 0, partitions })
    }

    pub(crate) fn partition_count(&self) -> i32 {
        self.partitions.len() as i32
    }

    /// The partition that serves for `index` and its primary. A child that is not ready yet (negative ballot, during
    /// a split) is served by its parent.
    pub(crate) fn primary(&self, index: i32) -> Option<(i32, Option<SocketAddr>)> {
        let (ballot, primary) = self.partitions.get(usize::try_from(index).ok()?)?;
        let half = self.partition_count() / 2;
        if *ballot < 0 && index >= half {
            let parent = index - half;
            let (_, primary) = self.partitions.get(parent as usize)?;
            return Some((parent, *primary));
        }
        Some((index, *primary))
    }
}

/// Routes and meta servers.
#[derive(Debug)]
pub(crate) struct Routes {
    metas: Vec<HostPort>,
    current: usize,
    tables: DetHashMap<Arc<str>, Route>,
    /// When each table was last asked for.
    queried: DetHashMap<Arc<str>, Mono>,
    learned: u64,
}

impl Routes {
    pub(crate) fn new(metas: Vec<HostPort>) -> Self {
        let (tables, queried) = (DetHashMap::default(), DetHashMap::default());
        Self { metas, current: 0, tables, queried, learned: 0 }
    }

    /// The meta server to ask now.
    pub(crate) fn meta(&self) -> HostPort {
        self.metas.get(self.current).cloned().unwrap_or_default()
    }

    /// That one does not answer or does not lead.
    pub(crate) fn next_meta(&mut self) {
        self.current = (self.current + 1) % self.metas.len().max(1);
    }

    /// That one says who leads. An unknown one is added, up to a limit that a wrong answer cannot grow.
    pub(crate) fn follow(&mut self, leader: HostPort) {
        const METAS_MAX: usize = 64;
        match self.metas.iter().position(|meta| *meta == leader) {
            Some(index) => self.current = index,
            None if self.metas.len() < METAS_MAX => {
                self.metas.push(leader);
                self.current = self.metas.len() - 1;
            }
            None => self.next_meta(),
        }
    }

    /// That one does not serve.
    pub(crate) fn other_meta(&mut self, not: &NotLeading) {
        match not.leader {
            Some(leader) => self.follow(leader.into()),
            // One that leads but is not ready is asked again.
            None if not.error == ErrorCode::ForwardToOthers => self.next_meta(),
            None => {}
        }
    }

    pub(crate) fn get(&self, table: &str) -> Option<&Route> {
        self.tables.get(table)
    }

    pub(crate) fn insert(&mut self, table: Arc<str>, mut route: Route) {
        if self.tables.len() >= TABLES_MAX {
            self.tables.clear();
        }
        self.learned += 1;
        route.stamp = self.learned;
        self.tables.insert(table, route);
    }

    pub(crate) fn forget(&mut self, table: &str) {
        self.tables.remove(table);
    }

    /// A question for a table has ended.
    pub(crate) fn queried(&mut self, table: &Arc<str>, now: Mono) {
        if self.queried.len() >= TABLES_MAX {
            self.queried.clear();
        }
        self.queried.insert(table.clone(), now);
    }

    /// How long the next question for a table must wait.
    pub(crate) fn pause_before_query(&self, table: &str, now: Mono) -> Duration {
        let Some(last) = self.queried.get(table) else { return Duration::ZERO };
        QUERY_INTERVAL.saturating_sub(now.saturating_since(*last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::config::PartitionConfiguration;
    use dsn_rpc::address::RpcAddress;
    use dsn_rpc::gpid::Gpid;
    use std::net::Ipv4Addr;

    fn answer(ballots: &[i64]) -> QueryCfgResponse {
        let partitions = ballots.iter().enumerate().map(|(index, ballot)| PartitionConfiguration {
            pid: Gpid { app_id: 2, partition_index: index as i32 },
            ballot: *ballot,
            primary: RpcAddress::new(Ipv4Addr::LOCALHOST, 100 + index as u16),
            ..PartitionConfiguration::default()
        });
        QueryCfgResponse {
            app_id: 2,
            partition_count: ballots.len() as i32,
            partitions: partitions.collect(),
            ..QueryCfgResponse::default()
        }
    }

    #[test]
    fn a_child_that_is_not_ready_is_served_by_its_parent() {
        let route = Route::from_answer(&answer(&[3, 3, 3, -1])).unwrap();
        assert_eq!(route.primary(2).unwrap().0, 2);
        let (index, primary) = route.primary(3).unwrap();
        assert_eq!((index, primary.unwrap().port()), (1, 101));
        assert_eq!(route.primary(4), None);
        assert_eq!(route.primary(-1), None);
    }

    #[test]
    fn nonsense_is_no_route() {
        let mut bad = answer(&[1, 1]);
        bad.partition_count = 1;
        assert_eq!(Route::from_answer(&bad), None, "a partition beyond the count");
        bad.partition_count = i32::MAX;
        assert_eq!(Route::from_answer(&bad), None, "an absurd count");
        bad.partition_count = 0;
        assert_eq!(Route::from_answer(&bad), None);
    }

    #[test]
    fn metas_are_taken_in_turn_and_a_leader_is_followed() {
        let [a, b, c] = [1, 2, 3].map(|port| HostPort::new("127.0.0.1", port));
        let mut routes = Routes::new(vec![a.clone(), b.clone()]);
        assert_eq!(routes.meta(), a);
        routes.next_meta();
        assert_eq!(routes.meta(), b);
        routes.follow(c.clone());
        assert_eq!(routes.meta(), c);
        routes.next_meta();
        assert_eq!(routes.meta(), a);
    }
}
