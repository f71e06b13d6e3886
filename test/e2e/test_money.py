"""Money as accounts and operators handle it: deposits, balances, use, spending limits, subscriptions."""

import concurrent.futures
import datetime
import itertools
import json
import subprocess

import pytest

from accounts import SETTINGS, Account, call, error_of
from fixtures import run_gateway
from stores import wait_until
from wakegate import run

RATES = "USD=1,ETH=2500.5,FAB=0.000000000001"
names = itertools.count()


@pytest.fixture(scope="module")
def gateway(stores):
    """Two servers with two reactors each, and a worker that looks after money."""
    yield from run_gateway(stores, {**SETTINGS, "PAYMENT_RATES": RATES, "LEASE_IDLE_SECONDS": "1"}, serves=2, works=1)


@pytest.fixture
def account(gateway):
    return Account(gateway)


def number_of(gateway, account):
    return gateway.sql("SELECT id FROM account WHERE ref = %s", account.id)[0][0]


def deposit(account, amount, currency="USD", **options):
    prefix = next(names) % 2 and "/api/v1" or "/v1"
    return account.call("POST", f"{prefix}/account/deposit", json={"amount": amount, "currency": currency}, **options)


def balance(account):
    return account.call("GET", "/api/v1/account").json()["balance"]


def assert_sound(gateway):
    answer = gateway.admin("ledger", "check")
    assert answer["sound"] and answer["violations"] == [] and answer["accounts"] >= 1
    assert gateway.operator("ledger", "check", {}).json()["sound"]


# ---- deposits ----

def test_a_deposit_is_credited_at_once(gateway, account):
    assert balance(account) == "0.0"
    answer = deposit(account, "1.50", "ETH")
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert set(made) == {"id", "object", "amount", "currency", "credited", "balance", "driver"}
    assert made["id"].startswith("dep_") and (made["object"], made["driver"]) == ("deposit", "sandbox")
    assert (made["amount"], made["currency"]) == ("1.5", "ETH")
    assert made["credited"] == made["balance"] == balance(account) == "3750.75"
    assert deposit(account, "0.000000000000000001").json()["balance"] == "3750.750000000000000001"
    rows = gateway.admin("ledger", "list", account.id)
    assert [(row["kind"], row["debit"], row["credit"], row["amount"]) for row in rows] == [
        ("deposit", "payments", "available", "0.000000000000000001"), ("deposit", "payments", "available", "3750.75")]
    assert rows[1]["cause"] == made["id"]
    records = gateway.admin("audit", "list", "--account", account.id, "--action", "ledger.deposit")
    assert len(records) == 2 and records[1]["object"] == made["id"] and records[1]["actor"].startswith("key ")
    assert_sound(gateway)


@pytest.mark.parametrize("amount,shown", [
    ("1", "1.0"), ("0.10", "0.1"), ("999999999.999999999999999999", "999999999.999999999999999999"),
    ("000000000001.5", "1.5"), (7, "7.0"), ("1000000000", "1000000000.0"),
], ids=repr)
def test_amounts_are_exact(account, amount, shown):
    made = deposit(account, amount).json()
    assert (made["amount"], made["credited"], made["balance"]) == (shown, shown, shown)


@pytest.mark.parametrize("spelled,shown", [
    ("0.1", "0.1"), ("1.10", "1.1"), ("123456.000000000000000001", "123456.000000000000000001"), ("12", "12.0"),
])
def test_a_number_is_read_as_it_is_spelled(account, spelled, shown):
    """No double lies between the text and the balance."""
    answer = account.call("POST", "/v1/account/deposit", data=f'{{"amount": {spelled}, "currency": "USD"}}',
                          headers={"Content-Type": "application/json"})
    assert answer.status_code == 201 and answer.json()["credited"] == shown == balance(account)


WRONG = ['"NaN"', '"Infinity"', '"inf"', '"1e3"', '"1E3"', '"-1"', '"+1"', '"0"', '"0.0"', '""', '" 1"', '"1 "', '"1,5"',
         '"0x10"', '"1."', '".5"', '"1.0000000000000000001"', '"1234567890123"', '"1_000"', '"\\u0661"', '"1\\u0000"', "1e3",
         "1E-2", "-1", "0", "0.0", "-0", "1.0000000000000000001", "1234567890123", "true", "null", "[1]", '{"a":1}']


@pytest.mark.parametrize("amount", WRONG)
def test_what_is_no_amount_is_400(account, amount):
    answer = account.call("POST", "/api/v1/account/deposit", data=f'{{"amount":{amount},"currency":"USD"}}',
                          headers={"Content-Type": "application/json"})
    assert "amount" in error_of(answer, 400, "invalid_parameter")
    assert balance(account) == "0.0"


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1"])
def test_what_is_no_json_number_is_400(account, amount):
    answer = account.call("POST", "/api/v1/account/deposit", data=f'{{"amount":{amount},"currency":"USD"}}',
                          headers={"Content-Type": "application/json"})
    error_of(answer, 400, "invalid_json")


@pytest.mark.parametrize("body", [
    {"amount": "1"}, {"currency": "USD"}, {"amount": "1", "currency": "BTC"}, {"amount": "1", "currency": "usd"},
    {"amount": "1", "currency": ""}, {"amount": "1", "currency": 7}, {"amount": "1", "currency": "USD=1"}, {},
    {"amount": "1000000000.1", "currency": "USD"},  # too much at once
    {"amount": "0.0000001", "currency": "FAB"},  # worth less than the last decimal
], ids=repr)
def test_what_is_no_deposit_is_400(gateway, account, body):
    error_of(account.call("POST", "/v1/account/deposit", json=body), 400, "invalid_parameter")
    assert balance(account) == "0.0" and gateway.admin("ledger", "list", account.id) == []


def test_the_currencies_are_named_to_who_has_another(account):
    assert "USD, ETH, FAB" in error_of(deposit(account, "1", "EUR"), 400, "invalid_parameter")


def test_a_deposit_that_is_repeated_is_made_once(account):
    again = {"headers": {"Idempotency-Key": "one deposit"}}
    body = {"amount": "5", "currency": "USD"}
    first = account.call("POST", "/v1/account/deposit", json=body, **again)
    second = account.call("POST", "/v1/account/deposit", json=body, **again)
    assert first.text == second.text and second.headers["Idempotent-Replayed"] == "true"
    assert balance(account) == "5.0"
    error_of(account.call("POST", "/v1/account/deposit", json={**body, "amount": "6"}, **again), 422,
             "idempotency_key_reused")
    assert balance(account) == "5.0"


def test_deposits_that_race_sum_up(gateway, account):
    def some(number):
        for _ in range(10):
            assert call(gateway, "POST", "/v1/account/deposit", account.key, fresh=True, url=gateway.serves[number % 2].url(),
                        json={"amount": "0.1", "currency": "USD"}).status_code == 201

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(some, range(8)))
    assert balance(account) == "8.0"
    assert_sound(gateway)


def test_only_who_may_write_makes_deposits(account):
    reader = account.make_key(scopes=["account:read"])["key"]
    error_of(deposit(account, "1", token=reader), 403, "insufficient_scope")
    assert account.call("GET", "/api/v1/usage", reader).status_code == 200
    other = account.make_key(scopes=["events"])["key"]
    error_of(account.call("GET", "/api/v1/usage", other), 403, "insufficient_scope")


def test_a_deposit_with_curl(gateway, account):
    done = subprocess.run(["curl", "-sS", "--noproxy", "*", f"{gateway.url}/api/v1/account/deposit", "-H",
                           f"Authorization: Bearer {account.key}", "-d", '{"amount": "1.0", "currency": "ETH"}'],
                          capture_output=True, text=True, timeout=30)
    assert json.loads(done.stdout)["credited"] == "2500.5"


# ---- use ----

USES = [("2026-01-01", "gpt-4", 2, 10, 20, "0.002"), ("2026-01-01", "odd model ~ /é", 1, 0, 0, "0.001"),
        ("2026-01-02", "gpt-4", 5, 50, 100, "0.0050000000000001")]


def use(gateway, account, rows, key=0):
    for day, model, calls, prompt, completion, cost in rows:
        for number in range(calls):
            first = number == 0
            gateway.sql("SELECT usage_add(ARRAY[%s::bigint], ARRAY[%s::date], ARRAY[%s], ARRAY[%s::bigint], ARRAY[%s::bigint], "
                        "ARRAY[%s::bigint], ARRAY[%s::numeric])", number_of(gateway, account), day, model, key,
                        prompt * first, completion * first, cost if first else "0")


def usage(account, **query):
    answer = account.call("GET", "/api/v1/usage", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_use_is_shown_by_day_model_and_key(gateway, account):
    use(gateway, account, USES)
    use(gateway, account, USES[:1], key=gateway.sql("SELECT id FROM api_key WHERE ref = %s", account.key_id)[0][0])
    shown = usage(account, **{"from": "2026-01-01", "to": "2026-01-31"})
    assert (shown["from"], shown["to"], shown["next_cursor"]) == ("2026-01-01", "2026-01-31", None)
    assert shown["total"] == {"requests": 10, "prompt_tokens": 70, "completion_tokens": 140, "cost": "0.0100000000000001"}
    rows = [(row["date"], row["model"], row["key_id"], row["requests"], row["cost"]) for row in shown["data"]]
    assert sorted(rows, key=str) == sorted([
        ("2026-01-01", "gpt-4", None, 2, "0.002"), ("2026-01-01", "gpt-4", account.key_id, 2, "0.002"),
        ("2026-01-01", "odd model ~ /é", None, 1, "0.001"), ("2026-01-02", "gpt-4", None, 5, "0.0050000000000001")], key=str)
    paged, cursor = [], None
    while True:
        page = usage(account, **{"from": "2026-01-01", "to": "2026-01-31", "limit": 1}, **({"cursor": cursor} if cursor else {}))
        paged += page["data"]
        cursor = page["next_cursor"]
        if not cursor:
            break
        assert len(page["data"]) == 1 and len(paged) < 10
    assert paged == shown["data"]
    assert usage(account, **{"from": "2026-01-02", "to": "2026-01-02"})["total"]["requests"] == 5
    assert usage(Account(gateway), **{"from": "2026-01-01", "to": "2026-01-31"})["data"] == []


def test_use_is_that_of_this_month_when_nothing_is_asked(gateway, account):
    today = datetime.datetime.now(datetime.timezone.utc).date()
    first = today.replace(day=1)
    last_month = first - datetime.timedelta(days=1)
    before = last_month.replace(day=1) - datetime.timedelta(days=1)
    use(gateway, account, [(str(today), "m", 1, 1, 1, "0.5"), (str(first), "n", 1, 1, 1, "0.25"),
                           (str(last_month), "m", 1, 1, 1, "0.125"), (str(before), "m", 1, 1, 1, "7")])
    shown = usage(account)
    assert (shown["from"], shown["to"]) == (str(first), str(today)) and shown["total"]["cost"] == "0.75"
    assert account.call("GET", "/v1/account").json()["usage"] == {"current_month": "0.75", "last_month": "0.125",
                                                                  "today": "0.0"}
    assert usage(account, to=str(last_month))["from"] == str(last_month)
    wallet = gateway.admin("ledger", "show", account.id)
    assert (wallet["current_month"], wallet["last_month"]) == ("0.75", "0.125")


@pytest.mark.parametrize("query", [
    {"from": "2026-02-30"}, {"from": "yesterday"}, {"from": ""}, {"to": "2026-1-1"}, {"to": "20260101"}, {"from": "2026-01-01x"},
    {"from": "2026-02-01", "to": "2026-01-01"}, {"from": "2024-01-01", "to": "2025-01-02"}, {"from": "2999-01-01"},
    {"limit": "0"}, {"limit": "1001"}, {"limit": "x"}, {"cursor": "x"}, {"cursor": ""}, {"cursor": "MjAyNi0wMS0wMQ"},
    {"cursor": "a" * 700}, {"from": "1969-12-31", "to": "1970-01-01"},
], ids=repr)
def test_what_is_no_question_about_use_is_400(account, query):
    error_of(account.call("GET", "/v1/usage", params=query), 400, "invalid_parameter")


# ---- operators ----

def test_an_operator_gives_and_takes(gateway, account):
    given = gateway.admin("ledger", "credit", account.id, "--amount", "10.5", "--ref", "ticket 7")
    assert given["balance"] == given["available"] == "10.5" and given["leased"] == "0.0"
    assert gateway.admin("ledger", "debit", account.id, "--amount", "0.5")["balance"] == "10.0"
    for verb in ("credit", "debit"):
        refused = gateway.operator("ledger", verb, {"account": account.id, "amount": "1", "ref": "ticket 7"})
        assert refused.status_code == (409 if verb == "credit" else 200)
    refused = gateway.operator("ledger", "debit", {"account": account.id, "amount": "9.000000000000000001"})
    assert refused.status_code == 400 and "more than the account has" in refused.text
    assert balance(account) == "9.0"
    other = Account(gateway)
    gateway.admin("ledger", "credit", other.id, "--amount", "1", "--ref", "ticket 7")
    assert_sound(gateway)


def test_a_deposit_is_given_back(gateway, account):
    made = deposit(account, "2", "ETH").json()["id"]
    gateway.admin("ledger", "debit", account.id, "--amount", "1")
    some = gateway.admin("ledger", "refund", made, "--amount", "5000")
    assert some == {"deposit": made, "credited": "5001.0", "refunded": "5000.0", "balance": "0.0"}
    short = gateway.operator("ledger", "refund", {"deposit": made})
    assert short.status_code == 400 and "more than the account has" in short.text
    much = gateway.operator("ledger", "refund", {"deposit": made, "amount": "2"})
    assert much.status_code == 400 and "left of the deposit" in much.text
    gateway.admin("ledger", "credit", account.id, "--amount", "1")
    assert gateway.admin("ledger", "refund", made)["refunded"] == "5001.0"
    assert gateway.operator("ledger", "refund", {"deposit": made}).status_code == 400
    assert gateway.operator("ledger", "refund", {"deposit": "dep_none"}).status_code == 404
    assert balance(account) == "0.0"
    assert_sound(gateway)


def test_money_that_is_lent_is_there_when_it_is_wanted(gateway, account):
    """What takes money out of the balance takes the lease back from Redis; idle ones come back by themselves."""
    deposit(account, "20")
    number = number_of(gateway, account)

    store = gateway.stores.redis.client(gateway.redis_database)

    def lend():
        """As a server does before a call that may cost 15 dollars."""
        store.set("lease:epoch", 1, nx=True)
        past = int(store.hget(f"lease:{number}", "past") or 0)
        row = gateway.sql("SELECT outcome, generation, (amount * 1000000000000)::bigint FROM lease_grant("
                          "%s, %s, 0, 0, 0, %s, 15)", number, int(store.get("lease:epoch")), past)[0]
        assert row[0] == "grant"
        store.delete(f"lease:{number}")
        store.hset(f"lease:{number}", mapping={"gen": row[1], "applied": 1, "free": row[2]})

    lend()
    shown = gateway.admin("ledger", "show", account.id)
    assert shown["balance"] == balance(account) == "20.0"
    assert gateway.admin("ledger", "debit", account.id, "--amount", "20")["available"] == "0.0"
    deposit(account, "20")
    lend()
    assert balance(account) == "20.0"
    wait_until(lambda: gateway.admin("ledger", "show", account.id)["available"] == "20.0", 20, "the idle lease comes back")
    assert_sound(gateway)


def test_a_violation_is_found_and_told_by_the_status(gateway, account):
    deposit(account, "1")
    number = number_of(gateway, account)
    gateway.sql("UPDATE wallet SET available = available + 1 WHERE account_id = %s", number)
    try:
        done = run("admin", "ledger", "check", account.id, "--json", "--env-file", gateway.env_file)
        told = json.loads(done.stdout)
        assert done.returncode == 1 and not told["sound"] and told["accounts"] == 1
        assert all(row["account"] == number for row in told["violations"])
        assert any("available is 2" in row["what"] for row in told["violations"])
    finally:
        gateway.sql("UPDATE wallet SET available = available - 1 WHERE account_id = %s", number)
    assert_sound(gateway)


def test_a_low_balance_is_told_once_a_crossing(gateway, account):
    number = number_of(gateway, account)

    def told():
        """Whether they have their number yet or not."""
        return gateway.sql("SELECT data->>'balance' FROM (SELECT account_id, name, at, data FROM event UNION ALL "
                           "SELECT account_id, name, at, data FROM event_outbox) AS e WHERE account_id = %s "
                           "AND name = 'billing.low_balance' ORDER BY at", number)

    def take(amount):
        gateway.admin("ledger", "debit", account.id, "--amount", amount)
        return [row[0] for row in told()]

    deposit(account, "5")
    assert take("1") == []  # it never was above
    deposit(account, "16")
    assert take("10") == []
    assert take("0.5") == take("1") == ["9.5"]
    deposit(account, "1.49")  # 9.99: not above again
    assert take("1") == ["9.5"]
    deposit(account, "1.01")
    assert take("0.000000000000000001") == ["9.5", "9.999999999999999999"]


VIOLATIONS = [
    ("UPDATE wallet SET leased = leased + 1 WHERE account_id = %s", "leased is"),
    ("INSERT INTO ledger_transfer (account_id, kind, debit, credit, amount, ref) VALUES (%s, 'credit', 'available', 'payments', 1, 'x')",
     "sides"),
    ("INSERT INTO ledger_transfer (account_id, kind, debit, credit, amount, ref) VALUES (%s, 'loss', 'losses', 'revenue', 1, 'x')",
     "house lost"),
    ("UPDATE wallet_lease SET granted = granted + 1 WHERE account_id = %s", "granted"),
    ("UPDATE wallet_lease SET state = 'done' WHERE account_id = %s", "is done and has"),
    ("UPDATE deposit SET credited = credited + 1 WHERE account_id = %s", "credited and"),
]


@pytest.mark.parametrize("wrong,words", VIOLATIONS, ids=[row[1] for row in VIOLATIONS])
def test_each_kind_of_violation_is_found(start_gateway, wrong, words):
    gateway = start_gateway(SETTINGS, works=0)
    account = Account(gateway)
    deposit(account, "20")
    number = number_of(gateway, account)
    gateway.sql("SELECT lease_grant(%s, 1, 0, 0, 0, 0, 1)", number)
    assert_sound(gateway)
    gateway.sql(wrong, number)
    done = run("admin", "ledger", "check", "--json", "--env-file", gateway.env_file)
    assert done.returncode == 1 and any(words in row["what"] for row in json.loads(done.stdout)["violations"]), done.stdout


# ---- what a day may cost ----

def spend_of(account):
    return account.call("GET", "/api/v1/account").json()["limits"]["daily_spend"]


@pytest.mark.parametrize("plan,shown", [("free", "10.0"), ("basic", "100.0"), ("pro", "1000.0"), ("enterprise", None)])
def test_a_plan_has_a_daily_spending_limit(gateway, plan, shown):
    assert spend_of(Account(gateway, plan)) == shown


def test_an_operator_sets_a_daily_spending_limit(gateway, account):
    assert gateway.admin("plan", "spend", account.id, "--most", "25.000000000001")["daily_spend"] == "25.000000000001"
    wait_until(lambda: spend_of(account) == "25.000000000001", 3, "it counts")
    assert gateway.admin("plan", "show", account.id)["daily_spend"] == "25.000000000001"
    gateway.admin("plan", "set", account.id, "--surface", "inference", "--plan", "basic")
    assert gateway.admin("plan", "spend", account.id, "--most", "none")["daily_spend"] is None
    assert gateway.admin("plan", "spend", account.id, "--most", "plan")["daily_spend"] == "100.0"
    wait_until(lambda: spend_of(account) == "100.0", 3, "the plan's counts")
    for most in ("0", "-1", "x", "1e3", "0.0000000000001", ""):
        assert gateway.operator("plan", "spend", {"account": account.id, "most": most}).status_code == 400


# ---- subscriptions ----

def plan_of(account):
    shown = account.call("GET", "/api/v1/account").json()
    return shown["limits"]["plan"], shown["subscription"]


@pytest.fixture
def subscriber(gateway):
    """On the plan that costs nothing, but without its rates."""
    account = Account(gateway, plan=None)
    gateway.sql("INSERT INTO account_limit (account_id, name, most) SELECT %s, name, 1000000 FROM "
                "unnest(ARRAY['inference-minute', 'inference-day']) AS name", number_of(gateway, account))
    wait_until(lambda: account.call("GET", "/v1/account").headers["X-RateLimit-Limit"] == "1000000", 3, "its own limits")
    return account


def test_a_subscription_is_paid_at_once_and_sets_the_plan(gateway, subscriber):
    account = subscriber
    poor = gateway.operator("plan", "subscribe", {"account": account.id, "plan": "pro"})
    assert poor.status_code == 400 and plan_of(account) == ("free", None)
    deposit(account, "348.5")
    told = gateway.admin("plan", "subscribe", account.id, "pro")
    assert told["plans"]["inference"] == told["subscribed_to"] == "pro" and balance(account) == "49.5"
    wait_until(lambda: plan_of(account)[0] == "pro", 3, "the plan counts")
    subscription = plan_of(account)[1]
    assert (subscription["plan"], subscription["price"]) == ("pro", "299.0")
    assert gateway.operator("plan", "subscribe", {"account": account.id, "plan": "pro"}).status_code == 409
    assert gateway.admin("plan", "subscribe", account.id, "basic")["subscribed_to"] == "basic"
    assert balance(account) == "0.5"
    assert gateway.admin("plan", "subscribe", account.id, "free")["subscribed_to"] is None
    wait_until(lambda: plan_of(account) == ("free", None), 3, "the free plan counts")
    for plan in ("enterprise", "none"):
        assert gateway.operator("plan", "subscribe", {"account": account.id, "plan": plan}).status_code == 400
    assert_sound(gateway)


def test_a_plan_that_an_operator_sets_ends_the_subscription(gateway):
    account = Account(gateway, plan=None)
    deposit(account, "49")
    gateway.admin("plan", "subscribe", account.id, "basic")
    assert gateway.admin("plan", "set", account.id, "--surface", "inference", "--plan", "enterprise")["subscribed_to"] is None


def make_due(gateway, account, age="1 month"):
    """As if it had been subscribed to so long ago."""
    gateway.sql("UPDATE subscription SET started_at = started_at - %s::interval, renews_at = renews_at - %s::interval "
                "WHERE account_id = %s", age, age, number_of(gateway, account))


def test_a_subscription_is_renewed_while_it_can_be_paid(gateway, subscriber):
    account = subscriber
    deposit(account, "150")
    gateway.admin("plan", "subscribe", account.id, "basic")
    until = datetime.datetime.fromisoformat(plan_of(account)[1]["renews_at"].replace("Z", "+00:00"))
    make_due(gateway, account)
    wait_until(lambda: balance(account) == "52.0", 15, "the second month is paid")
    again = datetime.datetime.fromisoformat(plan_of(account)[1]["renews_at"].replace("Z", "+00:00"))
    assert abs(again - until) < datetime.timedelta(days=4)  # months differ in length
    make_due(gateway, account, "5 months")  # nobody looked for so long: one month is paid, not five
    wait_until(lambda: balance(account) == "3.0", 15, "the third month is paid")
    make_due(gateway, account)
    wait_until(lambda: plan_of(account) == ("free", None), 15, "it ends")
    assert balance(account) == "3.0"
    records = gateway.admin("audit", "list", "--account", account.id, "--action", "plan.*")
    assert [(row["action"], row["object"]) for row in records] == [
        ("plan.renew", "ended"), ("plan.renew", "renewed"), ("plan.renew", "renewed"), ("plan.subscribe", "basic")]
    assert {row["actor"] for row in records} == {"worker", "operator"}
    assert_sound(gateway)


# ---- settings ----

@pytest.mark.parametrize("name,value", [
    ("CALL_PRICE_USD", "-1"), ("CALL_PRICE_USD", ""), ("CALL_PRICE_USD", "1e-3"), ("CALL_PRICE_USD", "0.0000000000001"),
    ("PAYMENT_RATES", ""), ("PAYMENT_RATES", "USD"), ("PAYMENT_RATES", "USD=0"), ("PAYMENT_RATES", "usd=1"),
    ("PAYMENT_RATES", "USD=1,"), ("PAYMENT_RATES", "USD=-1"), ("PAYMENT_RATES", "=1"), ("PAYMENT_RATES", "USD=1=2"),
    ("AI_CALL_SECONDS", "0"), ("LEASE_IDLE_SECONDS", "x"),
])
def test_a_bad_setting_stops_the_start(gateway, name, value):
    done = run("serve", "--env-file", gateway.env_file, env={name: value})
    assert done.returncode != 0 and name in done.stderr and len(done.stderr.splitlines()) == 1
