"""Which versions a restart starts, as files of state tell it; and versions that come and go among real processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from miniserve.errors import SetupError
from miniserve.operations.state_file import StateFile
from miniserve.processes.pools import Pool
from miniserve.processes.versions import KeptPools


@pytest.fixture
def pools(tmp_path: Path) -> list[Pool]:
    for name in ("small", "one", "two", "three"):
        (tmp_path / name).mkdir()
    paced = Pool("large", tmp_path / "one", "1", 2, "default", "eu", nice=3, prefix="r", arguments=("--threads", "1"))
    return [Pool("small", tmp_path / "small"), paced]


def names(kept: KeptPools) -> list[str]:
    return [pool.served_name for pool in kept.current]


def test_a_version_is_started_like_another_and_is_there_after_a_restart(tmp_path: Path, pools: list[Pool]) -> None:
    file = tmp_path / "versions.json"
    pool = KeptPools(pools, StateFile(file)).add("large@2", "large@1", 3, tmp_path / "two")
    later = KeptPools(pools, StateFile(file))

    assert later.current == [*pools, pool]
    assert (pool.served_name, pool.replicas, pool.folder) == ("large@2", 3, tmp_path / "two")
    assert (pool.pace, pool.region, pool.nice, pool.arguments) == ("default", "eu", 3, ("--threads", "1"))
    assert pool.id_prefix == "large@2-", "its replicas are not taken for those of the other"
    with pytest.raises(SetupError, match=r"there is no pool 'large@7'; there are small, large@1, large@2"):
        later.add("large@8", "large@7", 1, tmp_path)


def test_a_promoted_version_is_served_after_a_restart_and_may_be_followed(tmp_path: Path, pools: list[Pool]) -> None:
    file = tmp_path / "versions.json"
    kept = KeptPools(pools, StateFile(file))
    kept.add("large@2", "large@1", 2, tmp_path / "two")
    kept.retire("large@1")
    assert names(KeptPools(pools, StateFile(file))) == ["small", "large@2"]

    kept = KeptPools(pools, StateFile(file))
    kept.add("large@3", "large@2", 2, tmp_path / "three")
    kept.retire("large@2")
    later = KeptPools(pools, StateFile(file))
    assert names(later) == ["small", "large@3"]
    assert [later.successor(name) for name in ("large@1", "large@2", "small")] == ["large@3", "large@3", "small"]

    later.add("large@1", "large@3", 1, tmp_path / "elsewhere")  # back to the first, in a rollout of its own
    later.retire("large@3")
    again = KeptPools(pools, StateFile(file))
    assert names(again) == ["small", "large@1"]
    assert again.current[1].folder == tmp_path / "one"


def test_a_version_that_was_rolled_back_leaves_no_trace(tmp_path: Path, pools: list[Pool]) -> None:
    kept = KeptPools(pools, StateFile(tmp_path / "versions.json"))
    kept.add("large@bad", "large@1", 2, tmp_path / "two")
    kept.retire("large@bad")
    later = KeptPools(pools, StateFile(tmp_path / "versions.json"))

    assert later.current == pools
    assert not later.retired


def test_what_cannot_be_as_it_was_left_is_said_and_something_is_served(
    tmp_path: Path, pools: list[Pool], caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "versions.json"
    kept = KeptPools(pools, StateFile(file))
    kept.add("large@2", "large@1", 2, tmp_path / "two")
    kept.retire("large@1")
    (tmp_path / "two").rmdir()
    assert names(KeptPools(pools, StateFile(file))) == ["small", "large@1"]
    assert f"its files in {tmp_path / 'two'} are gone; large@1 is served" in caplog.text

    assert names(KeptPools(pools[:1], StateFile(file))) == ["small"]
    assert "it was to be like large@1, which is not there any more" in caplog.text

    file.write_text(json.dumps({"added": 7}))
    assert names(KeptPools(pools, StateFile(file))) == ["small", "large@1"]
    assert "cannot be read" in caplog.text
