//! The end of a real server process: by a signal, by a second one, by the deadline, by itself.
//!
//! A process of its own is what is tested, so this program is both: started with [`MODE`] in its environment it is the
//! server, else it runs the cases, each of which starts itself again.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(clippy::disallowed_methods, reason = "a native test lives outside the runtime")]

use dsn_core::app::{AppError, AppHost, ServiceApp};
use dsn_core::boot::Program;
use dsn_core::config::core_schema;
use dsn_core::exec::{Addr, BlockingCtx, Ctx};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Which server a process of this program is.
const MODE: &str = "DSN_TEST_SERVER";
/// Longer than any case waits for anything that should happen.
const LIMIT: Duration = Duration::from_secs(20);
/// When the server does what it is for, after its start.
const SOON: Duration = Duration::from_millis(50);
const SIGTERM: i32 = 15;
const SIGINT: i32 = 2;

dsn_core::task_codes! {
    /// Codes of the server.
    pub CODES;
    /// Work that may never end.
    pub LPC_BOOT_WORK: Compute, Common, "THREAD_POOL_DEFAULT";
    /// A job that never ends.
    pub LPC_BOOT_JOB: Blocking, Common, "THREAD_POOL_SCAN";
}

/// A server whose name says how it behaves.
struct Server {
    mode: String,
    instance: String,
}

impl ServiceApp for Server {
    fn start(&mut self, ctx: &mut Ctx<'_>, me: Addr<AppHost>) -> Result<(), AppError> {
        match self.mode.as_str() {
            "refuses" => return Err(AppError("not today".into())),
            "blocked worker" => {
                ctx.after(me, &LPC_BOOT_WORK, SOON, |_, _| hang());
            }
            "blocked job" => {
                ctx.offload(&LPC_BOOT_JOB, |_: &BlockingCtx<'_>| hang(), me, |_, (), _| ())
            }
            "ends by itself" => {
                ctx.after(me, &LPC_BOOT_WORK, SOON, |_, ctx| ctx.node().stop());
            }
            _ => {}
        }
        Ok(())
    }

    fn stop(&mut self, ctx: &mut Ctx<'_>) {
        tracing::info!("stop of {}", self.instance);
        if self.mode != "never stops" {
            ctx.node().stop();
        }
    }
}

/// Blocks the thread, longer than any case lasts.
fn hang() {
    tracing::info!("hangs");
    std::thread::sleep(10 * LIMIT);
}

fn serve(mode: String) -> ExitCode {
    let program = Program {
        name: "test-server",
        version: "1".to_owned(),
        schema: core_schema(),
        codes: vec![CODES],
        apps: vec![(
            "server",
            Arc::new(move |instance| {
                let (mode, instance) =
                    (mode.clone(), format!("{}{}", instance.name, instance.index));
                Ok(Box::new(move || -> Box<dyn ServiceApp> { Box::new(Server { mode, instance }) }))
            }),
        )],
    };
    program.main()
}

/// A server process and the lines of its log.
struct Process {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    fn start(mode: &str, sets: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(MODE, mode).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for set in ["apps.server.count=1", "runtime.workers=2"].iter().chain(sets) {
            command.args(["--set", set]);
        }
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| tell.send(line).ok())
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line of the log.
    fn line(&mut self, part: &str) -> String {
        let begun = Instant::now();
        loop {
            let left = LIMIT.saturating_sub(begun.elapsed());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line has {part:?}: {:#?}", self.seen);
            };
            self.seen.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    fn signal(&self, signal: i32) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end; how it ended, and after how long.
    fn end(mut self) -> (ExitStatus, Duration, Vec<String>) {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < LIMIT, "it does not end: {:#?}", self.seen);
            std::thread::sleep(Duration::from_millis(5));
        };
        let took = begun.elapsed();
        self.seen.extend(self.lines.iter());
        (status, took, std::mem::take(&mut self.seen))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn a_signal_ends_it_orderly() {
    for signal in [SIGTERM, SIGINT] {
        let mut process = Process::start("plain", &["apps.server.count=3"]);
        for _ in 0..3 {
            process.line("started");
        }
        process.signal(signal);
        let (status, _, lines) = process.end();
        assert_eq!(status.code(), Some(0), "{lines:#?}");
        let stops: Vec<&str> =
            lines.iter().filter_map(|line| line.split("stop of ").nth(1)).collect();
        assert_eq!(stops, ["server3", "server2", "server1"], "in reverse order of their start");
    }
}

fn a_second_signal_ends_it_at_once() {
    for (first, second) in [(SIGTERM, SIGTERM), (SIGINT, SIGTERM), (SIGTERM, SIGINT)] {
        let mut process = Process::start("never stops", &["core.shutdown_timeout=600s"]);
        process.line("started");
        process.signal(first);
        process.line("stop of server1");
        process.signal(second);
        let (status, took, lines) = process.end();
        assert_eq!(status.signal(), Some(second), "{lines:#?}");
        assert!(took < Duration::from_secs(5), "at once, not after {took:?}");
    }
}

fn the_deadline_ends_what_does_not_stop() {
    for mode in ["never stops", "blocked worker", "blocked job"] {
        let mut process = Process::start(mode, &["core.shutdown_timeout=1s"]);
        process.line(if mode.starts_with("blocked") { "hangs" } else { "started" });
        process.signal(SIGTERM);
        let (status, took, lines) = process.end();
        assert_eq!(status.code(), Some(1), "{mode}: {lines:#?}");
        let late = Duration::from_secs(6);
        assert!((Duration::from_millis(900)..late).contains(&took), "{mode}: {took:?}");
        assert!(
            lines.iter().any(|line| line.contains("shutdown took too long")),
            "{mode}: {lines:#?}"
        );
    }
}

fn a_blocked_worker_is_named_while_it_is_blocked() {
    let mut process = Process::start("blocked worker", &[]);
    let line = process.line("worker stuck");
    assert!(line.contains("code=LPC_BOOT_WORK") && line.contains("worker=0"), "{line}");
}

fn a_node_that_ends_by_itself_ends_the_process() {
    let mut process = Process::start("ends by itself", &[]);
    process.line("a node has ended by itself");
    let (status, took, _) = process.end();
    assert_eq!(status.code(), Some(1), "nobody has asked for it");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

fn a_refused_start_says_why() {
    let mut process = Process::start("refuses", &[]);
    process.line("not today");
    assert_eq!(process.end().0.code(), Some(1));
    let mut unknown = Process::start("plain", &["apps.server.type=nothing"]);
    unknown.line("unknown app type nothing");
    assert_eq!(unknown.end().0.code(), Some(1));
}

fn main() -> ExitCode {
    if let Ok(mode) = std::env::var(MODE) {
        return serve(mode);
    }
    let cases: [(&str, fn()); 6] = [
        ("a_signal_ends_it_orderly", a_signal_ends_it_orderly),
        ("a_second_signal_ends_it_at_once", a_second_signal_ends_it_at_once),
        ("the_deadline_ends_what_does_not_stop", the_deadline_ends_what_does_not_stop),
        (
            "a_blocked_worker_is_named_while_it_is_blocked",
            a_blocked_worker_is_named_while_it_is_blocked,
        ),
        (
            "a_node_that_ends_by_itself_ends_the_process",
            a_node_that_ends_by_itself_ends_the_process,
        ),
        ("a_refused_start_says_why", a_refused_start_says_why),
    ];
    for (name, case) in cases {
        println!("test {name}");
        case();
    }
    ExitCode::SUCCESS
}
