# SPDX-License-Identifier: Apache-2.0
"""
What the API reference shows: the public names of the package, read from the code without importing Airflow.

``MODULES`` has one page for each module, ``PATHS`` the full path of each name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from airflow_provider_lemlist.get_provider_info import get_provider_info

PACKAGE = "airflow_provider_lemlist"
ROOT = Path(__file__).parents[2]

#: What users import from the modules that Airflow knows.
_FOR_AIRFLOW = re.compile(r"\w+(Operator|Sensor|Trigger|Hook)|activities_in")
#: What users import from other modules.
_OTHERS = {
    "campaigns": re.compile("Campaign"),
    "steps": re.compile(r"(?!Field|Kind|Step)[A-Z]\w+"),
    "templating": re.compile("AirflowText"),
    "exceptions": re.compile(r"Reason|Lemlist\w+"),
    "sandbox": re.compile("Sandbox"),
    "pytest_plugin": re.compile("lemlist.*"),
}


def _modules_for_airflow() -> Iterator[str]:
    info = get_provider_info()
    for kind in ("operators", "sensors", "transfers", "triggers", "hooks"):
        for each in info[kind]:
            yield from each.get("python-modules") or [each["python-module"]]


def _file(module: str) -> Path:
    path = Path(ROOT, *module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _names(module: str, public: re.Pattern[str]) -> list[str]:
    names = []
    for node in ast.parse(_file(module).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names += ast.literal_eval(node.value)
    return [name for name in names if public.fullmatch(name)]


def _modules() -> dict[str, list[str]]:
    public = dict.fromkeys(_modules_for_airflow(), _FOR_AIRFLOW) | {
        f"{PACKAGE}.{module}": names for module, names in _OTHERS.items()
    }
    return {module: _names(module, names) for module, names in public.items()}


#: The public names of each module.
MODULES = _modules()
#: The full path of each public name.
PATHS = {name: f"{module}.{name}" for module, names in MODULES.items() for name in names}
#: The page of each operator, sensor, transfer and trigger that has one; its title is the name.
GUIDES = {
    page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# "): f"operators/{page.name}"
    for page in sorted(ROOT.glob("docs/operators/*.md"))
}


def path_of(code: str) -> str | None:
    """Return the full path of a public name, which may be given with its module; None for anything else."""
    return PATHS.get(code) or (code if code in PATHS.values() else None)


def page_of(module: str) -> str:
    """Return the page of a module in the API reference."""
    return f"reference/{module.removeprefix(f'{PACKAGE}.').replace('.', '/')}.md"
