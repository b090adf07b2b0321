"""The two paths to the Hub, and the table of what happened on them."""

import pytest
from fault_table import FaultTable
from scene import Scene


def pytest_addoption(parser):
    parser.addoption("--fault-table", help="write what the fault tests saw to this JSON file, and beside it as text")


@pytest.fixture(params=["lfs", "xet"])
def path(request):
    """How file contents travel."""
    return request.param


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A Hub and a client for each path, started when first asked for."""
    started = {}

    def get(path):
        if path not in started:
            started[path] = Scene(path, tmp_path_factory.mktemp(path))
        return started[path]

    yield get
    for scene in started.values():
        scene.close()


@pytest.fixture
def scene(scenes, path):
    return scenes(path)


@pytest.fixture(scope="session")
def table(request):
    table = FaultTable()
    yield table
    path = request.config.getoption("--fault-table", None)
    if path:
        table.write(path)
