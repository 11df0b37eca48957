"""What fills the buffer: one file a generator, one interface for all (Section 4)."""

from exml_lightning.core.generators.auxiliary import Auxiliary
from exml_lightning.core.generators.data_impression import DataImpression
from exml_lightning.core.generators.generator import Generator
from exml_lightning.core.generators.model_inversion import ModelInversion
from exml_lightning.core.generators.noise import Noise
from exml_lightning.core.generators.precomputed import Precomputed
from exml_lightning.core.generators.replay import Replay
from exml_lightning.core.generators.statistics_inversion import StatisticsInversion
from exml_lightning.core.generators.unrelated import Unrelated, UnrelatedPhotographs

__all__ = [
    "Auxiliary",
    "DataImpression",
    "Generator",
    "ModelInversion",
    "Noise",
    "Precomputed",
    "Replay",
    "StatisticsInversion",
    "Unrelated",
    "UnrelatedPhotographs",
]
