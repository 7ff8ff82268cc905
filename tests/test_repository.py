"""What holds for the repository as a whole."""

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAGE_PACKAGES = ("ingest_svc", "filter_svc", "scorer_svc", "aggregator_svc", "gateway_svc")
# 300 until issue 4: the gateway now answers for the past as well as for the present.
MAX_CODE_LINES = 450
# Five multipliers and what they are counted from, each shared by replicas and done without while Redis is away.
MAX_FILTER_LINES = 1000
# Three kinds of models, the order in which they stand in for each other, a second one to compare with, the
# vocabulary that models are given, what of their graphs need not be computed, and ranges that make texts independent.
MAX_SCORER_LINES = 1200
# Bus, health, metrics and settings are the host's (ARCHITECTURE: a stage is a pure function with a host around it).
HOST_MODULES = (
    "nats",
    "grpc_health",
    "grpc_reflection",
    "prometheus_client",
    "opentelemetry",
    "pydantic_settings",
    "sentimesh.bus",
    "sentimesh.connections",
    "sentimesh.host",
    "sentimesh.rpc",
    "sentimesh.settings",
    "sentimesh.stack",
    "sentimesh.telemetry",
)
NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(source: str) -> int:
    """Count the lines that hold anything but space, comments and docstrings."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            text = token.string.splitlines()
            lines.update(number for number, line in enumerate(text, token.start[0]) if line.strip())
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(ast.Constant(str())) as docstring, *_]:
                    lines.difference_update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return len(lines)


def normal(name: str) -> str:
    """Return a distribution's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(source: str) -> set[str]:
    """Return the dotted names that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


def test_code_lines_leave_out_space_comments_and_docstrings_only() -> None:
    source = (
        '"""Two\n\nlines."""\n\n# none\nx = 1  # one\ny = [\n    2,\n]\nz = """a\n\nb"""\ndef f():\n    """Doc."""\n'
    )
    assert code_lines(source) == 7


def test_imports_are_found_in_every_form() -> None:
    source = "import nats.aio\nfrom sentimesh import bus\ndef f():\n    from prometheus_client import Counter\n"
    assert {"nats.aio", "sentimesh.bus", "prometheus_client"} <= imported(source)


@pytest.mark.parametrize("package", STAGE_PACKAGES)
def test_a_stage_fits_in_a_few_pages(package: str) -> None:
    counted = {path.name: code_lines(path.read_text()) for path in (ROOT / package).glob("*.py")}
    most = {"filter_svc": MAX_FILTER_LINES, "scorer_svc": MAX_SCORER_LINES}.get(package, MAX_CODE_LINES)
    assert 0 < sum(counted.values()) <= most, counted


@pytest.mark.parametrize("package", STAGE_PACKAGES)
def test_a_stage_knows_nothing_of_its_host(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for name in imported(path.read_text()):
            assert not any(name == host or name.startswith(f"{host}.") for host in HOST_MODULES), f"{path}: {name}"


def test_generated_code_is_what_the_contracts_generate() -> None:
    subprocess.run([sys.executable, ROOT / "tools" / "generate_protos.py", "--check"], check=True)


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-bootstrap.lock"])
def test_a_lock_has_versions_and_hashes_and_no_address(name: str) -> None:
    lock = (ROOT / name).read_text()
    assert "://" not in lock
    requirements = [block for block in re.split(r"\n(?=\S)", lock) if not block.startswith("#")]
    assert requirements
    for requirement in requirements:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[^ ]+", requirement), requirement
        assert "--hash=sha256:" in requirement, requirement


def test_everything_asked_for_is_in_the_lock() -> None:
    locked = {
        normal(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.M)
    }
    asked = {normal(line) for line in (ROOT / "requirements.in").read_text().split()}
    assert asked <= locked


def test_everything_imported_is_a_dependency() -> None:
    """An import that only the lock brings works here and fails in the image."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["embedded"]]
    distributions = packages_distributions()
    for package in ("sentimesh", *STAGE_PACKAGES):
        for path in (ROOT / package).rglob("*.py"):
            for name in {name.partition(".")[0] for name in imported(path.read_text())}:
                if name not in sys.stdlib_module_names and name not in ("sentimesh", *STAGE_PACKAGES):
                    assert {normal(d) for d in distributions[name]} & {normal(w) for w in wanted}, f"{path}: {name}"
