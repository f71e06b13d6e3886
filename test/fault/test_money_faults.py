"""Money while processes and stores die: it is neither made nor lost, and no balance is ever negative."""

import decimal
import os
import random
import signal
import threading
import time
import uuid as uuids

import pytest
import requests

from accounts import SETTINGS, Account
from stores import wait_until
from wakegate import ROOT

LOAD_S = 8
CLIENTS = 4
SHORT = {**SETTINGS, "PG_TIMEOUT_MS": "2000", "REQUEST_TIMEOUT_SECONDS": "4", "LEASE_IDLE_SECONDS": "1", "AI_CALL_SECONDS": "1"}
USD = decimal.Decimal


def assert_sound(gateway):
    told = gateway.admin("ledger", "check")
    assert told["sound"] and told["violations"] == [], told


def wallet(gateway, account):
    return gateway.sql("SELECT available, leased FROM wallet JOIN account ON account.id = account_id WHERE ref = %s",
                       account.id)[0]


def script(name):
    with open(os.path.join(ROOT, f"schema/lease_{name}.lua"), encoding="utf-8") as file:
        return file.read()


class Lender:
    """What a server does before a call: takes a slice out of PostgreSQL, puts it into Redis by the same script, and reserves."""

    def __init__(self, gateway, account):
        self.gateway = gateway
        self.store = gateway.stores.redis.client(gateway.redis_database)
        self.number = gateway.sql("SELECT id FROM account WHERE ref = %s", account.id)[0][0]
        self.scripts = {name: self.store.register_script(script(name)) for name in ("look", "apply")}

    def lend(self, need):
        key = f"lease:{self.number}"
        epoch, generation, applied, free, past = map(int, self.scripts["look"](keys=[key, "lease:epoch", "lease:run"]))
        outcome, number, grant, amount = self.gateway.sql(
            "SELECT outcome, generation, grant_no, (amount * 1000000000000)::bigint FROM lease_grant("
            "%s, %s, %s, %s, %s * 0.000000000001, %s, %s)", self.number, epoch, generation, applied, free, past, need)[0]
        if outcome == "grant":
            self.scripts["apply"](keys=[key, "lease:epoch"], args=[epoch, number, grant, amount])
        return outcome

    def reserve(self, pico):
        """The generation, or None when there is not so much."""
        took = self.store.eval("local l = redis.call('HMGET', KEYS[1], 'gen', 'free') "
                               "if not l[1] or tonumber(l[2]) < tonumber(ARGV[1]) then return false end "
                               "redis.call('HINCRBY', KEYS[1], 'free', -ARGV[1]) return l[1]", 1, f"lease:{self.number}", pico)
        return int(took) if took else None


@pytest.mark.parametrize("point", ["lease-taken"])
def test_a_worker_that_dies_with_a_lease_in_its_hands_loses_none_of_it(start_gateway, tmp_path, point):
    """The idle lease is out of Redis, and PostgreSQL does not know how much was free."""
    extra = {"WAKEGATE_CRASH_AT": point, "WAKEGATE_CRASH_ONCE": str(tmp_path / "crashed")}
    gateway = start_gateway(SHORT, work_env=extra, supervised=True)
    account = Account(gateway)
    gateway.admin("ledger", "credit", account.id, "--amount", "20")
    lender = Lender(gateway, account)
    assert lender.lend(3) == "grant" and lender.reserve(2 * 10**12) == 1
    wait_until(lambda: (tmp_path / "crashed").exists(), 20, "the worker dies")
    gateway.sql("SELECT ledger_charge(ARRAY[%s::bigint], '{1}', '{1.5}', '{job_1}')", lender.number)
    wait_until(lambda: wallet(gateway, account) == (USD("18.5"), 0), 40, "all but the charge is back")
    assert gateway.works[0].statuses == [-9]
    assert_sound(gateway)


class Depositors:
    """Clients that each insist on one deposit after the other, and an operator who takes away what he can."""

    def __init__(self, gateway, account):
        self.gateway = gateway
        self.account = account
        self.made = 0
        self.errors = []
        self.ending = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]

    def _ask(self, key):
        try:
            return requests.post(self.gateway.serves[0].url() + "/v1/account/deposit", timeout=10,
                                 json={"amount": "0.1", "currency": "USD"},
                                 headers={"Authorization": f"Bearer {self.account.key}", "Idempotency-Key": key})
        except (requests.ConnectionError, requests.Timeout, AssertionError):
            return None

    def _insist(self, key):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            answer = self._ask(key)
            if answer is not None and answer.status_code not in (409, 503):
                assert answer.status_code == 201, answer.text
                return
            time.sleep(0.02)
        raise AssertionError("no answer in 60 s")

    def _run(self, number):
        try:
            while not self.ending.is_set():
                self._insist(str(uuids.uuid4()))
                with self.lock:
                    self.made += 1
        except Exception as error:
            self.errors.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self.ending.set()
        for thread in self.threads:
            thread.join()

    def check(self):
        assert self.errors == [] and self.made > 10
        wait_until(lambda: wallet(self.gateway, self.account)[1] == 0, 40, "what is lent comes back")
        deposited = self.gateway.sql("SELECT count(*), sum(amount) FROM ledger_transfer WHERE kind = 'deposit'")[0]
        charged = self.gateway.sql("SELECT coalesce(sum(amount), 0) FROM ledger_transfer WHERE credit = 'revenue'")[0][0]
        assert deposited == (self.made, self.made * USD("0.1"))
        assert sum(wallet(self.gateway, self.account)) == deposited[1] - charged
        assert self.gateway.sql("SELECT count(*) FROM deposit")[0][0] == self.made
        assert_sound(self.gateway)


class Callers(Depositors):
    """Besides, calls that are paid for out of what is lent."""

    def __init__(self, gateway, account):
        super().__init__(gateway, account)
        self.calls = 0
        self.threads.append(threading.Thread(target=self._call))

    def _call(self):
        lender = Lender(self.gateway, self.account)
        while not self.ending.is_set():
            try:
                generation = lender.reserve(10**10)
                if generation is None:
                    lender.lend("0.01")
                    continue
                ref = str(uuids.uuid4())
                self.gateway.sql("SELECT ledger_charge(ARRAY[%s::bigint], ARRAY[%s::bigint], '{0.005}', ARRAY[%s])",
                                 lender.number, generation, ref)
                self.calls += 1
            except Exception:  # a store is away: the call is lost, its money comes back
                time.sleep(0.05)


def restart(part):
    part.kill()
    part.start().wait_ready()


def flush(gateway):
    gateway.stores.redis.client(gateway.redis_database).flushdb()


FAULTS = {
    "server": lambda gateway: restart(gateway.serves[0]),
    "worker": lambda gateway: restart(gateway.works[0]),
    "redis is emptied": flush,
    "redis dies": lambda gateway: (gateway.stores.redis.stop(signal.SIGKILL), gateway.stores.redis.start()),
    "postgresql restarts": lambda gateway: (gateway.stores.postgres.stop(signal.SIGINT), gateway.stores.postgres.start()),
    "connections end": lambda gateway: gateway.stores.postgres.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND application_name <> 'tests' "
        "ORDER BY random() LIMIT 3",
        gateway.database),
}


def run_faults(gateway, faults, seconds):
    with Callers(gateway, Account(gateway)) as callers:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            before = callers.made
            wait_until(lambda: callers.made > before + 2 or callers.errors, 30, "deposits are made")
            time.sleep(random.uniform(0, 0.3))
            FAULTS[random.choice(faults)](gateway)
    assert callers.calls > 5
    callers.check()


@pytest.mark.parametrize("fault", FAULTS, ids=[name.replace(" ", "-") for name in FAULTS])
def test_money_moves_through_one_kind_of_fault(own_stores, start_gateway, fault):
    run_faults(start_gateway(SHORT, stores=own_stores), [fault], LOAD_S)


def test_money_moves_through_all_kinds_of_faults(own_stores, start_gateway):
    run_faults(start_gateway(SHORT, stores=own_stores), list(FAULTS), 3 * LOAD_S)
