-- Visits to pods (core/domain/instance/visit.h). A reactor remembers for a moment at which port a pod listens, so a port that was
-- just freed must not be another pod's soon: ports are given out in turn.

CREATE SEQUENCE instance_port_turn;

-- The next port of the range that no instance has; NULL when there is none. The unique index on instance.port decides
-- between two who are given the same, as can happen in a range with few left.
CREATE FUNCTION instance_next_port(first bigint, last bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    candidate bigint;
BEGIN
    FOR i IN first .. last LOOP
        candidate := first + nextval('instance_port_turn') % (last - first + 1);
        IF NOT EXISTS (SELECT FROM instance WHERE port = candidate) THEN
            RETURN candidate;
        END IF;
    END LOOP;
    RETURN NULL;
END $$;

-- How often there was no pod to hand a message to: not a try of the message, yet bounded (delivery.c).
ALTER TABLE message ADD COLUMN refused integer NOT NULL DEFAULT 0;
