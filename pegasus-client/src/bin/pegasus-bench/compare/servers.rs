//! What is compared: starting servers, pinning them to a CPU, removing everything afterwards.
//!
//! Servers are children of this process and inherit its CPU. They end with it: each has a guard
//! that stops it when dropped.

use anyhow::{Context, bail, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long Redis may take to rewrite its file, in steps of [`REWRITE_STEP`].
const REWRITE_STEPS: u32 = 600;
const REWRITE_STEP: Duration = Duration::from_millis(100);
/// How long Redis may take to start, in the same steps.
const START_STEPS: u32 = 100;
/// Redis's file is rewritten when it is larger.
const FILE_MAX: u64 = 512 << 20;

/// One of the servers, as the client sees it.
#[derive(Debug, Clone)]
pub struct Contender {
    /// Name in messages.
    pub name: &'static str,
    /// Flags of a run against it.
    pub flags: Vec<String>,
    /// Its processes.
    pub pids: Vec<u32>,
    /// Whether it keeps what is written.
    pub stores: bool,
}

impl Contender {
    /// A Pegasus cluster.
    pub fn pegasus(meta: &str, table: &str, pids: Vec<u32>) -> Self {
        let flags = ["--meta", meta, "--table", table].map(str::to_owned).to_vec();
        Self { name: "pegasus", flags, pids, stores: true }
    }

    fn redis(name: &'static str, addr: SocketAddr, pids: Vec<u32>, stores: bool) -> Self {
        Self { name, flags: vec!["--redis".into(), addr.to_string()], pids, stores }
    }
}

/// Puts processes on one CPU; what was there before comes back when it is dropped.
#[derive(Debug)]
pub struct Pin {
    cpu: Option<usize>,
    before: Vec<(Pid, CpuSet)>,
}

impl Pin {
    /// Puts this process, and with it every later child, on `cpu`.
    ///
    /// # Errors
    /// When the CPU does not exist or may not be used.
    pub fn new(cpu: Option<usize>) -> anyhow::Result<Self> {
        if let Some(cpu) = cpu {
            ensure!(cpu < CpuSet::MAX_CPU, "--cpu {cpu}: at most {}", CpuSet::MAX_CPU - 1);
            sched_setaffinity(None, &only(cpu)).with_context(|| format!("using CPU {cpu}"))?;
        }
        Ok(Self { cpu, before: Vec::new() })
    }

    /// Puts running processes there too.
    ///
    /// # Errors
    /// When one may not be moved.
    pub fn pin_processes(&mut self, pids: &[u32]) -> anyhow::Result<()> {
        let Some(cpu) = self.cpu else { return Ok(()) };
        for &pid in pids {
            for tid in crate::procfs::threads(pid).with_context(|| format!("process {pid}"))? {
                let Some(tid) = i32::try_from(tid).ok().and_then(Pid::from_raw) else { continue };
                let Ok(before) = sched_getaffinity(Some(tid)) else { continue };
                sched_setaffinity(Some(tid), &only(cpu))
                    .with_context(|| format!("moving process {pid} to CPU {cpu}"))?;
                self.before.push((tid, before));
            }
        }
        Ok(())
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        for (tid, set) in &self.before {
            // A thread may have ended meanwhile.
            let _ = sched_setaffinity(Some(*tid), set);
        }
    }
}

fn only(cpu: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(cpu);
    set
}

/// A folder that is removed again.
#[derive(Debug)]
pub struct Temp(PathBuf);

impl Temp {
    /// A folder of its own within `parent`, or within the system's temporary one.
    ///
    /// # Errors
    /// When it cannot be made.
    #[expect(clippy::disallowed_methods, reason = "a client program's folder for its children")]
    pub fn new(parent: Option<&Path>) -> anyhow::Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let path = parent.join(format!("pegasus-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temp {
    #[expect(clippy::disallowed_methods, reason = "a client program's folder for its children")]
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} could not be removed: {error}", self.0.display());
        }
    }
}

/// A child that ends with its guard.
#[derive(Debug)]
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Redis server of our own, with its replicas.
#[derive(Debug)]
pub struct Redis {
    child: Guard,
    addr: SocketAddr,
    /// What it says of itself.
    pub version: String,
    replicas: Vec<Self>,
}

impl Redis {
    /// Starts `program` on a free port with its files in `dir`, and so many replicas of it.
    ///
    /// # Errors
    /// When there is no such program, or it does not serve.
    pub fn start(program: &Path, dir: &Path, replicas: usize) -> anyhow::Result<Self> {
        let mut redis = Self::start_one(program, &Self::dir(dir, 0)?, None)?;
        for number in 1..=replicas {
            let dir = Self::dir(dir, number)?;
            redis.replicas.push(Self::start_one(program, &dir, Some(redis.addr))?);
        }
        for _ in 0..START_STEPS {
            let text = redis.ask("INFO replication")?;
            if text.matches("state=online").count() == replicas {
                return Ok(redis);
            }
            std::thread::park_timeout(REWRITE_STEP);
        }
        bail!("not all replicas of redis follow it")
    }

    #[expect(clippy::disallowed_methods, reason = "a client program's folder for its children")]
    fn dir(parent: &Path, number: usize) -> anyhow::Result<PathBuf> {
        let dir = parent.join(format!("redis-{number}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(dir)
    }

    fn start_one(program: &Path, dir: &Path, of: Option<SocketAddr>) -> anyhow::Result<Self> {
        let named = || format!("starting {}", program.display());
        let port = free_port()?;
        let mut command = Command::new(program);
        if let Some(of) = of {
            command.args(["--replicaof", &format!("{} {}", of.ip(), of.port())]);
        }
        let child = command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "everysec"])
            // Growth is limited by `compact`, between measurements.
            .args(["--auto-aof-rewrite-percentage", "0"])
            .args(["--repl-diskless-sync-delay", "0", "--dir"])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(named)?;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let mut redis =
            Self { child: Guard(child), addr, version: String::new(), replicas: Vec::new() };
        for _ in 0..START_STEPS {
            if let Some(status) = redis.child.0.try_wait().with_context(named)? {
                bail!("{} ended at once: {status}", program.display());
            }
            if let Ok(text) = redis.ask("INFO server") {
                let number = field(&text, "redis_version:").unwrap_or("of unknown version");
                redis.version = format!("Redis {number}");
                return Ok(redis);
            }
            std::thread::park_timeout(REWRITE_STEP);
        }
        bail!("{} does not serve on {addr}", program.display())
    }

    /// As the client sees it.
    pub fn contender(&self) -> Contender {
        let replicas = self.replicas.iter().map(|replica| replica.child.0.id());
        let pids = std::iter::once(self.child.0.id()).chain(replicas).collect();
        let mut contender = Contender::redis("redis", self.addr, pids, true);
        if !self.replicas.is_empty() {
            contender.flags.extend(["--redis-wait".into(), self.replicas.len().to_string()]);
        }
        contender
    }

    /// Makes it rewrite its file when that has become large, and waits.
    ///
    /// # Errors
    /// When it does not answer, or does not come to an end.
    pub fn compact(&self) -> anyhow::Result<()> {
        for server in std::iter::once(self).chain(&self.replicas) {
            server.compact_one()?;
        }
        Ok(())
    }

    fn compact_one(&self) -> anyhow::Result<()> {
        let size = self.ask("INFO persistence")?;
        let size = field(&size, "aof_current_size:").and_then(|text| text.parse().ok());
        if size.unwrap_or(0u64) < FILE_MAX {
            return Ok(());
        }
        self.ask("BGREWRITEAOF")?;
        for _ in 0..REWRITE_STEPS {
            std::thread::park_timeout(REWRITE_STEP);
            let text = self.ask("INFO persistence")?;
            let over = |name| field(&text, name) == Some("0");
            if over("aof_rewrite_in_progress:") && over("aof_rewrite_scheduled:") {
                return Ok(());
            }
        }
        bail!("redis does not finish rewriting its file")
    }

    /// Sends one command in the inline form and returns the raw answer.
    #[expect(clippy::disallowed_methods, reason = "a client program's question, outside any run")]
    fn ask(&self, command: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.addr).context("connecting to redis")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text).context("asking redis")?;
        ensure!(!text.starts_with('-'), "redis: {}", text.trim());
        Ok(text)
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[expect(clippy::disallowed_methods, reason = "only asks the system for a free port")]
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("looking for a free port")?.local_addr()?.port())
}

/// The control, as a process of its own.
#[derive(Debug)]
pub struct NullServer {
    child: Guard,
    addr: SocketAddr,
}

impl NullServer {
    /// Starts it; its values have `size` bytes.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(size: usize) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["null-server", "--value-size", &size.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the null server")?;
        let stdout = child.stdout.take();
        let child = Guard(child);
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let addr = line.trim().parse().context("the address of the null server")?;
        Ok(Self { child, addr })
    }

    /// As the client sees it.
    pub fn contender(&self) -> Contender {
        Contender::redis("null server", self.addr, vec![self.child.0.id()], false)
    }
}

/// A cluster of the product on this machine, under the project's own script.
#[derive(Debug)]
pub struct Onebox {
    script: PathBuf,
    dir: PathBuf,
    port_base: u16,
}

impl Onebox {
    /// Starts it with its files in `dir` and so many replica servers, each with a copy of every partition.
    ///
    /// # Errors
    /// When the script fails.
    pub fn start(
        script: &Path,
        dir: &Path,
        port_base: u16,
        table: &str,
        servers: usize,
    ) -> anyhow::Result<Self> {
        let onebox = Self { script: script.to_path_buf(), dir: dir.join("onebox"), port_base };
        eprintln!("starting a onebox in {}", onebox.dir.display());
        let (port_base, servers) = (port_base.to_string(), servers.to_string());
        let numbers = ["--port-base", &port_base, "-r", &servers, "--replicas", &servers];
        onebox.call("start_onebox", &[&numbers[..], &["--app_name", table]].concat())?;
        Ok(onebox)
    }

    fn call(&self, verb: &str, args: &[&str]) -> anyhow::Result<()> {
        let output = Command::new("bash")
            .arg(&self.script)
            .arg(verb)
            .arg("--dir")
            .arg(&self.dir)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running {}", self.script.display()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        ensure!(
            output.status.success(),
            "{} {verb} failed: {}\n{}",
            self.script.display(),
            text(&output.stderr),
            text(&output.stdout)
        );
        Ok(())
    }

    /// As the client sees it.
    ///
    /// # Errors
    /// When the script has left no process numbers.
    pub fn contender(&self, table: &str) -> anyhow::Result<Contender> {
        let mut pids = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let Ok(text) = std::fs::read_to_string(entry?.path().join("pid")) else { continue };
            pids.push(text.trim().parse().context("a pid file of the onebox")?);
        }
        ensure!(!pids.is_empty(), "no pid files in {}", self.dir.display());
        let meta = format!("127.0.0.1:{}", self.port_base + 1);
        Ok(Contender::pegasus(&meta, table, pids))
    }
}

impl Drop for Onebox {
    fn drop(&mut self) {
        if let Err(error) = self.call("clear_onebox", &[]) {
            eprintln!("{error:#}");
        }
    }
}

/// CPU, number of CPUs and kernel of this machine.
pub fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown CPU", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{model}, {cpus} CPUs, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_redis_answers() {
        let text = "$30\r\n# Server\r\nredis_version:7.0.15\r\nx:1\r\n";
        assert_eq!(field(text, "redis_version:"), Some("7.0.15"));
        assert_eq!(field(text, "y:"), None);
    }

    #[test]
    fn a_missing_program_is_named() {
        let temp = Temp::new(None).unwrap();
        let error = Redis::start(Path::new("/nonexistent/redis"), temp.path(), 0).unwrap_err();
        assert!(format!("{error:#}").contains("/nonexistent/redis"), "{error:#}");
        let path = temp.path().to_path_buf();
        assert!(path.is_dir());
        drop(temp);
        assert!(!path.exists());
    }

    #[test]
    fn the_machine_is_described() {
        let text = machine();
        assert!(text.contains("Linux ") && !text.contains(" 0 CPUs"), "{text}");
    }
}
