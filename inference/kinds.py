"""What a file is by its name, or by its first bytes where the name does not say."""

import posixpath
from typing import Literal

from clipsieve.heif import is_heif
from clipsieve.inference import lists
from clipsieve.inference.decode import image_extensions

Kind = Literal["image", "tar", "table", "unread", "plain", "unknown"]

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
TABLE_SUFFIXES = (".parquet", ".pq")

HEAD = 64
"""Bytes at the beginning of a file that `is_image` wants."""

_CONVERT = "convert it to JPEG or PNG"
_UNREAD = {
    "a raw photo": (
        "develop it to JPEG",
        "3fr arw cr2 cr3 crw dcr dng erf fff iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f",
    ),
    "a drawing": (_CONVERT, "ai cdr emf eps ps svg svgz wmf"),
    "a document": ("convert its pages to JPEG or PNG", "djvu doc docx odp odt pdf ppt pptx"),
    "a video": ("take images out of it", "3gp avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv webm wmv"),
    "in a format that is not read": (_CONVERT, "bpg exr flif hdp hdr jxl jxr kra psb wdp xcf"),
    "an archive": ("unpack it, or make a tar of it", "7z rar zip"),
}
_PLAIN_SUFFIXES = (
    "bash bat bib c cfg conf cpp css db go h htm html ini ipynb java js lock log md npy npz pkl pt pth py pyc rst rtf "
    "safetensors sh sql sqlite tex toml ts xml yaml yml"
)
_REASONS = {
    f".{suffix}": f"It is {what} (.{suffix}), which is not read; {advice}."
    for what, (advice, suffixes) in _UNREAD.items()
    for suffix in suffixes.split()
}
_PLAIN = frozenset(f".{suffix}" for suffix in _PLAIN_SUFFIXES.split())


def suffix_of(path: str) -> str:
    """The lower-case extension, with its dot; as `posixpath.splitext` has it, in a third of its time."""
    stem, dot, suffix = path.rpartition(".")
    if dot and stem and stem[-1] not in "/." and "/" not in suffix:
        return dot + suffix.lower()
    return posixpath.splitext(path)[1].lower()


def kind_of(path: str, images: frozenset[str]) -> Kind:
    """What a file is by its name.

    table   may be one of images or URLs, or a list; text and JSON count as such
    unread  somebody may mean it as an image, but it is not read; `reason_of` says why
    plain   certainly no image
    images  the extensions of images, as `decode.image_extensions` has them
    """
    suffix = suffix_of(path)
    if suffix in images:
        return "image"
    if suffix in _REASONS:
        return "unread"
    lower = path.lower()
    if lower.endswith(TAR_SUFFIXES):
        return "tar"
    if lower.endswith(lists.LIST_SUFFIXES):
        return "table"
    return "plain" if suffix in _PLAIN else "unknown"


def kinds_of_images() -> frozenset[str]:
    """See `decode.image_extensions`, without those that a reader of images knows but that mean something else."""
    return image_extensions() - _REASONS.keys()


def reason_of(path: str) -> str:
    """Why a file of kind "unread" is not read, in a sentence that says what to do."""
    return _REASONS[suffix_of(path)]


def is_image(head: bytes) -> bool:
    """Whether a file is an image that can be read, by its first HEAD bytes: JPEG, PNG, GIF, WebP, HEIC, AVIF, ..."""
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"qoif")):
        return True
    if head.startswith((b"8BPS\0\x01", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")):
        return True
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return True
    if head[:2] == b"BM":
        return head[6:10] == bytes(4) and head[14:18] in (b"\x28\0\0\0", b"\x6c\0\0\0", b"\x7c\0\0\0")
    return is_heif(head) or (head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"))
