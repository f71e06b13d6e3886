-- Webhooks: endpoints that accounts have named, what is to be delivered to them, and every attempt at it.
--
--     event ──trigger──▶ webhook_delivery (what is said; never changed)
--                        webhook_due      (still to be delivered: goes with the success, or with the last try)
--                        job 'webhook'    (one for each endpoint; drains what is due)
--     attempt ─────────▶ webhook_attempt  (what came of it)
--
-- The tables of deliveries have no foreign keys: a key would be looked up for each row, and an endpoint with millions of them
-- could not be deleted in one step. What an endpoint leaves behind, webhook_forget removes.
--
-- As with jobs, plans are made while the tables are small and used when they are long: functions leave the planner no
-- way but the right index.

CREATE TABLE webhook_endpoint (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ref              text NOT NULL UNIQUE,      -- "we_…"
    account_id       bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    surface          text NOT NULL,             -- on which it was made
    url              text NOT NULL,
    description      text NOT NULL DEFAULT '',
    events           text[] NOT NULL,           -- names, "job.*", or "*"
    surfaces         text[],                    -- whose events; NULL: every surface's
    ordered          boolean NOT NULL DEFAULT false,
    secret           bytea NOT NULL,            -- sealed
    old_secret       bytea,                     -- sealed; signs too, until then
    old_secret_until timestamptz,
    enabled          boolean NOT NULL DEFAULT true,
    disabled_reason  text CHECK (disabled_reason IN ('owner', 'operator', 'gone', 'failing')),
    disabled_at      timestamptz,
    failures         integer NOT NULL DEFAULT 0, -- attempts that failed since the last success
    pauses           integer NOT NULL DEFAULT 0, -- in a row; each is longer than the one before
    failing_since    timestamptz,
    paused_until     timestamptz,
    version          bigint NOT NULL DEFAULT 1, -- goes up with every change but of failures and pauses
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    deleted_at       timestamptz
);
CREATE INDEX webhook_endpoint_account ON webhook_endpoint (account_id, id) WHERE deleted_at IS NULL;
CREATE INDEX webhook_endpoint_deleted ON webhook_endpoint (id) WHERE deleted_at IS NOT NULL;

CREATE TABLE webhook_delivery (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint_id bigint NOT NULL,
    event_id    text NOT NULL,                  -- the webhook-id
    surface     text NOT NULL,
    name        text NOT NULL,
    object      text,                           -- what its data is about: ordered endpoints get these one by one
    body        text NOT NULL,                  -- the very bytes that are signed and sent
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX webhook_delivery_endpoint ON webhook_delivery (endpoint_id, id);

-- Rows come and go: clean up by their number, not by a share of the living.
CREATE TABLE webhook_due (
    delivery_id bigint NOT NULL,
    endpoint_id bigint NOT NULL,
    next_at     timestamptz NOT NULL,
    tries       integer NOT NULL DEFAULT 0,     -- that failed
    attempts    integer NOT NULL DEFAULT 0,     -- in the log, those of earlier rounds among them
    round       integer NOT NULL DEFAULT 0,     -- goes up when it is asked for once more
    PRIMARY KEY (endpoint_id, delivery_id)      -- looked for by its endpoint everywhere: the order of ordered ones, too
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 20000,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 50000,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX webhook_due_next ON webhook_due (endpoint_id, next_at, delivery_id);

CREATE TABLE webhook_attempt (
    delivery_id bigint NOT NULL,
    number      integer NOT NULL,
    at          timestamptz NOT NULL,           -- when it began
    ms          integer,                        -- NULL: the worker ended in the middle, and nobody knows how it went
    ok          boolean NOT NULL,
    status      integer,                        -- NULL: there was no answer
    error       text,                           -- why it is none that counts
    answer      text,                           -- its first 4 KiB
    PRIMARY KEY (delivery_id, number)
);

-- What a worker has in hand: whoever takes over from one that has died logs these attempts as it finds them.
CREATE TABLE webhook_flight (
    endpoint_id bigint PRIMARY KEY,
    deliveries  bigint[] NOT NULL,
    attempts    integer[] NOT NULL,             -- as webhook_due had them
    at          timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Objects of ordered endpoints whose first delivery waits for its next try, and all others behind it.
CREATE TABLE webhook_block (
    endpoint_id bigint NOT NULL,
    object      text NOT NULL,
    until       timestamptz NOT NULL,
    PRIMARY KEY (endpoint_id, object)
);

-- ---- from events to deliveries ----

-- Adds (or finds) the job that drains an endpoint, not before its pause ends. NULL: it is disabled.
CREATE FUNCTION webhook_job(endpoint bigint, due timestamptz) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    one webhook_endpoint;
BEGIN
    SELECT * INTO one FROM webhook_endpoint WHERE id = endpoint AND enabled AND deleted_at IS NULL;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN job_add('webhook', 'webhook', one.account_id::text, endpoint::text, NULL,
        ceil(extract(epoch FROM greatest(due, one.paused_until) - now()) * 1000)::bigint);
END $$;

-- The bytes of a delivery, which are signed as they stand here.
CREATE FUNCTION webhook_body(name text, at timestamptz, data jsonb) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT '{"event":' || to_json(name) || ',"timestamp":"' || to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
        || '","data":' || data || '}'
$$;

-- What an event is about.
CREATE FUNCTION webhook_object(data jsonb) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(data->>'uuid', data->>'instanceId', data->>'instance_id', data->>'session_id', data->>'job_id',
        data->>'webhook_id', data->>'id')
$$;

-- Whether an endpoint that asks for `events` of `surfaces` gets this one.
CREATE FUNCTION webhook_fits(events text[], surfaces text[], surface text, name text) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT events && ARRAY['*', split_part(name, '.', 1) || '.*', name] AND (surfaces IS NULL OR surface = ANY (surfaces))
$$;

-- In the statement that adds events. The endpoints' jobs are added in the order of their numbers, so that two such statements
-- never wait for each other.
CREATE FUNCTION webhook_fan_out() RETURNS trigger
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    endpoints bigint[];
BEGIN
    IF NOT EXISTS (SELECT FROM added JOIN webhook_endpoint w ON w.account_id = added.account_id
                   WHERE w.enabled AND w.deleted_at IS NULL) THEN
        RETURN NULL;
    END IF;
    WITH made AS (
        INSERT INTO webhook_delivery (endpoint_id, event_id, surface, name, object, body)
        SELECT w.id, added.id, added.surface, added.name, webhook_object(added.data),
            webhook_body(added.name, added.at, added.data)
        FROM added JOIN webhook_endpoint w ON w.account_id = added.account_id
        WHERE w.enabled AND w.deleted_at IS NULL AND webhook_fits(w.events, w.surfaces, added.surface, added.name)
        ORDER BY added.account_id, added.seq, w.id
        RETURNING id, endpoint_id
    ), due AS (
        INSERT INTO webhook_due (delivery_id, endpoint_id, next_at) SELECT id, endpoint_id, now() FROM made
    )
    SELECT array_agg(DISTINCT endpoint_id) INTO endpoints FROM made;
    PERFORM webhook_job(endpoint, now()) FROM unnest(endpoints) AS endpoint ORDER BY endpoint;
    RETURN NULL;
END $$;
CREATE TRIGGER webhook_fan_out AFTER INSERT ON event REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION webhook_fan_out();

-- ---- what a worker does, in the job of the endpoint ----

-- Logs what a worker that has died left in hand.
CREATE FUNCTION webhook_take_over(endpoint bigint) RETURNS bigint
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    flight webhook_flight;
    found bigint;
BEGIN
    SELECT * INTO flight FROM webhook_flight WHERE endpoint_id = endpoint FOR UPDATE;
    WITH cut AS (
        UPDATE webhook_due AS due SET attempts = due.attempts + 1
        FROM unnest(flight.deliveries, flight.attempts) AS hand (id, attempts)
        WHERE due.endpoint_id = endpoint AND due.delivery_id = hand.id AND due.attempts = hand.attempts
        RETURNING due.delivery_id, due.attempts
    ), logged AS (
        INSERT INTO webhook_attempt (delivery_id, number, at, ok, error)
        SELECT delivery_id, attempts, flight.at, false, 'The worker ended meanwhile: whether it arrived is not known'
        FROM cut ON CONFLICT DO NOTHING
    )
    SELECT count(*) INTO found FROM cut;
    UPDATE webhook_flight SET deliveries = '{}', attempts = '{}' WHERE endpoint_id = endpoint;
    RETURN found;
END $$;

-- What is due next, beside what is in hand already, which the two arrays tell. In order: the oldest first, and nothing of an
-- object that is blocked. Nothing once the endpoint is no longer what the worker knows. Both orders are those of an index, for
-- a sort would look at all that waits each time.
CREATE FUNCTION webhook_claim(endpoint bigint, known bigint, hand bigint[], hand_attempts bigint[], most bigint,
                              in_order boolean)
RETURNS TABLE (id bigint, attempts integer, tries integer, round integer, event_id text, surface text, object text, body text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off
    SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
    moment timestamptz := clock_timestamp();
    ids bigint[];
    counts integer[];
BEGIN
    PERFORM FROM webhook_endpoint AS w
    WHERE w.id = endpoint AND w.version = known AND w.enabled AND w.deleted_at IS NULL;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF in_order THEN
        SELECT array_agg(next.delivery_id), array_agg(next.attempts) INTO ids, counts FROM (
            SELECT due.delivery_id, due.attempts
            FROM webhook_due AS due JOIN webhook_delivery AS d ON d.id = due.delivery_id
            WHERE due.endpoint_id = endpoint AND due.next_at <= moment AND due.delivery_id <> ALL (hand)
                AND NOT EXISTS (SELECT FROM webhook_block AS b
                    WHERE b.endpoint_id = endpoint AND b.object = d.object AND b.until > moment)
            ORDER BY due.delivery_id LIMIT most) AS next;
    ELSE
        SELECT array_agg(next.delivery_id), array_agg(next.attempts) INTO ids, counts FROM (
            SELECT due.delivery_id, due.attempts FROM webhook_due AS due
            WHERE due.endpoint_id = endpoint AND due.next_at <= moment AND due.delivery_id <> ALL (hand)
            ORDER BY due.next_at, due.delivery_id LIMIT most) AS next;
    END IF;
    IF ids IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO webhook_flight (endpoint_id, deliveries, attempts)
    VALUES (endpoint, hand || ids, hand_attempts::integer[] || counts)
    ON CONFLICT (endpoint_id) DO UPDATE
    SET deliveries = excluded.deliveries, attempts = excluded.attempts, at = excluded.at;
    RETURN QUERY
    SELECT d.id, due.attempts, due.tries, due.round, d.event_id, d.surface, d.object, d.body
    FROM unnest(ids) WITH ORDINALITY AS next (id, place)
    JOIN webhook_due AS due ON due.endpoint_id = endpoint AND due.delivery_id = next.id
    JOIN webhook_delivery AS d ON d.id = next.id
    ORDER BY next.place;
END $$;

-- Logs attempts, whoever made them; what follows from them holds while the job is still the caller's. `waits`: the time until the
-- next try, -1: there is none (it arrived, or no try is left), -2: at once, and this one does not count. What was asked for once
-- more meanwhile, in another round, is sent once more. 'lost': the job is another's; 'failing': for longer than an endpoint may.
-- What is settled is found one by one, whatever the planner believes of how much waits: by a plan of when next to nothing did, a
-- batch was compared with all that waits. A row's place comes from the key, as only its index has that order; then the place is all
-- that is asked for.
CREATE FUNCTION webhook_settle(job_id bigint, job_fence bigint, endpoint bigint, ids bigint[], numbers bigint[],
                               begun_ms bigint[], took_ms bigint[], oks bigint[], statuses bigint[], errors text[],
                               answers text[], waits bigint[], rounds bigint[], now_failures bigint, now_pauses bigint,
                               pause_ms bigint, in_order boolean, patience_s bigint) RETURNS text
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off
    SET enable_bitmapscan = off AS $$
DECLARE
    since timestamptz;
    gone tid[];
    kept tid[];
    met bigint;
    changed bigint;
BEGIN
    INSERT INTO webhook_attempt AS old (delivery_id, number, at, ms, ok, status, error, answer)
    SELECT a.id, a.number, to_timestamp(a.begun / 1000.0), a.took, a.ok = 1, nullif(a.status, 0), a.error, a.answer
    FROM unnest(ids, numbers, begun_ms, took_ms, oks, statuses, errors, answers)
        AS a (id, number, begun, took, ok, status, error, answer)
    ON CONFLICT (delivery_id, number) DO UPDATE
    SET at = excluded.at, ms = excluded.ms, ok = excluded.ok, status = excluded.status, error = excluded.error,
        answer = excluded.answer
    WHERE old.ms IS NULL;
    -- Nobody takes the job away before this is committed.
    PERFORM FROM job WHERE id = job_id AND fence = job_fence AND state = 'running' FOR SHARE;
    IF NOT FOUND THEN
        RETURN 'lost';
    END IF;
    LOOP
        SELECT array_agg(held.ctid) FILTER (WHERE a.wait = -1 AND held.round = a.round),
            array_agg(held.ctid) FILTER (WHERE NOT (a.wait = -1 AND held.round = a.round)), count(*)
        INTO gone, kept, met
        FROM unnest(ids, numbers, waits, rounds) AS a (id, number, wait, round) CROSS JOIN LATERAL (
            SELECT due.ctid, due.round, due.attempts FROM webhook_due AS due
            WHERE (due.endpoint_id, due.delivery_id) >= (endpoint, a.id) AND (due.endpoint_id, due.delivery_id) <= (endpoint, a.id)
            ORDER BY due.endpoint_id, due.delivery_id LIMIT 1) AS held
        WHERE held.attempts < a.number; -- once, when this is repeated
        DELETE FROM webhook_due WHERE ctid = ANY (gone);
        GET DIAGNOSTICS changed = ROW_COUNT;
        met := met - changed;
        UPDATE webhook_due AS due SET attempts = a.number,
            tries = due.tries + (a.wait >= 0 AND due.round = a.round)::integer,
            next_at = CASE WHEN a.wait >= 0 AND due.round = a.round THEN now() + a.wait * interval '1 millisecond'
                ELSE due.next_at END
        FROM unnest(ids, numbers, waits, rounds) AS a (id, number, wait, round)
        WHERE due.ctid = ANY (kept) AND due.delivery_id + 0 = a.id; -- "+ 0": not by an index
        GET DIAGNOSTICS changed = ROW_COUNT;
        EXIT WHEN met = changed; -- else its owner has asked for one once more at this very moment
    END LOOP;
    IF in_order THEN
        DELETE FROM webhook_block AS b USING unnest(ids, waits) AS a (id, wait), webhook_delivery AS d
        WHERE a.wait = -1 AND d.id = a.id AND b.endpoint_id = endpoint AND b.object = d.object;
        INSERT INTO webhook_block AS b (endpoint_id, object, until)
        SELECT endpoint, d.object, now() + max(a.wait) * interval '1 millisecond'
        FROM unnest(ids, waits) AS a (id, wait) JOIN webhook_delivery AS d ON d.id = a.id
        WHERE a.wait >= 0 AND d.object IS NOT NULL GROUP BY d.object
        ON CONFLICT (endpoint_id, object) DO UPDATE SET until = excluded.until;
    END IF;
    UPDATE webhook_endpoint SET failures = now_failures, pauses = now_pauses,
        failing_since = CASE WHEN now_failures > 0 THEN coalesce(failing_since, now()) END,
        paused_until = CASE WHEN pause_ms > 0 THEN now() + pause_ms * interval '1 millisecond' END
    WHERE id = endpoint AND (failures <> now_failures OR pauses <> now_pauses);
    IF now_failures > 0 THEN
        SELECT failing_since INTO since FROM webhook_endpoint WHERE id = endpoint;
        IF since < now() - patience_s * interval '1 second' THEN
            RETURN 'failing';
        END IF;
    END IF;
    RETURN 'held';
END $$;

-- Ends the job, and adds the one for what is left. False: it was another's already.
CREATE FUNCTION webhook_end(job_id bigint, job_fence bigint, endpoint bigint, in_order boolean) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    next timestamptz;
BEGIN
    IF NOT job_done(job_id, job_fence) THEN
        RETURN false;
    END IF;
    UPDATE webhook_flight SET deliveries = '{}', attempts = '{}' WHERE endpoint_id = endpoint AND deliveries <> '{}';
    IF in_order THEN
        DELETE FROM webhook_block WHERE endpoint_id = endpoint AND until <= now();
        -- One that could go now; else the first time at which another, or an object, may.
        IF EXISTS (
            SELECT FROM webhook_due AS due JOIN webhook_delivery AS d ON d.id = due.delivery_id
            WHERE due.endpoint_id = endpoint AND due.next_at <= now() AND NOT EXISTS (
                SELECT FROM webhook_block AS b WHERE b.endpoint_id = endpoint AND b.object = d.object)) THEN
            next := now();
        ELSE
            next := least(
                (SELECT due.next_at FROM webhook_due AS due WHERE due.endpoint_id = endpoint AND due.next_at > now()
                 ORDER BY due.next_at LIMIT 1),
                (SELECT min(b.until) FROM webhook_block AS b WHERE b.endpoint_id = endpoint));
        END IF;
    ELSE
        SELECT next_at INTO next FROM webhook_due WHERE endpoint_id = endpoint ORDER BY next_at LIMIT 1;
    END IF;
    IF next IS NOT NULL THEN
        PERFORM webhook_job(endpoint, next);
    END IF;
    RETURN true;
END $$;

-- Whatever is due and has no job, for ten seconds: adds the job. One that was put aside as dead is an operator's affair.
CREATE FUNCTION webhook_sweep() RETURNS TABLE (id bigint, kind text, tenant text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    added bigint[];
BEGIN
    SELECT array_agg(webhook_job(lost.id, now())) INTO added FROM (
        SELECT w.id FROM webhook_endpoint AS w
        WHERE w.enabled AND w.deleted_at IS NULL AND coalesce(w.paused_until < now(), true)
            AND EXISTS (SELECT FROM webhook_due AS due
                WHERE due.endpoint_id = w.id AND due.next_at < now() - interval '10 seconds')
            AND NOT EXISTS (SELECT FROM job WHERE job.kind = 'webhook' AND job.key = w.id::text AND job.state = 'queued')
            AND NOT EXISTS (SELECT FROM job WHERE job.kind = 'webhook' AND job.key = w.id::text AND job.state = 'running')
            AND NOT EXISTS (SELECT FROM job WHERE job.kind = 'webhook' AND job.key = w.id::text AND job.state = 'dead')
        ORDER BY w.id) AS lost;
    RETURN QUERY SELECT job.id, job.kind, job.tenant FROM job WHERE job.id = ANY (added);
END $$;

-- ---- what goes ----

-- Removes deliveries with all that belongs to them; returns how many.
CREATE FUNCTION webhook_remove(gone bigint[]) RETURNS bigint
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    removed bigint;
BEGIN
    DELETE FROM webhook_due AS due USING webhook_delivery AS d
    WHERE d.id = ANY (gone) AND due.endpoint_id = d.endpoint_id AND due.delivery_id = d.id;
    DELETE FROM webhook_attempt WHERE delivery_id = ANY (gone);
    DELETE FROM webhook_delivery WHERE id = ANY (gone);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END $$;

-- Removes deliveries that are older than `days`, and what deleted endpoints have left, found along their own deliveries, and not before
-- a worker that has some of it in hand has logged what came of it: nobody would remove that any more. Some at a time. Returns how many.
CREATE FUNCTION webhook_forget(days bigint, at_most bigint) RETURNS bigint
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    removed bigint;
    endpoint bigint;
BEGIN
    -- Their numbers go up with time.
    removed := webhook_remove(ARRAY(
        SELECT id FROM (SELECT id, created_at FROM webhook_delivery ORDER BY id LIMIT at_most) AS oldest
        WHERE created_at < now() - days * interval '1 day'));
    -- An attempt lasts a minute at most.
    FOR endpoint IN SELECT id FROM webhook_endpoint WHERE deleted_at < now() - interval '2 minutes' ORDER BY id LOOP
        EXIT WHEN removed >= at_most;
        removed := removed + webhook_remove(ARRAY(
            SELECT id FROM webhook_delivery WHERE (endpoint_id, id) > (endpoint, 0) AND endpoint_id <= endpoint
            ORDER BY endpoint_id, id LIMIT at_most - removed));
        IF removed < at_most THEN
            DELETE FROM webhook_flight WHERE endpoint_id = endpoint;
            DELETE FROM webhook_block WHERE endpoint_id = endpoint;
            DELETE FROM webhook_endpoint WHERE id = endpoint;
        END IF;
    END LOOP;
    RETURN removed;
END $$;

-- Jobs of these accounts' endpoints that a worker could take now.
CREATE FUNCTION webhook_rings(accounts bigint[]) RETURNS TABLE (id bigint, tenant text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT waiting.id, waiting.tenant
    FROM unnest(accounts) AS asked (id) JOIN webhook_endpoint AS w ON w.account_id = asked.id
    CROSS JOIN LATERAL (
        SELECT job.id, job.tenant FROM job
        WHERE job.kind = 'webhook' AND job.key = w.id::text AND job.state = 'queued' AND job.run_at <= now()
        OFFSET 0) AS waiting
    WHERE w.enabled AND w.deleted_at IS NULL AND NOT EXISTS (
        SELECT FROM job AS busy WHERE busy.kind = 'webhook' AND busy.key = w.id::text AND busy.state = 'running' OFFSET 0);
END $$;

-- ---- what an owner asks for ----

-- Whether the account may have one endpoint more; of many that ask at once, one after the other is told.
CREATE FUNCTION webhook_has_room(account bigint, most bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM account AS a WHERE a.id = account FOR NO KEY UPDATE;
    RETURN (SELECT count(*) FROM webhook_endpoint AS w WHERE w.account_id = account AND w.deleted_at IS NULL) < most;
END $$;

-- As webhook_job, and the endpoint's pause is over: the next delivery is a probe.
CREATE FUNCTION webhook_wake(endpoint bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE webhook_endpoint SET paused_until = NULL WHERE id = endpoint AND paused_until > now();
    RETURN webhook_job(endpoint, now());
END $$;

-- Delivers these of an endpoint once more, with all tries, whatever came of them before. Their objects are held back no
-- longer: those that failed, and that the others wait for, go first, and now.
CREATE FUNCTION webhook_again(endpoint bigint, again bigint[]) RETURNS bigint
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    freed text[];
    added bigint;
BEGIN
    WITH free AS (
        DELETE FROM webhook_block AS b USING webhook_delivery AS d
        WHERE d.id = ANY (again) AND b.endpoint_id = endpoint AND b.object = d.object
        RETURNING b.object
    )
    SELECT array_agg(object) INTO freed FROM free;
    IF freed IS NOT NULL THEN
        UPDATE webhook_due AS due SET next_at = now() FROM webhook_delivery AS d
        WHERE due.endpoint_id = endpoint AND due.next_at > now() AND d.id = due.delivery_id AND d.object = ANY (freed);
    END IF;
    INSERT INTO webhook_due AS due (delivery_id, endpoint_id, next_at, attempts)
    SELECT d.id, d.endpoint_id, now(),
        coalesce((SELECT number FROM webhook_attempt AS a WHERE a.delivery_id = d.id ORDER BY number DESC LIMIT 1), 0)
    FROM unnest(again) AS asked (id) JOIN webhook_delivery AS d ON d.id = asked.id
    WHERE d.endpoint_id = endpoint
    ORDER BY d.id
    ON CONFLICT (endpoint_id, delivery_id) DO UPDATE SET next_at = excluded.next_at, tries = 0, round = due.round + 1;
    GET DIAGNOSTICS added = ROW_COUNT;
    RETURN added;
END $$;

-- Of the endpoint's deliveries since then, and behind `after`, the next ones; `last` is NULL at the end. What is made while
-- this goes on is not run after. In the order that only the index on both gives: by their numbers alone those of all endpoints might
-- be walked through.
CREATE FUNCTION webhook_replay(endpoint bigint, since timestamptz, failed_only boolean, after bigint, at_most bigint,
                               OUT replayed bigint, OUT last bigint)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    ids bigint[];
BEGIN
    SELECT array_agg(one.id), CASE WHEN count(*) = at_most THEN max(one.id) END INTO ids, last FROM (
        SELECT d.id FROM webhook_delivery AS d
        WHERE (d.endpoint_id, d.id) > (endpoint, after) AND d.endpoint_id <= endpoint AND d.created_at >= since
        ORDER BY d.endpoint_id, d.id LIMIT at_most) AS one;
    IF failed_only THEN
        ids := ARRAY(
            SELECT one.id FROM unnest(ids) AS one (id)
            WHERE NOT EXISTS (SELECT FROM webhook_due AS due WHERE due.endpoint_id = endpoint AND due.delivery_id = one.id)
                AND NOT (SELECT a.ok FROM webhook_attempt AS a WHERE a.delivery_id = one.id ORDER BY a.number DESC LIMIT 1));
    END IF;
    replayed := webhook_again(endpoint, ids);
END $$;

-- Deliveries of the events since then, and behind number `after`, that the endpoint asks for and never got: it was disabled, or
-- not there yet. Looks at the next `at_most` events; `last` is NULL at the end. By a hash of what it has: with millions on both
-- sides nothing else ends.
CREATE FUNCTION webhook_catch_up(endpoint bigint, since timestamptz, after bigint, at_most bigint,
                                 OUT added bigint, OUT last bigint)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_nestloop = off SET enable_mergejoin = off AS $$
DECLARE
    w webhook_endpoint;
    start bigint := after;
BEGIN
    SELECT * INTO w FROM webhook_endpoint WHERE id = endpoint;
    IF after = 0 THEN
        SELECT e.seq - 1 INTO start FROM event AS e
        WHERE e.account_id = w.account_id AND e.at >= since ORDER BY e.seq LIMIT 1;
    END IF;
    SELECT CASE WHEN count(*) = at_most THEN max(page.seq) END INTO last FROM (
        SELECT e.seq FROM event AS e
        WHERE e.account_id = w.account_id AND e.seq > start ORDER BY e.seq LIMIT at_most) AS page;
    WITH missed AS (
        SELECT page.* FROM (
            SELECT * FROM event AS e
            WHERE e.account_id = w.account_id AND e.seq > start ORDER BY e.seq LIMIT at_most) AS page
        WHERE page.at >= since AND webhook_fits(w.events, w.surfaces, page.surface, page.name) AND NOT EXISTS (
            SELECT FROM webhook_delivery AS d WHERE d.endpoint_id = endpoint AND d.event_id = page.id)
    ), made AS (
        INSERT INTO webhook_delivery (endpoint_id, event_id, surface, name, object, body)
        SELECT endpoint, id, surface, name, webhook_object(data), webhook_body(name, at, data) FROM missed ORDER BY seq
        RETURNING id, endpoint_id
    ), due AS (
        INSERT INTO webhook_due (delivery_id, endpoint_id, next_at) SELECT id, made.endpoint_id, now() FROM made
    )
    SELECT count(*) INTO added FROM made;
END $$;
