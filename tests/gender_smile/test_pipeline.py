"""The three stages of Figure 1, with nets whose answers are known."""

from __future__ import annotations

import hashlib
import json
import weakref

import numpy as np
import pytest

from pipeline_fakes import LANDMARKS, FakeDetector, FakeNet, fake_caffe, install, photo
from common import engine, files
from gender_smile.inference import pipeline
from gender_smile.inference.pipeline import Answer, Classifier, Photo, Pipeline, PipelineError


def sha256(answers: dict) -> dict:
    """Net -> SHA-256 of the weights that pipeline_fakes.install writes."""
    return {net: hashlib.sha256(str(answer).encode()).hexdigest() for net, answer in answers.items()}


def test_answers_come_from_gnet_and_the_mean_of_both_snets(fake_project):
    install(fake_project, {"gnet": 0.25, "snet1": 0.9, "snet2": 0.3})
    answer = Pipeline.load("demo").predict(photo(), "a.jpg").as_dict()
    assert json.loads(json.dumps(answer)) == {
        "image": "a.jpg",
        "number": 1,
        "faces": 1,
        "face": {"box": [30, 30, 40, 50], "score": 0.9, "landmarks": LANDMARKS.tolist()},
        "gender": {"label": "male", "probability": 0.75, "uncertain": False},
        "smile": {"label": "smiling", "probability": 0.6, "uncertain": True, "snet1": 0.9, "snet2": 0.3},
        "doubts": ["blurred"],  # a photo of one color
        "model": {"profile": "demo", "variant": "", "trained_on": [], "drawn": False, "engine": "torch", "sha256": sha256({
            "gnet": 0.25, "snet1": 0.9, "snet2": 0.3})},
    }


@pytest.mark.parametrize("one, label, probability", [(0.8, "female", 0.8), (0.2, "male", 0.8), (0.5, "male", 0.5)])
def test_probability_is_that_of_the_label(one, label, probability):
    assert Answer.of("gender", one) == Answer(label, probability)


def test_no_face_is_an_error_and_leaves_the_others_alone(fake_project):
    install(fake_project, {"gnet": "bright", "snet1": "bright", "snet2": "bright"})
    results = Pipeline.load("demo").predict_many([photo(51), photo(0), photo(204)], ["a", "b", "c"])
    assert [result.image for result in results] == ["a", "b", "c"]
    assert results[1].as_dict() == {"image": "b", "error": "no face found"}
    assert [round(results[index].p_positive["gnet"], 3) for index in (0, 2)] == [0.2, 0.8]


def test_every_crop_goes_through_a_net_by_itself(fake_project):
    """In every engine the last digits of a batch depend on its size."""
    install(fake_project, {"gnet": "bright", "snet1": 0.5, "snet2": 0.5})
    count = 5
    results = Pipeline.load("demo").predict_many(photo(10 + index, 90, 120) for index in range(count))
    assert FakeNet.made[0].batches == [1] * count
    assert np.allclose([result.p_positive["gnet"] for result in results], [(10 + index) / 255 for index in range(count)])


def test_a_photo_is_answered_and_forgotten_before_the_next_is_read(fake_project):
    """Weak references to the pixels of photos that were yielded: only the caller's own keeps one alive."""
    install(fake_project, {"gnet": 0.5, "snet1": 0.5, "snet2": 0.5})
    read, alive, answered = [], [], []

    def photos():
        for number in range(4):
            assert len(answered) == number
            alive.append(sum(reference() is not None for reference in read))
            pixels = photo()
            read.append(weakref.ref(pixels))
            yield Photo("a", pixels)
            del pixels

    for taken, predictions in Pipeline.load("demo").predict_photos(photos()):
        answered.append(predictions[0].gender.label)
        del taken
    assert alive == [0, 0, 0, 0] and answered == ["male"] * 4


def test_the_next_photo_is_read_while_one_is_answered(fake_project):
    """As OpenCV's nets have it: one photo ahead, no more; the reader's error comes in its turn, and a stop is a stop."""
    install(fake_project, {"gnet": 0.5, "snet1": 0.5, "snet2": 0.5})
    loaded, read = Pipeline.load("demo"), []
    assert not loaded._finds_apart
    loaded._finds_apart = True

    def photos(broken):
        for number in range(6):
            if number == broken:
                raise OSError("the disk is gone")
            read.append(number)
            yield Photo(str(number), photo())

    names = []
    with pytest.raises(OSError, match="the disk is gone"):
        for taken, _ in loaded.predict_photos(photos(broken=4), ahead=True):
            names.append(taken.name)
            assert len(read) <= len(names) + 1
    assert names == ["0", "1", "2", "3"]
    read.clear()
    stream = loaded.predict_photos(photos(broken=None), ahead=True)
    assert next(stream)[0].name == "0"
    stream.close()
    assert len(read) <= 2
    assert [taken.name for taken, _ in loaded.predict_photos(photos(broken=None), ahead=True)] == list("012345")


def test_the_face_nearest_the_middle_is_taken(fake_project):
    install(fake_project, {"gnet": 0.5, "snet1": 0.5, "snet2": 0.5})
    result = Pipeline.load("demo").predict(photo(255))
    assert result.face.box == (30, 30, 40, 50)  # the one in the corner has the better score


def test_landmarks_without_extent_are_an_error_of_the_photo(fake_project, monkeypatch):
    install(fake_project, {"gnet": 0.5, "snet1": 0.5, "snet2": 0.5})
    loaded = Pipeline.load("demo")
    monkeypatch.setattr("pipeline_fakes.LANDMARKS", np.zeros((5, 2), np.float32))
    assert "landmarks" in loaded.predict(photo()).error


@pytest.mark.parametrize("error, reason", [(RuntimeError("layer conv1:\n can't allocate"), "layer conv1: can't allocate"),
                                           (MemoryError(), "not enough memory")])
def test_a_photo_too_large_for_the_detector_leaves_the_others(fake_project, monkeypatch, error, reason):
    install(fake_project, {"gnet": 0.9, "snet1": 0.5, "snet2": 0.5})
    detect = FakeDetector.detect

    def run_out(self, image):
        if image.shape[0] > 100:
            raise error
        return detect(self, image)

    monkeypatch.setattr(FakeDetector, "detect", run_out)
    large, small = Pipeline.load("demo").predict_many([photo(128, 200, 200), photo()])
    assert large.error == f"face detection failed: {reason}" and small.gender.label == "female"


def test_an_engine_that_fails_is_a_pipeline_error(fake_project, monkeypatch):
    install(fake_project, {"gnet": 0.9, "snet1": 0.5, "snet2": 0.5})
    loaded = Pipeline.load("demo")

    def fail(self):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(FakeNet, "forward", fail)
    with pytest.raises(PipelineError, match="the nets cannot run: CUDA error: out of memory"):
        loaded.predict(photo())


@pytest.mark.parametrize("wanted, lines", [(None, 0), ("0", 1)])
def test_nets_are_loaded_without_caffes_report_of_each_layer(fake_project, monkeypatch, capfd, wanted, lines):
    from torchcaffe.core import log

    monkeypatch.setenv("GLOG_minloglevel", wanted or "")  # to be put back
    if wanted is None:
        monkeypatch.delenv("GLOG_minloglevel")
    install(fake_project, {"gnet": 0.9, "snet1": 0.5, "snet2": 0.5})
    Pipeline.load("demo")
    log.info("Creating layer data")
    assert capfd.readouterr().err.count("Creating layer data") == lines


def test_auto_takes_the_papers_weights_only_where_all_are_there(fake_project):
    install(fake_project, {"gnet": 0.1, "snet1": 0.1, "snet2": 0.1}, "demo")
    install(fake_project, {"gnet": 0.9, "snet1": 0.9}, "paper")
    assert Pipeline.load().profile == "demo"
    install(fake_project, {"snet2": 0.9}, "paper")
    loaded = Pipeline.load()
    assert loaded.profile == "paper"
    assert loaded.predict(photo()).gender == Answer("female", pytest.approx(0.9))


PHOTOGRAPHS = {"trained_on": ["CelebA", "FotW"], "drawn": False, "sha256": "1a2b" * 16}
DRAWN = {"trained_on": ["drawn faces"], "drawn": True, "sha256": "5e6f" * 16}
THREE = {"gnet": 0.9, "snet1": 0.9, "snet2": 0.9}


@pytest.mark.parametrize("variant", ["", "bf16"])
@pytest.mark.parametrize("there, taken", [
    ({"paper": PHOTOGRAPHS, "demo": PHOTOGRAPHS, "small": PHOTOGRAPHS}, "paper"),
    ({"demo": PHOTOGRAPHS, "small": PHOTOGRAPHS}, "demo"),
    ({"demo": DRAWN, "small": PHOTOGRAPHS}, "small"),
    ({"paper": DRAWN, "demo": DRAWN, "small": PHOTOGRAPHS}, "small"),
    ({"small": PHOTOGRAPHS}, "small"),
    ({"demo": None}, "demo"),  # nothing tells what they were trained on
])
def test_auto_takes_nets_that_were_trained_on_photographs(fake_project, there, taken, variant):
    for profile, record in there.items():
        install(fake_project, THREE, profile, variant, record)
    assert pipeline.choose_profile("auto", variant) == taken
    assert [pipeline.choose_profile(name, variant) for name in there] == list(there)
    assert Pipeline.load(variant=variant).model.name == taken + "-bf16" * bool(variant)


@pytest.mark.parametrize("variant", ["", "bf16"])
def test_nets_of_drawn_faces_alone_answer_by_name_only(fake_project, variant):
    install(fake_project, THREE, "demo", variant, DRAWN)
    with pytest.raises(PipelineError, match="demo were trained on drawn faces.* --profile demo.*git checkout weights/small"):
        Pipeline.load(variant=variant)
    assert "leave out --profile demo" in Pipeline.load("demo", variant=variant).model.warning


def test_one_net_of_three_that_was_trained_on_drawn_faces_counts(fake_project):
    install(fake_project, THREE, "demo", record=PHOTOGRAPHS)
    install(fake_project, {"snet2": 0.9}, "demo", record=DRAWN)
    with pytest.raises(PipelineError, match="drawn faces"):
        Pipeline.load()


def test_weights_whose_record_does_not_tell_are_told_by_the_lmdbs(fake_project):
    """Of a run of an earlier version: its manifest names the data set's folder, which was drawn."""
    install(fake_project, THREE, "demo", record={"iteration": 900, "sha256": "ab" * 32})
    assert Pipeline.load().model.as_dict() == {
        "profile": "demo", "variant": "", "trained_on": ["CelebA", "FotW"], "drawn": False,
        "engine": "torch", "sha256": dict.fromkeys(THREE, "ab" * 32)}
    for scheme in ("scheme1", "scheme3", "scheme5"):
        files.write_json(str(fake_project / "data" / "demo" / scheme / "manifest.json"), {
            name: {"folder": str(fake_project / "faces" / name)} for name in ("celeba", "fotw")})
    files.write_json(str(fake_project / "faces" / "drawn.json"), {"version": 1})
    with pytest.raises(PipelineError, match="drawn faces"):
        Pipeline.load()
    assert Pipeline.load("demo").model.trained_on == ("drawn faces",)


def test_the_model_in_one_line(fake_project):
    install(fake_project, THREE, "small", "bf16", PHOTOGRAPHS)
    assert Pipeline.load("small", variant="bf16").model.describe() == (
        "nets: small-bf16 (trained on photographs of CelebA and FotW); weights/small/step4_*-bf16.caffemodel, "
        "sha256 gnet 1a2b1a2b snet1 1a2b1a2b snet2 1a2b1a2b")


def test_weights_are_not_read_to_load_them_only(fake_project, monkeypatch):
    """Those of the paper's size take seconds; who asks what answered waits for it, once."""
    install(fake_project, THREE)
    read = []
    monkeypatch.setattr("gender_smile.inference.model.sha256_of", lambda path: read.append(path) or "00")
    loaded = Pipeline.load()
    predicted = [loaded.predict(photo()) for _ in range(2)]
    assert read == []
    assert [prediction.as_dict()["model"]["sha256"] for prediction in predicted] == [dict.fromkeys(THREE, "00")] * 2
    assert len(read) == 3


@pytest.mark.parametrize("threshold, gender, smile", [(0.65, True, False), (0, False, False), (0.9, True, True),
                                                      (0.6, False, False)])
def test_uncertain_answers_keep_their_labels_and_probabilities(fake_project, threshold, gender, smile):
    install(fake_project, {"gnet": 0.375, "snet1": 0.75, "snet2": 0.75})  # 0.375 is exact in float32
    found = Pipeline.load("demo", threshold=threshold).predict(photo())
    assert (found.gender, found.smile) == (Answer("male", 0.625, gender), Answer("smiling", 0.75, smile))


@pytest.mark.parametrize("threshold", [0.3, 1.5, -1])
def test_a_threshold_that_is_none(fake_project, threshold):
    install(fake_project, THREE)
    with pytest.raises(ValueError, match="neither 0 nor 0.5 to 1"):
        Pipeline.load("demo", threshold=threshold)


def test_missing_files_are_named_with_the_command_that_makes_them(fake_project):
    with pytest.raises(PipelineError, match="step4_gnet.caffemodel .make step4. nor .*make demo. nor .*git checkout weights/small"):
        Pipeline.load()
    install(fake_project, {"gnet": 0.1, "snet1": 0.1})
    with pytest.raises(PipelineError, match="step4_snet2.caffemodel is missing: make step4 NET=snet2 PROFILE=demo"):
        Pipeline.load("demo")
    with pytest.raises(PipelineError, match="unknown profile 'toy': use auto, paper, demo"):
        Pipeline.load("toy")


def test_weights_that_cannot_be_loaded_and_weights_without_numbers(fake_project):
    install(fake_project, {"gnet": "nan", "snet1": 0.5, "snet2": 0.5})
    with pytest.raises(PipelineError, match="step4_gnet.caffemodel outputs NaN or Inf"):
        Pipeline.load("demo").predict(photo())
    caffe = fake_caffe()

    def refuse(*arguments, **options):
        raise RuntimeError("Cannot copy param 0 weights from layer 'fc6'")

    caffe.Net = refuse
    with pytest.raises(PipelineError, match="cannot load weights/demo/step4_gnet.caffemodel .* layer 'fc6'"):
        Classifier(caffe, "demo", "gnet")


@pytest.mark.parametrize("gpu, calls", [(None, ["cpu"]), (2, [2, "gpu"])])
def test_device(fake_project, gpu, calls):
    assert pipeline.load_engine("auto", gpu).mode == calls


def test_a_missing_engine_is_a_pipeline_error(fake_project, monkeypatch):
    def refuse(name):
        raise engine.EngineError("real Caffe is not here: make caffe")

    monkeypatch.setattr(engine, "resolve", refuse)
    with pytest.raises(PipelineError, match="make caffe"):
        pipeline.load_engine("caffe")


def test_nets_get_each_their_own_scheme(fake_project):
    """A photo black but for the mouth: SNet2, which sees mouth and cheeks, sees most of it."""
    install(fake_project, {"gnet": "bright", "snet1": "bright", "snet2": "bright"})
    image = photo(1)
    image[62:74, 38:62] = 255
    ones = Pipeline.load("demo").predict(image).p_positive
    assert ones["snet2"] > 2 * ones["snet1"] > 2 * ones["gnet"] > 0


# ------------------------------------------------------------------------------------------ all faces, paths, threads
def test_every_face_the_central_one_first(fake_project):
    install(fake_project, {"gnet": "bright", "snet1": 0.5, "snet2": 0.5})
    pipeline = Pipeline.load("demo")
    first, second = pipeline.predict_faces(photo(255), "a.jpg")
    assert (first.number, first.faces, second.number, second.faces) == (1, 2, 2, 2)
    assert first.face.box == (30, 30, 40, 50) and second.face.box == (0, 0, 10, 10)
    assert pipeline.predict(photo(255), "a.jpg").as_dict() == first.as_dict()
    (nobody,) = pipeline.predict_faces(photo(0), "b.jpg")
    assert nobody.as_dict() == {"image": "b.jpg", "error": "no face found"}


def test_one_face_that_cannot_be_cropped_leaves_the_others(fake_project, monkeypatch):
    install(fake_project, {"gnet": 0.5, "snet1": 0.5, "snet2": 0.5})
    pipeline = Pipeline.load("demo")
    detect = FakeDetector.detect

    def flat(self, image):
        corner, central = detect(self, image)
        return [type(corner)(corner.box, corner.score, np.zeros((5, 2), np.float32)), central]

    monkeypatch.setattr(FakeDetector, "detect", flat)
    first, second = pipeline.predict_faces(photo(255))
    assert first.gender is not None and "landmarks" in second.error


def test_photos_by_path(fake_project):
    from PIL import Image

    install(fake_project, {"gnet": "bright", "snet1": 0.5, "snet2": 0.5})
    Image.fromarray(photo(51)).save(fake_project / "a.png")
    pipeline = Pipeline.load("demo")
    by_path, missing = pipeline.predict_many([fake_project / "a.png", str(fake_project / "b.png")])
    assert by_path.image == str(fake_project / "a.png") and by_path.p_positive["gnet"] == pytest.approx(0.2)
    assert missing.error == "file is missing"
    assert pipeline.predict(fake_project / "a.png", "mine").image == "mine"


def test_images_that_are_none_and_names_that_are_missing(fake_project):
    install(fake_project, {"gnet": 0.9, "snet1": 0.5, "snet2": 0.5})
    loaded = Pipeline.load("demo")
    with pytest.raises(ValueError, match="cv2.imread"):
        loaded.predict(None)
    for names in (["a"], ["a", "b", "c"], []):
        with pytest.raises(ValueError):
            loaded.predict_many([photo(), photo()], names)


def test_videos_say_which_frame(fake_project):
    install(fake_project, {"gnet": 0.5, "snet1": 0.5, "snet2": 0.5})
    taken = [pipeline.Photo("clip.mp4", photo(), frame=30, seconds=1.0), pipeline.Photo("clip.mp4", error="bad", frame=60)]
    (_, (good,)), (_, (bad,)) = Pipeline.load("demo").predict_photos(taken)
    assert list(good.as_dict())[:3] == ["image", "frame", "seconds"] and good.as_dict()["frame"] == 30
    assert bad.as_dict() == {"image": "clip.mp4", "frame": 60, "seconds": None, "error": "bad"}


def test_rows_have_what_objects_have(fake_project):
    install(fake_project, {"gnet": 0.25, "snet1": 0.9, "snet2": 0.3})
    loaded = Pipeline.load("demo")
    row = dict(zip(pipeline.COLUMNS, loaded.predict(photo(), "a.jpg").as_row()))
    assert row == {
        "image": "a.jpg", "frame": None, "seconds": None, "number": 1, "faces": 1, "x": 30, "y": 30, "width": 40,
        "height": 50, "score": 0.9, "gender": "male", "gender_probability": 0.75, "gender_uncertain": False,
        "smile": "smiling", "smile_probability": 0.6, "smile_uncertain": True, "gnet": 0.25, "snet1": 0.9, "snet2": 0.3,
        "doubts": "blurred", "model": "demo", "error": None,
    }
    row = dict(zip(pipeline.COLUMNS, loaded.predict(photo(0), "b.jpg").as_row()))
    assert row == {**dict.fromkeys(pipeline.COLUMNS), "image": "b.jpg", "error": "no face found"}


def test_threads_share_a_pipeline(fake_project, monkeypatch):
    """Each answer is that of its own photo, and never are two threads in the nets at once."""
    import threading
    import time
    from concurrent.futures import ThreadPoolExecutor

    install(fake_project, {"gnet": "bright", "snet1": "bright", "snet2": "bright"})
    inside, forward = threading.Semaphore(1), FakeNet.forward

    def slow(self):
        assert inside.acquire(blocking=False), "two threads in the nets"
        time.sleep(0.002)
        try:
            return forward(self)
        finally:
            inside.release()

    monkeypatch.setattr(FakeNet, "forward", slow)
    loaded = Pipeline.load("demo")
    levels = list(range(10, 50))
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda level: loaded.predict(photo(level)), levels))
    assert np.allclose([result.p_positive["gnet"] for result in results], [level / 255 for level in levels])


@pytest.mark.parametrize("gpu, calls", [(None, ["cpu"]), (2, [2, "gpu"])])
def test_every_thread_is_set_to_the_pipelines_device(fake_project, monkeypatch, gpu, calls):
    """Caffe's mode is a thread's own: one that never set it would compute on the CPU."""
    import threading

    install(fake_project, {"gnet": 0.5, "snet1": 0.5, "snet2": 0.5})
    devices = []
    monkeypatch.setattr("detector.batched.BatchedDetector", lambda device: devices.append(device) or FakeDetector())
    loaded = Pipeline.load("demo", gpu=gpu)
    assert devices == ([] if gpu is None else [f"cuda:{gpu}"])
    mode = loaded.classifiers["gnet"].caffe.mode
    mode.clear()
    thread = threading.Thread(target=loaded.predict, args=(photo(),))
    thread.start()
    thread.join()
    assert mode[: len(calls)] == calls
