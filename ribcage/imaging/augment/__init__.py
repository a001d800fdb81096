"""Augmentation: settings, the random numbers drawn from them, and the batch that results.

  View → draw_numbers(view, seed, epoch, rows, number, side) → Numbers
  apply(images, numbers, mean, std) → (N, 1, H, W)

A `View` (`spec`) holds the settings; `Numbers` (`numbers`) are the random numbers of each image. `cpu` applies them
with OpenCV or, in processes that read many images, with a compiled function of the same results (`compiled_warp`);
`gpu` applies them with torch on any device. Before contrast and gamma stretch them, the two results differ by at most
one gray level of 255 (OpenCV 4 samples up to 1/64 pixel off, OpenCV 5 does not).

Geometry is one affine matrix, so an image is interpolated once, and boxes, masks and points move with the same matrix.
Coordinates start at the top left corner of the image: the centre of the first pixel is at (0.5, 0.5), its right edge at
1. Boxes use the same coordinates. Outside the image everything is black, a stored 0.

Order: downsample by a whole factor where the view needs less than two thirds of the resolution · gamma, contrast,
brightness · normalise · affine · blur · noise · erase. Intensity changes come before the affine transform: for 8 bits
they are a lookup table.
"""

from ribcage.imaging.augment.cpu import Images, apply, apply_into
from ribcage.imaging.augment.gpu import apply_torch, fixed_view_grid, shrunk_images
from ribcage.imaging.augment.masks import move_points, warp_mask
from ribcage.imaging.augment.numbers import Numbers, draw_numbers, move_boxes
from ribcage.imaging.augment.spec import (
    PRESETS,
    View,
    changed_view,
    gentle_view,
    plain_view,
    preset_views,
    published_view,
    resized_view,
    strong_view,
    ten_crops,
    varying_settings,
)

__all__ = [
    "PRESETS",
    "Images",
    "Numbers",
    "View",
    "apply",
    "apply_into",
    "apply_torch",
    "changed_view",
    "draw_numbers",
    "fixed_view_grid",
    "gentle_view",
    "move_boxes",
    "move_points",
    "plain_view",
    "preset_views",
    "published_view",
    "resized_view",
    "shrunk_images",
    "strong_view",
    "ten_crops",
    "varying_settings",
    "warp_mask",
]
