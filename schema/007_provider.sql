-- Providers of AI and the models that are served from them (core/domain/ai/catalogue.h). What the program brings along and what
-- its settings name are no rows; a row of the same name stands in their place.

CREATE TABLE provider (
    name               text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_-]{0,30}$'),
    kind               text NOT NULL CHECK (kind IN ('sandbox', 'openai', 'anthropic')),
    base_url           text,
    api_key            bytea,                     -- sealed
    ca                 text,                      -- PEM of who alone may sign its certificate; NULL: whom the system trusts
    max_in_flight      bigint NOT NULL DEFAULT 1024 CHECK (max_in_flight > 0),
    queue_calls        bigint NOT NULL DEFAULT 10000 CHECK (queue_calls >= 0),
    queue_bytes        bigint NOT NULL DEFAULT 268435456 CHECK (queue_bytes >= 0),
    queue_wait_ms      bigint NOT NULL DEFAULT 30000 CHECK (queue_wait_ms > 0),
    connect_ms         bigint NOT NULL DEFAULT 5000 CHECK (connect_ms > 0),
    header_ms          bigint NOT NULL DEFAULT 120000 CHECK (header_ms > 0),
    idle_ms            bigint NOT NULL DEFAULT 60000 CHECK (idle_ms > 0),
    total_ms           bigint NOT NULL DEFAULT 600000 CHECK (total_ms > 0),
    native_completions boolean NOT NULL DEFAULT false,
    enabled            boolean NOT NULL DEFAULT true,
    -- Of the sandbox: proto/ai/sandbox.h.
    delay_ms           bigint NOT NULL DEFAULT 0 CHECK (delay_ms >= 0),
    chunk_ms           bigint NOT NULL DEFAULT 0 CHECK (chunk_ms >= 0),
    fail_status        bigint NOT NULL DEFAULT 0 CHECK (fail_status = 0 OR fail_status BETWEEN 400 AND 599),
    stall_after        bigint NOT NULL DEFAULT -1 CHECK (stall_after >= -1),
    answer_tokens      bigint NOT NULL DEFAULT 0 CHECK (answer_tokens >= 0),
    created_at         timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE model (
    id             text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 200),
    owned_by       text NOT NULL,
    -- US dollars a token; NULL: as the program has it for a model of this name, or 0
    price_in       numeric(38, 18) CHECK (price_in >= 0),
    price_out      numeric(38, 18) CHECK (price_out >= 0),
    price_cached   numeric(38, 18) CHECK (price_cached >= 0),
    max_output     bigint CHECK (max_output > 0),
    default_output bigint CHECK (default_output > 0),
    context        bigint CHECK (context > 0),
    cache_seconds  bigint NOT NULL DEFAULT 0 CHECK (cache_seconds >= 0),      -- 0: only who asks for it
    cache_percent  bigint NOT NULL DEFAULT 100 CHECK (cache_percent BETWEEN 0 AND 100),
    enabled        boolean NOT NULL DEFAULT true,
    created_at     timestamptz NOT NULL DEFAULT now()
);

-- The providers of a model in the order in which they are tried. No reference: a provider may be one of the settings'.
CREATE TABLE model_route (
    model_id       text NOT NULL REFERENCES model ON DELETE CASCADE,
    position       bigint NOT NULL,
    provider       text NOT NULL,
    upstream_model text NOT NULL,
    PRIMARY KEY (model_id, position)
);

-- Moves with every change, so that who keeps a copy sees that it is old.
CREATE TABLE catalogue_version (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint NOT NULL
);
INSERT INTO catalogue_version (version) VALUES (1);

CREATE FUNCTION catalogue_changed() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE catalogue_version SET version = version + 1;
    RETURN NULL;
END $$;
CREATE TRIGGER provider_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON provider
FOR EACH STATEMENT EXECUTE FUNCTION catalogue_changed();
CREATE TRIGGER model_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON model
FOR EACH STATEMENT EXECUTE FUNCTION catalogue_changed();
CREATE TRIGGER model_route_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON model_route
FOR EACH STATEMENT EXECUTE FUNCTION catalogue_changed();
