-- What is settled is found one by one, whatever the planner believes of how much waits: by a plan that was made while next to nothing
-- did, a batch was compared with all that waits. A row's place comes from the key, as only its index has that order; then the
-- place is all that is asked for.

-- Logs attempts, whoever made them; what follows from them holds while the job is still the caller's. `waits`: the time until the
-- next try, -1: there is none (it arrived, or no try is left), -2: at once, and this one does not count. What was asked for once
-- more meanwhile, in another round, is sent once more. 'lost': the job is another's; 'failing': for longer than an endpoint may.
CREATE OR REPLACE FUNCTION webhook_settle(job_id bigint, job_fence bigint, endpoint bigint, ids bigint[], numbers bigint[],
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
