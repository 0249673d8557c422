"""Every small mistake that can be written into a function, one at a time.

`mutants(source, wanted)` yields each change and the namespace of the source with it, run. The
places are all operators, numbers, comparisons, transpositions and sums in the wanted functions;
refusals of bad input (an `if` that raises, calls of `check` and of `refusals`) are left alone: no number
depends on them.
"""

import ast
import copy

SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Lt: ast.LtE,
         ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
         ast.In: ast.NotIn, ast.NotIn: ast.In, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr}


def changes(node):
    """(what, replacement) for each way to get this node wrong."""
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in SWAPS:
        yield "operator swapped", replace(node, op=SWAPS[type(node.op)]())
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult)):
        yield "right side dropped", node.left
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mult)):
        yield "left side dropped", node.right
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        yield "factors exchanged", replace(node, left=node.right, right=node.left)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign dropped", node.operand
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


def mutants(source, wanted, refusals=()):
    """Yield (function, "line: code: change", namespace) for every mutant of the wanted functions."""
    tree = ast.parse(source)
    for index, function in enumerate(tree.body):
        if not isinstance(function, ast.FunctionDef) or not wanted(function.name):
            continue
        for target in range(10 ** 6):
            mutator = Mutator(target, refusals)
            mutated = mutator.visit(copy.deepcopy(function))
            if mutator.found is None:
                break
            body = tree.body[:index] + [mutated] + tree.body[index + 1:]
            module = ast.fix_missing_locations(ast.Module(body, []))
            namespace = {"__name__": "mutant"}
            exec(compile(module, "mutant", "exec"), namespace)
            line, change = mutator.found
            yield function.name, f"{source.splitlines()[line - 1].strip()}: {change}", namespace
