-- Money, in US dollars: who has how much, every movement, and what is lent to Redis so that calls can be paid for without a
-- commit before each. core/domain/money/lease.h draws a lease's life. As in 002, functions that run often leave the planner no way
-- but the right index.

-- How money is written on the wire: exact, in as few digits as it takes but one decimal at least.
CREATE FUNCTION money_text(amount numeric) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN scale(trim_scale(amount)) = 0 THEN trim_scale(amount)::text || '.0' ELSE trim_scale(amount)::text END
$$;

-- What a tenant has: the balance is available + leased. A row is made by the first movement.
CREATE TABLE wallet (
    account_id bigint PRIMARY KEY REFERENCES account,
    available  numeric(38, 18) NOT NULL DEFAULT 0 CHECK (available >= 0),
    leased     numeric(38, 18) NOT NULL DEFAULT 0 CHECK (leased >= 0),  -- lent to Redis, neither charged nor given back yet
    generation bigint NOT NULL DEFAULT 0,      -- of the lease that was opened last
    low        boolean NOT NULL DEFAULT true,  -- the balance is below 10
    spend_day  date,                           -- the day (UTC) of the last charge,
    spent      numeric(38, 18) NOT NULL DEFAULT 0  -- and the sum of that day's
) WITH (fillfactor = 70);

-- Every movement: double entry. `debit` is where the money leaves and `credit` where it arrives, 'available' and 'leased' being
-- the tenant's and the others the house's. The row is written in the transaction of its cause; `ref` names the cause, so that
-- nothing moves twice for it.
CREATE TABLE ledger_kind (
    kind   text PRIMARY KEY,
    debit  text NOT NULL,
    credit text NOT NULL
);
INSERT INTO ledger_kind (kind, debit, credit) VALUES
    ('deposit', 'payments', 'available'),
    ('refund', 'available', 'payments'),
    ('credit', 'adjustments', 'available'),         -- an operator's
    ('debit', 'available', 'adjustments'),
    ('subscription', 'available', 'subscriptions'),
    ('grant', 'available', 'leased'),               -- lent to Redis
    ('return', 'leased', 'available'),              -- taken back from it
    ('charge', 'leased', 'revenue'),
    ('overdue', 'available', 'revenue'),            -- a charge that came when its lease had been given back
    ('loss', 'losses', 'revenue');                  -- the same, and the tenant has no longer so much

CREATE TABLE ledger_transfer (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    account_id bigint NOT NULL,   -- no reference: the record outlives it
    kind       text NOT NULL,
    debit      text NOT NULL,
    credit     text NOT NULL CHECK (credit <> debit),
    amount     numeric(38, 18) NOT NULL CHECK (amount > 0),
    ref        text NOT NULL,
    generation bigint,            -- of the lease, where one is a side
    UNIQUE (kind, ref)
) WITH (autovacuum_vacuum_insert_threshold = 100000, autovacuum_analyze_threshold = 20000);
CREATE INDEX ledger_transfer_account ON ledger_transfer (account_id, id);

-- What was lent to Redis. granted = charged + returned at the end.
CREATE TABLE wallet_lease (
    account_id bigint NOT NULL REFERENCES wallet,
    generation bigint NOT NULL,
    epoch      bigint NOT NULL,                -- of Redis: it has lost nothing while it says the same
    granted    numeric(38, 18) NOT NULL,
    charged    numeric(38, 18) NOT NULL DEFAULT 0,
    returned   numeric(38, 18) NOT NULL DEFAULT 0,
    grant_no   bigint NOT NULL DEFAULT 1,      -- of the last slice,
    pending    numeric(38, 18) NOT NULL,       -- its amount, until Redis is known to have it; then 0
    state      text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed', 'done')),
    lost       boolean NOT NULL DEFAULT false, -- closed without knowing what was left in Redis
    granted_at timestamptz NOT NULL,
    touched_at timestamptz NOT NULL,           -- the last slice or charge
    closed_at  timestamptz,
    fenced_at  timestamptz,                    -- since when Redis gives nothing out of it for sure
    PRIMARY KEY (account_id, generation),
    CHECK (charged >= 0 AND returned >= 0 AND pending >= 0 AND charged + returned <= granted)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX wallet_lease_open ON wallet_lease (account_id) WHERE state = 'open';
CREATE INDEX wallet_lease_closed ON wallet_lease (account_id, generation) WHERE state = 'closed';
CREATE INDEX wallet_lease_done ON wallet_lease (closed_at) WHERE state = 'done';

-- ---- low balance ----

-- The balance has come below 10. What tells the tenant takes this function's place.
CREATE FUNCTION wallet_low(account_id bigint, balance numeric) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
END $$;

CREATE FUNCTION wallet_note_low() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.low := NEW.available + NEW.leased < 10;
    RETURN NEW;
END $$;
CREATE TRIGGER wallet_note_low BEFORE INSERT OR UPDATE OF available, leased ON wallet
FOR EACH ROW EXECUTE FUNCTION wallet_note_low();

CREATE FUNCTION wallet_tell_low() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM wallet_low(NEW.account_id, NEW.available + NEW.leased);
    RETURN NULL;
END $$;
CREATE TRIGGER wallet_tell_low AFTER UPDATE OF available, leased ON wallet
FOR EACH ROW WHEN (NEW.low AND NOT OLD.low) EXECUTE FUNCTION wallet_tell_low();

-- ---- movements ----

-- Moves money into a tenant's available money or out of it, as the kind says, and returns the balance. NULL: there is not so
-- much available, and nothing was moved. A ref that has been is an error (unique).
CREATE FUNCTION ledger_move(account bigint, move text, sum numeric, cause text) RETURNS numeric
LANGUAGE plpgsql AS $$
DECLARE
    sides ledger_kind;
    balance numeric;
BEGIN
    SELECT * INTO STRICT sides FROM ledger_kind WHERE kind = move;
    IF sides.credit = 'available' THEN
        INSERT INTO wallet AS w (account_id, available) VALUES (account, sum)
        ON CONFLICT (account_id) DO UPDATE SET available = w.available + excluded.available
        RETURNING w.available + w.leased INTO STRICT balance;
    ELSE
        UPDATE wallet SET available = available - sum WHERE account_id = account AND available >= sum
        RETURNING available + leased INTO balance;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    INSERT INTO ledger_transfer (account_id, kind, debit, credit, amount, ref)
    VALUES (account, move, sides.debit, sides.credit, sum, cause);
    RETURN balance;
END $$;

-- Charges for what was delivered: out of the lease that the call was reserved on. One update of each wallet and lease, however
-- many charges; a ref that was charged before is left out, and so is an amount of zero. A charge that comes when its lease was
-- given back is paid out of what is available, and what is not there is the house's loss: it never fails for want of money.
CREATE FUNCTION ledger_charge(account_ids bigint[], generations bigint[], amounts numeric[], refs text[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
BEGIN
    -- Everybody who moves money takes the wallets first, in this order.
    PERFORM FROM wallet WHERE account_id = ANY ($1) ORDER BY account_id FOR NO KEY UPDATE;
    WITH asked AS MATERIALIZED (
        SELECT DISTINCT ON (ref) account_id, generation, amount::numeric(38, 18) AS amount, ref
        FROM unnest($1, $2, $3, $4) AS given (account_id, generation, amount, ref)
        -- OFFSET 0: each is looked up in the index, whatever is known of how many rows there are.
        WHERE amount::numeric(38, 18) > 0 AND NOT EXISTS (
            SELECT FROM ledger_transfer AS known
            WHERE known.kind IN ('charge', 'overdue', 'loss') AND known.ref = given.ref OFFSET 0)
        ORDER BY ref
    ), leased AS MATERIALIZED (
        SELECT asked.*, least(amount, greatest(coalesce(room, 0) - (sum(amount) OVER (
            PARTITION BY asked.account_id, asked.generation ORDER BY ref) - amount), 0)) AS from_lease
        FROM asked LEFT JOIN LATERAL (
            SELECT granted - charged - returned AS room FROM wallet_lease
            WHERE account_id = asked.account_id AND generation = asked.generation OFFSET 0) AS lease ON true
    ), split AS MATERIALIZED (
        SELECT leased.*, least(amount - from_lease, greatest(coalesce(available, 0) - (sum(amount - from_lease) OVER (
            PARTITION BY leased.account_id ORDER BY ref) - (amount - from_lease)), 0)) AS from_wallet
        FROM leased LEFT JOIN LATERAL (
            SELECT available FROM wallet WHERE account_id = leased.account_id OFFSET 0) AS purse ON true
    ), moved AS (
        INSERT INTO ledger_transfer (account_id, kind, debit, credit, amount, ref, generation)
        SELECT account_id, kind, debit, 'revenue', part, ref, generation
        FROM split CROSS JOIN LATERAL (VALUES
            ('charge', 'leased', from_lease),
            ('overdue', 'available', from_wallet),
            ('loss', 'losses', amount - from_lease - from_wallet)) AS side (kind, debit, part)
        WHERE part > 0
    ), lease_sums AS MATERIALIZED (
        SELECT account_id, generation, sum(from_lease) AS charged FROM split WHERE from_lease > 0
        GROUP BY account_id, generation
    ), leases AS (
        UPDATE wallet_lease AS lease SET charged = lease.charged + sums.charged, touched_at = clock_timestamp()
        FROM lease_sums AS sums
        WHERE lease.account_id = sums.account_id AND lease.generation = sums.generation
    ), sums AS MATERIALIZED (
        SELECT account_id, sum(from_lease) AS from_lease, sum(from_wallet) AS from_wallet FROM split GROUP BY account_id
    )
    UPDATE wallet SET leased = leased - from_lease, available = available - from_wallet,
        spent = CASE WHEN spend_day = today THEN spent ELSE 0 END + from_lease + from_wallet, spend_day = today
    FROM sums CROSS JOIN (SELECT (now() AT TIME ZONE 'UTC')::date AS today) AS clock
    WHERE wallet.account_id = sums.account_id;
END $$;

-- ---- leases ----

-- Another slice of at least `needed` less what is free in Redis, whose state the caller has just read: its epoch, and of the
-- lease's key the generation (0: there is none), the number of the last grant applied, what is free, and the highest
-- generation that it knows to be over.
--   grant  apply this one: new, or one that Redis may not have yet (the same number again does nothing there)
--   enough there is so much already: look again
--   wait   what was read is older than what another has just done, or another may be about to give back, or (unless `patient`)
--          somebody moves money of the account at this moment: look again soon
--   held   there is not so much, but a generation that Redis lost may give back what is missing
--   none   the tenant has not so much
CREATE FUNCTION lease_grant(account bigint, seen_epoch bigint, seen_generation bigint, seen_applied bigint,
    seen_free numeric, seen_past bigint, needed numeric, patient boolean DEFAULT true)
RETURNS TABLE (outcome text, generation bigint, grant_no bigint, amount numeric)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    purse wallet;
    lease wallet_lease;
    is_young boolean;
    is_live boolean := false;
    short numeric := needed;
    slice numeric;
    held numeric;
BEGIN
    IF patient THEN
        SELECT * INTO purse FROM wallet WHERE account_id = account FOR NO KEY UPDATE;
    ELSE
        SELECT * INTO purse FROM wallet WHERE account_id = account FOR NO KEY UPDATE SKIP LOCKED;
    END IF;
    IF NOT FOUND THEN
        RETURN QUERY SELECT CASE WHEN patient OR NOT EXISTS (SELECT FROM wallet WHERE account_id = account) THEN 'none'
            ELSE 'wait' END, 0::bigint, 0::bigint, 0::numeric;
        RETURN;
    END IF;
    SELECT * INTO lease FROM wallet_lease WHERE account_id = account AND state = 'open';
    IF FOUND THEN
        is_young := lease.granted_at > clock_timestamp() - interval '2 seconds';
        is_live := lease.epoch = seen_epoch AND lease.generation = seen_generation AND seen_applied >= lease.grant_no;
        IF lease.epoch = seen_epoch AND (
            seen_generation = lease.generation AND seen_applied < lease.grant_no
                AND (is_young OR seen_applied = lease.grant_no - 1)
            -- Never applied, nor lost, for Redis has lost nothing since before it was made.
            OR seen_generation < lease.generation AND seen_past < lease.generation
                AND lease.grant_no = 1 AND lease.pending > 0) THEN
            RETURN QUERY SELECT 'grant', lease.generation, lease.grant_no, lease.pending;
            RETURN;
        END IF;
        IF NOT is_live AND is_young AND seen_epoch <= lease.epoch AND seen_generation <= lease.generation THEN
            RETURN QUERY SELECT 'wait', 0::bigint, 0::bigint, 0::numeric;
            RETURN;
        END IF;
        IF is_live THEN
            short := needed - seen_free;
            IF short <= 0 THEN
                RETURN QUERY SELECT 'enough', 0::bigint, 0::bigint, 0::numeric;
                RETURN;
            END IF;
            UPDATE wallet_lease SET pending = 0 WHERE account_id = account AND generation = lease.generation;
        ELSE
            -- Redis has lost it, or it was taken back by one who died before saying so.
            UPDATE wallet_lease SET state = 'closed', lost = true, closed_at = clock_timestamp()
            WHERE account_id = account AND generation = lease.generation;
        END IF;
    END IF;

    slice := trunc(least(purse.available, greatest(short, least(greatest(purse.available / 4, 1), 1000))), 12);
    IF slice < short THEN
        SELECT coalesce(sum(granted - charged - returned), 0), max(closed_at) > clock_timestamp() - interval '1 second'
        INTO held, is_young FROM wallet_lease WHERE account_id = account AND state = 'closed' AND lost;
        RETURN QUERY SELECT CASE WHEN purse.available + held < short THEN 'none' WHEN is_young THEN 'wait' ELSE 'held' END,
            0::bigint, 0::bigint, 0::numeric;
        RETURN;
    END IF;
    IF is_live THEN
        UPDATE wallet_lease SET granted = granted + slice, grant_no = grant_no + 1, pending = slice,
            granted_at = clock_timestamp(), touched_at = clock_timestamp()
        WHERE account_id = account AND generation = lease.generation RETURNING * INTO lease;
    ELSE
        INSERT INTO wallet_lease (account_id, generation, epoch, granted, pending, granted_at, touched_at)
        VALUES (account, greatest(purse.generation, seen_generation, seen_past) + 1, seen_epoch, slice, slice,
            clock_timestamp(), clock_timestamp())
        RETURNING * INTO lease;
    END IF;
    UPDATE wallet SET available = available - slice, leased = leased + slice, generation = lease.generation
    WHERE account_id = account;
    INSERT INTO ledger_transfer (account_id, kind, debit, credit, amount, ref, generation)
    VALUES (account, 'grant', 'available', 'leased', slice,
        'lease ' || account || '/' || lease.generation || '/' || lease.grant_no, lease.generation);
    RETURN QUERY SELECT 'grant', lease.generation, lease.grant_no, slice;
END $$;

-- Gives back `sum` of a lease at most, and no more than there is; once for each `why`. The wallet is locked.
CREATE FUNCTION lease_give_back(account bigint, number bigint, sum numeric, why text) RETURNS numeric
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    back numeric;
BEGIN
    SELECT least(sum, granted - charged - returned) INTO back FROM wallet_lease
    WHERE account_id = account AND generation = number;
    INSERT INTO ledger_transfer (account_id, kind, debit, credit, amount, ref, generation)
    SELECT account, 'return', 'leased', 'available', back, 'lease ' || account || '/' || number || '/' || why, number
    WHERE back > 0 ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    UPDATE wallet_lease SET returned = returned + back WHERE account_id = account AND generation = number;
    UPDATE wallet SET available = available + back, leased = leased - back WHERE account_id = account;
    RETURN back;
END $$;

-- A generation of which Redis gives nothing out any more: what its key still had when it was taken away (NULL: there was no key)
-- comes back now, the rest when the calls that were reserved on it must have ended. Returns what came back.
CREATE FUNCTION lease_fence(account bigint, number bigint, free numeric) RETURNS numeric
LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    PERFORM FROM wallet WHERE account_id = account FOR NO KEY UPDATE;
    UPDATE wallet_lease SET state = 'closed', lost = (lost OR state = 'open') AND free IS NULL,
        closed_at = coalesce(closed_at, clock_timestamp()), fenced_at = coalesce(fenced_at, clock_timestamp())
    WHERE account_id = account AND generation = number AND state <> 'done';
    IF NOT FOUND OR free IS NULL THEN
        RETURN 0;
    END IF;
    RETURN lease_give_back(account, number, free, 'taken');
END $$;

-- Ends closed leases whose calls must have ended, `hold_s` seconds after Redis gave out nothing more, and those that nothing
-- is left of. Returns how many.
CREATE FUNCTION lease_end(hold_s bigint, at_most bigint) RETURNS bigint
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    late record;
    ended bigint := 0;
BEGIN
    FOR late IN
        SELECT account_id, generation FROM wallet_lease
        WHERE state = 'closed' AND fenced_at IS NOT NULL
            AND (granted = charged + returned OR fenced_at < clock_timestamp() - hold_s * interval '1 second')
        ORDER BY account_id, generation LIMIT at_most
    LOOP
        PERFORM FROM wallet WHERE account_id = late.account_id FOR NO KEY UPDATE;
        UPDATE wallet_lease SET state = 'done'
        WHERE account_id = late.account_id AND generation = late.generation AND state = 'closed';
        IF FOUND THEN
            PERFORM lease_give_back(late.account_id, late.generation, 'Infinity', 'ended');
            ended := ended + 1;
        END IF;
    END LOOP;
    RETURN ended;
END $$;

-- ---- use ----

-- What an account has used, by day (UTC), model and key; key 0: no key, as a log-in's or a pod's.
CREATE TABLE usage_day (
    account_id        bigint NOT NULL REFERENCES account,
    day               date NOT NULL,
    model             text NOT NULL,
    key_id            bigint NOT NULL,
    calls             bigint NOT NULL,
    prompt_tokens     bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cost              numeric(38, 18) NOT NULL,
    PRIMARY KEY (account_id, day, model, key_id)
) WITH (fillfactor = 70);

-- Adds a call for each element; one update of each row, however many calls.
CREATE FUNCTION usage_add(account_ids bigint[], days date[], models text[], key_ids bigint[], prompt_tokens bigint[],
    completion_tokens bigint[], amounts numeric[]) RETURNS void
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO usage_day AS had (account_id, day, model, key_id, calls, prompt_tokens, completion_tokens, cost)
    SELECT account_id, day, model, coalesce(key_id, 0), count(*), sum(prompt), sum(completion), sum(amount)
    FROM unnest($1, $2, $3, $4, $5, $6, $7) AS calls (account_id, day, model, key_id, prompt, completion, amount)
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
    ON CONFLICT (account_id, day, model, key_id) DO UPDATE SET
        calls = had.calls + excluded.calls,
        prompt_tokens = had.prompt_tokens + excluded.prompt_tokens,
        completion_tokens = had.completion_tokens + excluded.completion_tokens,
        cost = had.cost + excluded.cost;
END $$;

-- ---- deposits ----

CREATE TABLE deposit (
    id         text PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES account,
    driver     text NOT NULL,                  -- of payment
    driver_ref text NOT NULL,                  -- what it calls it
    amount     numeric(38, 18) NOT NULL CHECK (amount > 0),
    currency   text NOT NULL,
    credited   numeric(38, 18) NOT NULL CHECK (credited > 0),  -- US dollars
    refunded   numeric(38, 18) NOT NULL DEFAULT 0 CHECK (refunded >= 0 AND refunded <= credited),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX deposit_account ON deposit (account_id, created_at);

-- ---- subscriptions ----

-- A plan that is paid for by the month. Month n is paid when the plan has run for n - 1 of them since `started_at`.
CREATE TABLE subscription (
    account_id bigint PRIMARY KEY REFERENCES account,
    plan       text NOT NULL,
    price      numeric(38, 18) NOT NULL CHECK (price > 0),
    started_at timestamptz NOT NULL,
    months     integer NOT NULL CHECK (months > 0),  -- that are paid
    renews_at  timestamptz NOT NULL
);
CREATE INDEX subscription_renews ON subscription (renews_at);

-- Pays the first month and sets the plan; what was subscribed to before ends. 'same': it has this one; 'poor': it can't pay.
CREATE FUNCTION subscription_start(account bigint, new_plan text, month_price numeric, cause text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM account AS owner WHERE owner.id = account FOR NO KEY UPDATE;
    IF EXISTS (SELECT FROM subscription WHERE account_id = account AND plan = new_plan) THEN
        RETURN 'same';
    END IF;
    IF ledger_move(account, 'subscription', month_price, cause) IS NULL THEN
        RETURN 'poor';
    END IF;
    INSERT INTO subscription (account_id, plan, price, started_at, months, renews_at)
    VALUES (account, new_plan, month_price, now(), 1, now() + interval '1 month')
    ON CONFLICT (account_id) DO UPDATE SET plan = excluded.plan, price = excluded.price,
        started_at = excluded.started_at, months = excluded.months, renews_at = excluded.renews_at;
    INSERT INTO account_plan (account_id, surface, plan) VALUES (account, 'inference', new_plan)
    ON CONFLICT (account_id, surface) DO UPDATE SET plan = excluded.plan;
    RETURN 'started';
END $$;

-- Pays the next month of a subscription that is due. NULL: it is not; 'later': what would pay for it is lent; else 'renewed', or
-- 'ended' when the account can't pay: it has the plan that costs nothing then. Who was late by more than a month pays one.
CREATE FUNCTION subscription_renew(account bigint) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    due subscription;
BEGIN
    SELECT * INTO due FROM subscription WHERE account_id = account AND renews_at <= now() FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF ledger_move(account, 'subscription', due.price,
        'subscription ' || account || '/' || extract(epoch FROM due.renews_at)::bigint) IS NOT NULL THEN
        IF due.started_at + (due.months + 1) * interval '1 month' > now() THEN
            UPDATE subscription SET months = due.months + 1,
                renews_at = due.started_at + (due.months + 1) * interval '1 month'
            WHERE account_id = account;
        ELSE
            UPDATE subscription SET started_at = now(), months = 1, renews_at = now() + interval '1 month'
            WHERE account_id = account;
        END IF;
        RETURN 'renewed';
    END IF;
    IF EXISTS (SELECT FROM wallet WHERE account_id = account AND available + leased >= due.price) THEN
        RETURN 'later';
    END IF;
    DELETE FROM subscription WHERE account_id = account;
    DELETE FROM account_plan WHERE account_id = account AND surface = 'inference';
    RETURN 'ended';
END $$;
