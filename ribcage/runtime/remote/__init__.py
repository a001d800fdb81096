"""Remote: files behind fsspec addresses, such as s3://bucket/data/nih.

`addresses` recognises them, `objects` lists, reads, writes and removes single objects with retries and clear errors,
`cache` keeps local copies of whole objects in a folder of limited size. fsspec and its file systems are imported only
when an address is used.
"""
