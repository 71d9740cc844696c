"""What pyproject.toml asks for is pinned, and what the package needs at run time is shipped."""

import re
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.deploy.documented import ROOT


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def requirements() -> list[Requirement]:
    loaded = project()["project"]
    extras = [text for group in loaded["optional-dependencies"].values() for text in group]
    every = [Requirement(text) for text in (*loaded["dependencies"], *extras)]
    return [requirement for requirement in every if requirement.name != loaded["name"]]


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_every_requirement_is_pinned_to_a_version_that_it_allows(requirement: Requirement) -> None:
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


def test_torch_is_pinned_so_that_a_cpu_wheel_of_the_version_satisfies_it() -> None:
    """`2.13.0+cpu` satisfies `==2.13.0`; a pin with a local version would exclude every other build."""
    torch = pins()["torch"]
    assert torch.local is None
    assert Version(f"{torch}+cpu") in Requirement(f"torch=={torch}").specifier


def test_the_oldest_python_is_the_one_that_is_linted_and_typed_for() -> None:
    loaded = project()
    assert loaded["project"]["requires-python"] == ">=3.11"
    assert loaded["tool"]["ruff"]["target-version"] == "py311"
    assert loaded["tool"]["mypy"]["python_version"] == "3.11"


def test_the_license_is_apache_2_in_full() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert project()["project"]["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_package_data_patterns_match_what_lies_there() -> None:
    for package, patterns in project()["tool"]["setuptools"]["package-data"].items():
        for pattern in patterns:
            assert any((ROOT / package).glob(pattern)), f"{package}/{pattern} matches nothing"


def test_make_names_every_target_that_ci_runs() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    asked = re.findall(r"^make (\w+)$", (ROOT / ".ci/run").read_text(), flags=re.MULTILINE)
    assert asked == ["lint", "test"]
    assert {*asked, "demo", "clean"} <= targets
