import numpy as np
import torch
from matplotlib.image import imread

from exml_lightning.core.images import ImageFormat
from exml_lightning.report.grid import save_grid


def test_a_row_of_images_for_each_class(tmp_path):
    # class 2 is white, class 0 is black: the lower row of the picture must be the brighter one
    labels = torch.tensor([2, 0, 2, 0, 2])
    images = (labels == 2).float().view(5, 1, 1, 1).expand(5, 1, 6, 6)
    path = tmp_path / "buffer" / "experience=3.png"
    save_grid(path, images, labels, ["ant", "bee", "cat"], ImageFormat((1, 6, 6), (0.0,), (1.0,)), per_class=4)
    picture = imread(path)[..., :3]
    assert picture.shape[1] > picture.shape[0]
    height = len(picture)
    dark = np.argwhere((picture == 0).all(axis=2))[:, 0]
    assert dark.mean() < height / 2  # the images of class 0 stand above
    assert [p.name for p in path.parent.iterdir()] == ["experience=3.png"]


def test_colour_images_and_many_classes(tmp_path):
    labels = torch.arange(60)
    images = torch.zeros(60, 3, 4, 4, dtype=torch.uint8)
    images[:, 0] = 255  # red
    path = tmp_path / "many.png"
    image_format = ImageFormat((3, 4, 4), (0.5,) * 3, (0.5,) * 3)
    save_grid(path, images, labels, [str(i) for i in range(60)], image_format, per_class=2, max_classes=3)
    picture = imread(path)[..., :3]
    assert (picture == [1, 0, 0]).all(axis=2).mean() > 0.05
