"""What weights were trained on, as their records tell: photographs of which data sets, or drawn faces."""

from __future__ import annotations

import recipe
from common.files import read_json
from gender_smile.training import chain
from lmdb_builders import manifest


def origin(row: chain.Row) -> dict:
    """{"trained_on": titles of the data sets of the steps up to this one, "drawn": whether this step's faces are drawn,
    "teacher": title of the net whose embeddings step 1 learned, where it did}.

    Of the steps before, what the record of the weights that the row starts from says; of an older record, which says
    nothing, what the LMDBs of these steps are now.
    """
    if not row.data_sets:
        return {"trained_on": [], "drawn": False}
    record = (read_json(row.path(row.weights_in + ".json")) or {}) if row.weights_in else {"trained_on": []}
    earlier = record.get("trained_on")
    if earlier is None:
        earlier = origin(row.before)["trained_on"] if row.start is None and row.step > 1 else []
    folder = row.path(recipe.lmdb_folder(row.profile.name, row.crop))
    drawn = [manifest.is_drawn(folder, data_set) for data_set in row.data_sets]
    titles = [recipe.DRAWN_FACES if is_drawn else manifest.title(folder, data_set)
              for data_set, is_drawn in zip(row.data_sets, drawn)]
    teacher = row.profile.teacher.title if row.step == 1 and row.profile.teacher else record.get("teacher")
    return {"trained_on": list(dict.fromkeys([*earlier, *titles])), "drawn": any(drawn),
            **({"teacher": teacher} if teacher else {})}
