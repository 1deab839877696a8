//! Tables come and go, also when the process is killed between any two writes.

use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::gpid::Gpid;

use super::is_valid_name;
use crate::meta::state::app::CHUNK;
use crate::meta::state::{Answer, Cluster, Effect, Ticket};
use crate::meta::testing::{Bench, addr, create_request};
use crate::wire::admin::{
    AppEnvOperation, DropAppOptions, DropAppRequest, ListAppsRequest, PatternMatchType,
    RecallAppRequest, RenameAppRequest, UpdateAppEnvRequest,
};
use crate::wire::config::{AppStatus, ConfigType};
use dsn_core::time::Wall;
use std::time::Duration;

fn drop_request(name: &str, reserve: Option<i64>) -> DropAppRequest {
    DropAppRequest {
        app_name: name.to_owned(),
        options: DropAppOptions { success_if_not_exist: false, reserve_seconds: reserve },
    }
}

fn dropped(bench: &mut Bench, name: &str) -> ErrorCode {
    let request = drop_request(name, None);
    match bench.ask(|c, t, _, wall| c.drop_app(t, &request, wall)) {
        Some(Answer::Drop(response)) => response.err,
        other => panic!("{other:?}"),
    }
}

fn recalled(bench: &mut Bench, app_id: i32, name: &str) -> (ErrorCode, String) {
    let request = RecallAppRequest { app_id, new_app_name: name.to_owned() };
    match bench.ask(|c, t, _, wall| c.recall_app(t, &request, wall)) {
        Some(Answer::Recall(response)) => (response.err, response.info.app_name),
        other => panic!("{other:?}"),
    }
}

fn env(bench: &mut Bench, request: &UpdateAppEnvRequest) -> (ErrorCode, String) {
    match bench.ask(|c, t, _, _| c.update_app_env(t, request)) {
        Some(Answer::Env(response)) => (response.err, response.hint_message),
        other => panic!("{other:?}"),
    }
}

fn set(name: &str, key: &str, value: &str) -> UpdateAppEnvRequest {
    UpdateAppEnvRequest {
        app_name: name.to_owned(),
        op: AppEnvOperation::Set,
        keys: Some(vec![key.to_owned()]),
        values: Some(vec![value.to_owned()]),
        clear_prefix: None,
    }
}

#[test]
fn a_new_table_is_assigned_and_served() {
    let mut bench = Bench::new();
    bench.beacon(1, 1);
    assert_eq!(bench.create("temp", 8, 1), ErrorCode::Ok);
    let config = bench.query("temp");
    assert_eq!((config.err, config.app_id, config.partition_count), (ErrorCode::Ok, 1, 8));
    assert!(config.is_stateful);
    assert!(config.partitions.iter().all(|p| !p.primary.is_valid() && p.ballot == 0));
    assert_eq!(bench.proposals.len(), 8, "the server is asked at once");
    bench.obey(&[1]);
    for partition in &bench.query("temp").partitions {
        assert_eq!((partition.primary, partition.ballot), (addr(1), 1));
        assert_eq!(partition.hp_primary.unwrap().to_string(), "127.0.0.1:34801");
    }
    // A restarted meta server has not forgotten anything.
    let again = bench.restart();
    assert_eq!(again.query("temp"), config_of(&again));
    assert_eq!(again.query("temp").partitions.len(), 8);
}

fn config_of(bench: &Bench) -> crate::wire::config::QueryCfgResponse {
    let config = bench.query("temp");
    assert!(config.partitions.iter().all(|p| p.primary == addr(1) && p.ballot == 1));
    config
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut bench = Bench::new();
    assert_eq!(bench.create("temp", 8, 1), ErrorCode::StateFreezed, "nobody is alive");
    bench.beacon(1, 1);
    for (name, partitions, replicas) in [
        ("", 8, 1),
        ("a b", 8, 1),
        ("a", 0, 1),
        ("a", -1, 1),
        ("a", 8, 0),
        ("a", 8, 2),
        ("a", 8, 6),
    ] {
        let refused = bench.create(name, partitions, replicas);
        assert_eq!(refused, ErrorCode::InvalidParameters, "{name} {partitions} {replicas}");
    }
    let mut request = create_request("a", 8, 1);
    request.options.envs.insert("no.such.env".to_owned(), "1".to_owned());
    assert_eq!(bench.create_with(&request).0, ErrorCode::InvalidParameters);
    assert_eq!(bench.query("a").err, ErrorCode::ObjectNotFound);
    assert!(is_valid_name("a_b.c:d-e@f") && !is_valid_name(&"x".repeat(256)));
}

#[test]
fn creating_twice_follows_success_if_exist() {
    let mut bench = Bench::new();
    bench.beacon(1, 1);
    assert_eq!(bench.create_with(&create_request("temp", 8, 1)), (ErrorCode::Ok, 1));
    assert_eq!(bench.create("temp", 8, 1), ErrorCode::AppExist);
    let mut request = create_request("temp", 8, 1);
    request.options.success_if_exist = true;
    assert_eq!(bench.create_with(&request), (ErrorCode::Ok, 1));
    request.options.partition_count = 4;
    assert_eq!(bench.create_with(&request).0, ErrorCode::InvalidParameters);
}

#[test]
fn table_ids_are_never_used_again() {
    let mut bench = Bench::new();
    bench.beacon(1, 1);
    assert_eq!(bench.create_with(&create_request("a", 1, 1)), (ErrorCode::Ok, 1));
    let request = drop_request("a", Some(0));
    bench.ask(|c, t, _, wall| c.drop_app(t, &request, wall)).unwrap();
    bench.pass(Duration::from_secs(11), &[1]);
    assert_eq!(bench.cluster.tables().count(), 0, "expired and forgotten");
    let mut bench = bench.restart();
    bench.beacon(1, 1);
    assert_eq!(bench.create_with(&create_request("a", 1, 1)), (ErrorCode::Ok, 2));
}

#[test]
fn a_table_survives_a_kill_between_any_two_writes_of_its_making() {
    let partitions = CHUNK as i32 + 7;
    let writes = 4;
    for budget in 0..=writes {
        let mut bench = Bench::new();
        bench.beacon(1, 1);
        bench.budget = Some(budget);
        let request = create_request("temp", partitions, 1);
        let answer = bench.ask(|c, t, _, wall| c.create_app(t, &request, wall));
        assert_eq!(answer.is_some(), budget == writes, "answered exactly when complete");
        let expected = if answer.is_some() { ErrorCode::Ok } else { ErrorCode::BusyCreating };
        assert_eq!(bench.query("temp").err, expected);
        let mut bench = bench.restart();
        bench.beacon(1, 1);
        let config = bench.query("temp");
        if budget == 0 {
            assert_eq!(config.err, ErrorCode::ObjectNotFound, "nothing was written");
            continue;
        }
        assert_eq!((config.err, config.partition_count), (ErrorCode::Ok, partitions));
        assert_eq!(config.partitions.len(), partitions as usize);
        assert_eq!(bench.create_with(&create_request("other", 1, 1)), (ErrorCode::Ok, 2));
    }
}

/// Bug 45: a table that is half dropped stops every meta server that starts.
#[test]
fn a_drop_survives_a_kill_between_any_two_writes() {
    let partitions = CHUNK as i32 + 7;
    let writes = 4;
    for budget in 0..=writes {
        let mut bench = Bench::new();
        bench.beacon(1, 1);
        bench.create("temp", partitions, 1);
        bench.obey(&[1]);
        bench.budget = Some(budget);
        let request = drop_request("temp", None);
        let answer = bench.ask(|c, t, _, wall| c.drop_app(t, &request, wall));
        assert_eq!(answer.is_some(), budget == writes);
        if answer.is_none() {
            assert_eq!(bench.query("temp").err, ErrorCode::BusyDropping);
            assert_eq!(bench.create("temp", 1, 1), ErrorCode::BusyDropping);
        }
        let mut bench = bench.restart();
        bench.beacon(1, 1);
        if budget == 0 {
            assert_eq!(bench.query("temp").err, ErrorCode::Ok, "nothing was written");
            continue;
        }
        assert_eq!(bench.query("temp").err, ErrorCode::ObjectNotFound);
        let app = bench.cluster.tables().next().unwrap();
        assert_eq!(app.info.status, AppStatus::Dropped);
        for partition in &app.partitions {
            let config = &partition.config;
            assert_eq!((config.ballot, config.partition_flags), (2, 1));
            assert_eq!(config.last_drops, [addr(1)]);
        }
        assert_eq!(bench.sync(1, &[]).partitions.len(), 0);
    }
}

#[test]
fn former_members_are_told_that_their_table_is_dropped() {
    let mut bench = Bench::new();
    bench.beacon(1, 1);
    bench.create("temp", 2, 1);
    bench.obey(&[1]);
    assert_eq!(dropped(&mut bench, "temp"), ErrorCode::Ok);
    let told: Vec<_> = bench
        .proposals
        .iter()
        .map(|(to, request)| (*to, request.config_type, request.config.pid.partition_index))
        .collect();
    let kind = ConfigType::DropPartition;
    assert_eq!(told, [(addr(1), kind, 0), (addr(1), kind, 1)]);
    assert_eq!(dropped(&mut bench, "temp"), ErrorCode::AppNotExist);
    assert_eq!(bench.create("temp", 2, 1), ErrorCode::Ok, "the name is free again");
}

#[test]
fn a_recalled_table_goes_back_to_the_server_that_had_it() {
    let mut bench = Bench::new();
    bench.beacon(1, 1);
    bench.beacon(2, 1);
    bench.create("temp", 2, 1);
    bench.obey(&[1, 2]);
    let owners: Vec<_> = bench.query("temp").partitions.iter().map(|p| p.primary).collect();
    dropped(&mut bench, "temp");
    assert_eq!(recalled(&mut bench, 7, "").0, ErrorCode::AppNotExist);
    bench.proposals.clear();
    assert_eq!(recalled(&mut bench, 1, "again"), (ErrorCode::Ok, "again".to_owned()));
    assert_eq!(recalled(&mut bench, 1, ""), (ErrorCode::AppExist, String::new()));
    assert_eq!(bench.query("temp").err, ErrorCode::ObjectNotFound);
    assert!(bench.proposals.is_empty(), "nobody has reported what it holds");
    for node in [1, 2] {
        let held: Vec<_> = (0..2)
            .filter(|index| owners[*index] == addr(node))
            .map(|index| (Gpid::new(1, index as i32), 1, 5))
            .collect();
        bench.sync(node, &held);
    }
    bench.obey(&[1, 2]);
    let back: Vec<_> = bench.query("again").partitions.iter().map(|p| p.primary).collect();
    assert_eq!(back, owners);
    let mut bench = bench.restart();
    assert_eq!(bench.query("again").err, ErrorCode::Ok);
    assert_eq!(dropped(&mut bench, "again"), ErrorCode::Ok);
}

#[test]
fn a_recall_survives_a_kill_between_any_two_writes() {
    for budget in 0..=3 {
        let mut bench = Bench::new();
        bench.beacon(1, 1);
        bench.create("temp", 3, 1);
        dropped(&mut bench, "temp");
        bench.budget = Some(budget);
        let request = RecallAppRequest { app_id: 1, new_app_name: String::new() };
        let answer = bench.ask(|c, t, _, wall| c.recall_app(t, &request, wall));
        assert_eq!(answer.is_some(), budget == 3);
        let mut bench = bench.restart();
        bench.beacon(1, 1);
        let expected = if budget == 0 { ErrorCode::ObjectNotFound } else { ErrorCode::Ok };
        assert_eq!(bench.query("temp").err, expected, "budget {budget}");
        if budget > 0 {
            bench.obey(&[1]);
            let config = bench.query("temp");
            assert!(config.partitions.iter().all(|p| p.primary == addr(1) && p.ballot == 3));
        }
    }
}

/// Bug 45: a change of a table's settings meets its drop, and what is stored is half of both.
#[test]
fn envs_change_and_wait_their_turn() {
    let mut bench = Bench::new();
    bench.beacon(1, 1);
    bench.create("temp", 1, 1);
    let key = "replica.slow_query_threshold";
    assert_eq!(env(&mut bench, &set("temp", key, "50")).0, ErrorCode::Ok);
    assert_eq!(env(&mut bench, &set("temp", key, "5")).0, ErrorCode::InvalidParameters);
    assert_eq!(env(&mut bench, &set("none", key, "50")).0, ErrorCode::AppNotExist);
    assert!(env(&mut bench, &set("temp", "nonsense", "1")).1.contains("not supported"));

    // Two changes and a drop at the same time: each is whole, in order.
    bench.budget = Some(0);
    let first = bench.ticket();
    let second = bench.ticket();
    let third = bench.ticket();
    bench.with(|c, _, wall| {
        c.update_app_env(first, &set("temp", "business.info", "a"));
        c.update_app_env(second, &set("temp", "replica.write_throttling", "9*reject*1"));
        c.drop_app(third, &drop_request("temp", None), wall);
    });
    assert!(bench.answers.is_empty());
    bench.budget = None;
    bench.pump();
    let order: Vec<Ticket> = bench.answers.drain(..).map(|(ticket, _)| ticket).collect();
    assert_eq!(order, [first, second, third]);
    let info = &bench.cluster.tables().next().unwrap().info;
    assert_eq!(info.envs.len(), 3);
    assert_eq!(info.status, AppStatus::Dropped);
}

#[test]
fn envs_are_deleted_and_cleared_by_prefix() {
    let mut bench = Bench::new();
    bench.beacon(1, 1);
    bench.create("temp", 1, 1);
    for (key, value) in [
        ("replica.slow_query_threshold", "50"),
        ("replica.split.validate_partition_hash", "true"),
        ("business.info", "x"),
    ] {
        assert_eq!(env(&mut bench, &set("temp", key, value)).0, ErrorCode::Ok);
    }
    let names = |bench: &Bench| -> Vec<String> {
        bench.cluster.table("temp").unwrap().info.envs.keys().cloned().collect()
    };
    let mut request = set("temp", "business.info", "");
    request.op = AppEnvOperation::Del;
    assert_eq!(env(&mut bench, &request).0, ErrorCode::Ok);
    assert_eq!(names(&bench).len(), 2);
    request.op = AppEnvOperation::Clear;
    request.clear_prefix = Some("replica.split".to_owned());
    assert_eq!(env(&mut bench, &request).0, ErrorCode::Ok);
    assert_eq!(names(&bench), ["replica.slow_query_threshold"]);
    request.clear_prefix = None;
    assert_eq!(env(&mut bench, &request).0, ErrorCode::Ok);
    assert_eq!(names(&bench), Vec::<String>::new());
    request.op = AppEnvOperation::Invalid;
    assert_eq!(env(&mut bench, &request).0, ErrorCode::InvalidParameters);
}

#[test]
fn renaming_moves_the_name_when_it_is_durable() {
    let mut bench = Bench::new();
    bench.beacon(1, 1);
    bench.create("a", 1, 1);
    bench.create("b", 1, 1);
    let rename = |bench: &mut Bench, old: &str, new: &str| {
        let request =
            RenameAppRequest { old_app_name: old.to_owned(), new_app_name: new.to_owned() };
        match bench.ask(|c, t, _, _| c.rename_app(t, &request)) {
            Some(Answer::Rename(response)) => Some(response.err),
            None => None,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(rename(&mut bench, "a", "b"), Some(ErrorCode::InvalidParameters));
    assert_eq!(rename(&mut bench, "x", "c"), Some(ErrorCode::AppNotExist));
    bench.budget = Some(0);
    assert_eq!(rename(&mut bench, "a", "c"), None);
    assert_eq!(bench.query("a").err, ErrorCode::Ok);
    assert_eq!(bench.query("c").err, ErrorCode::ObjectNotFound, "not durable yet");
    assert_eq!(rename(&mut bench, "b", "c"), Some(ErrorCode::InvalidParameters), "but taken");
    bench.budget = None;
    bench.pump();
    assert_eq!(bench.query("a").err, ErrorCode::ObjectNotFound);
    assert_eq!(bench.query("c").app_id, 1);
    assert_eq!(bench.restart().query("c").app_id, 1);
}

#[test]
fn tables_are_listed_by_status_and_name() {
    let mut bench = Bench::new();
    bench.beacon(1, 1);
    for name in ["one", "two", "twotwo"] {
        bench.create(name, 1, 1);
    }
    dropped(&mut bench, "two");
    let list = |status, pattern: &str, kind| {
        let request = ListAppsRequest {
            status,
            app_name_pattern: Some(pattern.to_owned()),
            match_type: Some(kind),
        };
        let response = bench.cluster.list_apps(&request);
        (response.err, response.infos.iter().map(|info| info.app_name).collect::<Vec<_>>())
    };
    let all = PatternMatchType::All;
    assert_eq!(list(AppStatus::Invalid, "", all).1, ["one", "two", "twotwo"]);
    assert_eq!(list(AppStatus::Available, "", all).1, ["one", "twotwo"]);
    assert_eq!(list(AppStatus::Dropped, "", all).1, ["two"]);
    assert_eq!(list(AppStatus::Invalid, "two", PatternMatchType::Prefix).1, ["two", "twotwo"]);
    assert_eq!(list(AppStatus::Invalid, "two", PatternMatchType::Exact).1, ["two"]);
    assert_eq!(list(AppStatus::Invalid, "ne", PatternMatchType::Postfix).1, ["one"]);
    assert_eq!(list(AppStatus::Invalid, "wot", PatternMatchType::Anywhere).1, ["twotwo"]);
    assert_eq!(list(AppStatus::Invalid, "x", PatternMatchType::Regex).0, ErrorCode::NotImplemented);
}

#[test]
fn indices_out_of_range_are_ignored() {
    let mut bench = Bench::new();
    bench.beacon(1, 1);
    bench.create("temp", 4, 1);
    let indices = |wanted: &[i32]| {
        let request = crate::wire::config::QueryCfgRequest {
            app_name: "temp".to_owned(),
            partition_indices: wanted.to_vec(),
        };
        let response = bench.cluster.query_config(&request);
        response.partitions.iter().map(|p| p.pid.partition_index).collect::<Vec<_>>()
    };
    assert_eq!(indices(&[2, 0, 9, -1]), [0, 2]);
    assert_eq!(indices(&[9, -1]), [0, 1, 2, 3]);
}

#[test]
fn a_stored_record_that_cannot_be_true_stops_the_start() {
    use crate::meta::state::app::{app_key, record};
    use crate::meta::state::load;
    use crate::meta::store::local::LocalStore;
    use crate::meta::store::{Change, MetaStore};
    use std::sync::Arc;

    let mut bench = Bench::new();
    bench.beacon(1, 1);
    bench.create("temp", 2, 1);
    let mut info = bench.cluster.table("temp").unwrap().info.clone();
    let load = |change: Change| {
        let disk = crate::meta::store::crash_disk::CrashDisk::of(bench.disk.0.lock().clone());
        let mut store = LocalStore::new(Arc::new(disk), "/meta");
        let epoch = store.acquire().unwrap();
        store.commit(epoch, &[vec![change]]).unwrap();
        let loaded = load::read(&mut store).unwrap();
        let now = dsn_core::time::Mono::from_nanos(1);
        Cluster::load(bench.options.clone(), loaded, now, Wall::from_unix_seconds(1))
            .map(|mut cluster| cluster.take_effects())
    };
    info.status = AppStatus::DropFailed;
    let bad = load(Change::set(app_key(1), 1, record(&info))).unwrap_err();
    assert!(bad.to_string().contains("/apps/1: status AS_DROP_FAILED"), "{bad}");
    let bad = load(Change::remove("/apps/1/0", 0)).unwrap_err();
    assert!(bad.to_string().contains("partition 0 is missing"), "{bad}");
    let bad = load(Change::remove("/apps/1/1", 0)).unwrap_err();
    assert!(bad.to_string().contains("1 of 2 partitions"), "{bad}");
    info.status = AppStatus::Creating;
    let effects = load(Change::set(app_key(1), 1, record(&info))).unwrap();
    assert!(matches!(effects[..], [Effect::Write(_)]), "goes on making it: {effects:?}");
}
