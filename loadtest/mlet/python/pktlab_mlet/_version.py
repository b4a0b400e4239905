"""The version, which pyproject.toml reads without an import of the rest."""

VERSION = "0.1.0"
