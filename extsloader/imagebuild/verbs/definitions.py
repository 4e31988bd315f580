"""Verbs that read image definitions and build nothing."""

from argparse import Namespace

from extsloader.imagebuild.linuxkit.definition import load_definition
from extsloader.imagebuild.linuxkit.describe import describe_containers, load_image_config, to_line
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


def oci(args: Namespace) -> None:
    """Print the OCI specification and the runtime part of every container of a definition."""
    definition = load_definition(args.definition)
    image = load_image_config(args.image_config, args.label)
    print(to_line(describe_containers(definition, image, str(args.definition))))
