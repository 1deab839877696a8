//! The command line: flags, and every command with its arguments, for one command and for lines alike.
//!
//! Keys and values are written with C escapes (`\x00`, `\n`, `\\`).

use bytes::Bytes;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::values::{CheckType, Filter, env, filter, seconds};
use crate::words::unescape;

/// Tables, servers and records of a Pegasus cluster.
#[derive(Debug, Parser)]
#[command(
    name = "pegasus-shell",
    version,
    after_help = "Without a command, lines are read from standard input."
)]
pub struct Cli {
    /// Meta servers, with commas between them.
    #[arg(long, short, value_name = "HOST:PORT", value_delimiter = ',', required = true)]
    pub meta: Vec<String>,
    /// Print JSON.
    #[arg(long, short)]
    pub json: bool,
    /// How long one operation may take, in seconds [default: 5, operator commands 10].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<f64>,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// One line of the interactive form.
#[derive(Debug, Parser)]
#[command(
    multicall = true,
    after_help = "exit ends the shell. Quotes keep words together, # begins a comment."
)]
pub struct Line {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum Command {
    /// About tables.
    #[command(flatten)]
    Table(TableCommand),
    /// About servers.
    #[command(flatten)]
    Cluster(ClusterCommand),
    /// About records by key.
    #[command(flatten)]
    Record(RecordCommand),
    /// About the records of a hash key.
    #[command(flatten)]
    HashKey(HashKeyCommand),
    /// About many records.
    #[command(flatten)]
    Scan(ScanCommand),
}

/// Commands about tables.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum TableCommand {
    /// Make a table.
    Create(CreateArgs),
    /// Drop a table; it can be recalled for a while.
    Drop {
        /// Name of the table.
        name: String,
        /// How long it can be recalled [default: the meta server's].
        #[arg(long, short, value_name = "SECONDS", alias = "reserve_seconds")]
        reserve: Option<u64>,
    },
    /// Bring a dropped table back.
    Recall {
        /// Its id, as `ls --all` shows it.
        id: i32,
        /// Another name for it.
        #[arg(default_value = "")]
        new_name: String,
    },
    /// List tables.
    #[command(alias = "list_tables")]
    Ls {
        /// Those that are being made or dropped and those that can be recalled, too.
        #[arg(long, short)]
        all: bool,
    },
    /// Show a table's partitions: primary, secondaries, ballot.
    #[command(alias = "table_partitions")]
    App {
        /// Name of the table.
        name: String,
    },
    /// Show a table's envs.
    GetAppEnvs {
        /// Name of the table.
        name: String,
    },
    /// Set envs of a table.
    SetAppEnvs {
        /// Name of the table.
        name: String,
        /// Envs.
        #[arg(value_name = "KEY=VALUE", value_parser = env, required = true)]
        envs: Vec<(String, String)>,
    },
    /// Remove envs of a table.
    DelAppEnvs {
        /// Name of the table.
        name: String,
        /// Names of envs.
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Remove all envs of a table, or those whose names begin with a prefix.
    ClearAppEnvs {
        /// Name of the table.
        name: String,
        /// Only those.
        #[arg(long, short, default_value = "")]
        prefix: String,
    },
}

/// A table to be made.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Name of the table.
    pub name: String,
    /// Partitions; a power of two, so that the table can be split.
    #[arg(long, short, default_value_t = 4, alias = "partition_count",
        value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// Copies of each partition.
    #[arg(long, short, default_value_t = 3, alias = "replica_count",
        value_parser = clap::value_parser!(i32).range(1..))]
    pub replicas: i32,
    /// Be content with a table of that name and the same counts.
    #[arg(long, short = 'f')]
    pub if_not_exists: bool,
    /// Wait so long for meta server and replica servers to be there, and until every partition has all its
    /// replicas.
    #[arg(long, short, value_name = "SECONDS")]
    pub wait: Option<u64>,
    /// What kind of state machine its partitions are, for servers of other programs.
    #[arg(long, default_value = pegasus_client::schema::APP_TYPE)]
    pub app_type: String,
    /// Envs of the table.
    #[arg(long = "env", short, value_name = "KEY=VALUE", value_parser = env, alias = "envs")]
    pub envs: Vec<(String, String)>,
}

/// Commands about servers.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum ClusterCommand {
    /// List replica servers.
    Nodes {
        /// With the number of primaries and secondaries on each.
        #[arg(long, short)]
        detailed: bool,
    },
    /// Show facts about the cluster.
    ClusterInfo,
    /// Show the versions of servers.
    ServerInfo(ServersArgs),
    /// Run a command on servers; `remote_command help` lists what they know.
    RemoteCommand {
        /// Which servers.
        #[command(flatten)]
        servers: ServersArgs,
        /// The command.
        command: String,
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// Which servers.
#[derive(Debug, Args)]
pub struct ServersArgs {
    /// These servers, with commas between them.
    #[arg(long, short, value_name = "HOST:PORT", value_delimiter = ',')]
    pub list: Vec<String>,
    /// Servers of this kind.
    #[arg(long = "type", short = 't', value_enum, default_value_t = ServerType::All, conflicts_with = "list")]
    pub kind: ServerType,
}

/// Kinds of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ServerType {
    /// All of them.
    All,
    /// The meta servers given to the shell.
    MetaServer,
    /// The replica servers that are alive.
    ReplicaServer,
}

/// The place of a record.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// The table.
    pub table: String,
    /// Hash key.
    #[arg(value_parser = unescape)]
    pub hash_key: Bytes,
    /// Sort key.
    #[arg(value_parser = unescape)]
    pub sort_key: Bytes,
}

/// The place of the records of a hash key.
#[derive(Debug, Args)]
pub struct HashKeyArgs {
    /// The table.
    pub table: String,
    /// Hash key.
    #[arg(value_parser = unescape)]
    pub hash_key: Bytes,
}

/// Commands about records by key.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum RecordCommand {
    /// Set a record.
    Set {
        /// Which.
        #[command(flatten)]
        key: KeyArgs,
        /// Its value.
        #[arg(value_parser = unescape, allow_negative_numbers = true)]
        value: Bytes,
        /// Seconds that it lives.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        ttl: u32,
    },
    /// Show a record's value; an error when it is not there.
    Get(KeyArgs),
    /// Remove a record.
    Del(KeyArgs),
    /// Whether a record is there.
    Exist(KeyArgs),
    /// Seconds that a record has left.
    Ttl(KeyArgs),
    /// Add to a decimal number.
    Incr {
        /// Which.
        #[command(flatten)]
        key: KeyArgs,
        /// How much.
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
    },
    /// Set a record if a record of the same hash key passes a check.
    CheckAndSet(CheckAndSetArgs),
}

/// Commands about several records of a hash key.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum HashKeyCommand {
    /// Set several records of a hash key in one step.
    MultiSet {
        /// Which hash key.
        #[command(flatten)]
        key: HashKeyArgs,
        /// Sort keys and values in turn.
        #[arg(value_names = ["SORT_KEY", "VALUE"], value_parser = unescape, required = true, num_args = 2..)]
        records: Vec<Bytes>,
        /// Seconds that they live.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        ttl: u32,
    },
    /// Show several records of a hash key; all of them when no sort key is given.
    MultiGet {
        /// Which hash key.
        #[command(flatten)]
        key: HashKeyArgs,
        /// Sort keys.
        #[arg(value_parser = unescape)]
        sort_keys: Vec<Bytes>,
        /// At most so many records; 0 leaves it to the server.
        #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 0)]
        max: i32,
    },
    /// Show a range of the records of a hash key, from one sort key to another (empty: to the end).
    MultiGetRange {
        /// Which hash key.
        #[command(flatten)]
        key: HashKeyArgs,
        /// From here to there, and what of it.
        #[command(flatten)]
        range: RangeArgs,
        /// From the end backwards; still shown in ascending order.
        #[arg(long, short)]
        reverse: bool,
        /// At most so many records; 0 leaves it to the server.
        #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 0)]
        max: i32,
    },
    /// List the sort keys of a hash key.
    MultiGetSortkeys {
        /// Which hash key.
        #[command(flatten)]
        key: HashKeyArgs,
        /// At most so many; 0 leaves it to the server.
        #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 0)]
        max: i32,
    },
    /// Remove several records of a hash key in one step.
    MultiDel {
        /// Which hash key.
        #[command(flatten)]
        key: HashKeyArgs,
        /// Sort keys.
        #[arg(value_parser = unescape, required = true)]
        sort_keys: Vec<Bytes>,
    },
    /// Count the records of a hash key.
    #[command(alias = "sortkey_count")]
    Count(HashKeyArgs),
}

/// A conditional write.
#[derive(Debug, Args)]
pub struct CheckAndSetArgs {
    /// Which hash key.
    #[command(flatten)]
    pub key: HashKeyArgs,
    /// Sort key of the record that is looked at.
    #[arg(long, short, value_parser = unescape, alias = "check_sort_key")]
    pub check_sort_key: Bytes,
    /// What must hold.
    #[arg(long, short = 't', value_enum, alias = "check_type")]
    pub check_type: CheckType,
    /// What the value is compared with.
    #[arg(long, short = 'o', value_parser = unescape, default_value = "", allow_negative_numbers = true,
        alias = "check_operand")]
    pub operand: Bytes,
    /// Sort key of the record that is set [default: the one looked at].
    #[arg(long, short, value_parser = unescape, alias = "set_sort_key")]
    pub set_sort_key: Option<Bytes>,
    /// Its value.
    #[arg(long, short = 'v', value_parser = unescape, allow_negative_numbers = true, alias = "set_value")]
    pub value: Bytes,
    /// Seconds that it lives.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub ttl: u32,
}

/// A range of sort keys.
#[derive(Debug, Args)]
pub struct RangeArgs {
    /// From here.
    #[arg(value_parser = unescape, default_value = "")]
    pub start: Bytes,
    /// To there; empty is the end of the hash key.
    #[arg(value_parser = unescape, default_value = "")]
    pub stop: Bytes,
    /// Leave out `start` itself.
    #[arg(long)]
    pub start_exclusive: bool,
    /// With `stop` itself.
    #[arg(long)]
    pub stop_inclusive: bool,
    /// Only sort keys that match: anywhere:TEXT, prefix:TEXT or postfix:TEXT.
    #[arg(long = "sort-key", value_name = "KIND:TEXT", value_parser = filter)]
    pub sort_key_filter: Option<Filter>,
    /// Only keys.
    #[arg(long, short = 'i')]
    pub no_value: bool,
}

/// Commands about many records.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum ScanCommand {
    /// Show the records of a hash key, in order of their sort keys.
    HashScan {
        /// Which hash key.
        #[command(flatten)]
        key: HashKeyArgs,
        /// From where to where, and what of it.
        #[command(flatten)]
        range: RangeArgs,
        /// At most so many records; 0 for all.
        #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 0)]
        max: u64,
    },
    /// Show the records of a whole table, in no order.
    FullScan {
        /// What of it.
        #[command(flatten)]
        what: TableScanArgs,
        /// Only keys.
        #[arg(long, short = 'i')]
        no_value: bool,
        /// At most so many records; 0 for all.
        #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 0)]
        max: u64,
    },
    /// Count the records of a whole table.
    CountData(TableScanArgs),
}

/// What of a table is scanned.
#[derive(Debug, Args)]
pub struct TableScanArgs {
    /// The table.
    pub table: String,
    /// Only hash keys that match: anywhere:TEXT, prefix:TEXT or postfix:TEXT.
    #[arg(long = "hash-key", value_name = "KIND:TEXT", value_parser = filter)]
    pub hash_key_filter: Option<Filter>,
    /// Only sort keys that match.
    #[arg(long = "sort-key", value_name = "KIND:TEXT", value_parser = filter)]
    pub sort_key_filter: Option<Filter>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use pegasus_client::schema::rrdb::CasCheckType;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        Line::command().debug_assert();
    }

    #[test]
    fn the_forms_that_scripts_use_are_understood() {
        let parse = |words: &str| {
            let words = format!("pegasus-shell --meta a:1,b:2 {words}");
            Cli::try_parse_from(words.split(' ')).unwrap()
        };
        let cli = parse("create temp --partitions 8 --replicas 1 --if-not-exists --wait 60");
        assert_eq!(cli.meta, ["a:1", "b:2"]);
        let Some(Command::Table(TableCommand::Create(create))) = cli.command else { panic!() };
        assert_eq!((create.partitions, create.replicas, create.wait), (8, 1, Some(60)));
        assert!(create.if_not_exists && create.envs.is_empty());
        let cli = parse("create temp -p 4 -r 3 -e a.b=c -e d=e=f");
        let Some(Command::Table(TableCommand::Create(create))) = cli.command else { panic!() };
        assert_eq!(create.envs[1], ("d".to_owned(), "e=f".to_owned()));
        let cli = parse("check_and_set temp hk -c a -t int_less -o -5 -s b -v x --ttl 9");
        let Some(Command::Record(RecordCommand::CheckAndSet(args))) = cli.command else { panic!() };
        assert_eq!(args.check_type.kind(), CasCheckType::ValueIntLess);
        assert_eq!((args.operand.as_ref(), args.ttl), (&b"-5"[..], 9));
        let cli = parse("remote_command -t meta-server fault -x --y");
        let Some(Command::Cluster(ClusterCommand::RemoteCommand { servers, arguments, .. })) =
            cli.command
        else {
            panic!()
        };
        assert_eq!((servers.kind, arguments.len()), (ServerType::MetaServer, 2));
        assert!(Cli::try_parse_from(["pegasus-shell", "ls"]).is_err(), "--meta is needed");
    }
}
