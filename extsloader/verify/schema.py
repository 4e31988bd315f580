"""`python -m extsloader.verify.schema`: write the manifest's JSON Schema to standard output."""

import json
import sys

from extsloader.image.schema import json_schema


def text() -> str:
    """The file `manifests/manifest.schema.json`."""
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
