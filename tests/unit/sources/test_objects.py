from gateway.sources.checksums import Checksum
from gateway.sources.objects import list_objects
from gateway.sources.source import RemoteFile

OBJECTS = [("m/a.json", 1, "t1"), ("m/b/c.json", 2, "t2"), ("m/", 0, "t3"), ("m/b/", 0, "t4")]


def test_names_are_within_the_folder_and_folders_are_no_files() -> None:
    listing = list_objects("m/", OBJECTS, {"m/a.json": Checksum("md5", "0")})
    assert listing.files == (
        RemoteFile("a.json", 1, "t1", Checksum("md5", "0")),
        RemoteFile("b/c.json", 2, "t2"),
    )


def test_the_revision_follows_from_what_is_there() -> None:
    revision = list_objects("m/", OBJECTS).revision
    assert revision == list_objects("m/", reversed(OBJECTS)).revision
    others = [
        OBJECTS[:1],
        [("m/a.json", 1, "other"), OBJECTS[1]],
        [("m/a.json", 3, "t1"), OBJECTS[1]],
        [*OBJECTS, ("m/new", 1, "t")],
    ]
    assert all(list_objects("m/", other).revision != revision for other in others)
