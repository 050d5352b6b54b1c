"""The pictures that predict.py draws."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import recipe
from predict_project import save
from pipeline_fakes import photo
from gender_smile.inference import draw, photos
from tools import predict
from gender_smile.inference.pipeline import Pipeline, percent


def test_one_picture_goes_to_the_file_named(photos_folder, capsys):
    assert predict.main([save("a.jpg"), "--draw", "new folder/out.png"]) == 0
    assert capsys.readouterr().out.splitlines()[-2] == "  picture new folder/out.png"
    assert Image.open("new folder/out.png").size[0] == draw.LONG_SIDE[0]


def test_several_pictures(photos_folder):
    os.makedirs("other")
    images = [save("a.jpg"), save("dark.png", photo(0)), save("other/a.png")]
    assert predict.main([*images, "--draw", "pictures", "--json"]) == 1
    assert sorted(os.listdir("pictures")) == ["a_prediction.png", "a_prediction_2.png"]
    assert predict.main([*images, "--draw", "out.jpg", "--json"]) == 1
    assert os.path.exists("out_1.jpg") and not os.path.exists("out_2.jpg") and os.path.exists("out_3.jpg")


@pytest.mark.parametrize("target, message", [("a.jpg", "overwrite"), ("out.gif", ".png"), ("plain", "without suffix"),
                                             ("", "names no place")])
def test_places_where_no_picture_can_go(photos_folder, capsys, target, message):
    with open("plain", "w"):
        pass
    before = os.path.getsize(save("a.jpg"))
    assert predict.main(["a.jpg", "--draw", target]) == 2
    assert message in capsys.readouterr().err
    assert os.path.getsize("a.jpg") == before


def test_a_picture_that_cannot_be_written_is_a_failure(photos_folder, capsys):
    with open("file", "w"):
        pass
    assert predict.main([save("a.jpg"), "--draw", "file/out.png"]) == 1
    assert "file/out.png: cannot write the picture" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["out.png", "out.jpg", "OUT.JPEG"])
def test_a_full_disk_leaves_the_picture_that_was_there(photos_folder, monkeypatch, name):
    """The second picture fails when half of it is written, as on a full disk."""
    from matplotlib.figure import Figure

    prediction = predict_one(photo())
    draw.draw(photo(), [prediction], name)
    with open(name, "rb") as file:
        before = file.read()
    save_whole = Figure.savefig

    def fill_the_disk(figure, path, **options):
        save_whole(figure, path, **options)
        os.truncate(path, 1000)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fill_the_disk)
    with pytest.raises(OSError):
        draw.draw(photo(90), [prediction], name)
    with open(name, "rb") as file:
        assert file.read() == before
    assert sorted(os.listdir()) == [name] and Image.open(name).format == ("PNG" if name == "out.png" else "JPEG")


@pytest.mark.parametrize("height, width", [(8, 8), (30, 4_000), (3_000, 2_000)])
def test_pictures_of_photos_of_all_sizes(photos_folder, height, width):
    prediction = predict_one(photo(200, height, width))
    draw.draw(photo(200, height, width), [prediction], "out.png")
    picture = np.asarray(Image.open("out.png").convert("RGB"))
    assert draw.LONG_SIDE[0] <= max(picture.shape[:2]) <= 2 * draw.LONG_SIDE[1]
    assert count(picture, draw.GENDER) > 100 and count(picture, draw.SMILE) > 100  # the bars


def test_bars_are_as_long_as_their_probabilities(photos_folder):
    draw.draw(photo(), [predict_one(photo())], "out.png")
    picture = np.asarray(Image.open("out.png").convert("RGB"))
    rows = (picture == rgb(draw.GENDER)).all(axis=2).sum(axis=1)
    track = (picture == rgb(draw.TRACK)).all(axis=2)[rows.argmax(), : picture.shape[1] // 2].sum()
    assert rows.max() / (rows.max() + track) == pytest.approx(0.93, abs=0.02)


def test_no_answer_is_called_certain():
    assert [percent(probability) for probability in (1.0, 0.99999, 0.9994, 0.5)] == ["99.9 %", "99.9 %", "99.9 %", "50.0 %"]


def test_uncertain_answers_are_marked(photos_folder):
    one = Pipeline.load("demo", threshold=0.75).predict(photo())  # smiling: 70 %
    for predictions, expected in (([one], {"female, smiling?", "GENDER", "SMILE, UNCERTAIN", "smiling"}),
                                  ([one, replace(one, number=2)], {"female", "smiling, uncertain"})):
        (axes,) = draw.render(photo(), predictions).axes
        assert expected <= {text.get_text() for text in axes.texts}


def test_a_crowd_does_not_grow_the_picture_without_end(photos_folder):
    one = predict_one(photo())
    heights = [draw.render(photo(), [replace(one, number=number) for number in range(1, count + 1)]).get_figheight()
               for count in (draw.MOST_ROWS, draw.MOST_ROWS + 10)]
    assert heights[0] == heights[1]


def predict_one(image):
    return Pipeline.load("demo").predict(image)


def rgb(color: str) -> list:
    return [int(color[position : position + 2], 16) for position in (1, 3, 5)]


def count(picture, color: str) -> int:
    return int((picture == rgb(color)).all(axis=2).sum())


def test_pictures_of_several_faces_and_of_crops(photos_folder, monkeypatch):
    image = photo(255)
    one, group = predict_one(image), Pipeline.load("demo").predict_faces(image, crops=True)
    sizes = []
    for predictions in ([one], [replace(one, crops=group[0].crops)], [replace(face, crops={}) for face in group], group):
        draw.draw(image, predictions, "out.png")
        sizes.append(Image.open("out.png").size)
    plain, crops, faces, both = sizes
    assert {width for width, _ in sizes} == {draw.LONG_SIDE[0]}
    assert plain[1] < crops[1] and faces[1] < both[1] and plain[1] - 10 < faces[1] < crops[1]


def test_what_the_nets_saw_is_in_the_picture_pixel_for_pixel_in_color(photos_folder, monkeypatch):
    """A crop of one odd color, and the same color in the picture; with a heat map, warm where it says."""
    image, size = photo(), recipe.DEMO.crop_size
    crops = {net: np.full((size, size, 3), (200, 30, 90), np.uint8) for net in recipe.PIPELINE_NETS}
    draw.draw(image, [replace(predict_one(image), crops=crops)], "out.png")
    cold = np.asarray(Image.open("out.png").convert("RGB"))
    same = (np.abs(cold.astype(int) - (90, 30, 200)).max(axis=2) < 3).sum()
    assert same > 3 * 150**2
    heat = {net: np.zeros((size, size), np.float32) for net in recipe.PIPELINE_NETS}
    heat["snet2"][: size // 2] = 1
    draw.draw(image, [replace(predict_one(image), crops=crops, heat=heat)], "out.png")
    warm = np.asarray(Image.open("out.png").convert("RGB"))
    below = draw.LONG_SIDE[0] + 130  # where the crops begin
    bright = warm[below:below + 120].min(axis=2) > 100  # the warm end of the colors, over the gray of the crop
    columns = np.flatnonzero(bright.sum(axis=0) > 40)
    assert 80 < len(columns) < 120 and columns.min() > 5 / 6 * warm.shape[1] - 20  # the last tile of six


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG"])
def test_a_picture_is_told_from_a_photo(photos_folder, suffix):
    draw.draw(photo(), [predict_one(photo())], "out" + suffix)
    assert photos.is_own_picture("out" + suffix) and not photos.is_own_picture(save("a" + suffix))
    Image.open("out" + suffix).load()


def test_pictures_go_into_the_photos_own_folder_again_and_again(photos_folder, capsys):
    os.makedirs("mine/deep")
    save("mine/a.jpg"), save("mine/deep/b.png")
    for _ in range(2):
        assert predict.main(["mine", "--draw", "mine", "--json"]) == 0
        assert capsys.readouterr().out.count("\n") == 2
        assert predict.main(["mine/*", "--draw", "mine", "--json"]) == 0
        assert capsys.readouterr().out.count("\n") == 2
    assert sorted(os.listdir("mine")) == ["a.jpg", "a_prediction.png", "b_prediction.png", "deep"]


def test_a_photo_that_bears_the_name_of_a_picture_stays(photos_folder, capsys):
    os.makedirs("other")
    images = [save("a.jpg"), save("b.jpg")]
    for path, target in (("other/a_prediction.png", "other"), ("out_1.png", "out.png")):
        save(path)
        before = os.path.getsize(path)
        assert predict.main([*images, "--draw", target]) == 2
        assert f"{path} is there and was not drawn by predict.py; move it, or name another place" in capsys.readouterr().err
        assert os.path.getsize(path) == before
