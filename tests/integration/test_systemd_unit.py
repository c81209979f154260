"""The unit that is shipped: systemd finds nothing wrong with it, and it is as confined as a node can be."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from folkmoot.server.config import Config
from tests.markdown import REPOSITORY

pytestmark = pytest.mark.needs_systemd

UNIT = REPOSITORY / "deploy/systemd/folkmoot-node.service"
SERVER_UNIT = REPOSITORY / "deploy/systemd/folkmoot-server.service"
BOTH = pytest.mark.parametrize("unit", [UNIT, SERVER_UNIT], ids=lambda unit: unit.stem)


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


def test_the_server_has_time_to_send_everybody_away():
    settings = dict(re.findall(r"^(\w+)=(.*)$", SERVER_UNIT.read_text(), re.MULTILINE))
    assert int(settings["TimeoutStopSec"]) > Config().drain_seconds


def test_what_runs_outlives_a_restart():
    """The unit ends its own process alone: algorithms are the engine's, and their sockets' folders stay."""
    settings = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))
    assert settings["RuntimeDirectoryPreserve"] == "yes"
    assert settings["Restart"] == "always"
    assert settings["ExecReload"] == "/bin/kill -HUP $MAINPID"
