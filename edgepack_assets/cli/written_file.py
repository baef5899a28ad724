"""An option that names a file to be written: tried while the command line is read, as what it is for may take long."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click


class WrittenFile(click.Path):
    """A file that can be written, or made with its folders. `-` is left to the command."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path. Nothing is made yet."""
        file = Path(str(super().convert(value, param, ctx)))
        above = file.absolute().parent
        while not above.exists() and above != above.parent:
            above = above.parent
        if str(file) != "-" and not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
            self.fail(f"{file} cannot be written: {above} is not a folder that you may write to", param, ctx)
        return file
