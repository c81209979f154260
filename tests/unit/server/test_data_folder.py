"""The data folder when several processes start on it at once."""

import subprocess
import sys
from pathlib import Path

MAKE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from folkmoot.server import certificates, tokens
from folkmoot.server.operation import data_folder
data = Path(sys.argv[1])
sys.stdin.readline()
with data_folder.making(data):
    made = certificates.load_or_make(data / "tls", names=("hub",), now=datetime.now(UTC))
    key = tokens.load_or_make_key(data / "keys" / "token.pem")
print(made.authority_digest.hex(), key.public_key().public_bytes_raw().hex(), made.chain.hex())
"""


def test_instances_that_start_together_have_the_same_keys(tmp_path: Path):
    command = [sys.executable, "-c", MAKE, str(tmp_path)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=0) for _ in range(4)
    ]
    said = {process.communicate("go\n")[0] for process in started}
    assert len(said) == 1
    assert len(said.pop().split()) == 3
