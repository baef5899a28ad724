"""What protections.py lets run in a child: code that tries what model code must not. Standard library only.

Each function returns what it gained in words, or None if it was refused."""

import ctypes
import errno
import os
import socket
import subprocess
import time
from pathlib import Path


def read_environments(arguments: "dict[str, str]") -> "str | None":
    """Look for a canary in the environments of all processes that can be seen."""
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if arguments["canary"].encode() in entry.read_bytes():
                return f"it read {entry}"
        except OSError:
            continue
    return None


def read(arguments: "dict[str, str]") -> "str | None":
    """Read a file of the machine that anybody may read."""
    try:
        Path(arguments["path"]).read_bytes()
    except OSError:
        return None
    return f"it read {arguments['path']}"


def write(arguments: "dict[str, str]") -> "str | None":
    """Write where anybody may, and where nobody may."""
    for folder in (arguments["folder"], "/", "/tmp", "/usr", "/dev", os.path.dirname(os.__file__)):  # noqa: S108, PTH120
        path = Path(folder, "edgepack-was-here")
        try:
            path.write_text("harm")
            path.unlink()
        except OSError:
            continue
        return f"it wrote into {folder}"
    return None


def connect(arguments: "dict[str, int]") -> "str | None":
    """Reach a port of the machine."""
    try:
        socket.create_connection(("127.0.0.1", arguments["port"]), 2).close()
    except OSError:
        return None
    return f"it reached port {arguments['port']} of this machine"


def reach_host(arguments: "dict[str, str]") -> "str | None":
    """Reach the host of the virtual machine that this one may be: no network namespace stands in between."""
    try:
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as host:
            host.settimeout(2)
            host.connect((socket.VMADDR_CID_HOST, 1))
    except OSError as error:
        # Any other answer came from the host, or would have.
        return None if error.errno in (errno.EAFNOSUPPORT, errno.ENODEV) else f"it asked the host ({error})"
    return "it reached the host"


def read_keys(arguments: "dict[str, str]") -> "str | None":
    """Look for a key among those that the kernel holds for this user."""
    libc = ctypes.CDLL(None, use_errno=True)
    keyctl = {"x86_64": 250, "aarch64": 219}.get(os.uname().machine)
    if keyctl is None:
        return None
    search, read_key, session = 10, 11, -3
    key = libc.syscall(keyctl, search, session, b"user", arguments["canary"].encode(), 0)
    value = ctypes.create_string_buffer(100)
    if key < 0 or libc.syscall(keyctl, read_key, key, value, 100, 0) < 0:
        return None
    return f"it read {value.value.decode(errors='replace')}"


def call_kernel(arguments: "dict[str, str]") -> "str | None":
    """Use parts of the kernel that no namespace tames: any answer but a refusal comes from them."""
    libc = ctypes.CDLL(None, use_errno=True)
    at = {"x86_64": 0, "aarch64": 1}.get(os.uname().machine)
    if at is None:
        return f"which calls there are on {os.uname().machine} is not known"
    for name, numbers in {"io_uring_setup": (425, 425), "bpf": (321, 280), "perf_event_open": (298, 241)}.items():
        ctypes.set_errno(0)
        libc.syscall(numbers[at], 0, None, 0, 0, 0)
        if ctypes.get_errno() not in (errno.EPERM, errno.EACCES, errno.ENOSYS):
            return f"the kernel would do {name} for it"
    return None


def be_root(arguments: "dict[str, str]") -> "str | None":
    """Be the machine's root: told by the owner of the machine's own root, as it looks in here."""
    uid_map = Path("/proc/self/uid_map").read_text().split()
    is_root = os.geteuid() == 0 and uid_map[1] == "0"
    return "it is root" if is_root else None


def regain_rights(arguments: "dict[str, str]") -> "str | None":
    """Become root again, or leave the root folder, in namespaces of its own."""
    clone_newuser, clone_newns = 0x10000000, 0x00020000
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0:
        try:
            os.setuid(0)
        except OSError:
            pass
        else:
            return "it became root"
    if libc.unshare(clone_newuser | clone_newns) == 0:
        # in there it has every right, over what it could reach before
        libc.mount(None, b"/", None, 4096 | 32, None)
        try:
            os.chroot("/proc/1/root")
        except OSError as error:
            assert error.errno in (errno.EPERM, errno.EACCES, errno.ENOENT)
    return read(arguments)


def allocate(arguments: "dict[str, int]") -> "str | None":
    """Take memory."""
    try:
        taken = bytearray(arguments["size"])
    except MemoryError:
        return None
    return f"it took {len(taken) >> 20} MiB"


def fill(arguments: "dict[str, int]") -> "str | None":
    """Write one large file, then a lot of small ones."""
    block = b"x" * (1 << 20)
    try:
        with Path("large").open("wb") as stream:
            for _ in range(arguments["size"] >> 20):
                stream.write(block)
    except OSError:
        pass
    else:
        return "it wrote a file of 1 GiB"
    return None


def fork(arguments: "dict[str, int]") -> "str | None":
    """Start processes."""
    for _ in range(arguments["count"]):
        try:
            if os.fork() == 0:
                time.sleep(600)
                os._exit(0)
        except OSError:
            return None
    return f"it started {arguments['count']} processes"


def leave_behind(arguments: "dict[str, str]") -> None:
    """Start a process that has neither our group, nor our session, nor our environment."""
    subprocess.Popen(["sleep", arguments["marker"]], env={}, start_new_session=True)


def hang(arguments: "dict[str, str]") -> None:
    """Take time."""
    time.sleep(600)
