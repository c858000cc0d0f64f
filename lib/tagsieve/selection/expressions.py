"""Arithmetic over scores, as a recipe writes it: read and checked without an engine."""

from __future__ import annotations

import ast
import re

FUNCTIONS = {"abs": 1, "exp": 1, "log": 1, "sqrt": 1, "min": 2, "max": 2, "zscore": 1, "rank": 1}
"""Functions that an expression may call, with the arguments that they need at least."""

OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)

_ONE_ARGUMENT = 1


def parse(expression: str) -> ast.expr:
    """The tree of an expression of names, numbers, + - * / **, and `FUNCTIONS`.

    Raises ValueError that says what is not understood.
    """
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"not arithmetic: {error.msg} at character {error.offset}") from error
    _check(tree)
    return tree


def names_in(expression: str) -> frozenset[str]:
    """The scorers that an expression names. Raises ValueError as `parse` does."""
    tree = parse(expression)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return frozenset(
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called
    )


def words_in(condition: str) -> frozenset[str]:
    """The names in an SQL condition: of columns, functions, and whatever else is no literal."""
    bare = re.sub(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", " ", condition)
    return frozenset(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", bare))


def _check(node: ast.expr) -> None:
    match node:
        case ast.BinOp(left, operator, right) if isinstance(operator, OPERATORS):
            parts = [left, right]
        case ast.UnaryOp(ast.USub() | ast.UAdd(), operand):
            parts = [operand]
        case ast.Constant(value) if isinstance(value, int | float) and value is not True:
            parts = []
        case ast.Name():
            parts = []
        case ast.Call(ast.Name(name), parts, []) if name in FUNCTIONS:
            least = FUNCTIONS[name]
            if len(parts) < least or (least == _ONE_ARGUMENT and len(parts) > least):
                raise ValueError(f"{name} takes {least} argument(s){' or more' * (least > 1)}")
        case _:
            known = ", ".join(FUNCTIONS)
            raise ValueError(
                f"{ast.unparse(node)!r} is not understood; known: names of scorers, numbers, "
                f"+ - * / **, {known}"
            )
    for part in parts:
        _check(part)
