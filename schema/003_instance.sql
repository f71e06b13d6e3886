-- Instances (a session is one) and the messages that wait for them. Needs job_add of 002.

CREATE TABLE instance (
    id             text PRIMARY KEY CHECK (id ~ '^[a-z][a-z0-9]{7,62}$'),
    seq            bigint GENERATED ALWAYS AS IDENTITY UNIQUE,  -- order of creation, for paging
    surface        text NOT NULL,
    account_id     bigint NOT NULL REFERENCES account,
    user_id        text NOT NULL,
    state          text NOT NULL DEFAULT 'asleep'
                   CHECK (state IN ('asleep', 'waking', 'awake', 'draining', 'failed')),
    desired        smallint NOT NULL DEFAULT 0 CHECK (desired IN (0, 1)),
    version        bigint NOT NULL DEFAULT 1,     -- grows with every change: orders what readers cache
    generation     bigint NOT NULL DEFAULT 0,     -- of the pod's last start
    port           integer,                       -- of the pod, on the worker's machine
    pid            bigint,
    pid_started    bigint,
    queued         integer NOT NULL DEFAULT 0 CHECK (queued >= 0),  -- messages not yet delivered
    lease_fence    bigint NOT NULL DEFAULT 0,     -- who hands messages to the pod: the latest fence
    lease_until    timestamptz NOT NULL DEFAULT '-infinity',
    lease_owner    text,
    fail_reason    text,
    created_at     timestamptz NOT NULL DEFAULT now(),
    last_activity  timestamptz NOT NULL DEFAULT now(),
    state_at       timestamptz NOT NULL DEFAULT now(),
    woken          boolean NOT NULL DEFAULT false, -- ever
    notify         text,                           -- whom to tell when it is gone
    deleted_at     timestamptz                     -- asked to go: no longer shown
) WITH (fillfactor = 80);

CREATE INDEX instance_account ON instance (account_id, surface, seq DESC) WHERE deleted_at IS NULL;
CREATE INDEX instance_user ON instance (account_id, surface, user_id, seq DESC) WHERE deleted_at IS NULL;
-- What the sweeps look at: pods that exist or ought to.
CREATE INDEX instance_alive ON instance (last_activity) WHERE state <> 'asleep' OR desired <> 0 OR deleted_at IS NOT NULL;
-- Two pods never get one port.
CREATE UNIQUE INDEX instance_port ON instance (port) WHERE port IS NOT NULL;

CREATE TABLE message (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- in order of acceptance, per instance
    id           text NOT NULL UNIQUE,
    instance_id  text NOT NULL REFERENCES instance ON DELETE CASCADE,
    text         text NOT NULL,
    state        text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'delivered', 'failed')),
    tries        integer NOT NULL DEFAULT 0,
    answer       text,       -- JSON from the pod, or why it failed
    notify       text,       -- the bell of who waits for the answer
    created_at   timestamptz NOT NULL DEFAULT now(),
    delivered_at timestamptz
) WITH (fillfactor = 80);

CREATE INDEX message_instance ON message (instance_id, seq);
CREATE INDEX message_queued ON message (instance_id, seq) WHERE state = 'queued';
