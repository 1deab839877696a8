//! From a configuration to running nodes: the `main` of every server built on the runtime.
//!
//! ```text
//! server --config FILE [--app NAME[,NAME...]] [--set section.key=value]... [--check] [--reference] [--version]
//! ```
//!
//! `[apps.NAME]` says which service apps run here, how many of each and on which ports. The process ends orderly on
//! SIGTERM and SIGINT: apps stop in reverse order of their start, each within `[core] shutdown_timeout`; a second
//! signal ends it at once.

use crate::app::{AppError, AppFactory, NativeNode};
use crate::code::{self, Code};
use crate::config::{AppOptions, Config, ConfigSchema, CoreOptions, Loader, Tool, Variables};
use crate::driver::native::{NativeClock, OsDisk};
use crate::node::Node;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

mod plan;
mod wait;

pub use plan::node_parts;
use wait::Signals;

/// One instance of an app, as the configuration wants it.
#[derive(Clone, Debug)]
pub struct AppInstance {
    /// Section name, `replica` for `[apps.replica]`.
    pub name: String,
    /// From 1 to `count`.
    pub index: u32,
    /// Its ports.
    pub ports: Vec<u16>,
    /// Where it keeps its data.
    pub data_dirs: Vec<PathBuf>,
    /// The free text of the section.
    pub arguments: String,
    /// The whole configuration.
    pub config: Config,
}

/// Makes the app of an instance.
pub type MakeApp = Arc<dyn Fn(&AppInstance) -> Result<AppFactory, AppError> + Send + Sync>;

/// What a server program is made of.
#[derive(Clone)]
pub struct Program {
    /// Name and version for `--version` and the log.
    pub name: &'static str,
    /// Version text.
    pub version: String,
    /// Every section that may stand in the configuration.
    pub schema: ConfigSchema,
    /// Every code that the configuration may name.
    pub codes: Vec<&'static [Code]>,
    /// App types by name.
    pub apps: Vec<(&'static str, MakeApp)>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Arguments {
    files: Vec<PathBuf>,
    apps: Vec<String>,
    sets: Vec<String>,
    check: bool,
    reference: bool,
    version: bool,
    help: bool,
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, String> {
    let mut parsed = Arguments::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        let (flag, inline) = match text.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (flag.to_owned(), Some(value.into())),
            _ => (text, None),
        };
        let mut value = || -> Result<String, String> {
            inline
                .clone()
                .or_else(|| arguments.next().map(|next| next.to_string_lossy().into_owned()))
                .ok_or_else(|| format!("{flag} needs a value"))
        };
        match flag.as_str() {
            "--config" | "-c" => parsed.files.push(PathBuf::from(value()?)),
            "--app" => parsed.apps.extend(value()?.split(',').map(str::to_owned)),
            "--set" => parsed.sets.push(value()?),
            "--check" => parsed.check = true,
            "--reference" => parsed.reference = true,
            "--version" | "-V" => parsed.version = true,
            "--help" | "-h" => parsed.help = true,
            other => return Err(format!("unknown argument {other}; try --help")),
        }
    }
    Ok(parsed)
}

impl Program {
    /// Runs the program with the process's arguments until a signal ends it.
    pub fn main(&self) -> ExitCode {
        match self.run(std::env::args_os().skip(1)) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("{}: {error}", self.name);
                ExitCode::FAILURE
            }
        }
    }

    /// Runs the program with the given arguments, the program's name left out.
    ///
    /// # Errors
    /// What made it impossible, for a person to read.
    pub fn run(&self, arguments: impl IntoIterator<Item = OsString>) -> Result<ExitCode, String> {
        let arguments = parse(arguments)?;
        if arguments.help {
            println!(
                "{} {}\n\n  --config FILE          read a configuration (repeatable; later files win)\n  \
                 --app NAME[,NAME...]   run only these apps of the configuration\n  \
                 --set SECTION.KEY=VAL  change one option (repeatable)\n  \
                 --check                check the configuration and print the effective one\n  \
                 --reference            print the page of all options\n  --version",
                self.name, self.version
            );
            return Ok(ExitCode::SUCCESS);
        }
        if arguments.version {
            println!("{} {}", self.name, self.version);
            return Ok(ExitCode::SUCCESS);
        }
        if arguments.reference {
            print!("{}", crate::config::reference(&self.schema));
            return Ok(ExitCode::SUCCESS);
        }
        let config = self.load(&arguments)?;
        if arguments.check {
            print!("{}", crate::config::dump(&config));
            return Ok(ExitCode::SUCCESS);
        }
        self.serve(&config, &arguments.apps)
    }

    fn load(&self, arguments: &Arguments) -> Result<Config, String> {
        for codes in &self.codes {
            code::register(codes);
        }
        let mut loader = Loader::new(self.schema.clone()).variables(environment());
        for file in &arguments.files {
            loader = loader.file(file);
        }
        for set in &arguments.sets {
            loader = loader.set(set);
        }
        loader.load().map_err(|error| error.to_string())
    }

    fn serve(&self, config: &Config, only: &[String]) -> Result<ExitCode, String> {
        let core: CoreOptions = config.section().map_err(|error| error.to_string())?;
        if core.tool == Tool::Simulator {
            return Err(
                "[core] tool = \"simulator\": a server runs natively; simulations are started \
                        by `run.sh simulate`"
                    .to_owned(),
            );
        }
        let log = crate::log::init(config).map_err(|error| error.to_string())?;
        let mut signals = Signals::install().map_err(|error| format!("signals: {error}"))?;
        let instances = instances(config, &core, only)?;
        if instances.is_empty() {
            return Err("no app to run: see [apps.*] and --app".to_owned());
        }
        let clock = NativeClock::start();
        let mut running = Vec::new();
        for instance in &instances {
            let node = self.start(instance, clock)?;
            let commands = node.node().commands();
            commands.add_version(format!("{} {}", self.name, self.version));
            log.add_commands(commands, config);
            tracing::info!(node = node.node().name(), "started");
            running.push(node);
        }
        let mut orderly = signals.wait(&running, clock);
        while let Some(node) = running.pop() {
            orderly &= node.shutdown(core.shutdown_timeout);
        }
        tracing::info!(orderly, "ended");
        Ok(if orderly { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Makes and starts one instance natively.
    ///
    /// # Errors
    /// An unknown app type, a bad stage or the app's own refusal.
    pub fn start(&self, instance: &AppInstance, clock: NativeClock) -> Result<NativeNode, String> {
        let make = self.maker(instance)?;
        let entropy = u64::from(std::process::id()) ^ clock.wall().unix_nanos();
        let parts = node_parts(instance, Arc::new(OsDisk), entropy)?;
        let pools = parts.plan.pools.clone();
        let node = Node::new(parts).map_err(|error| error.to_string())?;
        crate::toollet::install(&node)?;
        crate::metrics::watch_runtime(&node);
        let factory = make(instance).map_err(|error| error.to_string())?;
        NativeNode::start(node, &pools, clock, factory)
            .map_err(|error| format!("{}: {error}", instance.name))
    }

    fn maker(&self, instance: &AppInstance) -> Result<MakeApp, String> {
        let options: AppOptions =
            instance.config.named(&instance.name).map_err(|error| error.to_string())?;
        let kind = if options.r#type.is_empty() { &instance.name } else { &options.r#type };
        self.apps.iter().find(|(name, _)| name == kind).map(|(_, make)| make.clone()).ok_or_else(
            || {
                let known: Vec<&str> = self.apps.iter().map(|(name, _)| *name).collect();
                format!("[apps.{}]: unknown app type {kind}; known: {known:?}", instance.name)
            },
        )
    }
}

/// The environment, for `${VAR}`; names and values that are not UTF-8 are left out.
fn environment() -> Variables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The instances that the configuration wants to run, in order of section name.
///
/// # Errors
/// An app named by `only` that the configuration does not have.
pub fn instances(
    config: &Config,
    core: &CoreOptions,
    only: &[String],
) -> Result<Vec<AppInstance>, String> {
    let all = config.all::<AppOptions>().map_err(|error| error.to_string())?;
    for name in only {
        if !all.contains_key(name) {
            let known: Vec<&String> = all.keys().collect();
            return Err(format!("--app {name}: no section [apps.{name}]; there are {known:?}"));
        }
    }
    let mut instances = Vec::new();
    for (name, options) in all {
        let wanted = if only.is_empty() { options.run } else { only.contains(&name) };
        if !wanted {
            continue;
        }
        for index in 1..=options.count {
            let shift = (index - 1) as u16;
            let base: Vec<PathBuf> = if options.data_dir.is_empty() {
                core.data_dirs.iter().map(PathBuf::from).collect()
            } else {
                vec![PathBuf::from(&options.data_dir)]
            };
            let data_dirs = match options.count {
                1 => base,
                _ => base.iter().map(|dir| dir.join(format!("{name}{index}"))).collect(),
            };
            instances.push(AppInstance {
                name: name.clone(),
                index,
                ports: shifted(&name, &options.ports, shift)?,
                data_dirs,
                arguments: options.arguments.clone(),
                config: config.clone(),
            });
        }
    }
    Ok(instances)
}

/// The ports of an instance.
fn shifted(name: &str, ports: &[u16], shift: u16) -> Result<Vec<u16>, String> {
    let shifted = ports.iter().map(|port| port.checked_add(shift)).collect::<Option<Vec<u16>>>();
    shifted.ok_or_else(|| {
        format!("[apps.{name}]: instance {} would listen above port 65535", u32::from(shift) + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn arguments() {
        let parsed =
            parse(words("--config a.toml --app=meta,replica --set x.y=1 --check")).unwrap();
        assert_eq!(parsed.files, [PathBuf::from("a.toml")]);
        assert_eq!(parsed.apps, ["meta", "replica"]);
        assert_eq!(parsed.sets, ["x.y=1"]);
        assert!(parsed.check);
        assert!(parse(words("--config")).unwrap_err().contains("needs a value"));
        assert!(parse(words("--confg a")).unwrap_err().contains("--confg"));
    }

    fn config(text: &str) -> Config {
        Loader::new(crate::config::core_schema()).text("test", text).load().unwrap()
    }

    #[test]
    fn instances_shift_ports_and_folders() {
        let config = config("[apps.a]\ncount = 2\nports = [100]\n[apps.b]\nrun = false\n");
        let core: CoreOptions = config.section().unwrap();
        let found = instances(&config, &core, &[]).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].ports, [101]);
        assert_ne!(found[0].data_dirs, found[1].data_dirs);
        assert_eq!(instances(&config, &core, &["b".into()]).unwrap().len(), 1);
        assert!(instances(&config, &core, &["c".into()]).unwrap_err().contains("[apps.c]"));
        let high = self::config("[apps.a]\ncount = 3\nports = [65534]\n");
        let refused = instances(&high, &core, &[]).unwrap_err();
        assert_eq!(refused, "[apps.a]: instance 3 would listen above port 65535");
    }
}
