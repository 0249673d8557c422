"""Every small mistake that can be written into a function, one at a time.

`mutants(source, wanted)` yields each change and the namespace of the source with it, run. The
places are all operators, numbers, comparisons, transpositions, sums, `and`, `or` and `not` in the wanted
functions and methods ("Class.method"); refusals of bad input (an `if` that raises, calls of `check` and of
`refusals`) are left alone: no number depends on them.
"""

import ast
import copy

SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Lt: ast.LtE,
         ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
         ast.In: ast.NotIn, ast.NotIn: ast.In, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
         ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And}


def changes(node):
    """(what, replacement) for each way to get this node wrong."""
    if isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in SWAPS:
        yield "operator swapped", replace(node, op=SWAPS[type(node.op)]())
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult)):
        yield "right side dropped", node.left
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mult)):
        yield "left side dropped", node.right
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        yield "factors exchanged", replace(node, left=node.right, right=node.left)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign dropped", node.operand
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not dropped", node.operand
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield "comparison swapped", replace(node, ops=[SWAPS[type(node.ops[0])](), *node.ops[1:]])
    if isinstance(node, ast.Attribute) and node.attr == "T":
        yield "transposition dropped", node.value
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield "one more", replace(node, value=node.value + 1)
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
        yield "overwritten, not added", ast.Assign([node.target], node.value)


def replace(node, **fields):
    """A copy of a node with some fields changed."""
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


class Mutator(ast.NodeTransformer):
    """Walk a function; at visit number `target` make the change, and note what it was."""

    def __init__(self, target, refusals):
        self.target, self.refusals, self.count, self.found = target, refusals, 0, None

    def visit_Call(self, node):
        called = ast.unparse(node.func)
        return node if called in self.refusals or called.startswith("check.") else self.generic_visit(node)

    def visit_If(self, node):
        refuses = len(node.body) == 1 and isinstance(node.body[0], ast.Raise) and not node.orelse
        return node if refuses else self.generic_visit(node)

    def visit_Raise(self, node):
        return node

    def visit_arguments(self, node):
        return node

    def generic_visit(self, node):
        for what, new in changes(node):
            if self.count == self.target:
                self.found = (node.lineno, f"{ast.unparse(node)}: {what}")
                self.count += 1
                return ast.copy_location(new, node)
            self.count += 1
        return super().generic_visit(node)


def mutants(source, wanted, refusals=(), every=1):
    """Yield (function, "line: code: change", namespace) for every mutant of the wanted functions.

    With every = k only each k-th one.
    """
    tree, number = ast.parse(source), 0
    for home, index, name in places(tree):
        for target in range(10 ** 6 if wanted(name) else 0):
            mutator = Mutator(target, refusals)
            function = home.body[index]
            home.body[index] = mutator.visit(copy.deepcopy(function))
            if mutator.found is not None and number % every == 0:
                namespace = {"__name__": "mutant"}
                exec(compile(ast.fix_missing_locations(tree), "mutant", "exec"), namespace)
                line, change = mutator.found
                yield name, f"{source.splitlines()[line - 1].strip()}: {change}", namespace
            home.body[index] = function
            number += mutator.found is not None
            if mutator.found is None:
                break


def places(tree):
    """(what holds it, index, name) of every function, and of every method as "Class.method"."""
    for home, prefix in [(tree, ""), *((node, f"{node.name}.") for node in tree.body
                                       if isinstance(node, ast.ClassDef))]:
        for index, node in enumerate(home.body):
            if isinstance(node, ast.FunctionDef):
                yield home, index, prefix + node.name
