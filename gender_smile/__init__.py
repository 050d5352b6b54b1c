"""The paper's method as a library.

    from gender_smile import Pipeline
    prediction = Pipeline.load().predict(image)     # a path, or H x W x 3, uint8, BGR

Importing this package loads nothing; `Pipeline` is resolved on first use.
"""


def __getattr__(name):
    if name == "Pipeline":
        from gender_smile.inference.pipeline import Pipeline

        return Pipeline
    raise AttributeError("module 'gender_smile' has no attribute %r" % name)
