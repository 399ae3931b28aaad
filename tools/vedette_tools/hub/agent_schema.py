"""Checks the agent's messages against the schema that the project keeps."""

from __future__ import annotations

import functools
import importlib.resources
import json
from typing import Any

from vedette_tools.hub import strict_json

INTERFACE = "urn:azureiot:Security:SecurityAgent:1"


@functools.cache
def _validator() -> Any:
    import jsonschema  # slow to import, and only an agent's messages need it

    text = importlib.resources.files("vedette_tools.schema").joinpath("message.json").read_text()
    schema = json.loads(text)
    return jsonschema.validators.validator_for(schema)(schema)


def error_of(body: bytes) -> str | None:
    """What breaks the schema first, with the place, or None where nothing does."""
    try:
        message = strict_json.loads(body)
    except ValueError as error:
        return f"not JSON: {error}"
    import jsonschema

    worst = jsonschema.exceptions.best_match(_validator().iter_errors(message))
    return f"{worst.json_path}: {worst.message[:300]}" if worst else None
