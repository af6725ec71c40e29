"""How settings are declared: frozen dataclasses that pydantic checks, each field followed by its meaning."""

from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
