"""What runs, renders and reviews notebooks from outside; never imports torch."""

import sys

# jsonschema, which nbformat imports, would spend more than a second on building a grammar for internationalised URLs.
# It takes a missing module for "not installed" and checks such URLs less strictly; notebooks have none.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
