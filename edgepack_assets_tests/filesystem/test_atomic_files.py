"""Errors of the disk in words: which may be tried again, and which may not."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path, PurePosixPath

import pytest

from edgepack_assets.errors import EdgepackError, TransientError
from edgepack_assets.filesystem.atomic_files import disk_errors, is_leftover


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)), True),
        (TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)), True),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), True),
        (OSError(errno.ESTALE, os.strerror(errno.ESTALE)), True),
        (OSError(errno.EHOSTDOWN, os.strerror(errno.EHOSTDOWN)), True),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), True),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), True),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), False),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), False),
    ],
)
def test_only_what_speaks_of_the_machines_condition_may_be_tried_again(error: OSError, transient: bool) -> None:
    with (
        pytest.raises(EdgepackError, match=f"/share/x: cannot be read: {error.strerror}") as caught,
        disk_errors(Path("/share/x"), "read"),
    ):
        raise error
    assert isinstance(caught.value, TransientError) is transient


@pytest.mark.parametrize(
    ("path", "leftover"),
    [
        ("._rows.parquet", True),
        ("cats/.DS_Store", True),
        ("cats/THUMBS.DB", True),
        ("__MACOSX/cats/1.png", True),
        (".ipynb_checkpoints/rows.parquet", True),
        ("_SUCCESS", False),
        (".hidden/rows.parquet", False),
        ("thumbs.png", False),
    ],
)
def test_what_systems_and_notebooks_leave_is_known_by_name(path: str, leftover: bool) -> None:
    assert is_leftover(PurePosixPath(path)) is leftover
