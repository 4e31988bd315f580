import gzip
import json
import re
from pathlib import Path

import pytest

from extsloader.imagebuild.linuxkit.definition import load_definition
from extsloader.imagebuild.linuxkit.render import (
    Target,
    Template,
    fill,
    find_placeholders,
    find_recipes,
    parse_tags,
    read_tags,
    render,
)
from extsloader.imagebuild.main import main
from extsloader.model.errors import SettingsError

PUBLISHED = Path(__file__).parents[5] / "shared/data/linuxkit-yaml"

TEXT = """\
# KERNEL_TAG is the kernel
kernel:
  image: KERNEL_TAG   # and no KERNEL_TAG of another
init: [FW_TAG, "ACRN_KERNEL_TAG"]
services:
  - {name: pillar, image: PILLAR_TAG, env: [A=PILLAR_TAG]}
files:
  - path: etc/hv
    contents: 'EVE_HV'
  - {path: etc/platform, contents: EVE_PLATFORM}
"""
KVM = Target(hypervisor="kvm", platform="generic", version="1.2")


def template(text: str = TEXT, **modifiers: str) -> Template:
    return Template(path="x.yml.in", source=text, text=text, modifiers=modifiers)


def test_placeholders_are_replaced_and_comments_and_lines_stay() -> None:
    tags = {name: f"eve/{name.lower()}:1" for name in ("KERNEL_TAG", "FW_TAG", "PILLAR_TAG")}

    text = render(template(), KVM, tags | {"ACRN_KERNEL_TAG": "acrn:2"})

    assert text == TEXT.replace("image: KERNEL_TAG", "image: eve/kernel_tag:1").replace(
        "FW_TAG", "eve/fw_tag:1"
    ).replace("ACRN_KERNEL_TAG", "acrn:2").replace("PILLAR_TAG", "eve/pillar_tag:1").replace(
        "EVE_HV", "kvm"
    ).replace("EVE_PLATFORM", "generic")


def test_every_placeholder_without_image_is_named_with_its_line() -> None:
    with pytest.raises(SettingsError) as caught:
        render(template(TEXT + "trust: {org: [EVE_VERSION]}\n"),
               Target(hypervisor="kvm", platform="generic"), {"FW_TAG": "fw:1"})  # fmt: skip

    assert [problem.split(": ")[:2] for problem in caught.value.problems] == [
        ["x.yml.in:3", "KERNEL_TAG"],
        ["x.yml.in:4", "ACRN_KERNEL_TAG"],
        ["x.yml.in:6", "PILLAR_TAG"],
        ["x.yml.in:11", "EVE_VERSION"],
    ]


def test_a_placeholder_that_a_modifier_brought_is_named_where_it_is_written() -> None:
    modified = Template(
        path="x.yml.in",
        source="init: [FW_TAG]\n",
        text="init:\n\n- FW_K_TAG\n- RNGD_TAG\n",
        modifiers={"hv/k.yq": '# kubernetes\n.init[0] = "FW_K_TAG"\n'},
    )

    with pytest.raises(SettingsError) as caught:
        render(modified, KVM, {"RNGD_TAG": "rngd:1"})

    (problem,) = caught.value.problems
    assert problem.startswith("hv/k.yq:2: FW_K_TAG: no image is known for it: give --tag FW_K_TAG=")


def test_a_placeholder_that_is_written_nowhere_is_named_too() -> None:
    modified = Template(path="x.yml.in", source="", text="init: [A_TAG]", modifiers={"a.yq": ""})

    with pytest.raises(SettingsError, match=r"x\.yml\.in with a\.yq: A_TAG: no image is known"):
        render(modified, KVM, {})


def test_what_comes_out_is_checked_with_the_lines_of_the_template() -> None:
    with pytest.raises(SettingsError, match=r"x\.yml\.in:2: kernl: unknown key, expected kernel"):
        render(template("# a\nkernl: {}\n"), KVM, {})
    with pytest.raises(SettingsError, match=r"cannot read x\.yml\.in: line 2"):
        render(template("a: b\n- c\n"), KVM, {})


@pytest.mark.parametrize(
    ("version", "hypervisor", "expected"),
    [
        ("0.0.0-master-1a2b3c4d", "kvm", "PILLAR_TAG"),
        ("0.0.0-master-1a2b3c4d-dev", "kvm", "PILLAR_DEV_TAG"),
        ("0.0.0-dev-1a2b3c4d-k", "xen", "PILLAR_K_TAG"),
        ("0.0.0-master-1a2b3c4d-dirty-2025-01-01.12.30-dev", "k", "PILLAR_K_DEV_TAG"),
        ("", "mini", "PILLAR_TAG"),
    ],
)
def test_pillars_variant_follows_from_version_and_hypervisor(
    version: str, hypervisor: str, expected: str
) -> None:
    target = Target(hypervisor=hypervisor, platform="generic", version=version)

    names = [name for _, name in find_placeholders(fill(template(), target))]

    assert names == ["KERNEL_TAG", "FW_TAG", "ACRN_KERNEL_TAG", expected]


@pytest.mark.parametrize("version", ["1'", "1: 2", "a b", "x\ny"])
def test_a_version_that_would_change_the_yaml_is_refused(version: str) -> None:
    with pytest.raises(SettingsError, match="cannot use the version"):
        fill(template(), Target(hypervisor="kvm", platform="generic", version=version))


def test_recipes_stand_for_placeholders_of_their_name(tmp_path: Path) -> None:
    for name in ("node-exporter", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "node-exporter/recipe.yaml").touch()

    found = find_recipes(["NODE_EXPORTER_TAG", "EMPTY_TAG", "NONE_TAG"], tmp_path)

    assert found == {"NODE_EXPORTER_TAG": "extsloader/node-exporter:local"}


def test_lists_of_tags_are_eves() -> None:
    text = "CURDIR=/some where\n# comment\n\nFW_TAG=lfedge/eve-fw:1-amd64\n"

    assert read_tags(text, "tags") == {"FW_TAG": "lfedge/eve-fw:1-amd64"}
    with pytest.raises(SettingsError, match="tags: expected NAME_TAG=REFERENCE, got 'FW_TAG='"):
        read_tags("FW_TAG=\n", "tags")


@pytest.mark.parametrize("text", ["FW_TAG=", "A_TAG=a b", "KERNEL_TAG", "KERNEL=k:1", "B_TAG=x: y"])
def test_what_is_no_tag_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--tag: expected NAME_TAG=REFERENCE, got"):
        parse_tags([text], "--tag")


def test_the_verb_writes_the_definition_or_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "a.yml.in", tmp_path / "out/a-xen.yml"
    source.write_text(TEXT)
    (tmp_path / "tags").write_text("KERNEL_TAG=k:1\nACRN_KERNEL_TAG=a:1\nFW_TAG=fw:1\n")
    (tmp_path / "pkg/pillar").mkdir(parents=True)
    (tmp_path / "pkg/pillar/recipe.yaml").touch()
    argv = ["render", str(source), "-o", str(out), "--hv", "xen", "--tag", "KERNEL_TAG=k:2"]

    assert main([*argv, "--recipes", str(tmp_path / "none")]) == 1
    assert f"{source}:4: FW_TAG: no image" in capsys.readouterr().err
    assert not out.exists()

    more = ["--recipes", str(tmp_path / "pkg"), "--tags", str(tmp_path / "tags")]
    assert main([*argv, *more]) == 0
    definition = load_definition(out)
    assert definition.kernel
    assert definition.kernel.image == "k:2"
    assert definition.services[0].image == "extsloader/pillar:local"
    assert [file.contents for file in definition.files] == ["xen", "generic"]
    assert list(out.parent.iterdir()) == [out]


def test_published_templates_render_unless_they_are_wrong() -> None:
    if not PUBLISHED.exists():
        pytest.skip("no published definitions here")
    cases = json.loads(gzip.decompress((PUBLISHED / "expected.json.gz").read_bytes()))
    for case in cases:
        path = PUBLISHED / case["file"]
        text = path.read_text()
        names = re.findall(r"\b[A-Z0-9_]+_TAG\b", text)
        found = Template(path=path.name, source=text, text=text, modifiers={})
        if not case["valid"]:
            with pytest.raises(SettingsError, match=path.name):
                render(found, KVM, {})
            continue
        rendered = render(found, KVM, {name: f"lfedge/{name.lower()}:1" for name in names})
        assert find_placeholders(rendered) == []
        assert len(rendered.splitlines()) == len(text.splitlines())
        assert not re.search(r"contents: *.?EVE_", rendered)
