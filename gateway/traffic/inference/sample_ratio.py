"""Whether versions have got the users that their shares say: if not, something loses some, and no comparison is sound.

The bet is the Dirichlet-multinomial mixture around the shares (M. Lindon, A. Malek, "Anytime-Valid Inference for
Multinomial Count Data", NeurIPS 2022).
"""

import math
from collections.abc import Mapping

_CONCENTRATION = 100.0
"""How close to the shares other ones are bet on: differences of some per cent are found soonest."""


def log_bet(counts: Mapping[str, int], shares: Mapping[str, float]) -> float:
    """The logarithm of what the bet against the shares has come to. `shares` are fractions that add up to 1."""
    known = {name: share for name, share in shares.items() if share > 0}
    total = sum(counts.get(name, 0) for name in known)
    bet = math.lgamma(_CONCENTRATION) - math.lgamma(_CONCENTRATION + total)
    for name, share in known.items():
        count, prior = counts.get(name, 0), _CONCENTRATION * share
        bet += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(share)
    return bet
