"""State identifier: clusters windows of three-phase power into machine states."""

from edgepack_assets.model_types.state_identifier.model_type import StateIdentifier

MODEL_TYPE = StateIdentifier()
