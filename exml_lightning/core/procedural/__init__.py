"""Images drawn by random programs, from no data at all: one file a kind, one interface for all."""

from exml_lightning.core.procedural.coloured_noise import ColouredNoise
from exml_lightning.core.procedural.dead_leaves import DeadLeaves
from exml_lightning.core.procedural.images import ProceduralImages
from exml_lightning.core.procedural.mixture import Mixture
from exml_lightning.core.procedural.strokes import Strokes

__all__ = ["ColouredNoise", "DeadLeaves", "Mixture", "ProceduralImages", "Strokes"]
