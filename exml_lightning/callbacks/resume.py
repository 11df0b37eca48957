"""Which checkpoint a run goes on with."""

import shutil
from pathlib import Path
from typing import Any

from exml_lightning.core.errors import ExmlError
from exml_lightning.data import ExpertStream
from exml_lightning.files import load_torch_file, reason, write_whole
from exml_lightning.module import ExModelModule
from exml_lightning.terminal import say

FORMAT = 2
"""What `StreamCheckpoint` writes as ``exml_lightning`` into a checkpoint; those of before 0.2.0 have no number."""
WRITTEN = {
    "ExpertStream": dict,
    "state_dict": dict,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}
"""What the checkpoint of a fit has, beside more."""
OF_STREAM = {"scenario", "class_names", "experience", "completed", "buffer", "learned"}
"""What `ExpertStream` writes into it."""


def find_checkpoint(run_folder: Path, ckpt_path: str | None, verb: str) -> str | None:
    """Find the checkpoint that ``--ckpt_path`` means (``last``, a file, nothing); None to start with the first expert.

    A fit goes on with the run of its folder, also where nothing is given: it would end with the same weights if it
    started anew.

    Raises:
        ExmlError: If there is no such checkpoint, or the run would overwrite another one.
    """
    folder = run_folder / "checkpoints"
    last = folder / "last.ckpt"
    if ckpt_path is None and verb != "fit":
        raise ExmlError(f"which checkpoint? Give --ckpt_path last ({last}) or --ckpt_path FILE")
    if verb == "fit" and ckpt_path is None:
        if not _newest(folder).is_file():
            return None
    elif verb == "fit" and ckpt_path != "last" and folder.exists() and not _inside(str(ckpt_path), folder):
        raise ExmlError(
            f"{run_folder} already holds a run, and {ckpt_path} is not of it: go on with --ckpt_path last, "
            "write elsewhere with --trainer.default_root_dir DIR, or delete it"
        )
    path = _newest(folder) if ckpt_path in (None, "last") else Path(str(ckpt_path))
    if not path.is_file():
        if verb == "fit" and ckpt_path == "last":
            say(f"{path} does not exist yet: starting with the first expert")
            return None
        raise ExmlError(f"--ckpt_path: {path} does not exist; `exml fit` writes checkpoints")
    try:
        content = _read(path)
    except ExmlError as error:
        others = [other for other in _of_experiences(folder) if other != path]
        if path.parent != folder or not others:
            raise
        raise ExmlError(f"{error}; an older one is {others[-1]}: give it by --ckpt_path") from error
    _check(content, path)
    return str(path)


def unless_alone(checkpoint: str | None, module: ExModelModule, stream: ExpertStream) -> str | None:
    """Return the checkpoint to go on with: none where it has learned an expert that is no longer the only one.

    A single expert is learned on a scale of its own (`Scale.fitted`), on which no other can be compared with it. So the
    run begins anew and ends as if all had been there from the start; a line says so.
    """
    if checkpoint is None:
        return None
    asked, manifest = module.distillation.normalize, stream.manifest
    (alone, _), (now, _) = asked.fitted(1, None), asked.fitted(len(manifest.experts), stream.heads)
    if now == alone:
        return checkpoint
    content: Any = _read(Path(checkpoint))
    settings = content["callbacks"].get("SameSettings", {}).get("settings", {})
    first = manifest.experts[0]
    if content["ExpertStream"]["learned"] != [first.sha256] or settings.get("model.normalize") != alone.settings():
        return checkpoint
    say(
        f"{checkpoint} has learned {first.file} as the only expert, on a scale of its own: the run begins anew, with "
        f"all {len(manifest.experts)} on one scale"
    )
    return None


def _read(path: Path) -> object:
    """Read a checkpoint, without running code in it, before Lightning does."""
    try:
        return load_torch_file(path)
    except ExmlError as error:
        raise ExmlError(f"--ckpt_path: {error}") from error
    except Exception as error:  # torch's readers of broken files raise almost anything
        raise ExmlError(f"--ckpt_path: {path} is no checkpoint, or a damaged one ({reason(error)})") from error


def _check(content: object, path: Path) -> None:
    """Refuse what a fit of this version has not written."""
    whole = isinstance(content, dict) and all(isinstance(content.get(key), kind) for key, kind in WRITTEN.items())
    if not isinstance(content, dict) or not whole or content["ExpertStream"].keys() != OF_STREAM:
        raise ExmlError(f"--ckpt_path: {path} is not a checkpoint of `exml fit`: take one of its checkpoints/")
    if content.get("exml_lightning") != FORMAT:
        by = "before 0.2.0" if "exml_lightning" not in content else "after this one"
        raise ExmlError(
            f"--ckpt_path: {path} was written by a version of exml_lightning {by}: go on with that version, or start "
            "anew with --trainer.default_root_dir DIR; ex_model/ of a finished run can be read as it is"
        )


def _of_experiences(folder: Path) -> list[Path]:
    """The checkpoints of finished experiences, in order."""
    found = {path.stem.removeprefix("experience="): path for path in folder.glob("experience=*.ckpt")}
    return [found[k] for k in sorted((k for k in found if k.isdecimal()), key=int)]


def _newest(folder: Path) -> Path:
    """Return ``last.ckpt``, or where a kill came just before it was written, the experience it would have been of."""
    last = folder / "last.ckpt"
    return last if last.exists() else [last, *_of_experiences(folder)][-1]


def _inside(path: str, folder: Path) -> bool:
    return Path(path).resolve().is_relative_to(folder.resolve())


def go_back(run_folder: Path, experience: int) -> None:
    """Let a run go on where an experience began: what it has learned in it is not to be kept."""
    folder = run_folder / "checkpoints"
    last, before = folder / "last.ckpt", folder / f"experience={experience - 1}.ckpt"
    if before.is_file():
        write_whole(last, lambda part: shutil.copyfile(before, part))
    elif experience == 0:
        last.unlink(missing_ok=True)
