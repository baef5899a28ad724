"""Approval of a model version by a person: two tags of the version in the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from edgepack_assets.errors import ApprovalError, EdgepackError
from edgepack_assets.registry.base import RegisteredVersion, Registry

APPROVED_BY = "approved_by"
APPROVED_AT = "approved_at"
RUN_TAG = f"edgepack/{APPROVED_BY}"
"""Tag of a run that an approval started."""
_LONGEST = 200


@dataclass(frozen=True)
class Approval:
    """Who approved a version, and when (as the tag says it; empty if it was set by hand without a time)."""

    by: str
    at: str

    def __str__(self) -> str:
        return f"{self.by} {self.at}".rstrip()


def approval_of(tags: Mapping[str, str]) -> Approval | None:
    """The approval that a version's tags tell of: `approved_by` names somebody."""
    by = _one_line(tags.get(APPROVED_BY))
    return Approval(by, _one_line(tags.get(APPROVED_AT))) if by else None


def approve(registry: Registry, model: RegisteredVersion, by: str, at: datetime) -> tuple[Approval, bool]:
    """(the approval of a version, whether it is new). One that is there already stands."""
    known = approval_of(model.tags)
    if known is not None:
        return known, False
    if not _one_line(by):
        raise EdgepackError("an approval names who approves: --by NAME")
    tags = {APPROVED_BY: _one_line(by), APPROVED_AT: at.isoformat(timespec="seconds")}
    approved = approval_of(registry.set_tags(model, tags).tags)
    if approved is None:
        raise EdgepackError(f"the registry has not kept the tag {APPROVED_BY} of {model}; set it there by hand")
    return approved, True


def revoke(registry: Registry, model: RegisteredVersion) -> Approval | None:
    """Take the approval of a version back; the one that it had, None if it had none."""
    known = approval_of(model.tags)
    if known is not None or APPROVED_BY in model.tags:
        registry.set_tags(model, {}, without=[APPROVED_BY, APPROVED_AT])
    return known


def check_still_approved(model: RegisteredVersion) -> None:
    """Raises ApprovalError if the approval that started a run was taken back before the run came to the model."""
    if approval_of(model.tags) is None:
        raise ApprovalError(
            f"{model} is not approved any more: its approval, which started this run, was taken back. It is packaged "
            f"once it is given again (edgepack model approve {model}), or if somebody launches its partition by hand"
        )


def _one_line(text: object) -> str:
    # A tag is whatever somebody typed into the registry; this ends in a run's tags and a line of text.
    shown = "".join(c if c.isprintable() else " " for c in text) if isinstance(text, str) else ""
    return " ".join(shown.split())[:_LONGEST]
