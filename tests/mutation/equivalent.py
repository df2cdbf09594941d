"""Changes that no test can notice, with the reason."""

# (module, changed lines before, after) -> why nothing that is promised changes.
EQUIVALENT: dict[tuple[str, str, str], str] = {}
