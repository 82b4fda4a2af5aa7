"""The engine's marks in the values of its messages.

From Pulumi's Go SDK, which speaks this protocol for the engine: `sdk/go/common/resource/plugin/rpc.go` (what is not
known), `sdk/go/common/resource/sig/sig.go` (what a block is).
"""

from __future__ import annotations

SIGNATURE_KEY = "4dabf18193072939515e22adb298388d"
"""The field of a block that says that it is more than a block, such as a secret."""
SECRET_SIGNATURE = "1b47061264138c4ac30d75fd1eb44270"
UNKNOWN_TEXT = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
UNKNOWN = frozenset(
    (
        UNKNOWN_TEXT,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # a boolean
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # a number
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # an array
        "030794c1-ac77-496b-92df-f27374a8bd58",  # an asset
        "e48ece36-62e2-4504-bad9-02848725956a",  # an archive
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # an object
    )
)
"""Values in the place of what is not known before the update."""
