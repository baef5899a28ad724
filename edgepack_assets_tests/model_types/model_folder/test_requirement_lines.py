"""Requirements files are read as pip reads them; what a component cannot take is returned with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pip._internal.req.req_file import preprocess

from edgepack_assets.errors import ModelError
from edgepack_assets.model_types.model_folder.requirement_lines import (
    LineKind,
    SavedLine,
    logical_lines,
    read_requirements,
)


def lines(folder: Path, text: str, **others: str) -> list[SavedLine]:
    folder.mkdir(exist_ok=True)
    for name, content in {"requirements.txt": text, **others}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return read_requirements(folder, folder / "requirements.txt")


PIECES = [
    "numpy==1.26",
    "\\",
    "\n",
    "\r\n",
    " ",
    "\t",
    "#",
    " # why",
    "\\\n",
    "--hash=x",
    "-r a",
    "a#b",
    "\\\\",
    "ü",
    "\f",
]


@hypothesis_settings(max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
@example("numpy \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n")
@example("a \\\n# comment\nb")
@example("a \\")
def test_lines_are_joined_and_comments_removed_as_by_pip(text: str) -> None:
    assert [line for _, line in logical_lines(text)] == [line for _, line in preprocess(text) if line]


def test_hashes_continuations_and_comments_are_plain_syntax(tmp_path: Path) -> None:
    text = (
        "# top\nNumPy==1.26.4 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\nscipy==1.14\t# tab\n"
        "pandas==2.2.1; \\\n  python_version >= '3.9'\nskops[rich]>=0.10 , <1 --hash sha256:22\n"
    )
    found = lines(tmp_path, text)
    assert [(line.origin, line.name, line.requirement) for line in found] == [
        ("requirements.txt: line 2", "numpy", "NumPy==1.26.4"),
        ("requirements.txt: line 5", "scipy", "scipy==1.14"),
        ("requirements.txt: line 6", "pandas", 'pandas==2.2.1; python_version >= "3.9"'),
        ("requirements.txt: line 8", "skops", "skops[rich]<1,>=0.10"),
    ]


def test_files_of_the_folder_are_read_with_those_that_they_name(tmp_path: Path) -> None:
    found = lines(
        tmp_path, "-r sub/more.txt\n--constraint=constraints.txt\nnumpy\n",
        **{"sub/more.txt": "scipy\n-c ../constraints.txt\n-c bounds.txt\n-r more.txt\n",
           "sub/bounds.txt": "joblib<2\n-r x.txt",
           "sub/x.txt": "skops", "constraints.txt": "threadpoolctl==3.4\n"},
    )  # fmt: skip
    assert [(line.kind, line.requirement) for line in found if not line.problem] == [
        (LineKind.REQUIREMENT, "scipy"),
        (LineKind.CONSTRAINT, "joblib<2"),
        (LineKind.REQUIREMENT, "skops"),
        (LineKind.CONSTRAINT, "threadpoolctl==3.4"),
        (LineKind.REQUIREMENT, "numpy"),
    ]
    # `..` is refused even where it would stay inside: one rule for every path that a model names
    assert [line.text for line in found if line.problem] == ["-c ../constraints.txt"]


@pytest.mark.parametrize("named", ["/etc/passwd", "../secret.txt", "linked.txt", "https://a.b/c.txt", "none.txt", "."])
@pytest.mark.parametrize("option", ["-r", "-c"])
def test_a_file_that_is_not_in_the_folder_is_not_read(tmp_path: Path, option: str, named: str) -> None:
    (tmp_path / "secret.txt").write_text("secret==1")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "linked.txt").symlink_to(tmp_path / "secret.txt")
    (line,) = lines(tmp_path / "m", f"{option} {named}")
    assert (line.kind, line.text) == (LineKind.UNUSABLE, f"{option} {named}")
    assert "names" in line.problem


@pytest.mark.parametrize(
    ("text", "name", "problem"),
    [
        ("git+https://a.b/plant.git@v1#egg=Plant", "plant", "a URL or a path"),
        ("git+https://a.b/plant.git", None, "a URL or a path"),
        ("Plant_X @ https://a.b/plant-1.0.whl", "plant-x", "names a URL"),
        ("numpy @ file:///croot/numpy/dist/numpy.whl#sha256=00", "numpy", "names a URL"),
        ("-e .", None, "a local project"),
        ("-e git+https://a.b/c#egg=line", "line", "a local project"),
        ("--editable=./code", None, "a local project"),
        ("./code/plant-1.0-py3-none-any.whl", "plant", "a URL or a path"),
        ("code/plant", None, "a URL or a path"),
        (".", None, "a URL or a path"),
        ("pandas==${PANDAS}", "pandas", "environment variable"),
        ("pandas==2.2# pinned", "pandas", "is not a requirement"),
        ("pytz>dev", "pytz", "is not a requirement"),
        ("numpy ==", "numpy", "is not a requirement"),
        ("--frobnicate x", None, "no option of pip's"),
        ("numpy --frobnicate", "numpy", "no option of pip's"),
        ("-r 'open", None, "no option of pip's"),
    ],
)
def test_what_a_component_cannot_take_is_named_with_the_reason(
    tmp_path: Path, text: str, name: str | None, problem: str
) -> None:
    (line,) = lines(tmp_path, text)
    assert (line.kind, line.text, line.name, line.requirement) == (LineKind.UNUSABLE, text, name, None)
    assert problem in line.problem


def test_a_deep_marker_is_read_or_refused(tmp_path: Path) -> None:
    """Whether it is too deep depends on the version of `packaging`."""
    (line,) = lines(tmp_path, "numpy; " + "(" * 400 + "python_version > '3'" + ")" * 400)
    assert line.name == "numpy"
    assert line.problem.startswith("is not a requirement") or line.requirement == 'numpy; python_version > "3"'


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("--extra-index-url https://user:word@a.b/simple", LineKind.INDEX_OPTION),
        ("-i https://a.b/simple --trusted-host a.b", LineKind.INDEX_OPTION),
        ("--find-links=./wheels", LineKind.INDEX_OPTION),
        ("--no-index", LineKind.INDEX_OPTION),
        ("--pre", LineKind.BUILD_OPTION),
        ("--no-binary :all:", LineKind.BUILD_OPTION),
        ("--require-hashes", LineKind.BUILD_OPTION),
    ],
)
def test_options_that_need_not_matter_are_known(tmp_path: Path, text: str, kind: LineKind) -> None:
    assert [line.kind for line in lines(tmp_path, f"{text}\nnumpy")] == [kind, LineKind.REQUIREMENT]


def test_a_constraint_has_no_extras(tmp_path: Path) -> None:
    found = lines(tmp_path, "-c c.txt", **{"c.txt": "skops[rich]==1\nnumpy @ https://a.b/c.whl"})
    assert [line.kind for line in found] == [LineKind.UNUSABLE] * 2


def test_files_without_end_end(tmp_path: Path) -> None:
    chain = {f"{n}.txt": f"-r {n + 1}.txt" for n in range(50)}
    with pytest.raises(ModelError, match="more than 20 requirements files"):
        lines(tmp_path, "-r 0.txt", **chain)
    with pytest.raises(ModelError, match="more than 5000 lines"):
        lines(tmp_path, "a\n" * 5001)
    with pytest.raises(ModelError, match="line 1: is longer than"):
        lines(tmp_path, "a" * 1001)
    with pytest.raises(ModelError, match="line 1: is longer than"):
        lines(tmp_path, "a " + "--hash=sha256:00 " * 5000)
