//! Operator commands: named, with help, called over RPC (`remote_command` of the shell), HTTP or in process.
//!
//! Each node has a registry of its own. A handler gets the words after the command's name and either
//! answers at once ([`CommandReply::Done`]) or, when it has to ask residents or disks first, returns a
//! closure that is given the [`ReplySink`] for the answer ([`CommandReply::Later`]): it posts an event with
//! the sink in it and whoever runs the event answers. A sink answers exactly once; one that is dropped
//! says so, so that no operator waits for ever.
//!
//! ```
//! use dsn_core::command::{CommandReply, Commands};
//!
//! let commands = Commands::new("1.2.3");
//! let _echo = commands.register("echo", "<word>...", "Answers with its words.", |call| {
//!     CommandReply::done(call.arguments.join(" "))
//! })?;
//! assert_eq!(commands.run_now("echo a b"), "a b");
//! assert_eq!(commands.run_now("ecco a b"), "unknown command 'ecco'");
//! # Ok::<(), dsn_core::command::DuplicateCommand>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::config::{Config, dump};

/// Most words of a line, the command's name among them.
pub const WORDS_MAX: usize = 512;

/// One call of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandCall {
    /// The command's name.
    pub name: String,
    /// The words after it.
    pub arguments: Vec<String>,
}

impl CommandCall {
    /// A call of `name`.
    pub fn new(
        name: impl Into<String>,
        arguments: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self { name: name.into(), arguments: arguments.into_iter().map(Into::into).collect() }
    }

    /// Splits a line at white space. Quotes, single or double, keep words together. Beyond [`WORDS_MAX`] words the
    /// rest of the line stays together in the last.
    pub fn parse(line: &str) -> Self {
        let mut words = Vec::new();
        let mut rest = line.trim();
        while !rest.is_empty() {
            let end = if words.len() + 1 < WORDS_MAX { word_end(rest) } else { rest.len() };
            words.push(unquoted(&rest[..end]));
            rest = rest[end..].trim_start();
        }
        let mut words = words.into_iter();
        Self { name: words.next().unwrap_or_default(), arguments: words.collect() }
    }

    /// The argument at `index`, counted from 0.
    pub fn argument(&self, index: usize) -> Option<&str> {
        self.arguments.get(index).map(String::as_str)
    }
}

/// Where the word that `text` begins with ends, in bytes.
fn word_end(text: &str) -> usize {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match quote {
            Some(end) if c == end => quote = None,
            Some(_) => {}
            None if c.is_whitespace() => return at,
            None if c == '"' || c == '\'' => quote = Some(c),
            None => {}
        }
    }
    text.len()
}

/// A word without its quotes; takes no more memory than the word.
fn unquoted(text: &str) -> String {
    let mut word = String::with_capacity(text.len());
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(end) if c == end => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            _ => word.push(c),
        }
    }
    word
}

/// What a handler has to say.
pub enum CommandReply {
    /// The answer.
    Done(String),
    /// The answer comes later, through the sink. The closure runs where the handler ran, and must not wait.
    Later(Box<dyn FnOnce(ReplySink) + Send>),
}

impl CommandReply {
    /// An answer at once.
    pub fn done(text: impl Into<String>) -> Self {
        Self::Done(text.into())
    }

    /// An answer later.
    pub fn later(start: impl FnOnce(ReplySink) + Send + 'static) -> Self {
        Self::Later(Box::new(start))
    }
}

impl fmt::Debug for CommandReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(text) => f.debug_tuple("Done").field(text).finish(),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

/// Takes the answer to one call.
pub struct ReplySink {
    send: Option<Box<dyn FnOnce(String) + Send>>,
}

impl ReplySink {
    /// A sink that hands the answer to `send`, called exactly once.
    pub fn new(send: impl FnOnce(String) + Send + 'static) -> Self {
        Self { send: Some(Box::new(send)) }
    }

    /// Answers.
    pub fn answer(mut self, text: impl Into<String>) {
        if let Some(send) = self.send.take() {
            send(text.into());
        }
    }
}

impl Drop for ReplySink {
    fn drop(&mut self) {
        if let Some(send) = self.send.take() {
            send("the command ended without an answer".to_owned());
        }
    }
}

impl fmt::Debug for ReplySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplySink")
    }
}

type Handler = Arc<dyn Fn(&CommandCall) -> CommandReply + Send + Sync>;

struct Command {
    arguments: String,
    help: String,
    handler: Handler,
}

/// Commands registered at a time.
pub const COMMANDS_MAX: usize = 1_024;

/// A name is taken, or [`COMMANDS_MAX`] is reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("command {0:?} is registered already, or there are too many commands")]
pub struct DuplicateCommand(pub String);

/// The commands of a node. Clones are the same registry.
#[derive(Clone)]
pub struct Commands {
    table: Arc<Mutex<BTreeMap<String, Command>>>,
}

/// Keeps a command registered; dropping it removes the command.
#[must_use = "the command is removed when this is dropped"]
pub struct Registration {
    name: String,
    table: Weak<Mutex<BTreeMap<String, Command>>>,
}

impl Registration {
    /// Leaves the command registered for the registry's life.
    pub fn keep(mut self) {
        self.table = Weak::new();
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            table.lock().remove(&self.name);
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registration").field(&self.name).finish()
    }
}

impl Default for Commands {
    /// A registry with `help`.
    fn default() -> Self {
        let commands = Self { table: Arc::default() };
        let table = Arc::downgrade(&commands.table);
        let purpose = "Lists the commands, or explains one.";
        commands.add("help", "[command]", purpose, move |call| {
            let Some(table) = table.upgrade() else { return CommandReply::done("") };
            CommandReply::done(help(&table.lock(), call.argument(0)))
        });
        commands
    }
}

impl Commands {
    /// A registry with `help` and `version`, the latter answering with the given text.
    pub fn new(version: impl Into<String>) -> Self {
        let commands = Self::default();
        commands.add_version(version);
        commands
    }

    /// Registers `version`.
    pub fn add_version(&self, version: impl Into<String>) {
        let version = version.into();
        self.add("version", "", "Shows the version of this server.", move |_| {
            CommandReply::done(version.clone())
        });
    }

    /// Registers a command. `arguments` describes them for `help`, which shows `help` beside them.
    ///
    /// # Errors
    /// [`DuplicateCommand`]
    pub fn register(
        &self,
        name: &str,
        arguments: &str,
        help: &str,
        handler: impl Fn(&CommandCall) -> CommandReply + Send + Sync + 'static,
    ) -> Result<Registration, DuplicateCommand> {
        let mut table = self.table.lock();
        if table.contains_key(name) || table.len() >= COMMANDS_MAX {
            return Err(DuplicateCommand(name.to_owned()));
        }
        let (arguments, help) = (arguments.to_owned(), help.to_owned());
        table.insert(name.to_owned(), Command { arguments, help, handler: Arc::new(handler) });
        Ok(Registration { name: name.to_owned(), table: Arc::downgrade(&self.table) })
    }

    /// Registers a command for the registry's life. A name that is taken keeps its first owner, with a
    /// line in the log.
    pub fn add(
        &self,
        name: &str,
        arguments: &str,
        help: &str,
        handler: impl Fn(&CommandCall) -> CommandReply + Send + Sync + 'static,
    ) {
        match self.register(name, arguments, help, handler) {
            Ok(registration) => registration.keep(),
            Err(error) => tracing::error!(%error, "a command was not registered"),
        }
    }

    /// Registers a command that shows and changes a mutable option: without an argument it shows the
    /// value, `DEFAULT` restores the one of the program, anything else is the new value.
    pub fn add_option(&self, name: &str, help: &str, config: &Config, option: &str) {
        let (config, option) = (config.clone(), option.to_owned());
        self.add(name, "[value | DEFAULT]", help, move |call| {
            CommandReply::done(show_or_set(&config, &option, call.argument(0)))
        });
    }

    /// Registers the commands about the configuration: `config-dump`, `config-get`, `config-set`.
    pub fn add_config(&self, config: &Config) {
        let shown = config.clone();
        let purpose = "Shows the configuration in force, and where each value comes from.";
        self.add("config-dump", "", purpose, move |_| CommandReply::done(dump(&shown)));
        let read = config.clone();
        self.add("config-get", "<section.key>", "Shows an option.", move |call| {
            CommandReply::done(match call.argument(0) {
                Some(option) => show_or_set(&read, option, None),
                None => "usage: config-get <section.key>".to_owned(),
            })
        });
        let written = config.clone();
        let purpose = "Changes an option until the server ends.";
        self.add("config-set", "<section.key> <value | DEFAULT>", purpose, move |call| {
            CommandReply::done(match (call.argument(0), call.argument(1)) {
                (Some(option), Some(value)) => show_or_set(&written, option, Some(value)),
                _ => "usage: config-set <section.key> <value | DEFAULT>".to_owned(),
            })
        });
    }

    /// Runs a command; the answer goes to `sink`, now or later.
    pub fn run(&self, call: &CommandCall, sink: ReplySink) {
        // The handler may register commands itself: not under the lock.
        let handler = self.table.lock().get(&call.name).map(|command| command.handler.clone());
        match handler {
            None => sink.answer(unknown(&call.name)),
            Some(handler) => match handler(call) {
                CommandReply::Done(text) => sink.answer(text),
                CommandReply::Later(start) => start(sink),
            },
        }
    }

    /// Runs a command line whose answer does not need the runtime: for tests and tools. A command that
    /// answers later answers nothing here.
    pub fn run_now(&self, line: &str) -> String {
        let answer = Arc::new(Mutex::new(String::new()));
        let slot = answer.clone();
        self.run(&CommandCall::parse(line), ReplySink::new(move |text| *slot.lock() = text));
        let mut answer = answer.lock();
        std::mem::take(&mut *answer)
    }

    /// The names of all commands, in order.
    pub fn names(&self) -> Vec<String> {
        self.table.lock().keys().cloned().collect()
    }
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

fn unknown(name: &str) -> String {
    format!("unknown command '{name}'")
}

fn help(table: &BTreeMap<String, Command>, name: Option<&str>) -> String {
    let line = |name: &str, command: &Command| {
        let usage = format!("{name} {}", command.arguments);
        format!("{} - {}", usage.trim_end(), command.help)
    };
    match name {
        Some(name) => table.get(name).map_or_else(|| unknown(name), |command| line(name, command)),
        None => {
            table.iter().map(|(name, command)| line(name, command)).collect::<Vec<_>>().join("\n")
        }
    }
}

fn show_or_set(config: &Config, option: &str, value: Option<&str>) -> String {
    let outcome = match value {
        None => config.get(option).map(|view| view.plain_value()),
        Some("DEFAULT") => config
            .get(option)
            .and_then(|view| config.set(option, &(view.schema.default)()))
            .map(|()| "OK".to_owned()),
        Some(value) => config.set(option, value).map(|()| "OK".to_owned()),
    };
    outcome.unwrap_or_else(|error| format!("ERR: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigSchema, Loader};

    crate::options! {
        /// For the test.
        section Kitchen at "kitchen" {
            /// How hot.
            heat: u32 = 3, in 1..=9, [mutable];
            /// Fixed.
            doors: u32 = 1;
        }
    }

    #[test]
    fn lines_are_split_into_words() {
        let words = |line| CommandCall::parse(line);
        assert_eq!(words("  a  b\tc "), CommandCall::new("a", ["b", "c"]));
        assert_eq!(
            words("a 'b c' \"d'e\" '' f'g h'"),
            CommandCall::new("a", ["b c", "d'e", "", "fg h"])
        );
        assert_eq!(words(""), CommandCall::default());
        assert_eq!(words("a 'open end"), CommandCall::new("a", ["open end"]));
    }

    #[test]
    fn commands_come_and_go() {
        let commands = Commands::new("v1");
        let echo = commands
            .register("echo", "<word>", "Answers.", |call| {
                CommandReply::done(call.arguments.join("+"))
            })
            .expect("free");
        assert_eq!(commands.run_now("echo 1 2"), "1+2");
        let taken = commands.register("echo", "", "", |_| CommandReply::done(""));
        assert_eq!(taken.expect_err("taken"), DuplicateCommand("echo".into()));
        assert_eq!(commands.run_now("echo 1"), "1", "a refused registration removes nothing");
        drop(echo);
        assert_eq!(commands.run_now("echo 1 2"), "unknown command 'echo'");
        assert_eq!(commands.names(), ["help", "version"]);
    }

    #[test]
    fn help_explains_and_version_tells() {
        let commands = Commands::new("server 1.0");
        assert_eq!(commands.run_now("version"), "server 1.0");
        assert_eq!(commands.run_now("help version"), "version - Shows the version of this server.");
        assert_eq!(commands.run_now("help nothing"), "unknown command 'nothing'");
        let all = commands.run_now("help");
        assert!(all.starts_with("help [command] - Lists"), "{all}");
        assert_eq!(all.lines().count(), 2);
    }

    #[test]
    fn later_answers_arrive_once_even_when_forgotten() {
        let commands = Commands::new("v");
        let parked: Arc<Mutex<Vec<ReplySink>>> = Arc::default();
        let place = parked.clone();
        commands.add("wait", "", "Waits.", move |_| {
            let place = place.clone();
            CommandReply::later(move |sink| place.lock().push(sink))
        });
        let answers: Arc<Mutex<Vec<String>>> = Arc::default();
        let ask = || {
            let answers = answers.clone();
            let sink = ReplySink::new(move |text| answers.lock().push(text));
            commands.run(&CommandCall::parse("wait"), sink);
        };
        ask();
        ask();
        assert!(answers.lock().is_empty());
        let sinks = std::mem::take(&mut *parked.lock());
        let mut sinks = sinks.into_iter();
        sinks.next().expect("first").answer("done");
        drop(sinks);
        assert_eq!(*answers.lock(), ["done", "the command ended without an answer"]);
    }

    #[test]
    fn options_are_shown_and_changed() {
        let schema = ConfigSchema::new().section::<Kitchen>();
        let config = Loader::new(schema).set("kitchen.heat=5").load().expect("valid");
        let kitchen: Kitchen = config.section().expect("registered");
        let commands = Commands::new("v");
        commands.add_option("kitchen.heat", "How hot.", &config, "kitchen.heat");
        commands.add_config(&config);
        assert_eq!(commands.run_now("kitchen.heat"), "5");
        assert_eq!(commands.run_now("kitchen.heat 7"), "OK");
        assert_eq!((kitchen.heat.get(), kitchen.doors), (7, 1));
        assert!(
            commands.run_now("kitchen.heat 70").starts_with("ERR: kitchen.heat = 70: expected")
        );
        assert_eq!(commands.run_now("kitchen.heat DEFAULT"), "OK");
        assert_eq!(commands.run_now("config-get heat"), "3");
        assert!(commands.run_now("config-set doors 2").contains("cannot change"));
        assert_eq!(commands.run_now("config-set heat 8"), "OK");
        assert!(commands.run_now("config-dump").contains("heat = 8"));
        assert!(commands.run_now("config-set heat").starts_with("usage"));
    }
}
