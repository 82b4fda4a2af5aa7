"""A real Kubernetes API server, and projects of the real Pulumi CLI whose objects go there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from localcloud.kubernetes import api_server


@pytest.fixture(scope="session")
def cluster_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a control plane that only this process's tests have, running; it is gone afterwards."""
    if missing := api_server.missing_programs():
        pytest.skip(f"{', '.join(missing)} not built: run `make control-plane`")
    home = tmp_path_factory.mktemp("control-plane")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_HOME", str(home))
        api_server.ensure()
    yield home
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_HOME", str(home))
        api_server.stop()
