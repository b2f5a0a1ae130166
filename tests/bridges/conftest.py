from __future__ import annotations

import os
import sys

import pytest
from bridge_world import make_world

if checkout := os.environ.get("OPEN_INSTRUCT_MAIN"):
    sys.path.append(checkout)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("games"))
