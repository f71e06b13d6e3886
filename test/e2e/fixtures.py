"""What the end-to-end and the fault tests share: stores for each worker of pytest-xdist, and gateways on them."""

import fcntl
import os
import subprocess

import pytest

from stores import Stores, make_fast_folder, make_folder, remove_folder
from wakegate import Gateway, POD_SCRIPT, run

TEMPLATE = "template_wakegate"


def make_cluster(data):
    """The data folder of a stopped PostgreSQL with a migrated database."""
    folder = make_folder()
    stores = Stores(folder)
    try:
        stores.postgres.start()
        stores.postgres.make_database(TEMPLATE)
        done = run("migrate", env={"DATABASE_URL": stores.postgres.url(TEMPLATE)})
        assert done.returncode == 0, done.stderr
        stores.postgres.stop()
        subprocess.run(["cp", "-a", stores.postgres.data, data], check=True)
    finally:
        stores.stop()
        remove_folder(folder)


@pytest.fixture(scope="session")
def cluster(request):
    """To be copied. Whichever worker of pytest-xdist comes first makes it, in a folder that they share (conftest.py)."""
    shared = getattr(request.config, "workerinput", {}).get("shared_folder")
    folder = shared or make_fast_folder()
    data, ready = os.path.join(folder, "pg"), os.path.join(folder, "ready")
    try:
        with open(os.path.join(folder, "lock"), "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.exists(ready):
                remove_folder(data)
                make_cluster(data)
                open(ready, "w", encoding="ascii").close()
        yield data
    finally:
        if not shared:
            remove_folder(folder)


def run_stores(cluster):
    folder = make_folder()
    stores = Stores(folder, copy_of=cluster)
    try:
        yield stores.start()
    finally:
        stores.stop()
        remove_folder(folder)


@pytest.fixture(scope="session")
def stores(cluster):
    """For tests that leave them alone."""
    yield from run_stores(cluster)


@pytest.fixture
def own_stores(cluster):
    """For tests that break them."""
    yield from run_stores(cluster)


def run_gateway(stores, *args, **options):
    gateway = Gateway(stores, *args, **options)
    try:
        yield gateway.start()
    except BaseException:
        gateway.abandon()
        raise
    gateway.close()


@pytest.fixture(scope="session")
def gateway(stores):
    """With the pod that comes along. Tests make sessions of their own in it."""
    yield from run_gateway(stores)


@pytest.fixture(scope="session")
def recorder(stores):
    """With pods that write down what they are asked (pod.py)."""
    yield from run_gateway(stores, recorder_settings())


def recorder_settings(**settings):
    return {"WAKEGATE_POD_COMMAND": f"exec /usr/bin/python3 -I -S {POD_SCRIPT}", **settings}


@pytest.fixture
def client(gateway):
    return gateway.client()


@pytest.fixture
def start_gateway(stores):
    """start_gateway(settings, …): a gateway for one test."""
    gateways = []

    def start(*args, **options):
        how = {name: options.pop(name) for name in ("supervised", "ready") if name in options}
        gateways.append(Gateway(options.pop("stores", stores), *args, **options))
        return gateways[-1].start(**how)

    try:
        yield start
        for gateway in gateways:
            gateway.close()
    finally:
        for gateway in gateways:
            gateway.abandon()
