"""Teachers of a distillation: classifiers that predict live, or predictions stored once for each image.

`opening` opens bundles and tables; `building` makes teachers of them; `live` and `stored` are the two kinds; `tables`
reads tables of predictions, and `linkage` matches their lines to images; `weighting` weights several teachers.
"""
