"""Which worker of pytest-xdist runs which test: all are to be busy until the end, and a file's gateway started seldom."""

from xdist.scheduler import LoadScheduling

# Those that last longest, so that the others fill what is left of the time at the end.
FIRST = ("test_money_faults", "test_ai_faults", "test_webhook_faults", "test_crash_points", "test_idempotency_faults", "test_redis",
         "test_postgres", "test_kill_worker", "test_up", "test_workspace", "test_pods", "test_calls", "test_events_resume",
         "test_plan_limits", "test_operator", "test_webhook_guard", "test_providers", "test_workspace_status", "test_events",
         "test_shutdown", "test_messages", "test_ai_jobs", "test_openapi_answers")
LEAST = 2  # tests: a worker runs one once it knows of the next


class ByFile(LoadScheduling):
    """A worker gets one test after the other, of one file; then of the next file that nobody is at, at last of the fullest."""

    def schedule(self):
        if self.collection is None:
            if not self._check_nodes_have_same_collection():
                return
            self.collection = next(iter(self.node2collection.values()))
            self.files = [name.partition("::")[0] for name in self.collection]
            self.at = {}
            self.pending[:] = sorted(range(len(self.collection)), key=self._rank)
        for _ in range(LEAST):
            for node in self.nodes:
                if len(self.node2pending[node]) < LEAST and not node.shutting_down:
                    self._give_one(node)
        if not self.pending:
            for node in self.nodes:
                node.shutdown()

    def check_schedule(self, node, duration=0):
        if node.shutting_down:
            return
        while self.pending and len(self.node2pending[node]) < LEAST:
            self._give_one(node)
        if not self.pending:
            node.shutdown()

    def _rank(self, index):
        name = self.files[index].rpartition("/")[2].removesuffix(".py")
        return FIRST.index(name) if name in FIRST else len(FIRST)

    def _give_one(self, node):
        if not self.pending:
            return
        left = {}
        for index in self.pending:
            left.setdefault(self.files[index], []).append(index)
        file = self.at.get(node)
        if file not in left:
            taken = {self.at.get(other) for other in self.nodes if other is not node}
            free = [name for name in left if name not in taken]
            file = free[0] if free else max(left, key=lambda name: len(left[name]))
        self.at[node] = file
        index = left[file][0]
        self.pending.remove(index)
        self.pending.insert(0, index)
        self._send_tests(node, 1)
