from gateway.sources.checksums import Checksum
from gateway.sources.objects import list_objects
from gateway.sources.source import RemoteFile

OBJECTS = [
    RemoteFile("m/a.json", 1, "t1", Checksum("md5", "0")),
    RemoteFile("m/1_Pooling/config.json", 2, "t2"),
    RemoteFile("m/", 0, "t3"),
    RemoteFile("m/b/", 0, "t4"),
]


def test_names_are_within_the_folder_and_folders_are_no_files() -> None:
    listing = list_objects("m/", OBJECTS)
    assert listing.files == (
        RemoteFile("a.json", 1, "t1", Checksum("md5", "0")),
        RemoteFile("1_Pooling/config.json", 2, "t2"),
    )


def test_the_revision_follows_from_what_is_there() -> None:
    revision = list_objects("m/", OBJECTS).revision
    assert revision == list_objects("m/", reversed(OBJECTS)).revision
    others = [
        OBJECTS[:1],
        [RemoteFile("m/a.json", 1, "other"), OBJECTS[1]],
        [RemoteFile("m/a.json", 3, "t1"), OBJECTS[1]],
        [*OBJECTS, RemoteFile("m/new.json", 1, "t")],
    ]
    assert all(list_objects("m/", other).revision != revision for other in others)


def test_what_is_not_fetched_makes_no_other_revision() -> None:
    others = [RemoteFile("m/README.md", 3, "t"), RemoteFile("m/logs/events.json", 3, "t")]
    assert list_objects("m/", [*OBJECTS, *others]).revision == list_objects("m/", OBJECTS).revision
