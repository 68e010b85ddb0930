"""What the tests of whole programs share."""

import pytest

from diffusioncleft.tools.study_server import StudyServer, make_study


@pytest.fixture
def serving(tmp_path, offline_env):
    """Starts servers, and ends them with the test."""
    servers = []

    def start(*options, database=None, **settings):
        folder = tmp_path / f"study{len(servers)}"
        study = make_study(folder, side=64, **({"n": 3} | settings))
        servers.append(StudyServer(study, offline_env, *options, database=database))
        return servers[-1].start()

    yield start
    for server in servers:
        server.kill()
