"""What weights were trained on, as their records tell: photographs of which data sets, or drawn faces."""

from __future__ import annotations

import recipe
from common.files import read_json
from gender_smile.training import chain
from lmdb_builders import manifest


def origin(row: chain.Row) -> dict:
    """{"trained_on": titles of the data sets of the steps up to this one, "drawn": whether this step's faces are drawn}.

    Of the steps before, what the record of the weights that the row starts from says; of an older record, which says
    nothing, what the LMDBs of these steps are now.
    """
    data_set = recipe.STEPS[row.step].dataset
    if data_set is None:
        return {"trained_on": [], "drawn": False}
    earlier = (read_json(row.path(row.weights_in + ".json")) or {}).get("trained_on") if row.weights_in else []
    if earlier is None:
        earlier = origin(row.before)["trained_on"] if row.start is None else []
    folder = row.path(recipe.lmdb_folder(row.profile.name, recipe.NETS[row.net].crop))
    drawn = manifest.is_drawn(folder, data_set)
    titles = [*earlier, recipe.DRAWN_FACES if drawn else manifest.title(folder, data_set)]
    return {"trained_on": list(dict.fromkeys(titles)), "drawn": drawn}
