-- Jobs: core/store/queue.h draws their life. A row goes when its job is done, so the table is small and busy.
--
-- The functions hold what must be decided in one step inside the database. A plan for this table is often made while it
-- is empty and used when it is long, so they leave the planner no way but the right index: sequential scans are off,
-- conditions of partial indexes that would be the wrong one are spelled so that they do not match, and joins are
-- lateral.

CREATE TABLE job (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    queue text NOT NULL,
    tenant text NOT NULL,
    key text,
    payload jsonb,
    state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'dead')),
    run_at timestamptz NOT NULL, -- not before
    ring_at timestamptz NOT NULL, -- when a worker's reconciler rings it, if it is queued then
    tries integer NOT NULL DEFAULT 0, -- that failed
    crashes integer NOT NULL DEFAULT 0, -- leases that ran out
    fence bigint NOT NULL DEFAULT 0, -- goes up with every claim
    lease_until timestamptz,
    worker text,
    last_error text,
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (
    -- A heartbeat changes no indexed column: with room on the page it writes no index.
    fillfactor = 70,
    -- Nearly every row that was ever written is dead: clean up by their number, not by a share of the living.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 50000,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0
);

CREATE UNIQUE INDEX job_one_queued ON job (kind, key) WHERE state = 'queued' AND key IS NOT NULL;
CREATE UNIQUE INDEX job_one_running ON job (kind, key) WHERE state = 'running' AND key IS NOT NULL;
CREATE INDEX job_to_ring ON job (ring_at) WHERE state = 'queued';
CREATE INDEX job_leased ON job (id) WHERE lease_until IS NOT NULL;
CREATE INDEX job_dead ON job (kind, id) WHERE state = 'dead';

-- Adds a job, or returns the one of that kind and key that is queued already, with its time brought forward. The row
-- stays locked until the caller commits, so a worker that claims it sees all that the caller has written.
CREATE FUNCTION job_add(kind text, queue text, tenant text, key text, payload jsonb, delay_ms bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    due timestamptz := now() + greatest($6, 0) * interval '1 millisecond';
    added bigint;
BEGIN
    -- Who adds a job rings it after the commit; five seconds later that ring must have been lost.
    INSERT INTO job (kind, queue, tenant, key, payload, run_at, ring_at)
    VALUES ($1, $2, $3, $4, $5, due, CASE WHEN $6 > 0 THEN due ELSE due + interval '5 seconds' END)
    ON CONFLICT (kind, key) WHERE state = 'queued' AND key IS NOT NULL DO UPDATE
    SET run_at = least(job.run_at, excluded.run_at), ring_at = least(job.ring_at, excluded.ring_at)
    RETURNING id INTO added;
    RETURN added;
END $$;

-- Ends a job: true when the lease was still the caller's. Guards the effects of the statement that calls it.
CREATE FUNCTION job_done(id bigint, fence bigint) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    DELETE FROM job WHERE id = $1 AND fence = $2 AND state = 'running';
    RETURN FOUND;
END $$;

-- Ends many: returns those whose lease was still the caller's.
CREATE FUNCTION job_done_all(ids bigint[], fences bigint[]) RETURNS SETOF bigint
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    DELETE FROM job WHERE job.id = ANY (ARRAY(
        SELECT held.id FROM unnest($1, $2) AS mine (id, fence) CROSS JOIN LATERAL (
            SELECT job.id FROM job WHERE job.id = mine.id AND job.fence = mine.fence AND job.state = 'running'
            FOR UPDATE) AS held))
    RETURNING job.id;
END $$;

-- Claims those of `ids` that can be run now: queued, due, of a kind that the worker knows, none of their key running.
-- A row that somebody holds is passed over: it is being claimed, or whoever changes it rings afterwards. With
-- `again` also what this worker holds already: for a claim whose outcome it did not learn.
CREATE FUNCTION job_claim(ids bigint[], kinds text[], claimant text, lease_ms bigint, again boolean)
RETURNS TABLE (id bigint, fence bigint, kind text, tenant text, key text, payload text, tries integer,
               crashes integer, waited_ms bigint)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    UPDATE job SET state = 'running', fence = job.fence + 1, worker = claimant,
        lease_until = now() + lease_ms * interval '1 millisecond'
    WHERE job.id = ANY (ARRAY(
        SELECT free.id FROM job AS free
        WHERE free.id = ANY (ids) AND free.kind = ANY (kinds)
            AND (free.state || '' = 'queued' AND free.run_at <= now() AND (free.key IS NULL OR NOT EXISTS (
                    SELECT FROM job AS other
                    WHERE other.kind = free.kind AND other.key = free.key AND other.state = 'running' OFFSET 0))
                OR again AND free.state || '' = 'running' AND free.worker = claimant)
        ORDER BY free.id FOR UPDATE SKIP LOCKED))
    RETURNING job.id, job.fence, job.kind, job.tenant, job.key, job.payload::text, job.tries, job.crashes,
        (extract(epoch FROM now() - job.run_at) * 1000)::bigint;
END $$;

-- Extends leases: returns those that are still the caller's.
CREATE FUNCTION job_extend(ids bigint[], fences bigint[], lease_ms bigint) RETURNS SETOF bigint
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    UPDATE job SET lease_until = now() + $3 * interval '1 millisecond'
    WHERE job.id = ANY (ARRAY(
        SELECT held.id FROM unnest($1, $2) AS mine (id, fence) CROSS JOIN LATERAL (
            SELECT job.id FROM job WHERE job.id = mine.id AND job.fence = mine.fence AND job.state = 'running'
            FOR UPDATE) AS held))
    RETURNING job.id;
END $$;

-- Takes a running job off its worker: 'queued' again in `delay_ms`, 'dead', or 'merged' into the one of its kind and key
-- that was queued meanwhile, as job_add would have done had it come later. 'lost': the lease is no longer the caller's.
CREATE FUNCTION job_return(job_id bigint, job_fence bigint, delay_ms bigint, failed integer, crashed integer,
                           put_aside boolean, reason text) RETURNS text
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    mine job;
    due timestamptz := now() + delay_ms * interval '1 millisecond';
BEGIN
    UPDATE job SET tries = tries + failed, crashes = crashes + crashed, last_error = coalesce(reason, last_error)
    WHERE id = job_id AND fence = job_fence AND state = 'running'
    RETURNING * INTO mine;
    IF NOT FOUND THEN
        RETURN 'lost';
    END IF;
    IF put_aside THEN
        UPDATE job SET state = 'dead', lease_until = NULL, worker = NULL WHERE id = job_id;
        RETURN 'dead';
    END IF;
    LOOP
        UPDATE job SET tries = greatest(tries, mine.tries), crashes = greatest(crashes, mine.crashes),
            last_error = mine.last_error
        WHERE kind = mine.kind AND key = mine.key AND state = 'queued';
        IF FOUND THEN
            DELETE FROM job WHERE id = job_id;
            RETURN 'merged';
        END IF;
        BEGIN
            UPDATE job SET state = 'queued', run_at = due, lease_until = NULL, worker = NULL,
                ring_at = CASE WHEN delay_ms > 0 THEN due ELSE due + interval '5 seconds' END
            WHERE id = job_id;
            RETURN 'queued';
        EXCEPTION WHEN unique_violation THEN
            NULL; -- one was queued this moment: look again
        END;
    END LOOP;
END $$;

-- Takes jobs whose lease has run out off their workers. A job that has killed three is put aside.
CREATE FUNCTION job_expire(at_most integer)
RETURNS TABLE (id bigint, kind text, tenant text, key text, outcome text)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT late.id, late.kind, late.tenant, late.key,
        job_return(late.id, late.fence, 0, 0, 1, late.crashes >= 2, 'the worker gave no sign of life: ' || late.worker)
    FROM (SELECT * FROM job WHERE state || '' = 'running' AND lease_until < now()
          ORDER BY id LIMIT at_most FOR UPDATE SKIP LOCKED) AS late;
END $$;

-- Rows to ring now: due, and never rung or rung to no effect. The pause to the next ring grows with the time they have
-- waited, so that a long queue is not rung over and over.
CREATE FUNCTION job_ring(at_most integer) RETURNS TABLE (id bigint, kind text, tenant text)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    UPDATE job SET ring_at = now() + least(greatest(now() - job.run_at, interval '5 seconds'), interval '60 seconds')
    WHERE job.id = ANY (ARRAY(
        SELECT late.id FROM job AS late WHERE late.state = 'queued' AND late.ring_at <= now()
        ORDER BY late.ring_at LIMIT at_most FOR UPDATE SKIP LOCKED))
    RETURNING job.id, job.kind, job.tenant;
END $$;

-- Gives a dead job all its tries again, or merges it into the queued one of its kind and key. Returns the job to ring;
-- NULL when the given one is not dead.
CREATE FUNCTION job_redrive(job_id bigint) RETURNS bigint
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    mine job;
    twin bigint;
BEGIN
    SELECT * INTO mine FROM job WHERE id = job_id AND state = 'dead' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    LOOP
        SELECT id INTO twin FROM job WHERE kind = mine.kind AND key = mine.key AND state = 'queued' FOR UPDATE;
        IF FOUND THEN
            DELETE FROM job WHERE id = job_id;
            RETURN twin;
        END IF;
        BEGIN
            UPDATE job SET state = 'queued', tries = 0, crashes = 0, run_at = now(),
                ring_at = now() + interval '5 seconds'
            WHERE id = job_id;
            RETURN job_id;
        EXCEPTION WHEN unique_violation THEN
            NULL; -- one was queued this moment: look again
        END;
    END LOOP;
END $$;

-- All jobs that could run now, by id: for when the streams were lost.
CREATE FUNCTION job_all_due(after bigint, at_most bigint) RETURNS TABLE (id bigint, kind text, tenant text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_sort = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT job.id, job.kind, job.tenant FROM job
    WHERE job.id > after AND job.state || '' = 'queued' AND job.run_at <= now() ORDER BY job.id LIMIT at_most;
END $$;

-- Jobs that wait for one of these kinds and keys to end, and can be run now.
CREATE FUNCTION job_followers(kinds text[], keys text[]) RETURNS TABLE (id bigint, kind text, tenant text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT next.* FROM (SELECT DISTINCT * FROM unnest(kinds, keys)) AS ended (kind, key) CROSS JOIN LATERAL (
        SELECT job.id, job.kind, job.tenant FROM job
        WHERE job.kind = ended.kind AND job.key = ended.key AND job.state = 'queued' AND job.run_at <= now()
        OFFSET 0) AS next;
END $$;

-- Jobs that can be run now, for a worker that hears no ring because Redis is away. What is due is to be rung within the
-- next sixty seconds (job_ring), so the index serves.
CREATE FUNCTION job_due(kinds text[], at_most bigint) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT id FROM job
    WHERE state = 'queued' AND ring_at <= now() + interval '61 seconds' AND run_at <= now() AND kind = ANY (kinds)
    ORDER BY ring_at LIMIT at_most;
END $$;
