//! Commands about many records: hash_scan, full_scan, count_data.

use pegasus_client::{ScanOptions, Scanner};
use serde_json::json;

use crate::Shell;
use crate::cli::{RangeArgs, ScanCommand, TableScanArgs};
use crate::output::cell;
use crate::values::filter_or_none;

/// Records asked for at a time; servers give no more.
const BATCH: i32 = 1000;

/// Runs one.
pub fn run(shell: &mut Shell, command: ScanCommand) -> anyhow::Result<()> {
    match command {
        ScanCommand::HashScan { key, range, max } => {
            let values = !range.no_value;
            let (start, stop) = (range.start.clone(), range.stop.clone());
            let options = hash_options(range, max);
            let table = shell.table(&key.table);
            let scanner = table.scan(&key.hash_key, &start, &stop, &options)?;
            show(shell, scanner, values, max)
        }
        ScanCommand::FullScan { what, no_value, max } => {
            let options = ScanOptions { batch_size: batch(max), ..table_options(&what, no_value) };
            let scanner = whole(shell, &what.table, &options)?;
            show(shell, scanner, !no_value, max)
        }
        ScanCommand::CountData(what) => {
            let options = table_options(&what, true);
            let mut count = 0u64;
            for record in whole(shell, &what.table, &options)? {
                record?;
                count += 1;
            }
            Ok(shell.out.value("count", json!(count))?)
        }
    }
}

fn batch(max: u64) -> i32 {
    match i32::try_from(max) {
        Ok(max @ 1..=BATCH) => max,
        _ => BATCH,
    }
}

fn hash_options(range: RangeArgs, max: u64) -> ScanOptions {
    ScanOptions {
        batch_size: batch(max),
        start_inclusive: !range.start_exclusive,
        stop_inclusive: range.stop_inclusive,
        no_value: range.no_value,
        sort_key_filter: filter_or_none(range.sort_key_filter),
        ..ScanOptions::default()
    }
}

fn table_options(what: &TableScanArgs, no_value: bool) -> ScanOptions {
    ScanOptions {
        batch_size: BATCH,
        no_value,
        hash_key_filter: filter_or_none(what.hash_key_filter.clone()),
        sort_key_filter: filter_or_none(what.sort_key_filter.clone()),
        ..ScanOptions::default()
    }
}

/// All partitions, one after the other.
fn whole(
    shell: &Shell,
    table: &str,
    options: &ScanOptions,
) -> anyhow::Result<impl Iterator<Item = <Scanner as Iterator>::Item> + use<>> {
    Ok(shell.table(table).unordered_scanners(1, options)?.into_iter().flatten())
}

fn show(
    shell: &mut Shell,
    records: impl Iterator<Item = <Scanner as Iterator>::Item>,
    values: bool,
    max: u64,
) -> anyhow::Result<()> {
    let columns = ["Hash Key", "Sort Key", "Value"];
    let columns = if values { &columns[..] } else { &columns[..2] };
    let mut rows = shell.out.rows(columns)?;
    let mut failed = None;
    let max = if max == 0 { usize::MAX } else { usize::try_from(max).unwrap_or(usize::MAX) };
    for record in records.take(max) {
        match record {
            Ok((hash_key, sort_key, value)) => {
                let mut row = vec![cell(&hash_key), cell(&sort_key)];
                if values {
                    row.push(cell(&value));
                }
                rows.push(row)?;
            }
            Err(error) => failed = Some(error),
        }
    }
    rows.finish()?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}
