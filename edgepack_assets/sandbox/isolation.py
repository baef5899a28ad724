"""What model code may see and touch: the backends that isolate a process, and which of them works here.

Both backends isolate in the same way. The child has its own process, mount, network, IPC and host name namespaces. Its
root holds the system's libraries, the component's interpreter and environment, all read-only, and a fresh /proc. It has
no network, and one work folder to write to. If this process is root's, the child is another user. bubblewrap
does it where it is installed, otherwise util-linux's unshare with `namespace_init.py`. The child itself limits its
memory, files and processes (child_main.py).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from edgepack_assets.errors import IsolationError
from edgepack_assets.filesystem.temp_folders import scratch_folder
from edgepack_assets.sandbox.seccomp import why_unfiltered

FILTERED = "the kernel refuses it the system calls that namespaces do not isolate"
PROTECTIONS = (
    "it sees no processes but its own",
    "it reads no files but the system's libraries and its own",
    "it writes nowhere but into its work folder",
    "it has no network",
    "it is another user than root",
    "all it started ends with it",
    FILTERED,
)
"""What a backend guarantees, in words. The last one is a filter of system calls, which any backend may have."""

_ENTER = Path(__file__).with_name("namespace_init.py")
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ALSO = (
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/nix/store",
    "/sys/devices/system/cpu", "/sys/devices/system/node",
)  # fmt: skip
"""Where libraries lie, and what numeric ones read to choose their code."""
_PARTS = ("bin", "lib", "lib32", "lib64", "ssl", "share/zoneinfo")
"""Of an interpreter's prefix: what it, and conda's, has there."""
_SCRATCH = 64 << 20
"""Bytes of /dev/shm, which lies in memory and is emptied after each job."""
_DEVICES = ("null", "full", "random", "urandom")
"""Not zero: mapped as shared it is memory without a bound. And no terminals."""
_STREAMS = {
    "fd": "/proc/self/fd",
    **{f"std{name}": f"/proc/self/fd/{n}" for n, name in enumerate(("in", "out", "err"))},
}
_FIRST_TO_END = ("/bin/sh", "-c", 'echo 1000 > /proc/self/oom_score_adj; exec "$@"', "sh")
"""The beginning of a command that, with all it starts, is the first that the system ends when memory runs out. Done
outside of the sandbox: inside, nobody can write to /proc and so undo it."""
_USERS = range(61184, 65520)
"""User ids that no account has: systemd's range for temporary users."""
_TRY_FOR = 30.0
_PROGRAMS = {"bubblewrap": "bwrap", "unshare": "unshare"}

Backend = Literal["bubblewrap", "unshare", "none"]


@dataclass(frozen=True)
class SandboxRoot:
    """What a child may see: `base` is a folder with `work` (to write to) in it, the rest is read-only."""

    base: Path
    readable: Sequence[Path]

    @property
    def work(self) -> Path:
        """The one folder that the child may write to."""
        return self.base / "work"

    @property
    def mount_point(self) -> Path:
        """An empty folder, over which a backend may mount the child's root."""
        return self.base / "root"


@dataclass(frozen=True)
class Isolation:
    """A backend that works here. `user` is the user that a child becomes, None if it keeps this process's. `missing`
    are those of PROTECTIONS that the backend does not give."""

    backend: Backend
    user: int | None
    missing: tuple[str, ...]

    @property
    def words(self) -> str:
        """The backend, and which protections are missing."""
        return (
            self.backend
            if self.backend == "none" or not self.missing
            else f"{self.backend}, but not: {', '.join(self.missing)}"
        )

    def command(self, root: SandboxRoot, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` in that sandbox, as its first process: all others end with it, and
        none of them can stop or kill it."""
        if self.backend == "bubblewrap":
            command = _bubblewrap(self.user, root, command)
        elif self.backend == "unshare":
            command = _unshare(self.user, root, command)
        return [*_FIRST_TO_END, *command]

    def give_to_child(self, path: Path) -> None:
        """Make the child the owner of a file or folder, whatever umask it was created with."""
        os.chmod(path, 0o700 if path.is_dir() else 0o600)  # noqa: PTH101 - one call fewer for folders of many files
        if self.user is not None:
            os.chown(path, self.user, self.user)


def isolation_for(policy: Literal["required", "best_effort"], backends: Sequence[Backend] | None = None) -> Isolation:
    """The best backend that works on this machine, bubblewrap first.

    Raises IsolationError if the policy is "required" and something of it does not hold."""
    unfiltered = why_unfiltered()
    tried: dict[str, str] = {}
    for backend in backends or ("bubblewrap", "unshare", "none"):
        user = _other_user() if backend != "none" else None
        reason = _why_not(backend, user) if backend != "none" else None
        if reason is not None:
            tried[backend] = reason
            continue
        holds = (backend != "none", unfiltered is None)
        isolation = Isolation(backend, user, tuple(name for name in PROTECTIONS if not holds[name == FILTERED]))
        if not isolation.missing or policy == "best_effort":
            return isolation
        if backend != "none":
            raise IsolationError(
                f"{backend} can isolate model code on this machine, but the kernel takes no filter of system calls "
                f"({unfiltered}), and runtime.isolation is `required`: allow seccomp (a kernel with "
                "CONFIG_SECCOMP_FILTER; in a container, a profile that lets a process filter itself). `best_effort` "
                "would run it without"
            )
    raise IsolationError(
        "model code cannot be isolated on this machine, and runtime.isolation is `required`: install bubblewrap, or "
        f"allow user namespaces ({'; '.join(f'{name}: {reason}' for name, reason in tried.items())}). `best_effort` "
        "would run it without"
    )


@cache
def _why_not(backend: Backend, user: int | None) -> str | None:
    """Why a backend does not work here, None if it does. Tried once per process, with a command that does nothing."""
    if shutil.which(_PROGRAMS[backend]) is None:
        return f"{_PROGRAMS[backend]} is not installed"
    with scratch_folder() as folder:
        root = SandboxRoot(folder, python_folders(Path(sys.executable)))
        root.work.mkdir()
        root.mount_point.mkdir()
        try:
            done = subprocess.run(
                Isolation(backend, user, ()).command(root, ["/usr/bin/env", "true"]), env={}, cwd=root.work,
                stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_TRY_FOR,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    return None if done.returncode == 0 else done.stderr.decode(errors="replace").strip()[-300:] or "it fails"


def _program(backend: Backend) -> str:
    """The path of a backend's program. A child's own PATH need not contain it."""
    return shutil.which(_PROGRAMS[backend]) or _PROGRAMS[backend]


def _other_user() -> int | None:
    if os.geteuid() != 0:
        return None
    # Runs at the same time should not share one: the limit on processes is the user's.
    return _USERS[os.getpid() % len(_USERS)]


@cache
def python_folders(python: Path) -> tuple[Path, ...]:
    """Where an interpreter's own library lies, outside of /usr.

    Not all below its prefix, which may be a home folder, or one of many programs."""
    done = subprocess.run(
        # without site: nothing that a package has put into the environment runs
        [str(python), "-I", "-S", "-c", "import sys; print(sys.base_prefix, sys.base_exec_prefix, sep='\\n')"],
        env={}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=_TRY_FOR,
    )  # fmt: skip
    binary = python.resolve()
    prefixes = [*map(Path, done.stdout.splitlines()), *([binary.parent.parent] if binary.parent.name == "bin" else [])]
    folders = [binary, *(prefix / part for prefix in dict.fromkeys(prefixes) for part in _PARTS)]
    return tuple(path for path in folders if path.exists() and not path.is_relative_to("/usr"))


def _binds(root: SandboxRoot) -> dict[str, str]:
    """Folders and files to show read-only, by where they stand; a link of the system stays one (see _links)."""
    paths = [path for path in (*_SYSTEM, *_ALSO) if Path(path).exists() and not Path(path).is_symlink()]
    return {path: path for path in [*paths, *map(str, root.readable)]}


def _parents(paths: Sequence[str]) -> list[str]:
    """The folders above `paths`, the upper ones first."""
    return sorted({str(above) for path in paths for above in Path(path).parents} - {"/"})


def _links() -> dict[str, str]:
    return {path: str(Path(path).readlink()) for path in _SYSTEM if Path(path).is_symlink()}


def _bubblewrap(user: int | None, root: SandboxRoot, command: Sequence[str]) -> list[str]:
    line = [
        _program("bubblewrap"),
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-uts",
        "--unshare-cgroup-try",
    ]
    if user is None:
        line += ["--unshare-user", "--cap-drop", "ALL"]
    else:
        line += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        command = [
            "setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups", "--inh-caps", "-all",
            "--no-new-privs", *command,
        ]  # fmt: skip
    line += ["--as-pid-1", "--proc", "/proc", "--tmpfs", "/dev"]
    for name in _DEVICES:
        line += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for name, to in _STREAMS.items():
        line += ["--symlink", to, f"/dev/{name}"]
    line += ["--perms", "1777", "--size", str(_SCRATCH), "--tmpfs", "/dev/shm"]  # noqa: S108 - the child's own
    for path, to in _links().items():
        line += ["--symlink", to, path]
    for folder in _parents([*_binds(root).values(), str(root.work)]):
        line += ["--perms", "0755", "--dir", folder]  # else only the user who builds the sandbox may enter
    for source, path in _binds(root).items():
        line += ["--ro-bind", source, path]
    line += ["--bind", str(root.work), str(root.work)]
    for path in ("/proc", "/dev", "/"):
        line += ["--remount-ro", path]
    return [*line, "--chdir", "/", "--", *command]


def _unshare(user: int | None, root: SandboxRoot, command: Sequence[str]) -> list[str]:
    plan: Mapping[str, object] = {
        "root": str(root.mount_point), "work": str(root.work), "binds": _binds(root), "links": _links(),
        "devices": _DEVICES, "streams": _STREAMS, "user": user, "scratch": _SCRATCH, "command": list(command),
    }  # fmt: skip
    mapped = ["--user", "--map-root-user"] if user is None else []
    return [
        _program("unshare"), *mapped, "--mount", "--pid", "--net", "--ipc", "--uts", "--fork",
        "--kill-child=SIGKILL", "--",
        sys.executable, "-I", "-S", str(_ENTER), json.dumps(plan),
    ]  # fmt: skip
