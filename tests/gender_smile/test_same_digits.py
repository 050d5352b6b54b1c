"""A face's probabilities are the same, to the last bit, whatever was answered before it and is answered with it."""

import numpy as np
import pytest

import recipe
from pipeline_fakes import FakeDetector
from random_nets import write_random_nets
from gender_smile.inference.pipeline import Photo, Pipeline

SIZES = ((240, 200), (301, 403), (90, 120), (500, 333))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Makes pipelines with the demo's nets, of the paper's topology, and random weights; a face in every photo."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "ROOT", str(tmp_path_factory.mktemp("project")))
        patch.setattr("detector.Detector", FakeDetector)
        write_random_nets("demo")
        yield lambda engine="torch": Pipeline.load("demo", engine)


def random_photo(seed, size=(240, 200), faces=1):
    pixels = np.random.default_rng(seed).integers(1, 255, (*size, 3), np.uint8)
    pixels[0, 0] = 255 if faces == 2 else 7  # what FakeDetector goes by
    return pixels


def digits(prediction):
    assert prediction.error is None
    return prediction.p_positive


@pytest.mark.parametrize("engine", ["torch", "opencv"])
def test_alone_after_twenty_others_and_in_a_folder(loaded, engine):
    wanted = random_photo(0, faces=2)
    alone = [digits(face) for face in loaded(engine).predict_faces(wanted)]
    assert len(alone) == 2 and alone[0] != alone[1]

    pipeline = loaded(engine)
    for seed in range(1, 21):
        pipeline.predict(random_photo(seed, SIZES[seed % 4]))
    assert [digits(face) for face in pipeline.predict_faces(wanted)] == alone

    for place in (0, 4, 9):  # among photos of other sizes, some with two faces
        photos = [random_photo(seed, SIZES[seed % 4], 1 + seed % 2) for seed in range(1, 10)]
        photos.insert(place, wanted)
        for ahead in (False, True):  # with OpenCV the next photo's faces are then found meanwhile
            named = (Photo(str(i), pixels) for i, pixels in enumerate(photos))
            found = list(loaded(engine).predict_photos(named, all_faces=True, ahead=ahead))
            assert [int(photo.name) for photo, _ in found] == list(range(10))
            assert [digits(face) for face in found[place][1]] == alone


def test_a_net_that_somebody_has_looked_into(loaded):
    wanted = random_photo(0)
    pipeline = loaded()
    alone = digits(pipeline.predict(wanted))
    held = [blob.data for classifier in pipeline.classifiers.values() for blob in classifier.net.blobs.values()]
    held += [blob.data for classifier in pipeline.classifiers.values()
             for blobs in classifier.net.params.values() for blob in blobs]  # fmt: skip
    assert digits(pipeline.predict(wanted)) == alone
    del held
    assert digits(pipeline.predict(wanted)) == alone
    pipeline.predict(random_photo(1), explain=True)
    assert digits(pipeline.predict(wanted)) == alone
