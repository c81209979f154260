"""Libraries that only some settings need: what is missing is said at the start, and not when somebody waits for it."""

import importlib.util

from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2


def require(*names: str, setting: str, extra: str) -> None:
    """Raise INVALID_FIELD, with the setting, unless these libraries are installed. None is loaded."""
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        text = f"{setting} needs {' and '.join(missing)}, not installed here: pip install 'folkmoot[{extra}]'"
        raise FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text, violations=((setting, text),))
