"""Reading a YAML file that a stranger may have written: bounded in size, nothing in it is code."""

from pathlib import Path

import yaml

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.regular_file import check_regular

MAX_BYTES = 16 * 2**20
MAX_NODES = 1_000_000
"""Values of a document, those that aliases repeat counted each time."""
MAX_DEPTH = 64
MAX_NUMBER = 100
"""Characters of a number."""
PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}


class _Loader(yaml.SafeLoader):
    """Reads dates as text, which JSON, unlike YAML, can hold too."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_yaml(path: Path) -> object:
    """Read a YAML file.

    Args:
        path: The file. Anchors, aliases and merges are read; other tags than those of plain values are not.

    Returns:
        Its one document: mappings, lists, text, numbers, true, false, null; dates as text.

    Raises:
        ExmlError: If it is missing, no regular file, or no such document, or if it is too large: its bytes, its values
            where aliases are written out, its nesting, its numbers. Names the file.
    """
    data = _read(path)
    try:
        loader = _Loader(data.decode("utf-8"))
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {})
        return loader.construct_document(node)
    except ExmlError as error:
        raise ExmlError(f"{path}: {error}") from error
    except RecursionError:
        raise ExmlError(f"{path} is nested too deep: write it flat") from None
    except Exception as error:  # the constructors raise almost anything
        raise ExmlError(f"{path} is not YAML: {one_line(error)[:300]}") from error


def _read(path: Path) -> bytes:
    try:
        check_regular(path)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ExmlError(f"{path} is missing") from error
    except OSError as error:
        raise ExmlError(f"{path} cannot be read ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        raise ExmlError(f"{path} has more than {MAX_BYTES // 2**20} MB: no such file needs as many")
    return data


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Count the values of a node and the depth of them, aliases written out; refuse what is too much."""
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise ExmlError("an alias stands within what it repeats: write the values out")
        return size
    known[id(node)] = None
    if node.tag not in PLAIN:
        raise ExmlError(f"line {node.start_mark.line + 1}: the tag {node.tag[:60]!r} is not read: write a plain value")
    count, depth = 1, 0
    if isinstance(node, yaml.ScalarNode):
        if not node.tag.endswith(":str") and len(node.value) > MAX_NUMBER:
            raise ExmlError(f"line {node.start_mark.line + 1}: a number of {len(node.value)} characters")
    else:
        children = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        for child in children:
            more, deeper = _measure(child, known)
            count, depth = count + more, max(depth, deeper + 1)
    if count > MAX_NODES:
        raise ExmlError(f"it has more than {MAX_NODES} values where aliases are written out")
    if depth > MAX_DEPTH:
        raise ExmlError(f"it is nested more than {MAX_DEPTH} deep: write it flat")
    known[id(node)] = count, depth
    return count, depth
