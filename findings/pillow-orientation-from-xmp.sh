#!/usr/bin/env bash
# Pillow 12.3.0: Image.getexif() of a picture that has no EXIF data at all.
#
# Guess:     the mapping is empty; there is no EXIF block to read an orientation from.
# Behaviour: where the file has an XMP packet that states tiff:Orientation, getexif() holds that number under 274, and
#            ImageOps.exif_transpose() turns the picture. A reader that looks for the EXIF block itself (a decoder of its
#            own, most other libraries) shows the same file unturned: two programs of one pipeline see other pixels.
# Seen:      no EXIF block, getexif() == {274: 6}; a 2 x 3 picture becomes 3 x 2.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check pillow==12.3.0
"$folder/venv/bin/python" - <<'PY'
from io import BytesIO

from PIL import Image, ImageOps, __version__

XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    "</rdf:RDF></x:xmpmeta>"
)
file = BytesIO()
Image.new("RGB", (2, 3), "red").save(file, "JPEG", xmp=XMP.encode())
assert b"Exif\0\0" not in file.getvalue(), "this picture has no EXIF block"
with Image.open(file) as image:
    told, turned = dict(image.getexif()), ImageOps.exif_transpose(image).size
print(f"Pillow {__version__}: EXIF block: none; getexif(): {told}; 2 x 3 becomes {turned[0]} x {turned[1]}")
assert told == {274: 6} and turned == (3, 2), "changed: Pillow no longer takes the orientation from XMP"
PY
