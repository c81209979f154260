"""Scratch volumes: one per job, never another organization's, never an empty one in place of a lost one."""

import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from folkmoot.node.storage.scratch import Scratch
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

JOB = "01990000-0000-7000-8000-000000000001"
OTHER_JOB = "01990000-0000-7000-8000-000000000002"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


@pytest.fixture
def scratch(folder: Path) -> Scratch:
    return Scratch(folder)


def reason_of(scratch: Scratch, job_id: str = JOB, *, organization_id: str = "alpha", first_use: bool = False) -> int:
    with pytest.raises(FolkmootError) as refused:
        scratch.open(job_id, organization_id=organization_id, first_use=first_use)
    return refused.value.reason


def test_runs_of_a_job_share_a_folder_and_other_jobs_do_not(scratch):
    files = scratch.open(JOB, organization_id="alpha", first_use=True)
    (files / "left").write_text("x")
    assert scratch.open(JOB, organization_id="alpha", first_use=False) == files
    assert list(scratch.open(OTHER_JOB, organization_id="alpha", first_use=True).iterdir()) == []


def test_container_s_user_may_write_and_others_of_this_machine_may_not_come_near(scratch, folder):
    files = scratch.open(JOB, organization_id="alpha", first_use=True)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, files.parent, files)] == [0o700, 0o711, 0o1777]


def test_job_id_of_another_organization_opens_nothing(scratch):
    scratch.open(JOB, organization_id="alpha", first_use=True)
    for first_use in (True, False):
        assert reason_of(scratch, organization_id="beta", first_use=first_use) == ErrorReason.ERROR_REASON_NOT_ALLOWED


def test_lost_volume_is_not_replaced_by_an_empty_one(scratch, folder):
    shutil.rmtree(scratch.open(JOB, organization_id="alpha", first_use=True).parent)
    assert reason_of(scratch) == ErrorReason.ERROR_REASON_SCRATCH_LOST
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("owner", [None, "", "[]", "{}", "no JSON"])
def test_volume_without_a_readable_owner_is_lost(scratch, owner):
    volume = scratch.open(JOB, organization_id="alpha", first_use=True).parent
    if owner is None:
        (volume / "owner.json").unlink()
    else:
        (volume / "owner.json").write_text(owner)
    assert reason_of(scratch) == ErrorReason.ERROR_REASON_SCRATCH_LOST


@pytest.mark.parametrize("job_id", ["", ".", "..", "../x", "/etc", JOB + "/..", "A" * 36, "-" * 35 + "/"])
def test_only_job_ids_name_volumes(scratch, folder, job_id):
    assert reason_of(scratch, job_id, first_use=True) == ErrorReason.ERROR_REASON_INVALID_FIELD
    assert list(folder.iterdir()) == []


def test_removed_volume_is_gone_and_removing_may_be_repeated(scratch, folder):
    (scratch.open(JOB, organization_id="alpha", first_use=True) / "left").write_text("x")
    scratch.remove(JOB)
    scratch.remove(JOB)
    assert list(folder.iterdir()) == []


def test_runs_that_come_at_the_same_moment_get_one_volume(scratch, folder):
    with ThreadPoolExecutor(8) as threads:
        opened = set(threads.map(lambda _: scratch.open(JOB, organization_id="alpha", first_use=True), range(32)))
    assert len(opened) == 1
    assert [path.name for path in folder.iterdir()] == [JOB]


def test_half_made_volume_of_a_killed_process_is_cleared_away(folder):
    (folder / ".draft-x" / "files").mkdir(parents=True)
    Scratch(folder)
    assert list(folder.iterdir()) == []
