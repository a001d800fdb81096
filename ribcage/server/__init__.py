"""Server: models behind HTTP, for browsers and programs. Research use only.

gate            access, concurrency, time limits
uploads         the body of a request → files, within limits
reading         uploaded bytes → pixels, in processes of their own
batching        images of several requests → one batch
served_models   a batch → the predictions for each image
app             routes
process         socket, signals, orderly shutdown
"""
