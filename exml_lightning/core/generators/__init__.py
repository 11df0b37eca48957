"""What fills the buffer: one file a generator, one interface for all (Section 4)."""

from exml_lightning.core.generators.auxiliary import Auxiliary
from exml_lightning.core.generators.generator import Generator
from exml_lightning.core.generators.model_inversion import ModelInversion
from exml_lightning.core.generators.noise import Noise

__all__ = ["Auxiliary", "Generator", "ModelInversion", "Noise"]
