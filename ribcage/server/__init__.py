"""Server: finished models behind HTTP, for a browser and for programs. Research use only.

gate        who may ask, how many at once, for how long
uploads     the body of a request → files, as long as it stays within its limits
reading     bytes from outside → pixels, in processes of their own
batching    images of several requests → one batch
answering   a batch → what the model says of each image
app         routes
process     a socket, signals, and an end that finishes what was begun
"""
