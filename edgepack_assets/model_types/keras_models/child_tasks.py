"""What runs in the sandbox, in an environment with TensorFlow (or, for `read_hdf5`, h5py): reading and converting a
Keras or TensorFlow model, and answering a payload with it as it was registered.

The working directory holds the image classifier's component, whose code turns a record into the model's input: the
original and the converted model see the same tensors. Nothing of this, and nothing of TensorFlow, ships.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
import itertools
import json
import os
import re
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

_LARGEST_CONFIG = 4 << 20
_LISTED, _BATCH = 10, 16
NO_ANSWER, NOT_FINITE = -1, -2
"""In place of a class: the record holds no image that can be read; the model's scores are not finite numbers."""
ANSWER = struct.Struct("<if")
"""A record's class and probability, as `answer_original` writes them."""
_CLOSE = 1e-3
"""How far the scores of a float conversion may lie from the original's, as a share of the largest, on test images.
Measured: 1e-5. This is no comparison, which the payload is for, but finds a conversion that went wrong."""
_UNKNOWN = re.compile(
    r"(?:Unknown (?:layer|\w+): |Could not locate (?:class|function) |Cannot deserialize object of type )"
    r"['`]?([\w>]+(?:\.[\w>]+)*)"
)
"""How the versions of Keras say that they don't know a class or function."""


class UnfitModelError(ValueError):
    """The model cannot be converted; the text says why and what to do."""

    is_for_user = True


def read_hdf5(arguments: dict[str, Any]) -> dict[str, Any]:
    """The texts that Keras writes beside the weights of an HDF5 file, or None: its version and the model's
    configuration."""
    import h5py

    try:
        with h5py.File(arguments["model"], "r") as file:
            texts = {name: _text(file.attrs, name) for name in ("keras_version", "model_config")}
    except OSError as error:
        raise UnfitModelError(f"it is not an HDF5 file that can be read ({error}); was it copied whole?") from None
    return {"keras_version": texts["keras_version"], "configuration": texts["model_config"]}


def _text(attributes: Any, name: str) -> str | None:
    if name not in attributes:
        return None
    value = attributes[name]
    try:
        text = value.decode("utf-8") if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as error:
        raise UnfitModelError(f"its {name} cannot be read ({error}); was it copied whole?") from None
    if len(text) > _LARGEST_CONFIG:
        raise UnfitModelError(f"its {name} has {len(text)} characters; at most {_LARGEST_CONFIG} are read")
    return text


def convert(arguments: dict[str, Any]) -> dict[str, Any]:
    """Convert `model` into the .tflite file `converted`, and look whether that answers test images at all.

    `records`: the payload's records that a full integer conversion is calibrated with, gzipped JSON lines."""
    original = Original(arguments)
    images = _images(original, arguments)
    converter = original.converter()
    _set_option(converter, arguments["to"], images, arguments.get("records"))
    with _as_refusal(original):
        converted = _quietly(converter.convert)
    Path(arguments["converted"]).write_bytes(converted)
    return {
        "versions": {"tensorflow": original.tf.__version__, "keras": original.keras_version},
        "difference": _try_out(
            original, converted, images, is_float=arguments["to"] == "float" and not original.is_mixed
        ),
    }


def learned_means(arguments: dict[str, Any]) -> dict[str, Any]:
    """What the first Normalization layer learned from the training data: three means at most, or None."""
    return {"means": Original(arguments).learned_means()}


def answer_original(arguments: dict[str, Any]) -> dict[str, Any]:
    """Write class and probability that the original gives to each of `records` into the file `answers`."""
    inference, decoding = importlib.import_module("inference"), importlib.import_module("decoding")
    original = Original(arguments)
    images = _images(original, arguments)
    count = 0
    with gzip.open(arguments["records"], "rb") as lines, Path(arguments["answers"]).open("wb") as answers:
        for batch in iter(lambda: list(itertools.islice(lines, original.batch)), []):
            tensors = []
            for line in batch:
                with contextlib.suppress(decoding.NoAnswer):
                    tensors.append(images.fill(decoding.decode(json.loads(line).get("vision_payload")))[0].copy())
                    continue
                tensors.append(None)
            shown = [tensor for tensor in tensors if tensor is not None]
            scores = iter(original.answer(np.stack(shown)) if shown else ())
            for tensor in tensors:
                answer = (NO_ANSWER, 0.0)
                if tensor is not None:
                    answer = (NOT_FINITE, 0.0)
                    with contextlib.suppress(inference.NoAnswer):
                        answer = inference.read_scores(next(scores), arguments["scores"])
                answers.write(ANSWER.pack(*answer))
                count += 1
    return {"records": count}


class Original:
    """The model as it was registered, loaded: `shape` and `dtype` of its input, `answer` for a batch."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        if arguments["keras"] == 2:
            os.environ["TF_USE_LEGACY_KERAS"] = "1"
        import tensorflow

        self.tf: Any = tensorflow
        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
        self.keras: Any = importlib.import_module("tf_keras" if arguments["keras"] == 2 else "keras")
        self.keras_version = str(self.keras.__version__)
        self._is_saved_model = arguments["kind"] == "saved_model"
        self._call: Callable[[Any], Any]
        load = self._load_saved_model if self._is_saved_model else self._load_keras
        name, self.shape, self.dtype = load(Path(arguments["model"]), arguments)
        self.name = name
        if len(self.shape) != 4:
            raise UnfitModelError(f"its input {name!r} is {self.shape_text}, not batch, height, width and channels")
        if None in self.shape[1:]:
            raise UnfitModelError(
                f"its input {name!r} is {self.shape_text}: height, width and channels are not all fixed, and a "
                "TensorFlow Lite file is for one size; save the model with a fixed one, as Input(shape=(224, 224, 3))"
            )
        if self.shape[0] not in (1, None):
            raise UnfitModelError(f"its input {name!r} is {self.shape_text}: it takes {self.shape[0]} images at a time")
        self.batch = 1 if self.shape[0] == 1 else _BATCH

    @property
    def shape_text(self) -> str:
        """As a person reads it."""
        return "x".join("?" if size is None else str(size) for size in self.shape)

    def answer(self, batch: Any) -> Any:
        """The scores for a batch of images: a row of 32 bit floats for each."""
        return np.asarray(self._call(self.tf.constant(batch))).astype(np.float32).reshape(len(batch), -1)

    def converter(self) -> Any:
        """The converter of this model."""
        if self._is_saved_model:
            # from_saved_model gives a file that answers NaN for what Keras 3 wrote by tf.saved_model.save.
            return self.tf.lite.TFLiteConverter.from_concrete_functions([self._signature], self._model)
        return self.tf.lite.TFLiteConverter.from_keras_model(self._in_float32())

    @property
    def is_mixed(self) -> bool:
        """Whether layers compute in 16 bits: then the original itself rounds, and its float32 twin does not."""
        layers = () if self._is_saved_model else self._model._flatten_layers()
        return any(getattr(layer, "compute_dtype", None) == "float16" for layer in layers)

    def learned_means(self) -> list[float] | None:
        """See learned_means. Of a Keras model only."""
        for layer in self._model._flatten_layers(include_self=False):
            if type(layer).__name__ == "Normalization" and getattr(layer, "mean", None) is not None:
                return [float(mean) for mean in np.asarray(layer.mean).reshape(-1)[:3]]
        return None

    def _load_saved_model(self, folder: Path, arguments: dict[str, Any]) -> tuple[str, tuple[int | None, ...], str]:
        wanted = arguments["signature"]
        with _loading("TensorFlow", self.tf.__version__):
            self._model = self.tf.saved_model.load(str(folder))
        signatures = dict(self._model.signatures)
        if wanted not in signatures:
            raise UnfitModelError(f"TensorFlow finds no signature {wanted!r} in it, although its file names one")
        function = self._signature = signatures[wanted]
        given = function.structured_input_signature[1]
        source = _only(list(given), "input")
        target = _only(list(function.structured_outputs), "output")
        self._call = lambda batch: function(**{source: batch})[target]
        spec = given[source]
        return source, _sizes(spec.shape), spec.dtype.name

    def _load_keras(self, file: Path, arguments: dict[str, Any]) -> tuple[str, tuple[int | None, ...], str]:
        custom = _custom_objects(arguments.get("code"))
        with _loading("Keras", self.keras_version):
            self._model = self.keras.models.load_model(
                str(file), compile=False, safe_mode=not arguments["allow_lambda"], custom_objects=custom
            )
        tensors: list[Any] = [getattr(self._model, name, None) for name in ("inputs", "outputs")]
        if None in tensors:
            raise UnfitModelError(
                "it is a class of its own that does not say what it takes; save it by model.export(folder) instead"
            )
        source = _only(list(tensors[0]), "input")
        # A Sequential of Keras 3 has no output_names, and its tensors' names are of no use to a person.
        _only(list(getattr(self._model, "output_names", tensors[1])), "output")
        function = self.tf.function(lambda batch: self._model(batch, training=False))
        self._call = function
        dtype = getattr(source.dtype, "name", source.dtype)
        return str(source.name), _sizes(source.shape), str(dtype)

    def _in_float32(self) -> Any:
        """A model trained in mixed precision computes in 16 bits, for which TensorFlow Lite has no kernels. Its weights
        are 32 bits wide, so the same layers computing in 32 bits are the model as well as can be."""
        if not self.is_mixed:
            return self._model

        def in_float32(layer: Any) -> Any:
            return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

        twin = self.keras.models.clone_model(self._model, clone_function=in_float32)
        twin.set_weights(self._model.get_weights())
        return twin


def _only(tensors: list[Any], kind: str) -> Any:
    if len(tensors) != 1:
        names = ", ".join(str(getattr(each, "name", each)) for each in tensors[:_LISTED])
        raise UnfitModelError(
            f"it has {len(tensors)} {kind}s ({names}); an image classifier has one: save it with that"
        )
    return tensors[0]


def _sizes(shape: Any) -> tuple[int | None, ...]:
    if getattr(shape, "rank", 0) is None:
        raise UnfitModelError(
            "its input has no known number of dimensions, and a TensorFlow Lite file is for one size; save the model "
            "with a fixed one, as Input(shape=(224, 224, 3))"
        )
    return tuple(None if size is None else int(size) for size in shape)


@contextlib.contextmanager
def _loading(library: str, version: str) -> Iterator[None]:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except UnfitModelError:
        raise
    except Exception as error:  # the libraries' own errors have no common base
        text = str(error)
        unknown = _UNKNOWN.search(text)
        if unknown:
            raise UnfitModelError(
                f"it needs {unknown[1]}, which {library} {version} does not have: name the "
                "Python files that define it under code_paths"
            ) from None
        raise UnfitModelError(f"{library} {version} cannot load it: {type(error).__name__}: {text:.1500}") from error


def _custom_objects(folder: str | None) -> dict[str, Any]:
    """What the model's own code defines, by name. Importing it registers what it registers."""
    if folder is None:
        return {}
    sys.path.insert(0, folder)
    objects: dict[str, Any] = {}
    names = [path.stem if path.is_file() else path.name for path in sorted(Path(folder).iterdir())
             if path.suffix == ".py" or (path / "__init__.py").is_file()]  # fmt: skip
    for name in names:
        try:
            module = importlib.import_module(name)
        except Exception as error:
            raise UnfitModelError(f"its code {name} cannot be imported: {type(error).__name__}: {error}") from error
        for key, value in vars(module).items():
            of_the_model = str(getattr(value, "__module__", "")).partition(".")[0] in names
            if callable(value) and of_the_model:
                objects[key] = value
    return objects


def _images(original: Original, arguments: dict[str, Any]) -> Any:
    """How an image enters the model: the component's own code."""
    inference = importlib.import_module("inference")
    tensor = inference.Tensor(original.name, original.shape, original.dtype)
    return inference.ImageInput(tensor, "NHWC", inference.Preprocessing.of(arguments["input"]))


def _set_option(converter: Any, to: str, images: Any, records: str | None) -> None:
    import tensorflow as tf

    if to == "float":
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if to == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if to == "full_integer" and records is not None:
        decoding = importlib.import_module("decoding")

        def representative() -> Iterator[list[Any]]:
            with gzip.open(records, "rb") as lines:
                for line in lines:
                    with contextlib.suppress(decoding.NoAnswer):
                        yield [images.fill(decoding.decode(json.loads(line).get("vision_payload"))).copy()]

        if next(representative(), None) is None:
            raise UnfitModelError("none of the representative records of the payload holds an image that can be read")
        converter.representative_dataset = representative
        # Input and output stay floating point: `input` in edgepack.yaml means the same for every option.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]


@contextlib.contextmanager
def _as_refusal(original: Original) -> Iterator[None]:
    try:
        yield
    except UnfitModelError:
        raise
    except Exception as error:  # the converter's own errors have no common base
        text = str(error)
        lacking = sorted(
            {
                *re.findall(r"'tf\.(\w+)' op (?:is neither a custom op nor a flex op|requires)", text),
                *re.findall(r"TF Select ops: ([\w, ]+)", text),
                *re.findall(r"Custom ops: ([\w, ]+)", text),
            }
        )
        if lacking:
            raise UnfitModelError(
                f"TensorFlow Lite lacks operations that it needs: {', '.join(lacking)}. Those would need TensorFlow's "
                "own kernels (SELECT_TF_OPS), which the component's runtime does not have; build the model without "
                "them"
            ) from None
        raise UnfitModelError(
            f"TensorFlow {original.tf.__version__} cannot convert it: {type(error).__name__}: {text:.1500}"
        ) from error


def _quietly(function: Callable[[], Any]) -> Any:
    """The converter prints hundreds of lines, also from C++, past sys.stdout."""
    sys.stdout.flush()
    kept = os.dup(1)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 1)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return function()
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _try_out(original: Original, converted: bytes, images: Any, is_float: bool) -> float:
    """The largest difference between the scores of both for test images. Raises UnfitModelError where the converted
    model does not run, gives no finite numbers, or, converted to float, other ones."""
    inference = importlib.import_module("inference")
    try:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=converted)
        interpreter.allocate_tensors()
    except Exception as error:  # the runtime's own errors have no common base
        raise UnfitModelError(
            f"the converted model does not run on TensorFlow Lite's own operations: {type(error).__name__}: "
            f"{error!s:.500}"
        ) from error
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    largest = 0.0
    for image in inference.test_images(images.width, images.height):
        tensor = images.fill(image)
        wanted = original.answer(tensor)[0]
        interpreter.set_tensor(source["index"], tensor)
        interpreter.invoke()
        scores = np.asarray(interpreter.get_tensor(target["index"])).astype(np.float32).reshape(-1)
        if scores.shape != wanted.shape:
            raise UnfitModelError(f"the converted model gives {scores.size} scores, the original {wanted.size}")
        if not np.isfinite(wanted).all():
            raise UnfitModelError("the original gives scores for test images that are not finite numbers")
        if not np.isfinite(scores).all():
            raise UnfitModelError(
                "the converted model gives scores that are not finite numbers, where the original's are: the "
                "converter went wrong without saying so"
            )
        difference = float(np.abs(scores - wanted).max())
        if is_float and difference > _CLOSE * max(1.0, float(np.abs(wanted).max())):
            raise UnfitModelError(
                f"the converted model gives other scores than the original (by up to {difference:.3g}) although "
                "nothing was to be rounded: the converter went wrong without saying so"
            )
        largest = max(largest, difference)
    return largest
