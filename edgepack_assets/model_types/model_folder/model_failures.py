"""Why a model could not be inspected, in words that lead on: which versions meet, and which setting to change.

The failures themselves come from the sandbox. Here they are put together with what is known of the model: what it was
saved with, what it was loaded with, and whose bytecode its pickle holds.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Literal

from packaging.utils import canonicalize_name

from edgepack_assets.config.schema import EDGE_PYTHONS
from edgepack_assets.environments.environment import Environment
from edgepack_assets.errors import ComponentError, ModelError
from edgepack_assets.model_types.model_folder import pickle_origin
from edgepack_assets.sandbox.child_death import ChildDiedError
from edgepack_assets.sandbox.jobs import CallJob
from edgepack_assets.sandbox.sandbox import ChildFailure, Sandbox, TaskFailedError
from edgepack_assets.sandbox.untrusted_values import Text, UntrustedReport, parse_report

_PICKLES = (".pkl", ".pickle", ".joblib")
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGBUS, signal.SIGFPE}
_NO_ATTRIBUTE = re.compile(r"Can't get attribute '(?P<name>[^']+)' on <module '(?P<module>[^']+)'")
_DAMAGED = re.compile(
    r"(EOFError|UnpicklingError|BadGzipFile|LZMAError|error: Error -\d|OSError: (Invalid data stream|CRC check failed))"
    r"|RuntimeError: LZ4F"
)
"""How pickle and what unpacks it for joblib (zlib, gzip, bz2, lzma, lz4) say that bytes are missing or not theirs."""
_SETTING = "of its model type in edgepack.yaml"


class Origin(UntrustedReport):
    """What `pickle_origin.origin` says of a pickle."""

    bytecode: Literal["none", "this", "older", "other"] = "none"
    scikit_learn: Text | None = None


@dataclass(frozen=True)
class Loading:
    """What a model is loaded with, and what it says it was saved with: distribution, or `python`, -> version."""

    environment: Environment
    saved: Mapping[str, str]

    @property
    def python(self) -> str:
        """The component's Python, 3.x."""
        return self.environment.lock.python

    def version(self, distribution: str) -> str | None:
        """The version of a distribution in the environment, if it is there."""
        return next((p.version for p in self.environment.lock.packages if p.name == distribution), None)

    def distribution_of(self, module: str) -> str | None:
        """The distribution of the environment that holds a module of that top-level name."""
        top = _top(module)
        for folder in self.environment.folder.glob("lib/python*/site-packages"):
            for installed in distributions(path=[str(folder)]):
                tops = {file.parts[0].split(".")[0] for file in installed.files or ()}
                if top in tops:
                    return canonicalize_name(installed.metadata["Name"])
        return None


def origin_of(
    model: Path, component: Path, environment: Environment, child_imports: Sequence[str], sandbox: Sandbox
) -> Origin:
    """What the bytes of a pickled model say of the Python that wrote it, read in a child; nothing of another file."""
    if model.suffix.lower() not in _PICKLES:
        return Origin()
    subject = f"reading {model.name}"
    arguments = {"file": model.relative_to(component).as_posix()}
    job = CallJob(component, Path(pickle_origin.__file__), "origin", arguments)
    try:
        return parse_report(subject, Origin, sandbox.run(subject, environment, child_imports, job))
    except ComponentError:
        return Origin()  # the failure that is to be explained says enough


def explained(
    error: ComponentError, subject: str, code: str, loading: Loading, origin: Origin
) -> ComponentError | ModelError:
    """The error in words that say what to change; the error itself where there is nothing to add.

    `subject` is what was done, `code` whose function did it: it is named where the fault may be its own."""
    other_python = _other_python(loading, origin)
    if isinstance(error, TaskFailedError):
        return _of_failure(error.failure, f"{subject} failed in {code}", loading, origin, other_python)
    if not isinstance(error, ChildDiedError) or error.signal not in _CRASHES:
        return error
    if not other_python:
        saved = _saved_otherwise(loading, origin)
        other_python = (
            "compiled code crashed, which happens where a model is loaded with other versions than it was "
            + (
                f"saved with ({saved}). Pin them under `requirements` {_SETTING}"
                if saved
                else f"saved with. Pin those under `requirements`, and name its Python as `python_version`, {_SETTING}"
            )
        )
    return ModelError(f"the model cannot be loaded: {other_python}. ({error})")


def _of_failure(
    failure: ChildFailure, otherwise: str, loading: Loading, origin: Origin, other_python: str
) -> ModelError:
    raised = f"{failure.type}: {failure.message}"
    if failure.importing:
        text = _failed_import(failure.importing, raised, loading)
    elif other_python:
        text = f"the model cannot be loaded: {other_python}. ({raised})"
    elif failure.for_user:
        text = f"the model cannot be packaged: {failure.message}"
    elif failure.type in ("ModuleNotFoundError", "ImportError") and failure.name:
        text = _missing_module(failure.name, failure.message, loading, origin)
    elif failure.type == "AttributeError" and "__main__" in failure.message:
        text = (
            f"the model names code of the script that trained it ({failure.message}): move that code into a module, "
            "train again, and ship the module with the model"
        )
    elif missing := _NO_ATTRIBUTE.search(failure.message):
        text = _missing_name(missing["name"], missing["module"], failure.message, loading, origin)
    elif _DAMAGED.match(raised):
        text = (
            f"the model's file cannot be read ({raised}): it is damaged or cut short. Save the model again, or copy it "
            "again, and register that as the next version"
        )
    else:
        saved = _saved_otherwise(loading, origin)
        hint = f" (saved and loaded with other versions: {saved}; pin them under `requirements` {_SETTING})"
        text = f"{otherwise}: {raised}{hint if saved else ''}\n{failure.traceback}"
    return ModelError(text)


def _missing_module(module: str, message: str, loading: Loading, origin: Origin) -> str:
    distribution = loading.distribution_of(module)
    if distribution is not None:
        return _moved(message, distribution, loading, origin)
    if _top(module) == "mlflow":
        return (
            "the model's own code imports mlflow (as a PythonModel of pyfunc does), which is not shipped unless the "
            f"configuration says so: put `keep_mlflow: true` {_SETTING}, or save the model without MLflow's classes"
        )
    return (
        f"the model needs the module {module!r}, which the component does not hold: if it is the model's own code, "
        "save it with the model (MLflow code_paths) or name its folder under code_paths in edgepack.yaml; if it is a "
        f"package, add {_top(module)} to the model type's requirements"
    )


def _missing_name(name: str, module: str, message: str, loading: Loading, origin: Origin) -> str:
    distribution = loading.distribution_of(module)
    if distribution is not None:
        return _moved(message, distribution, loading, origin)
    return (
        f"the model needs {name} of the module {module}, and the module that ships with the model has none "
        f"({message}): ship the code that the model was trained with"
    )


def _failed_import(module: str, raised: str, loading: Loading) -> str:
    distribution = loading.distribution_of(module) or module
    names = dict.fromkeys([distribution, "numpy", "scipy"])
    versions = ", ".join(f"{name} {loading.version(name)}" for name in names if loading.version(name))
    return (
        f"{module} cannot be imported on Python {loading.python} with {versions}: {raised}. These versions do not fit "
        f"each other: pin some that do under `requirements` {_SETTING}"
    )


def _moved(message: str, distribution: str, loading: Loading, origin: Origin) -> str:
    at_hand = loading.version(distribution)
    saved = loading.saved.get(distribution) or (origin.scikit_learn if distribution == "scikit-learn" else None)
    if saved is not None and saved != at_hand:
        return (
            f"the model was saved with {distribution} {saved} and loaded with {distribution} {at_hand}, which lacks "
            f"something that it needs ({message}): pin {distribution}=={saved} under `requirements` {_SETTING}"
        )
    return (
        f"{distribution} {at_hand} lacks something that the model needs ({message}): it was saved with another version "
        f"of {distribution}, which its files do not say. Pin that under `requirements` {_SETTING}, "
        f"e.g. {distribution}==VERSION"
    )


def _saved_otherwise(loading: Loading, origin: Origin) -> str:
    """Versions that differ between saving and loading."""
    saved = dict(loading.saved)
    if origin.scikit_learn is not None:
        saved.setdefault("scikit-learn", origin.scikit_learn)
    at_hand = {name: loading.python if name == "python" else loading.version(name) for name in saved}
    return ", ".join(
        f"{'Python' if name == 'python' else name} {version}, here {at_hand[name]}"
        for name, version in sorted(saved.items())
        if at_hand[name] is not None and not _same(version, str(at_hand[name]))
    )


def _same(saved: str, at_hand: str) -> bool:
    """A saved Python may be 3.11.7 where the environment says 3.11."""
    return saved == at_hand or saved.startswith(f"{at_hand}.")


def _other_python(loading: Loading, origin: Origin) -> str:
    """Why the pickle's bytecode does not run here, and what to do; "" if it does, as far as is known."""
    if origin.bytecode not in ("older", "other"):
        return ""
    said = loading.saved.get("python")
    written = f"Python {said}" if said is not None and not _same(said, loading.python) else (
        "Python 3.10 or older" if origin.bytecode == "older" else f"another Python than {loading.python}"
    )  # fmt: skip
    others = [python for python in EDGE_PYTHONS if python != loading.python]
    fitting = [python for python in others if said is None or _same(said, python)]
    again = f"save the model again with Python {' or '.join(EDGE_PYTHONS)}, which the server runs"
    advice = again
    if origin.bytecode == "other" and fitting:
        advice = f'set `python_version: "{fitting[0]}"` {_SETTING} if that is the one that wrote it, else {again}'
    return (
        f"its pickle holds compiled code of {written} (functions or classes that cloudpickle stored whole, as those of "
        f"a notebook or script), and it was loaded with Python {loading.python}, which cannot run that: {advice}"
    )


def _top(module: str) -> str:
    return module.partition(".")[0]
