"""What the unmodified Python client can do, done against a running onebox.

Usage: acceptance.py META_HOST:PORT RUN_SH INSTANCE[,INSTANCE...]

Prints one line per check and ends with "N passed, M failed"; exits 1 when anything failed.
RUN_SH and the replica servers (for instance ./run.sh and replica@1,replica@2,replica@3) are used to stop and start
servers in the middle.
"""

import subprocess
import sys
import time
import traceback

from twisted.internet import defer, reactor, task
from twisted.internet.defer import inlineCallbacks

from pypegasus.base.ttypes import error_types
from pypegasus.pgclient import Pegasus
from pypegasus.rrdb.ttypes import filter_type
from pypegasus.utils.tools import MultiGetOptions, ScanOptions

OK = error_types.ERR_OK.value
NOT_FOUND = error_types.ERR_OBJECT_NOT_FOUND.value
INCOMPLETE = error_types.ERR_INCOMPLETE_DATA.value
META, RUN_SH = sys.argv[1:3]
INSTANCES = sys.argv[3].split(",")
RUN = "r%x" % int(time.time() * 1000)
ROWS = 10_000
REQUEST_LIMIT = 1 << 20
# The grace after which a silent server is replaced is 22 s; seconds.
FAILOVER_LIMIT = 60


class Report:
    passed = 0
    failed = 0


def check(what, got, expected):
    if got == expected:
        Report.passed += 1
        print("ok   %s" % what)
    else:
        Report.failed += 1
        print("FAIL %s: got %.200r, expected %.200r" % (what, got, expected))


def sleep(seconds):
    return task.deferLater(reactor, seconds, lambda: None)


def key(name):
    return "%s_%s" % (RUN, name)


@inlineCallbacks
def single_records(c):
    h = key("single")
    check("get of an absent key", (yield c.get(h, "s")), (NOT_FOUND, b""))
    check("exist of an absent key", (yield c.exist(h, "s"))[0], NOT_FOUND)
    check("set", (yield c.set(h, "s", "v1"))[0], OK)
    check("get", (yield c.get(h, "s")), (OK, b"v1"))
    check("overwrite", (yield c.set(h, "s", "v2"))[0], OK)
    check("get after overwrite", (yield c.get(h, "s")), (OK, b"v2"))
    check("exist", (yield c.exist(h, "s"))[0], OK)
    check("ttl of a record that lives for ever", (yield c.ttl(h, "s")), (OK, -1))
    check("remove", (yield c.remove(h, "s"))[0], OK)
    check("get after remove", (yield c.get(h, "s")), (NOT_FOUND, b""))
    check("remove of an absent key", (yield c.remove(h, "s"))[0], OK)
    check("empty sort key", (yield c.set(h, "", "e"))[0], OK)
    check("get with an empty sort key", (yield c.get(h, "")), (OK, b"e"))
    check("empty value", (yield c.set(h, "empty", ""))[0], OK)
    check("get of an empty value", (yield c.get(h, "empty")), (OK, b""))
    check("exist of an empty value", (yield c.exist(h, "empty"))[0], OK)
    binary = "".join(chr(i) for i in range(1, 128)) * 20
    check("every ASCII byte", (yield c.set(h, "binary", binary))[0], OK)
    check("get of them", (yield c.get(h, "binary")), (OK, binary.encode()))
    for i in range(100):
        yield c.set(key("spread%d" % i), "s", "v%d" % i)
    got = []
    for i in range(100):
        got.append((yield c.get(key("spread%d" % i), "s")))
    check("100 hash keys over all partitions", got, [(OK, b"v%d" % i) for i in range(100)])


@inlineCallbacks
def multi_records(c):
    h = key("multi")
    data = {"k%02d" % i: "v%d" % i for i in range(30)}
    expected = {k.encode(): v.encode() for k, v in data.items()}
    check("multi_set", (yield c.multi_set(h, data))[0], OK)
    check("sort_key_count", (yield c.sort_key_count(h)), (OK, 30))
    check("multi_get of all", (yield c.multi_get(h, None)), (OK, expected))
    some = {"k03", "k07", "missing"}
    check("multi_get of some", (yield c.multi_get(h, some)),
          (OK, {b"k03": b"v3", b"k07": b"v7"}))
    code, got = yield c.multi_get(h, None, max_kv_count=5)
    check("multi_get limited by count", (code, sorted(got)),
          (INCOMPLETE, [b"k%02d" % i for i in range(5)]))
    code, got = yield c.multi_get(h, None, max_kv_size=25)
    check("multi_get limited by size", (code, len(got) < 30 and len(got) > 0), (INCOMPLETE, True))
    code, got = yield c.get_sort_keys(h)
    check("get_sort_keys", (code, got), (OK, {k: b"" for k in expected}))
    check("multi_del", (yield c.multi_del(h, {"k00", "k01", "missing"})), (OK, 3))
    check("sort_key_count after multi_del", (yield c.sort_key_count(h)), (OK, 28))
    check("multi_get of an absent hash key", (yield c.multi_get(key("none"), None)), (OK, {}))
    check("sort_key_count of an absent hash key", (yield c.sort_key_count(key("none"))), (OK, 0))


@inlineCallbacks
def ranges(c):
    h = key("range")
    yield c.multi_set(h, {"a%02d" % i: "v%d" % i for i in range(20)})
    yield c.multi_set(h, {"b%02d" % i: "w%d" % i for i in range(20)})

    @inlineCallbacks
    def keys(start, stop, **options):
        opts = MultiGetOptions()
        for name, value in options.items():
            setattr(opts, name, value)
        code, got = yield c.multi_get_opt(h, start, stop, opts, 1000)
        defer.returnValue((code, sorted(got)))

    def names(prefix, numbers):
        return [b"%s%02d" % (prefix, i) for i in numbers]

    check("range [a05, a10)", (yield keys("a05", "a10")), (OK, names(b"a", range(5, 10))))
    check("range [a05, a10]", (yield keys("a05", "a10", stop_inclusive=True)),
          (OK, names(b"a", range(5, 11))))
    check("range (a05, a10)", (yield keys("a05", "a10", start_inclusive=False)),
          (OK, names(b"a", range(6, 10))))
    check("range to the end", (yield keys("b15", "")), (OK, names(b"b", range(15, 20))))
    check("empty range", (yield keys("c", "d")), (OK, []))
    check("inverted range", (yield keys("b", "a")), (OK, []))
    check("prefix filter", (yield keys("", "", sortkey_filter_type=filter_type.FT_MATCH_PREFIX,
                                       sortkey_filter_pattern="b1")), (OK, names(b"b", range(10, 20))))
    check("postfix filter", (yield keys("", "", sortkey_filter_type=filter_type.FT_MATCH_POSTFIX,
                                        sortkey_filter_pattern="07")), (OK, [b"a07", b"b07"]))
    check("anywhere filter", (yield keys("", "", sortkey_filter_type=filter_type.FT_MATCH_ANYWHERE,
                                         sortkey_filter_pattern="1")), (
        OK, sorted(names(b"a", [1] + list(range(10, 20))) + names(b"b", [1] + list(range(10, 20))))))
    opts = MultiGetOptions()
    opts.reverse = True
    code, got = yield c.multi_get_opt(h, "", "", opts, 3)
    check("reverse with a limit takes the last ones", (code, sorted(got)),
          (INCOMPLETE, names(b"b", range(17, 20))))


@inlineCallbacks
def drain(scanner):
    rows = []
    while True:
        row = yield scanner.get_next()
        if row is None:
            break
        rows.append(row)
    scanner.close()
    defer.returnValue(rows)


@inlineCallbacks
def scans(c):
    h = key("scan")
    for base in range(0, ROWS, 500):
        part = {"%05d" % i: "v%d" % i for i in range(base, base + 500)}
        code, _ = yield c.multi_set(h, part, timeout=5000)
        if code != OK:
            check("loading %d rows" % ROWS, code, OK)
            return
    # An empty stop key fails inside this version of the client; "~" is behind every key here.
    options = ScanOptions()
    options.batch_size = 300
    rows = yield drain(c.get_scanner(h, "", "~", options))
    check("scan over %d rows: count" % ROWS, len(rows), ROWS)
    check("scan over %d rows: order and content" % ROWS,
          rows == [((h, "%05d" % i), b"v%d" % i) for i in range(ROWS)], True)
    rows = yield drain(c.get_scanner(h, "00100", "00200", ScanOptions()))
    check("scan of a range", [r[0][1] for r in rows], ["%05d" % i for i in range(100, 200)])
    options = ScanOptions()
    options.start_inclusive = False
    options.stop_inclusive = True
    rows = yield drain(c.get_scanner(h, "00100", "00200", options))
    check("scan of a range, other bounds", [r[0][1] for r in rows],
          ["%05d" % i for i in range(101, 201)])
    names = {key("full%d" % i) for i in range(64)}
    for name in names:
        yield c.set(name, "s", "x")
    found = set()
    for scanner in c.get_unordered_scanners(3, ScanOptions()):
        rows = yield drain(scanner)
        found |= {r[0][0] for r in rows}
    check("unordered scanners see every hash key", names <= found, True)
    scanner = c.get_scanner(h, "", "~", ScanOptions())
    yield scanner.get_next()
    scanner.close()
    check("the connection survives an abandoned scanner", (yield c.get(h, "00001")), (OK, b"v1"))


@inlineCallbacks
def time_to_live(c):
    h = key("ttl")
    check("set with ttl", (yield c.set(h, "s", "v", 2))[0], OK)
    code, left = yield c.ttl(h, "s")
    check("ttl", (code, left in (1, 2)), (OK, True))
    check("multi_set with ttl", (yield c.multi_set(h, {"m1": "v", "m2": "v"}, 2))[0], OK)
    check("set without ttl", (yield c.set(h, "stays", "v"))[0], OK)
    check("get before expiry", (yield c.get(h, "s")), (OK, b"v"))
    yield sleep(3.1)
    check("get after expiry", (yield c.get(h, "s")), (NOT_FOUND, b""))
    check("ttl after expiry", (yield c.ttl(h, "s"))[0], NOT_FOUND)
    check("multi_get after expiry", (yield c.multi_get(h, None)), (OK, {b"stays": b"v"}))
    check("sort_key_count after expiry", (yield c.sort_key_count(h)), (OK, 1))


@inlineCallbacks
def limits(c):
    h = key("limits")
    big = "x" * (REQUEST_LIMIT - 200)
    check("a value just under the request limit", (yield c.set(h, "big", big, 0, 10000))[0], OK)
    code, got = yield c.get(h, "big", 10000)
    check("it reads back", (code, len(got), got == big.encode()), (OK, len(big), True))
    refused = yield c.set(h, "huge", "x" * (REQUEST_LIMIT + 1), 0, 10000)
    check("a value above it is refused", refused, error_types.ERR_INVALID_DATA)
    check("nothing of it was stored", (yield c.get(h, "huge")), (NOT_FOUND, b""))


@inlineCallbacks
def wrong_table():
    c = Pegasus([META], "no_such_table_" + RUN)
    check("init of a table that does not exist", bool((yield c.init())), False)
    c.close()


def run_sh(*words):
    subprocess.run([RUN_SH] + list(words), check=True, stdout=subprocess.DEVNULL)


@inlineCallbacks
def until_served(c, keys):
    """Whether every one of the hash keys is read and written within the limit."""
    left = list(keys)
    deadline = time.time() + FAILOVER_LIMIT
    while left and time.time() < deadline:
        got = yield c.get(left[0], "s", 500)
        if isinstance(got, tuple) and got[0] == OK:
            got = yield c.set(left[0], "again", "v", 0, 500)
        if isinstance(got, tuple) and got[0] == OK:
            left.pop(0)
        else:
            yield sleep(0.3)
    defer.returnValue(not left)


@inlineCallbacks
def one_is_killed(c):
    keys = [key("killed%d" % i) for i in range(100)]
    for k in keys:
        yield c.set(k, "s", "v" + k)
    run_sh("stop_onebox_instance", "-9", INSTANCES[0])
    begun = time.time()
    check("every partition is served without %s" % INSTANCES[0], (yield until_served(c, keys)), True)
    print("     served again after %.1f s" % (time.time() - begun))
    values = []
    for k in keys:
        values.append((yield c.get(k, "s")))
    check("nothing is lost with it", values, [(OK, ("v" + k).encode()) for k in keys])
    run_sh("start_onebox_instance", INSTANCES[0])
    check("it comes back and all is served", (yield until_served(c, keys)), True)


@inlineCallbacks
def restart(c):
    h = key("restart")
    for i in range(200):
        yield c.set(h, "s%d" % i, "v%d" % i)
    for instance in INSTANCES:
        run_sh("stop_onebox_instance", instance)
    got = yield c.set(h, "while_down", "v", 0, 500)
    check("a write while the servers are down fails", isinstance(got, tuple) and got[0] == OK, False)
    for instance in INSTANCES:
        run_sh("start_onebox_instance", instance)
    deadline = time.time() + FAILOVER_LIMIT
    while time.time() < deadline:
        got = yield c.get(h, "s0", 500)
        if isinstance(got, tuple) and got[0] == OK:
            break
        yield sleep(0.3)
    values = []
    for i in range(200):
        values.append((yield c.get(h, "s%d" % i)))
    check("everything is there after a restart", values, [(OK, b"v%d" % i) for i in range(200)])
    check("writes go on", (yield c.set(h, "after", "v"))[0], OK)


@inlineCallbacks
def main():
    try:
        client = Pegasus([META], "temp")
        ready = yield client.init()
        check("init", bool(ready), True)
        if ready:
            steps = (single_records, multi_records, ranges, scans, time_to_live, limits, one_is_killed,
                     restart)
            for step in steps:
                yield step(client)
            yield wrong_table()
        client.close()
    except Exception:
        traceback.print_exc()
        Report.failed += 1
    finally:
        reactor.stop()


reactor.callWhenRunning(main)
reactor.run()
print("%d passed, %d failed" % (Report.passed, Report.failed))
sys.exit(1 if Report.failed else 0)
