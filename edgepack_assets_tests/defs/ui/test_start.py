"""What `edgepack ui` looks at before it starts."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgepack_assets.cli.ui import ui
from edgepack_assets.defs.ui.start import address, check_port, only_one, show_asset_graph
from edgepack_assets.errors import ConfigError


def test_the_address_is_that_of_dagsters_options(monkeypatch: pytest.MonkeyPatch) -> None:
    assert address([]) == ("127.0.0.1", 3000)
    assert address(["-p", "3005", "--host", "::1"]) == ("::1", 3005)
    monkeypatch.setenv("DAGSTER_CLI_DEV_PORT", "3007")
    assert address([])[1] == 3007


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 .* edgepack ui --port {port + 1}"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


@pytest.mark.parametrize("port", [0, -1, 65536, 99999])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match=f"--port {port}: choose a port from 1 to 65535"):
        check_port("127.0.0.1", port)


@pytest.mark.parametrize("arguments", [["--port", "abc"], ["--prt", "3"], ["--port"]])
def test_mistakes_in_dagsters_options_are_usage_errors(arguments: list[str]) -> None:
    result = CliRunner().invoke(ui, arguments)
    assert result.exit_code == 2, result.output
    assert "Error: " in result.stderr
    assert result.stdout == ""


def test_a_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match="--host no such host"):
        check_port("no such host", 3000)


HOLDER = (
    "import sys; from pathlib import Path; from edgepack_assets.defs.ui.start import only_one\n"
    "with only_one(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


def test_an_instance_has_one_ui_and_a_killed_one_leaves_nothing_behind(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"process {holder.pid}.*edgepack webserver"), only_one(tmp_path):
            pass
        holder.kill()
    with only_one(tmp_path):
        pass


def test_the_asset_graph_is_printed_and_no_browser_opens_without_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert show_asset_graph("127.0.0.1", 3000) == "http://127.0.0.1:3000/asset-groups"
