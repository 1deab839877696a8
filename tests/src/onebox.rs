//! A native cluster of real processes for tests: a server program, one process per instance, loopback only.
#![expect(clippy::disallowed_methods, reason = "a test harness lives outside the runtime")]

use crate::kill_test::disk::SmallDisk;
use crate::kill_test::proxy::Proxy;
use pegasus_client::{ClientOptions, PegasusClient, TableSpec};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long an instance may take until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an instance may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a call of [`Onebox::with_table`]'s client may take.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(20);

/// What a [`Onebox`] is made of.
#[derive(Debug, Clone)]
pub struct OneboxOptions {
    /// Replica servers.
    pub replicas: usize,
    /// More `--set` options for every process.
    pub sets: Vec<String>,
    /// The program, below the folder of the built programs.
    pub program: &'static str,
    /// Its configuration, below the repository's folder.
    pub config: &'static str,
    /// Whether every server is reached through a [`Proxy`] alone, by clients and by other servers.
    pub proxied: bool,
    /// Bytes of the disk of the last replica server, which then has one of its own.
    pub small_disk: Option<u64>,
    /// Whether every server listens on a loopback address of its own, all on one port, as on machines of their own.
    pub own_addresses: bool,
}

impl Default for OneboxOptions {
    fn default() -> Self {
        Self {
            replicas: 3,
            sets: Vec::new(),
            program: "pegasus-server",
            config: "configs/onebox.toml",
            proxied: false,
            small_disk: None,
            own_addresses: false,
        }
    }
}

impl OneboxOptions {
    /// A cluster of one replica server, where every table has one replica of everything.
    pub fn single() -> Self {
        Self { replicas: 1, ..Self::default() }
    }
}

/// One process of the cluster.
#[derive(Debug)]
struct Instance {
    name: String,
    role: &'static str,
    /// Where it listens.
    ip: Ipv4Addr,
    port: u16,
    /// Where it is reached, if not there.
    front: Option<u16>,
    child: Option<Child>,
    disk: Option<SmallDisk>,
}

impl Instance {
    fn new(role: &'static str, number: usize) -> Self {
        let (name, port) = (format!("{role}@{number}"), free_port());
        Self { name, role, ip: Ipv4Addr::LOCALHOST, port, front: None, child: None, disk: None }
    }

    fn reached_at(&self) -> SocketAddr {
        SocketAddr::from((self.ip, self.front.unwrap_or(self.port)))
    }
}

/// A running cluster; dropped, it is killed and its folder removed (kept when the thread panics).
#[derive(Debug)]
pub struct Onebox {
    dir: PathBuf,
    instances: Vec<Instance>,
    options: OneboxOptions,
    proxy: Option<Proxy>,
    kept: bool,
}

/// The folder of the built programs.
pub fn program(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().expect("the test knows itself");
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let path = dir.join(name);
    let how = "cargo build --release --workspace --bins --examples";
    assert!(path.exists(), "{path:?} is not built: {how}");
    path
}

/// The repository's folder.
pub fn repository() -> PathBuf {
    // Asked when the test runs: clones of the repository may share what they compile.
    let tests = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    Path::new(&tests).parent().expect("tests/ is in the repository").to_owned()
}

/// A loopback port that was free a moment ago.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + (std::process::id() % 1000) as u16 * 10;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A `--port-base` for `run.sh start_onebox`: the ports of its servers were free a moment ago.
pub fn free_port_base() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        // Servers of other ones lie between these.
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % 20;
        let base = 10_000 + (std::process::id() % 40) as u16 * 250 + step * 10;
        if (1..=3).all(|n| free(base + n) && free(base + 200 + n)) {
            return base;
        }
    }
}

/// A new folder for a test's files.
pub fn scratch(name: &str) -> PathBuf {
    let unique = format!("pegasus-{name}-{}-{}", std::process::id(), free_port());
    let dir = std::env::temp_dir().join(unique);
    fs::create_dir_all(&dir).expect("a scratch folder");
    dir
}

impl Onebox {
    /// Starts one meta server and the replica servers and waits until all listen.
    pub fn start(name: &str, options: &OneboxOptions) -> Self {
        let mut instances = vec![Instance::new("meta", 1)];
        instances.extend((1..=options.replicas).map(|number| Instance::new("replica", number)));
        if options.own_addresses {
            let port = instances[0].port;
            for (host, instance) in (2..).zip(&mut instances) {
                (instance.ip, instance.port) = (Ipv4Addr::new(127, 0, 0, host), port);
            }
        }
        let dir = scratch(name);
        let proxy = options.proxied.then(|| {
            let backs: Vec<u16> = instances.iter().map(|instance| instance.port).collect();
            let proxy = Proxy::start(&backs);
            for (instance, front) in instances.iter_mut().zip(proxy.fronts()) {
                instance.front = Some(*front);
            }
            proxy
        });
        if let (Some(bytes), Some(last)) = (options.small_disk, instances.last_mut()) {
            let data = dir.join(&last.name).join("data");
            last.disk = Some(SmallDisk::mount(&data, bytes).expect("a small disk"));
        }
        let mut onebox = Self { dir, instances, options: options.clone(), proxy, kept: false };
        for index in 0..onebox.instances.len() {
            onebox.start_instance(index);
        }
        onebox
    }

    /// A client, and the table `temp` of 8 partitions with so many copies of each, ready.
    pub fn with_table(&self, copies: i32) -> PegasusClient {
        let mut options = ClientOptions::new([self.meta()]);
        options.timeout = CLIENT_TIMEOUT;
        let client = PegasusClient::with_options(options).expect("client");
        let spec = TableSpec {
            name: "temp".to_owned(),
            partitions: 8,
            replicas: copies,
            envs: Default::default(),
            if_not_exists: true,
        };
        let ready = client.admin().create_and_wait(&spec, START_TIMEOUT, |_| {});
        ready.unwrap_or_else(|error| panic!("{error}\n{}", self.stderr(1)));
        client
    }

    /// Where data and logs are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The meta server's address.
    pub fn meta(&self) -> SocketAddr {
        self.instances[0].reached_at()
    }

    /// Address of the n-th replica server, from 1.
    pub fn replica(&self, index: usize) -> SocketAddr {
        self.instances[index].reached_at()
    }

    /// Process id of an instance: 0 is the meta server, then the replica servers.
    pub fn pid(&self, index: usize) -> Option<u32> {
        self.instances[index].child.as_ref().map(Child::id)
    }

    /// Starts an instance and waits until it listens; returns how long that took.
    pub fn start_instance(&mut self, index: usize) -> Duration {
        let meta_list = match self.options.own_addresses {
            true => self.meta().to_string(),
            // By name: the way in which clusters are configured.
            false => format!("localhost:{}", self.meta().port()),
        };
        let instance = &mut self.instances[index];
        assert!(instance.child.is_none(), "{} runs already", instance.name);
        let dir = self.dir.join(&instance.name);
        fs::create_dir_all(&dir).expect("an instance's folder");
        let log = |suffix: &str| -> io::Result<Stdio> {
            let file = fs::OpenOptions::new().create(true).append(true).open(dir.join(suffix))?;
            Ok(Stdio::from(file))
        };
        let mut command = match &instance.disk {
            Some(disk) => disk.command(&dir, &program(self.options.program)),
            None => Command::new(program(self.options.program)),
        };
        command
            .arg("--config")
            .arg(repository().join(self.options.config))
            .args(["--app", instance.role])
            .env("ONEBOX_PORT", instance.port.to_string())
            .env("ONEBOX_META_LIST", meta_list)
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(log("stdout").expect("a file for output"))
            .stderr(log("stderr").expect("a file for errors"));
        for set in &self.options.sets {
            command.args(["--set", set]);
        }
        if let Some(front) = instance.front {
            command.args(["--set", &format!("network.advertised_address=127.0.0.1:{front}")]);
        }
        if self.options.own_addresses {
            command.args(["--set", &format!("network.listen_address={}", instance.ip)]);
        }
        let begun = Instant::now();
        let child = command.spawn().expect("the server starts");
        if let Some(proxy) = &self.proxy {
            proxy.belongs(index, child.id());
        }
        instance.child = Some(child);
        let addr = SocketAddr::from((instance.ip, instance.port));
        while TcpStream::connect_timeout(&addr, Duration::from_millis(200)).is_err() {
            let ended = instance.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || begun.elapsed() > START_TIMEOUT {
                let text = fs::read_to_string(dir.join("stderr")).unwrap_or_default();
                panic!("{} does not listen ({ended:?}): {text}", instance.name);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        begun.elapsed()
    }

    /// `kill -9`.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.instances[index].child.take() {
            child.kill().expect("kill");
            child.wait().expect("wait");
        }
    }

    /// SIGTERM; `true` when the process ended by itself and reported success.
    pub fn stop(&mut self, index: usize) -> bool {
        let Some(mut child) = self.instances[index].child.take() else { return true };
        let pid = child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
        assert!(sent.success());
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("wait") {
                return status.success();
            }
            if begun.elapsed() > STOP_TIMEOUT {
                child.kill().expect("kill");
                child.wait().expect("wait");
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal, by its name without `SIG`, to an instance that runs.
    pub fn signal(&self, index: usize, signal: &str) {
        let Some(pid) = self.pid(index) else { return };
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
        assert!(sent.expect("kill").success(), "{signal} to {}", self.instances[index].name);
    }

    /// Name of an instance.
    pub fn name(&self, index: usize) -> &str {
        &self.instances[index].name
    }

    /// Where the data of an instance is.
    pub fn data(&self, index: usize) -> PathBuf {
        let instance = &self.instances[index];
        let data = self.dir.join(&instance.name).join("data");
        instance.disk.as_ref().map_or(data.clone(), |disk| disk.seen_from_outside(&data))
    }

    /// The small disk, when there is one.
    pub fn small_disk(&self) -> Option<&SmallDisk> {
        self.instances.last()?.disk.as_ref()
    }

    /// Replica servers.
    pub fn replicas(&self) -> usize {
        self.options.replicas
    }

    /// Keeps the files when it is dropped.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// What stands between the servers, when something does.
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// What an instance wrote to standard error.
    pub fn stderr(&self, index: usize) -> String {
        let path = self.dir.join(&self.instances[index].name).join("stderr");
        fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Onebox {
    fn drop(&mut self) {
        for index in 0..self.instances.len() {
            if let Some(mut child) = self.instances[index].child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if self.kept || std::thread::panicking() {
            eprintln!("the cluster's files are kept in {:?}", self.dir);
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
