"""Questions to pycaffe, answered in JSON by the engine that runs this file: `python pycaffe_probe.py FOLDER`.

Run under real Caffe's Python and under torchcaffe (`--torchcaffe ROOT FOLDER`); test_pycaffe_parity.py compares the
answers. Only questions that real Caffe survives: what it aborts on cannot be asked in a process that goes on.
"""

import json
import sys

from pycaffe_asking import ANSWERS, write
from pycaffe_module_questions import classifier_questions, io_questions, module_questions, spec_questions
from pycaffe_net_questions import NET, blob_questions, net_questions
from pycaffe_solver_questions import solver_questions


def main(folder):
    path = write(folder, "probe.prototxt", NET)
    module_questions()
    net_questions(path, folder)
    blob_questions(path)
    solver_questions(folder)
    spec_questions()
    io_questions()
    classifier_questions(folder)
    print(json.dumps(ANSWERS))


if __name__ == "__main__":
    main(sys.argv[1])
