//! What is said to a server that has lost everything, and was meant before it had it.

use super::*;
use dsn_core::code::Code;
use dsn_core::exec::WorkerId;
use dsn_replication::app::ReplicatedApp;
use dsn_replication::codes::{RPC_CONFIG_PROPOSAL, RPC_LEARN_ADD_LEARNER};
use dsn_replication::testing::cluster::LPC_TEST_CLIENT;
use dsn_replication::wire::config::{
    AppInfo, ConfigType, ConfigurationUpdateRequest, PartitionConfiguration, PartitionStatus,
    ReplicaConfiguration,
};
use dsn_replication::wire::replica::GroupCheckRequest;
use dsn_rpc::address::RpcAddress;
use dsn_rpc::thrift::Encode;
use dsn_rpc::{CallOptions, send_oneway};
use log_store::{READ, ReadFrom};
use std::net::SocketAddrV4;

fn only_group(world: &mut World) -> PartitionConfiguration {
    let config = world.cluster.config(TABLE).expect("the meta server answers");
    config.partitions.iter().next().expect("there is one")
}

fn address(server: usize) -> RpcAddress {
    SocketAddrV4::new([10, 0, 0, 10 + server as u8].into(), 34801).into()
}

fn say<T: Encode>(world: &mut World, to: usize, code: Code, message: &T) {
    let to = address(to).socket_addr().expect("a server has an address");
    let client = world.cluster.client();
    world.cluster.sim().enter(client, WorkerId(0), &LPC_TEST_CLIENT, |ctx| {
        send_oneway(ctx, to.into(), code, message, CallOptions::default());
    });
}

fn table_of(group: &PartitionConfiguration) -> AppInfo {
    AppInfo {
        app_id: group.pid.app_id,
        app_name: TABLE.to_owned(),
        app_type: LogStore::APP_TYPE.to_owned(),
        max_replica_count: 3,
        partition_count: 1,
        ..AppInfo::default()
    }
}

/// A member has lost its disk, and is the only one that is there: an empty replica, made because of a message that was
/// under way before it was a member, must not be taken for what it had.
fn nobody_leads_after<T: Encode>(
    code: Code,
    message: impl FnOnce(&PartitionConfiguration, RpcAddress) -> T,
) {
    let mut world = World::of((3, 1), 4, 1, "", true);
    world.append_one().expect("the append is acknowledged");
    let group = only_group(&mut world);
    let member = world.secondary();
    for server in 0..3 {
        world.cluster.kill_server(server);
    }
    let id = world.cluster.server(member);
    let disk = world.cluster.sim().disk(id);
    disk.remove_dir_all(Path::new("/data")).expect("it is there");
    world.cluster.start_server(member);
    world.cluster.run_for(Duration::from_secs(30));
    let message = message(&group, address(member));
    say(&mut world, member, code, &message);
    world.cluster.run_for(Duration::from_secs(60));
    let group = only_group(&mut world);
    assert!(!group.primary.is_valid(), "nobody who is there has anything: {group:?}");
    (0..3).filter(|server| *server != member).for_each(|server| world.cluster.start_server(server));
    world.run_until_whole(Duration::from_secs(60));
    let read = READ.request(Target::Partition(0), &ReadFrom::default());
    let answer = world.cluster.send(TABLE, read);
    assert_eq!(world.cluster.wait(&answer).map(|found| found.entries.len()), Ok(1));
    world.cluster.finish();
}

/// An invitation to learn at an attempt, under a ballot, by whomever leads or says that it does.
fn invitation(
    group: &PartitionConfiguration,
    primary: RpcAddress,
    attempt: i64,
) -> GroupCheckRequest {
    GroupCheckRequest {
        app: table_of(group),
        config: ReplicaConfiguration {
            pid: group.pid,
            ballot: attempt >> 32,
            primary,
            status: PartitionStatus::PotentialSecondary,
            learner_signature: attempt,
            ..ReplicaConfiguration::default()
        },
        ..GroupCheckRequest::default()
    }
}

#[test]
fn an_old_invitation_makes_no_member_of_an_empty_replica() {
    nobody_leads_after(&RPC_LEARN_ADD_LEARNER, |group, _| {
        invitation(group, group.primary, ((group.ballot - 1) << 32) + 1)
    });
}

/// Whoever is said to invite, under a ballot above all others, does not answer: others may invite after a few seconds.
#[test]
fn an_invitation_that_nobody_confirms_holds_up_others_for_seconds_only() {
    let mut world = World::of((4, 1), 4, 1, "", true);
    world.append_one().expect("the append is acknowledged");
    let lost = world.secondary();
    let id = world.cluster.server(lost);
    world.cluster.sim().pause(id);
    let (primary, others) = world.groups()[0].clone();
    let is_spare = |server: &usize| *server != primary && !others.contains(server);
    let spare = (0..4).find(is_spare).expect("there are four servers");
    let group = only_group(&mut world);
    let silent = address(lost);
    // The meta server wants it back until its lease is over.
    for left in (0..40).rev() {
        let invitation = invitation(&group, silent, i64::MAX - left);
        say(&mut world, spare, &RPC_LEARN_ADD_LEARNER, &invitation);
        world.cluster.run_for(Duration::from_millis(500));
    }
    let took = world.run_until_whole(Duration::from_secs(90));
    println!("whole after {took:?}");
    assert!(took < Duration::from_secs(8), "nobody else may invite: {took:?}");
    world.cluster.sim().resume(id);
    world.cluster.finish();
}

#[test]
fn an_old_wish_that_it_lead_a_new_partition_makes_no_member_of_an_empty_replica() {
    nobody_leads_after(&RPC_CONFIG_PROPOSAL, |group, node| ConfigurationUpdateRequest {
        info: table_of(group),
        config: PartitionConfiguration {
            pid: group.pid,
            max_replica_count: 3,
            primary: node,
            ..PartitionConfiguration::default()
        },
        config_type: ConfigType::AssignPrimary,
        node,
        ..ConfigurationUpdateRequest::default()
    });
}
