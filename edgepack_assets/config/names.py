"""Names in edgepack.yaml that must differ from each other: model types, and what they register."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edgepack_assets.partitions import is_model_type_name


def registered_name(package_name: str) -> str:
    """The name under which a deployment package is registered: `<Package-Name>-edge`."""
    return package_name.replace(" ", "-") + "-edge"


def delta_name(registered: str) -> str:
    """The name under which the deltas of a deployment package are registered: `<Package-Name>-edge-delta`."""
    return f"{registered}-delta"


def name_conflicts(model_types: object) -> Iterator[tuple[Sequence[int | str], str]]:
    """(keys, message) for names of model types that cannot be used, and for names that two of them share.

    It reads the configuration as it is written, which may have other mistakes."""
    entries = model_types if isinstance(model_types, Mapping) else {}
    owners: dict[str, str] = {}
    for name, entry in entries.items():
        if not isinstance(name, str) or not isinstance(entry, Mapping):
            continue
        if not is_model_type_name(name):
            yield (
                ("model_types", name),
                f"model type {name!r}: use letters, digits, _ and -, starting with a letter",
            )
        package = entry.get("package_name")
        if isinstance(package, str):
            registered = registered_name(package)
            if registered in owners:
                yield (
                    ("model_types", name, "package_name"),
                    f"model types {owners[registered]!r} and {name!r} both register {registered!r}; "
                    "give each a package_name of its own",
                )
            owners.setdefault(registered, name)
    for name, entry in entries.items():
        model = entry.get("model_name") if isinstance(entry, Mapping) else None
        of_delta = model.removesuffix("-delta") if isinstance(model, str) else ""
        if isinstance(model, str) and model == delta_name(of_delta) and of_delta in owners:
            yield (
                ("model_types", name, "model_name"),
                f"model type {name!r}: its model_name {model!r} is the name under which "
                f"{owners[of_delta]!r} registers deltas of its packages",
            )
        if isinstance(model, str) and model in owners:
            yield (
                ("model_types", name, "model_name"),
                f"model type {name!r}: its model_name {model!r} is the name under which "
                f"{owners[model]!r} registers its packages",
            )
