"""The short form of bench/faults.py: every part of a deployment killed once while posts go through."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.e2e.faults import Crowd, Deployment, Difference, differences


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that PostgreSQL's user can enter."""
    for parent in [tmp_path, *tmp_path.parents[:3]]:
        if parent.owner() == tmp_path.owner() and parent != Path("/"):
            parent.chmod(0o755)
    return tmp_path


@pytest.mark.timeout(900)
async def test_the_rows_are_the_same_whatever_is_killed(folder: Path) -> None:
    crowd = Crowd(posts=4500)
    async with Deployment(folder / "undisturbed") as deployment:
        expected = await deployment.run(crowd)
    async with Deployment(folder / "disturbed") as deployment:
        kills = list(deployment.targets)
        random.Random(len(kills)).shuffle(kills)
        found = await deployment.run(crowd, kills)
    assert len(found.recoveries) == len(kills) >= 8
    assert len(expected.windows) >= 100
    assert expected.spikes, "the crowd has a spike in it"
    for name, difference in differences(expected, found):
        same = Difference(difference.rows, 0, 0, 0, 0, 0, "")
        assert difference == same, name
