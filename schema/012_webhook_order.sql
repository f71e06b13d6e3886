-- Webhooks (010) with many deliveries: an ordered endpoint's next one, what a replay frees, and what an endpoint has missed are
-- found by keys, however much waits.

-- Looked for by its endpoint everywhere, so that this is the order of ordered endpoints, too.
ALTER TABLE webhook_due DROP CONSTRAINT webhook_due_pkey;
ALTER TABLE webhook_due ADD PRIMARY KEY (endpoint_id, delivery_id);

-- Their arguments are others now.
DROP FUNCTION webhook_again(bigint[]);
DROP FUNCTION webhook_catch_up(bigint, timestamptz, bigint);

-- Logs what a worker that has died left in hand.
CREATE OR REPLACE FUNCTION webhook_take_over(endpoint bigint) RETURNS bigint
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
CREATE OR REPLACE FUNCTION webhook_claim(endpoint bigint, known bigint, hand bigint[], hand_attempts bigint[], most bigint,
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
CREATE OR REPLACE FUNCTION webhook_settle(job_id bigint, job_fence bigint, endpoint bigint, ids bigint[], numbers bigint[],
                               begun_ms bigint[], took_ms bigint[], oks bigint[], statuses bigint[], errors text[],
                               answers text[], waits bigint[], rounds bigint[], now_failures bigint, now_pauses bigint,
                               pause_ms bigint, in_order boolean, patience_s bigint) RETURNS text
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    since timestamptz;
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
    DELETE FROM webhook_due AS due USING unnest(ids, waits, rounds) AS a (id, wait, round)
    WHERE a.wait = -1 AND due.endpoint_id = endpoint AND due.delivery_id = a.id AND due.round = a.round;
    UPDATE webhook_due AS due SET attempts = a.number,
        tries = due.tries + (a.wait >= 0 AND due.round = a.round)::integer,
        next_at = CASE WHEN a.wait >= 0 AND due.round = a.round THEN now() + a.wait * interval '1 millisecond'
            ELSE due.next_at END
    FROM unnest(ids, numbers, waits, rounds) AS a (id, number, wait, round)
    WHERE due.endpoint_id = endpoint AND due.delivery_id = a.id AND due.attempts < a.number; -- once, when this is repeated
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
CREATE OR REPLACE FUNCTION webhook_end(job_id bigint, job_fence bigint, endpoint bigint, in_order boolean) RETURNS boolean
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

-- Removes deliveries with all that belongs to them; returns how many.
CREATE OR REPLACE FUNCTION webhook_remove(gone bigint[]) RETURNS bigint
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
-- this goes on is not run after.
CREATE OR REPLACE FUNCTION webhook_replay(endpoint bigint, since timestamptz, failed_only boolean, after bigint, at_most bigint,
                               OUT replayed bigint, OUT last bigint)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    ids bigint[];
BEGIN
    SELECT array_agg(one.id), CASE WHEN count(*) = at_most THEN max(one.id) END INTO ids, last FROM (
        SELECT d.id FROM webhook_delivery AS d
        WHERE d.endpoint_id = endpoint AND d.id > after AND d.created_at >= since ORDER BY d.id LIMIT at_most) AS one;
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
