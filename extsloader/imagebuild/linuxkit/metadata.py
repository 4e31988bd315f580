"""A definition as LinuxKit writes it into an image: `metadata: yaml` and `metadata: json`.

LinuxKit prints its own Go structures, so the order of keys, and which empty ones there are, is
theirs. A test holds the YAML against LinuxKit's own.
"""

from typing import Any

import yaml
from pydantic import BaseModel

from extsloader.imagebuild.linuxkit.container import BindNs, IdMapping, Interface, Mount, Resources
from extsloader.imagebuild.linuxkit.definition import Definition, Entry, File, Kernel, Volume
from extsloader.imagebuild.linuxkit.spec import Json, to_json

_ENTRY = (
    "name", "image", "capabilities", "capabilities.add", "ambient", "mounts", "binds", "binds.add",
    "devices", "tmpfs", "command", "env", "cwd", "net", "pid", "ipc", "uts", "userns", "hostname",
    "readonly", "maskedPaths", "readonlyPaths", "uid", "gid", "additionalGids", "noNewPrivileges",
    "oomScoreAdj", "rootfsPropagation", "cgroupsPath", "resources", "sysctl", "rlimits",
    "uidMappings", "gidMappings", "annotations", "runtime",
)  # fmt: skip

_OLD_BOOL = ("y", "Y", "n", "N")
"""Truth values of YAML 1.1 that PyYAML does not know."""


def format_metadata(definition: Definition, form: str) -> bytes:
    """The whole definition as `yaml` or `json`."""
    for_yaml = form == "yaml"
    kernel = definition.kernel or Kernel()
    said: Json = {
        "kernel": {"image": expand(kernel.image), **_set(kernel, for_yaml, "image")},
        "init": [expand(image) for image in definition.init],
        **{
            section: [_entry(entry, for_yaml) for entry in entries]
            for section, entries in definition.sections.items()
        },
        "files": [_file(file, for_yaml) for file in definition.files],
        "volumes": [_volume(volume, for_yaml) for volume in definition.volumes],
    }
    if not for_yaml:
        return to_json(said)
    return yaml.dump(said, Dumper=_Dumper, sort_keys=False, allow_unicode=True).encode()


def expand(image: str) -> str:
    """The whole name of an image, with the registry and organisation that are the default."""
    missing = ("docker.io/library/", "docker.io/")
    slashes = image.count("/")
    return f"{missing[slashes]}{image}" if image and slashes < len(missing) else image


def _entry(entry: Entry, for_yaml: bool) -> Json:
    said = _set(entry, for_yaml) | {"image": expand(entry.image)}
    return {key: said[key] for key in _ENTRY if key in said}


def _file(file: File, for_yaml: bool) -> Json:
    said = {"directory": False, "optional": False} | _set(file, for_yaml)
    return {key: said[key] for key in File.model_fields if key in said}


def _volume(volume: Volume, for_yaml: bool) -> Json:
    return {key: value for key, value in _set(volume, for_yaml).items() if value}


def _set(model: BaseModel, for_yaml: bool, *besides: str) -> Json:
    """What was said in the definition; empty texts count as not said."""
    return {
        field.alias or name: _plain(getattr(model, name), for_yaml)
        for name, field in type(model).model_fields.items()
        if name in model.model_fields_set
        and name not in besides
        and getattr(model, name) not in ("", BindNs())
    }


def _plain(value: Any, for_yaml: bool) -> Any:
    match value:
        case list():
            return [_plain(item, for_yaml) for item in value]
        case Interface():
            return _set(value, for_yaml) | {"createInRoot": value.create_in_root}
        # Go's types of the OCI specification have names for JSON, but none for YAML.
        case Mount() | IdMapping() | Resources():
            return _whole(value) if for_yaml else value.model_dump(by_alias=True, exclude_none=True)
        case BaseModel():
            return _set(value, for_yaml)
        case _:
            return value


def _whole(value: Any) -> Any:
    """Every field, in lower case."""
    if isinstance(value, BaseModel):
        return {
            (field.serialization_alias or name).lower(): _whole(getattr(value, name))
            for name, field in type(value).model_fields.items()
        }
    return [_whole(item) for item in value] if isinstance(value, list) else value


class _Dumper(yaml.SafeDumper):
    """Quotes like Go's package: double, and only what would be no text otherwise."""

    def ignore_aliases(self, _data: object) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        resolvers = self.yaml_implicit_resolvers.get(text[:1], ())
        other = any(pattern.match(text) for _, pattern in resolvers) or text in _OLD_BOOL
        style = "|" if "\n" in text else '"' if other else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)
