"""Is the top-level `protocol` ours? The name is common, and a foreign one earlier on the path would break at random."""

from pathlib import Path

import protocol


def check_protocol_package() -> None:
    """Raise ImportError naming the foreign file, unless `protocol` lies beside this package."""
    home = Path(__file__).resolve().parent.parent
    found = Path(next(iter(protocol.__path__), "")) if hasattr(protocol, "__path__") else Path(protocol.__file__ or "")
    if found.resolve() != home / "protocol":
        raise ImportError(
            f"another top-level module named `protocol` hides Fanline's: {found}. "
            f"Rename it, or take its directory off the import path (python -P, or PYTHONPATH)"
        )
