"""A PostgreSQL server of a test's own: a fresh cluster in a temporary folder, with TLS, run by whom it accepts."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

USER, DATABASE = "dagster", "postgres"


@contextlib.contextmanager
def running(programs: Path, password: str, certificate: Path, key: Path) -> Iterator[dict[str, str]]:
    """What docs/dagster.production.yaml takes from the environment to reach the server."""
    # PostgreSQL does not run as root, and pytest's folders are root's alone then.
    owner = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    who = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        folder = Path(name)
        for source, target in ((certificate, "server.crt"), (key, "server.key")):
            shutil.copyfile(source, folder / target)
            (folder / target).chmod(0o600)
        (folder / "password").write_text(password)
        for path in (folder, *folder.iterdir()):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]

        def run(program: str, *arguments: str) -> None:
            done = subprocess.run(
                [str(programs / program), "-D", str(folder / "data"), *arguments],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                timeout=120, check=False, env={"PATH": os.environ["PATH"], "LC_ALL": "C"}, **who,
            )  # fmt: skip
            log = folder / "log"
            assert done.returncode == 0, done.stdout + (log.read_text() if log.exists() else "")

        run("initdb", "-A", "scram-sha-256", "-U", USER, f"--pwfile={folder / 'password'}", "-E", "UTF8", "--no-sync")
        options = (
            f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off -c ssl=on -c ssl_cert_file={folder / 'server.crt'} "
            f"-c ssl_key_file={folder / 'server.key'}"
        )
        run("pg_ctl", "-w", "-t", "60", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield {
                "EDGEPACK_POSTGRES_HOST": "127.0.0.1",
                "EDGEPACK_POSTGRES_PORT": str(port),
                "EDGEPACK_POSTGRES_DATABASE": DATABASE,
                "EDGEPACK_POSTGRES_USER": USER,
                "EDGEPACK_POSTGRES_PASSWORD": password,
            }
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")
