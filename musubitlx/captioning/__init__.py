"""The captioning program: `python -m musubitlx.captioning` writes captions for a folder's images.

It runs in whichever interpreter has torch and transformers, so it imports from the rest of
MusubiTLX only what the standard library and Pillow are enough for.
"""
