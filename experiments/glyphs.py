"""Letters as images: real typefaces of Debian's font packages, drawn on 28 x 28 pixels.

A typeface's letters stand on one baseline in one size, the largest within 24 x 24 pixels. A package
holds one family of styles; packages never lie on both sides of a split, so a test letter is of a
typeface that training has not seen.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont, TTLibError
from PIL import Image, ImageDraw, ImageFont

_NAMES = """
    3270 adf-accanthis adf-baskervald adf-berenis adf-gillius adf-ikarius adf-irianis adf-libris
    adf-mekanus adf-oldania adf-romande adf-solothurn adf-switzera adf-tribun adf-universalis
    adf-verana agave allerta anonymous-pro arapey averia-sans-gwf averia-serif-gwf b612 beteckna
    breip cabin cabinsketch cantarell century-catalogue clear-sans comfortaa comic-neue
    courier-prime crosextra-caladea crosextra-carlito dancingscript dejavu-core dkg-handwriting
    dosis dustin ebgaramond ecolier-court essays1743 fantasque-sans fanwood firacode
    georgewilliams gfs-artemisia gfs-bodoni-classic gfs-didot gfs-neohellenic go
    goudybookletter hack-ttf hermit inconsolata isabella jetbrains-mono junction jura karla
    kaushanscript klaudia-berenika kristi league-mono leckerli-one levien-museum
    levien-typoscript lindenhill linuxlibertine lobster lobstertwo manrope monofur mononoki
    national-park ocr-a ocr-b oldstandard open-sans opendin osifont oxygen paratype play prociono
    quattrocento quicksand radisnoir roboto-slab routed-gothic rufscript sil-andikanewbasic
    sil-gentium-basic sjfonts sora stix tiresias tlwg-loma-ttf tlwg-purisa-ttf tlwg-norasi-ttf
    tlwg-typist-ttf tuffy vollkorn yanone-kaffeesatz yrsa-rasa
"""
PACKAGES = tuple(f"fonts-{name}" for name in _NAMES.split())
SCRIPTS = {
    "latin": "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    "digits": "0123456789",
    "greek": "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩαβγδεζηθικλμνξοπρστυφχψω",
    "cyrillic": "АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюя",
}
SIDE, BOX, _SCALE = 28, 24, 4
logging.getLogger("fontTools").setLevel(logging.ERROR)  # it reports every oddity of every font


def read(folder: Path, script: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (num, 28, 28) of bytes, their letters and their packages, as indices.

    Args:
        folder: holds each package unpacked under its name.
        script: a key of `SCRIPTS`; a typeface that lacks one of its letters is left out.
    """
    letters = SCRIPTS[script]
    images, labels, families = [], [], []
    for family, package in enumerate(PACKAGES):
        drawn: set[bytes] = set()
        for path in _typefaces(folder / package, letters):
            face = _draw(path, letters)
            content = b"".join(image.tobytes() for image in face)
            if content in drawn or not all(image.any() for image in face):
                continue  # the same typeface in another format, or one that draws nothing
            drawn.add(content)
            images += face
            labels += range(len(letters))
            families += [family] * len(letters)
    return np.stack(images), np.asarray(labels, np.uint8), np.asarray(families)


def _typefaces(folder: Path, letters: str) -> Iterator[Path]:
    """The outline fonts under a folder that have all the letters, by name."""
    paths = (p for p in folder.rglob("*") if p.suffix.lower() in (".ttf", ".otf"))
    for path in sorted(p for p in paths if not p.is_symlink()):
        try:
            with path.open("rb") as stream, TTFont(stream, lazy=True) as font:
                covered = font.getBestCmap() or {}
        except TTLibError:
            continue  # not a font in spite of its name
        if all(ord(letter) in covered for letter in letters):
            yield path


def _draw(path: Path, letters: str) -> list[np.ndarray]:
    """A typeface's letters on one baseline and in one size, so that c and C differ."""
    font = ImageFont.truetype(str(path), SIDE * _SCALE)
    boxes = np.asarray([font.getbbox(letter) for letter in letters])
    top, bottom = boxes[:, 1].min(), boxes[:, 3].max()
    side = max(bottom - top, (boxes[:, 2] - boxes[:, 0]).max()) * SIDE / BOX
    images = []
    for letter, (left, _, right, _) in zip(letters, boxes, strict=True):
        canvas = Image.new("L", (round(side), round(side)), 0)
        corner = ((side - left - right) / 2, (side - top - bottom) / 2)
        ImageDraw.Draw(canvas).text(corner, letter, fill=255, font=font)
        images.append(np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX)))
    return images
