"""Imports modules that were written for Python 2 under Python 3: as much of the difference as the WebSocket suite has.

Python 2's strings were bytes. Here they are text whose characters are all below 256: '\\xce', slices, '%' and join then do
what they did. Who hands such a string to a library encodes it with `octets`, who gets bytes from one decodes them with
`text`.

    with_package("autobahntestsuite", folder, {"binascii": "module_of_ours"})
    from autobahntestsuite import fuzzing

The sources stay as they are: what is rewritten is rewritten on its way into the compiler.
"""
import ast
import builtins
import importlib.machinery
import os
import re
import sys
import types

# What Python 3 can't even parse.
PRINT = re.compile(r"^(\s*)print(?!\s*\()(?:[ \t]+(.*\S))?[ \t]*$", re.MULTILINE)
EXCEPT = re.compile(r"^(\s*except [\w.]+), (\w+):", re.MULTILINE)
OCTAL = re.compile(r"^(\w+ = )0([0-7]+)$", re.MULTILINE)


def octets(string):
    return string.encode("latin-1") if isinstance(string, str) else string


def text(string):
    return string.decode("latin-1") if isinstance(string, (bytes, bytearray)) else string


class Rewrite(ast.NodeTransformer):
    """Python 2's meaning, where Python 3 parses the same words and means something else."""

    def __init__(self, folder, replaced):
        self.folder = folder
        self.replaced = replaced

    def is_sibling(self, name):
        path = os.path.join(self.folder, name)
        return os.path.exists(path + ".py") or os.path.isdir(path)

    def visit_Import(self, node):
        for alias in node.names:
            if new := self.replaced.get(alias.name):
                alias.asname = alias.asname or alias.name
                alias.name = new
        return node

    def visit_ImportFrom(self, node):
        if new := self.replaced.get(node.module):
            node.module = new
        elif node.level == 0 and self.is_sibling(node.module):
            node.level = 1
        return node

    def visit_BinOp(self, node):
        self.generic_visit(node)
        if isinstance(node.op, ast.Div):
            node.op = ast.FloorDiv()  # of integers: the suite divides no others
        return node

    def visit_Call(self, node):
        """x.has_key(y), and type(name, (object, Base), …), an order of bases that Python 3 refuses."""
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "has_key":
            return ast.copy_location(ast.Compare(node.args[0], [ast.In()], [node.func.value]), node)
        if isinstance(node.func, ast.Name) and node.func.id == "type" and len(node.args) == 3:
            bases = node.args[1]
            bases.elts = [base for base in bases.elts if not (isinstance(base, ast.Name) and base.id == "object")]
        return node


class Loader(importlib.machinery.SourceFileLoader):
    replaced = {}

    def get_code(self, fullname):
        return self.source_to_code(self.get_data(self.path), self.path)  # never from a cache: the rewriting may change

    def source_to_code(self, data, path, *, _optimize=-1):
        source = data.decode("latin-1").replace("\r\n", "\n")  # a literal is the bytes that stand in the file
        source = PRINT.sub(r"\1print(\2)", source)
        source = OCTAL.sub(r"\g<1>0o\2", EXCEPT.sub(r"\1 as \2:", source))
        tree = Rewrite(os.path.dirname(path), self.replaced).visit(ast.parse(source, path))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True, optimize=_optimize)


def with_package(name, folder, replaced):
    """Makes the modules of `folder` importable as those of package `name`, whose own __init__ is left out. `replaced` says
    which modules they get in place of others."""
    loader = type("Loader", (Loader,), {"replaced": replaced})
    package = types.ModuleType(name)
    package.__path__ = [folder]
    sys.modules[name] = package
    hook = importlib.machinery.FileFinder.path_hook((loader, [".py"]))
    sys.path_hooks.insert(0, lambda path: hook(path) if path.startswith(folder) else _not_ours(path))
    sys.path_importer_cache.clear()
    for old, new in (("xrange", range), ("unichr", chr)):
        setattr(builtins, old, new)
    return package


def _not_ours(path):
    raise ImportError(path)
