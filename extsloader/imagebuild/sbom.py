"""What an image is made of, as SPDX 2.3 (ISO/IEC 5962), from the lock files alone.

Nothing is built, downloaded or guessed: licences are not concluded from anything.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from extsloader import __version__
from extsloader.imagebuild.debian.packages import Deb

Json = dict[str, Any]

_REQUIREMENT = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", re.MULTILINE)
_NOT_IN_ID = re.compile(r"[^A-Za-z0-9.-]")


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Part:
    """One thing that an image is made of."""

    name: str
    version: str
    purl: str = ""  # package URL, "" where there is none
    sha256: str = ""  # of its archive
    supplier: str = ""

    @property
    def id(self) -> str:
        """An SPDX identifier: a digest keeps those apart whose names look the same in it."""
        digest = sha256(repr(self).encode()).hexdigest()[:8]
        return "SPDXRef-" + _NOT_IN_ID.sub("-", f"{self.name}-{self.version}-{digest}")


def name_debs(debs: Iterable[Deb]) -> list[Part]:
    """Parts that are Debian's."""
    return [
        Part(
            name=deb.package,
            version=deb.version,
            purl=f"pkg:deb/debian/{quote(deb.package)}@{quote(deb.version, safe='')}"
            f"?arch={deb.architecture}",
            sha256=deb.sha256,
            supplier="Organization: Debian",
        )
        for deb in debs
    ]


def name_requirements(text: str) -> list[Part]:
    """Parts that a requirements file of pip names."""
    return [
        Part(name=name, version=version, purl=f"pkg:pypi/{name.lower()}@{quote(version)}")
        for name, version in _REQUIREMENT.findall(text)
    ]


def make_sbom(name: str, images: Mapping[Part, Iterable[Part]], created: int) -> bytes:
    """The document: the whole has the images, and each image its parts; `created` since 1970."""
    whole = Part(name=name, version=__version__)
    contents = {image: sorted(set(parts)) for image, parts in images.items()}
    everything = sorted({whole, *contents, *(p for parts in contents.values() for p in parts)})
    relations = [("SPDXRef-DOCUMENT", "DESCRIBES", whole.id)]
    relations += [(whole.id, "CONTAINS", image.id) for image in sorted(contents)]
    relations += [
        (image.id, "CONTAINS", part.id) for image in sorted(contents) for part in contents[image]
    ]
    body: Json = {
        "packages": [_describe(part) for part in everything],
        "relationships": [
            {"spdxElementId": a, "relationshipType": kind, "relatedSpdxElement": b}
            for a, kind, b in relations
        ],
    }
    content = json.dumps(body, sort_keys=True)
    head = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"urn:uuid:{uuid5(NAMESPACE_URL, content)}",
        "creationInfo": {
            "created": datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": [f"Tool: mkext-{__version__}"],
        },
    }
    return (json.dumps(head | body, indent=2) + "\n").encode()


def _describe(part: Part) -> Json:
    described: Json = {
        "SPDXID": part.id,
        "name": part.name,
        "versionInfo": part.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "supplier": part.supplier or "NOASSERTION",
    }
    if part.sha256:
        described["checksums"] = [{"algorithm": "SHA256", "checksumValue": part.sha256}]
    if part.purl:
        described["externalRefs"] = [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": part.purl,
            }
        ]
    return described
