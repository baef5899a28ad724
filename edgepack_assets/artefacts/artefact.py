"""The value of an asset: an `Artefact`, which names its bytes and the inputs that it was made from.

It has named parts (each a blob of the artefact store), small facts, the digests of its inputs, and observations such as
timings, which are kept but are no part of its identity. The manifest is its stored form, with a digest over all fields.
The rules for inputs are in tasks/chain.py; the bytes are in store.py.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from edgepack_assets.errors import CorruptError


def canonical_json(value: object) -> bytes:
    """One spelling per value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _as_json(value: dict[str, Any]) -> dict[str, Any]:
    # Keys that are numbers and tuples come back from JSON as something else, and the digest must not change.
    plain: dict[str, Any] = json.loads(canonical_json(value))
    return plain


_MANIFEST_DIGEST = "manifest_digest"


class Blob(BaseModel):
    """Bytes in the store: sha256 (hex), size in bytes, media type."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    media_type: str


class Artefact(BaseModel):
    """The value of an asset: named parts, and the digests of the artefacts they were made from.

    `facts` are small values that later steps need without opening a part. `observations` (timings) differ
    from run to run and are left out of `digest`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    asset: str
    partition: str
    parts: dict[str, Blob]
    facts: Annotated[dict[str, Any], AfterValidator(_as_json)] = {}
    made_from: dict[str, str] = {}
    observations: dict[str, Blob] = {}
    _has_own_digest: bool = PrivateAttr(default=True)

    @property
    def has_own_digest(self) -> bool:
        """Whether its manifest has a digest of its own. Manifests of earlier versions have none."""
        return self._has_own_digest

    @property
    def digest(self) -> str:
        """sha256 over parts and facts in canonical JSON: equal content gives equal digests."""
        content = {"parts": {n: b.model_dump() for n, b in self.parts.items()}, "facts": self.facts}
        return hashlib.sha256(canonical_json(content)).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(blob.size for blob in self.parts.values())

    def blobs(self) -> list[Blob]:
        """Every blob that this artefact needs kept."""
        return [*self.parts.values(), *self.observations.values()]

    def manifest(self) -> bytes:
        """The stored form: canonical JSON of every field, and a digest over all of them."""
        fields = self.model_dump()
        return canonical_json({**fields, _MANIFEST_DIGEST: _digest(fields)})


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(fields)).hexdigest()


def read_manifest(data: bytes, place: str, asset: str, partition: str) -> Artefact:
    """The artefact of a stored manifest. `place`, in words, is where it was read.

    Raises CorruptError if it is not whole, was changed, or belongs to another asset or partition. A manifest without
    a digest of its own was written by an earlier version and is accepted here: the IO manager compares every manifest
    with what Dagster recorded.
    """

    def refuse(why: str) -> NoReturn:
        raise CorruptError(f"{place}: {why}; materialize {asset} of {partition} again")

    try:
        # The validator ignores a repeated key, so what it reads is compared with the digest, not with the text.
        stored = _StoredManifest.model_validate_json(data)
        fields = stored.model_dump(exclude={_MANIFEST_DIGEST})
        artefact = Artefact.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        refuse(f"not a manifest of this version ({where + ': ' if where else ''}{first['msg']})")
    if stored.manifest_digest is not None and stored.manifest_digest != _digest(fields):
        refuse("the manifest was changed after it was written (its digest differs)")
    if (artefact.asset, artefact.partition) != (asset, partition):
        refuse(f"is the manifest of {artefact.asset} of {artefact.partition}")
    artefact._has_own_digest = stored.manifest_digest is not None
    return artefact


class _StoredManifest(Artefact):
    manifest_digest: str | None = None
