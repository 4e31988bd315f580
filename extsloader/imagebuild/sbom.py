"""What images are made of, as SPDX 2.3 (ISO/IEC 5962 is 2.2.1), from the lock files alone.

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

_SEPARATORS = re.compile(r"[-_.]+")
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", re.MULTILINE)
_NOT_IN_ID = re.compile(r"[^A-Za-z0-9.-]")


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Part:
    """One thing that an image is made of."""

    name: str
    version: str  # "" where it is not known
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
            purl=f"pkg:deb/debian/{quote(deb.package)}@{quote(deb.version, safe=':')}"
            f"?arch={deb.architecture}",
            sha256=deb.sha256,
            supplier="Organization: Debian",
        )
        for deb in debs
    ]


def name_requirements(text: str, digests: Mapping[str, str]) -> list[Part]:
    """Parts that a requirements file of pip names; SHA-256 by project, of archives that are known.

    The file itself has the digests of all archives of a project, not of the one that is used.
    """
    known = {_normalize(name): digest for name, digest in digests.items()}
    return [
        Part(
            name=name,
            version=version,
            purl=f"pkg:pypi/{_normalize(name)}@{quote(version)}",
            sha256=known.get(_normalize(name), ""),
        )
        for name, version in _REQUIREMENT.findall(text)
    ]


def _normalize(name: str) -> str:
    """A project's name as PyPI compares it: file names have another form (PEP 503)."""
    return _SEPARATORS.sub("-", name).lower()


def make_sbom(name: str, contents: Mapping[Part, Iterable[Part]], created: int) -> bytes:
    """The document, about whatever no other part contains; `created` in seconds since 1970."""
    owned = {part for parts in contents.values() for part in parts}
    relations = [
        *(("SPDXRef-DOCUMENT", "DESCRIBES", part.id) for part in sorted(contents.keys() - owned)),
        *(
            (owner.id, "CONTAINS", part.id)
            for owner in sorted(contents)
            for part in sorted(set(contents[owner]))
        ),
    ]
    document: Json = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "creationInfo": {
            "created": datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": [f"Tool: mkext-{__version__}"],
        },
        "packages": [_describe(part) for part in sorted(contents.keys() | owned)],
        "relationships": [
            {"spdxElementId": a, "relationshipType": kind, "relatedSpdxElement": b}
            for a, kind, b in relations
        ],
    }
    # No other document may have it (clause 6.5), so it follows from all that is in this one.
    document["documentNamespace"] = f"urn:uuid:{uuid5(NAMESPACE_URL, json.dumps(document))}"
    return (json.dumps(document, indent=2) + "\n").encode()


def _describe(part: Part) -> Json:
    described: Json = {
        "SPDXID": part.id,
        "name": part.name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "supplier": part.supplier or "NOASSERTION",
    }
    if part.version:
        described["versionInfo"] = part.version
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
