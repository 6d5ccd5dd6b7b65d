"""The public names of the package: complete, lazy and importable."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import durian_jax


def test_importing_the_package_imports_no_jax():
    code = ("import sys, durian_jax; assert 'Animator' in dir(durian_jax); durian_jax.InputError; "
            "assert not {'jax', 'numpy', 'torch', 'click'} & set(sys.modules), sys.modules.keys()")
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", durian_jax.__all__)
def test_every_listed_name_resolves(name):
    value = getattr(durian_jax, name)
    assert name == "__version__" or value.__name__ == name
    assert name in dir(durian_jax)


def test_names_are_listed_once_and_known_to_type_checkers():
    assert sorted(durian_jax.__all__) == sorted({*durian_jax._MODULES, "__version__"})
    assert len(set(durian_jax.__all__)) == len(durian_jax.__all__)
    tree = ast.parse(Path(durian_jax.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = {alias.name: node.module for node in block.body for alias in node.names}
    assert imports == {name: f"durian_jax.{module}" for name, module in durian_jax._MODULES.items()}


def test_unknown_names_raise():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        durian_jax.nothing  # noqa: B018
    with pytest.raises(ImportError):
        from durian_jax import nothing  # noqa: F401


def test_imports_inside_functions_name_modules_that_exist():
    package = Path(durian_jax.__file__).parent
    modules = {".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
               for path in package.rglob("*.py")}
    missing = [f"{path.relative_to(package)}, line {node.lineno}: {node.module}"
               for path in package.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))
               if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("durian_jax")
               and node.module not in modules]
    assert not missing
