"""The section `sensors` of edgepack.yaml: how sensors find new model versions and report failed runs."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from edgepack_assets.config.section import Count, Section


def _web_address(text: str) -> str:
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not text.isprintable() or " " in text:
        raise ValueError("must be the address of a web page, http://... or https://...")
    return text


def _secret_address(secret: SecretStr | None) -> SecretStr | None:
    if secret is None or not secret.get_secret_value().strip():
        return None
    return SecretStr(_web_address(secret.get_secret_value().strip()))


_OptionalAddress = Annotated[str | None, AfterValidator(lambda text: _web_address(text.strip()) if text else None)]


SHORT_INTERVAL, INTERVAL = 10, 30
"""Seconds between two ticks, where the configuration says nothing. A tick of a few local model types costs next to
nothing, so they need not wait; each tick of more is a row in Dagster's database, or calls that Azure ML counts."""
FEW_TYPES = 5
"""Up to so many model types the interval is the short one."""


class SensorSettings(Section):
    """How the sensors look for new model versions, one for each model type or one for many. Times are in seconds."""

    interval: Count | None = Field(
        default=None,
        ge=1,
        description="Seconds between two ticks. Empty: 10 for up to 5 model types in a registry on this machine, "
        "else 30.",
    )
    sweep_interval: Count = Field(default=900, ge=1, description="Seconds between two listings of every version.")
    start: Literal["all", "none", "latest"] = Field(
        default="latest", description="Which of the versions that exist at the sensor's first start to package."
    )
    own_up_to: Count = Field(
        default=20,
        ge=0,
        description="Model types up to which each has a sensor of its own. More of them share the sensor "
        "registry_models. Reload the code location after a change.",
    )
    batch: Count = Field(default=50, ge=1, le=500, description="Runs that one tick requests at most.")
    attempts: Count = Field(
        default=4, ge=1, le=20, description="Runs of one version at most, where they fail because of infrastructure."
    )
    failure_after: Count = Field(
        default=1800, ge=0, description="Seconds without an answer of registry or webhook after which a tick fails."
    )
    webhook: Annotated[SecretStr | None, AfterValidator(_secret_address)] = Field(
        default=None, description="Address to which each failed run is posted. Empty: off."
    )
    # The whole address is a secret: many webhooks have their key in the path.
    ui_url: _OptionalAddress = Field(default=None, description="Address of Dagster's UI, for links to runs.")
