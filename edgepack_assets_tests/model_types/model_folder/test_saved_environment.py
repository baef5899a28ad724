"""The environment of a model: requirements.txt and conda.yaml together, and the configuration's word on each line.
Every refusal's advice is followed, and has to work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

from edgepack_assets.config.schema import ModelTypeSettings
from edgepack_assets.errors import ModelError
from edgepack_assets.model_types.model_folder.saved_environment import (
    SavedEnvironment,
    configured_requirements,
    edge_python,
    saved_environment,
)

PINNED = "mlflow==2.20.1\nnumpy==1.25.2\nscikit-learn==1.4.2\n"


def entry(**values: Any) -> ModelTypeSettings:
    given = {"implementation": "state_identifier", "model_name": "m", "package_name": "p", "raw_data": {"name": "r"}}
    return ModelTypeSettings.model_validate({**given, **values})


def read(folder: Path, configured: ModelTypeSettings | None = None, only: Any = None, **files: str) -> SavedEnvironment:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return saved_environment(folder, configured or entry(), only)


def advice(error: ModelError) -> dict[str, Any]:
    """The lines of the message that a person copies into edgepack.yaml."""
    (line,) = re.findall(r"^ {4}(replace_requirements: .*)$", str(error), re.MULTILINE)
    found: dict[str, Any] = yaml.safe_load(line)
    return found


def test_what_conda_installs_is_added_to_what_pip_installs(tmp_path: Path) -> None:
    conda = (
        "channels: [conda-forge]\ndependencies:\n- python=3.12.1\n- conda-forge::scikit-learn=1.4.2=py312_0\n"
        "- numpy=1.25\n"
        "- pip<=24\n- libopenblas=0.3.25\n- cloudpickle=2.0.0\n- pip:\n  - mlflow==2.20.1\n  - cloudpickle==3.0.0\n"
    )
    found = read(tmp_path, conda__yaml=conda, requirements__txt="mlflow==2.20.1\ncloudpickle==3.0.0\n")
    assert found.requirements == ("mlflow==2.20.1", "cloudpickle==3.0.0", "scikit-learn==1.4.2", "numpy==1.25.*")
    assert found.python_version == "3.12"
    tools, native = found.parts
    assert (tools.passed, tools.name) == (True, "conda.yaml: tools")
    assert "pip<=24" in tools.found
    assert (native.passed, native.warns) == (False, True)
    assert "libopenblas=0.3.25" in native.found
    (tmp_path / "requirements.txt").unlink()
    assert read(tmp_path).requirements == found.requirements


@pytest.mark.parametrize(
    ("saved", "key"),
    [
        ("git+https://user:word@a.b/plant.git@v1#egg=plant", "plant"),
        ("git+https://a.b/plant.git", None),
        ("plant @ file:///croot/plant", "plant"),
        ("-e .", None),
        ("-e   ./code # ours", None),
        ("-r more.txt", None),
        ("-r ../more.txt", None),
        ("-c /etc/passwd", None),
        ("-c https://a.b/constraints.txt", None),
        ("./dist/plant-1.0-py3-none-any.whl", "plant"),
        ("pandas==${PANDAS}", "pandas"),
        ("pytz>dev", "pytz"),
        ("--frobnicate 'a b'", None),
        ('wörter "und" mehr', None),
    ],
)
def test_the_advice_of_every_refusal_works(tmp_path: Path, saved: str, key: str | None) -> None:
    text = f"{PINNED}{saved}\n"
    with pytest.raises(ModelError, match=r"requirements\.txt: line 4: ") as caught:
        read(tmp_path, requirements__txt=text)
    assert "word" not in str(caught.value)
    told = advice(caught.value)
    kept = tuple(PINNED.split())
    assert read(tmp_path, entry(**told)).requirements == kept
    ((line, value),) = told["replace_requirements"].items()
    assert value is None
    assert read(tmp_path, entry(replace_requirements={line: "plant==1.0"})).requirements == (*kept, "plant==1.0")
    if key is not None:  # whatever version the next model was saved with
        assert read(tmp_path, entry(replace_requirements={key: None})).requirements == kept
        assert read(tmp_path, entry(requirements=[f"{key}==1.0"])).requirements == kept


@pytest.mark.parametrize(
    "conda", ["r-base=4.3", "numpy=1.24|1.25", "https://a.b/plant-1.0-0.conda", "openjdk", "plant=1.0w"]
)
def test_a_conda_package_that_cannot_be_is_refused_with_advice_that_works(tmp_path: Path, conda: str) -> None:
    with pytest.raises(ModelError, match=r"conda\.yaml: ") as caught:
        read(tmp_path, conda__yaml=f"dependencies: ['{conda}', scipy=1.11.4]")
    assert read(tmp_path, entry(**advice(caught.value))).requirements == ("scipy==1.11.4",)


def test_all_lines_are_refused_at_once(tmp_path: Path) -> None:
    text = "numpy\n-e .\npytz>dev\n"
    with pytest.raises(ModelError, match=r"(?s)line 2: .*line 3: .*conda.yaml: 'nodejs=20'") as caught:
        read(tmp_path, requirements__txt=text, conda__yaml="dependencies: [nodejs=20]")
    assert list(advice(caught.value)["replace_requirements"]) == ["-e .", "pytz", "nodejs"]
    assert read(tmp_path, entry(**advice(caught.value))).requirements == ("numpy",)


def test_the_configuration_replaces_any_line(tmp_path: Path) -> None:
    files = {
        "requirements__txt": "NumPy==1.25.2\n-c constraints.txt\n--extra-index-url https://a.b\nskops\n",
        "constraints__txt": "joblib==1.3\nnumpy<2\n",
        "conda__yaml": "dependencies: [pytorch=2.1, libopenblas]",
    }
    plain = read(tmp_path, **files)
    assert plain.requirements == ("NumPy==1.25.2", "skops", "torch==2.1.*")
    assert plain.constraints == ("joblib==1.3", "numpy<2")
    assert [part.name for part in plain.parts] == ["conda.yaml: libraries of the system", "requirements.txt: options"]
    replaced = read(tmp_path, entry(replace_requirements={
        "numpy": "numpy==1.26.0", "--extra-index-url https://a.b": None, "pytorch=2.1": "torch==2.2.0", "skops": None,
        "libopenblas": None, "joblib==1.3": "joblib==1.4",
    }))  # fmt: skip
    assert replaced.requirements == ("numpy==1.26.0", "torch==2.2.0")
    assert replaced.constraints == ("joblib==1.4", "numpy==1.26.0")
    assert replaced.parts == ()
    without = read(tmp_path, entry(replace_requirements={"-c constraints.txt": None}))
    assert (without.requirements, without.constraints) == (plain.requirements, ())
    # what the configuration requires is not bounded by what it replaces
    assert read(tmp_path, entry(requirements=["numpy==2.0"])).constraints == ("joblib==1.3",)


def test_a_replacement_that_matches_nothing_is_a_row_that_warns(tmp_path: Path) -> None:
    """Else a mistyped line is installed, and nobody hears of it."""
    keys = {"numpy": "numpy==1.26.0", "joblib == 1.3": None, "scikit-lern": "scikit-learn==1.5.2", "mlflow": None}
    found = read(tmp_path, entry(replace_requirements=keys), requirements__txt=PINNED)
    (row,) = found.parts
    assert (row.name, row.passed, row.warns) == ("replace_requirements", False, True)
    assert row.found == "nothing in the model's files matches: joblib == 1.3, scikit-lern"
    only = read(tmp_path, entry(replace_requirements={"numpy": None, "x": None}), only={"onnxruntime"})
    assert [part.found for part in only.parts] == ["nothing in the model's files matches: x"]


def test_python_env_dependencies_are_read_as_requirements(tmp_path: Path) -> None:
    text = "python: 3.11.7\nbuild_dependencies: [pip==24, wheel]\ndependencies: [%s]\n"
    usual = read(tmp_path, requirements__txt=PINNED, python_env__yaml=text % "-r requirements.txt")
    assert usual == read(tmp_path, python_env__yaml=text % '"--requirement=./requirements.txt", numpy==1.25.2')
    assert "numpy==1.25.2" in usual.requirements
    more = read(
        tmp_path, python_env__yaml=text % "-r requirements.txt, skops==0.10, -c bounds.txt", bounds__txt="joblib<2"
    )
    assert more.requirements == (*usual.requirements, "skops==0.10")
    assert more.constraints == ("joblib<2",)
    replaced = read(tmp_path, entry(replace_requirements={"skops": "skops==0.11"}))
    assert "skops==0.11" in replaced.requirements
    with pytest.raises(ModelError, match=r"python_env.yaml: dependencies: 'git\+https://a.b/c' is a URL") as refused:
        read(tmp_path, python_env__yaml=text % "git+https://a.b/c")
    assert read(tmp_path, entry(**advice(refused.value))) == usual
    with pytest.raises(ModelError, match=r"python_env.yaml: dependencies.1: must be text"):
        read(tmp_path, python_env__yaml=text % "numpy, {pip: [a]}")


def test_an_index_of_the_model_is_passed_over_and_said_without_its_password(tmp_path: Path) -> None:
    found = read(tmp_path, requirements__txt="--extra-index-url https://me:word@a.b/simple\n--pre\nnumpy\n")
    assert [(part.passed, part.warns) for part in found.parts] == [(False, True)] * 2
    assert "passed over: --extra-index-url https://a.b/simple" in found.parts[0].found
    assert "runtime.extra_index_urls" in found.parts[0].wanted


def test_only_what_runs_the_file_has_to_be_sound(tmp_path: Path) -> None:
    files = {
        "requirements__txt": "-e .\ngit+https://a.b/c\nnumpy==1.25.2\n-c constraints.txt\n-r /etc/passwd\n",
        "constraints__txt": "pillow<11\ntensorflow==2.15.0\nx y z\n",
        "conda__yaml": "dependencies: [r-base, onnxruntime=1.17, pytorch, libopenblas]",
    }
    found = read(tmp_path, only={"numpy", "onnxruntime", "pillow"}, **files)
    assert found.requirements == ("numpy==1.25.2", "onnxruntime==1.17.*")
    assert found.constraints == ("pillow<11",)
    assert found.parts == ()


def test_mlflow_need_not_be_sound_where_it_is_left_out(tmp_path: Path) -> None:
    text = "mlflow @ git+https://a.b/mlflow\nnumpy\n"
    assert read(tmp_path, requirements__txt=text).requirements == ("numpy",)
    with pytest.raises(ModelError, match="line 1"):
        read(tmp_path, entry(keep_mlflow=True))


@pytest.mark.parametrize(
    ("stated", "version"),
    [
        ("3.11.7", "3.11"),
        ("3.10", "3.10"),
        ("3.12", "3.12"),
        ("==3.12.1", "3.12"),
        ("==3.12.*", "3.12"),
        ("3.11.0rc2", "3.11"),
        ("3.11.7 | packaged by conda-forge", "3.11"),
        (">=3.9,<3.12", "3.11"),
        (">3.11,<3.13", "3.11"),
        (">=3.12", "3.12"),
        ("3", "3.11"),
        ("<3.10", "<3.10"),
        ("~=3.12.0", "3.12"),
        ("snake", "snake"),
        ("3.110", "3.110"),
    ],
)
def test_a_python_is_what_is_written(stated: str, version: str) -> None:
    assert edge_python(stated) == version


@pytest.mark.parametrize(
    "files",
    [
        {"MLmodel": "flavors: {python_function: {python_version: 3.10}}", "python_env__yaml": "python: 3.12"},
        {"MLmodel": "flavors:\n", "python_env__yaml": "python: 3.10\n"},
        {"conda__yaml": "dependencies: [python=3.10]"},
        {"conda__yaml": "dependencies: ['conda-forge::python 3.10.14 h1_0_cpython']"},
    ],
)
def test_a_python_3_10_is_3_10_wherever_it_stands(tmp_path: Path, files: dict[str, str]) -> None:
    assert read(tmp_path, **files).python_version == "3.10"


def test_the_configuration_s_own_file_is_read_as_pip_reads_it(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "r.txt").write_text("numpy==1.25.2 \\\n --hash=sha256:00\n-r more.txt\n")
    (real / "more.txt").write_text("scipy\t# why\n")
    (tmp_path / "linked.txt").symlink_to(real / "r.txt")
    assert configured_requirements(entry(requirements_file=tmp_path / "linked.txt")) == ["numpy==1.25.2", "scipy"]
    for line, message in (("-e .", "local project"), ("-i https://a.b", "index_url"), ("x y", "not a requirement")):
        (real / "r.txt").write_text(f"{line}\n")
        with pytest.raises(ModelError, match=rf"real/r.txt: line 1: .*{message}"):
            configured_requirements(entry(requirements_file=real / "r.txt"))


def test_a_comment_may_be_in_any_encoding(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes("numpy==1.25.2 # größer\n".encode("cp1252"))
    assert saved_environment(tmp_path, entry()).requirements == ("numpy==1.25.2",)
    (tmp_path / "requirements.txt").write_bytes("größe==1\n".encode("cp1252"))
    with pytest.raises(ModelError, match=r"line 1: .* is not a requirement"):
        saved_environment(tmp_path, entry())


def test_a_refusal_is_short_however_much_is_wrong(tmp_path: Path) -> None:
    conda = "dependencies:\n" + "".join(f"- r-{n}\n" for n in range(4_000))
    with pytest.raises(ModelError, match="and 3980 more lines") as caught:
        read(tmp_path, conda__yaml=conda)
    assert len(str(caught.value)) < 10_000
    with pytest.raises(ModelError, match=r"conda.yaml: more than 5000 packages"):
        read(tmp_path, conda__yaml=conda + "- numpy\n" * 2_000)


SOUND = {
    "MLmodel": "flavors:\n  python_function:\n    code: code\n    env: {conda: conda.yaml, virtualenv: v.yaml}\n"
    "    python_version: 3.11.7\n  sklearn:\n    pickled_model: model.pkl\n    sklearn_version: 1.4.2\n",
    "requirements.txt": "mlflow==2.20.1\nnumpy==1.25.2 \\\n  --hash=sha256:00\n-c constraints.txt\n",
    "constraints.txt": "threadpoolctl==3.4.0\n",
    "conda.yaml": "dependencies:\n- python=3.11.7\n- scipy=1.11\n- pip\n- pip:\n  - -r requirements.txt\n",
    "v.yaml": "python: 3.11.7\nbuild_dependencies:\n- pip\n",
}
PIECES = (
    "\n", "- ", "  ", ": ", "[", "]", "{", "}", "'", '"', "&a ", "*a", "!!x ", "\t", "#", "\\", "-r ", "-c ", "-e ",
    "==",
    "@ ", "://", "${X}", "../", "/etc", "null", "~", "|\n", "%", "\0", "pip:", "flavors:", "code:", "env:", "*",
    "(", ";",
    "::", "|",
)  # fmt: skip


@hypothesis_settings(max_examples=150)
@given(
    name=st.sampled_from(sorted(SOUND)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.sampled_from(PIECES), st.integers(0, 20)), min_size=1, max_size=6),
)
def test_a_folder_of_damaged_files_is_read_or_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, name: str, changes: list[tuple[float, str, int]]
) -> None:
    root = tmp_path_factory.getbasetemp() / "damaged"
    root.mkdir(exist_ok=True)
    text = SOUND[name]
    for at, piece, removed in changes:
        place = round(at * len(text))
        text = text[:place] + piece + text[place + removed :]
    for file, content in {**SOUND, name: text}.items():
        (root / file).write_text(content)
    try:
        found = saved_environment(root, entry())
    except ModelError as error:
        assert str(error)
    else:
        assert all(Requirement(line) for line in (*found.requirements, *found.constraints))


def test_a_conda_file_that_is_named_and_missing_is_a_row_that_warns(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("cloudpickle==3.1.1\n")
    text = "flavors: {python_function: {env: {conda: envs/train.yaml, virtualenv: python_env.yaml}}}\n"
    (tmp_path / "MLmodel").write_text(text)
    (row,) = saved_environment(tmp_path).parts
    assert (row.name, row.passed, row.warns) == ("envs/train.yaml: is there", False, True)
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs/train.yaml").write_text("dependencies: [numpy=1.26.4]\n")
    assert saved_environment(tmp_path).parts == ()
    assert "numpy==1.26.4" in saved_environment(tmp_path).requirements
