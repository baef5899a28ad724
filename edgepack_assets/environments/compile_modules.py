"""Compiles the modules below a folder, on all processors: `python -I -S compile_modules.py FOLDER`.

A component's interpreter runs it; standard library only. `compileall -j 0` does the same and takes a fifth more
processor time, for the processes of a pool and for handing each file to one of them.

Files that cannot be compiled (templates, other Pythons' syntax) are none that are imported, and are left; so are the
libraries' own tests, half of all files. The exit code is KILLED if a process was killed.
"""

import compileall
import os
import sys

KILLED = 75
_TESTS = ("test", "tests")


def main(folder: str) -> int:
    """Compile them, the large files first, each process every so many."""
    files = []
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _TESTS]
        files += [os.path.join(top, name) for name in names if name.endswith(".py")]  # noqa: PTH118 - ten thousand
    files.sort(key=os.path.getsize, reverse=True)
    processes = min(len(os.sched_getaffinity(0)), len(files)) or 1
    children = []
    for number in range(1, processes):
        child = os.fork()
        if child == 0:
            _compile(files[number::processes])
            os._exit(0)
        children.append(child)
    _compile(files[::processes])
    ended = [os.waitpid(child, 0)[1] for child in children]
    return KILLED if any(map(os.WIFSIGNALED, ended)) else int(any(ended))


def _compile(files: "list[str]") -> None:
    for file in files:
        compileall.compile_file(file, quiet=2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
