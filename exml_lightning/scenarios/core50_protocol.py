"""How CORe50 becomes a stream: NC, NI and NIC (Lomonaco and Maltoni 2017), by official lists or rebuilt."""

from pathlib import Path

import torch

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.rng import keyed_generator
from exml_lightning.scenarios.core50_frames import NUM_OBJECTS, read_lists
from exml_lightning.scenarios.datasets import Groups
from exml_lightning.scenarios.runs import RUN_SEEDS, class_order

TRAIN_SESSIONS = (1, 2, 4, 5, 6, 8, 9, 11)
TEST_SESSIONS = (3, 7, 10)
BATCHES = {"nc": 9, "ni": 8, "nic": 79}
"""The protocols, and the number of experiences of each."""

Part = tuple[tuple[int, ...], Groups]


def protocol_parts(name: str, run_id: int, folder: Path) -> list[Part]:
    """Make the experiences of a protocol: of each, class indices (object less 1), and of each of these its sessions.

    ``nc`` is ten classes, then five at a time, in all sessions; ``ni`` all classes, one session at a time; ``nic`` ten
    classes in one session, then five classes in one session at a time. Official lists in the folder of CORe50 are
    followed, else the seed of the run, 0 to 4, decides. Raises `ExmlError` if there is no such protocol, or an official
    list is missing or not of the protocol.
    """
    if name not in BATCHES:
        raise ExmlError(f"data.scenario.protocol is {name}: CORe50 has {', '.join(BATCHES)}")
    lists = folder / "batches_filelists" / f"{name.upper()}_inc"
    return _official(name, lists / f"run{run_id}") if lists.is_dir() else _rebuilt(name, run_id)


def _official(name: str, run: Path) -> list[Part]:
    paths = sorted(run.glob("train_batch_*_filelist.txt"))
    if [path.name for path in paths] != [f"train_batch_{i:02d}_filelist.txt" for i in range(BATCHES[name])]:
        raise ExmlError(
            f"{run} has {len(paths)} lists train_batch_<ii>_filelist.txt: {name} has {BATCHES[name]}, from 00 on; "
            f"fetch CORe50's file lists again, or move {run.parent} away to have the experiences drawn from the run's "
            "seed"
        )
    parts: list[Part] = []
    for path in paths:
        sessions: dict[int, set[int]] = {}
        for frame in read_lists([path]):
            sessions.setdefault(frame.object - 1, set()).add(frame.session)
        if foreign := sorted(set().union(*sessions.values()) - set(TRAIN_SESSIONS)):
            raise ExmlError(f"{path} has frames of sessions {foreign}: {list(TEST_SESSIONS)} are the test set")
        parts.append((tuple(sessions), tuple(tuple(sorted(of_class)) for of_class in sessions.values())))
    return parts


def _rebuilt(name: str, run_id: int) -> list[Part]:
    order, generator = class_order(NUM_OBJECTS, run_id), keyed_generator("core50", name, RUN_SEEDS[run_id])
    fives = [tuple(order[start : start + 5]) for start in range(0, NUM_OBJECTS, 5)]
    first, rest = fives[0] + fives[1], fives[2:]
    if name == "nc":
        return [(classes, (TRAIN_SESSIONS,) * len(classes)) for classes in (first, *rest)]
    sessions = [TRAIN_SESSIONS[i] for i in torch.randperm(len(TRAIN_SESSIONS), generator=generator).tolist()]
    if name == "ni":
        return [(tuple(order), ((session,),) * NUM_OBJECTS) for session in sessions]
    pairs: list[Part] = [(five, ((session,),) * 5) for session in sessions for five in fives]
    later = (2 + torch.randperm(len(pairs) - 2, generator=generator)).tolist()  # 0 and 1 are the first experience
    return [(first, ((sessions[0],),) * 10), *(pairs[i] for i in later)]
