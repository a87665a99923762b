"""How good a registration is: pure functions on label maps, transforms and images.

Every quantity about the transform is taken on the fixed lattice and inside a mask of it. `moving_from_fixed` is the map
that resamples the moving image; its Jacobian determinant J is above 1 where a structure is larger in the moving image.
"""

from .deformation import folds_percent, non_diffeomorphic_volume, regularity, sdlogj
from .overall import summary
from .overlap import dice, hd95
from .points import inverse_consistency_mm, tre
from .relation import Relation, relation
from .similarity import agreement, mutual_information, ncc

__all__ = [
    "Relation",
    "agreement",
    "dice",
    "folds_percent",
    "hd95",
    "inverse_consistency_mm",
    "mutual_information",
    "ncc",
    "non_diffeomorphic_volume",
    "regularity",
    "relation",
    "sdlogj",
    "summary",
    "tre",
]
