"""Keys of Cloud KMS. A key ring and a key are never deleted in Google Cloud, so their names can't be used again."""

from __future__ import annotations

from localcloud.gcp.kind import Kind, Reference, RefusedError, World, matching, one, one_of, words
from localcloud.provider import Properties

KEY = Reference("{name}", holds=False, in_region=False)
"""A key is named by its whole path. That its region fits is told by `needs_key`, in the words of who uses it."""
CRYPTO_KEY = "gcp:kms/cryptoKey:CryptoKey"
DAY_S = 24 * 3_600
ENCRYPTER = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
GRANTS = (
    "gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember",
    "gcp:kms/cryptoKeyIAMBinding:CryptoKeyIAMBinding",
    "gcp:projects/iAMMember:IAMMember",
)


def needs_key(world: World, key: str, agent: str, location: str, action: str) -> None:
    """Refuse a key that is in another region, or that the service's agent may not use."""
    place = key.split("/")[3]
    if place not in (location, "global"):
        raise RefusedError(
            400, f"Cloud KMS key {key} is in location {place}; the resource is in {location}, and both must be the same"
        )
    for grant in world.of(*GRANTS):
        members = grant.inputs.get("members") or [grant.inputs.get("member")]
        on_it = key in (*grant.part_of, grant.inputs.get("cryptoKeyId")) or grant.token == GRANTS[2]
        if on_it and grant.inputs["role"] == ENCRYPTER and f"serviceAccount:{agent}" in members:
            return
    raise RefusedError(
        403,
        f"Permission denied on Cloud KMS key {key} ({action}): grant {ENCRYPTER} to the service agent "
        f"serviceAccount:{agent} first",
        "forbidden",
    )


def _rotation(value: str) -> str | None:
    found = matching(r"[0-9]+(\.[0-9]{1,9})?s", "seconds such as 7776000s")(value)
    return found or (None if float(value[:-1]) >= DAY_S else "expected at least a day, 86400s")


def _key(world: World, inputs: Properties) -> Properties:
    path = "{keyRing}/cryptoKeys/{name}".format(**inputs)
    algorithm = one(inputs, "versionTemplate.algorithm", "GOOGLE_SYMMETRIC_ENCRYPTION")
    level = one(inputs, "versionTemplate.protectionLevel", "SOFTWARE")
    return {
        "versionTemplate": {"algorithm": algorithm, "protectionLevel": level},
        "primaries": [{"name": f"{path}/cryptoKeyVersions/1", "state": "ENABLED"}],
    }


KINDS = (
    Kind(
        "gcp:kms/keyRing:KeyRing",
        "projects/{project}/locations/{location}/keyRings/{name}",
        words("location name project"),
        region="location",
        name_form=r"[a-zA-Z0-9_-]{1,63}",
        outlives=True,
    ),
    Kind(
        CRYPTO_KEY,
        "{keyRing}/cryptoKeys/{name}",
        words("destroyScheduledDuration keyRing labels name purpose rotationPeriod versionTemplate"),
        references={"keyRing": Reference("{name}", holds=False, in_region=False)},
        defaults={"purpose": "ENCRYPT_DECRYPT", "destroyScheduledDuration": "2592000s"},
        name_form=r"[a-zA-Z0-9_-]{1,63}",
        checks={
            "rotationPeriod": _rotation,
            "purpose": one_of("ENCRYPT_DECRYPT", "ASYMMETRIC_SIGN", "ASYMMETRIC_DECRYPT", "MAC"),
        },
        assigned=_key,
        outlives=True,
    ),
)
