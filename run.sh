#!/usr/bin/env bash
# The door to the project: builds, a local cluster ("onebox"), tests, benches. `./run.sh help` lists the verbs.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export CARGO_TARGET_DIR=${PEGASUS_TARGET_DIR:-$HOME/.cache/pegasus/target}
BIN=$CARGO_TARGET_DIR/release
RUST_WANTED=1.95
PEGASUS_COMMIT=$(git -C "$ROOT" rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
export PEGASUS_COMMIT

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

usage() {
  cat <<'TEXT'
usage: ./run.sh VERB [OPTION...]

  start_onebox            build, start a cluster on this machine and create the table `temp`
      -m, --meta_count N       meta servers (1; more need a store that they share, and there is none yet)
      -r, --replica_count N    replica servers (3)
      -a, --app_name NAME      table to create (temp)
      -p, --partition_count N  its partitions (8)
      --replicas N             copies of each partition (as many as there are replica servers, at most 3)
      --port-base N            meta servers listen from N+1, replica servers from N+201 (34600)
      --set SECTION.KEY=VALUE  an option of all servers, instead of what configs/onebox.toml says; may be repeated
      --dir DIR                where data, logs and pid files go (./onebox)
  stop_onebox             stop its processes; the data stays
  list_onebox             what runs
  clear_onebox            stop and remove everything
  start_onebox_instance NAME   start one again, for instance replica@1
  stop_onebox_instance NAME    stop one; with -9 first: kill it
  shell [ARG...]          pegasus-shell, interactive or one command
  bench [ARG...]          pegasus-bench against the onebox
  bench-peers [ARG...]    the speed table of docs/performance.md, beside redis-server
  figures [NAME]          the other figures of that page: group_sync, group_sync_slower, failover, failover_by_lease,
                          learning, restart, idle
  simulate [ARG...]       the deterministic simulation: --seeds N --from S [--group] [--show], --scenario FILE, --cuts,
                          --planted; see docs/simulation.md
  start_kill_test [ARG...]  a cluster of its own whose servers are killed, stopped, damaged and cut off under load, and
                          what they answer judged: --duration SECONDS, --faults LIST, --seed N, --clients N,
                          --default-times; ends with one line of result; see docs/operators.md
  test                    everything that continuous integration runs
  build                   build the programs
TEXT
}

# ---- what must be installed -------------------------------------------------------------------------------------

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

install_packages() {
  command -v apt-get >/dev/null || die "install these with your package manager: $*"
  say "installing: $*"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

rust_is_new_enough() {
  command -v cargo >/dev/null || return 1
  local have
  have=$(cargo --version 2>/dev/null | sed -E 's/^cargo ([0-9]+\.[0-9]+).*/\1/') || return 1
  [ -n "$have" ] && [ "$(printf '%s\n' "$RUST_WANTED" "$have" | sort -V | head -n1)" = "$RUST_WANTED" ]
}

have_libclang() { # libclang-cpp is another library and does not do
  local found
  for found in /usr/lib/llvm-*/lib/libclang.so* /usr/lib/llvm-*/lib/libclang-[0-9]*.so* \
    /usr/lib/*/libclang.so* /usr/lib/*/libclang-[0-9]*.so*; do
    [ -e "$found" ] && return 0
  done
  return 1
}

ensure_tools() {
  local missing=()
  command -v g++ >/dev/null || missing+=(g++)
  command -v make >/dev/null || missing+=(make)
  have_libclang || missing+=(libclang-dev)
  [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
  [ -d "$HOME/.cargo/bin" ] && PATH=$HOME/.cargo/bin:$PATH
  if ! rust_is_new_enough; then
    command -v rustup >/dev/null || install_packages rustup 2>/dev/null || true
    command -v rustup >/dev/null ||
      die "Rust $RUST_WANTED or newer is needed and this system has no rustup package; install Rust and run this again"
    rustup toolchain install stable --profile minimal --component clippy --component rustfmt
    rustup default stable
  fi
}

build() {
  ensure_tools
  (cd "$ROOT" && cargo build --release --locked --workspace --bins)
}

# ---- onebox -----------------------------------------------------------------------------------------------------

ONEBOX=$PWD/onebox

alive() { # NAME: whether its process runs
  local pid
  pid=$(cat "$ONEBOX/$1/pid" 2>/dev/null) || return 1
  [ -n "$pid" ] && [ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q pegasus-server
}

instances() { [ -d "$ONEBOX" ] && (cd "$ONEBOX" && ls -d meta@* replica@* 2>/dev/null) || true; }

port_of() { # NAME
  local base index
  base=$(cat "$ONEBOX/port_base") index=${1#*@}
  case $1 in meta@*) echo $((base + index)) ;; *) echo $((base + 200 + index)) ;; esac
}

meta_list() {
  local list="" name
  for name in $(instances); do
    case $name in meta@*) list="$list,127.0.0.1:$(port_of "$name")" ;; esac
  done
  echo "${list#,}"
}

start_instance() { # NAME
  local name=$1 role=${1%@*} dir=$ONEBOX/$1 sets=() line
  [ -d "$dir" ] || die "there is no instance $name in $ONEBOX; see list_onebox"
  if alive "$name"; then say "$name runs already (pid $(cat "$dir/pid"))"; return; fi
  if [ -f "$ONEBOX/sets" ]; then
    while IFS= read -r line; do sets+=(--set "$line"); done <"$ONEBOX/sets"
  fi
  (
    cd "$dir"
    # What the caller has open, a lock for instance, is not the server's to keep.
    for fd in /proc/self/fd/*; do
      fd=${fd##*/}
      if [ "$fd" -gt 2 ] && [ "$fd" != 255 ]; then eval "exec $fd>&-"; fi
    done
    ONEBOX_PORT=$(port_of "$name") ONEBOX_META_LIST=$(meta_list) \
      setsid "$BIN/pegasus-server" --config "$dir/config.toml" --app "$role" "${sets[@]+"${sets[@]}"}" >"$dir/stdout" 2>"$dir/stderr" </dev/null &
    echo $! >"$dir/pid"
  )
  local tries
  for tries in $(seq 300); do
    sleep 0.1
    alive "$name" || { tail -n 20 "$dir/stderr" >&2; die "$name did not start; its output is in $dir"; }
    (exec 3<>"/dev/tcp/127.0.0.1/$(port_of "$name")") 2>/dev/null && { say "$name runs (pid $(cat "$dir/pid"), port $(port_of "$name"))"; return; }
  done
  die "$name does not listen on port $(port_of "$name"); its output is in $dir"
}

stop_instance() { # NAME [SIGNAL]
  local name=$1 signal=${2:-TERM} pid tries
  alive "$name" || { say "$name does not run"; return; }
  pid=$(cat "$ONEBOX/$name/pid")
  kill "-$signal" "$pid"
  for tries in $(seq 300); do
    alive "$name" || { say "$name stopped"; return; }
    sleep 0.1
  done
  say "$name does not stop, killing it"
  kill -9 "$pid"
}

start_onebox() {
  local metas=1 replicas=3 table=temp partitions=8 copies="" base=34600 sets=()
  while [ $# -gt 0 ]; do
    case $1 in
      -m | --meta_count) metas=$2; shift 2 ;;
      -r | --replica_count) replicas=$2; shift 2 ;;
      -a | --app_name) table=$2; shift 2 ;;
      -p | --partition_count) partitions=$2; shift 2 ;;
      --replicas) copies=$2; shift 2 ;;
      --port-base) base=$2; shift 2 ;;
      --set) sets+=("$2"); shift 2 ;;
      *) die "start_onebox: unknown option $1; see ./run.sh help" ;;
    esac
  done
  [ "$metas" = 1 ] || die "start_onebox: --meta_count $metas: the store of a meta server is its own, so there can be only one"
  [ -n "$copies" ] || copies=$((replicas < 3 ? replicas : 3))
  build
  mkdir -p "$ONEBOX"
  if [ -f "$ONEBOX/port_base" ]; then
    base=$(cat "$ONEBOX/port_base")
  else
    echo "$base" >"$ONEBOX/port_base"
  fi
  # The servers share the machine: together they have about one worker for each core. More would only wake each other.
  case " ${sets[*]-} " in
    *" runtime.workers="*) ;;
    *) local share=$((replicas > 0 ? $(nproc) / replicas : 1)); sets+=("runtime.workers=$((share > 0 ? share : 1))") ;;
  esac
  # Kept, so that instances that are started again have them too.
  printf '%s\n' "${sets[@]}" >"$ONEBOX/sets"
  local index name
  for index in $(seq "$metas"); do mkdir -p "$ONEBOX/meta@$index"; done
  for index in $(seq "$replicas"); do mkdir -p "$ONEBOX/replica@$index"; done
  for name in $(instances); do
    [ -f "$ONEBOX/$name/config.toml" ] || cp "$ROOT/configs/onebox.toml" "$ONEBOX/$name/config.toml"
    start_instance "$name"
  done
  "$BIN/pegasus-shell" --meta "$(meta_list)" create "$table" --partitions "$partitions" --replicas "$copies" \
    --if-not-exists --wait 60
  say ""
  say "The cluster is ready: meta server(s) $(meta_list), table '$table' with $partitions partitions."
  say "  try it     ./run.sh shell set $table hashkey sortkey value; ./run.sh shell get $table hashkey sortkey"
  say "  python     Pegasus(['$(meta_list | cut -d, -f1)'], '$table')"
  say "  look       http://127.0.0.1:$(port_of meta@1)/meta/apps   logs: $ONEBOX/*/log"
}

stop_onebox() {
  local name
  for name in $(instances | sort -r); do stop_instance "$name"; done
}

list_onebox() {
  local name
  [ -d "$ONEBOX" ] || { say "no onebox in $ONEBOX"; return; }
  for name in $(instances); do
    if alive "$name"; then
      say "$name	running	pid $(cat "$ONEBOX/$name/pid")	127.0.0.1:$(port_of "$name")"
    else
      say "$name	stopped	-	127.0.0.1:$(port_of "$name")"
    fi
  done
}

clear_onebox() {
  [ -d "$ONEBOX" ] || { say "nothing to clear in $ONEBOX"; return; }
  [ -f "$ONEBOX/port_base" ] || die "$ONEBOX does not look like a onebox, not removing it"
  local name
  for name in $(instances); do
    if alive "$name"; then stop_instance "$name" KILL; fi
  done
  rm -rf "$ONEBOX"
  say "$ONEBOX removed"
}

running_onebox() { [ -d "$ONEBOX" ] || die "no onebox in $ONEBOX; start one with ./run.sh start_onebox"; }

# Formatting and lints are part of the tests; a toolchain may come without the tools for them.
ensure_component() { # NAME CARGO-COMMAND DEBIAN-PACKAGE
  cargo "$2" --version >/dev/null 2>&1 && return
  if command -v rustup >/dev/null; then rustup component add "$1"; else install_packages "$3"; fi
  cargo "$2" --version >/dev/null 2>&1 || die "cargo $2 is missing and could not be installed"
}

# ---- tests ------------------------------------------------------------------------------------------------------

run_tests() {
  ensure_tools
  python3 -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
  cd "$ROOT"
  ensure_component rustfmt fmt rustfmt
  ensure_component clippy clippy rust-clippy
  cargo fmt --all --check
  # Before the build, with its profile: what RocksDB's build script has made serves both.
  cargo clippy --release --locked --workspace --all-targets -- -D warnings
  cargo build --release --locked --workspace --bins
  cargo test --release --locked --workspace --no-fail-fast
  # The model of the mailbox. Another flag for the compiler, so another target directory; it has little to compile.
  RUSTFLAGS="--cfg dsn_model" cargo test --release --locked --package dsn-core --test loom_mailbox \
    --target-dir "$CARGO_TARGET_DIR/model"
  simulate --planted
}

# Measurements that are no tests: each takes minutes.
figures() {
  cargo build --release --locked --workspace --bins
  cargo run --release --locked -q -p cluster-tests --bin figures -- "$@"
}

# The bugs planted on purpose are in no other build: the project's own crates are compiled once more, nothing else is.
simulate() {
  local features=()
  case " $* " in *" --planted "*) features=(--features planted) ;; esac
  cargo run --release --locked -q -p cluster-tests "${features[@]+"${features[@]}"}" --bin simulate -- "$@"
}

# ---- verbs ------------------------------------------------------------------------------------------------------

verb=${1:-help}
[ $# -gt 0 ] && shift
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --dir) ONEBOX=$(mkdir -p "$2" && cd "$2" && pwd); shift 2 ;;
    *) arguments+=("$1"); shift ;;
  esac
done
set -- "${arguments[@]+"${arguments[@]}"}"

case $verb in
  start_onebox | stop_onebox | list_onebox | clear_onebox) $verb "$@" ;;
  start_onebox_instance) running_onebox; start_instance "${1:?which instance? see list_onebox}" ;;
  stop_onebox_instance)
    running_onebox
    if [ "${1:-}" = -9 ]; then stop_instance "${2:?which instance?}" KILL; else stop_instance "${1:?which instance?}"; fi
    ;;
  shell) running_onebox; exec "$BIN/pegasus-shell" --meta "$(meta_list)" "$@" ;;
  bench) running_onebox; exec "$BIN/pegasus-bench" --meta "$(meta_list)" "$@" ;;
  bench-peers) build; exec "$BIN/pegasus-bench" compare --run-sh "$ROOT/run.sh" "$@" ;;
  figures) ensure_tools; cd "$ROOT"; figures "$@" ;;
  simulate) ensure_tools; cd "$ROOT"; simulate "$@" ;;
  start_kill_test) build; cd "$ROOT"; cargo run --release --locked -q -p cluster-tests --bin kill_test -- "$@" ;;
  build) build ;;
  test) run_tests ;;
  help | -h | --help) usage ;;
  *) usage >&2; die "unknown verb $verb" ;;
esac
