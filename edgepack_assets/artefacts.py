"""The value of an asset: an `Artefact`, which says what its bytes are and what they were made from.

It has named parts (each a blob of the artefact store), small facts, the digests of its inputs, and observations
such as timings that are kept but are no part of its identity. The bytes themselves are in artefact_store.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from edgepack_assets.errors import StaleError


def canonical_json(value: object) -> bytes:
    """One spelling per value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _as_json(value: dict[str, Any]) -> dict[str, Any]:
    # Keys that are numbers and tuples come back from JSON as something else, and the digest must not change.
    plain: dict[str, Any] = json.loads(canonical_json(value))
    return plain


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


def check_chain(artefact: Artefact, inputs: Mapping[str, Artefact]) -> None:
    """Refuse an artefact that was made from other bytes than those at hand. Raises StaleError.

    An input that the artefact was not made from proves nothing and is passed over."""
    for name, given in inputs.items():
        recorded = artefact.made_from.get(name)
        if recorded is not None and recorded != given.digest:
            raise StaleError(
                f"{artefact.asset} of {artefact.partition} was made from another {name} "
                f"({recorded[:12]}) than the one at hand ({given.digest[:12]}): "
                f"materialize {artefact.asset} of {artefact.partition} again"
            )
