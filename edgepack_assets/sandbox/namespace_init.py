"""Builds the sandbox that isolation.py describes, for machines without bubblewrap, and starts a command in it.

Run by `unshare` as the first process of new namespaces, as `python -I -S namespace_init.py PLAN`; standard library
only.
"""

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

_NOSUID, _NODEV, _NOEXEC, _BIND, _DETACH, _REC = 2, 4, 8, 4096, 2, 16384
_MOUNT_SETATTR = 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_CAPBSET_DROP, _NO_NEW_PRIVS = 24, 38

_libc = ctypes.CDLL(None, use_errno=True)


class _Attributes(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user_namespace")]


def _checked(code: int, subject: str) -> None:
    if code != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    given = [text.encode() if text is not None else None for text in (source, target, kind)]
    _checked(_libc.mount(*given, ctypes.c_ulong(flags), data.encode() if data is not None else None), target)


def _restrict(target: str, flags: int, recursive: bool) -> None:
    """Add mount flags (1: read-only), which a plain remount would do for the topmost mount only (Linux 5.12)."""
    attributes = _Attributes(set=flags)
    how = _AT_RECURSIVE if recursive else 0
    _checked(
        _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, target.encode(), how, ctypes.byref(attributes), 32),
        f"{target} read-only",
    )


def _show(source: str, target: str, flags: int) -> None:
    """Bind a file or folder of the machine to a path in the sandbox."""
    place = Path(target)
    place.parent.mkdir(parents=True, exist_ok=True)
    if Path(source).is_dir():
        place.mkdir(exist_ok=True)
    else:
        place.touch()
    _mount(source, target, None, _BIND | _REC)
    _restrict(target, flags, recursive=True)


def build(plan: dict[str, Any]) -> None:
    """Mount the sandbox's root and change to it."""
    root = plan["root"]
    os.umask(0o022)
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "mode=0755")
    for path, to in plan["links"].items():
        Path(root + path).symlink_to(to)
    Path(root, "proc").mkdir()
    _mount("proc", f"{root}/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    Path(root, "dev").mkdir()
    for name in plan["devices"]:
        _show(f"/dev/{name}", f"{root}/dev/{name}", _NOSUID)
    for name, to in plan["streams"].items():
        Path(root, "dev", name).symlink_to(to)
    scratch = Path(root, "dev", "shm")
    scratch.mkdir()
    _mount("tmpfs", str(scratch), "tmpfs", _NOSUID | _NODEV, f"mode=1777,size={plan['scratch']}")
    for source, path in plan["binds"].items():
        _show(source, root + path, 1 | _NOSUID | _NODEV)
    _show(plan["work"], root + plan["work"], _NOSUID | _NODEV)
    for path in ("/proc", "/"):
        _restrict(root + path, 1, recursive=False)
    os.chdir(root)
    _checked(_libc.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    _checked(_libc.umount2(b".", _DETACH), "the machine's root")  # it lies over the new one
    os.chdir("/")


def _drop(user: int | None) -> None:
    """Give up every capability, for good, and become another user if root's."""
    for capability in range(64):
        if _libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # the kernel knows no more
    _checked(_libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)


def main() -> None:
    """Build the sandbox and become the command."""
    plan = json.loads(sys.argv[1])
    build(plan)
    _drop(plan["user"])
    os.execvp(plan["command"][0], plan["command"])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
