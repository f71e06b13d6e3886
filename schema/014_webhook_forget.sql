-- What deleted endpoints leave is found along their own deliveries, not among all, and not before a worker that has some of it in
-- hand has logged what came of it: nobody would remove that any more.

-- Removes deliveries that are older than `days`, and what deleted endpoints have left; some at a time. Returns how many.
CREATE OR REPLACE FUNCTION webhook_forget(days bigint, at_most bigint) RETURNS bigint
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
