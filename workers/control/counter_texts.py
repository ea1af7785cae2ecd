"""What each counter counts, as the docstrings of the classes that hold them say: the one place where that stands."""

import ast
import inspect

from fanline.engine.counters import Counters


def texts_of(kind: type) -> dict[str, str]:
    """Name of a field with a number -> its docstring, in one line; its name if it has none."""
    module = ast.parse(inspect.getsource(inspect.getmodule(kind) or kind))
    (definition,) = (node for node in module.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    texts: dict[str, str] = {}
    for field, after in zip(definition.body, [*definition.body[1:], None], strict=True):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(field.value, ast.Constant)
        ):
            texts[field.target.id] = _docstring(after) or field.target.id.capitalize() + "."
    return texts


def _docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(str(node.value.value).removeprefix("Gauge: ").split())
    return ""


TEXTS = texts_of(Counters)
