"""What need not be kept goes: the worker removes it, and nothing that still counts."""

from stores import wait_until


def test_old_rows_go_and_others_stay(start_gateway):
    gateway = start_gateway({"AUDIT_DAYS": "30"}, works=1)
    gateway.key()
    kept = gateway.sql("SELECT count(*) FROM audit")[0][0]
    assert kept > 0
    gateway.sql("INSERT INTO audit (at, actor, action) SELECT now() - interval '31 days', 'worker', 'old' "
                "FROM generate_series(1, 25000)")
    gateway.sql("INSERT INTO audit (at, actor, action) VALUES (now() - interval '29 days', 'worker', 'young')")
    for key, age in (("old", "25 hours"), ("young", "23 hours")):
        gateway.sql("INSERT INTO idempotency (owner, key, request, status, answer, created_at) "
                    f"VALUES ('x', '{key}', '', 200, '', now() - interval '{age}')")
    gateway.sql("INSERT INTO oauth_client (id, account_id, name, scopes, grants) "
                "SELECT 'cli_old', id, 'old', '{}', '{}' FROM account LIMIT 1")
    gateway.sql("WITH g AS (INSERT INTO oauth_grant (client_id, account_id, scopes) SELECT c.id, c.account_id, '{}' "
                "FROM oauth_client c, generate_series(1, 12000) RETURNING id) "
                "INSERT INTO oauth_token (hash, grant_id, kind, scopes, expires_at) "
                "SELECT sha256(id::text::bytea), id, 'access', '{}', now() - interval '25 hours' FROM g")
    gateway.sql("INSERT INTO login (ref, account_id, refresh_hash, expires_at) SELECT n::text, a.id, "
                "sha256(n::text::bytea), now() - n * interval '1 hour' FROM (SELECT id FROM account LIMIT 1) a, "
                "generate_series(23, 12000) n")
    gateway.works[0].stop()
    gateway.works[0].start().wait_ready()
    wait_until(lambda: gateway.sql("SELECT count(*) FROM audit WHERE action = 'old'")[0][0] == 0, 30,
               "the old records are gone")
    wait_until(lambda: gateway.sql("SELECT key FROM idempotency WHERE owner = 'x'") == [("young",)], 30,
               "the old answer is gone")
    wait_until(lambda: gateway.sql("SELECT count(*) FROM login") == [(1,)], 30, "the old log-ins are gone")
    wait_until(lambda: gateway.sql("SELECT count(*) FROM oauth_grant") == [(0,)], 30, "the old grants are gone")
    assert gateway.sql("SELECT count(*) FROM audit")[0][0] == kept + 1
