//! The data RPCs of a replica server of the fake cluster: the few whose answers tests look at.

use bytes::Bytes;
use dsn_core::exec::Ctx;
use dsn_rpc::error_code::ErrorCode;
use dsn_rpc::thrift::{Decode, Encode, decode_wrapped};
use dsn_rpc::{Replier, Request, ServiceTable};
use pegasus_client::schema::codes;
use pegasus_client::schema::rrdb::{
    BatchGetRequest, BatchGetResponse, FullData, GetScannerRequest, IncrRequest, IncrResponse,
    KeyValue, MultiGetRequest, MultiGetResponse, ReadResponse, ScanRequest, ScanResponse,
    UpdateRequest, UpdateResponse, scan_context, status,
};
use pegasus_client::schema::{key, partition_hash};

use super::{FakeScan, Fault, Me, State, World};

/// Answers `code` at the primary of the partition addressed; `f` gets the table's id and the partition count.
fn on<Q: Decode, A: Encode>(
    table: &mut ServiceTable,
    world: &World,
    me: &Me,
    code: dsn_core::code::Code,
    f: impl Fn(&mut State, &Request, Q, Option<Fault>) -> A + Send + Sync + 'static,
) {
    let (world, me) = (world.clone(), me.clone());
    table.on(code, move |ctx: &mut Ctx<'_>, request: Request, replier: Replier| {
        let me = *me.lock();
        let (fault, outcome) = world.edit(|state| {
            let fault = state.arrive(me, &request);
            if let Some(Fault::Refuse(error)) = fault {
                return (fault, Err(error));
            }
            let found = state.tables.values().find(|table| table.app_id == request.gpid.app_id);
            let index = request.gpid.partition_index as usize;
            match found.and_then(|table| table.primaries.get(index)) {
                None => (fault, Err(ErrorCode::ObjectNotFound)),
                Some(primary) if *primary != Some(me) => (fault, Err(ErrorCode::InvalidState)),
                Some(_) if fault == Some(Fault::Silence) => (fault, Err(ErrorCode::Timeout)),
                Some(_) => {
                    let argument = decode_wrapped(&request.body).unwrap();
                    (fault, Ok(f(state, &request, argument, fault)))
                }
            }
        });
        match (fault, outcome) {
            (Some(Fault::Silence | Fault::DoneSilently), _) => replier.forget(ctx),
            (_, Err(error)) => replier.error(ctx, error),
            (_, Ok(answer)) => replier.reply(ctx, &answer),
        }
    });
}

/// The data RPCs.
pub fn services(world: &World, me: Me) -> ServiceTable {
    let mut table = ServiceTable::new();
    points(&mut table, world, &me);
    ranges(&mut table, world, &me);
    table
}

fn points(table: &mut ServiceTable, world: &World, me: &Me) {
    on(table, world, me, &codes::RPC_RRDB_RRDB_PUT, |state, request, put: UpdateRequest, _| {
        assert_eq!(partition_hash::of_raw_key(&put.key), Some(request.partition_hash));
        state.data.insert((request.gpid.app_id, put.key), put.value);
        UpdateResponse::default()
    });
    on(table, world, me, &codes::RPC_RRDB_RRDB_GET, |state, request, key: Bytes, _| {
        match state.data.get(&(request.gpid.app_id, key)) {
            Some(value) => ReadResponse { value: value.clone(), ..ReadResponse::default() },
            None => ReadResponse { error: status::NOT_FOUND, ..ReadResponse::default() },
        }
    });
    on(table, world, me, &codes::RPC_RRDB_RRDB_INCR, |state, request, incr: IncrRequest, _| {
        let value = state.data.entry((request.gpid.app_id, incr.key)).or_default();
        let Ok(before) = std::str::from_utf8(value)
            .unwrap()
            .parse::<i64>()
            .or_else(|error| if value.is_empty() { Ok(0) } else { Err(error) })
        else {
            return IncrResponse { error: status::INVALID_ARGUMENT, ..IncrResponse::default() };
        };
        let new_value = before + incr.increment;
        *value = Bytes::from(new_value.to_string());
        IncrResponse { new_value, ..IncrResponse::default() }
    });
    let code = &codes::RPC_RRDB_RRDB_BATCH_GET;
    on(table, world, me, code, |state, request, asked: BatchGetRequest, _| {
        let app = request.gpid.app_id;
        let count = partition_count(state, app);
        let found = asked.keys.iter().filter_map(|full| {
            let hash = partition_hash::of_record(&full.hash_key, &full.sort_key);
            let index = partition_hash::partition_index(hash, count);
            assert_eq!(index, request.gpid.partition_index, "a key of another partition");
            let raw = key::encode_key(&full.hash_key, &full.sort_key).unwrap();
            let value = state.data.get(&(app, raw))?.clone();
            Some(FullData { hash_key: full.hash_key, sort_key: full.sort_key, value })
        });
        BatchGetResponse { data: found.collect(), ..BatchGetResponse::default() }
    });
}

fn partition_count(state: &State, app_id: i32) -> i32 {
    let table = state.tables.values().find(|table| table.app_id == app_id).unwrap();
    table.primaries.len() as i32
}

fn ranges(table: &mut ServiceTable, world: &World, me: &Me) {
    let code = &codes::RPC_RRDB_RRDB_MULTI_GET;
    on(table, world, me, code, |state, request, asked: MultiGetRequest, _| {
        let app = request.gpid.app_id;
        let start = key::encode_key(&asked.hash_key, b"").unwrap();
        let stop = key::next_of_hash_key(&asked.hash_key).unwrap();
        let kvs = state.data.range((app, start)..(app, stop)).map(|((_, raw), value)| KeyValue {
            key: raw.slice_ref(key::split_key(raw).unwrap().1),
            value: value.clone(),
            expire_ts_seconds: None,
        });
        MultiGetResponse { kvs: kvs.collect(), ..MultiGetResponse::default() }
    });
    let code = &codes::RPC_RRDB_RRDB_GET_SCANNER;
    on(table, world, me, code, |state, request, asked: GetScannerRequest, fault| {
        let app = request.gpid.app_id;
        let count = partition_count(state, app);
        let from = (app, asked.start_key.clone());
        let rows = state.data.range(from..(app + 1, Bytes::new())).filter(|((_, raw), _)| {
            let index =
                partition_hash::partition_index(partition_hash::of_raw_key(raw).unwrap(), count);
            index == request.gpid.partition_index
                && *raw < asked.stop_key
                && (asked.start_inclusive || *raw != asked.start_key)
        });
        let rows = rows.map(|((_, raw), value)| KeyValue {
            key: raw.clone(),
            value: value.clone(),
            expire_ts_seconds: None,
        });
        let scan = FakeScan { rows: rows.collect(), batch: asked.batch_size as usize };
        batch(state, scan, fault)
    });
    on(table, world, me, &codes::RPC_RRDB_RRDB_SCAN, |state, _, asked: ScanRequest, fault| {
        match state.scans.remove(&asked.context_id) {
            Some(scan) if fault != Some(Fault::LoseContext) => batch(state, scan, fault),
            _ => ScanResponse { error: status::NOT_FOUND, ..ScanResponse::default() },
        }
    });
    let (world, me) = (world.clone(), me.clone());
    table.on(&codes::RPC_RRDB_RRDB_CLEAR_SCANNER, move |ctx, request, replier| {
        let me = *me.lock();
        world.edit(|state| {
            state.arrive(me, &request);
            state.scans.remove(&request.decode::<i64>().unwrap());
        });
        replier.forget(ctx);
    });
}

/// The next batch of a scan; its place is kept under a new number when there is more.
fn batch(state: &mut State, mut scan: FakeScan, fault: Option<Fault>) -> ScanResponse {
    let size = match fault {
        Some(Fault::OutOfTime) => {
            return ScanResponse { error: status::INCOMPLETE, ..ScanResponse::default() };
        }
        Some(Fault::EmptyBatch) => 0,
        _ => scan.batch.min(scan.rows.len()),
    };
    let rows: Vec<KeyValue> = scan.rows.drain(..size).collect();
    let mut context_id = scan_context::COMPLETED;
    if !scan.rows.is_empty() || fault == Some(Fault::EmptyBatch) {
        state.next_context += 1;
        context_id = state.next_context;
        state.scans.insert(context_id, scan);
    }
    ScanResponse { kvs: rows.into(), context_id, ..ScanResponse::default() }
}
