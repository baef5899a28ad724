"""What self_test.py runs in a child: code that tries what model code must not do. Standard library only.

Each function returns what it gained in words, or None if it was refused. One that goes beyond a limit holds what it has
for a while: somebody may be about to look."""

import array
import contextlib
import ctypes
import errno
import os
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_HOLD_FOR = 3.0
_PROCESSES = 8
_PAGE, _BLOCK, _PART = 4096, 1 << 20, 32 << 20
_SHARED, _PRIVATE, _ANONYMOUS = 1, 2, 32


def read_environments(arguments: "dict[str, str]") -> "str | None":
    """Look for a canary in the environments of all processes that can be seen."""
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - glob raises for one that ends meanwhile
        try:
            entry = Path("/proc", name, "environ")
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
            path.write_text("written by an escape attempt")
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
    """Use parts of the kernel that no namespace isolates: any answer but a refusal comes from them."""
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
    """Be the machine's root: seen by the owner of the machine's own root, as it looks from inside."""
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


def allocate_in_parts(arguments: "dict[str, int]") -> str:
    """Take memory in many processes."""
    taken, tell = os.pipe()
    for _ in range(_PROCESSES):
        if os.fork() == 0:
            _take(arguments["size"] // _PROCESSES, tell)
    return _hold(arguments["size"], taken)


def allocate_without_first_thread(arguments: "dict[str, int]") -> str:
    """Take memory in processes whose first thread, by which they are known, has ended."""
    taken, tell = os.pipe()
    for _ in range(_PROCESSES):
        if os.fork() == 0:
            threading.Thread(target=_take, args=(arguments["size"] // _PROCESSES, tell)).start()
            ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
    return _hold(arguments["size"], taken)


def map_shared(arguments: "dict[str, int]", kind: str) -> "str | None":
    """Take shared memory, of which all but a page is unmapped: none of it shows in the process then."""
    try:
        for _ in range(arguments["size"] // _PART):
            file = -1
            if kind == "a file in memory":
                file = os.memfd_create("edgepack")
                os.truncate(file, _PART)
            elif kind == "a device":
                file = os.open("/dev/zero", os.O_RDWR)
            place = _map(_PART, _SHARED | (_ANONYMOUS if file < 0 else 0), file)
            ctypes.memset(place, 1, _PART)
            _keep_one_page(place, file)
    except OSError:
        return None
    return _hold(arguments["size"])


def map_file_in_memory(arguments: "dict[str, int]") -> "str | None":
    """See map_shared."""
    return map_shared(arguments, "a file in memory")


def map_without_file(arguments: "dict[str, int]") -> "str | None":
    """See map_shared."""
    return map_shared(arguments, "no file")


def map_device(arguments: "dict[str, int]") -> "str | None":
    """See map_shared."""
    return map_shared(arguments, "a device")


def send_memory(arguments: "dict[str, int]") -> "str | None":
    """Have memory on its way through a socket, and open nowhere."""
    try:
        _send(_written(os.memfd_create("edgepack")) for _ in range(arguments["size"] // _PART))
    except OSError:
        return None
    return _hold(arguments["size"])


def fill_sockets(arguments: "dict[str, int]") -> "str | None":
    """Have sockets hold what nobody reads, while nobody has them open: they wait to be accepted."""
    taken = 0
    listeners = []
    try:
        while taken < arguments["size"]:
            listeners.append(socket.socket(socket.AF_UNIX))
            listeners[-1].bind(f"\0edgepack-{os.getpid()}-{len(listeners)}")
            listeners[-1].listen(100)
            for _ in range(100):
                taken += _connect_and_fill(listeners[-1])
    except OSError:
        return None
    return _hold(taken)


def fill(arguments: "dict[str, int]") -> "str | None":
    """Write one large file."""
    block = b"x" * _BLOCK
    try:
        with Path("large").open("wb") as stream:
            for _ in range(arguments["size"] // _BLOCK):
                stream.write(block)
    except OSError:
        Path("large").unlink()
        return None
    return f"it wrote a file of {arguments['size'] >> 20} MiB"


def fill_in_parts(arguments: "dict[str, int]") -> str:
    """Write many files, each below the limit."""
    for number in range(arguments["size"] // _PART):
        os.close(_written(os.open(f"part-{number}", os.O_RDWR | os.O_CREAT)))
    return _hold(arguments["size"])


def keep_removed_open(arguments: "dict[str, int]") -> str:
    """Keep files open that have no name any more."""
    for number in range(arguments["size"] // _PART):
        _written(_removed_file(number))
    return _hold(arguments["size"])


def keep_removed_mapped(arguments: "dict[str, int]") -> str:
    """Keep a page mapped of files that have no name any more, and are not open."""
    for number in range(arguments["size"] // _PART):
        file = _written(_removed_file(number))
        _keep_one_page(_map(_PART, _SHARED, file), file)
    return _hold(arguments["size"])


def send_removed(arguments: "dict[str, int]") -> "str | None":
    """Have files without a name on their way through a socket, and open nowhere."""
    try:
        _send(_written(_removed_file(number)) for number in range(arguments["size"] // _PART))
    except OSError:
        return None
    return _hold(arguments["size"])


def _set_io_priority(pid: int) -> None:
    number = {"x86_64": 251, "aarch64": 30}[os.uname().machine]
    one_process, idle = 1, 3 << 13
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, one_process, pid, idle) != 0:
        raise OSError(ctypes.get_errno(), "ioprio_set")


def _hold(size: int, taken: "int | None" = None) -> str:
    if taken is not None:
        for _ in range(_PROCESSES):
            os.read(taken, 1)  # each of them has what it takes
    time.sleep(_HOLD_FOR)
    return f"it held {size >> 20} MiB that no limit counted"


def _take(size: int, tell: int) -> None:
    ctypes.memset(_map(size, _PRIVATE | _ANONYMOUS, -1), 1, size)
    os.write(tell, b"x")
    time.sleep(600)


def _map(size: int, flags: int, file: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_size_t
    read_and_write = 3
    place = int(libc.mmap(None, ctypes.c_size_t(size), read_and_write, flags, file, ctypes.c_size_t(0)))
    if place == ctypes.c_size_t(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    return place


def _keep_one_page(place: int, file: int) -> None:
    if file >= 0:
        os.close(file)
    ctypes.CDLL(None).munmap(ctypes.c_size_t(place + _PAGE), ctypes.c_size_t(_PART - _PAGE))


def _removed_file(number: int) -> int:
    file = os.open(f"part-{number}", os.O_RDWR | os.O_CREAT)
    os.unlink(f"part-{number}")  # noqa: PTH108
    return file


def _written(file: int) -> int:
    for _ in range(_PART // _BLOCK):
        os.write(file, b"x" * _BLOCK)
    return file


def _send(files: "Iterable[int]") -> None:
    ends = [end.detach() for end in socket.socketpair()]  # they stay open
    sender = socket.socket(fileno=os.dup(ends[0]))
    for file in files:
        sender.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))])
        os.close(file)


def _connect_and_fill(listener: socket.socket) -> int:
    sent = 0
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(listener.getsockname())
        one.setblocking(False)
        try:
            while True:
                sent += one.send(b"x" * (32 << 10))
        except BlockingIOError:
            return sent


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


def change_child(arguments: "dict[str, str]") -> "str | None":
    """Change how the process that forks the jobs, and so the next job, is scheduled, and what it may use."""
    child = os.getppid()
    attempts: dict[str, Callable[[], object]] = {
        "niceness": lambda: os.setpriority(os.PRIO_PROCESS, child, 1),
        "scheduling class": lambda: os.sched_setscheduler(child, os.SCHED_IDLE, os.sched_param(0)),
        "processors": lambda: os.sched_setaffinity(child, [min(os.sched_getaffinity(0))]),
        "priority on the disk": lambda: _set_io_priority(child),
        "limits": lambda: resource.prlimit(child, resource.RLIMIT_CPU, (600, 600)),
    }
    for name, attempt in attempts.items():
        with contextlib.suppress(OSError):
            attempt()
            return f"it changed the {name} of the process that forks the next job"
    return None


def outlive_others(arguments: "dict[str, str]") -> "str | None":
    """Have the system end others first when memory runs out."""
    for value in ("-1000", "0", "999"):
        try:
            Path("/proc/self/oom_score_adj").write_text(value)
        except OSError:
            continue
        return f"others end before it: its oom_score_adj is {value}"
    return None


def leave_behind(arguments: "dict[str, str]") -> None:
    """Start a process that has neither our group, nor our session, nor our environment."""
    subprocess.Popen(["sleep", arguments["marker"]], env={}, start_new_session=True)


def hang(arguments: "dict[str, str]") -> None:
    """Take time."""
    time.sleep(600)
