"""The unit that is shipped: systemd finds nothing wrong with it, and it is as confined as a node can be."""

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from folkmoot.server.config import Config
from tests.markdown import REPOSITORY

pytestmark = pytest.mark.needs_systemd

UNIT = REPOSITORY / "deploy/systemd/folkmoot-node.service"
SERVER_UNIT = REPOSITORY / "deploy/systemd/folkmoot-server.service"
BACKUP_UNIT = REPOSITORY / "deploy/systemd/folkmoot-backup.service"
BOTH = pytest.mark.parametrize("unit", [UNIT, SERVER_UNIT, BACKUP_UNIT], ids=lambda unit: unit.stem)


@BOTH
def test_systemd_understands_every_line(unit, tmp_path):
    command = Path(sys.executable).with_name("folkmoot")
    text = unit.read_text().replace("/usr/local/bin/folkmoot", str(command))
    (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / unit.name], capture_output=True, text=True, check=False
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.stem in line]) == (0, [])


def test_a_mistake_in_the_unit_would_be_noticed(tmp_path):
    (tmp_path / UNIT.name).write_text(UNIT.read_text().replace("ProtectSystem=", "ProtectsSystem="))
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / UNIT.name], capture_output=True, text=True, check=False
    )
    assert "ProtectsSystem" in done.stderr


def exposure(unit: Path) -> float:
    """What systemd calls a service's overall exposure: from 0, sealed, to 10."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(re.findall(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)[0])


@BOTH
def test_the_unit_is_confined(unit, tmp_path):
    bare = tmp_path / unit.name
    confining = r"^(Protect|Private|Proc|Restrict|Lock|System|Capability|NoNew|UMask|User|Environment)\w*=.*\n"
    bare.write_text(re.sub(confining, "", unit.read_text(), flags=re.MULTILINE))
    assert exposure(unit) < 2.5 < 9 < exposure(bare)


def test_backup_of_the_timer_is_taken_and_old_ones_go(tmp_path):
    """Its own commands, with folders of ours and a program that does what `backup` does."""
    (tmp_path / "folkmoot").write_text('#!/bin/sh\necho "$*" >> "${0%/*}/called" && mkdir "$5"\n')
    (tmp_path / "folkmoot").chmod(0o755)
    backups = tmp_path / "backups"
    for name, days in (("old", 16), ("new", 13)):
        (backups / name / "data").mkdir(parents=True)
        os.utime(backups / name, (then := time.time() - days * 86400, then))
    text = (
        BACKUP_UNIT.read_text()
        .replace("/usr/local/bin", str(tmp_path))
        .replace("/var/lib/folkmoot-backups", str(backups))
    )
    for line in re.findall(r"^ExecStart(?:Post)?=(.*)$", text, re.MULTILINE):
        command = shlex.split(line.replace("$$", "$").replace("%%", "%"))
        subprocess.run(command, check=True)
    assert (tmp_path / "called").read_text().startswith("server backup --settings /etc/folkmoot/server.toml ")
    assert {path.name[:2] for path in backups.iterdir()} == {"ne", "20"}
    timer = BACKUP_UNIT.with_suffix(".timer")
    done = subprocess.run(
        ["systemd-analyze", "calendar", _setting(timer, "OnCalendar")], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _setting(unit: Path, name: str) -> str:
    [value] = re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)
    return str(value)


def test_the_server_has_time_to_send_everybody_away():
    settings = dict(re.findall(r"^(\w+)=(.*)$", SERVER_UNIT.read_text(), re.MULTILINE))
    assert int(settings["TimeoutStopSec"]) > Config().drain_seconds


def test_what_runs_outlives_a_restart():
    """The unit ends its own process alone: algorithms are the engine's, and their sockets' folders stay."""
    settings = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))
    assert settings["RuntimeDirectoryPreserve"] == "yes"
    assert settings["Restart"] == "always"
    assert settings["ExecReload"] == "/bin/kill -HUP $MAINPID"
