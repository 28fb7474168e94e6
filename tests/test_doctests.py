"""The examples in the docstrings give what they say."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import xpcs_eqx

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Finder(doctest.DocTestFinder):
    """One that takes a function for one of the module in which it is written, whatever is around
    it.
    """

    def _from_module(self, module, object):
        return super()._from_module(module, inspect.unwrap(object))


def found() -> dict[str, doctest.DocTest]:
    """Every docstring with examples, by the name of what it documents."""
    finder = Finder(exclude_empty=True)
    names = [m.name for m in pkgutil.walk_packages(xpcs_eqx.__path__, "xpcs_eqx.")]
    modules = [importlib.import_module(n) for n in names if not n.endswith("__main__")]
    tests = [test for module in modules for test in finder.find(module) if test.examples]
    return {test.name.removeprefix("xpcs_eqx."): test for test in tests}


FOUND = found()


def test_there_are_examples():
    assert len(FOUND) >= 15
    assert sum(len(test.examples) for test in FOUND.values()) >= 60


@pytest.mark.parametrize("name", FOUND)
def test_examples_in_docstrings(name):
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    result = runner.run(FOUND[name], out=said.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(said)
