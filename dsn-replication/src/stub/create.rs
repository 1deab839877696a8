//! Making replicas: an empty one, or one in the place of another, with the files of a checkpoint or empty.
//!
//! What is made is durable, and its name as well, before anything may rest on it; its records come after the end that
//! the log has then.

use super::layout;
use super::open::{Opened, close, open_machine};
use crate::dirs::sync_parent;
use crate::ids::{Ballot, Decree};
use crate::log::SharedLog;
use crate::replica::recovery::Recovered;
use crate::state_machine::{OpenArgs, StateMachineFactory};
use crate::wire::config::AppInfo;
use dsn_core::exec::BlockingCtx;
use dsn_rpc::gpid::Gpid;
use std::io;
use std::path::Path;

/// Where a replica begins that is made now.
fn floor_in(log: &SharedLog) -> Result<u64, String> {
    let floor = log.end();
    // Behind the end of a failed log there may be records.
    log.failure().map_or(Ok(floor), |error| Err(error.to_string()))
}

/// Creates and opens a new, empty replica whose records will come after the present end of `log`.
///
/// # Errors
/// In words.
pub fn create_new(
    job: &BlockingCtx<'_>,
    factory: &dyn StateMachineFactory,
    data_dir: &Path,
    log: &SharedLog,
    (gpid, info, ballot): (Gpid, &AppInfo, i64),
) -> Result<Opened, String> {
    let dir = layout::replica_dir(data_dir, gpid, factory.app_type());
    let floor = floor_in(log)?;
    let init = layout::InitInfo::new(ballot, 0, floor);
    layout::create_new(&**job.disk(), &dir, info, &init).map_err(|error| error.to_string())?;
    let args = OpenArgs { dir: &dir, gpid, info };
    let machine = open_machine(job, factory, &args).map_err(|error| error.to_string())?;
    log.register(gpid, Decree::ZERO, floor, Ballot(ballot));
    Ok(Opened { gpid, info: info.clone(), dir, machine, recovered: Recovered::default() })
}

/// Opens a replica anew in the place of the one in `dir`, whose state machine is closed: with the files in `learned`, a
/// directory of [`layout::learn_dir`], that have everything up to a decree; or empty. Its records will come after the
/// present end of `log`; the old ones are void.
///
/// # Errors
/// In words.
pub fn open_learned(
    job: &BlockingCtx<'_>,
    factory: &dyn StateMachineFactory,
    log: &SharedLog,
    dir: &Path,
    learned: Option<(&Path, Decree)>,
    (gpid, info, ballot): (Gpid, &AppInfo, Ballot),
) -> Result<Opened, String> {
    let text = |error: io::Error| error.to_string();
    let disk = job.disk();
    let floor = floor_in(log)?;
    let (from, decree) = match learned {
        Some((from, decree)) => (from.to_owned(), decree),
        None => (layout::learn_dir(dir), Decree::ZERO),
    };
    if learned.is_none() && disk.exists(&from) {
        disk.remove_dir_all(&from).map_err(text)?;
    }
    layout::create(&**disk, &from, info, &layout::InitInfo::new(ballot.0, decree.0, floor))
        .map_err(text)?;
    let now_us = job.wall().unix_micros();
    let old = layout::put_aside(&**disk, dir, now_us, "gar").map_err(text)?;
    disk.rename(&from, dir).map_err(text)?;
    sync_parent(&**disk, dir).map_err(text)?;
    log.register(gpid, decree, floor, ballot);
    let args = OpenArgs { dir, gpid, info };
    let machine = open_machine(job, factory, &args).map_err(|error| error.to_string())?;
    if machine.last_applied() != decree {
        close(job, &*machine);
        let has = machine.last_applied();
        return Err(format!("it has everything up to {has}, not {decree}"));
    }
    if let Err(error) = disk.remove_dir_all(&old) {
        tracing::warn!(%gpid, %error, "the replica that was replaced stays in {}", old.display());
    }
    let recovered = Recovered { ballot, ..Recovered::default() };
    Ok(Opened { gpid, info: info.clone(), dir: dir.to_owned(), machine, recovered })
}
