"""Attachments of documents: binary contents, or links to them, beside a document's keys.

What a document may say of them is in `given`, what a stored body says in `stubs`, and how the one becomes the other
in `resolve`: these are pure. Storing and reading contents is in `blobs`, `uploads` and `documents`. The bytes
themselves are kept by `feeds.blobs`, and rows by `feeds.storage`.
"""
