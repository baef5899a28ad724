"""Measures a running job from outside: its memory, the kernel's memory for it, its disk space and its files.

This is for what the kernel does not bound by itself. It finds what processes map, name or hold open. Memory and files
that are nowhere there, but on their way through a socket or behind one mapped page, the filter refuses
(seccomp.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from edgepack_assets.config.schema import RuntimeSettings

_GIB = 1 << 30
_BLOCK = 512
_MOST_FILES = 100_000
_PIPE = 64 << 10
"""Bytes that a pipe holds. One can be made larger, but all of a user's beyond 64 MiB are smaller."""
_MAPPING, _WATCH = 256, 192
"""Bytes that the kernel needs for one mapping of memory, and for one descriptor that an epoll instance watches: forks
multiply the ones, and each instance may watch all there are."""
_EPOLL = "anon_inode:[eventpoll]"
_SCRATCH = "root/dev/shm"
_KERNELS = ("VmPTE:", "HugetlbPages:")
_OWN = ("RssAnon:", "RssShmem:", "VmSwap:", *_KERNELS)
_SHARED = ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")

_Sizes = dict[tuple[int, int], int]
"""Bytes on the disk by device and number, so that a file with two names, or none, counts once."""


class Consumption:
    """Measures what a job takes, from when it begins. `work` is its work folder."""

    def __init__(self, work: Path, settings: RuntimeSettings) -> None:
        self._work = work
        self._settings = settings
        self._most_free = _free(work)

    def excess(self, job_processes: Callable[[], list[int]]) -> str:
        """What the job's processes took too much of, in words; "" if nothing.

        Processes come and go, and files too, as this looks. Code that notices a look can move them past it; but what
        they take is missing on the disk, and then it looks again while the job stands still."""
        words = self._look(job_processes())
        free = _free(self._work)
        self._most_free = max(self._most_free, free)
        if not words and self._too_large(self._most_free - free):
            with _stopped(job_processes) as stopped:
                words = self._look(stopped)
        return words

    def _look(self, jobs: Iterable[int]) -> str:
        processes = list(filter(None, map(_threads, jobs)))
        # Folders first: a file can lose its name while this looks, but hardly get one.
        sizes = _Sizes()
        words = self._walk(sizes, _files_of_scratch(processes))
        if words:
            return words
        opened, epolls = [], 0
        for opened_file, is_epoll in (each for threads in processes for each in _open(threads)):
            opened.append(opened_file)
            epolls += is_epoll
        kernels = _buffers(opened, processes) + epolls * len(opened) * _WATCH
        words, mappings = self._removed(sizes, opened, processes, kernels)
        return words or self._memory(opened, processes, kernels + mappings * _MAPPING)

    def _walk(self, sizes: _Sizes, files: int) -> str:
        size = 0
        unseen: list[OSError] = []
        for path, folders, names in os.walk(self._work, onerror=unseen.append):
            files += len(folders) + len(names)
            for name in (*folders, *names):
                with contextlib.suppress(OSError):
                    status = os.lstat(os.path.join(path, name))  # noqa: PTH118 - many of them
                    if (status.st_dev, status.st_ino) not in sizes:
                        size += status.st_blocks * _BLOCK
                        sizes[status.st_dev, status.st_ino] = status.st_blocks * _BLOCK
            if words := self._too_large(size):
                return words
            if files > _MOST_FILES:
                return f"it made more than {_MOST_FILES:,} files"
        for error in unseen:
            if not isinstance(error, FileNotFoundError):
                return (
                    f"it made a folder that cannot be looked into ({error.strerror}), as one that hides what it writes"
                )
        return ""

    def _removed(
        self, sizes: _Sizes, opened: Sequence[os.stat_result], processes: Iterable[Sequence[int]], kernels: int
    ) -> tuple[str, int]:
        """As `_walk`, with files that have no name any more but are kept open or mapped; and how many mappings there
        are."""
        for file in opened:
            if stat.S_ISREG(file.st_mode) and file.st_nlink == 0:
                sizes[file.st_dev, file.st_ino] = file.st_blocks * _BLOCK
        mappings, size_is_hidden = 0, False
        for threads in processes:
            count, is_hidden = _add_mapped(sizes, threads)
            mappings += count
            size_is_hidden |= is_hidden
            if kernels + mappings * _MAPPING > self._settings.memory_limit * _GIB:
                break  # reading the others could take longer than the job
        size = sum(sizes.values())
        if size_is_hidden:
            size = max(size, self._most_free - _free(self._work))  # what they take is missing on the disk
        return self._too_large(size), mappings

    def _too_large(self, size: int) -> str:
        limit = self._settings.disk_limit
        return f"it wrote more than {limit:g} GiB (runtime.disk_limit in edgepack.yaml)" if size > limit * _GIB else ""

    def _memory(self, opened: Sequence[os.stat_result], processes: Sequence[Sequence[int]], kernels: int) -> str:
        """`kernels` are the bytes that the kernel needs for what the processes have."""
        if len(opened) > _MOST_FILES:
            return f"it has more than {_MOST_FILES:,} files open"
        limit = self._settings.memory_limit * _GIB - kernels
        # The exact sum takes its time, so it is asked for only where the simple one, which counts what processes share
        # once for each of them, is too large.
        if limit < 0 or (sum(map(_memory, processes)) > limit and sum(map(_share, processes)) > limit):
            return (
                f"it took more than {self._settings.memory_limit:g} GiB of memory in {len(processes)} processes "
                "(runtime.memory_limit in edgepack.yaml)"
            )
        return ""


def process_ids() -> list[int]:
    """Of all processes. Each can have ended when it is looked at: then its files are missing, or reading one raises
    ProcessLookupError, also in pathlib's `glob`, which takes that for no missing file."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def descendants(pid: int) -> list[int]:
    """All processes that a process, or one of these, started and that are there, the nearest first."""
    children = defaultdict(list)
    for each in process_ids():
        with contextlib.suppress(OSError):
            # the name, in brackets, may hold anything
            parent = Path(f"/proc/{each}/stat").read_text(errors="replace").rpartition(")")[2].split()[1]
            children[int(parent)].append(each)
    below = list(children[pid])
    for each in below:
        below += children[each]
    return below


@contextlib.contextmanager
def _stopped(job_processes: Callable[[], list[int]]) -> Iterator[set[int]]:
    """The job's processes, while none of them runs."""
    stopped: set[int] = set()
    try:
        while started := set(job_processes()) - stopped:
            for pid in started:
                stopped.add(pid)
                _signal(pid, signal.SIGSTOP)
        yield stopped
    finally:
        for pid in stopped:
            _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _threads(pid: int) -> list[int]:
    """A process's threads, empty if it has ended. Its first one, whose number the process has, can end before the
    others: then only those tell what the process has."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208
    except OSError:
        return []


def _lines(threads: Sequence[int], name: str) -> list[str]:
    """A file of /proc that says the same of each thread that still runs. Raises PermissionError.

    Of a thread that is ending some files are empty."""
    for thread in threads:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{thread}/{name}").read_text(errors="replace").splitlines()
            if any(line.startswith("VmRSS:") for line in lines) if name == "status" else lines:
                return lines
    return []


def _sum(lines: Iterable[str], names: tuple[str, ...]) -> int:
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(names))


def _memory(threads: Sequence[int]) -> int:
    """Bytes of memory that are a process's own, and not a file's."""
    with contextlib.suppress(PermissionError):
        return _sum(_lines(threads, "status"), _OWN)
    return 0


def _share(threads: Sequence[int]) -> int:
    """As `_memory`, but what several processes share counts by a part of it for each."""
    try:
        return _sum(_lines(threads, "smaps_rollup"), _SHARED) + _sum(_lines(threads, "status"), _KERNELS)
    except PermissionError:
        return _memory(threads)  # it has made itself unreadable (PR_SET_DUMPABLE)


def _add_mapped(sizes: _Sizes, threads: Sequence[int]) -> tuple[int, bool]:
    """Add files that a process maps and that have no name any more. How many mappings it has, and whether only root may
    see the size of such a file."""
    mappings, is_hidden = 0, False
    with contextlib.suppress(PermissionError):
        lines = _lines(threads, "maps")
        mappings = len(lines)
        for line in lines:
            if not line.endswith(" (deleted)"):
                continue
            place, _, _, numbers, inode, _ = line.split(maxsplit=5)
            start, end = (int(address, 16) for address in place.split("-"))
            device = os.makedev(*(int(part, 16) for part in numbers.split(":")))
            if (device, int(inode)) in sizes:
                continue
            try:
                status = os.stat(f"/proc/{threads[0]}/map_files/{start:x}-{end:x}")  # noqa: PTH116
            except PermissionError:
                is_hidden |= device != _device_of_scratch(threads)
            except OSError:
                continue
            else:
                if status.st_nlink == 0:
                    sizes[status.st_dev, status.st_ino] = status.st_blocks * _BLOCK
    return mappings, is_hidden


def _open(threads: Sequence[int]) -> Iterator[tuple[os.stat_result, bool]]:
    """What a process's threads hold open, and whether it is an epoll instance. Each can have a list of its own."""
    for thread in threads:
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{thread}/fd"):
                with contextlib.suppress(OSError):
                    status = entry.stat()
                    yield status, stat.S_IFMT(status.st_mode) == 0 and os.readlink(entry.path) == _EPOLL  # noqa: PTH115


def _buffers(opened: Iterable[os.stat_result], processes: Iterable[Sequence[int]]) -> int:
    """The most that the pipes and sockets that there are can hold. How much they do hold is not shown."""
    pipes, sockets = set(), set()
    for file in opened:
        if stat.S_ISFIFO(file.st_mode):
            pipes.add(file.st_ino)
        elif stat.S_ISSOCK(file.st_mode):
            sockets.add(file.st_ino)
    used, connected = max(map(_sockets, processes), default=(0, 0))
    each = _number("core/wmem_default") + _number("core/rmem_default")
    each_connected = _number("ipv4/tcp_wmem") + _number("ipv4/tcp_rmem")
    return len(pipes) * _PIPE + max(len(sockets), used) * each + connected * each_connected


def _sockets(threads: Sequence[int]) -> tuple[int, int]:
    """How many sockets there are in a process's network, also those that wait to be accepted, and how many of TCP's;
    none where that is the machine's own."""
    with contextlib.suppress(OSError):
        if not Path(f"/proc/{threads[0]}/ns/net").samefile("/proc/self/ns/net"):
            words = [line.split() for line in _lines(threads, "net/sockstat")]
            counts = {line[0]: int(line[2]) for line in words}
            return counts.get("sockets:", 0), counts.get("TCP:", 0)  # nothing, if it has ended meanwhile
    return 0, 0


def _number(name: str) -> int:
    """The last, the largest, number of a setting of the kernel's for the network; 0 where it has none."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/sys/net", name).read_text().split()[-1])
    return 0


def _files_of_scratch(processes: Iterable[Sequence[int]]) -> int:
    """How many files there are in a sandbox's /dev/shm: they are few bytes of its own, but many of the kernel's."""
    for threads in processes:
        with contextlib.suppress(OSError):
            if not Path(f"/proc/{threads[0]}/ns/mnt").samefile("/proc/self/ns/mnt"):
                file_system = os.statvfs(f"/proc/{threads[0]}/{_SCRATCH}")
                return file_system.f_files - file_system.f_ffree
    return 0


def _device_of_scratch(threads: Sequence[int]) -> int | None:
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{threads[0]}/{_SCRATCH}").st_dev  # noqa: PTH116
    return None


def _free(folder: Path) -> int:
    file_system = os.statvfs(folder)
    return file_system.f_bfree * file_system.f_frsize
