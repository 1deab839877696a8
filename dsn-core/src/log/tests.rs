//! What is logged, how it looks, and where it ends up.

use std::io;
use std::path::Path;

use tracing::subscriber::with_default;
use tracing::{debug, error, info, warn};

use super::*;
use crate::app::{AppError, AppHost, ServiceApp};
use crate::config::{Loader, core_schema};
use crate::exec::{Addr, BlockingCtx, Ctx};
use crate::sim::{NodeSpec, Sim, SimOptions};
use crate::time::Wall;

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Memory {
    /// Lines written since the last call.
    fn take(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock());
        String::from_utf8(bytes).expect("UTF-8").lines().map(str::to_owned).collect()
    }
}

fn config(sets: &[&str]) -> Config {
    let loader = sets.iter().fold(Loader::new(core_schema()), |loader, set| loader.set(set));
    loader.load().expect("valid")
}

/// Runs `test` with a log of its own, under a virtual clock.
fn logged(config: &Config, test: impl FnOnce(&Memory, &LogHandle)) {
    let memory = Memory::default();
    let options = config.section().expect("registered");
    let logger = Logger::to_sink(&options, memory.clone()).expect("valid");
    let handle = logger.handle();
    set_virtual_time(Some(Wall::from_unix_micros(1_451_606_400_000_042)));
    with_default(logger.into_subscriber(), || test(&memory, &handle));
    set_virtual_time(None);
    set_thread(None);
}

#[test]
fn lines_say_when_where_and_during_what() {
    let label = Arc::new(NodeLabel {
        name: "replica1".into(),
        stages: vec!["THREAD_POOL_DEFAULT".into(), "THREAD_POOL_REPLICATION".into()],
    });
    logged(&config(&[]), |memory, _| {
        info!("starting");
        set_thread(Some((&label, Thread::Worker(3))));
        warn!(target: "a::b", peer = "h:1", "no {}", "answer");
        set_task(Some(("RPC_PREPARE", 1)));
        error!(target: "a::b", count = 3, name = "two words", empty = "", "failed");
        set_thread(Some((&label, Thread::Pool(0))));
        info!(target: "c", ok = true, text = %"plain");
        let time = "2016-01-01 00:00:00.000042";
        assert_eq!(
            memory.take(),
            [
                format!("I{time} - - - dsn_core::log::tests: starting"),
                format!("W{time} replica1 -/w3 - a::b: no answer peer=h:1"),
                format!(
                    "E{time} replica1 REPLICATION/w3 RPC_PREPARE a::b: failed count=3 \
                     name=\"two words\" empty=\"\""
                ),
                format!("I{time} replica1 -/p0 - c: ok=true text=plain"),
            ]
        );
    });
}

#[test]
fn one_event_is_one_line_of_bounded_length() {
    logged(&config(&[]), |memory, _| {
        info!(key = %"a\nI2016 forged\r\x1b[2J", "two\nlines");
        let lines = memory.take();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].ends_with(r"two\nlines key=a\nI2016 forged\r\u{1b}[2J"), "{}", lines[0]);
        info!(value = %"ä".repeat(LINE_MAX), after = 1, "huge");
        let lines = memory.take();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].ends_with("ä...") && (LINE_MAX - 8..LINE_MAX).contains(&lines[0].len()));
    });
}

#[test]
fn levels_change_at_run_time_and_by_module() {
    let config = config(&["core.logging_targets=a::b=debug"]);
    let say = |memory: &Memory| {
        debug!(target: "a", "1");
        debug!(target: "a::b", "2");
        debug!(target: "a::bc", "3");
        debug!(target: "a::b::c", "4");
        info!(target: "a", "5");
        error!(target: "a::b::x", "6");
        memory.take().iter().filter_map(|line| line.chars().last()).collect::<String>()
    };
    logged(&config, |memory, handle| {
        let refreshed = handle.clone();
        config.on_change(START_LEVEL, move || refreshed.refresh()).expect("known");
        let commands = Commands::new("v");
        handle.add_commands(&commands, &config);
        assert_eq!(say(memory), "2456");
        assert_eq!(commands.run_now("reset-log-start-level DEBUG"), "OK, current level is debug");
        assert_eq!(say(memory), "123456");
        assert_eq!(
            commands.run_now("log-target-level a::b::x fatal"),
            "a::b=debug\na::b::x=fatal\n"
        );
        assert_eq!(
            commands.run_now("reset-log-start-level LOG_LEVEL_ERROR"),
            "OK, current level is error"
        );
        assert_eq!(say(memory), "24");
        assert_eq!(commands.run_now("log-target-level a::b DEFAULT"), "a::b::x=fatal\n");
        assert_eq!(say(memory), "");
        assert_eq!(commands.run_now("reset-log-start-level"), "OK, current level is info");
        assert_eq!(say(memory), "5");
        assert_eq!(commands.run_now("reset-log-start-level loud"), "ERR: loud: no such level");
        assert_eq!(commands.run_now("flush-log"), "Flush done.");
        assert_eq!(config.get(START_LEVEL).expect("known").plain_value(), "info");
    });
}

#[test]
fn a_bad_target_is_refused() {
    let options = config(&["core.logging_targets=a::b"]).section().expect("registered");
    let error = Logger::to_sink(&options, Memory::default()).expect_err("no level");
    assert!(error.to_string().contains("\"a::b\": expected"), "{error}");
}

fn file_names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("directory");
    let names = entries.map(|entry| entry.expect("entry").file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// A directory that vanishes with the value.
struct TempDir(PathBuf);

impl TempDir {
    #[expect(clippy::disallowed_methods, reason = "looks at real log files")]
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dsn-log-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for TempDir {
    #[expect(clippy::disallowed_methods, reason = "looks at real log files")]
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "looks at real log files")]
fn files_rotate_and_the_oldest_go() {
    let dir = TempDir::new("rotate");
    let mut file = RotatingFile::open(&dir.0, 100, 3).expect("opened");
    let line = [b'x'; 40];
    for _ in 0..2 {
        file.write(&line).expect("written");
    }
    assert_eq!(file_names(&dir.0), ["log.1.txt"]);
    file.write(&line).expect("written");
    assert_eq!(file_names(&dir.0), ["log.1.txt", "log.2.txt"]);
    file.write(&[b'y'; 500]).expect("a line longer than a file has one of its own");
    file.write(&line).expect("written");
    assert_eq!(file_names(&dir.0), ["log.2.txt", "log.3.txt", "log.4.txt"]);
    assert_eq!(std::fs::read(dir.0.join("log.3.txt")).expect("file").len(), 500);

    // A second process, or a restart, goes on behind the last file; other files are left alone.
    std::fs::write(dir.0.join("log.old.txt"), "").expect("written");
    drop(file);
    RotatingFile::open(&dir.0, 100, 3).expect("opened");
    assert_eq!(file_names(&dir.0), ["log.3.txt", "log.4.txt", "log.5.txt", "log.old.txt"]);
}

#[test]
fn every_line_is_in_the_file_when_it_is_logged() {
    let dir = TempDir::new("written");
    let log_dir = format!("core.log_dir={}", dir.0.display());
    let options = config(&[&log_dir]).section().expect("registered");
    let logger = Logger::new(&options).expect("opened");
    let handle = logger.handle();
    with_default(logger.into_subscriber(), || {
        info!("first");
        info!("second");
        let text = std::fs::read_to_string(dir.0.join("log.1.txt")).expect("file");
        assert!(text.lines().count() == 2 && text.ends_with("second\n"), "{text}");
    });
    assert_eq!(handle.lost(), 0);
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error() {
    let options = config(&["core.log_dir=/dev/null/log"]).section().expect("registered");
    let error = Logger::new(&options).expect_err("no directory");
    assert!(error.to_string().starts_with("cannot log to /dev/null/log: "), "{error}");
}

crate::task_codes! {
    CODES;
    LPC_LOG_LATER: Compute, Common, "THREAD_POOL_REPLICATION";
    LPC_LOG_JOB: Blocking, Common, "THREAD_POOL_SCAN";
}

/// Says something when it starts, from a timer, and from a thread that may block.
struct Talker;

impl ServiceApp for Talker {
    fn start(&mut self, ctx: &mut Ctx<'_>, me: Addr<AppHost>) -> Result<(), AppError> {
        info!("begin");
        let timer = ctx.after(me, &LPC_LOG_LATER, std::time::Duration::from_secs(90), |_, _| {
            info!("later");
        });
        let _ = timer;
        let job = |_: &BlockingCtx<'_>| info!("job");
        ctx.offload(&LPC_LOG_JOB, job, me, |_, (), _| {});
        Ok(())
    }
}

#[test]
fn simulated_nodes_log_under_their_names_in_virtual_time() {
    crate::code::register(CODES);
    logged(&config(&[]), |memory, _| {
        let mut sim = Sim::new(7, SimOptions::default());
        for name in ["n1", "n2"] {
            let last = name.as_bytes()[1] - b'0';
            let ip = std::net::IpAddr::from([10, 0, 0, last]);
            let node = sim.add_node(NodeSpec::new(name, ip, 1, || Box::new(Talker)));
            sim.start(node).expect("started");
        }
        sim.run_for(std::time::Duration::from_secs(100));
        info!("between the turns");
        drop(sim);
        let lines: Vec<String> = memory.take().iter().map(|line| prefix_of(line)).collect();
        for name in ["n1", "n2"] {
            for line in [
                format!("00:00 {name} DEFAULT/w0 LPC_APP_START begin"),
                format!("01:30 {name} REPLICATION/w0 LPC_LOG_LATER later"),
                format!("00:00 {name} SCAN/p0 LPC_LOG_JOB job"),
            ] {
                assert!(lines.contains(&line), "{line} is not among {lines:#?}");
            }
        }
        assert_eq!(lines.last().map(String::as_str), Some("01:40 - - - turns"));
    });
}

/// Minutes and seconds, node, place, code, and the last word of a line.
fn prefix_of(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let (place, last) = (words[2..5].join(" "), words[words.len() - 1]);
    format!("{} {place} {last}", &words[1][3..8])
}
