"""Random draws that depend on a key, never on global state."""

import hashlib

import torch


def derive_seed(*key: int | str) -> int:
    """Hash a key, what a draw is for, for instance ``("batch", seed, experience, step)``, to a seed.

    Returns an integer in ``[0, 2**63)``, of which torch's CPU generator reads the low 32 bits; the same key always
    gives the same one, on every machine.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def keyed_generator(*key: int | str) -> torch.Generator:
    """Make a freshly seeded CPU generator that depends on the key only; see `derive_seed`.

    Nothing needs to be saved to repeat a draw after a resume, and draws are the same for every accelerator.
    """
    return torch.Generator().manual_seed(derive_seed(*key))


def seed_layers(seed: int, device: torch.device) -> None:
    """Seed the global generators that a layer (dropout) draws from on a device.

    `torch.manual_seed` asks every kind of device there might be, which takes longer than a step of a small network.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
