-- A replay walks along the endpoint's own deliveries: the order is one that only the index on both gives. By their numbers alone
-- those of all endpoints might be walked through.

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
