"""What the code promises about itself: direction of imports, abstract or final, no side effects."""

import ast
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import equinox as eqx

import xpcs_eqx

ROOT = Path(xpcs_eqx.__file__).parent
# Each may import those before it.
LAYERS = (
    "starting",
    "errors",
    "arguments",
    "files",
    "fingerprint",
    "compiled",
    "compiling",
    "inherited",
    "cores",
    "showing",
    "progress",
    "checkpoint",
    "data",
    "physics",
    "scaling",
    "parameters",
    "simulation",
    "objective",
    "optimize",
    "uncertainty",
    "fitting",
    "defences",
    "search",
    "hybrid",
    "bayes",
    "report",
    "config",
    "program",
    "fit",
    "__main__",
)
FILES = sorted(ROOT.rglob("*.py"))


def layer_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imported_layers(path: Path):
    """Layers of this package that a file imports, wherever in the file."""
    package = ("xpcs_eqx", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, node.module) if node.module else base)
            names = [module]
            if module == "xpcs_eqx":
                names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "xpcs_eqx" and len(parts) > 1:
                yield node.lineno, parts[1]


def upward_imports(path: Path):
    """What is wrong with the imports of a file, a sentence each."""
    here, name = layer_of(path), path.relative_to(ROOT)
    if here == "__init__":
        return
    if here not in LAYERS:
        yield f"{name}: say in LAYERS where {here} stands"
        return
    for line, layer in imported_layers(path):
        # Public names of the package itself only the program may use.
        if layer not in LAYERS:
            if here != "fit":
                yield f"{name}:{line} imports the package itself"
        elif LAYERS.index(layer) > LAYERS.index(here):
            yield f"{name}:{line}: {here} imports {layer}, which stands above it"


def test_imports_go_down_only():
    assert len(FILES) > 100
    wrong = [sentence for path in FILES for sentence in upward_imports(path)]
    assert not wrong, "\n".join(wrong)


def private_imports(path: Path):
    """Names with an underscore that a file takes from another package, a sentence each."""
    package = ("xpcs_eqx", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = package[: len(package) - node.level + 1] if node.level else ()
        parts = (*base, *(node.module or "").split("."))
        other = parts[0] == "xpcs_eqx" and parts[1:2] != package[1:2]
        for alias in node.names:
            if other and alias.name.startswith("_"):
                yield f"{path.relative_to(ROOT)}:{node.lineno} takes {alias.name} of {parts[1]}"


def test_no_private_name_crosses_a_package():
    wrong = [sentence for path in FILES for sentence in private_imports(path)]
    assert not wrong, "\n".join(wrong)


def test_files_are_short():
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    long = [f"{path.relative_to(ROOT)}: {n}" for path, n in lines.items() if n > 600]
    assert not long, "\n".join(long)


def modules():
    """All Modules defined in this package."""
    found = set()
    for info in pkgutil.walk_packages(xpcs_eqx.__path__, "xpcs_eqx."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        found |= {
            value
            for value in vars(module).values()
            if inspect.isclass(value)
            and issubclass(value, eqx.Module)
            and value.__module__.startswith("xpcs_eqx.")
        }
    return sorted(found, key=lambda c: c.__qualname__)


def is_abstract(cls) -> bool:
    return inspect.isabstract(cls) or bool(
        getattr(cls, "__abstractvars__", ()) or getattr(cls, "__abstractclassvars__", ())
    )


def test_every_module_is_abstract_or_final():
    everything = modules()
    assert len(everything) > 30
    for cls in everything:
        for base in cls.__mro__[1:]:
            if base in (eqx.Module, object) or not issubclass(base, eqx.Module):
                continue
            assert is_abstract(base), f"{cls.__name__} inherits from the concrete {base.__name__}"
        named = cls.__name__.startswith(("Abstract", "_Abstract"))
        assert is_abstract(cls) == named, f"{cls.__name__}: abstract classes are called Abstract…"


def test_modules_are_documented():
    for cls in modules():
        if not cls.__name__.startswith("_"):
            assert cls.__doc__, f"{cls.__name__} has no docstring"


def test_importing_changes_nothing():
    program = """
import json, sys, time
import jax
before = {k: str(v) for k, v in jax.config.values.items()}
others = set(sys.modules)
start = time.perf_counter()
import xpcs_eqx
took = time.perf_counter() - start
after = {k: str(v) for k, v in jax.config.values.items()}
loaded = {name.split(".")[0] for name in set(sys.modules) - others}
print(json.dumps({"changed": [k for k in after if after[k] != before[k]],
                  "loaded": sorted(loaded), "seconds": took,
                  "backend": bool(jax._src.xla_bridge._backends)}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    report = json.loads(done.stdout)
    print(f"import xpcs_eqx after jax: {report['seconds']:.2f} s")
    assert report["changed"] == []
    heavy = {"h5py", "matplotlib", "pydantic", "scipy", "rich", "tomli_w", "blackjax"}
    assert heavy.isdisjoint(report["loaded"])
    # Nothing was computed: a device is chosen when the user first needs one.
    assert not report["backend"]


def test_import_time():
    def seconds(statement):
        # Of the processor: what else runs on the machine does not count.
        program = f"import time; s = time.process_time(); {statement}; print(time.process_time()-s)"
        return min(
            float(
                subprocess.run(
                    [sys.executable, "-c", program], capture_output=True, text=True, check=True
                ).stdout
            )
            for _ in range(2)
        )

    ours, jax = seconds("import xpcs_eqx"), seconds("import jax")
    print(f"import xpcs_eqx {ours:.2f} s, of which jax {jax:.2f} s")
    # On an idle machine 1.2 s is the goal; what other processes do to both is taken out here.
    assert ours < max(1.2, 4 * jax)


def test_the_public_surface_is_small():
    most = {"xpcs_eqx.bayes": 50, "xpcs_eqx.hybrid": 25}
    for name, limit in most.items():
        package = importlib.import_module(name)
        public = {
            key
            for key, value in vars(package).items()
            if not (key.startswith("_") or inspect.ismodule(value))
        }
        assert len(public) <= limit, f"{name} has {len(public)} public names"
    # The front door lists all of what it has.
    assert len(xpcs_eqx.__all__) == len(set(xpcs_eqx.__all__)) <= 70
    front = {k for k, v in vars(xpcs_eqx).items() if not (k.startswith("_") or inspect.ismodule(v))}
    assert front <= set(xpcs_eqx.__all__)
    assert all(hasattr(xpcs_eqx, name) for name in xpcs_eqx.__all__)
    # And shows what most people need, packages among it; the rest is there for who asks for it.
    assert len(dir(xpcs_eqx)) <= 70
    shown = {name: getattr(xpcs_eqx, name) for name in dir(xpcs_eqx)}
    assert all(isinstance(one, str) or one.__doc__ for one in shown.values())
    assert "load" in xpcs_eqx.__doc__.split("Then")[0]
