"""Scratch volumes: one folder per job, where runs of the job leave files for later ones.

    SCRATCH               0700   nobody else on this machine comes past it
    └── JOB_ID            0711
        ├── owner.json           whose job it is: another organization's task can't open it by using its id
        └── files         1777   what runs see; they have another user id than the node

A volume that was used once and is gone is never replaced by an empty one: SCRATCH_LOST.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import structlog

from folkmoot.transport.durable import sync_folder
from folkmoot.transport.storage import told_if_full
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

_OWNER = "owner.json"
_FILES = "files"
_DRAFT = ".draft-"
_JOB_ID = re.compile(r"[0-9a-f-]{36}")

_log = structlog.get_logger("folkmoot.node.storage.scratch")


class Scratch:
    """The scratch volumes below one folder. Calls touch the disk: make them in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        for draft in folder.glob(f"{_DRAFT}*"):  # of a process that was killed
            shutil.rmtree(draft, ignore_errors=True)

    def open(self, job_id: str, *, organization_id: str, first_use: bool) -> Path:
        """Return the folder for runs of a job, which belongs to the organization that initiated its root task.

        `first_use` says that no earlier run of the job at this node opened it, and allows to make it.
        Errors: SCRATCH_LOST (it should be there), NOT_ALLOWED (it is another organization's), DISK_FULL.
        """
        volume = self._volume(job_id)
        if not volume.exists():
            if not first_use:
                raise _error(ErrorReason.ERROR_REASON_SCRATCH_LOST, f"the scratch volume of job {job_id} is gone")
            with told_if_full():
                self._make(volume, job_id, organization_id)
        if _owner(volume) != (job_id, organization_id):
            raise _error(ErrorReason.ERROR_REASON_NOT_ALLOWED, f"job {job_id} is another organization's")
        return self.files(job_id)

    def files(self, job_id: str) -> Path:
        """Where a job's files lie, if it has a volume."""
        return self._volume(job_id) / _FILES

    def jobs(self) -> list[str]:
        """The jobs that have a volume."""
        return [path.name for path in self._folder.iterdir() if _JOB_ID.fullmatch(path.name)]

    def remove(self, job_id: str) -> None:
        """Remove a job's volume with all that is in it, if it is there."""
        volume = self._volume(job_id)
        # Not shutil's: an algorithm may nest its folders more deeply than that can follow. It follows no links either.
        subprocess.run(["rm", "-rf", "--one-file-system", "--", str(volume)], check=False, capture_output=True)
        if volume.exists():  # folders that a container's user made are that user's; only root may empty them
            _log.error("scratch.not_removed", path=str(volume), help="remove it as root")

    def _volume(self, job_id: str) -> Path:
        if not _JOB_ID.fullmatch(job_id):
            raise _error(ErrorReason.ERROR_REASON_INVALID_FIELD, f"{job_id!r} is no job id")
        return self._folder / job_id

    def _make(self, volume: Path, job_id: str, organization_id: str) -> None:
        """Make a volume that is either whole or not there, also after a power cut."""
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self._folder))
        draft.chmod(0o711)
        files = draft / _FILES
        files.mkdir()
        files.chmod(0o1777)
        with (draft / _OWNER).open("w") as owner:
            json.dump({"job_id": job_id, "organization_id": organization_id}, owner)
            owner.flush()
            os.fsync(owner.fileno())
        sync_folder(draft)
        try:
            draft.rename(volume)
        except OSError:  # another run of the job was faster
            shutil.rmtree(draft, ignore_errors=True)
        sync_folder(self._folder)


def _owner(volume: Path) -> tuple[str, str]:
    try:
        owner = json.loads((volume / _OWNER).read_text())
        return owner["job_id"], owner["organization_id"]
    except (OSError, ValueError, KeyError, TypeError):
        raise _error(
            ErrorReason.ERROR_REASON_SCRATCH_LOST, f"the scratch volume of job {volume.name} is damaged"
        ) from None


def _error(reason: ErrorReason.ValueType, text: str) -> FolkmootError:
    return FolkmootError(reason, text)
