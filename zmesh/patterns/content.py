"""JMESPath expressions from anybody, evaluated within a bound. Imported where jmespath is there.

The language has no loops, but its values share their parts: `[@,@]|[@,@]|...` doubles what
`to_string` writes with every step. So everything costs steps: a node of the expression that is
visited, an item that is copied, and, before a function or a comparison looks into them, all parts
of its arguments.
"""

from collections.abc import Iterator
from typing import Any, Final

from jmespath.functions import Functions
from jmespath.parser import Parser
from jmespath.visitor import TreeInterpreter

DEPTH_MAX: Final = 32
"""Of an expression: evaluation takes a few frames of the stack a level."""

_STEP_CHARACTERS: Final = 32
"""Of a text, that are looked at as fast as a step is taken."""

_FUNCTIONS: Final[frozenset[str]] = frozenset(Functions.FUNCTION_TABLE)

Node = Any
"""A dict with `type`, `value` and `children`."""


class ContentError(Exception):
    """An expression does not parse, or its evaluation failed."""


class Expression:
    """A JMESPath expression over a decoded body."""

    __slots__ = ("_root",)

    def __init__(self, text: str) -> None:
        """Parse the expression; raises ContentError where that fails."""
        try:
            self._root: Node = Parser().parse(text).parsed
        except RecursionError as error:
            raise ContentError("it is nested too deep") from error
        except Exception as error:
            # JMESPathError, and warnings where these are errors.
            raise ContentError(_first_line(error)) from error
        for node, depth in _nodes(self._root):
            if depth > DEPTH_MAX:
                raise ContentError(f"it is nested more than {DEPTH_MAX} deep")
            if node["type"] == "function_expression" and node["value"] not in _FUNCTIONS:
                raise ContentError(f"there is no function {node['value']}()")

    def holds(self, body: object, steps_max: int) -> tuple[bool, int]:
        """Return whether the expression gives a true value of the body, and the steps it took.

        Raises ContentError where it fails, or takes more steps than `steps_max`.
        """
        interpreter = _Frugal(steps_max)
        try:
            return interpreter.holds(self._root, body), steps_max - interpreter.left
        except ContentError:
            raise
        except Exception as error:
            # An expression from anywhere meets a body from anywhere: functions fail in many ways.
            raise ContentError(f"{type(error).__name__}: {_first_line(error)}") from error


class _Frugal(TreeInterpreter):  # type: ignore[misc]  # untyped
    """Evaluates with a bound on its steps."""

    def __init__(self, steps_max: int) -> None:
        super().__init__()
        self.left = steps_max

    def holds(self, root: Node, body: object) -> bool:
        is_true = self._is_true  # pyright: ignore[reportAttributeAccessIssue]
        return bool(is_true(self.visit(root, body)))

    def visit(self, node: Node, *args: Any, **options: Any) -> Any:
        self._spend(1)
        return super().visit(node, *args, **options)

    def visit_comparator(self, node: Node, value: Any) -> Any:
        sides = [self.visit(child, value) for child in node["children"]]
        for side in sides:
            self._spend_on(side)
        literal: Node = {**node, "children": list(map(_literal, sides))}
        return super().visit_comparator(literal, value)

    def visit_function_expression(self, node: Node, value: Any) -> Any:
        arguments = [self.visit(child, value) for child in node["children"]]
        for argument in arguments:
            self._spend_on(argument)
        functions = self._functions  # pyright: ignore[reportAttributeAccessIssue]
        return functions.call_function(node["value"], arguments)

    def visit_flatten(self, node: Node, value: Any) -> Any:
        base = self.visit(node["children"][0], value)
        if isinstance(base, list):
            self._spend(sum(len(item) for item in base if isinstance(item, list)) + len(base))
        literal: Node = {**node, "children": [_literal(base)]}
        return super().visit_flatten(literal, value)

    def visit_slice(self, node: Node, value: Any) -> Any:
        if isinstance(value, list):
            self._spend(len(value))
        return super().visit_slice(node, value)

    def _spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise ContentError("it takes too many steps")

    def _spend_on(self, value: object) -> None:
        """Pay for a value with all its parts, as often as each is looked at."""
        waiting = [value]
        while waiting:
            item = waiting.pop()
            if isinstance(item, str | bytes):
                self._spend(1 + len(item) // _STEP_CHARACTERS)
            elif isinstance(item, list):
                self._spend(1 + len(item))
                waiting += item
            elif isinstance(item, dict):
                self._spend(1 + len(item))
                waiting += item.keys()
                waiting += item.values()


def _literal(value: object) -> Node:
    return {"type": "literal", "value": value, "children": []}


def _nodes(root: Node) -> Iterator[tuple[Node, int]]:
    """Yield every node of an expression with its depth."""
    waiting = [(root, 1)]
    while waiting:
        node, depth = waiting.pop()
        yield node, depth
        # The children of a slice are numbers.
        waiting += [(each, depth + 1) for each in node["children"] if isinstance(each, dict)]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
