-- Events: what an account is told, numbered without gaps in the order in which everybody is told.
--
--     cause ──event_add──▶ event_outbox ──event_relay──▶ event ──▶ Redis, webhooks, history
--
-- A cause adds to the outbox in its own statement. That locks nothing, so that causes of one account never wait for each other,
-- in whatever order a transaction has them. What is committed is numbered when it is relayed, by whoever comes first: a
-- relay locks the accounts' heads in their order, and then moves what it sees. An event is in the outbox or it is in `event`.

-- The last number that was given, and whose it is.
CREATE TABLE event_head (
    account_id bigint PRIMARY KEY,
    seq        bigint NOT NULL DEFAULT 0,
    id         text
) WITH (fillfactor = 50);

CREATE TABLE event_outbox (
    number     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id bigint NOT NULL,
    id         text NOT NULL,
    surface    text NOT NULL,                 -- of what has changed
    name       text NOT NULL,
    data       jsonb NOT NULL,
    at         timestamptz NOT NULL
) WITH (
    -- A row lives for milliseconds: clean up by the number of the dead.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 50000,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0
);

-- No reference to the account: rows go by their age.
CREATE TABLE event (
    account_id bigint NOT NULL,
    seq        bigint NOT NULL,
    id         text NOT NULL,
    surface    text NOT NULL,
    name       text NOT NULL,
    data       jsonb NOT NULL,
    at         timestamptz NOT NULL,          -- of the cause
    PRIMARY KEY (account_id, seq)
);
-- For what is too old, and to find an id, which begins with its time.
CREATE INDEX event_at ON event (at);

-- Times in `data`.
CREATE FUNCTION event_time(at timestamptz) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
$$;

-- "evt_", the microseconds since 1970, 60 random bits: it tells nothing of how many others there are.
CREATE FUNCTION event_id(at timestamptz) RETURNS text
LANGUAGE sql VOLATILE AS $$
    SELECT 'evt_' || lpad(to_hex((extract(epoch FROM at) * 1000000)::bigint), 14, '0')
        || right(replace(gen_random_uuid()::text, '-', ''), 15)
$$;
CREATE FUNCTION event_id_time(id text) RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$
    SELECT timestamptz '1970-01-01 00:00:00+00'
        + ('x' || lpad(substr(id, 5, 14), 16, '0'))::bit(64)::bigint * interval '1 microsecond'
$$;

-- What subscribers get, as it is written once and for all of them.
CREATE FUNCTION event_text(id text, name text, at timestamptz, data jsonb) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT '{"id":"' || id || '","type":' || to_json(name) || ',"timestamp":"'
        || to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') || '","data":' || data || '}'
$$;

-- Adds one event, in the statement of its cause. Returns its place in the outbox. Whoever has committed it rings
-- (event_added).
CREATE FUNCTION event_add(account_id bigint, surface text, name text, data jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    now timestamptz := clock_timestamp();
    added bigint;
BEGIN
    INSERT INTO event_outbox (account_id, id, surface, name, data, at)
    VALUES ($1, event_id(now), $2, $3, $4, now) RETURNING number INTO added;
    RETURN added;
END $$;

-- Adds many, in the order given. `seq` is the place in the outbox.
CREATE FUNCTION event_add_all(account_ids bigint[], surfaces text[], names text[], datas jsonb[])
RETURNS TABLE (account_id bigint, seq bigint, id text, surface text, name text, data text, at timestamptz)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    INSERT INTO event_outbox AS o (account_id, id, surface, name, data, at)
    SELECT one.account_id, event_id(one.at), one.surface, one.name, one.data, one.at
    FROM (SELECT *, clock_timestamp() AS at FROM unnest($1, $2, $3, $4) WITH ORDINALITY
              AS given (account_id, surface, name, data, place) OFFSET 0) AS one
    ORDER BY one.place
    RETURNING o.account_id, o.number, o.id, o.surface, o.name, o.data::text, o.at;
END $$;

-- Moves what is committed, oldest first, and numbers it. In a transaction of its own: until its commit all others who relay
-- for one of the accounts wait. `text` is what subscribers get.
CREATE FUNCTION event_relay(at_most bigint)
RETURNS TABLE (account_id bigint, seq bigint, id text, name text, body text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    accounts bigint[];
    moved bigint;
BEGIN
    SELECT array_agg(DISTINCT account_id ORDER BY account_id) INTO accounts
    FROM (SELECT account_id FROM event_outbox ORDER BY number LIMIT at_most) AS oldest;
    IF accounts IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO event_head (account_id) SELECT * FROM unnest(accounts) AS account ORDER BY account
    ON CONFLICT DO NOTHING;
    PERFORM FROM event_head WHERE account_id = ANY (accounts) ORDER BY account_id FOR NO KEY UPDATE;
    -- Each statement looks anew: this one sees what relays before it have moved, and what was committed meanwhile.
    RETURN QUERY
    WITH taken AS (
        DELETE FROM event_outbox WHERE number = ANY (ARRAY(
            SELECT number FROM event_outbox WHERE account_id = ANY (accounts) ORDER BY number LIMIT at_most))
        RETURNING *
    ), numbered AS MATERIALIZED (
        SELECT taken.*, head.seq + row_number() OVER (PARTITION BY taken.account_id ORDER BY taken.number) AS seq
        FROM taken JOIN event_head AS head ON head.account_id = taken.account_id
    ), heads AS (
        UPDATE event_head AS head SET seq = last.seq, id = last.id
        FROM (SELECT DISTINCT ON (account_id) account_id, seq, id FROM numbered ORDER BY account_id, seq DESC) AS last
        WHERE head.account_id = last.account_id
    )
    INSERT INTO event AS e (account_id, seq, id, surface, name, data, at)
    SELECT account_id, seq, id, surface, name, data, at FROM numbered ORDER BY account_id, seq
    RETURNING e.account_id, e.seq, e.id, e.name, event_text(e.id, e.name, e.at, e.data);
END $$;

-- The balance has come below the mark (006).
CREATE OR REPLACE FUNCTION wallet_low(account_id bigint, balance numeric) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM event_add(account_id, 'inference', 'billing.low_balance', jsonb_build_object(
        'balance', money_text(balance), 'threshold', '10.0', 'currency', 'USD'));
END $$;
