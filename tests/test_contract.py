"""What every public object promises, whoever adds it: see the table in `contract.py`."""

import copy
import dataclasses
import enum
import inspect
import pickle
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import (
    CONSTANTS,
    EXCEPTIONS,
    is_abstract,
    public_names,
    small_data,
    squares,
)
from contract_defences import MODULES, RECORDS
from helpers import DOUBLE, SINGLE, assert_close

from xpcs_eqx.compiling import quick_jit
from xpcs_eqx.data import TwoTimeData

PUBLIC = public_names()
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}
FUNCTIONS = {
    name: value
    for name, value in PUBLIC.items()
    if callable(value) and name not in CLASSES and name not in CONSTANTS
}
modules = pytest.mark.parametrize("cls", MODULES, ids=lambda cls: cls.__name__)
records = pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)


def same(a, b) -> bool:
    """Equal in type, structure, static fields and arrays, NaN being equal to NaN."""
    if type(a) is not type(b):
        return False
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray | jax.Array):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return a == b or (a != a and b != b)


def scaled(tree, factor):
    """The same object with other numbers in its floating-point arrays."""

    def other(leaf):
        # By NumPy: an eager operation of JAX is a compilation.
        if not eqx.is_inexact_array(leaf):
            return leaf
        return jnp.asarray(np.asarray(leaf) * np.asarray(factor, leaf.dtype))

    return jax.tree.map(other, tree)


def host_squares(tree) -> float:
    """Sum of squares of all finite floating-point entries."""
    return sum(float(np.sum(np.where(np.isfinite(x), x, 0.0) ** 2)) for x in leaves_of(tree))


def leaves_of(tree) -> list[np.ndarray]:
    return [np.asarray(leaf, float) for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]


# --- nothing is forgotten ------------------------------------------------------------------------


def test_every_public_name_goes_through_a_contract():
    for name, value in PUBLIC.items():
        if name in CONSTANTS or name in FUNCTIONS or name in EXCEPTIONS:
            continue
        assert inspect.isclass(value), f"{name}: list it in CONSTANTS of tests/contract.py"
        if issubclass(value, Exception) or is_abstract(value):
            continue
        table = MODULES if issubclass(value, eqx.Module) else RECORDS
        assert value in table, f"{name}: put an instance into the tables of tests/contract.py"
    assert set(CONSTANTS) <= set(PUBLIC), "a constant of tests/contract.py is public no more"
    others = {cls.__module__ for cls in set(MODULES) | set(RECORDS)} - {"builtins"}
    assert all(name.startswith("xpcs_eqx.") for name in others), "a class of another package"


# --- objects -------------------------------------------------------------------------------------


@modules
def test_pickles_copies_and_prints(cls):
    case = MODULES[cls]
    one = case.make()
    assert type(one) is cls
    assert same(pickle.loads(pickle.dumps(one)), one)
    assert same(copy.copy(one), one)
    assert same(copy.deepcopy(one), one)
    leaves, structure = jax.tree.flatten(one)
    assert same(jax.tree.unflatten(structure, leaves), one)
    for text in (repr(one), str(one)):
        assert cls.__name__ in text
        assert len(text) < case.text
        assert "object at 0x" not in text


@modules
def test_is_immutable_and_hashable_where_static(cls):
    one = MODULES[cls].make()
    names = [field.name for field in dataclasses.fields(one)]
    for name in names[:1] or ["anything"]:
        with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
            setattr(one, name, getattr(one, name, None))
    # Numbers of NumPy are data to a compiled function and can be hashed all the same.
    arrays = [leaf for leaf in jax.tree.leaves(one) if eqx.is_array(leaf)]
    if not all(isinstance(leaf, np.generic) for leaf in arrays):
        with pytest.raises(TypeError, match="unhashable"):
            hash(one)
        return
    again = MODULES[cls].make()
    assert again == one
    assert {one: 1}[again] == 1

    @jax.jit
    def number():
        return jnp.ones(())

    static = jax.jit(lambda module, x: number() * x, static_argnums=0)
    assert static(one, 2.0) == static(again, 2.0) == 2.0
    assert static._cache_size() == 1


@modules
def test_goes_through_transformations(cls):
    case = MODULES[cls]
    one = case.make()
    use = case.use or squares
    traces = []

    @quick_jit
    def compiled(module):
        traces.append(str(module))
        return use(module)

    value = compiled(one)
    other = scaled(one, 1.001)
    assert_close(compiled(one), value, 0.0 + np.finfo(float).eps)
    values = np.stack([value, compiled(other)])
    assert len(traces) == 1, "compiled anew although only values changed"
    if not any(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(one)):
        return
    # A batch of objects is an object with stacked leaves.
    batch = jax.tree.map(
        lambda a, b: jnp.asarray(np.stack([a, b])) if eqx.is_array(a) else a, one, other
    )
    # Objects of single precision have differences of single precision.
    single = any(leaf.dtype == np.float32 for leaf in jax.tree.leaves(one) if eqx.is_array(leaf))
    tolerance, h = (SINGLE, 1e-2) if single else (DOUBLE, 1e-5)

    @quick_jit
    def transformed(batch, module):
        total = eqx.filter_grad(lambda module: jnp.sum(use(module)))
        return eqx.filter_vmap(use)(batch), total(module)

    mapped, gradient = transformed(batch, one)
    assert_close(mapped, values, tolerance.same)
    # The derivative along the scaling of all numbers, against differences of values.
    parts = zip(leaves_of(gradient), leaves_of(one), strict=True)
    along = sum(float(np.sum(g * np.where(np.isfinite(x), x, 0.0))) for g, x in parts)
    up, down = (float(np.sum(compiled(scaled(one, 1 + s * h)))) for s in (1, -1))
    assert_close(along, (up - down) / (2 * h), tolerance.difference, max(abs(along), 1e-9))


def test_pickles_are_read_by_another_process(tmp_path):
    chosen = {cls.__name__: case.make() for cls, case in MODULES.items()}
    wanted = {name: host_squares(one) for name, one in chosen.items()}
    path = tmp_path / "objects.pickle"
    path.write_bytes(pickle.dumps((chosen, wanted)))
    program = f"""
import pickle, sys
import jax
jax.config.update("jax_enable_x64", True)
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_contract import host_squares
with open({str(path)!r}, "rb") as stream:
    objects, wanted = pickle.load(stream)
for name, one in objects.items():
    found = host_squares(one)
    print(name, abs(found - wanted[name]) <= 1e-9 * abs(wanted[name]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    answers = dict(line.split() for line in done.stdout.splitlines())
    assert answers == dict.fromkeys(chosen, "True")


def test_text_does_not_grow_with_the_data():
    small = small_data()
    n = 600
    c2 = np.broadcast_to(np.float32(1.1), (3, n, n))
    large = TwoTimeData(c2, np.arange(float(n)), small.geometry, None, np.ones((3, n)))
    assert c2.size > 1e6
    assert len(repr(large)) < len(repr(small)) + 100


@records
def test_records_pickle_copy_and_print(cls):
    one = RECORDS[cls]()
    assert isinstance(one, cls)
    for back in (pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one)):
        assert same(back, one)
    assert 0 < len(repr(one)) < 4000
    # The first parameter of an enumeration is named differently from one Python to the next.
    name = "value" if issubclass(cls, enum.Enum) else next(iter(inspect.signature(cls).parameters))
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, ValueError)):
        setattr(one, name, None)


def test_exceptions_pickle_and_are_caught_together():
    exceptions = {name: cls for name, cls in CLASSES.items() if issubclass(cls, Exception)}
    assert len(exceptions) > 3
    for name, cls in exceptions.items():
        error = cls("what was found")
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is type(error), name
        assert str(back) == "what was found", name
        base = "XPCSWarning" if issubclass(cls, Warning) else "XPCSError"
        assert isinstance(error, PUBLIC[base]), name


# --- documentation and types ---------------------------------------------------------------------


def undocumented(name: str, cls: type):
    """What a class does not say of itself, a sentence each."""
    # A dataclass or a named tuple without a docstring gets its signature as one.
    if not inspect.getdoc(cls) or (cls.__doc__ or "").startswith(f"{cls.__name__}("):
        yield f"{name} has no docstring"
    for method, function in vars(cls).items():
        if method.startswith("_") or not inspect.isfunction(function):
            continue
        inherited = any(method in vars(base) for base in cls.__mro__[1:])
        if not inherited and not inspect.getdoc(function):
            yield f"{name}.{method} has no docstring"


def test_classes_are_documented():
    assert len(CLASSES) > 250
    missing = [sentence for name, cls in CLASSES.items() for sentence in undocumented(name, cls)]
    assert not missing, "\n".join(missing)


def unsaid(name: str, function):
    """What a function does not say of itself, a sentence each."""
    text = inspect.getdoc(function)
    if not text:
        yield f"{name} has no docstring"
        return
    plain = inspect.unwrap(getattr(function, "function", getattr(function, "fun", function)))
    signature = inspect.signature(plain)
    for parameter in signature.parameters.values():
        if parameter.annotation is parameter.empty:
            yield f"{name}({parameter.name}) has no type"
    if signature.return_annotation is signature.empty:
        yield f"{name} has no return type"
    raises = re.search(r"^\s+raise \w+(Error|\()", inspect.getsource(plain), re.MULTILINE)
    if raises and "Raises" not in text and not re.search(r"rrors? as in|as in `", text):
        yield f"{name} raises and does not say so"


def test_functions_are_documented_and_typed():
    assert len(FUNCTIONS) > 150
    missing = [sentence for name, value in FUNCTIONS.items() for sentence in unsaid(name, value)]
    assert not missing, "\n".join(missing)
