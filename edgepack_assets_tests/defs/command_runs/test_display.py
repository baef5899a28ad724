"""What a command shows of its runs: bars on a terminal, plain lines elsewhere. A real terminal, and real runs in it."""

import os
import pty
import re
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import dagster as dg
import pytest

from edgepack_assets.defs.command_runs.display import RunState, run_display
from edgepack_assets.partitions import PARTITIONS_NAME, ModelKey
from edgepack_assets.sandbox.child_output import newest_line

pytestmark = pytest.mark.long
MODELS = dg.DynamicPartitionsDefinition(name=PARTITIONS_NAME)
KEYS = ("press:1", "press:2")
PROGRESS = "10 of 40 records (25%), 2.0 a second, 15 s left"
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[(?:3[0-7]|9[0-7]|38;)[0-9;]*m")


@dg.asset(partitions_def=MODELS)
def config_package(context: dg.AssetExecutionContext) -> None:
    """Says how far it is, as a job in the sandbox does, with what would move the cursor."""
    context.log.info(f"payload_data of press:1: warming up\n| \x1b[2J[red]{PROGRESS}\n| nothing of interest")
    go = Path(context.instance.root_directory) / "go"
    deadline = time.monotonic() + 60
    while not go.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


@dg.asset(partitions_def=MODELS, deps=[config_package])
def deployment_package(context: dg.AssetExecutionContext) -> None:
    """Fails for version 2."""
    if context.partition_key == "press:2":
        raise dg.Failure("it holds no model file", allow_retries=False)


def load(console: dg.LoggerDefinition) -> dg.Definitions:
    """Definitions with the job's name and two of its assets."""
    job = dg.define_asset_job("package_model", selection="*", partitions_def=MODELS)
    return dg.Definitions(assets=[config_package, deployment_package], jobs=[job], loggers={"console": console})


COMMAND = """
import sys
from pathlib import Path
from edgepack_assets.defs.command_runs import runs
from edgepack_assets.defs.command_runs.display import run_display
from edgepack_assets.partitions import ModelKey
from edgepack_assets_tests.defs.command_runs.test_display import load
runs.PATIENCE = 0.5
requests = [
    runs.PackageRequest(ModelKey("press", n), ("config_package", "deployment_package")) for n in (1, 2)
]
with run_display(sys.stdout) as display:
    runs.run_requests(requests, load, Path(sys.argv[1]), display)
print("the table")
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        instance.add_dynamic_partitions(PARTITIONS_NAME, ["press:1", "press:2"])
    return tmp_path


def written_to(ours: int, theirs: int, home: Path, environment: dict[str, str]) -> str:
    """What the command writes. Its assets go on when it has shown how far both are."""
    cleared = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(home)],
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.STDOUT,
        env={**cleared, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40", **environment},
    ) as command:  # fmt: skip
        os.close(theirs)
        written = b""
        while chunk := _read(ours):
            written += chunk
            # Not past the end of a line: the next picture of the bars begins behind it with the first one.
            if all(re.search(rf"{key}\b[^\r\n]*{re.escape(PROGRESS[:12])}".encode(), written) for key in KEYS):
                (home / "go").touch()
        assert command.wait() == 0, written.decode()
    os.close(ours)
    return written.decode().replace("\r\n", "\n")


def _read(number: int) -> bytes:
    try:
        return os.read(number, 65536)
    except OSError:  # what a terminal whose other end is closed gives
        return b""


def test_a_terminal_shows_a_bar_for_each_partition(home: Path) -> None:
    written = written_to(*pty.openpty(), home, {})
    assert COLOUR.search(written)
    assert "\x1b[2J" not in written
    text = ESCAPE.sub("", written)
    for key in KEYS:
        assert re.search(rf"{key} \S+ 0/2 0:00:\d\d config_package: .*{re.escape(PROGRESS[:12])}", text), text
    assert re.search(r"press:1 \S+ 2/2 ", text)
    assert re.search(r"press:2 \S+ 1/2 0:00:\d\d failed", text)
    assert re.search(r"press:2 +deployment_package +failed\n", text)
    assert "so far" not in text
    assert not re.search(r"press:2 \S+ 2/2 ", text)
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
    assert text.endswith("the table\n")


class Terminal(StringIO):
    """A terminal in this process."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("is_asked", [False, True])
def test_without_colours_on_request(is_asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if is_asked:
        monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    with run_display(terminal) as display:
        assert display.states is not None
        display.states([RunState(ModelKey("press", 1), 2, 2, None, "", True)])
    assert "2/2" in terminal.getvalue()
    assert bool(COLOUR.search(terminal.getvalue())) != is_asked


@pytest.mark.parametrize("columns", [40, 80])
def test_a_narrow_terminal_shows_how_far_and_how_long(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COLUMNS": str(columns), "LINES": "24", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    with run_display(terminal) as display:
        assert display.states is not None
        for done in range(7):
            step = None if done == 6 else "validation_results"
            keys = ("state_identifier:3", "image_classification:12")
            display.states([RunState(ModelKey.parse(key), done, 6, step, PROGRESS, done == 6) for key in keys])
    lines = [line for line in re.split("[\r\n]+", ESCAPE.sub("", terminal.getvalue())) if line.strip()]
    assert max(map(len, lines)) <= columns
    for key in ("state_identifier:3", "image_classification:12"):
        assert re.search(rf"^{key} +\S+ 3/6 0:00:\d\d ", "\n".join(lines), re.MULTILINE), lines
    assert (f"validation_results: {PROGRESS[:8]}" in terminal.getvalue()) == (columns == 80)


@pytest.mark.parametrize("kind", ["dumb", "unknown", "", None])
def test_a_dumb_terminal_gets_lines(kind: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", kind) if kind is not None else monkeypatch.delenv("TERM", raising=False)
    terminal = Terminal()
    with run_display(terminal) as display:
        assert display.states is None
        display.line("press:1 config_package 3 s")
    assert terminal.getvalue() == "press:1 config_package 3 s\n"


def test_a_pipe_gets_lines(home: Path) -> None:
    written = written_to(*os.pipe(), home, {"FORCE_COLOR": "1"})
    assert "\x1b" not in written
    lines = [line.split(maxsplit=2) for line in written.splitlines()]
    assert ["press:1", "deployment_package"] in [line[:2] for line in lines]
    assert ["press:2", "deployment_package", "failed"] in lines
    slow = [line[2] for line in lines if line[:2] == ["press:1", "config_package"]]
    assert re.fullmatch(rf"\d+ s so far: \S*{re.escape(PROGRESS)}", slow[0]), slow


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("", ""),
        (" \n ", ""),
        ("building the environment", "building the environment"),
        (f"metrics: a\n| {PROGRESS}\n| b", PROGRESS),
        ("a\n| b\u202e\x1b]0;c\x07\td", "b\ufffd\ufffd]0;c\ufffd d"),
        ("x" * 500, "x" * 119 + "…"),
    ],
)
def test_the_newest_line_is_short_and_printable(message: str, line: str) -> None:
    assert newest_line(message) == line
