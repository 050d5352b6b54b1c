"""Layers with files, arrays or code behind them; `files.prepare` makes the files."""

from case import Abort, Case

NONE = dict(bottoms=[], weights=None, backward=False, passes=5)
TRANSFORMS = (
    "",
    "scale: 0.5",
    "mean_value: 10",
    "mean_value: 10 mean_value: 20 mean_value: 30 scale: 0.1",
    "crop_size: 5",
    "mirror: true",
    "mirror: true crop_size: 4",
    'mean_file: "{folder}/mean.binaryproto"',
    'mean_file: "{folder}/mean.binaryproto" mirror: true crop_size: 6 scale: 0.01',
)


def databases():
    for phase in ("TRAIN", "TEST"):
        for transform in TRANSFORMS:
            yield Case(
                "Data",
                'data_param { source: "{folder}/lmdb" backend: LMDB batch_size: 4 } transform_param { %s }' % transform,
                tops=2,
                phase=phase,
                **NONE,
            )
    yield Case("Data", 'data_param { source: "{folder}/lmdb" backend: LMDB batch_size: 3 }', tops=1, **NONE)
    yield Case("Data", 'data_param { source: "{folder}/floats" backend: LMDB batch_size: 2 }', tops=2, **NONE)
    encoded = 'data_param { source: "{folder}/encoded" backend: LMDB batch_size: 4 } transform_param { %s }'
    for transform in ("", "force_color: true", "force_gray: true", "force_color: true crop_size: 5 mirror: true"):
        yield Case("Data", encoded % transform, tops=2, **NONE)


def images():
    for phase in ("TRAIN", "TEST"):
        for transform in TRANSFORMS:
            yield Case(
                "ImageData",
                'image_data_param { source: "{folder}/images.txt" root_folder: "{folder}/" batch_size: 3 } '
                "transform_param { %s }" % transform,
                tops=2,
                phase=phase,
                **NONE,
            )
    for settings in (
        "",
        "shuffle: true",
        "rand_skip: 4",
        "shuffle: true rand_skip: 3",
        "is_color: false",
        "new_height: 6 new_width: 9",
        "new_height: 12 new_width: 5 is_color: false",
    ):
        for mirror in ("", "transform_param { mirror: true }"):
            yield Case(
                "ImageData",
                'image_data_param { source: "{folder}/images.txt" root_folder: "{folder}/" batch_size: 2 %s } %s'
                % (settings, mirror),
                tops=2,
                **NONE,
            )


def windows():
    layer = 'window_data_param { source: "{folder}/windows.txt" root_folder: "{folder}/" batch_size: 6 %s } transform_param { %s }'
    context = [mode + pad for mode in ("", 'crop_mode: "square" ') for pad in ("", "context_pad: 2", "context_pad: 6")]
    transforms = (
        "",
        "mirror: true",
        "mean_value: 100 mirror: true",
        "mean_value: 10 mean_value: 20 mean_value: 30",
        'mean_file: "{folder}/window_mean.binaryproto" mirror: true',
    )
    for phase in ("TRAIN", "TEST"):
        for one in context:
            for transform in transforms:
                yield Case("WindowData", layer % (one, "crop_size: 15 " + transform), tops=2, phase=phase, **NONE)
    for settings in (
        "fg_threshold: 0.7 bg_threshold: 0.3",
        "fg_fraction: 0.5",
        "fg_fraction: 0.34",
        "fg_fraction: 0",
        "fg_fraction: 1",
        "cache_images: true",
        'crop_mode: "warp"',
        'crop_mode: "other"',
        "scale: 0.1 mirror: true crop_size: 9",  # of these, scale alone counts
    ):
        transform = "mean_value: 50 crop_size: 16 scale: 3"  # whose scale does not
        yield Case("WindowData", layer % (settings, transform), tops=2, **NONE)


def arrays():
    for settings in ("", "shuffle: true"):
        for source in ("one", "three"):
            yield Case(
                "HDF5Data",
                'hdf5_data_param { source: "{folder}/%s.txt" batch_size: 4 %s }' % (source, settings),
                tops=["data", "label"],
                **NONE,
            )
    yield Case(
        "HDF5Data",
        'hdf5_data_param { source: "{folder}/three.txt" batch_size: 11 }',
        tops=["whole", "data", "label"],
        **NONE,
    )
    yield Case(
        "HDF5Output",
        'hdf5_output_param { file_name: "{folder}/{engine}_output.h5" }',
        [((3, 2, 4, 5), "normal"), ((3,), "labels:9")],
        tops=0,
        weights=None,
        passes=1,
        force=False,
    )
    memory = "memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 }"
    for labels in ((6,), (6, 1, 1, 1)):
        yield Case("MemoryData", memory, tops=2, arrays=((6, 3, 4, 5), labels), **NONE)


def python():
    layer = 'python_param { module: "python_layers" layer: "%s" param_str: "%s" }'
    yield Case("Python", layer % ("Affine", "3.5"), [((2, 3, 4), "normal")], second=[(4, 3, 4)])
    yield Case("Python", layer % ("Affine", "-1"), [((2, 3, 4), "normal")], "in-place")
    yield Case("Python", layer % ("Learned", ""), [((4, 3), "normal")])
    yield Case("Python", layer % ("Distance", ""), [((4, 3), "normal")] * 2, weights=[2])
    yield Case("Python", layer % ("Counter", "5"), tops=2, **NONE)
    yield Case("Python", layer % ("Affine", "2"), [((3, 2), "normal")], force=False, learn=True, phase="TEST")


CASES = [case for group in (databases, images, windows, arrays, python) for case in group()]
SHAPE = (2, 3, 4, 5)
MEMORY = "memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 }"
IMAGES = 'image_data_param { source: "{folder}/%s" root_folder: "{folder}/" batch_size: 2 %s } transform_param { %s }'
DATABASE = 'data_param { source: "{folder}/lmdb" backend: LMDB batch_size: 2 } transform_param { %s }'
WINDOWS = 'window_data_param { source: "{folder}/%s" root_folder: "{folder}/" batch_size: 4 %s } transform_param { %s }'
ABORTS = [
    Abort("WindowData", WINDOWS % ("windows.txt", "", ""), [], "crop_size must be positive", tops=2),
    Abort("WindowData", WINDOWS % ("none.txt", "", "crop_size: 9"), [], "no such list of windows", tops=2),
    Abort("WindowData", WINDOWS % ("class0.txt", "", "crop_size: 9"), [], "line 1: an object's class is 1", tops=2),
    Abort("WindowData", WINDOWS % ("images.txt", "", "crop_size: 9"), [], "line 1: expected #, found", tops=2),
    Abort("WindowData", WINDOWS % ("no_object.txt", "", "crop_size: 9"), [], "no windows of objects", tops=2, run=True),
    Abort("WindowData", WINDOWS % ("no_background.txt", "", "crop_size: 9"), [], "no windows of background", tops=2, run=True),
    Abort("WindowData", WINDOWS % ("outside.txt", "fg_fraction: 1", "crop_size: 9"), [], "line 1: the window", tops=2, run=True),
    Abort("WindowData", WINDOWS % ("windows.txt", "context_pad: 5", "crop_size: 10"), [], "leaves nothing", tops=2, run=True),
    Abort("WindowData", WINDOWS % ("windows.txt", "", "crop_size: 9"), [], "takes 2 top blobs", tops=1),
    Abort("WindowData", WINDOWS % ("windows.txt", "", "crop_size: 9 mean_value: 1 mean_value: 2"), [], "2 mean values", tops=2),
    Abort("WindowData", WINDOWS % ("windows.txt", "fg_fraction: 1.5", "crop_size: 9"), [], "fg_fraction must be", tops=2, run=True),
    Abort("WindowData", WINDOWS % ("gone.txt", "cache_images: true", "crop_size: 9"), [], "No such file", tops=2, run=True),
    Abort("WindowData", WINDOWS % ("one_channel.txt", "", "crop_size: 9"), [], "line 1: 1 channels", tops=2, run=True),
    Abort("Data", 'data_param { source: "{folder}/none" backend: LMDB batch_size: 2 }', [], "no LMDB there", tops=2),
    Abort("Data", 'data_param { source: "{folder}/lmdb" batch_size: 2 }', [], "backend: LMDB must be given", tops=2),
    Abort("Data", DATABASE % "crop_size: 50", [], "crop_size 50 is larger", tops=2),
    Abort("Data", DATABASE % "mean_value: 1 mean_value: 2", [], "2 mean values do not fit", tops=2, run=True),
    Abort("Data", DATABASE % 'mean_value: 1 mean_file: "{folder}/mean.binaryproto"', [], "not both", tops=2),
    Abort("Data", DATABASE % 'mean_file: "{folder}/none.binaryproto"', [], "none.binaryproto", tops=2),
    Abort("Data", DATABASE % 'mean_file: "{folder}/infogain4.binaryproto"', [], "the records are", tops=2, run=True),
    Abort("ImageData", IMAGES % ("none.txt", "", ""), [], "no such list of images", tops=2),
    Abort("ImageData", IMAGES % ("images.txt", "new_height: 4", ""), [], "both new_height and new_width", tops=2),
    Abort("ImageData", IMAGES % ("broken.txt", "", ""), [], "does not exist", tops=2),
    Abort("ImageData", IMAGES % ("images.txt", "", "crop_size: 50"), [], "crop_size 50 is larger", tops=2),
    Abort("ImageData", IMAGES % ("images.txt", "", ""), [], "takes 2 top blobs", tops=1),
    Abort(
        "HDF5Data", 'hdf5_data_param { source: "{folder}/none.txt" batch_size: 2 }', [], "no such list of HDF5 files", tops=["data"]
    ),
    Abort(
        "HDF5Data", 'hdf5_data_param { source: "{folder}/one.txt" batch_size: 2 }', [], "no dataset", tops=["nothing"]
    ),
    Abort(
        "HDF5Data",
        'hdf5_data_param { source: "{folder}/one.txt" batch_size: 2 } transform_param { scale: 2 }',
        [],
        "transform_param",
        tops=["data"],
    ),
    Abort(
        "HDF5Output",
        'hdf5_output_param { file_name: "{folder}/{engine}_twice.h5" }',
        [SHAPE, (2,)],
        "one forward pass writes one file",
        tops=0,
        run=True,
        weights=None,
    ),
    Abort("MemoryData", MEMORY, [], "call set_input_arrays", tops=2, run=True, weights=None),
    Abort("MemoryData", "memory_data_param { batch_size: 2 }", [], "must be positive", tops=2),
]
