"""Where cortex thins: ageing takes most from the frontal lobes and about the Sylvian fissure, least from the poles.

Rates differ between regions in the same way in many samples (Fjell et al., Cereb Cortex 19:2001, 2009; Salat et al.,
Cereb Cortex 14:721, 2004). The centres, widths and weights below are a coarse rendering of their maps, chosen here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from headstart.brains.volumes import VolumeSpec, template
from headstart.simulation.base import Subject
from headstart.simulation.fields import kept_voxels, kept_world, smooth_field

# (right hemisphere's centre in MNI mm, standard deviation in mm, weight); the left mirrors it.
FASTER, SLOWER = 1.0, -1.0
PLACES = (((28.0, 38.0, 32.0), 22.0, FASTER), ((24.0, 4.0, 58.0), 20.0, FASTER), ((48.0, 4.0, 6.0), 18.0, FASTER),
          ((52.0, -26.0, 14.0), 20.0, FASTER), ((40.0, -48.0, 44.0), 18.0, 0.5), ((6.0, 44.0, 0.0), 14.0, SLOWER),
          ((34.0, 4.0, -34.0), 18.0, SLOWER), ((44.0, -36.0, -22.0), 18.0, SLOWER), ((18.0, -88.0, 0.0), 20.0, SLOWER),
          ((8.0, -70.0, 14.0), 16.0, SLOWER))
THINNING_MM = 0.09  # a decade, mean of all cortex: 3.6 % of about 2.5 mm
UNEVENNESS = 0.4  # standard deviation of the rate over cortex, as a share of its mean
MIDDLE_YEARS = 45.0  # where a label map's own pattern stands
BY_CHANCE_MM = ((32.0, 0.10), (16.0, 0.06))  # knots, and standard deviation of what one person's regions differ by
STARTS = 7  # shifts at which totals are measured before the one that is wanted is read between them


@lru_cache(maxsize=4)
def ageing_pattern(spec: VolumeSpec) -> torch.Tensor:
    """(kept voxels,) where cortex thins faster (+) and slower (-) than on average; mean 0, deviation 1 over grey."""
    x, y, z = kept_world(spec).double()
    pattern = torch.zeros_like(x)
    for (cx, cy, cz), width, weight in PLACES:
        far = (x.abs() - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2
        pattern += weight * torch.exp(-far / (2 * width**2))
    grey = torch.from_numpy(template(spec.name).grey.ravel()[kept_voxels(spec).numpy()]).double()
    mean = (grey * pattern).sum() / grey.sum()
    spread = ((grey * (pattern - mean) ** 2).sum() / grey.sum()).sqrt()
    return ((pattern - mean) / spread).float()


def uneven_mm(subject: Subject, spec: VolumeSpec) -> torch.Tensor:
    """(kept voxels,) how much further (mm) the cortex's outer border has moved in than it has on average."""
    decades = (subject.age - MIDDLE_YEARS) / 10
    chance = smooth_field(subject.rng("cortex"), spec, BY_CHANCE_MM)[0]
    return chance.add_(ageing_pattern(spec), alpha=THINNING_MM * UNEVENNESS * decades)


def fluid_at_total(levels: Sequence[torch.Tensor], shifts_mm: Sequence[float], uneven: torch.Tensor, wanted_ml: float,
                   voxel_ml: float) -> torch.Tensor:
    """(n,) the fluid that a cortex leaves whose outer border has moved in, unevenly, until ``wanted_ml`` are free.

    Args:
        levels: (n,) fluid for each of ``shifts_mm``, evenly spaced and rising.
        uneven: (n,) mm beyond the mean shift.
    """
    stack, step = torch.stack(list(levels)), shifts_mm[1] - shifts_mm[0]
    moving = (stack[-1] - stack[0] > 1e-4).nonzero()[:, 0]
    still_ml = float((stack[0].sum() - stack[0, moving].sum()) * voxel_ml)
    part, offset = stack[:, moving], (uneven[moving] - shifts_mm[0]) / step

    def shifted(mean_mm: float) -> torch.Tensor:
        place = (offset + mean_mm / step).clamp_(0, len(part) - 1)
        low = place.long().clamp_(max=len(part) - 2)[None]
        return torch.lerp(part.gather(0, low)[0], part.gather(0, low + 1)[0], place - low[0])

    means = np.linspace(shifts_mm[0] - 0.3, shifts_mm[-1] + 0.3, STARTS)
    totals = np.maximum.accumulate([float(shifted(mean).sum()) * voxel_ml + still_ml for mean in means])
    return stack[0].index_copy(0, moving, shifted(float(np.interp(wanted_ml, totals, means))))
