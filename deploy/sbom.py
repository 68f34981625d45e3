"""Write the image's bill of materials, in CycloneDX: Python, its packages, Debian's, the models.

The same image gives the same bytes: no time, and a serial number made from the contents.
"""

import json
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from deploy.image import container_tool, output_of, reference
from stages.atomic import replacing
from stages.errors import run
from stages.params import load_params

CONTENTS = Path("deploy/contents.py")
TARGET = Path("deploy/sbom.cdx.json")


def components(contents: dict[str, Any]) -> Iterator[Component]:
    """What an image is made of, as contents.py tells it."""
    system = contents["system"]
    yield _component(
        name=system["ID"], version=system.get("VERSION_ID"), type=ComponentType.OPERATING_SYSTEM
    )
    yield _component(
        name="python",
        version=contents["python"],
        type=ComponentType.PLATFORM,
        purl=PackageURL("generic", None, "python", contents["python"]),
    )
    for package in contents["packages"]:
        license_ = package["license"]
        yield _component(
            name=package["name"],
            version=package["version"],
            licenses=[LicenseFactory().make_from_string(license_)] if license_ else None,
            purl=PackageURL("pypi", None, package["name"].lower(), package["version"]),
        )
    for paragraph in contents["dpkg"].strip().split("\n\n"):
        fields = HeaderParser().parsestr(paragraph)
        if fields["Status"] == "install ok installed":
            qualifiers = {"arch": fields["Architecture"], "distro": system["VERSION_CODENAME"]}
            name, version = fields["Package"], fields["Version"]
            yield _component(
                name=name,
                version=version,
                purl=PackageURL("deb", system["ID"], name, version, qualifiers),
            )
    for model in contents["models"]:
        parameters = model["parameters"]
        sha256 = parameters["extra"]["sha256"][parameters["uri"].removeprefix("./")]
        yield _component(
            name=model["name"],
            version=parameters["version"],
            type=ComponentType.MACHINE_LEARNING_MODEL,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
        )


def _component(**said: Any) -> Component:
    """A component that is referred to by what it is, rather than by a random number."""
    return Component(**said, bom_ref=str(said.get("purl") or f"{said['name']}@{said['version']}"))


def bill_of_materials(image: str, contents: dict[str, Any]) -> str:
    """The bill in CycloneDX 1.6, as JSON. image: its name and tag."""
    name, _, tag = image.rpartition(":")
    root = _component(name=name, version=tag, type=ComponentType.CONTAINER)
    bom = Bom(
        components=components(contents),
        serial_number=uuid5(NAMESPACE_URL, json.dumps(contents, sort_keys=True)),
        metadata=BomMetaData(component=root),
    )
    bom.register_dependency(root, bom.components)
    written = json.loads(JsonV1Dot6(bom).output_as_string())
    del written["metadata"]["timestamp"]
    return json.dumps(written, indent=2) + "\n"


def main() -> None:
    image = reference(load_params())
    command = ["python", "-c", CONTENTS.read_text(encoding="utf-8")]
    contents = json.loads(output_of(container_tool(), image, command))
    with replacing(TARGET) as part:
        part.write_text(bill_of_materials(image, contents), encoding="utf-8")
    print(f"{TARGET}: {image}, {len(contents['packages'])} packages of Python, the system's beside")


if __name__ == "__main__":
    run(main)
