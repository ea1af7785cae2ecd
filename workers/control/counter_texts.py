"""What each counter counts, as `engine/counters.py` says it: its docstrings are the one place where that stands."""

import ast
import inspect

from fanline.engine import counters


def _texts() -> dict[str, str]:
    """Name of a counter -> its docstring, in one line."""
    (definition,) = (node for node in ast.parse(inspect.getsource(counters)).body if isinstance(node, ast.ClassDef))
    texts: dict[str, str] = {}
    for field, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
            assert isinstance(after.value, ast.Constant)
            texts[field.target.id] = " ".join(str(after.value.value).removeprefix("Gauge: ").split())
    return texts


TEXTS = _texts()
