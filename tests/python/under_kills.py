"""Writes, reads, counts and scans with the unmodified Python client while servers are killed and started again.

Usage: under_kills.py META_HOST:PORT RUN_SH RECORD SECONDS SEED INSTANCE[,INSTANCE...]

Every write is put down in the file RECORD before it is sent and again when it was acknowledged. A key whose write had
an unknown outcome (timeout, lost connection) is never written again, so that at any time exactly one value of it is
right, or one of two. Reads and scans are held against that all the time, and at the end every key in RECORD is. The
instances (replica@N and meta@N) are killed with `kill -9` and started again by RUN_SH, one or several at a time.

Prints what happened and ends with "N kills, N acknowledged, N unknown, N reads, N scans, N keys, N wrong"; exits 1 when
anything was wrong.
"""

import json
import random
import subprocess
import sys
import time
import traceback

from twisted.internet import defer, reactor, task, threads
from twisted.internet.defer import inlineCallbacks

from pypegasus.base.ttypes import error_types
from pypegasus.pgclient import Pegasus
from pypegasus.utils.tools import ScanOptions

OK = error_types.ERR_OK.value
NOT_FOUND = error_types.ERR_OBJECT_NOT_FOUND.value
# What the client itself answers when it knows no server to send to: nothing was sent.
NOT_SENT = error_types.ERR_INVALID_STATE.value
META, RUN_SH, RECORD = sys.argv[1:4]
SECONDS, SEED = float(sys.argv[4]), int(sys.argv[5])
INSTANCES = sys.argv[6].split(",")
RUN = "k%x" % int(time.time() * 1000)
WORKERS = 12
# Milliseconds that a call may take.
CALL = 700
# Rows that a worker writes under one hash key before it takes another one.
ROWS = 40
# Seconds without an answer at the end after which the cluster is taken for dead.
PATIENCE = 120


class Tally:
    kills = acked = unknown = reads = scans = keys = wrong = 0


class Record:
    """What each key may hold: written down before a write is sent and after it was acknowledged."""

    def __init__(self, path):
        self.file = open(path, "a")
        # (hash key, sort key) -> list of the values that it may have; None is "no record".
        self.may = {}

    def put_down(self, *words):
        self.file.write(json.dumps(words) + "\n")
        self.file.flush()

    def intend(self, h, rows):
        self.put_down("send", h, rows)
        for s, value in rows.items():
            self.may[(h, s)] = self.may.get((h, s), [None]) + [value]

    def acknowledge(self, h, rows):
        self.put_down("acked", h, rows)
        for s, value in rows.items():
            self.may[(h, s)] = [value]

    def withdraw(self, h, rows):
        self.put_down("unsent", h, rows)
        for s in rows:
            self.may[(h, s)].pop()

    @staticmethod
    def load(path):
        """The values that each key may have, from the file alone."""
        may = {}
        with open(path) as lines:
            for line in lines:
                what, h, rows = json.loads(line)
                for s, value in rows.items():
                    have = may.setdefault((h, s), [None])
                    if what == "send":
                        have.append(value)
                    elif what == "acked":
                        may[(h, s)] = [value]
                    else:
                        have.pop()
        return may


def wrong(text):
    Tally.wrong += 1
    print("WRONG %s" % text, flush=True)


def sleep(seconds):
    return task.deferLater(reactor, seconds, lambda: None)


def code_of(answer):
    return answer[0] if isinstance(answer, tuple) else answer


class Worker:
    """One sequence of calls; nobody else writes its keys."""

    def __init__(self, number, client, record, rng):
        self.number, self.client, self.record, self.rng = number, client, record, rng
        self.generation = 0
        self.next_key()

    def next_key(self):
        self.generation += 1
        self.h = "%s_%d_%d" % (RUN, self.number, self.generation)
        self.rows = 0
        self.count = 0

    @inlineCallbacks
    def write(self, rows):
        self.record.intend(self.h, rows)
        if len(rows) == 1:
            (s, value), = rows.items()
            answer = yield self.client.set(self.h, s, value, 0, CALL)
        else:
            answer = yield self.client.multi_set(self.h, rows, 0, CALL)
        if code_of(answer) == OK:
            self.record.acknowledge(self.h, rows)
            Tally.acked += 1
            defer.returnValue(True)
        if isinstance(answer, tuple) and answer[0] == NOT_SENT:
            self.record.withdraw(self.h, rows)
            yield sleep(0.1)
        else:
            Tally.unknown += 1
            self.next_key()
        defer.returnValue(False)

    @inlineCallbacks
    def read(self, h, s):
        """The value of a record, held against the record of what it may be; None when there was no answer."""
        may = list(self.record.may.get((h, s), [None]))
        answer = yield self.client.get(h, s, CALL)
        if code_of(answer) not in (OK, NOT_FOUND) or not isinstance(answer, tuple):
            defer.returnValue(None)
        value = answer[1].decode() if answer[0] == OK else None
        Tally.reads += 1
        if value not in may:
            wrong("%s %s is %r and may be %r" % (h, s, value, may))
        defer.returnValue((value,))

    @inlineCallbacks
    def count_up(self):
        """Read, add one, write: an increment, since nobody else writes the key."""
        found = yield self.read(self.h, "count")
        if found is None:
            yield sleep(0.05)
            return
        if int(found[0] or "0") != self.count:
            wrong("%s counted %r, not %d" % (self.h, found[0], self.count))
        if (yield self.write({"count": str(self.count + 1)})):
            self.count += 1

    @inlineCallbacks
    def scan(self):
        """All rows of the hash key, no more, no less, in order."""
        h = self.h
        expected = sorted((s, may[0]) for (k, s), may in self.record.may.items() if k == h and may[0] is not None)
        options = ScanOptions()
        options.timeout_millis = CALL
        options.batch_size = 7
        scanner = self.client.get_scanner(h, "", "~", options)
        rows = []
        try:
            while True:
                row = yield scanner.get_next()
                if row is None:
                    break
                rows.append((row[0][1], row[1].decode()))
        except Exception:  # the client's way to say that it had no answer
            return
        Tally.scans += 1
        if rows != expected:
            wrong("scan of %s: %r instead of %r" % (h, rows, expected))

    @inlineCallbacks
    def run(self, until):
        while time.time() < until:
            what = self.rng.randrange(20)
            if what < 9:
                done = yield self.write({"r%03d" % self.rows: "v%d" % self.rng.randrange(10**9)})
                self.rows += int(done)
            elif what < 11:
                value = "m%d" % self.rng.randrange(10**9)
                yield self.write({"m1": value, "m2": value, "m3": value})
            elif what < 15:
                yield self.count_up()
            elif what < 19 and self.rows:
                yield self.read(self.h, "r%03d" % self.rng.randrange(self.rows))
            else:
                yield self.scan()
            if self.rows >= ROWS:
                self.next_key()


def run_sh(*words):
    subprocess.run([RUN_SH] + list(words), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@inlineCallbacks
def kill_and_start(rng, until):
    """Kills between one and all instances, again and again; at the end all of them run."""
    while time.time() < until:
        yield sleep(rng.uniform(0.2, 2.0))
        count = rng.choice([1, 1, 1, 1, 2, len(INSTANCES)])
        victims = rng.sample(INSTANCES, count)
        # Now and then for longer than the grace of the failure detector.
        down = rng.choice([0.0, 0.0, 0.5, 1.5, 7.0])
        print("kill %s for %.1f s" % (",".join(victims), down), flush=True)
        for victim in victims:
            yield threads.deferToThread(run_sh, "stop_onebox_instance", "-9", victim)
            Tally.kills += 1
        yield sleep(down)
        for victim in victims:
            yield threads.deferToThread(run_sh, "start_onebox_instance", victim)


@inlineCallbacks
def check_all(client):
    """Every key of the record, read until there is an answer."""
    record = Record.load(RECORD)
    deadline = time.time() + PATIENCE
    for (h, s), may in record.items():
        while True:
            answer = yield client.get(h, s, CALL)
            if isinstance(answer, tuple) and answer[0] in (OK, NOT_FOUND):
                break
            if time.time() > deadline:
                wrong("%s %s is not served: %r" % (h, s, answer))
                return
            yield sleep(0.2)
        value = answer[1].decode() if answer[0] == OK else None
        if value not in may:
            wrong("in the end %s %s is %r and may be %r" % (h, s, value, may))
        Tally.keys += 1


@inlineCallbacks
def main():
    try:
        client = Pegasus([META], "temp")
        if not (yield client.init()):
            wrong("init")
        rng = random.Random(SEED)
        record = Record(RECORD)
        until = time.time() + SECONDS
        workers = [Worker(n, client, record, random.Random(rng.random())) for n in range(WORKERS)]
        running = [worker.run(until) for worker in workers]
        running.append(kill_and_start(random.Random(rng.random()), until))
        yield defer.gatherResults(running, consumeErrors=True)
        yield check_all(client)
        client.close()
    except Exception:
        traceback.print_exc(file=sys.stdout)
        wrong("an exception")
    finally:
        reactor.stop()


print("seed %d" % SEED)
reactor.callWhenRunning(main)
reactor.run()
print("%d kills, %d acknowledged, %d unknown, %d reads, %d scans, %d keys, %d wrong" % (
    Tally.kills, Tally.acked, Tally.unknown, Tally.reads, Tally.scans, Tally.keys, Tally.wrong))
sys.exit(1 if Tally.wrong else 0)
