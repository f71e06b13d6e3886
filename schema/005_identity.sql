-- Who may do what: accounts, keys, log-ins, OAuth 2.0 clients and their tokens, answers kept for repeated requests, the
-- record of who changed what, and the keys that secrets at rest are sealed under. Of every secret that a client presents
-- there is only a keyed hash here.

-- ---- keys of the house ----

-- A data key, wrapped once under each ENCRYPTION_KEY (wrapped_by names it) that servers may have while one is changed for
-- another. 'hash' keys the hashes of API keys and tokens and never changes; of 'seal' the newest seals, all open.
CREATE TABLE vault_key (
    id         integer NOT NULL,
    purpose    text NOT NULL CHECK (purpose IN ('hash', 'seal')),
    wrapped_by text NOT NULL,
    wrapped    bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, wrapped_by)
);

-- ---- accounts ----

ALTER TABLE account
    ADD COLUMN ref          text NOT NULL UNIQUE DEFAULT 'user_' || replace(gen_random_uuid()::text, '-', ''),
    ADD COLUMN email        text CHECK (email = lower(email)),
    ADD COLUMN organization text,
    ADD COLUMN password     text,         -- Argon2id, as libsodium writes it; NULL: can't log in
    ADD COLUMN banned_at    timestamptz,
    ADD COLUMN banned_until timestamptz,  -- NULL: for good
    ADD COLUMN ban_reason   text;
CREATE UNIQUE INDEX account_email ON account (email) WHERE email IS NOT NULL;

-- The plan that an account has on a surface; without a row the surface's first (core/domain/identity/plan.h).
CREATE TABLE account_plan (
    account_id bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    surface    text NOT NULL,
    plan       text NOT NULL,
    PRIMARY KEY (account_id, surface)
);
-- A limit of an account's own, in place of its plan's.
CREATE TABLE account_limit (
    account_id bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    name       text NOT NULL,             -- of the limit: "inference-minute"
    most       bigint NOT NULL CHECK (most > 0),
    burst      bigint NOT NULL DEFAULT 0 CHECK (burst >= 0),
    PRIMARY KEY (account_id, name)
);

-- ---- API keys ----

ALTER TABLE api_key
    ADD COLUMN ref            text NOT NULL UNIQUE DEFAULT 'key_' || replace(gen_random_uuid()::text, '-', ''),
    ADD COLUMN scopes         text[],     -- NULL: all that the surface has
    ADD COLUMN allow_from     text[],     -- addresses and networks; NULL: from anywhere
    ADD COLUMN signing_secret bytea,      -- sealed; NULL: its calls are not signed
    ADD COLUMN must_sign      boolean NOT NULL DEFAULT false,
    ADD COLUMN by_login       boolean NOT NULL DEFAULT false, -- made by a log-in
    ADD COLUMN rotated_to     bigint REFERENCES api_key;

-- ---- log-ins ----

CREATE TABLE login (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ref          text NOT NULL UNIQUE,    -- the "sid" of its tokens
    account_id   bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    refresh_hash bytea NOT NULL UNIQUE,   -- of the refresh token that holds
    spent_hash   bytea,                   -- of the one before it: who comes with that has a copy, and the login ends
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    revoked_at   timestamptz
);
CREATE INDEX login_account ON login (account_id, id);
CREATE INDEX login_expires ON login (expires_at);
CREATE UNIQUE INDEX login_spent ON login (spent_hash) WHERE spent_hash IS NOT NULL;

-- ---- OAuth 2.0 ----

CREATE TABLE oauth_client (
    id            text PRIMARY KEY,
    account_id    bigint NOT NULL REFERENCES account,
    name          text NOT NULL,
    secret_hash   bytea,                  -- NULL: a public client
    redirect_uris text[] NOT NULL DEFAULT '{}',
    scopes        text[] NOT NULL,
    grants        text[] NOT NULL,
    is_test       boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    revoked_at    timestamptz
);

-- What a user has allowed a client, or a client was given for itself: all codes and tokens of it end with it.
CREATE TABLE oauth_grant (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id  text NOT NULL REFERENCES oauth_client ON DELETE CASCADE,
    account_id bigint NOT NULL REFERENCES account ON DELETE CASCADE,
    scopes     text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);
CREATE INDEX oauth_grant_client ON oauth_grant (client_id, id);

CREATE TABLE oauth_code (
    hash         bytea PRIMARY KEY,
    grant_id     bigint NOT NULL REFERENCES oauth_grant ON DELETE CASCADE,
    redirect_uri text NOT NULL,
    challenge    text,                    -- of PKCE, S256
    expires_at   timestamptz NOT NULL,
    used_at      timestamptz
);
CREATE INDEX oauth_code_expires ON oauth_code (expires_at);
CREATE INDEX oauth_code_grant ON oauth_code (grant_id);

CREATE TABLE oauth_token (
    hash       bytea PRIMARY KEY,
    grant_id   bigint NOT NULL REFERENCES oauth_grant ON DELETE CASCADE,
    kind       text NOT NULL CHECK (kind IN ('access', 'refresh')),
    scopes     text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz,               -- a refresh token that was exchanged
    revoked_at timestamptz
);
CREATE INDEX oauth_token_grant ON oauth_token (grant_id);
CREATE INDEX oauth_token_expires ON oauth_token (expires_at);

-- ---- answers to requests with an Idempotency-Key ----

CREATE TABLE idempotency (
    owner         text NOT NULL,          -- who sent it
    key           text NOT NULL,
    request       bytea NOT NULL,         -- digest of method, path and body
    status        integer NOT NULL,
    answer        bytea NOT NULL,         -- header fields and body, sealed: some show a secret once
    running_until timestamptz,            -- the effect is committed, the answer may still get better
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner, key)
);
CREATE INDEX idempotency_created ON idempotency (created_at);

-- ---- audit ----

CREATE TABLE audit (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    actor      text NOT NULL,             -- "key 12", "login 3", "client cli_…", "operator", "worker"
    account_id bigint,                    -- whose affair it is; no reference: the record outlives it
    action     text NOT NULL,             -- "session.create"
    object     text,                      -- its id
    address    text,
    request_id text,
    details    jsonb
);
CREATE INDEX audit_account ON audit (account_id, id);
CREATE INDEX audit_at ON audit (at);
