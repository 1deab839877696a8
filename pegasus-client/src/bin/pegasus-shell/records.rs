//! Commands about records by key.

use bytes::Bytes;
use pegasus_client::schema::key::Escaped;
use pegasus_client::{Check, Found, MultiGet, Ttl};
use serde_json::{Value, json};

use crate::Shell;
use crate::cli::{CheckAndSetArgs, HashKeyArgs, HashKeyCommand, KeyArgs, RangeArgs, RecordCommand};
use crate::output::cell;
use crate::values::filter_or_none;

/// Runs one.
pub fn run(shell: &mut Shell, command: RecordCommand) -> anyhow::Result<()> {
    match command {
        RecordCommand::Set { key, value, ttl } => {
            let table = shell.table(&key.table);
            table.set_ttl(&key.hash_key, &key.sort_key, value, Ttl::Seconds(ttl))?;
            done(shell)
        }
        RecordCommand::Get(key) => {
            let value = shell
                .table(&key.table)
                .get(&key.hash_key, &key.sort_key)?
                .ok_or_else(|| absent(&key))?;
            Ok(shell.out.value("value", cell(&value))?)
        }
        RecordCommand::Del(key) => {
            shell.table(&key.table).remove(&key.hash_key, &key.sort_key)?;
            done(shell)
        }
        RecordCommand::Exist(key) => {
            let exist = shell.table(&key.table).exist(&key.hash_key, &key.sort_key)?;
            Ok(shell.out.value("exist", json!(exist))?)
        }
        RecordCommand::Ttl(key) => {
            let left = shell
                .table(&key.table)
                .ttl(&key.hash_key, &key.sort_key)?
                .ok_or_else(|| absent(&key))?;
            let shown = match left {
                Some(seconds) => json!(seconds),
                None if shell.out.is_json() => Value::Null,
                None => json!("no expiry"),
            };
            Ok(shell.out.value("ttl_seconds", shown)?)
        }
        RecordCommand::Incr { key, by } => {
            let value = shell.table(&key.table).incr(&key.hash_key, &key.sort_key, by)?;
            Ok(shell.out.value("value", json!(value))?)
        }
        RecordCommand::CheckAndSet(args) => check_and_set(shell, args),
    }
}

/// Runs one about several records of a hash key.
pub fn run_several(shell: &mut Shell, command: HashKeyCommand) -> anyhow::Result<()> {
    match command {
        HashKeyCommand::MultiSet { key, records, ttl } => {
            let (pairs, rest) = records.as_chunks::<2>();
            anyhow::ensure!(
                rest.is_empty(),
                "the sort key \"{}\" has no value",
                Escaped(rest.first().map_or(b"", |word| word))
            );
            let pairs = pairs.iter().map(|[sort_key, value]| (sort_key.clone(), value.clone()));
            shell.table(&key.table).multi_set(&key.hash_key, pairs, Ttl::Seconds(ttl))?;
            done(shell)
        }
        HashKeyCommand::MultiGet { key, sort_keys, max } => {
            let what = MultiGet { sort_keys, max_count: max, ..MultiGet::default() };
            show(shell, &key, shell.table(&key.table).multi_get(&key.hash_key, &what)?, true)
        }
        HashKeyCommand::MultiGetRange { key, range, reverse, max } => {
            let with_values = !range.no_value;
            let what = range_of(range, reverse, max);
            show(shell, &key, shell.table(&key.table).multi_get(&key.hash_key, &what)?, with_values)
        }
        HashKeyCommand::MultiGetSortkeys { key, max } => {
            show(shell, &key, shell.table(&key.table).sort_keys(&key.hash_key, max)?, false)
        }
        HashKeyCommand::MultiDel { key, sort_keys } => {
            let count = shell.table(&key.table).multi_remove(&key.hash_key, sort_keys)?;
            Ok(shell.out.value("count", json!(count))?)
        }
        HashKeyCommand::Count(key) => {
            let count = shell.table(&key.table).sort_key_count(&key.hash_key)?;
            Ok(shell.out.value("count", json!(count))?)
        }
    }
}

fn range_of(range: RangeArgs, reverse: bool, max: i32) -> MultiGet {
    let (filter, pattern) = filter_or_none(range.sort_key_filter);
    MultiGet {
        start: range.start,
        stop: range.stop,
        start_inclusive: !range.start_exclusive,
        stop_inclusive: range.stop_inclusive,
        filter,
        pattern,
        reverse,
        no_value: range.no_value,
        max_count: max,
        ..MultiGet::default()
    }
}

fn check_and_set(shell: &mut Shell, args: CheckAndSetArgs) -> anyhow::Result<()> {
    let set_sort_key = args.set_sort_key.unwrap_or_else(|| args.check_sort_key.clone());
    let check = Check {
        sort_key: args.check_sort_key,
        kind: args.check_type.kind(),
        operand: args.operand,
    };
    let ttl = Ttl::Seconds(args.ttl);
    let checked = shell.table(&args.key.table).check_and_set(
        &args.key.hash_key,
        &check,
        &set_sort_key,
        args.value,
        ttl,
    )?;
    let before = checked.value.as_deref().map_or(Value::Null, cell);
    Ok(shell.out.pairs([("set", json!(checked.done)), ("value_before", before)])?)
}

fn done(shell: &mut Shell) -> anyhow::Result<()> {
    Ok(shell.out.value("result", json!("OK"))?)
}

fn absent(key: &KeyArgs) -> anyhow::Error {
    let KeyArgs { table, hash_key, sort_key } = key;
    anyhow::anyhow!(
        "no such record (table {table}, hash key \"{}\", sort key \"{}\")",
        Escaped(hash_key),
        Escaped(sort_key)
    )
}

/// Records of one hash key. That a limit has cut them goes to standard error.
fn show(shell: &mut Shell, key: &HashKeyArgs, found: Found, values: bool) -> anyhow::Result<()> {
    let row = |(sort_key, value): &(Bytes, Bytes)| match values {
        true => vec![cell(sort_key), cell(value)],
        false => vec![cell(sort_key)],
    };
    let columns = ["Sort Key", "Value"];
    let columns = if values { &columns[..] } else { &columns[..1] };
    shell.out.table(columns, found.records.iter().map(row).collect())?;
    if !found.complete {
        shell.out.flush()?;
        eprintln!(
            "note: a limit has cut the answer, hash key \"{}\" has more records (see hash_scan)",
            Escaped(&key.hash_key)
        );
    }
    Ok(())
}
