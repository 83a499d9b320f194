"""Ends with 0 and has written nothing, as Musubi does when it finds no images."""

print("INFO:musubi_tuner.dataset.datasources:found 0 images")
