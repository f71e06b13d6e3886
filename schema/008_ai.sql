-- AI calls: core/domain/ai/job.h. Durable ones are rows from their acceptance on; the others as they end.

CREATE TABLE ai_job (
    id                text PRIMARY KEY,
    seq               bigint GENERATED ALWAYS AS IDENTITY,  -- of acceptance or end, for paging
    account_id        bigint NOT NULL REFERENCES account,
    key_id            bigint NOT NULL,
    surface           text NOT NULL,
    model             text NOT NULL,
    kind              text NOT NULL,
    provider          text,
    status            text NOT NULL CHECK (status IN ('queued', 'processing', 'completed', 'failed', 'cancelled')),
    streamed          boolean NOT NULL,
    created_at        timestamptz NOT NULL,
    started_at        timestamptz,
    completed_at      timestamptz,
    prompt_tokens     bigint NOT NULL DEFAULT 0,
    completion_tokens bigint NOT NULL DEFAULT 0,
    cost              numeric(38, 18),
    error_code        text,
    error_message     text,
    answer_text       text,  -- of the first choice
    answer            text,  -- JSON, as the client got it
    -- Of a durable one, until it has ended:
    meta              text,
    request           text,
    fence             bigint NOT NULL DEFAULT 0,  -- goes up with every start
    worker            text,
    ring_at           timestamptz                 -- when it is submitted again, unless somebody is at it
) WITH (autovacuum_vacuum_insert_threshold = 100000, autovacuum_analyze_threshold = 20000);

CREATE INDEX ai_job_account ON ai_job (account_id, seq DESC);
CREATE INDEX ai_job_to_ring ON ai_job (ring_at) WHERE status IN ('queued', 'processing');
-- For what is too old: rows come nearly in the order of their ends, and a B-tree would cost each of them.
CREATE INDEX ai_job_completed ON ai_job USING brin (completed_at);

-- Unix milliseconds as the API writes time.
CREATE FUNCTION ai_time(unix_ms bigint) RETURNS text
LANGUAGE sql STABLE AS $$  -- as what it calls: else it is not inlined
    SELECT to_char(to_timestamp(unix_ms / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
$$;

-- Ends many calls: rows, charges, use and events, or none of them. A call that ended before changes nothing. Returns how
-- many it was.
CREATE FUNCTION ai_settle(ids text[], account_ids bigint[], generations bigint[], fences bigint[], key_ids bigint[],
    surfaces text[], models text[], kinds text[], providers text[], statuses text[], streamed bigint[], created bigint[],
    started bigint[], ended bigint[], prompt_tokens bigint[], completion_tokens bigint[], costs text[], codes text[],
    messages text[], texts text[], answers text[])
RETURNS bigint
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    settled text[];
BEGIN
    -- Everybody who moves money takes the wallets first, in this order (ledger_charge).
    PERFORM FROM wallet WHERE account_id = ANY ($2) ORDER BY account_id FOR NO KEY UPDATE;
    WITH given AS (
        SELECT DISTINCT ON (id) * FROM unnest($1, $2, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
            $19, $20, $21) AS each (id, account_id, fence, key_id, surface, model, kind, provider, status, streamed, created,
            started, ended, prompt_tokens, completion_tokens, cost, code, message, answer_text, answer)
        ORDER BY id
    ), rows AS (
        INSERT INTO ai_job AS job (id, account_id, key_id, surface, model, kind, provider, status, streamed, created_at,
            started_at, completed_at, prompt_tokens, completion_tokens, cost, error_code, error_message, answer_text, answer,
            fence)
        SELECT id, account_id, key_id, surface, model, kind, nullif(provider, ''), status, streamed = 1,
            to_timestamp(created / 1000.0), to_timestamp(nullif(started, 0) / 1000.0), to_timestamp(ended / 1000.0),
            prompt_tokens, completion_tokens, cost::numeric, nullif(code, ''), nullif(message, ''), nullif(answer_text, ''),
            nullif(answer, ''), fence
        FROM given
        ON CONFLICT (id) DO UPDATE
        SET provider = excluded.provider, status = excluded.status, started_at = excluded.started_at,
            completed_at = excluded.completed_at, prompt_tokens = excluded.prompt_tokens,
            completion_tokens = excluded.completion_tokens, cost = excluded.cost, error_code = excluded.error_code,
            error_message = excluded.error_message, answer_text = excluded.answer_text, answer = excluded.answer,
            meta = NULL, request = NULL, worker = NULL, ring_at = NULL
        WHERE job.status IN ('queued', 'processing') AND (excluded.fence < 0 OR excluded.fence = job.fence)
        RETURNING id
    )
    SELECT array_agg(id) INTO settled FROM rows;
    IF settled IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM ledger_charge(array_agg(account_id), array_agg(generation), array_agg(cost::numeric), array_agg(id))
    FROM (SELECT DISTINCT ON (id) * FROM unnest($1, $2, $3, $17) AS each (id, account_id, generation, cost) ORDER BY id) AS given
    WHERE id = ANY (settled) AND cost::numeric > 0;
    PERFORM usage_add(array_agg(account_id), array_agg((to_timestamp(ended / 1000.0) AT TIME ZONE 'UTC')::date),
        array_agg(model), array_agg(key_id), array_agg(prompt_tokens), array_agg(completion_tokens),
        array_agg(cost::numeric))
    FROM (SELECT DISTINCT ON (id) * FROM unnest($1, $2, $14, $7, $5, $15, $16, $17) AS each (id, account_id, ended, model,
        key_id, prompt_tokens, completion_tokens, cost) ORDER BY id) AS given
    WHERE id = ANY (settled);
    PERFORM FROM (
        SELECT array_agg(account_id ORDER BY id) AS accounts, array_agg(surface ORDER BY id) AS surfaces,
            array_agg('job.' || status ORDER BY id) AS names, array_agg(jsonb_build_object(
                'id', id, 'status', status, 'model', model, 'created_at', ai_time(created), 'completed_at', ai_time(ended),
                'cost', money_text(cost::numeric), 'tokens_used', prompt_tokens + completion_tokens,
                'error', CASE WHEN code = '' THEN NULL ELSE jsonb_build_object('code', code, 'message', message) END)
                ORDER BY id) AS datas
        FROM (SELECT DISTINCT ON (id) * FROM unnest($1, $2, $6, $7, $10, $12, $14, $15, $16, $17, $18, $19) AS each (id,
            account_id, surface, model, status, created, ended, prompt_tokens, completion_tokens, cost, code, message)
            ORDER BY id) AS given
        WHERE id = ANY (settled) AND status IN ('completed', 'failed') HAVING count(*) > 0) AS told
    CROSS JOIN LATERAL event_add_all(accounts, surfaces, names, datas);
    RETURN cardinality(settled);
END $$;
