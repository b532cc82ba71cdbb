"""The project's own rules, as far as a program can check them (see CONTRIBUTING.md).

Reads source as text and syntax trees; imports none of it. The layers are import-linter's,
style is ruff's; what is here is what neither can say.
"""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "lunport"
TESTS = ROOT / "tests"

MAX_LINES = {SOURCE: 600, TESTS: 800}
MAX_LINE_LENGTH = 100
VAGUE_NAMES = {"utils", "util", "common", "helpers", "base", "manager", "misc"}

# Where a secret is turned into text, and why just there.
REVEALS = {
    "api/auth.py": "a token from the configuration is hashed as the listener starts",
    "bootstrap/demo/watched.py": "the demo looks for the secret in every process table entry",
    "cli/token.py": "the token that was made is shown, once",
    "client/block_storage.py": "the token goes into the request header",
    "core/chap_exchange.py": "the CHAP response is a digest over the secret (RFC 1994)",
    "core/connection_info.py": "the codec writes the credentials that the host logs in with",
    "core/chap.py": "the journal keeps credentials for further paths, in a file of root's",
    "core/host_connection.py": "the journal keeps a node record of others, to put it back",
    "core/node_record.py": "the record is what open-iscsi reads the credentials from",
    "hypervisor/guests.py": "libvirt's store takes the secret, and shows it to QEMU alone",
    "store/tables.py": "the column type writes the secret into the database",
    "targets/tgt_accounts.py": "tgt's accounts are compared by a digest over name and secret",
}
REVEALING_FOLDERS = ("host/",)

# Where processes are made, and why there.
PROCESSES = {
    "host/runner.py": "starts programs; the only place",
    "host/isolation.py": "forks a task of ours into namespaces of its own; starts no program",
}

# Where everything may be caught: the top of a thread, the top of a request, the undo collector.
CATCH_ALLS = 4  # two of them are tops of threads that run for the service's whole life
TOPS_OF_A_PROCESS = {"host/isolation.py"}  # a forked child: nothing above it may go on twice

WIRE_KEYS = re.compile(r"target_(?:alternative_)?(?:portal|iqn|lun)s?|target_transports")
WIRE_CODEC = "core/connection_info.py"


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """Parse a file once."""
    return ast.parse(path.read_text(), str(path))


def python_files(*folders: Path) -> list[Path]:
    """List the Python files below."""
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def name_of(path: Path) -> str:
    """Name a file as the lists above do: below the package, or below the root."""
    return str(path.relative_to(SOURCE if path.is_relative_to(SOURCE) else ROOT))


def nodes(*folders: Path) -> Iterator[tuple[Path, ast.AST]]:
    """Walk every syntax node of every file below."""
    for path in python_files(*folders):
        for node in ast.walk(tree_of(path)):
            yield path, node


def at(path: Path, node: ast.AST) -> str:
    """Say where a node is."""
    return f"{name_of(path)}:{getattr(node, 'lineno', 1)}"


def is_call_of(node: ast.AST, module: str, function: str) -> bool:
    """Tell whether a node calls ``module.function``."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == function
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == module
    )


def imports_of(node: ast.AST) -> list[str]:
    """List what an import statement names, with dots."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def test_no_file_grows_over_its_ceiling() -> None:
    """Source files have at most 600 lines, tests 800, and no line of source over 100 signs."""
    too_long = [
        f"{name_of(path)}: {count} lines"
        for folder, ceiling in MAX_LINES.items()
        for path in python_files(folder)
        if (count := len(path.read_text().splitlines())) > ceiling
    ]
    too_wide = [
        f"{name_of(path)}:{number}"
        for path in python_files(SOURCE)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > MAX_LINE_LENGTH
    ]
    assert too_long + too_wide == []


def test_modules_say_what_they_are() -> None:
    """Every module that holds anything begins with a docstring, and none has a vague name."""
    silent = [
        name_of(path)
        for path in python_files(SOURCE, TESTS)
        if tree_of(path).body and not ast.get_docstring(tree_of(path))
    ]
    vague = [name_of(path) for path in python_files(SOURCE, TESTS) if path.stem in VAGUE_NAMES]
    vague += [
        name_of(path) for path in SOURCE.rglob("*") if path.is_dir() and path.name in VAGUE_NAMES
    ]
    assert silent + vague == []


def test_every_test_says_what_it_proves() -> None:
    """Each test function has a docstring: the sentence that it proves."""
    silent = [
        at(path, node)
        for path, node in nodes(TESTS)
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_test_files_have_names_of_their_own() -> None:
    """No two test files share a name, so that a report names exactly one."""
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_secrets_are_revealed_only_where_they_are_written() -> None:
    """``.reveal()`` is called below ``host/`` and in the listed places, all of which still do."""
    calls = {
        name_of(path)
        for path, node in nodes(SOURCE)
        if isinstance(node, ast.Attribute) and node.attr == "reveal"
    }
    elsewhere = {name for name in calls if not name.startswith(REVEALING_FOLDERS)}
    assert sorted(elsewhere - REVEALS.keys()) == []
    assert sorted(REVEALS.keys() - elsewhere) == [], "no longer needed in the list"


def names_a_bad_value(node: ast.AST) -> Iterator[ast.AST]:
    """Give what an error such as ``InvalidConnectionInfo("target_lun", ...)`` is made of."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return
    if node.func.id.startswith("Invalid"):
        yield from node.args


def test_wire_keys_occur_only_in_the_codec() -> None:
    """The keys of a connection info are written in one file; elsewhere only errors name them."""
    in_errors = {id(named) for _, node in nodes(SOURCE) for named in names_a_bad_value(node)}
    elsewhere = [
        at(path, node)
        for path, node in nodes(SOURCE)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and WIRE_KEYS.fullmatch(node.value)
        and name_of(path) != WIRE_CODEC
        and id(node) not in in_errors
    ]
    assert elsewhere == []


def test_programs_are_started_in_one_place() -> None:
    """Only ``host/runner.py`` starts programs; who forks beside it is listed with a reason."""
    elsewhere = [
        at(path, node)
        for path, node in nodes(SOURCE)
        if name_of(path) not in PROCESSES
        and (
            any(
                name.split(".")[0] in {"subprocess", "multiprocessing"} for name in imports_of(node)
            )
            or any(
                is_call_of(node, "os", function)
                for function in ("system", "popen", "fork", "execv", "execve", "posix_spawn")
            )
        )
    ]
    assert elsewhere == []


def test_every_wait_ends() -> None:
    """Nothing sleeps for a guessed time and nothing loops without an end, tests included."""
    endless = [
        at(path, node)
        for path, node in nodes(SOURCE, TESTS)
        if is_call_of(node, "time", "sleep")
        or "time.sleep" in imports_of(node)
        or (isinstance(node, ast.While) and isinstance(node.test, ast.Constant))
    ]
    assert endless == []


def test_almost_nothing_catches_everything() -> None:
    """At most three places catch ``Exception``; who catches more than that raises it again."""
    catch_alls = []
    swallowed = []
    for path, node in nodes(SOURCE):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = {name.id for name in ast.walk(node.type or node) if isinstance(name, ast.Name)}
        if node.type is None or "BaseException" in caught:
            goes_on_up = any(isinstance(step, ast.Raise) and not step.exc for step in node.body)
            if not goes_on_up and name_of(path) not in TOPS_OF_A_PROCESS:
                swallowed.append(at(path, node))
        elif "Exception" in caught and name_of(path) not in TOPS_OF_A_PROCESS:
            catch_alls.append(at(path, node))
    assert swallowed == []
    assert len(catch_alls) <= CATCH_ALLS, catch_alls


def test_tests_neither_patch_nor_hide() -> None:
    """No test patches names or skips itself: needs are declared, fakes are handed in."""
    offenders = [
        at(path, node)
        for path, node in nodes(TESTS)
        if any(name.startswith("unittest.mock") or name == "mock" for name in imports_of(node))
        or (
            (is_call_of(node, "pytest", "skip") or is_call_of(node, "pytest", "importorskip"))
            and path != TESTS / "conftest.py"
        )
    ]
    assert offenders == []


def test_requirements_name_no_index_and_every_file() -> None:
    """The locks pin each package by version and hash, and say nothing of where it comes from."""
    for path in sorted((ROOT / "requirements").iterdir()):
        text = path.read_text()
        assert not re.search(r"://|--(?:extra-)?index|--find-links|--trusted-host", text), path
        if path.suffix != ".lock":
            continue
        pins = re.split(r"\n(?=[a-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
        unpinned = [
            pin.split()[0]
            for pin in pins
            if not re.fullmatch(
                r"[a-z0-9-]+==\S+(?: \\\n    --hash=sha256:[0-9a-f]{64})+", pin.strip()
            )
        ]
        assert unpinned == [], path


def test_the_development_lock_contains_the_runtime_lock() -> None:
    """What is tested is what is shipped: every runtime pin is a development pin, unchanged."""
    locks = ROOT / "requirements"
    pin = re.compile(r"^[a-z0-9-]+==\S+", re.MULTILINE)
    shipped = set(pin.findall((locks / "runtime.lock").read_text()))
    tested = set(pin.findall((locks / "dev.lock").read_text()))
    assert shipped
    assert shipped - tested == set()
