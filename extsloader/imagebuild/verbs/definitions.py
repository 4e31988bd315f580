"""Verbs that read and write image definitions and build nothing."""

from argparse import Namespace
from functools import reduce
from pathlib import Path

from extsloader.imagebuild.linuxkit.definition import load_definition
from extsloader.imagebuild.linuxkit.describe import describe_containers, load_image_config, to_line
from extsloader.imagebuild.linuxkit.modifiers import find_modifiers, modify
from extsloader.imagebuild.linuxkit.render import (
    Target,
    Template,
    fill,
    find_placeholders,
    find_recipes,
    parse_tags,
    read_tags,
)
from extsloader.imagebuild.linuxkit.render import render as make_definition
from extsloader.imagebuild.steps import whole_file
from extsloader.imagebuild.yamlfile import read_yaml
from extsloader.model.errors import SettingsError


def check(args: Namespace) -> None:
    """Say of every definition that it is good, or else all that is wrong."""
    problems: list[str] = []
    for path in args.files:
        try:
            load_definition(path)
        except SettingsError as error:
            problems += error.problems
        else:
            print(f"{path}: ok")
    if problems:
        raise SettingsError(tuple(problems))


def render(args: Namespace) -> None:
    """Make a definition of a template."""
    template = _load_template(args)
    target = Target(hypervisor=args.hv, platform=args.platform, version=args.version)
    names = {name for _, name in find_placeholders(fill(template, target))}
    tags = find_recipes(names, args.recipes)
    if args.tags:
        tags |= read_tags(args.tags.read_text(errors="replace"), str(args.tags))
    tags |= parse_tags(args.tag, "--tag")
    text = make_definition(template, target, tags)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(args.output) as unfinished:
        unfinished.write_text(text)


def _load_template(args: Namespace) -> Template:
    path: Path = args.definition[0]
    read_yaml(path)  # says what is wrong with a file that is not even YAML
    paths = find_modifiers(args.modifiers, args.hv, args.platform) if args.modifiers else []
    source = path.read_text()
    return Template(
        path=str(path),
        source=source,
        text=reduce(modify, paths, source),
        modifiers={str(modifier): modifier.read_text(errors="replace") for modifier in paths},
    )


def oci(args: Namespace) -> None:
    """Print the OCI specification and the runtime part of every container of a definition."""
    definition = load_definition(*args.definition)
    image = load_image_config(args.image_config, args.label)
    print(to_line(describe_containers(definition, image, " ".join(map(str, args.definition)))))
