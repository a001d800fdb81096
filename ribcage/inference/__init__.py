"""Inference: a model and images → predictions, boxes and heat-maps, for files and for dataset folders.

Imports runtime to bundle.
Others use `predictions.predict`, `detections.detect`, `image_files`, `gradcam` and `explanation`.
"""
